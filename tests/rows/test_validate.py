"""Rows against their contract."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandera.errors import SchemaErrors

from batch_nlp.rows.validate import FAILURE_COLUMNS, validate
from batch_nlp.schemas import MESSAGE_FIELDS, USER_FIELDS, contract


def frame(*rows: dict[str, str | None]) -> pd.DataFrame:
    whole = [{"id": str(i), "text": "x"} | row for i, row in enumerate(rows)]
    return pd.DataFrame(whole, dtype="str")


def test_every_failure_of_a_row_is_told() -> None:
    verdict = validate(
        frame(
            {"stars": "9", "useful": "-1", "text": " \n", "date": "soon", "label": "good"},
            {"useful": "1.5", "id": None},
        ),
        MESSAGE_FIELDS,
    )
    assert verdict.accepted.empty
    told = verdict.failures.reset_index().fillna("").sort_values(["index", "column"])
    assert told.to_numpy().tolist() == [
        [0, "date", "ISO 8601 date between 1970 and 2100", "soon"],
        [0, "label", "0, 1, 2 or one of negative, neutral, positive", "good"],
        [0, "stars", "number from 1 to 5", "9"],
        [0, "text", "not blank", " \n"],
        [0, "useful", "whole number of at least 0", "-1"],
        [1, "id", "not missing", ""],
        [1, "useful", "whole number of at least 0", "1.5"],
    ]


def test_the_index_is_kept_on_both_sides() -> None:
    rows = frame({"stars": "1"}, {"stars": "0"}, {"stars": None}).set_axis([7, 3, 5])
    verdict = validate(rows, MESSAGE_FIELDS)
    assert verdict.accepted.index.tolist() == [7, 5]
    assert verdict.failures.index.tolist() == [3]


def test_columns_are_those_of_the_contract() -> None:
    verdict = validate(frame({"more": "y"}), MESSAGE_FIELDS)
    assert verdict.accepted.columns.tolist() == list(MESSAGE_FIELDS)
    assert verdict.accepted["useful"].isna().all()
    assert verdict.accepted["useful"].dtype == "float64"


@pytest.mark.parametrize("rows", [[], [{"stars": "0"}], [{"stars": "1"}]])
def test_the_types_do_not_depend_on_the_rows(rows: list[dict[str, str | None]]) -> None:
    empty = pd.DataFrame(columns=list(MESSAGE_FIELDS), dtype="str")
    verdict = validate(frame(*rows) if rows else empty, MESSAGE_FIELDS)
    assert verdict.accepted.dtypes.astype(str).to_dict() == {
        **dict.fromkeys(("id", "text", "user_id", "business_id"), "str"),
        **dict.fromkeys(("stars", "label", "useful", "funny", "cool"), "float64"),
        "date": "datetime64[us]",
    }
    assert verdict.failures.columns.tolist() == list(FAILURE_COLUMNS)


def test_the_frame_given_is_left_alone() -> None:
    rows = frame({"stars": "0"}, {"stars": "3"})
    before = rows.copy()
    validate(rows, MESSAGE_FIELDS)
    pd.testing.assert_frame_equal(rows, before)


def test_a_user_may_lack_everything_but_its_id() -> None:
    rows = pd.DataFrame({"user_id": ["u", None], "fans": [None, "1"]}, dtype="str")
    verdict = validate(rows, USER_FIELDS)
    assert verdict.accepted["user_id"].tolist() == ["u"]
    assert verdict.failures["check"].tolist() == ["not missing"]


ODD_TEXTS = [
    *("0", "1", "3", "5.0", "-1", "1.5", "1e2", "1e400", "nan", "NaN", "inf", "True", "none"),
    *("0x3", "1_000", "9" * 20, "18446744073709551616", "-9223372036854775809"),
    *("2020", "2020-01", "20200105", "2020-01-05", "2020-02-30", "2020-01-05T10:20:30Z"),
    *("2020-01-05T10:20:30.123456789+02:00", "9999-12-31", "1969-12-31", "0001-01-01"),
    *("now", "today", "NaT", "positive", "Neutral", "2.0"),
]
ODD = st.one_of(
    st.none(),
    st.sampled_from(ODD_TEXTS),
    st.text(max_size=4),
)


@settings(max_examples=6)
@given(st.lists(st.fixed_dictionaries(dict.fromkeys(MESSAGE_FIELDS, ODD)), min_size=2, max_size=4))
def test_a_row_alone_fares_as_it_does_among_others(rows: list[dict[str, str | None]]) -> None:
    whole = pd.DataFrame(rows, dtype="str")
    together = validate(whole, MESSAGE_FIELDS)
    for position in whole.index:
        alone = validate(whole.loc[[position]], MESSAGE_FIELDS)
        pd.testing.assert_frame_equal(
            alone.accepted, together.accepted.loc[together.accepted.index == position]
        )
        pd.testing.assert_frame_equal(
            alone.failures, together.failures.loc[together.failures.index == position]
        )
        # Accepted or rejected with a reason, and never both.
        assert len(alone.accepted) == int(alone.failures.empty)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                name: st.sampled_from(
                    [None, "", " ", "0", "1", "3", "7.5", "-1", "x", "2020-01-01"]
                )
                for name in MESSAGE_FIELDS
            }
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=20)
def test_what_passes_is_what_pandera_lets_pass(rows: list[dict[str, str | None]]) -> None:
    given_rows = pd.DataFrame(rows, dtype="str")
    failed: set[int] = set()
    for number in range(len(given_rows)):
        try:
            contract(MESSAGE_FIELDS).validate(given_rows.iloc[[number]], lazy=True)
        except SchemaErrors:
            failed.add(number)
    verdict = validate(given_rows, MESSAGE_FIELDS)
    assert set(verdict.failures.index) == failed
    assert verdict.accepted.index.tolist() == [
        number for number in range(len(rows)) if number not in failed
    ]
