"""Names and contracts."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pytest

from batch_nlp.schemas import (
    JOINED_FIELDS,
    LEAKING,
    MESSAGE_FIELDS,
    PREDICTIONS,
    REFERENCE_FIELDS,
    REFERENCE_KEYS,
    TARGETS,
    Field,
    Kind,
    contract,
    joined_name,
    parse,
    read_and_check,
    typed_schema,
)


def test_no_average_that_holds_the_review_is_ever_read() -> None:
    assert "average_stars" not in REFERENCE_FIELDS["user"]
    assert "stars" not in REFERENCE_FIELDS["business"]
    assert not set(LEAKING) & set(JOINED_FIELDS)


def test_names_after_the_join_are_distinct() -> None:
    names = [
        joined_name(table, column)
        for table, fields in REFERENCE_FIELDS.items()
        for column in fields
        if column != REFERENCE_KEYS[table]
    ]
    assert len({*names, *MESSAGE_FIELDS}) == len(names) + len(MESSAGE_FIELDS) == len(JOINED_FIELDS)
    clashes = {"review_count_user", "review_count_business", "useful_user"}
    assert clashes <= set(names)
    assert "fans" in names


def test_only_an_id_and_a_text_must_be_there() -> None:
    assert [name for name, field in JOINED_FIELDS.items() if field.required] == ["id", "text"]
    assert set(TARGETS) < set(MESSAGE_FIELDS)


@pytest.mark.parametrize(
    ("kind", "texts", "values"),
    [
        (Kind.COUNT, ["3", "5.0", "1e2", " 7 "], [3, 5, 100, 7]),
        (Kind.FLAG, ["0", "1.0"], [0, 1]),
        (Kind.NUMBER, ["-1.5", "2"], [-1.5, 2]),
        (Kind.STARS, ["1", "4.5"], [1, 4.5]),
        (Kind.LABEL, ["negative", " Neutral", "POSITIVE", "0", "1.0"], [0, 1, 2, 0, 1]),
    ],
)
def test_numbers(kind: Kind, texts: list[str], values: list[float]) -> None:
    column = pd.Series([*texts, None], dtype="str")
    parsed = parse(column, kind)
    assert parsed.dtype == "float64"
    assert parsed.tolist()[:-1] == values
    assert pd.isna(parsed.iloc[-1])
    contract({"c": Field(kind)}).validate(column.to_frame("c"))


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (Kind.COUNT, ["-1", "1.5", "many", "nan", "inf"]),
        (Kind.FLAG, ["2", "0.5", "true"]),
        (Kind.NUMBER, ["x", "inf", "NaN"]),
        (Kind.STARS, ["0", "0.9", "5.1", "five"]),
        (Kind.LABEL, ["3", "-1", "0.5", "good"]),
        (Kind.DATE, ["2020-02-30", "1969-12-31", "2101-01-01", "now", "today", "1/2/2020", "NaT"]),
    ],
)
def test_what_is_not_acceptable(kind: Kind, texts: list[str]) -> None:
    from pandera.errors import SchemaErrors

    for text in texts:
        with pytest.raises(SchemaErrors):
            contract({"c": Field(kind)}).validate(
                pd.DataFrame({"c": [text]}, dtype="str"), lazy=True
            )


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("name", ["c", "text"])
@pytest.mark.parametrize("kind", list(Kind))
def test_what_is_checked_at_once_is_what_the_contract_says(
    kind: Kind, name: str, required: bool
) -> None:
    from pandera.errors import SchemaErrors

    values = [
        "",
        " \t\u2003",
        "0",
        "1",
        "2.5",
        "9",
        "-1",
        "1e400",
        "nan",
        "positive",
        "x",
        "2020-01-02",
    ]
    texts = pd.Series([*values, "2101-01-01", None], dtype="str")
    field = Field(kind, required=required)
    parsed, fine = read_and_check(texts, name, field)
    assert parsed.equals(parse(texts, kind))
    accepted = []
    for place in range(len(texts)):
        try:
            contract({name: field}).validate(texts[[place]].to_frame(name), lazy=True)
            accepted.append(True)
        except SchemaErrors:
            accepted.append(False)
    assert fine.tolist() == accepted


def test_dates_are_utc_and_of_one_type() -> None:
    texts = ["2020-01-01", "2020-01-01T10:00:00+02:00", "2020-01-01 10:00:00.1234567", None]
    dates = parse(pd.Series(texts, dtype="str"), Kind.DATE)
    assert dates.dtype == "datetime64[us]"
    assert dates.astype(str).tolist()[:3] == [
        "2020-01-01 00:00:00.000000",
        "2020-01-01 08:00:00.000000",
        "2020-01-01 10:00:00.123456",
    ]
    assert dates.isna().tolist() == [False, False, False, True]


@pytest.mark.parametrize("kind", list(Kind))
def test_a_column_without_values_has_its_type(kind: Kind) -> None:
    schema = typed_schema({"c": Field(kind)})
    for texts in ([], [None, None]):
        parsed = parse(pd.Series(texts, dtype="str"), kind)
        expected = schema.empty_table().to_pandas()["c"].dtype
        assert str(parsed.dtype) == str(expected)
        assert parsed.isna().all()


def test_predictions_are_what_is_promised() -> None:
    assert PREDICTIONS.names == [
        "id",
        "prediction",
        "label",
        "proba_negative",
        "proba_neutral",
        "proba_positive",
        "model_version",
        "run_id",
    ]
    assert PREDICTIONS.field("prediction").type == pa.int64()
