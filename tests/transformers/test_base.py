"""What the base classes refuse, and how columns are put together."""

from __future__ import annotations

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from batch_nlp.transformers import (
    CleanText,
    DateParts,
    FrequencyEncoder,
    MissingIndicators,
    PositiveFlags,
    QuantileLevels,
)


def test_an_array_is_refused() -> None:
    with pytest.raises(TypeError, match="CleanText takes a pandas DataFrame; got ndarray"):
        CleanText().transform(pd.DataFrame({"text": ["a"]}).to_numpy())


def test_one_name_is_no_list_of_names() -> None:
    step = MissingIndicators(columns="city")
    with pytest.raises(ValueError, match="columns must be a sequence of names; got 'city'"):
        step.transform(pd.DataFrame({"city": ["Reno"]}))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (PositiveFlags(columns=["city"]), "PositiveFlags needs column 'city' to be numeric"),
        (QuantileLevels(columns=["city"]), "QuantileLevels needs column 'city' to be numeric"),
        (DateParts(column="city"), "DateParts needs column 'city' to hold dates"),
    ],
)
def test_unfit_dtype_is_named(step: object, message: str) -> None:
    with pytest.raises(ValueError, match=message + r".*; its dtype is str\."):
        step.fit_transform(pd.DataFrame({"city": ["Reno"]}))


def test_nothing_can_be_learned_from_no_row() -> None:
    rows = pd.DataFrame({"city": pd.Series([], dtype="str")})
    with pytest.raises(ValueError, match="FrequencyEncoder needs at least one row to learn from"):
        FrequencyEncoder(columns=["city"]).fit(rows)


def test_failed_fit_leaves_the_step_unfitted() -> None:
    step = QuantileLevels(columns=["city"])
    with pytest.raises(ValueError, match="numeric"):
        step.fit(pd.DataFrame({"city": ["Reno"]}))
    assert not hasattr(step, "feature_names_in_")


def test_column_of_the_same_name_is_replaced_where_it_stands() -> None:
    rows = pd.DataFrame({"text": ["so  good"], "stars": [5.0]})
    step = CleanText(output="text").fit(rows)
    expected = pd.DataFrame({"text": ["so good"], "stars": [5.0]})
    assert_frame_equal(step.transform(rows), expected)
    assert step.get_feature_names_out().tolist() == ["text", "stars"]


def test_many_columns_do_not_fragment_the_frame() -> None:
    columns = [f"c{i}" for i in range(300)]
    rows = pd.concat([pd.Series([0.0], name=name) for name in columns], axis="columns")
    for _ in range(3):  # pandas warns, and a warning is an error here, above a hundred blocks
        rows = MissingIndicators(columns=list(rows)).transform(rows)
    assert rows.shape == (1, 1200)


def test_names_out_of_named_input() -> None:
    assert MissingIndicators(columns=["b"]).get_feature_names_out(["a", "b"]).tolist() == [
        "a",
        "b",
        "b_missing",
    ]
