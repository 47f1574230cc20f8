"""The rows of a source as they pass the door: accepted ones on, rejected ones to their file."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from loguru import logger

from batch_nlp.errors import InputError
from batch_nlp.logs import Clock
from batch_nlp.rows.counts import Counts
from batch_nlp.rows.extract import Engine, Extraction, Source, rejections
from batch_nlp.rows.validate import Verdict
from batch_nlp.schemas import REJECTED, text_schema
from batch_nlp.tables import Hashing, ParquetSink, atomic_folder
from batch_nlp.workers import mapped

DISTINCT = ("row", "id", "text", "date", "user_id", "yelping_since")
"""Columns of the joined rows whose values hardly repeat within a batch."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Passed(Generic[Result]):
    """What became of a batch: counts, failures, and what was made of the rows that passed."""

    read: int
    delivered: int
    rejected: pa.Table
    result: Result | None
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Shards(Generic[Result]):
    """What was made of each batch, kept until the run has ended, so that the next can go on.

    Parameters
    ----------
    folder : Path
        Of one way to work on one source: another needs another folder.
    pack : callable
        Gives of a result a table and what JSON can say.
    unpack : callable
        Makes the result of these two again.
    """

    folder: Path
    pack: Callable[[Result], tuple[pa.Table, Mapping[str, Any]]]
    unpack: Callable[[pa.Table, Mapping[str, Any]], Result]

    def read(self, number: int) -> _Passed[Result] | None:
        """Give what was kept of a batch."""
        place = self._place(number)
        if not place.is_dir():
            return None
        about = json.loads((place / "about.json").read_text(encoding="utf-8"))
        result = about.pop("result")
        if result is not None:
            result = self.unpack(pq.read_table(place / "result.parquet"), result)
        rejected = pq.read_table(place / "rejected.parquet")
        return _Passed(rejected=rejected, result=result, **about)

    def write(self, number: int, passed: _Passed[Result]) -> None:
        """Keep what was made of a batch."""
        about = {"read": passed.read, "delivered": passed.delivered, "seconds": passed.seconds}
        with atomic_folder(self._place(number)) as beside:
            result: Mapping[str, Any] | None = None
            if passed.result is not None:
                table, result = self.pack(passed.result)
                pq.write_table(table, beside / "result.parquet")
            pq.write_table(passed.rejected, beside / "rejected.parquet")
            text = json.dumps({**about, "result": result})
            (beside / "about.json").write_text(text, encoding="utf-8")

    def __len__(self) -> int:
        """Count the batches that are kept."""
        return len(list(self.folder.glob("[0-9]*")))

    def _place(self, number: int) -> Path:
        return self.folder / f"{number:06d}"


@dataclass(frozen=True)
class _Door(Generic[Result]):
    """Holds a batch against the contract, and does the work on what passes, in any process."""

    check: Callable[[pd.DataFrame], Verdict]
    names: Mapping[str, str]
    work: Callable[[pd.DataFrame, Clock], Result] | None
    shards: Shards[Result] | None = None

    def __call__(self, numbered: tuple[int, pa.RecordBatch]) -> _Passed[Result]:
        number, batch = numbered
        if self.shards is None:
            return self._pass(batch)
        passed = self.shards.read(number)
        if passed is None:
            passed = self._pass(batch)
            self.shards.write(number, passed)
        return passed

    def _pass(self, batch: pa.RecordBatch) -> _Passed[Result]:
        clock = Clock()
        with clock.step("validate"):
            frame = batch.to_pandas()
            verdict = self.check(frame)
            failures = verdict.failures.assign(
                column=verdict.failures["column"].replace(dict(self.names))
            )
            rejected = rejections(frame, failures, "id")
        accepted = verdict.accepted
        result: Any = accepted if len(accepted) else None
        if self.work is not None and len(accepted):
            result = self.work(accepted, clock)
        return _Passed(len(frame), len(accepted), rejected, result, clock.seconds)


class Record(Protocol):
    """Where stages are reported to."""

    facts: dict[str, Any]

    def stage(self, name: str, counts: Counts, seconds: float) -> None:
        """Add a stage."""
        ...


class RowStream(Generic[Result]):
    """Accepted rows of a source, in input order, a batch at a time, and some work done on each.

    Use it as a context manager and iterate over it once; the rejected file is complete when
    the block ends.

    Parameters
    ----------
    source : Source
        What to read.
    check : callable
        Holds a frame of text rows against the contract.
    engine : Engine
        How to read.
    spill : Path
        Folder for what does not fit in memory.
    rejected : Path
        File for rejected rows and duplicates, with their reasons.
    clock : Clock
        Measures the steps.
    targets : bool, default=True
        Whether ratings and labels are read.
    extracted : Path, optional
        File for the rows as they enter validation.
    work : callable, optional
        What to do with the accepted rows of a batch, given a clock for its steps; where there
        are many rows it is done in several processes. None passes the rows on.
    inputs : mapping of str to str, optional
        Files of the source and their SHA-256 from before they were read; once the last row is
        read they must still be the same.
    shards : Shards, optional
        Keeps what was made of each batch, where there are several, until it is removed.

    Attributes
    ----------
    counts : dict of str to Counts
        Of every stage, complete after the iteration; then also those of the source's earlier
        messages.
    skipped : int
        Messages that were not asked for.
    """

    def __init__(
        self,
        source: Source,
        check: Callable[[pd.DataFrame], Verdict],
        *,
        engine: Engine,
        spill: Path,
        rejected: Path,
        clock: Clock,
        targets: bool = True,
        extracted: Path | None = None,
        work: Callable[[pd.DataFrame, Clock], Result] | None = None,
        inputs: Mapping[str, str] | None = None,
        shards: Shards[Result] | None = None,
    ) -> None:
        self.source = source
        self.engine = engine
        self.clock = clock
        self.counts: dict[str, Counts] = {}
        self.skipped = 0
        self._door: _Door[Result] = _Door(check, source.names, work, shards)
        self._extraction = Extraction(source, engine, spill, targets=targets)
        self._rejected = ParquetSink(rejected, REJECTED)
        self.extracted = extracted
        self._inputs = inputs or {}
        self._hashing: Hashing | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            with self.clock.step("extract"):
                stack.enter_context(self._extraction)
            self.counts |= self._extraction.counts
            self.skipped = self._extraction.skipped
            stack.enter_context(self._rejected)
            if self.source.earlier is not None:
                for batch in self.source.earlier.rejections():
                    self._rejected.write(batch)
            for batch in self._extraction.rejected():
                self._rejected.write(batch)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.__exit__(*failure)  # type: ignore[arg-type]

    def keep_references(self, folder: Path) -> dict[str, Path]:
        """Write the accepted rows of each joined table into a folder, and give the files."""
        return self._extraction.keep_references(folder)

    @property
    def n_rows(self) -> int:
        """Rows that come to the door, known once the block is entered."""
        return self._extraction.n_rows

    def passed(self) -> int:
        """Give how many rows have been at the door so far."""
        return self.counts["validate"].read if "validate" in self.counts else 0

    @property
    def processes(self) -> int:
        """Processes that do the work, known once the block is entered."""
        return 1 if self._door.work is None else self.engine.processes_for(self.n_rows)

    def __iter__(self) -> Iterator[Result]:
        """Give what `work` made of the accepted rows of each batch."""
        counts = self.counts["validate"] = Counts()
        with closing(self._batches()) as batches:
            door = self._kept_door()
            for passed in mapped(door, enumerate(batches), processes=self.processes):
                self.clock.add(passed.seconds)
                self._rejected.write(passed.rejected)
                counts.read += passed.read
                counts.delivered += passed.delivered
                counts.rejected += passed.read - passed.delivered
                if passed.result is not None:
                    yield passed.result
        if (earlier := self.source.earlier) is not None:
            for name, those in earlier.counts.items():
                self.counts[name] = those + self.counts[name]
            self.skipped += earlier.skipped
        for file, now in self._hashed().digests().items():
            if now != self._inputs[file]:
                message = f"{file} changed while it was being read: run again."
                raise InputError(message)

    @property
    def batch_rows(self) -> int:
        """Rows of each batch but the last, known once the block is entered."""
        return self.engine.batch_rows_for(self.n_rows, self.processes)

    def _kept_door(self) -> _Door[Result]:
        """Give the door, with shards only where a killed run would lose more than a batch."""
        shards = self._door.shards
        if shards is None or self.n_rows <= self.batch_rows:
            return replace(self._door, shards=None)
        shards = replace(shards, folder=shards.folder / str(self.batch_rows))
        if kept := len(shards):
            batches = -(-self.n_rows // self.batch_rows)
            logger.info("{:,} of {:,} batches are kept from an earlier run.", kept, batches)
        return replace(self._door, shards=shards)

    def _batches(self) -> Generator[pa.RecordBatch]:
        rows = self._extraction.rows(self.batch_rows)
        left = self.n_rows
        with ExitStack() as stack:
            layer = None
            if self.extracted is not None:
                where = [REJECTED.field("source"), REJECTED.field("row")]
                schema = pa.schema([*where, *text_schema(list(self.source.fields))])
                sink = ParquetSink(self.extracted, schema, distinct=DISTINCT)
                layer = stack.enter_context(sink)
            for batch in self.clock.timed(rows, "extract"):
                if layer is not None:
                    with self.clock.step("layers"):
                        layer.write(batch)
                left -= batch.num_rows
                if not left:
                    self._hashed()
                yield batch

    def _hashed(self) -> Hashing:
        """Take the digests of the files again, beside the work on what was read last."""
        if self._hashing is None:
            self._hashing = self._stack.enter_context(Hashing(self._inputs))
        return self._hashing

    def report(self, record: Record, package: str) -> None:
        """Add the stages of the rows to the run record, and where their ids come from."""
        for name, counts in self.counts.items():
            record.stage(f"{package}/{name}", counts, self.clock.seconds.get(name, 0.0))
        if self.source.references:
            tables = self.source.references.values()
            record.facts["references"] = [each.path for files in tables for each in files]
        record.facts["ids"] = "derived from content" if self.source.id_derived else "given"
        if self.source.id_derived:
            logger.info("The messages bring no id: each gets the MD5 of its row.")

    def require_some(self, rejected: Path) -> None:
        """Raise if no row was accepted.

        Raises
        ------
        InputError
            Saying where the reasons are.
        """
        if not self.counts["validate"].delivered:
            read = self.counts["extract"].read
            files = ", ".join(self.source.files[:3])
            why = f"see {rejected} for the reasons" if read else "it holds no rows"
            message = f"None of {read} rows of {files} was accepted: {why}."
            raise InputError(message)
