"""Law 6: peak memory depends on the batch size, not on how many messages there are."""

from __future__ import annotations

import gc
import json
import tracemalloc
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from batch_nlp import tables
from batch_nlp.logs import Clock
from batch_nlp.rows import extract
from batch_nlp.rows.datasets import MessagesDataset
from batch_nlp.rows.extract import Engine, Extraction
from batch_nlp.rows.stream import RowStream
from batch_nlp.rows.validate import validate


def many(path: Path, n_rows: int) -> Path:
    with path.open("w", encoding="utf-8") as stream:
        for i in range(n_rows):
            text = f"The food was fine and message {i} says so at some length. " * 3
            stream.write(json.dumps({"id": str(i), "text": text, "date": "2020-01-01"}) + "\n")
    return path


def stream_of(path: Path, batch_rows: int) -> RowStream:
    source = MessagesDataset(path=str(path)).source()
    return RowStream(
        source,
        lambda frame: validate(frame, source.fields),
        engine=Engine(batch_rows=batch_rows, threads=1, memory_limit="100MB"),
        spill=path.with_name("spill"),
        rejected=path.with_name("rejected.parquet"),
        clock=Clock(),
        extracted=path.with_name("extracted.parquet"),
    )


class Alive:
    """Counts how many of the objects that pass are alive at once."""

    def __init__(self) -> None:
        self.references: list[weakref.ref[Any]] = []
        self.most = 0

    def watch(self, item: Any) -> Any:
        self.references.append(weakref.ref(item))
        self.most = max(self.most, sum(each() is not None for each in self.references))
        return item

    def through(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.watch(item)
            yield item


def test_few_batches_are_alive_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LINES_BYTES", 2048)
    monkeypatch.setattr(extract, "PART_ROWS", 50)
    blocks, parts, batches, frames = Alive(), Alive(), Alive(), Alive()
    stream = stream_of(many(tmp_path / "m.jsonl", 600), batch_rows=20)
    table = stream.source.messages[0]
    watched = replace(table, batches=lambda: blocks.through(table.batches()))
    stream._extraction.source = replace(stream.source, messages=[watched])
    rows = Extraction.rows
    monkeypatch.setattr(Extraction, "rows", lambda self, n: batches.through(rows(self, n)))
    joined = Extraction._joined

    def pinned(self: Extraction) -> Iterator[pa.Table]:
        # A slice keeps the memory of its part alive, though not the part.
        for part in joined(self):
            texts = part["text"].combine_chunks()
            validity, offsets, data = texts.buffers()
            memory = parts.watch(np.frombuffer(data, np.uint8).copy())
            buffers = [validity, offsets, pa.py_buffer(memory)]
            del memory
            whole = pa.Array.from_buffers(texts.type, len(texts), buffers)
            yield part.set_column(part.column_names.index("text"), "text", whole)
            del buffers, whole, part

    monkeypatch.setattr(Extraction, "_joined", pinned)
    n_rows = 0
    with stream:
        for frame in stream:
            frames.watch(frame)
            n_rows += len(frame)
    assert n_rows == 600
    assert len(blocks.references) > 50
    assert len(batches.references) == len(frames.references) == 30
    assert len(parts.references) >= 8
    assert blocks.most <= 5
    # Three, and the one before them until its last rows are copied.
    assert parts.most <= 4
    assert batches.most <= 3
    assert frames.most <= 3


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_what_is_taken_out_of_the_database_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Whatever the number of rows, and where a broken record, told last, is one of the first."""
    monkeypatch.setattr(extract, "PART_ROWS", 40)
    monkeypatch.setattr(tables, "LINES_BYTES", 1024)
    monkeypatch.setattr(tables, "BLOCK_BYTES", 1024)
    alive, rows = Alive(), []
    table = Extraction._table

    def watched(extraction: Extraction, sql: str) -> pa.Table:
        found = alive.watch(table(extraction, sql))
        rows.append(found.num_rows)
        return found

    monkeypatch.setattr(Extraction, "_table", watched)
    path = many(tmp_path / "m.jsonl", 1000)
    if kind == "csv":
        frame = pd.read_json(path, lines=True, dtype=str)
        frame.to_csv(tmp_path / "m.csv", index=False)
        path = tmp_path / "m.csv"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:3], "too,many,values,here", *lines[3:]]))
    stream = stream_of(path, batch_rows=20)
    with stream:
        assert sum(len(frame) for frame in stream) == 1000
    assert len(rows) > 20
    assert max(rows) <= 75
    assert alive.most <= 8


def test_no_frame_of_all_rows_is_built_at_inference(
    cli: Callable[..., Any],
    root: Path,
    tmp_path: Path,
    delivered: Callable[[Path], pd.DataFrame],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from batch_nlp.inference import job

    longest: list[int] = []
    predict = job.predict

    def predicting(*args: Any) -> pd.DataFrame:
        predicted: pd.DataFrame = predict(*args)
        frames = [each for each in gc.get_objects() if isinstance(each, pd.DataFrame)]
        longest.append(max(len(each) for each in frames))
        return predicted

    monkeypatch.setattr(job, "predict", predicting)
    source = many(tmp_path / "new.jsonl", 900)
    # Frames of earlier tests are not of this run.
    gc.collect()
    others = [each for each in gc.get_objects() if isinstance(each, pd.DataFrame)]
    limit = 150
    ended = cli(
        "pipeline=inference",
        "dataset=messages",
        f"inference.source={source}",
        f"paths.root={root}",
        f"engine.batch_rows={limit}",
        "inference.shares.min_rows=10000",
        "logs.level=WARNING",
    )
    assert ended.status == 0, ended.stderr
    assert len(delivered(root)) == 900
    assert len(longest) == 6
    before = max((len(each) for each in others), default=0)
    assert max(longest) <= max(limit, before)


def peaks(path: Path, n_rows: int) -> tuple[int, int]:
    """Give the most bytes that Python and Arrow held while rows streamed by."""
    many(path, n_rows)
    arrow = 0
    seen = 0
    tracemalloc.start()
    try:
        with stream_of(path, batch_rows=250) as stream:
            for frame in stream:
                seen += len(frame)
                arrow = max(arrow, pa.total_allocated_bytes())
        python = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == n_rows
    return python, arrow


def test_ten_times_the_rows_take_the_same_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LINES_BYTES", 1 << 16)
    monkeypatch.setattr(extract, "PART_ROWS", 250)
    peaks(tmp_path / "first.jsonl", 300)  # what is imported and cached once
    few = peaks(tmp_path / "few.jsonl", 600)
    many_ = peaks(tmp_path / "many.jsonl", 6_000)
    content = (tmp_path / "many.jsonl").stat().st_size
    for small, large in zip(few, many_, strict=True):
        assert large < small + content / 4
