"""The step that drops columns which repeat another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from batch_nlp.transformers.base import LearningStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

METHODS = ("pearson", "spearman")
_FEWEST_ROWS = 3  # two rows always lie on a line
_BLOCK_ROWS = 8192


def _standardized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one column with mean 0 and variance 1, NaN where missing; a constant one is 0."""
    present = np.isfinite(values)
    known = values[present]
    result = np.full(len(values), np.nan)
    varies = len(known) > 0 and known.min() < known.max() and known.std() > 0
    result[present] = (known - known.mean()) / known.std() if varies else 0.0
    return result


def pearson(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Pearson's correlation of each pair of columns over the rows where both are present.

    It comes from sums of products alone, taken in blocks of rows: a few matrix products instead
    of a pass over the rows for each pair.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns)
        Columns; NaN and infinity count as missing.

    Returns
    -------
    ndarray of shape (n_columns, n_columns)
        Correlations, -1 to 1; NaN where fewer than three rows have both, or one column is
        constant over them.
    """
    columns = values.shape[1]
    standard = np.empty(values.shape, order="F")
    for column in range(columns):
        standard[:, column] = _standardized(values[:, column])
    products, counts, sums, squares = np.zeros((4, columns, columns))
    for begin in range(0, len(standard), _BLOCK_ROWS):
        block = standard[begin : begin + _BLOCK_ROWS]
        present = ~np.isnan(block)
        filled = np.where(present, block, 0.0)
        products += filled.T @ filled
        if present.all():
            counts += len(block)
            sums += filled.sum(axis=0)[:, None]
            squares += (filled**2).sum(axis=0)[:, None]
        else:
            mask = present.astype(np.float64)
            counts += mask.T @ mask
            sums += filled.T @ mask
            squares += (filled**2).T @ mask
    # sums[i, j] is the sum of column i over the rows that column j has, so its transpose is j's.
    shared = np.maximum(counts, 1.0)
    covariance = products / shared - (sums / shared) * (sums / shared).T
    variance = squares / shared - (sums / shared) ** 2
    # Rounding leaves a constant's variance near 1e-16 of the column's, which is 1.
    variance[(counts < _FEWEST_ROWS) | (variance < 1e-12)] = np.nan
    return np.clip(covariance / np.sqrt(variance * variance.T), -1.0, 1.0)


def spearman(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Spearman's rank correlation of each pair of columns, as `pearson` does its own."""
    if np.isfinite(values).all():
        return pearson(pd.DataFrame(values).rank().to_numpy())
    # The ranks of a pair are those among the rows that both have, so each pair is its own work.
    finite = pd.DataFrame(np.where(np.isfinite(values), values, np.nan))
    return finite.corr(method="spearman", min_periods=_FEWEST_ROWS).to_numpy()


class DropCorrelated(LearningStep):
    """Drop numeric columns that nearly repeat an earlier one.

    Columns are judged in their order: one goes when its correlation with an earlier column that
    stays is above the threshold, in either direction. So no two columns that stay are correlated
    above it, and each that goes has one that stays in its place. Missing values are left out
    pair by pair. A constant column correlates with nothing and stays; scikit-learn's
    ``VarianceThreshold`` is for those.

    Parameters
    ----------
    threshold : float, default=0.95
        Largest absolute correlation that two columns may both stay with, 0 to 1.
    method : {"pearson", "spearman"}, default="pearson"
        Linear correlation, or that of the ranks. Ranks of columns with missing values are slow.

    Attributes
    ----------
    dropped_ : list of str
        Columns that go, in the input's order. `transform` returns all the others seen in `fit`.

    Examples
    --------
    >>> import pandas as pd
    >>> from batch_nlp.transformers import DropCorrelated
    >>> rows = pd.DataFrame({"words": [1.0, 2.0, 5.0], "characters": [4.0, 8.0, 21.0],
    ...                      "digits": [0.0, 3.0, 0.0]})
    >>> DropCorrelated().fit(rows).dropped_
    ['characters']
    """

    def __init__(self, *, threshold: float = 0.95, method: str = "pearson") -> None:
        self.threshold = threshold
        self.method = method

    def _columns_needed(self) -> Sequence[str]:
        return ()  # `fit` takes what comes, `transform` what `fit` saw

    def _check_parameters(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(
                f"DropCorrelated: threshold must be from 0 to 1; got {self.threshold}."
            )
        if self.method not in METHODS:
            raise ValueError(
                f"DropCorrelated: method must be one of {METHODS}; got {self.method!r}."
            )

    def _learn(self, X: pd.DataFrame) -> None:
        values = np.empty(X.shape, order="F")
        for i, column in enumerate(X.columns):
            values[:, i] = self._numbers(X, column)
        correlations = (pearson if self.method == "pearson" else spearman)(values)
        above = np.abs(correlations) > self.threshold
        stays: list[int] = []
        for position in range(len(X.columns)):
            if not above[position, stays].any():
                stays.append(position)
        self.dropped_: list[str] = X.columns.delete(stays).tolist()

    def _apply(self, X: pd.DataFrame) -> pd.DataFrame:
        self._require(X, self.feature_names_in_)
        return X[self._names_out(list(self.feature_names_in_))]

    def _names_out(self, names: list[str]) -> list[str]:
        return [name for name in names if name not in self.dropped_]
