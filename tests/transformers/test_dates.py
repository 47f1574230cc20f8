"""Tables of dates."""

from __future__ import annotations

import pandas as pd
import pytest

from batch_nlp.transformers import DateParts, Tenure


@pytest.mark.parametrize(
    ("date", "parts"),
    [
        ("2024-01-01 00:00:00", [2024, 1, 0, 0, 1]),  # a Monday
        ("2024-03-01", [2024, 3, 4, 0, 1]),
        ("2023-12-30 23:59:59", [2023, 12, 5, 1, 4]),  # a Saturday
        ("2024-06-30", [2024, 6, 6, 1, 2]),  # a Sunday
    ],
)
def test_date_parts(date: str, parts: list[int]) -> None:
    rows = pd.DataFrame({"date": pd.to_datetime([date])})
    assert DateParts().transform(rows).drop(columns="date").iloc[0].tolist() == parts


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        ("2020-01-01", "2020-01-02", 1.0),
        ("2020-02-28 12:00", "2020-03-01", 1.5),
        ("2020-01-01", "2020-01-01", 0.0),
        ("2020-01-02", "2020-01-01", 0.0),
    ],
)
def test_tenure(start: str, end: str, days: float) -> None:
    rows = pd.DataFrame({"yelping_since": [pd.Timestamp(start)], "date": [pd.Timestamp(end)]})
    assert Tenure().transform(rows)["user_tenure_days"].item() == days
