"""Files in and out."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_nlp import tables
from batch_nlp.errors import InputError
from batch_nlp.tables import (
    ParquetSink,
    atomic_path,
    csv_columns,
    digest,
    digests_of,
    expand,
    file_digest,
    file_format,
    from_pandas,
    json_columns,
    quoted,
    read_csv,
    read_lines,
    read_parquet,
    write_json,
    write_text,
)


def rows_of(batches: Iterable[pa.RecordBatch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.to_pylist()]


# Writing


def test_folders_are_made_and_names_beside_are_hidden(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    with atomic_path(path) as beside:
        assert beside.parent == path.parent
        assert beside.name.startswith(".c.txt.")
        beside.write_text("x")
        assert not path.exists()
    assert path.read_text() == "x"
    assert [each.name for each in path.parent.iterdir()] == ["c.txt"]


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    with atomic_path(path) as one:
        one.write_text("one")
        with atomic_path(path) as two:
            two.write_text("two")
        assert path.read_text() == "two"
    assert path.read_text() == "one"


def test_text_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    write_text(tmp_path / "n.txt", "\u00f1\U0001f600")
    assert (tmp_path / "n.txt").read_bytes() == "\u00f1\U0001f600".encode()


def test_json_comes_back(tmp_path: Path) -> None:
    content = {"b": [1, None, 0.1], "a": {"\u00f1": "\u00e9"}}
    write_json(tmp_path / "c.json", content)
    text = (tmp_path / "c.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert "\u00f1" in text
    assert text.endswith("}\n")


def test_a_sink_takes_batches_and_tables_in_the_order_of_its_schema(tmp_path: Path) -> None:
    schema = pa.schema({"id": pa.string(), "n": pa.float64()})
    with ParquetSink(tmp_path / "t.parquet", schema) as sink:
        sink.write(pa.table({"n": pa.array([1], pa.int64()), "more": ["x"], "id": ["a"]}))
        sink.write(pa.record_batch({"id": ["b"], "n": [2.5]}))
    assert sink.rows == 2
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.schema.equals(schema)
    assert table.to_pylist() == [{"id": "a", "n": 1.0}, {"id": "b", "n": 2.5}]
    with pytest.raises(RuntimeError, match="inside its `with` block"):
        sink.write(table)


def test_a_sink_makes_no_dictionary_of_what_hardly_repeats(tmp_path: Path) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(40.0), pa.float32()), 4)
    table = pa.table({"id": list("abcdefghij"), "kind": ["x"] * 10, "vector": vectors})
    with ParquetSink(tmp_path / "t.parquet", table.schema, distinct=["id"]) as sink:
        sink.write(table)
    assert pq.read_table(tmp_path / "t.parquet").equals(table)
    group = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0)
    ids, kinds, numbers = (group.column(i) for i in range(3))
    assert [each.has_dictionary_page for each in (ids, kinds, numbers)] == [False, True, False]
    assert [each.is_stats_set for each in (ids, kinds, numbers)] == [False, True, False]
    assert "BYTE_STREAM_SPLIT" in numbers.encodings


def test_a_sink_without_rows_makes_an_empty_table(tmp_path: Path) -> None:
    schema = pa.schema({"id": pa.string()})
    with ParquetSink(tmp_path / "t.parquet", schema):
        pass
    assert pq.read_table(tmp_path / "t.parquet").schema.equals(schema)


def test_a_sink_refuses_what_would_lose_information(tmp_path: Path) -> None:
    def write() -> None:
        with ParquetSink(tmp_path / "t.parquet", pa.schema({"n": pa.int64()})) as sink:
            sink.write(pa.table({"n": [1.5]}))

    with pytest.raises(pa.ArrowInvalid):
        write()
    assert not (tmp_path / "t.parquet").exists()


def test_digests_of_several_files(tmp_path: Path) -> None:
    contents = [b"", b"abc", bytes(5_000_000) + b"!"]
    paths = [str(tmp_path / name) for name in "abc"]
    for path, content in zip(paths, contents, strict=True):
        Path(path).write_bytes(content)
    expected = [hashlib.sha256(content).hexdigest() for content in contents]
    assert digests_of(paths) == dict(zip(paths, expected, strict=True))
    assert digests_of([]) == {}
    with pytest.raises(InputError, match="Cannot read"):
        digests_of([*paths, str(tmp_path / "none")])


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert file_digest(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()
    assert digest({"a": 1}) != digest({"a": "1"})
    with pytest.raises(InputError, match=r"Cannot read .*none: No such file"):
        file_digest(tmp_path / "none")


def test_from_pandas_leaves_the_index_out() -> None:
    frame = pd.DataFrame({"a": ["x", None]}, index=[5, 9], dtype="str")
    table = from_pandas(frame, pa.schema({"a": pa.string()}))
    assert table.to_pydict() == {"a": ["x", None]}


@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1))
def test_any_name_can_be_quoted(name: str) -> None:
    import duckdb

    with duckdb.connect() as db:
        found = db.sql(f"SELECT 1 AS {quoted(name)}").columns
    assert found == [name]


# Names and formats


def test_globs_are_sorted_and_files_named_twice_read_once(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "in/c.csv", "odd[1].csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(*patterns: str) -> list[str]:
        files = expand([str(tmp_path / each) for each in patterns], key="k")
        return [str(Path(file).relative_to(tmp_path)) for file in files]

    assert names("*.csv") == ["a.csv", "b.csv", "odd[1].csv"]
    assert names("**/*.csv") == ["a.csv", "b.csv", "in/c.csv", "odd[1].csv"]
    assert names("odd[1].csv", "b.csv") == ["odd[1].csv", "b.csv"]
    assert names("b.csv", "*.csv") == ["b.csv", "a.csv", "odd[1].csv"]


def test_a_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.csv").touch()
    assert expand("~/a.csv", key="k") == [str(tmp_path / "a.csv")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.json", "json"),
        ("a.JSONL.gz", "json"),
        ("a.b.ndjson", "json"),
        ("a.CSV", "csv"),
        ("a.tsv.gz", "csv"),
        ("dir.csv/a.parquet", "parquet"),
        ("a.pq", "parquet"),
    ],
)
def test_the_name_tells_the_format(name: str, expected: str) -> None:
    assert file_format(name) == expected
    assert file_format(name, declared="json") == "json"


@pytest.mark.parametrize("name", ["a", "a.gz", "a.xlsx", ".csv", "a.parquet.gz"])
def test_a_name_that_tells_nothing(name: str) -> None:
    with pytest.raises(InputError, match=r"dataset\.format=csv\|json\|parquet"):
        file_format(name)


# Lines


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 20])
def test_lines_are_numbered_whatever_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(tables, "LINES_BYTES", block)
    path = tmp_path / "m.jsonl.gz"
    text = "\ufeffone\n\n  \nf\u00f6ur\r\n" + "\U0001f600" * 5 + "\nlast"
    path.write_bytes(gzip.compress(text.encode()))
    rows = rows_of(read_lines(path))
    assert [(row["row"], row["line"]) for row in rows] == [
        (1, "one\n"),
        (4, "f\u00f6ur\r\n"),
        (5, "\U0001f600" * 5 + "\n"),
        (6, "last"),
    ]
    assert {(row["source"], row["problem"]) for row in rows} == {(str(path), None)}


def test_bytes_that_are_no_text_are_a_problem_of_their_line(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"fine\ncaf\xe9\nfine too")
    rows = rows_of(read_lines(tmp_path / "m"))
    assert [row["problem"] for row in rows] == [None, "valid UTF-8", None]
    assert rows[1]["line"] == "caf\ufffd\n"


def test_json_keys_come_in_the_order_met(tmp_path: Path) -> None:
    lines = ['{"b": 1, "a": 2}', "broken", "[1]", "", '{"a": 1, "c": 1}', "[" * 99_999]
    (tmp_path / "m").write_text("\n".join(lines))
    assert json_columns(tmp_path / "m") == ["b", "a", "c"]
    assert json_columns(tmp_path / "m", n_lines=2) == ["b", "a"]


# CSV


def test_every_csv_value_is_text_and_an_empty_one_is_null(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('id,n,,\n007,1.50,,\n"",true,"","x"\n')
    rows = rows_of(read_csv(tmp_path / "m.csv"))
    assert [list(row.values())[3:] for row in rows] == [
        ["007", "1.50", None, None],
        [None, "true", None, "x"],
    ]
    assert csv_columns(tmp_path / "m.csv") == ["id", "n", "unnamed_2", "unnamed_3"]


def test_a_nameless_column_takes_no_name_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(",unnamed_0\n1,2\n")
    assert csv_columns(tmp_path / "m.csv") == ["unnamed_0_", "unnamed_0"]


def test_blank_lines_are_no_records(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("id,text\n\na,x\n\n\nb,y,z\nc,w\n")
    found = {
        row["row"]: (row["id"], row["problem"]) for row in rows_of(read_csv(tmp_path / "m.csv"))
    }
    assert found == {
        1: ("a", None),
        2: (None, "2 values in a record, got 3"),
        3: ("c", None),
    }


def test_a_quote_that_is_not_closed_within_a_block_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BLOCK_BYTES", 1024)
    (tmp_path / "m.csv").write_text('id,text\na,"x\n' + "b,y\n" * 2000)
    with pytest.raises(InputError, match="cannot be read as CSV"):
        rows_of(read_csv(tmp_path / "m.csv"))


# Parquet


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_parquet_rows_are_numbered_whatever_the_batches(tmp_path: Path, batch_rows: int) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"n": range(5)}), path, row_group_size=3)
    rows = rows_of(read_parquet(path, batch_rows=batch_rows))
    assert [(row["row"], row["n"]) for row in rows] == [(i + 1, i) for i in range(5)]
    assert {(row["source"], row["problem"]) for row in rows} == {(str(path), None)}
