"""Small tables of group means."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from batch_nlp.transformers import GroupMeans

NAN = float("nan")
TRAINING = pd.DataFrame(
    {"city": ["A", "A", "B", "C", None], "fans": [2.0, 4.0, 9.0, NAN, 5.0]}, index=[1, 1, 2, 3, 1]
)  # the mean of all is 5


@pytest.mark.parametrize(
    ("smoothing", "a", "b"),
    [(0.0, 3.0, 9.0), (2.0, (2 * 3 + 2 * 5) / 4, (9 + 2 * 5) / 3), (1e12, 5.0, 5.0)],
)
def test_smoothing(smoothing: float, a: float, b: float) -> None:
    step = GroupMeans(by="city", columns=["fans"], smoothing=smoothing).fit(TRAINING)
    assert step.means_["fans"] == pytest.approx({"A": a, "B": b})
    assert step.overall_ == {"fans": 5.0}


def test_group_without_a_value_has_the_mean_of_all() -> None:
    out = GroupMeans(by="city", columns=["fans"], smoothing=0.0).fit_transform(TRAINING)
    assert out["fans_mean_by_city"].tolist() == [3.0, 3.0, 9.0, 5.0, 5.0]


def test_column_missing_throughout_stays_missing() -> None:
    rows = pd.DataFrame({"city": ["A"], "fans": [NAN]})
    out = GroupMeans(by="city", columns=["fans"]).fit_transform(rows)
    assert math.isnan(out["fans_mean_by_city"].item())


def test_negative_smoothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"smoothing must be at least 0; got -1\.0"):
        GroupMeans(by="city", columns=["fans"], smoothing=-1.0).fit(TRAINING)
