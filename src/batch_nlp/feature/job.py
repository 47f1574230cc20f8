"""Rows to features to store."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd
import pyarrow as pa
from loguru import logger
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

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
    FeatureStore,
    Manifest,
    manifest_of,
    write_manifest,
)
from batch_nlp.tables import ParquetSink, file_digest, from_pandas


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
    ) -> Manifest:
        """Put the features of every accepted row of `source` in the store.

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
        store = FeatureStore(paths.layer("04_feature"), kernel, clock, engine)
        rejected = paths.layer("02_intermediate") / "rejected.parquet"
        snapshot = f"snapshots/{record.run_id}-{len(record.stages)}.parquet"
        stream = RowStream(
            source,
            kernel.check,
            engine=engine,
            spill=paths.layer("02_intermediate") / ".spill",
            rejected=rejected,
            clock=clock,
            extracted=paths.layer("02_intermediate") / "extracted.parquet"
            if self.save_layers
            else None,
        )
        dated = True
        with ExitStack() as stack:
            stack.enter_context(stream)
            delivered = stack.enter_context(ParquetSink(store.folder / snapshot, SNAPSHOT))
            layers = stack.enter_context(_Layers(paths, kernel)) if self.save_layers else None
            for accepted in logs.progress(stream, what="features"):
                features = store.features(accepted)
                labelled = accepted[["id", "stars", "label"]].join(features["key"])
                delivered.write(from_pandas(labelled, SNAPSHOT))
                dated = dated and bool(accepted["date"].notna().all())
                if layers is not None:
                    with clock.step("layers"):
                        layers.write(accepted, features)
        stream.report(record, "feature")
        stream.require_some(rejected)
        self._report(kernel, store, clock, record)
        manifest = manifest_of(
            kernel,
            run_id=record.run_id,
            created=utc_now(),
            snapshot=snapshot,
            n_rows=delivered.rows,
            sources={file: file_digest(file) for file in source.files},
            dated=dated,
        )
        write_manifest(store.folder, manifest)
        record.facts["sources"] = dict(manifest.sources)
        record.facts["skipped"] = stream.skipped
        return manifest

    @staticmethod
    def _report(kernel: Kernel, store: FeatureStore, clock: Clock, record: RunRecord) -> None:
        usage = store.usage
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


class _Layers:
    """Validated rows and derived features, written beside the store for inspection."""

    def __init__(self, paths: Paths, kernel: Kernel) -> None:
        self._rows = ParquetSink(
            paths.layer("02_intermediate") / "validated.parquet", typed_schema(kernel.fields)
        )
        made = [name for name in kernel.features.names if name not in kernel.fields]
        self._features = ParquetSink(
            paths.layer("03_primary") / "features.parquet",
            pa.schema(
                [("id", pa.string()), *(kernel.features.field(name) for name in ["text", *made])]
            ),
        )
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._rows)
        self._stack.enter_context(self._features)
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.__exit__(*failure)  # type: ignore[arg-type]

    def write(self, accepted: pd.DataFrame, features: pd.DataFrame) -> None:
        self._rows.write(from_pandas(accepted, self._rows.schema))
        own = accepted[["id"]].join(features)
        self._features.write(from_pandas(own[self._features.schema.names], self._features.schema))
