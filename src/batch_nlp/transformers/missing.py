"""The step that tells where values are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batch_nlp.transformers.base import RowLocalStep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd


class MissingIndicators(RowLocalStep):
    """Add, for each column, whether its value is missing: 1 or 0, as a float.

    Unlike scikit-learn's ``MissingIndicator``, the columns are those named, whatever the
    training rows have, so that the step needs no fitting.

    Parameters
    ----------
    columns : sequence of str
        Columns of any dtype. Each adds a float column ``<name><suffix>``.
    suffix : str, default="_missing"
        What the names of the added columns end with.

    Examples
    --------
    >>> import pandas as pd
    >>> from batch_nlp.transformers import MissingIndicators
    >>> rows = pd.DataFrame({"city": ["Tampa", None]})
    >>> MissingIndicators(columns=["city"]).transform(rows)["city_missing"].tolist()
    [0.0, 1.0]
    """

    def __init__(self, *, columns: Sequence[str], suffix: str = "_missing") -> None:
        self.columns = columns
        self.suffix = suffix

    def _columns_needed(self) -> Sequence[str]:
        return self.columns

    def _columns_added(self) -> Sequence[str]:
        return [column + self.suffix for column in self.columns]

    def _derive(self, X: pd.DataFrame) -> Mapping[str, Any]:
        return {
            column + self.suffix: X[column].isna().to_numpy(dtype=np.float64)
            for column in self.columns
        }
