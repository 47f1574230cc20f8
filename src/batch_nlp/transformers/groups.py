"""The step that tells how a group's rows looked in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from batch_nlp.transformers.base import LearningStep

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence


class GroupMeans(LearningStep):
    """Add, for each column, its mean over the training rows of the row's group.

    The mean of a small group says little, so each is drawn towards the mean of all rows
    (Micci-Barreca, 2001, with a prior of `smoothing` rows; "m-estimate")::

        (n * mean of the group + smoothing * mean of all) / (n + smoothing)

    where n counts the group's rows in which the column has a value. A group that is missing or
    was unseen in training has the mean of all rows. Never a label's column: a row's own value is
    part of its group's mean.

    Parameters
    ----------
    by : str
        Column that holds the group.
    columns : sequence of str
        Numeric columns. Each adds a float column ``<name>_mean_by_<by>``.
    smoothing : float, default=10.0
        Rows' worth of the mean of all rows that each group's mean is mixed with; 0 for none.

    Attributes
    ----------
    means_ : dict of str to dict
        For each column, the smoothed mean by group.
    overall_ : dict of str to float
        For each column, the mean of all training rows; NaN where all were missing.

    Examples
    --------
    >>> import pandas as pd
    >>> from batch_nlp.transformers import GroupMeans
    >>> means = GroupMeans(by="city", columns=["fans"], smoothing=2.0)
    >>> training = pd.DataFrame({"city": ["Tampa", "Tampa", "Reno"], "fans": [8.0, 6.0, 1.0]})
    >>> rows = pd.DataFrame({"city": ["Tampa", "Boise"], "fans": [0.0, 0.0]})
    >>> means.fit(training).transform(rows)["fans_mean_by_city"].tolist()
    [6.0, 5.0]
    """

    def __init__(self, *, by: str, columns: Sequence[str], smoothing: float = 10.0) -> None:
        self.by = by
        self.columns = columns
        self.smoothing = smoothing

    def _columns_needed(self) -> Sequence[str]:
        return [self.by, *self.columns]

    def _columns_added(self) -> Sequence[str]:
        return [f"{column}_mean_by_{self.by}" for column in self.columns]

    def _check_parameters(self) -> None:
        if self.smoothing < 0:
            raise ValueError(f"GroupMeans: smoothing must be at least 0; got {self.smoothing}.")

    def _learn(self, X: pd.DataFrame) -> None:
        groups = X[self.by].astype(object)
        self.means_: dict[str, dict[Hashable, float]] = {}
        self.overall_: dict[str, float] = {}
        for column in self.columns:
            values = pd.Series(self._numbers(X, column), index=X.index).dropna()
            overall = float(values.mean())
            by_group = values.groupby(groups.loc[X[column].notna()], sort=False).agg(
                ["sum", "count"]
            )
            smoothed = (by_group["sum"] + self.smoothing * overall) / (
                by_group["count"] + self.smoothing
            )
            self.means_[column] = smoothed.to_dict()
            self.overall_[column] = overall

    def _derive(self, X: pd.DataFrame) -> Mapping[str, Any]:
        groups = X[self.by].astype(object)
        added = {}
        for column, means in self.means_.items():
            found = groups.map(means).to_numpy(dtype=np.float64)
            added[f"{column}_mean_by_{self.by}"] = np.where(
                np.isnan(found), self.overall_[column], found
            )
        return added
