"""Tables of users and reactions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from batch_nlp.transformers import EliteYears, PositiveFlags


@pytest.mark.parametrize(
    ("elite", "years"),
    [
        ("", 0),
        ("2018", 1),
        ("2018,2019,20,20", 3),
        ("2018,2019,20,20,2021", 4),
        ("2019,2020,20,20", 2),
        ("2018, 2018, 2019", 2),
        ("20,20,20,21", 2),
        ("20", 0),
        ("None", 0),
    ],
)
def test_elite_years(elite: str, years: int) -> None:
    rows = pd.DataFrame({"elite": [elite]})
    assert EliteYears().transform(rows)["elite_years"].item() == years


def test_column_that_is_missing_throughout() -> None:
    rows = pd.DataFrame({"elite": pd.Series([None, None], dtype="str")})
    assert EliteYears().transform(rows)["elite_years"].isna().all()


def test_positive_flags() -> None:
    rows = pd.DataFrame({"useful": [0, 3], "funny": [0.5, np.nan], "cool": [-1.0, 0.0]})
    out = PositiveFlags().transform(rows)
    assert out["has_useful"].tolist() == [0.0, 1.0]
    assert out["has_funny"].tolist() == pytest.approx([1.0, np.nan], nan_ok=True)
    assert out["has_cool"].tolist() == [0.0, 0.0]
