"""The step that replaces a count by the level it reaches among the training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batch_nlp.transformers.base import LearningStep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray


class QuantileLevels(LearningStep):
    """Add, for each count, the quantile level it falls in among the training rows.

    A value's level is the number of edges below it, so a value on an edge belongs to the lower
    level. Unlike scikit-learn's ``KBinsDiscretizer``, missing values pass and ties leave no
    empty level.

    Parameters
    ----------
    columns : sequence of str
        Numeric columns to level. Each adds a float column ``<name>_level``; 0 is the
        lowest level and a missing value stays missing.
    n_levels : int, default=4
        Levels sought; ties in the data can leave fewer.

    Attributes
    ----------
    edges_ : dict of str to ndarray of shape (at most n_levels - 1,)
        Inner edges learned by `fit`, in each column's own unit; none for a column that was
        missing in every training row.

    Examples
    --------
    >>> import pandas as pd
    >>> from batch_nlp.transformers import QuantileLevels
    >>> levels = QuantileLevels(columns=["fans"], n_levels=4)
    >>> levels = levels.fit(pd.DataFrame({"fans": [0.0, 0.0, 0.0, 4.0, 8.0]}))
    >>> levels.edges_["fans"]
    array([0., 4.])
    >>> levels.transform(pd.DataFrame({"fans": [0.0, 3.0, 500.0, None]}))["fans_level"].to_numpy()
    array([ 0.,  1.,  2., nan])
    """

    def __init__(self, *, columns: Sequence[str], n_levels: int = 4) -> None:
        self.columns = columns
        self.n_levels = n_levels

    def _columns_needed(self) -> Sequence[str]:
        return self.columns

    def _columns_added(self) -> Sequence[str]:
        return [f"{column}_level" for column in self.columns]

    def _check_parameters(self) -> None:
        if self.n_levels < 2:
            raise ValueError(f"QuantileLevels: n_levels must be at least 2; got {self.n_levels}.")

    def _learn(self, X: pd.DataFrame) -> None:
        inner = np.linspace(0.0, 1.0, self.n_levels + 1)[1:-1]
        self.edges_: dict[str, NDArray[np.float64]] = {}
        for column in self.columns:
            values = self._numbers(X, column)
            values = values[~np.isnan(values)]
            self.edges_[column] = np.unique(np.quantile(values, inner) if len(values) else values)

    def _derive(self, X: pd.DataFrame) -> Mapping[str, Any]:
        added = {}
        for column, edges in self.edges_.items():
            values = self._numbers(X, column)
            levels = np.searchsorted(edges, values, side="left")
            added[f"{column}_level"] = np.where(np.isnan(values), np.nan, levels)
        return added
