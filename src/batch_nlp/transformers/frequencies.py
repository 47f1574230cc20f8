"""The step that replaces a category by how common it was in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batch_nlp.transformers.base import LearningStep

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import pandas as pd


class FrequencyEncoder(LearningStep):
    """Add, for each column, the share of the training rows that had the row's value.

    A value unseen in training has the share 0. A missing value stays missing: how often a value
    was missing says nothing of this one.

    Parameters
    ----------
    columns : sequence of str
        Columns to encode. Each adds a float column ``<name><suffix>``.
    suffix : str, default="_frequency"
        What the names of the added columns end with.
    normalize : bool, default=True
        Whether to add shares of all training rows, 0 to 1, or else their number.

    Attributes
    ----------
    frequencies_ : dict of str to dict
        For each column, the share or number of training rows by value.

    Examples
    --------
    >>> import pandas as pd
    >>> from batch_nlp.transformers import FrequencyEncoder
    >>> encoder = FrequencyEncoder(columns=["city"])
    >>> encoder = encoder.fit(pd.DataFrame({"city": ["Tampa", "Reno", "Tampa", None]}))
    >>> rows = pd.DataFrame({"city": ["Tampa", "Boise", None]})
    >>> encoder.transform(rows)["city_frequency"].to_numpy()
    array([0.5, 0. , nan])
    """

    def __init__(
        self, *, columns: Sequence[str], suffix: str = "_frequency", normalize: bool = True
    ) -> None:
        self.columns = columns
        self.suffix = suffix
        self.normalize = normalize

    def _columns_needed(self) -> Sequence[str]:
        return self.columns

    def _columns_added(self) -> Sequence[str]:
        return [column + self.suffix for column in self.columns]

    def _learn(self, X: pd.DataFrame) -> None:
        rows = len(X) if self.normalize else 1
        self.frequencies_: dict[str, dict[Hashable, float]] = {
            column: (X[column].astype(object).value_counts() / rows).to_dict()
            for column in self.columns
        }

    def _derive(self, X: pd.DataFrame) -> Mapping[str, Any]:
        added = {}
        for column, frequencies in self.frequencies_.items():
            values = X[column].astype(object)
            shares = values.map(frequencies).to_numpy(dtype=np.float64)
            unseen = np.isnan(shares) & values.notna().to_numpy()
            added[column + self.suffix] = np.where(unseen, 0.0, shares)
        return added
