"""From a batch of text to a batch of features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.pipeline import Pipeline

from batch_nlp.embedders import HashingEmbedder
from batch_nlp.errors import InputError
from batch_nlp.kernel import NOT_CONTENT, Kernel, fields_from_json, fields_to_json, vector_type
from batch_nlp.logs import Clock
from batch_nlp.schemas import JOINED_FIELDS, Field, Kind, text_schema
from batch_nlp.transformers import CleanText, TextEmbedder, TextStatistics


def kernel(embedder: Any = None, fields: dict[str, Field] | None = None, **spec: Any) -> Kernel:
    steps = [
        ("clean_text", CleanText()),
        ("text_statistics", TextStatistics()),
        ("embed", TextEmbedder(embedder=embedder)),
    ]
    return Kernel(fields or JOINED_FIELDS, Pipeline(steps), spec)


def batch(*rows: dict[str, str | None]) -> pa.RecordBatch:
    schema = text_schema(list(JOINED_FIELDS))
    return pa.RecordBatch.from_pylist([dict.fromkeys(schema.names) | row for row in rows], schema)


def test_one_row_in_one_row_out() -> None:
    made = kernel(HashingEmbedder(n_features=4))(
        batch(
            {"id": "a", "text": "Good <b>food</b>!", "stars": "5", "useful": "2"},
            {"id": "b", "text": None, "stars": "9"},
            {"id": "c", "text": "Bad", "label": "negative"},
        )
    )
    rows = made.to_pylist()
    assert [row["id"] for row in rows] == ["a", None, "c"]
    assert rows[0]["clean_text"] == "Good food !"
    assert rows[0]["text"] == "Good <b>food</b>!"
    assert (rows[0]["stars"], rows[0]["useful"], rows[2]["label"]) == (5.0, 2.0, 0.0)
    assert [len(row["failures"]) for row in rows] == [0, 2, 0]
    assert {case["column"]: case["check"] for case in rows[1]["failures"]} == {
        "text": "not missing",
        "stars": "number from 1 to 5",
    }
    assert {name for name, value in rows[1].items() if value is not None} == {"failures"}
    assert np.linalg.norm(rows[0]["vector"]) > 0


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"id": "a", "text": None}],
        [{"id": "a", "text": "x"}],
        [{"id": "a", "text": "x"}, {"id": "b", "text": "x"}],
    ],
)
@pytest.mark.parametrize("embedder", [None, HashingEmbedder(n_features=4)])
def test_the_schema_does_not_depend_on_the_rows(
    rows: list[dict[str, str | None]], embedder: Any
) -> None:
    one = kernel(embedder)
    made = one(batch(*rows))
    assert made.num_rows == len(rows)
    assert made.schema.names == [*one.schema.names, "vector", "failures"]
    assert made.schema.field("vector").type == vector_type(4 if embedder else 0)
    assert made.schema.equals(kernel(embedder)(batch({"id": "z", "text": "y"})).schema)


def test_who_wrote_it_and_what_it_was_given_never_enter() -> None:
    one = kernel()
    assert not set(NOT_CONTENT) & set(one.content)
    assert not set(NOT_CONTENT) & set(one.features.names)
    assert set(one.content) | set(NOT_CONTENT) == set(JOINED_FIELDS)
    rows = pd.DataFrame([{"id": "a", "text": "x", "stars": "1"}], dtype="str")
    other = rows.assign(id="b", stars="5", label="negative")
    pd.testing.assert_frame_equal(
        one.derive(one.check(rows).accepted), one.derive(one.check(other).accepted)
    )


def test_the_steps_are_measured_but_not_the_embedding() -> None:
    clock = Clock()
    one = kernel(HashingEmbedder())
    rows = one.check(pd.DataFrame([{"id": "a", "text": "x"}], dtype="str")).accepted
    assert not [name for name in one.derive(rows, clock) if name.startswith("embedding")]
    assert list(clock.seconds) == ["clean_text", "text_statistics"]


@pytest.mark.parametrize(
    ("name", "step"), [("clean_text", "clean_text"), ("text_length", "text_statistics")]
)
def test_a_data_set_may_not_bring_a_column_that_a_step_makes(name: str, step: str) -> None:
    fields = {**JOINED_FIELDS, name: Field(Kind.NUMBER)}
    with pytest.raises(InputError, match=rf"{step} makes the columns \['{name}'\]"):
        _ = kernel(fields=fields).features


def test_the_last_step_embeds() -> None:
    with pytest.raises(InputError, match="must end with a TextEmbedder, got CleanText"):
        Kernel(JOINED_FIELDS, Pipeline([("clean_text", CleanText())]), {})


def test_the_fingerprint_covers_all_that_decides_the_features() -> None:
    base = kernel(clean_text={"lowercase": False}, embed={"embedder": "a"})
    assert kernel(embed={"embedder": "b"}, clean_text={"lowercase": False}).fingerprint == (
        base.fingerprint
    )
    assert kernel(clean_text={"lowercase": True}).fingerprint != base.fingerprint
    more = kernel(fields={**JOINED_FIELDS, "age": Field(Kind.NUMBER)}, **base.spec)
    assert more.fingerprint != base.fingerprint
    other = kernel(fields={**JOINED_FIELDS, "useful": Field(Kind.NUMBER)}, **base.spec)
    assert other.fingerprint != base.fingerprint


def test_vectors_have_a_fingerprint_of_their_own() -> None:
    assert kernel().vector_fingerprint == ""
    assert kernel().n_dims == 0
    four, eight = (kernel(HashingEmbedder(n_features=n)) for n in (4, 8))
    assert four.vector_fingerprint != eight.vector_fingerprint
    assert four.fingerprint == eight.fingerprint


def test_a_contract_survives_as_plain_data() -> None:
    fields = {**JOINED_FIELDS, "city": Field(Kind.TEXT, named=True)}
    assert fields_from_json(fields_to_json(fields)) == fields
