"""The rows of a source as they pass the door: accepted ones on, rejected ones to their file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, Self

import pandas as pd
import pyarrow as pa
from loguru import logger

from batch_nlp.errors import InputError
from batch_nlp.logs import Clock
from batch_nlp.rows.counts import Counts
from batch_nlp.rows.extract import Engine, Extraction, Source, rejections
from batch_nlp.rows.validate import Verdict
from batch_nlp.schemas import REJECTED, text_schema
from batch_nlp.tables import ParquetSink


class Record(Protocol):
    """Where stages are reported to."""

    facts: dict[str, Any]

    def stage(self, name: str, counts: Counts, seconds: float) -> None:
        """Add a stage."""
        ...


class RowStream:
    """Accepted rows of a source, in input order, a batch at a time.

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

    Attributes
    ----------
    counts : dict of str to Counts
        Of every stage, complete after the iteration.
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
    ) -> None:
        self.source = source
        self.check = check
        self.clock = clock
        self.counts: dict[str, Counts] = {}
        self.skipped = 0
        self._extraction = Extraction(source, engine, spill, targets=targets)
        self._rejected = ParquetSink(rejected, REJECTED)
        self._extracted = extracted

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            with self.clock.step("extract"):
                stack.enter_context(self._extraction)
            self.counts |= self._extraction.counts
            self.skipped = self._extraction.skipped
            stack.enter_context(self._rejected)
            for batch in self._extraction.rejected():
                self._rejected.write(batch)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.__exit__(*failure)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[pd.DataFrame]:
        """Give the accepted rows, typed."""
        counts = self.counts["validate"] = Counts()
        with ExitStack() as stack:
            layer = None
            if self._extracted is not None:
                where = [REJECTED.field("source"), REJECTED.field("row")]
                schema = pa.schema([*where, *text_schema(list(self.source.fields))])
                layer = stack.enter_context(ParquetSink(self._extracted, schema))
            for batch in self.clock.timed(self._extraction.rows(), "extract"):
                if layer is not None:
                    layer.write(batch)
                with self.clock.step("validate"):
                    frame = batch.to_pandas()
                    verdict = self.check(frame)
                    failures = verdict.failures.assign(
                        column=verdict.failures["column"].replace(dict(self.source.names))
                    )
                    self._rejected.write(rejections(frame, failures, "id"))
                counts.read += len(frame)
                counts.delivered += len(verdict.accepted)
                counts.rejected += len(frame) - len(verdict.accepted)
                if len(verdict.accepted):
                    yield verdict.accepted

    def report(self, record: Record, package: str) -> None:
        """Add the stages of the rows to the run record, and where their ids come from."""
        for name, counts in self.counts.items():
            record.stage(f"{package}/{name}", counts, self.clock.seconds.get(name, 0.0))
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
