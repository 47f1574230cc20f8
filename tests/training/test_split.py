"""Which rows judge the model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_nlp.errors import InputError
from batch_nlp.training.split import Split

N = 200


@pytest.fixture
def dates() -> pd.Series:
    days = np.random.default_rng(0).permutation(N)
    return pd.Series(pd.Timestamp("2020-01-01") + pd.to_timedelta(days, unit="D"))


@pytest.fixture
def texts() -> pd.Series:
    return pd.Series([f"text {i}" for i in range(N)])


@pytest.fixture
def classes() -> np.ndarray:
    return np.random.default_rng(1).choice(3, N, p=[0.2, 0.1, 0.7])


def test_the_newest_are_held_out(dates: pd.Series, texts: pd.Series, classes: np.ndarray) -> None:
    held_out = Split().held_out(dates, texts, classes)
    assert held_out.sum() == N // 5
    assert dates[held_out].min() > dates[~held_out].max()


def test_a_text_among_the_newest_is_held_out_everywhere(
    dates: pd.Series, texts: pd.Series, classes: np.ndarray
) -> None:
    oldest, newest = dates.idxmin(), dates.idxmax()
    texts[oldest] = texts[newest]
    held_out = Split(by="time").held_out(dates, texts, classes)
    assert held_out[oldest]
    assert held_out.sum() == N // 5 + 1
    others = np.arange(N) != oldest
    assert dates[held_out & others].min() > dates[~held_out].max()


def test_of_equally_new_rows_the_later_are_held_out(classes: np.ndarray) -> None:
    dates = pd.Series([pd.Timestamp("2020-01-01")] * 10)
    held_out = Split(by="time").held_out(dates, pd.Series(list("abcdefghij")), classes[:10])
    assert np.flatnonzero(held_out).tolist() == [8, 9]


@pytest.mark.parametrize("share", [0.1, 0.15, 0.25, 0.3, 0.4, 0.45, 0.5])
def test_a_random_share_has_the_shares_of_the_classes(
    texts: pd.Series, classes: np.ndarray, share: float
) -> None:
    none = pd.Series([pd.NaT] * N)
    held_out = Split(test_share=share).held_out(none, texts, classes)
    assert held_out.mean() == pytest.approx(share, abs=0.02)
    for label in range(3):
        assert (classes[held_out] == label).mean() == pytest.approx(
            (classes == label).mean(), abs=0.05
        )


def test_the_seed_decides_the_random_share(texts: pd.Series, classes: np.ndarray) -> None:
    none = pd.Series([pd.NaT] * N)

    def held_out(seed: int) -> list[bool]:
        found: list[bool] = (
            Split(by="stratified", seed=seed).held_out(none, texts, classes).tolist()
        )
        return found

    assert held_out(1) == held_out(1)
    assert held_out(1) != held_out(2)


def test_dates_decide_where_nothing_else_does(dates: pd.Series) -> None:
    assert Split().method(dates) == "time"
    assert Split(by="stratified").method(dates) == "stratified"
    dates[3] = pd.NaT
    assert Split().method(dates) == "stratified"
    assert Split(by="time").method(dates) == "time"


def test_a_row_without_a_date_cannot_be_split_by_time(
    dates: pd.Series, texts: pd.Series, classes: np.ndarray
) -> None:
    dates[[3, 4]] = pd.NaT
    with pytest.raises(InputError, match="needs a date in every row; 2 of 200 have none"):
        Split(by="time").held_out(dates, texts, classes)


@pytest.mark.parametrize("share", [0, -0.2, 0.51, 1])
def test_a_share_that_leaves_nothing(share: float) -> None:
    with pytest.raises(InputError, match=r"test_share must be above 0 and at most 0\.5, got"):
        Split(test_share=share)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from("abcdefghijklm"), st.integers(0, 5))),
    st.sampled_from(["time", "stratified"]),
    st.sampled_from([0.1, 0.2, 0.5]),
)
def test_a_text_is_never_on_both_sides(rows: list[tuple[str, int]], by: str, share: float) -> None:
    rows = [*rows, *((text, 0) for text in "abcdefghijklm" * 2)]
    texts = pd.Series([text for text, _ in rows])
    days = pd.Series(pd.to_datetime([f"2020-01-0{day + 1}" for _, day in rows]))
    classes = np.arange(len(rows)) % 2
    held_out = Split(by=by, test_share=share).held_out(days, texts, classes)  # type: ignore[arg-type]
    assert len(held_out) == len(rows)
    assert not set(texts[held_out]) & set(texts[~held_out])


def test_too_few_different_texts_for_a_random_share_is_an_input_error() -> None:
    dates = pd.Series([pd.NaT] * 30, dtype="datetime64[us]")
    texts = pd.Series(["same"] * 28 + ["a", "b"])
    with pytest.raises(InputError, match=r"at least 5 different texts.*there are 3"):
        Split(by="stratified").held_out(dates, texts, [0, 1, 2] * 10)
