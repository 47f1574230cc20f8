"""New messages to predictions, in input order, every row accounted for."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from loguru import logger
from sklearn.pipeline import Pipeline

from batch_nlp.artifact import Artifact
from batch_nlp.inference.shares import ShareRule, ShareVerdict
from batch_nlp.kernel import Kernel
from batch_nlp.logs import Clock, Logs
from batch_nlp.monitoring.monitor import Monitor, Watch
from batch_nlp.monitoring.reference import Seen
from batch_nlp.predict import PROBABILITIES, predict
from batch_nlp.records import RunRecord
from batch_nlp.rows.counts import Counts
from batch_nlp.rows.extract import Engine, Source
from batch_nlp.rows.stream import RowStream, Shards
from batch_nlp.schemas import LABELS, PREDICTIONS
from batch_nlp.settings import Paths
from batch_nlp.store import StoreAccess, Usage, make_room, making_room
from batch_nlp.tables import ParquetSink, atomic_path, formula_safe, from_pandas

SCORED = pa.schema([each for each in PREDICTIONS if each.name not in ("model_version", "run_id")])
"""What is known of a prediction before it is written: its columns but those of the run."""


@dataclass(frozen=True, kw_only=True)
class InferenceJob:
    """How new messages are scored.

    Parameters
    ----------
    source : str or list of str, optional
        File or glob of new messages; None takes what training held out.
    csv : bool, default=False
        Whether the predictions are also written as CSV.
    shares : ShareRule
        When the model is said not to fit.
    monitor : Monitor
        When the messages are said to be no longer those that the model was judged on.
    """

    source: str | list[str] | None = None
    csv: bool = False
    shares: ShareRule = field(default_factory=ShareRule)
    monitor: Monitor = field(default_factory=Monitor)

    def run(
        self,
        source: Source,
        artifact: Artifact,
        kernel: Kernel,
        *,
        paths: Paths,
        engine: Engine,
        logs: Logs,
        record: RunRecord,
        inputs: Mapping[str, str],
        fingerprint: str,
    ) -> ShareVerdict:
        """Score every accepted message of `source`.

        Parameters
        ----------
        source : Source
            New messages.
        artifact : Artifact
            The trained model.
        kernel : Kernel
            The feature pipeline of `artifact`.
        paths, engine, logs : Paths, Engine, Logs
            Where, how, and how loudly.
        record : RunRecord
            Takes the counts of each stage and the verdict on the shares.
        inputs : mapping of str to str
            Files of `source` and their SHA-256, which must be the same in the end.
        fingerprint : str
            Digest of all that the predictions depend on: what an interrupted run of the same
            made is taken over.

        Returns
        -------
        ShareVerdict

        Raises
        ------
        InputError
            If no row is accepted; earlier predictions then stay.
        """
        clock = Clock()
        folder = paths.layer("09_inference")
        rejected = folder / "rejected.parquet"
        watch = self.monitor.watch(artifact.model_pipeline, artifact.reference)
        features = paths.layer("04_feature")
        shards = folder / ".shards"
        for other in set(shards.glob("*")) - {shards / fingerprint}:
            shutil.rmtree(other)
        stream = RowStream(
            source,
            kernel.check,
            engine=engine,
            spill=folder / ".spill",
            rejected=rejected,
            clock=clock,
            targets=False,
            work=Scoring(StoreAccess(features, kernel, engine), artifact.model_pipeline, watch),
            inputs=inputs,
            shards=Shards(shards / fingerprint, _pack, _unpack),
        )
        counts = np.zeros(len(LABELS), dtype=int)
        usage = Usage()
        seen: Seen | None = None
        with ExitStack() as entered:
            with logs.working("inference: first reading"):
                entered.enter_context(stream)
            predictions = _Predictions(
                folder, as_csv=self.csv, model_version=artifact.version, run_id=record.run_id
            )
            with ExitStack() as stack:
                for scored in making_room(
                    logs.progress(
                        stream,
                        what="inference",
                        unit="rows",
                        total=stream.n_rows,
                        done=stream.passed,
                    ),
                    features,
                    engine.store_bytes,
                    remove_snapshot=record.removed,
                ):
                    if not predictions.is_open:
                        stack.enter_context(predictions)
                    with clock.step("predict"):
                        predictions.write(scored.predictions)
                    counts += scored.counts
                    usage.add(scored.usage)
                    seen = (
                        scored.seen if seen is None or scored.seen is None else seen + scored.seen
                    )
        shutil.rmtree(shards, ignore_errors=True)
        stream.report(record, "inference")
        record.produced(rejected)
        stream.require_some(rejected)
        n_scored = int(counts.sum())
        record.produced(folder / "predictions.parquet", rows=n_scored)
        if self.csv:
            record.produced(folder / "predictions.csv", rows=n_scored)
        else:
            record.removed(folder / "predictions.csv")
        make_room(features, engine.store_bytes, remove_snapshot=record.removed)
        record.stage(
            "inference/features",
            Counts(
                read=stream.counts["validate"].delivered, delivered=usage.computed + usage.reused
            ),
            sum(clock.seconds.get(name, 0.0) for name in self._feature_steps(kernel)),
            computed=usage.computed,
            reused=usage.reused,
            embedded_texts=usage.embedded,
            truncated_texts=usage.truncated,
        )
        record.stage(
            "inference/predict",
            Counts(read=stream.counts["validate"].delivered, delivered=n_scored),
            clock.seconds.get("predict", 0.0),
        )
        verdict = self.shares.judge(counts.tolist(), artifact.card["class_shares"])
        record.facts["model_version"] = artifact.version
        record.facts["inference_sources"] = dict(inputs)
        record.facts["shares"] = verdict.to_dict()
        logger.info("Predictions: {}", folder / "predictions.parquet")
        logger.info("Shares of the classes: {}\n{}", verdict.verdict, verdict.table())
        self.monitor.report(seen, watch, artifact, usage, paths=paths, record=record)
        return verdict

    @staticmethod
    def _feature_steps(kernel: Kernel) -> list[str]:
        return [*(name for name, _ in kernel.pipeline.steps[:-1]), "embed", "store"]


@dataclass(frozen=True)
class Scored:
    """What scoring makes of a batch.

    Attributes
    ----------
    predictions : Table
        A row for each message, with the columns of `SCORED`.
    counts : ndarray of int of shape (3,)
        Messages of each class.
    usage : Usage
        What was taken from the store and added.
    seen : Seen or None
        For monitoring.
    """

    predictions: pa.Table
    counts: npt.NDArray[np.int64]
    usage: Usage
    seen: Seen | None


def _pack(scored: Scored) -> tuple[pa.Table, Mapping[str, Any]]:
    return scored.predictions, {
        "counts": scored.counts.tolist(),
        "usage": asdict(scored.usage),
        "seen": scored.seen.to_dict() if scored.seen is not None else None,
    }


def _unpack(predictions: pa.Table, about: Mapping[str, Any]) -> Scored:
    seen = Seen.from_dict(about["seen"]) if about["seen"] is not None else None
    return Scored(predictions, np.array(about["counts"]), Usage(**about["usage"]), seen)


@dataclass
class Scoring:
    """Scores accepted rows, in any process.

    Parameters
    ----------
    access : StoreAccess
        Gives the features.
    model : Pipeline
        Fitted; gives the classes.
    watch : Watch, optional
        Looks on.
    """

    access: StoreAccess
    model: Pipeline
    watch: Watch | None = None

    def __call__(self, accepted: pd.DataFrame, clock: Clock) -> Scored:
        """Score rows that meet the contract, the steps measured by `clock`."""
        store = self.access.for_batch(clock)
        features = store.features(accepted)
        with clock.step("predict"):
            predicted = predict(self.model, features.drop(columns="key"))
        counts = np.bincount(predicted["prediction"], minlength=len(LABELS))
        predictions = from_pandas(predicted.assign(id=accepted["id"]), SCORED)
        seen = None
        if self.watch is not None:
            with clock.step("monitor"):
                seen = self.watch(features, predicted)
        return Scored(predictions, counts, store.usage, seen)


class _Predictions:
    """The predictions' files; they appear when all of them are written."""

    def __init__(self, folder: Path, *, as_csv: bool, model_version: str, run_id: str) -> None:
        self._sink = ParquetSink(
            folder / "predictions.parquet", PREDICTIONS, distinct=("id", *PROBABILITIES)
        )
        self._csv = folder / "predictions.csv" if as_csv else None
        self._same = {"model_version": model_version, "run_id": run_id}
        self._stack = ExitStack()
        self._writer: Any = None
        self.is_open = False

    def __enter__(self) -> Self:
        self._stack.enter_context(self._sink)
        if self._csv is not None:
            beside = self._stack.enter_context(atomic_path(self._csv))
            stream = self._stack.enter_context(beside.open("w", encoding="utf-8", newline=""))
            # Quoted, so that a lone carriage return within a text ends no record.
            self._writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
            self._writer.writerow(PREDICTIONS.names)
        self.is_open = True
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.__exit__(*failure)  # type: ignore[arg-type]

    def write(self, scored: pa.Table) -> None:
        for name, value in self._same.items():
            same = pa.repeat(pa.scalar(value, pa.string()), scored.num_rows)
            scored = scored.append_column(name, same)
        self._sink.write(scored)
        if self._writer is not None:
            cells = (
                formula_safe(scored[each.name]) if each.type == pa.string() else scored[each.name]
                for each in PREDICTIONS
            )
            self._writer.writerows(zip(*(each.to_pylist() for each in cells), strict=True))
