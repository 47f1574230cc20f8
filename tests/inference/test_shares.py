"""The band of the classes' shares."""

from __future__ import annotations

import pytest

from batch_nlp.errors import InputError
from batch_nlp.inference.shares import ShareRule


@pytest.mark.parametrize(
    ("counts", "outside"),
    [
        ([100, 100, 800], []),  # the low edge belongs to the band
        ([99, 101, 800], ["negative"]),
        ([0, 100, 900], ["negative"]),  # the high edge too; never predicted is 0 %
        ([50, 49, 901], ["negative", "neutral", "positive"]),
        ([0, 0, 1000], ["negative", "neutral", "positive"]),
        ([333, 333, 334], []),
    ],
)
def test_the_band(counts: list[int], outside: list[str]) -> None:
    verdict = ShareRule().judge(counts, {})
    assert verdict.outside == outside
    assert verdict.verdict == ("outside" if outside else "inside")
    assert verdict.is_outside == bool(outside)
    assert sum(verdict.shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("n_rows", "verdict"), [(99, "too few rows"), (100, "outside"), (0, "too few rows")]
)
def test_few_rows_prove_nothing(n_rows: int, verdict: str) -> None:
    judged = ShareRule(min_rows=100).judge([0, 0, n_rows], {})
    assert judged.verdict == verdict
    assert judged.is_outside == (verdict == "outside")
    assert judged.n_rows == n_rows
    assert judged.shares["positive"] == (1 if n_rows else 0)


def test_an_edge_that_floats_cannot_hit_exactly() -> None:
    # 3 / 30 and 27 / 30 are the edges themselves.
    assert ShareRule(min_rows=1).judge([3, 0, 27], {}).outside == ["neutral"]


def test_a_band_of_ones_own() -> None:
    rule = ShareRule(low=0, high=1, min_rows=1)
    assert not rule.judge([0, 0, 5], {}).is_outside
    assert ShareRule(low=0.3, high=0.4, min_rows=1).judge([2, 3, 5], {}).outside == [
        "negative",
        "positive",
    ]


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.9), (0.1, 1.1), (0.5, 0.5), (0.9, 0.1)])
def test_a_band_that_is_none(low: float, high: float) -> None:
    with pytest.raises(InputError, match=r"inference\.shares needs 0 <= low < high <= 1"):
        ShareRule(low=low, high=high)


def test_the_record_has_all_that_the_verdict_rests_on() -> None:
    plain = ShareRule().judge([10, 20, 70], {"negative": 0.2}).to_dict()
    assert plain == {
        "verdict": "inside",
        "n_rows": 100,
        "shares": {"negative": 0.1, "neutral": 0.2, "positive": 0.7},
        "training_shares": {"negative": 0.2},
        "outside": [],
        "low": 0.1,
        "high": 0.9,
    }
