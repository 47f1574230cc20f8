"""Rows through the door, batch by batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pyarrow.parquet as pq
import pytest

from batch_nlp import tables
from batch_nlp.errors import InputError
from batch_nlp.logs import Clock
from batch_nlp.rows.counts import Counts
from batch_nlp.rows.datasets import MessagesDataset
from batch_nlp.rows.extract import Engine
from batch_nlp.rows.stream import RowStream
from batch_nlp.rows.validate import validate
from batch_nlp.schemas import REJECTED
from batch_nlp.tables import digests_of

CONTENT = "id,text,rating\na,x,1\nb,,2\nc,y,9\nd,z,\na,x,1\ne,w,5,5\n"


@pytest.fixture
def stream(tmp_path: Path) -> Callable[..., RowStream]:
    """Make the stream of a CSV file."""

    def make(content: str = CONTENT, batch_rows: int = 2, **options: Any) -> RowStream:
        (tmp_path / "m.csv").write_text(content)
        source = MessagesDataset(path=str(tmp_path / "m.csv")).source()
        return RowStream(
            source,
            lambda frame: validate(frame, source.fields),
            engine=Engine(batch_rows=batch_rows, threads=1),
            spill=tmp_path / "spill",
            rejected=tmp_path / "rejected.parquet",
            clock=Clock(),
            **options,
        )

    return make


@pytest.mark.parametrize("batch_rows", [1, 2, 50_000])
def test_what_passes_does_not_depend_on_the_batches(
    stream: Callable[..., RowStream], tmp_path: Path, batch_rows: int
) -> None:
    with stream(batch_rows=batch_rows) as rows:
        accepted = pd.concat(list(rows))
    assert accepted["id"].tolist() == ["a", "d"]
    rejected = pd.read_parquet(tmp_path / "rejected.parquet")
    assert sorted(rejected["row"]) == [2, 3, 5, 6]
    assert rows.counts["validate"] == Counts(read=4, delivered=2, rejected=2)


def test_the_rejected_file_has_its_schema_even_when_empty(
    stream: Callable[..., RowStream], tmp_path: Path
) -> None:
    with stream("text\nx\n") as rows:
        assert len(list(rows)) == 1
    table = pq.read_table(tmp_path / "rejected.parquet")
    assert table.schema.equals(REJECTED)
    assert table.num_rows == 0


def test_ratings_are_not_read_where_they_are_not_wanted(
    stream: Callable[..., RowStream],
) -> None:
    with stream(targets=False) as rows:
        accepted = pd.concat(list(rows))
    assert accepted["id"].tolist() == ["a", "c", "d"]
    assert accepted["stars"].isna().all()


def test_rows_are_kept_as_text_before_they_are_checked(
    stream: Callable[..., RowStream], tmp_path: Path
) -> None:
    with stream(extracted=tmp_path / "extracted.parquet") as rows:
        for _ in rows:
            pass
    kept = pd.read_parquet(tmp_path / "extracted.parquet")
    assert kept["row"].tolist() == [1, 2, 3, 4]
    assert kept["stars"].fillna("").tolist() == ["1", "2", "9", ""]
    assert kept["source"].nunique() == 1


def test_a_failure_leaves_the_rejected_file_as_it_was(
    stream: Callable[..., RowStream], tmp_path: Path
) -> None:
    (tmp_path / "rejected.parquet").write_text("of an earlier run")

    def fail() -> None:
        with stream() as rows:
            for _ in rows:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "rejected.parquet").read_text() == "of an earlier run"
    assert {path.name for path in tmp_path.iterdir()} == {"m.csv", "rejected.parquet", "spill"}
    assert not list((tmp_path / "spill").iterdir())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("text,rating\nx,9\ny,0\n", "None of 2 rows of .*m.csv was accepted: see .*rejected"),
        ("text\n", "None of 0 rows of .*m.csv was accepted: it holds no rows"),
    ],
)
def test_no_accepted_row_is_an_error(
    stream: Callable[..., RowStream], tmp_path: Path, content: str, complaint: str
) -> None:
    with stream(content) as rows:
        assert not list(rows)
    with pytest.raises(InputError, match=complaint):
        rows.require_some(tmp_path / "rejected.parquet")


@pytest.mark.parametrize("change", ["another byte", "gone"])
def test_a_file_that_changes_while_it_is_read_is_an_error(
    stream: Callable[..., RowStream], tmp_path: Path, change: str
) -> None:
    path = tmp_path / "m.csv"
    path.write_text(CONTENT)
    inputs = digests_of([str(path)])

    def read(*, changing: bool) -> None:
        with stream(batch_rows=1, inputs=inputs) as rows:
            for number, _ in enumerate(rows):
                if changing and not number:  # while there are batches to come
                    # What was read already, so that only the digest tells.
                    path.write_text(CONTENT.replace("a,x,1", "a,X,1", 1))
                    if change == "gone":
                        path.unlink()

    read(changing=False)
    told = "m.csv changed while it was being read" if change == "another byte" else "Cannot read"
    with pytest.raises(InputError, match=told):
        read(changing=True)


def test_the_digests_are_given_up_with_the_rows(
    stream: Callable[..., RowStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails at the last batch does not wait for the rest of a large file."""
    seen: list[threading.Event] = []

    def read(path: str, ended: threading.Event) -> str:
        seen.append(ended)
        ended.wait(60)
        return ""

    monkeypatch.setattr(tables, "_digest_until", read)

    def fail() -> None:
        with stream("text\nx\n", inputs={"endless": ""}) as rows:
            for _ in rows:
                raise ZeroDivisionError

    started = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen[0].is_set()
    assert time.monotonic() - started < 30  # or it has waited


def test_stages_are_reported_under_their_package(stream: Callable[..., RowStream]) -> None:
    told: dict[str, Counts] = {}

    class Record:
        facts: ClassVar[dict[str, Any]] = {}

        def stage(self, name: str, counts: Counts, seconds: float) -> None:
            assert seconds >= 0
            told[name] = counts

    with stream() as rows:
        list(rows)
    rows.report(Record(), "feature")
    assert Record.facts == {"ids": "given"}
    assert list(told) == ["feature/extract", "feature/deduplicate", "feature/validate"]
    assert told["feature/extract"] == Counts(read=6, delivered=5, rejected=1)
    assert told["feature/deduplicate"] == Counts(read=5, delivered=4, duplicates=1)
