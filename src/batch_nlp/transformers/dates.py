"""Steps that read dates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batch_nlp.transformers.base import RowLocalStep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

DATE_PARTS = ("year", "month", "day_of_week", "weekend", "quarter")


class DateParts(RowLocalStep):
    """Add the parts of a date, each a float column; a missing date gives NaN.

    The added columns are ``date_year``, ``date_month`` (1 to 12), ``date_day_of_week`` (Monday
    is 0), ``date_weekend`` (1 on Saturday and Sunday, else 0) and ``date_quarter`` (1 to 4).

    Parameters
    ----------
    column : str, default="date"
        Dates, of a datetime64 dtype.
    prefix : str, default="date_"
        What the names of the added columns begin with.

    Examples
    --------
    >>> import pandas as pd
    >>> from batch_nlp.transformers import DateParts
    >>> rows = pd.DataFrame({"date": pd.to_datetime(["2021-05-15 18:30:00"])})
    >>> DateParts().transform(rows).drop(columns="date").to_numpy()
    array([[2.021e+03, 5.000e+00, 5.000e+00, 1.000e+00, 2.000e+00]])
    """

    def __init__(self, *, column: str = "date", prefix: str = "date_") -> None:
        self.column = column
        self.prefix = prefix

    def _columns_needed(self) -> Sequence[str]:
        return [self.column]

    def _columns_added(self) -> Sequence[str]:
        return [self.prefix + part for part in DATE_PARTS]

    def _derive(self, X: pd.DataFrame) -> Mapping[str, Any]:
        dates = self._dates(X, self.column)
        day = dates.dt.day_of_week.to_numpy(dtype=np.float64)
        parts = {
            "year": dates.dt.year.to_numpy(dtype=np.float64),
            "month": dates.dt.month.to_numpy(dtype=np.float64),
            "day_of_week": day,
            "weekend": np.where(np.isnan(day), np.nan, day >= 5),
            "quarter": dates.dt.quarter.to_numpy(dtype=np.float64),
        }
        return {self.prefix + part: parts[part] for part in DATE_PARTS}


class Tenure(RowLocalStep):
    """Add the days between two dates, never fewer than none.

    Parameters
    ----------
    start : str, default="yelping_since"
        Dates on which the tenure begins, of a datetime64 dtype.
    end : str, default="date"
        Dates at which it is measured.
    output : str, default="user_tenure_days"
        Name of the added float column: days with their fraction, 0 where `end` is before
        `start`, NaN where either is missing.

    Examples
    --------
    >>> import pandas as pd
    >>> from batch_nlp.transformers import Tenure
    >>> since = pd.to_datetime(["2020-01-01 12:00", "2022-01-01 12:00"])
    >>> rows = pd.DataFrame({"yelping_since": since, "date": pd.Timestamp("2020-01-03")})
    >>> Tenure().transform(rows)["user_tenure_days"].tolist()
    [1.5, 0.0]
    """

    def __init__(
        self,
        *,
        start: str = "yelping_since",
        end: str = "date",
        output: str = "user_tenure_days",
    ) -> None:
        self.start = start
        self.end = end
        self.output = output

    def _columns_needed(self) -> Sequence[str]:
        return [self.start, self.end]

    def _columns_added(self) -> Sequence[str]:
        return [self.output]

    def _derive(self, X: pd.DataFrame) -> Mapping[str, Any]:
        seconds = (self._dates(X, self.end) - self._dates(X, self.start)).dt.total_seconds()
        return {self.output: seconds.clip(lower=0.0).to_numpy(dtype=np.float64) / 86_400}
