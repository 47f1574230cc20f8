"""Rows to features to store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from loguru import logger
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from batch_nlp.feature.extent import Extent, read_extent
from batch_nlp.kernel import Kernel
from batch_nlp.logs import Clock, Logs
from batch_nlp.records import RunRecord, utc_now
from batch_nlp.rows.counts import Counts
from batch_nlp.rows.extract import Engine, Source
from batch_nlp.rows.stream import RowStream
from batch_nlp.schemas import Field, typed_schema
from batch_nlp.settings import Paths
from batch_nlp.store import (
    SNAPSHOT,
    Manifest,
    StoreAccess,
    Usage,
    make_room,
    manifest_of,
    parts_of,
    write_manifest,
)
from batch_nlp.tables import ParquetSink, from_pandas

_REFERENCES = "references"


@dataclass(frozen=True, kw_only=True)
class FeatureJob:
    """The row-local pipeline, and what a run of it leaves behind.

    Parameters
    ----------
    steps : mapping of str to transformer or None
        Row-local steps in order, the last a `TextEmbedder`; None leaves a step out.
    save_layers : bool, default=True
        Whether rows and features are also written to their layers, for inspection.
    """

    steps: Mapping[str, BaseEstimator | None]
    save_layers: bool = True

    def kernel(self, fields: Mapping[str, Field], spec: Mapping[str, Any]) -> Kernel:
        """Give the row-and-feature kernel for rows of some contract.

        Parameters
        ----------
        fields : mapping of str to Field
            The contract.
        spec : mapping
            The configuration of `steps`.
        """
        steps = [(name, step) for name, step in self.steps.items() if step is not None]
        return Kernel(fields=fields, pipeline=Pipeline(steps), spec=spec)

    def run(
        self,
        source: Source,
        kernel: Kernel,
        *,
        paths: Paths,
        engine: Engine,
        logs: Logs,
        record: RunRecord,
        inputs: Mapping[str, str],
        choices: str | None = None,
        anew: bool = False,
    ) -> Manifest:
        """Put the features of every accepted row of `source` in the store.

        Where the last run has read the first part of the very same messages, only the rest is
        read, unless the layers are saved, which hold all rows.

        Parameters
        ----------
        source : Source
            Messages and the tables joined to them.
        kernel : Kernel
            What computes the features.
        paths, engine, logs : Paths, Engine, Logs
            Where, how, and how loudly.
        record : RunRecord
            Takes the counts of each stage.
        inputs : mapping of str to str
            Files of `source` and their SHA-256, which must be the same in the end.
        choices : str, optional
            Digest of what decides, beside the message files, what becomes of a message. None
            reads everything, and leaves nothing that the next run could go on from.
        anew : bool, default=False
            Whether everything is read in any case.

        Returns
        -------
        Manifest
            What the store delivers from now on.

        Raises
        ------
        InputError
            If no row is accepted; the store then delivers what it did before.
        """
        clock = Clock()
        began = time.time()
        folder = paths.layer("04_feature")
        rejected = paths.layer("02_intermediate") / "rejected.parquet"
        snapshot = f"snapshots/{record.run_id}-{len(record.stages)}.parquet"
        last = rest = None
        if choices is not None and not anew and not self.save_layers:
            last = read_extent(folder)
        if choices is not None and last is not None:
            rest = last.rest_of(source, inputs, folder=folder, rejected=rejected, choices=choices)
        stream = RowStream(
            source if rest is None else rest,
            kernel.check,
            engine=engine,
            spill=paths.layer("02_intermediate") / ".spill",
            rejected=rejected,
            clock=clock,
            extracted=paths.layer("02_intermediate") / "extracted.parquet"
            if self.save_layers
            else None,
            work=_Work(StoreAccess(folder, kernel, engine), self.save_layers),
            inputs=inputs,
        )
        dated = True
        usage = Usage()
        with ExitStack() as stack:
            with logs.working("features: first reading"):
                stack.enter_context(stream)
            delivered = stack.enter_context(
                ParquetSink(folder / snapshot, SNAPSHOT, distinct=("id", "key"))
            )
            layers = stack.enter_context(_Layers(paths, kernel)) if self.save_layers else None
            if last is not None and rest is not None:
                with pq.ParquetFile(folder / last.snapshot) as known:
                    for batch in known.iter_batches():
                        delivered.write(batch)
                dated = last.dated
                usage.reused = delivered.rows
                record.facts["continues"] = last.run_id
                logger.info(
                    "{:,} messages are known from run {}: only what was added is read.",
                    delivered.rows,
                    last.run_id,
                )
            for made in logs.progress(
                stream, what="features", unit="rows", total=stream.n_rows, done=stream.passed
            ):
                delivered.write(made.snapshot)
                dated = dated and made.dated
                usage.add(made.usage)
                if layers is not None:
                    with clock.step("layers"):
                        layers.write(made)
            references = self._references(folder, stream, choices, None if rest is None else last)
        stream.report(record, "feature")
        record.produced(rejected)
        stream.require_some(rejected)
        self._report(kernel, usage, clock, record)
        manifest = manifest_of(
            kernel,
            run_id=record.run_id,
            created=utc_now(),
            snapshot=snapshot,
            n_rows=delivered.rows,
            sources=inputs,
            dated=dated,
        )
        write_manifest(folder, manifest)
        if choices is not None:
            extent = Extent.of(
                manifest,
                source,
                folder=folder,
                rejected=rejected,
                choices=choices,
                references=references,
                parts=parts_of(folder, kernel, used_since=began),
                counts=stream.counts,
                skipped=stream.skipped,
            )
            for path in (extent.write(folder), *references.values()):
                record.produced(path)
            for path in set((folder / _REFERENCES).glob("*")) - set(references.values()):
                record.removed(path)
        make_room(folder, engine.store_bytes, remove_snapshot=record.removed)
        record.produced(folder / snapshot, rows=delivered.rows)
        record.produced(folder / "manifest.json")
        inspected = [] if layers is None else [*layers.paths, stream.extracted]
        for path in filter(None, inspected):
            record.produced(path)
        record.facts["sources"] = dict(manifest.sources)
        record.facts["skipped"] = stream.skipped
        return manifest

    @staticmethod
    def _references(
        folder: Path, stream: RowStream[Any], choices: str | None, last: Extent | None
    ) -> dict[str, Path]:
        """Give the files of the joined tables for the next run: those that the last one left."""
        if choices is None:
            return {}
        if last is not None:
            return {table: folder / name for table, name in last.references.items()}
        return stream.keep_references(folder / _REFERENCES)

    @staticmethod
    def _report(kernel: Kernel, usage: Usage, clock: Clock, record: RunRecord) -> None:
        rows = usage.computed + usage.reused
        passed = Counts(read=rows, delivered=rows)
        for name, _ in kernel.pipeline.steps[:-1]:
            seconds = clock.seconds.get(name, 0.0)
            record.stage(f"feature/{name}", passed, seconds, level="DEBUG")
        record.stage(
            "feature/embed",
            passed,
            clock.seconds.get("embed", 0.0),
            embedded_texts=usage.embedded,
            truncated_texts=usage.truncated,
        )
        record.stage(
            "feature/store",
            passed,
            clock.seconds.get("store", 0.0) + clock.seconds.get("layers", 0.0),
            computed=usage.computed,
            reused=usage.reused,
        )
        if usage.truncated:
            logger.warning(
                "{} of {} embedded texts are longer than the embedder reads; their ends are not "
                "in the embedding.",
                usage.truncated,
                usage.embedded,
            )


@dataclass(frozen=True)
class _Made:
    """What a batch adds to the snapshot and to the layers."""

    snapshot: pa.Table
    dated: bool
    usage: Usage
    rows: pa.Table | None = None
    features: pa.Table | None = None


@dataclass
class _Work:
    """Puts the features of accepted rows in the store, in any process."""

    access: StoreAccess
    layers: bool

    def __call__(self, accepted: pd.DataFrame, clock: Clock) -> _Made:
        store = self.access.for_batch(clock)
        rows = features = None
        if self.layers:
            made = store.features(accepted)
            keys = made["key"]
            rows = from_pandas(accepted, typed_schema(store.kernel.fields))
            schema = _derived_schema(store.kernel)
            features = from_pandas(accepted[["id"]].join(made)[schema.names], schema)
        else:
            keys = store.keep(accepted)
        return _Made(
            from_pandas(accepted[["id", "stars", "label"]].assign(key=keys), SNAPSHOT),
            bool(accepted["date"].notna().all()),
            store.usage,
            rows,
            features,
        )


def _derived_schema(kernel: Kernel) -> pa.Schema:
    """Columns that the steps make, beside the id and the text."""
    made = [name for name in kernel.features.names if name not in kernel.fields]
    return pa.schema(
        [("id", pa.string()), *(kernel.features.field(name) for name in ["text", *made])]
    )


class _Layers:
    """Validated rows and derived features, written beside the store for inspection."""

    def __init__(self, paths: Paths, kernel: Kernel) -> None:
        self._rows = ParquetSink(
            paths.layer("02_intermediate") / "validated.parquet", typed_schema(kernel.fields)
        )
        self._features = ParquetSink(
            paths.layer("03_primary") / "features.parquet", _derived_schema(kernel)
        )
        self.paths = (self._rows.path, self._features.path)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._rows)
        self._stack.enter_context(self._features)
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.__exit__(*failure)  # type: ignore[arg-type]

    def write(self, made: _Made) -> None:
        self._rows.write(made.rows)
        self._features.write(made.features)
