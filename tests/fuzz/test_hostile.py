"""Hostile inputs: each row is predicted or rejected with a reason, or the file is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_nlp.artifact import Artifact, Registry
from batch_nlp.errors import InputError
from batch_nlp.inference.job import InferenceJob
from batch_nlp.kernel import Kernel, fields_from_json
from batch_nlp.logs import Logs
from batch_nlp.records import RunRecord
from batch_nlp.rows.datasets import Dataset, MessagesDataset, YelpDataset
from batch_nlp.rows.extract import Engine
from batch_nlp.settings import Paths
from batch_nlp.tables import file_digest

Cli = Callable[..., Any]

ROWS_AN_EXAMPLE = 40


def examples(n_rows: int) -> int:
    """Give how many files hold so many rows, or as many as the environment asks for."""
    return -(-int(os.environ.get("BATCH_NLP_FUZZ_ROWS", n_rows)) // ROWS_AN_EXAMPLE)


@dataclass(frozen=True)
class Outcome:
    """What became of a file: the line it was refused with, or its rows."""

    refused: str | None
    predicted: list[str]
    turned_away: pd.DataFrame
    stages: dict[str, dict[str, Any]]

    @property
    def n_rows(self) -> int:
        return len(self.predicted) + len(self.turned_away[["source", "row"]].drop_duplicates())

    def turned_away_from(self, path: Path) -> int:
        return int(self.turned_away.loc[self.turned_away["source"] == str(path), "row"].nunique())


@dataclass(frozen=True)
class Scorer:
    """Scores files with a model that is loaded once."""

    root: Path
    artifact: Artifact
    kernel: Kernel
    tally: Counter[str]

    def __call__(self, path: Path, dataset: Dataset | None = None) -> Outcome:
        paths = Paths(root=str(self.root))
        record = RunRecord(paths.layer("08_reporting") / "runs", "inference", "")
        folder = paths.layer("09_inference")
        for name in ("predictions.parquet", "predictions.csv", "rejected.parquet"):
            (folder / name).unlink(missing_ok=True)
        refused = None
        try:
            source = (dataset or MessagesDataset()).source(str(path), self.kernel.fields)
            InferenceJob(csv=True).run(
                source,
                self.artifact,
                self.kernel,
                paths=paths,
                engine=Engine(threads=1, processes=1, batch_rows=30),
                logs=Logs(level="ERROR"),
                record=record,
                inputs={file: file_digest(file) for file in source.files},
                fingerprint=record.run_id,
            )
        except InputError as error:
            refused = str(error)
            assert "\n" not in refused
            assert refused
        predicted: list[str] = []
        turned_away = pd.DataFrame({"source": [], "row": [], "check": []})
        with suppress(FileNotFoundError):
            predicted = pd.read_parquet(folder / "predictions.parquet")["id"].tolist()
        with suppress(FileNotFoundError):
            turned_away = pd.read_parquet(folder / "rejected.parquet")
        assert turned_away["check"].notna().all()
        assert len(set(predicted)) == len(predicted)
        outcome = Outcome(refused, predicted, turned_away, record.stages)
        self.tally["hostile files"] += 1
        self.tally["hostile rows"] += outcome.n_rows
        return outcome


@pytest.fixture(scope="module")
def score(
    trained_root: Path, tmp_path_factory: pytest.TempPathFactory, tally: Counter[str]
) -> Scorer:
    root = tmp_path_factory.mktemp("hostile") / "root"
    shutil.copytree(trained_root / "models", root / "models")
    artifact = Registry(root / "models", "sentiment").load()
    features = artifact.card["features"]
    kernel = Kernel(
        fields=fields_from_json(features["fields"]),
        pipeline=artifact.feature_pipeline,
        spec=features["steps"],
    )
    return Scorer(root, artifact, kernel, tally)


# Rows of any kind

ODD_TEXTS = [
    "",
    " ",
    "\t",
    "\u00a0",
    "\x00",
    "a\x00b",
    "\ufeff",
    "\ufeffa",
    "a\r\nb",
    "a\rb",
    "\r",
    "\n",
    '"',
    '""',
    "'",
    ",",
    ";",
    "\\",
    "\u202eolleh\u202c",
    "\u200b",
    "\u200b\u200d\ufeff",
    "\u0627\u0644\u062e\u062f\u0645\u0629",
    "\U0001f600" * 50,
    "\ud7ff",
    "\ufffd",
    "\ufffe",
    "=1+1",
    "+1",
    "-1",
    "@a",
    "../../etc/passwd",
    "/dev/null",
    "C:\\x",
    "a/../b",
    "~",
    "$HOME",
    "NULL",
    "null",
    "None",
    "nan",
    "NaN",
    "inf",
    "-Infinity",
    "true",
    "<script>",
    "{}",
    "[]",
    "%s%n",
    "{0}",
    "'; DROP TABLE message; --",
    "a" * 3000,
    "e\u0301" * 30,
    "\x1b[31mred",
]
ODD_DATES = [
    "0000-01-01",
    "0001-01-01",
    "30000-01-01",
    "9999-12-31T23:59:60Z",
    "2020-02-30",
    "1e400",
    "now",
    "2020-01-01",
    "2020-01-01T10:00:00+14:00",
    "2020-W01",
    "-1",
    "1577836800",
    "20200101",
]
ODD_NUMBERS = [
    "-1",
    "0",
    "1",
    "1.5",
    "1e308",
    "1e309",
    "-0",
    "NaN",
    "Infinity",
    "0x10",
    "1_000",
    "1,5",
    "99999999999999999999999",
    "three",
    "",
]

texts = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.sampled_from(["good food", "bad service", "okay place"]),
)
ids = st.one_of(st.sampled_from(ODD_TEXTS), st.integers(0, 30).map(str))
row = st.tuples(ids, texts, st.sampled_from(ODD_DATES), st.sampled_from(ODD_NUMBERS))
many_rows = st.lists(row, min_size=ROWS_AN_EXAMPLE, max_size=ROWS_AN_EXAMPLE)
COLUMNS = ("id", "text", "date", "useful")

json_values = st.one_of(
    texts,
    st.sampled_from(ODD_DATES),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.none(),
    st.booleans(),
    st.sampled_from([[], {}, ["a"], {"text": "a"}, [[[]]], {"": None}]),
)
json_rows = st.one_of(
    st.fixed_dictionaries(
        {"id": st.one_of(ids, json_values), "text": json_values},
        optional={"date": json_values, "useful": json_values, "\x00": st.none(), "": texts},
    ).map(lambda row: json.dumps(row, ensure_ascii=False).encode()),
    st.sampled_from(
        [
            b"{",
            b"[1]",
            b"null",
            b"NaN",
            b'"',
            b"\\",
            b"\x00",
            b"\xff\xfe",
            b"{}",
            b"{} {}",
            b'{"id": "d", "id": "e", "text": "twice", "text": "again"}',
            b"\xef\xbb\xbf{}",
            b'{"id": "n", "text": NaN}',
            b'{"id": "i", "text": "x", "useful": -Infinity}',
            b'{"id": "s", "text": "\\ud800"}',
            b'{"id": "u", "text": "\\u0000"}',
            b'{"text": "\xc3\x28"}',
            b"{'id': 'q', 'text': 'single'}",
            b'{"id": "c", "text": "x",}',
            b'{"id": 01, "text": "x"}',
            b'{"text": "x"} // why',
            b"[" * 5000,
            b'{"text": ' * 600 + b"1" + b"}" * 600,
        ]
    ),
    st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"")),
)

numbers = st.one_of(
    st.sampled_from([-1, -0.0, 0, 1, 1.5, 2.0, 5.5, -(10**30), 10**30, True, None, "", [], {}]),
    st.sampled_from(ODD_NUMBERS),
    st.floats(),
)
few_keys = st.one_of(st.sampled_from(["u1", "u2", "u3", "", None, 1]), json_values)
COUNTS = dict.fromkeys(("useful", "funny", "cool"), numbers)


def as_json(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


reviews = st.fixed_dictionaries(
    {"review_id": ids, "text": texts, "user_id": few_keys, "business_id": few_keys},
    optional={"stars": numbers, "date": st.sampled_from(ODD_DATES), **COUNTS},
).map(as_json)
users = st.fixed_dictionaries(
    {"user_id": few_keys, "review_count": numbers, "fans": numbers, **COUNTS},
    optional={"yelping_since": st.sampled_from(ODD_DATES), "elite": st.one_of(texts, json_values)},
).map(as_json)
businesses = st.fixed_dictionaries(
    {"business_id": few_keys, "review_count": numbers, "is_open": numbers},
    optional={"city": texts, "state": json_values, "categories": st.one_of(texts, json_values)},
).map(as_json)


def check_rows(score: Scorer, path: Path, n_records: int) -> None:
    outcome = score(path)
    if outcome.refused is not None:
        assert outcome.refused.startswith(f"None of {n_records} rows of "), outcome.refused
        assert not outcome.predicted
    assert outcome.n_rows == n_records


def hostile_json(score: Scorer, rows: list[bytes], line_end: bytes) -> None:
    known = b'{"id": "z", "text": "x"}'
    with TemporaryDirectory() as folder:
        path = Path(folder) / "new.jsonl"
        content = line_end.join([known, *rows, known])
        path.write_bytes(content)
        lines = [line for line in content.split(b"\n") if line.strip(b" \t\r\v\f")]
        check_rows(score, path, len(lines))


def hostile_csv(score: Scorer, rows: list[tuple[str, ...]], line_end: str) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    writer.writerows([COLUMNS, *rows])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "new.csv"
        path.write_bytes(text.getvalue().encode())
        check_rows(score, path, len(rows))


def hostile_parquet(score: Scorer, rows: list[tuple[str, ...]], kinds: list[pa.DataType]) -> None:
    columns = [
        pa.array([each[i].encode() if pa.types.is_binary(kind) else each[i] for each in rows], kind)
        for i, kind in enumerate(kinds)
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "new.parquet"
        pq.write_table(pa.table(columns, COLUMNS), path)
        check_rows(score, path, len(rows))


def hostile_yelp(score: Scorer, **rows: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        paths = {table: Path(folder) / f"{table}.json" for table in rows}
        for table, path in paths.items():
            path.write_bytes(b"\n".join(rows[table]))
        references = YelpDataset(user=str(paths["user"]), business=str(paths["business"]))
        outcome = score(paths["review"], references)
    turned_away = {table: outcome.turned_away_from(path) for table, path in paths.items()}
    n_reviews = len(rows["review"])
    assert len(outcome.predicted) + turned_away["review"] == n_reviews
    if outcome.refused is not None:
        assert outcome.refused.startswith(f"None of {n_reviews} rows of "), outcome.refused
        assert not outcome.predicted
    for table in ("user", "business"):
        stage = outcome.stages[f"inference/{table}"]
        assert stage["read"] == len(rows[table])
        assert stage["delivered"] + turned_away[table] == len(rows[table])


json_files = given(
    st.lists(json_rows, min_size=ROWS_AN_EXAMPLE, max_size=ROWS_AN_EXAMPLE),
    st.sampled_from([b"\n", b"\r\n"]),
)
csv_files = given(many_rows, st.sampled_from(["\n", "\r\n", "\r"]))
dictionary = pa.dictionary(pa.int32(), pa.string())
kinds = st.sampled_from([pa.string(), pa.large_string(), pa.binary(), dictionary])
parquet_files = given(many_rows, st.lists(kinds, min_size=len(COLUMNS), max_size=len(COLUMNS)))
third = ROWS_AN_EXAMPLE // 3
yelp_files = given(
    *(st.lists(row, min_size=third, max_size=third) for row in (reviews, users, businesses))
)
few = settings(max_examples=examples(255))
many = settings(max_examples=examples(2550), derandomize=False)


@few
@json_files
def test_any_json_lines(score: Scorer, rows: list[bytes], line_end: bytes) -> None:
    hostile_json(score, rows, line_end)


@few
@csv_files
def test_any_csv(score: Scorer, rows: list[tuple[str, ...]], line_end: str) -> None:
    hostile_csv(score, rows, line_end)


@few
@parquet_files
def test_any_parquet(score: Scorer, rows: list[tuple[str, ...]], types: list[pa.DataType]) -> None:
    hostile_parquet(score, rows, types)


@few
@yelp_files
def test_any_reference_tables(
    score: Scorer, review: list[bytes], user: list[bytes], business: list[bytes]
) -> None:
    hostile_yelp(score, review=review, user=user, business=business)


@pytest.mark.faults
@many
@json_files
def test_many_json_lines(score: Scorer, rows: list[bytes], line_end: bytes) -> None:
    hostile_json(score, rows, line_end)


@pytest.mark.faults
@many
@csv_files
def test_many_csv(score: Scorer, rows: list[tuple[str, ...]], line_end: str) -> None:
    hostile_csv(score, rows, line_end)


@pytest.mark.faults
@many
@parquet_files
def test_many_parquet(score: Scorer, rows: list[tuple[str, ...]], types: list[pa.DataType]) -> None:
    hostile_parquet(score, rows, types)


@pytest.mark.faults
@many
@yelp_files
def test_many_reference_tables(
    score: Scorer, review: list[bytes], user: list[bytes], business: list[bytes]
) -> None:
    hostile_yelp(score, review=review, user=user, business=business)


# Files of any kind


def parquet(**columns: pa.Array) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def texts_of(kind: pa.DataType, values: list[Any]) -> bytes:
    return parquet(id=pa.array(["a", "b"]), text=pa.array(values, kind))


GOOD = b"id,text\n1,good\n2,bad\n"
WHOLE = parquet(id=pa.array(["a", "b"]), text=pa.array(["good", "bad"]))
DEEP = b'{"id": "deep", "text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
LONG = b"x" * 50_000_000

FILES: dict[str, tuple[bytes, int | str]] = {
    "empty.csv": (b"", "cannot be read as CSV"),
    "empty.jsonl": (b"", "it holds no rows"),
    "header_only.csv": (b"id,text\n", "it holds no rows"),
    "blank_lines.csv": (b"\n\n\n", "cannot be read as CSV"),
    "only_a_mark.csv": (b"\xef\xbb\xbf", "cannot be read as CSV"),
    "marked.csv": (b"\xef\xbb\xbf" + GOOD, 2),
    "marked.jsonl": (b'\xef\xbb\xbf{"id": "1", "text": "good"}\n', 1),
    "utf16.csv": (GOOD.decode().encode("utf-16"), "must be UTF-8 text|cannot be read as CSV"),
    "latin_1.csv": ("id,text\n1,caf\xe9\n2,bad\n".encode("latin-1"), 2),
    "carriage_returns.csv": (GOOD.replace(b"\n", b"\r"), 2),
    "line_feeds_too.csv": (GOOD.replace(b"\n", b"\r\n"), 2),
    "nul_bytes.csv": (b"id,text\n1,a\x00b\n\x00,\x00\n", 2),
    "delimiter.csv": (GOOD.replace(b",", b";"), "has no column 'text'"),
    "open_quote.csv": (b'id,text\n1,a\n2,"b\n3,c\n', "never closed"),
    "same_header.csv": (b"id,text,text\n1,a,b\n", "two columns named 'text'"),
    "lengths.csv": (b"id,text\n1\n1,2,3\n4,good\n,\n", 4),
    "emoji.csv": (b"id,text\n1," + "\U0001f600".encode() * 10_000 + b"\n", 1),
    "wide.csv": (b"id,text," + b",".join(b"c%d" % i for i in range(5000)) + b"\n", "no rows"),
    "long_line.csv": (b"id,text\n1," + LONG + b"\n", "cannot be read as CSV"),
    "long_line.jsonl": (b'{"id": "1", "text": "' + LONG + b'"}\n{"id": "2", "text": "x"}\n', 2),
    "deep.jsonl": (DEEP + b'{"id": "1", "text": "x"}\n', 2),
    "array.json": (b'[{"id": "1", "text": "good"}]', 1),
    "odd_bytes_in_a_record_too_long.csv": (
        b"id,text\n1,a\n2,\xff,c\n",
        "cannot be read as CSV .* Expected 2 columns, got 3",
    ),
    "csv_by_name.jsonl": (GOOD, 3),
    "parquet_by_name.csv": (WHOLE, "must be UTF-8|cannot be read as CSV|no column 'text'"),
    "no_gzip.csv.gz": (GOOD, "not a whole gzip file"),
    "cut.csv.gz": (gzip.compress(GOOD * 1000)[:-9], "not a whole gzip file"),
    "cut_header.jsonl.gz": (gzip.compress(b"{}")[:4], "not a whole gzip file"),
    "twice.csv.gz": (gzip.compress(GOOD) + gzip.compress(b"3,fine\n"), 3),
    "no.parquet": (GOOD, "not a whole Parquet file"),
    "empty.parquet": (b"", "not a whole Parquet file"),
    "cut.parquet": (WHOLE[:-20], "not a whole Parquet file"),
    "damaged.parquet": (WHOLE[:40] + b"\xff" * 40 + WHOLE[80:], "Parquet file"),
    "no_columns.parquet": (parquet(), "it holds no rows"),
    "integers.parquet": (texts_of(pa.int64(), [1, None]), 2),
    "floats.parquet": (texts_of(pa.float64(), [float("nan"), 1e300]), 2),
    "decimals.parquet": (texts_of(pa.decimal128(9, 2), [Decimal("1.50"), None]), 2),
    "zoned.parquet": (texts_of(pa.timestamp("ns", "Asia/Tokyo"), [0, 10**18]), 2),
    "dates.parquet": (texts_of(pa.date32(), [date(2020, 1, 1), None]), 2),
    "booleans.parquet": (texts_of(pa.bool_(), [True, None]), 2),
    "lists.parquet": (texts_of(pa.list_(pa.string()), [["a"], []]), 2),
    "structs.parquet": (texts_of(pa.struct({"a": pa.string()}), [{"a": "b"}, None]), 2),
    "maps.parquet": (texts_of(pa.map_(pa.string(), pa.int8()), [[("a", 1)], None]), 2),
    "views.parquet": (texts_of(pa.string_view(), ["good", None]), 2),
    "large.parquet": (texts_of(pa.large_string(), ["good", "bad"]), 2),
    "binary.parquet": (texts_of(pa.binary(), [b"good", b"\xff"]), 2),
    "fixed.parquet": (texts_of(pa.binary(2), [b"ab", b"\xff\xfe"]), 2),
    "nulls.parquet": (texts_of(pa.null(), [None, None]), "None of 2 rows"),
    "durations.parquet": (texts_of(pa.duration("s"), [1, None]), 2),
}


SLOW = {"long_line.jsonl"}


# The command line has a place for these, as the last test shows.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.faults] * (name in SLOW)) for name in FILES],
)
def test_a_hostile_file(score: Scorer, tmp_path: Path, name: str) -> None:
    content, expected = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    outcome = score(path)
    if isinstance(expected, str):
        assert outcome.refused is not None
        assert re.search(expected, outcome.refused), outcome.refused
        assert not outcome.predicted
        return
    if outcome.refused is not None:
        assert outcome.refused.startswith(f"None of {expected} rows of "), outcome.refused
    assert outcome.n_rows == expected


def test_names_that_are_no_files(score: Scorer, tmp_path: Path) -> None:
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("loop.csv", "dangling.csv", "folder.csv", "pipe.csv", "a\x00b.csv", "n" * 300):
        outcome = score(tmp_path / name)
        assert outcome.refused is not None, name
        assert not outcome.predicted


@pytest.mark.parametrize(
    "name",
    ["open_quote.csv", "parquet_by_name.csv", "odd_bytes_in_a_record_too_long.csv", "deep.jsonl"],
)
def test_the_terminal_shows_one_line_and_no_traceback(
    cli: Cli, root: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name][0])
    source = ("dataset=messages", f"inference.source={path}", "logs.level=WARNING")
    ended = cli("pipeline=inference", *source, f"paths.root={root}")
    assert ended.status in (0, 2)
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) == (ended.status == 2)
