"""Steps that read what is known of the person who wrote, and how a message was received."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from batch_nlp.transformers.base import RowLocalStep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

# Yelp's files write 2020 as "20,20": the pair is one year, and the comma inside it is none.
_YEAR = re.compile(r"\b(?:20,\s?\d\d|\d{4})\b")


def _count_years(elite: str) -> int:
    return len({year.replace(",", "").replace(" ", "") for year in _YEAR.findall(elite)})


class EliteYears(RowLocalStep):
    """Add the number of distinct years in which a user was elite.

    An empty text is a user who never was (0); a missing one is a user of whom nothing is known,
    and stays missing. ``"20,20"`` is how the files write 2020, and counts as that one year.

    Parameters
    ----------
    column : str, default="elite"
        Years as text, separated by commas.
    output : str, default="elite_years"
        Name of the added float column.

    Examples
    --------
    >>> import pandas as pd
    >>> from batch_nlp.transformers import EliteYears
    >>> users = pd.DataFrame({"elite": ["2018,2019,20,20", "", None]})
    >>> EliteYears().transform(users)["elite_years"].to_numpy()
    array([ 3.,  0., nan])

    A column that is not there is named:

    >>> EliteYears().transform(  # doctest: +IGNORE_EXCEPTION_DETAIL
    ...     pd.DataFrame({"text": ["Good."]})
    ... )
    Traceback (most recent call last):
    ...
    MissingColumnError: EliteYears needs columns ['elite'], which the input lacks; it has ['text'].
    """

    def __init__(self, *, column: str = "elite", output: str = "elite_years") -> None:
        self.column = column
        self.output = output

    def _columns_needed(self) -> Sequence[str]:
        return [self.column]

    def _columns_added(self) -> Sequence[str]:
        return [self.output]

    def _derive(self, X: pd.DataFrame) -> Mapping[str, Any]:
        elite = X[self.column].astype(object)
        counts = {value: _count_years(value) for value in elite.dropna().unique()}
        return {self.output: elite.map(counts).to_numpy(dtype=np.float64)}


class PositiveFlags(RowLocalStep):
    """Add, for each count, whether it is above zero: 1 or 0, and NaN where it is missing.

    Parameters
    ----------
    columns : sequence of str, default=("useful", "funny", "cool")
        Numeric columns. Each adds a float column ``<prefix><name>``.
    prefix : str, default="has_"
        What the names of the added columns begin with.

    Examples
    --------
    >>> import pandas as pd
    >>> from batch_nlp.transformers import PositiveFlags
    >>> rows = pd.DataFrame({"useful": [3.0, 0.0, None]})
    >>> PositiveFlags(columns=["useful"]).transform(rows)["has_useful"].to_numpy()
    array([ 1.,  0., nan])
    """

    def __init__(
        self, *, columns: Sequence[str] = ("useful", "funny", "cool"), prefix: str = "has_"
    ) -> None:
        self.columns = columns
        self.prefix = prefix

    def _columns_needed(self) -> Sequence[str]:
        return self.columns

    def _columns_added(self) -> Sequence[str]:
        return [self.prefix + column for column in self.columns]

    def _derive(self, X: pd.DataFrame) -> Mapping[str, Any]:
        added = {}
        for column in self.columns:
            values = self._numbers(X, column)
            added[self.prefix + column] = np.where(np.isnan(values), np.nan, values > 0)
        return added
