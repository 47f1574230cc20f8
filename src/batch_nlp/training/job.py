"""Features to a trained model: label, split, fit, evaluate, gate, artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from loguru import logger
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.class_weight import compute_sample_weight

from batch_nlp.artifact import CARD_FILE, CURRENT_FILE, Artifact, Registry
from batch_nlp.errors import InputError
from batch_nlp.explain.contributions import importances
from batch_nlp.kernel import Kernel
from batch_nlp.logs import Clock, Logs
from batch_nlp.monitoring.reference import build_reference
from batch_nlp.predict import PROBABILITIES, predict
from batch_nlp.records import RunRecord
from batch_nlp.rows.counts import Counts
from batch_nlp.rows.extract import Engine
from batch_nlp.schemas import IMPORTANCES, LABELS, REJECTED, typed_schema
from batch_nlp.settings import Paths
from batch_nlp.store import FeatureStore, Manifest
from batch_nlp.tables import ParquetSink, from_pandas, write_json, write_text
from batch_nlp.training.calibrate import CalibratedClassifier, inner_classifier
from batch_nlp.training.challenge import Comparison, Gate, challenge, fingerprints
from batch_nlp.training.evaluate import Evaluation, evaluate
from batch_nlp.training.gate import check, limits
from batch_nlp.training.labels import StarRule
from batch_nlp.training.pipeline import grading
from batch_nlp.training.split import Split

FEWEST_PER_CLASS = 10
"""Rows of each class that training needs: fewer cannot fill the folds and the test set."""

SPLIT = pa.schema({"id": pa.string(), "split": pa.string(), "target": pa.int64()})

TEST_PREDICTIONS = pa.schema(
    {
        "id": pa.string(),
        "target": pa.int64(),
        "prediction": pa.int64(),
        **dict.fromkeys(PROBABILITIES, pa.float64()),
    }
)


@dataclass(frozen=True)
class Trained:
    """What a training run comes to.

    Attributes
    ----------
    version : str
        Of the artifact.
    evaluation : Evaluation
        On the rows held out.
    held_out : DataFrame
        Those rows as they entered the feature pipeline: ``id`` and content, no labels.
    kernel : Kernel
        That feature pipeline.
    in_use : bool
        Whether the artifact was put in use; if not, the one before it still is.
    """

    version: str
    evaluation: Evaluation
    held_out: pd.DataFrame
    kernel: Kernel
    in_use: bool

    def hold_back(self, folder: Path) -> Path:
        """Write the rows that were held out as new messages, their labels gone.

        Parameters
        ----------
        folder : Path
            Where new messages wait.

        Returns
        -------
        Path
            The Parquet file.
        """
        names = ["id", *self.kernel.content]
        schema = typed_schema({name: self.kernel.fields[name] for name in names})
        with ParquetSink(folder / "held_out.parquet", schema) as sink:
            sink.write(from_pandas(self.held_out, schema))
        return sink.path


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """How a model is trained and judged.

    Parameters
    ----------
    model : Pipeline
        From features to classes; it is cloned before it is fitted.
    label : StarRule
        Stars to classes.
    split : Split
        Which rows are held out.
    balance : {"balanced", "sqrt", "none"}, default="none"
        Weights of the training rows: inversely proportional to the frequency of their class,
        the square root of that, or all alike.
    thresholds : mapping of str to float or None
        Metrics that a model must reach before it is put in use.
    gate : Gate
        How much worse than the one in use it may be.
    max_rows : int, default=200000
        Train on at most so many messages.
    sampling : {"newest", "stratified"}, default="newest"
        Which, where there are more: the newest, or a random sample with the shares of the
        classes.
    seed : int, default=0
        Recorded in the card; the steps carry their own.
    features : str, optional
        Folder of the feature store to train on; None takes that of ``paths.root``.
    pictures : bool, default=True
        Whether the report has its pictures and diagrams too.
    """

    model: Pipeline
    label: StarRule = field(default_factory=StarRule)
    split: Split = field(default_factory=Split)
    balance: Literal["balanced", "sqrt", "none"] = "none"
    thresholds: Mapping[str, float | None] = field(default_factory=dict)
    gate: Gate = field(default_factory=Gate)
    max_rows: int = 200_000
    sampling: Literal["newest", "stratified"] = "newest"
    seed: int = 0
    features: str | None = None
    pictures: bool = True

    def __post_init__(self) -> None:
        if self.max_rows < 1:
            message = f"training.max_rows must be at least 1, got {self.max_rows}."
            raise InputError(message)
        limits(self.thresholds)

    def run(
        self,
        manifest: Manifest,
        kernel: Kernel,
        registry: Registry,
        *,
        store: Path,
        paths: Paths,
        engine: Engine,
        logs: Logs,
        record: RunRecord,
        config_text: str,
        retrained_from: str | None = None,
    ) -> Trained:
        """Train on a snapshot of the feature store and put the model in use if it passes.

        It passes when it reaches the thresholds and is not worse than the one in use. A model
        that is only worse, or just the same, is saved for inspection.

        Parameters
        ----------
        manifest : Manifest
            The snapshot.
        kernel : Kernel
            The feature pipeline that made it.
        registry : Registry
            Takes the artifact.
        store : Path
            Folder of the feature store.
        paths : Paths
            Where reports and data layers go.
        engine, logs : Engine, Logs
            How features are read, and how loudly.
        record : RunRecord
            Takes the counts of each stage.
        config_text : str
            The composed configuration, kept in the artifact.
        retrained_from : str, optional
            Version of the model that this one is to follow, for the card.

        Returns
        -------
        Trained

        Raises
        ------
        InputError
            If a class has too few rows.
        GateError
            If a metric is below its threshold; the model in use then stays in use.
        """
        clock = Clock()
        with logs.working("training: reading"):
            rows, target, held_out = self.read(
                manifest,
                kernel,
                store=store,
                paths=paths,
                engine=engine,
                record=record,
                clock=clock,
            )
        model = clone(self.model)
        inputs = inputs_of(rows)
        with clock.step("fit"), logs.working("training: fitting"):
            stars = rows["stars"][~held_out]
            self.fit(model, inputs[~held_out], target[~held_out], stars=stars)
        trained = int((~held_out).sum())
        record.stage("training/fit", Counts(read=trained, delivered=trained), clock.seconds["fit"])
        with clock.step("evaluate"), logs.working("training: evaluating"):
            predicted = predict(model, inputs[held_out])
            evaluation = evaluate(
                target[held_out], predicted[PROBABILITIES], predicted=predicted["prediction"]
            )
            for path in evaluation.write(record.path):
                record.produced(path)
        tested = int(held_out.sum())
        record.stage(
            "training/evaluate", Counts(read=tested, delivered=tested), clock.seconds["evaluate"]
        )
        logger.info(
            "Held out {:,} rows: F1 weighted {:.3f}, F1 macro {:.3f}, recall macro {:.3f}, "
            "neutral precision {:.3f}, recall {:.3f}, calibration error {:.3f}",
            tested,
            evaluation.f1_weighted,
            evaluation.f1_macro,
            evaluation.recall_macro,
            evaluation.per_class["neutral"]["precision"],
            evaluation.per_class["neutral"]["recall"],
            evaluation.expected_calibration_error,
        )
        check(evaluation, self.thresholds)
        with clock.step("reference"):
            reference = build_reference(
                model, inputs, held_out, predicted, target[held_out], text=kernel.embedder.column
            )
        made = {
            "fingerprint": manifest.fingerprint,
            "vector_fingerprint": manifest.vector_fingerprint,
            "fields": dict(manifest.fields),
        }
        texts = rows[kernel.embedder.column]
        comparison = challenge(
            self.gate,
            registry,
            features=made,
            rows=inputs[held_out],
            texts=texts[held_out],
            target=target[held_out],
            predicted=predicted["prediction"].to_numpy(),
        )
        record.facts["comparison"] = comparison.to_dict()
        classifier, last = inner_classifier(model), model[-1]
        card = {
            "metrics": evaluation.to_dict(),
            "class_shares": dict(zip(LABELS, _shares(target[~held_out]), strict=True)),
            "n_train": trained,
            "n_test": tested,
            "split": self.split.method(rows["date"]),
            "rules": {
                "label": asdict(self.label),
                "split": asdict(self.split),
                "balance": self.balance,
                "max_rows": self.max_rows,
                "sampling": self.sampling,
                "seed": self.seed,
            },
            "run_id": record.run_id,
            "config_digest": record.config_digest,
            "features": {
                "run_id": manifest.run_id,
                **made,
                "sources": dict(manifest.sources),
                "steps": dict(manifest.steps),
            },
            "classifier": type(classifier).__name__,
            "parameters": classifier.get_params(),
            "calibration": last.describe() if isinstance(last, CalibratedClassifier) else None,
            "retrained_from": retrained_from,
            "comparison": comparison.to_dict(),
        }
        record.facts["metrics"] = evaluation.to_dict()
        version = registry.save(
            Artifact(
                feature_pipeline=kernel.pipeline,
                model_pipeline=model,
                card=card,
                reference=reference.to_dict(),
                trained_on=np.unique(fingerprints(texts[~held_out])),
            ),
            config_text=config_text,
        )
        outputs = [registry.folder / version / CARD_FILE]
        if comparison.replaces:  # the reports are those of the model in use
            outputs += self._report(model, kernel, evaluation, inputs[held_out], paths)
            outputs.append(
                self._save_predictions(
                    predicted.assign(id=rows["id"][held_out], target=target[held_out]), paths
                )
            )
        outputs += self._conclude(comparison, registry, version, paths, run_id=record.run_id)
        # The card holds the digests of the other files of its folder.
        for path in outputs:
            record.produced(path)
        record.facts["model_version"] = version
        return Trained(
            version=version,
            evaluation=evaluation,
            held_out=rows.loc[held_out, ["id", *kernel.content]].reset_index(drop=True),
            kernel=kernel,
            in_use=comparison.replaces,
        )

    def read(
        self,
        manifest: Manifest,
        kernel: Kernel,
        *,
        store: Path,
        paths: Paths,
        engine: Engine,
        record: RunRecord,
        clock: Clock,
    ) -> tuple[pd.DataFrame, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Read the rows of a snapshot that have a class, and tell which are held out.

        Parameters
        ----------
        manifest, kernel, store, paths, engine, record
            As in `run`.
        clock : Clock
            Takes the seconds of each step.

        Returns
        -------
        rows : DataFrame
            With the features; see `inputs_of`.
        target : ndarray of int of shape (n_rows,)
            The class of each row.
        held_out : ndarray of bool of shape (n_rows,)

        Raises
        ------
        InputError
            If a class has too few rows.
        """
        with clock.step("read"):
            features = FeatureStore(store, kernel, clock, engine)
            frames = list(
                features.read(
                    manifest,
                    batch_rows=engine.batch_rows,
                    newest=self.max_rows,
                    classes=self.label.apply if self.sampling == "stratified" else None,
                    seed=self.seed,
                )
            )
            rows = pd.concat(frames, ignore_index=True)
        rows = self._labelled(rows, paths, record, clock)
        target = rows.pop("target").to_numpy()
        with clock.step("split"):
            held_out = self.split.held_out(rows["date"], rows[kernel.embedder.column], target)
            record.produced(self._save_split(rows["id"], held_out, target, paths))
        record.stage(
            "training/split",
            Counts(read=len(rows), delivered=len(rows)),
            clock.seconds["split"],
            by=self.split.method(rows["date"]),
            train=int((~held_out).sum()),
            test=int(held_out.sum()),
        )
        _require_classes(target[~held_out], "train the model beside the rows held out")
        return rows, target, held_out

    def fit(
        self,
        model: Pipeline,
        rows: pd.DataFrame,
        target: npt.NDArray[np.int64],
        *,
        stars: pd.Series | None = None,
    ) -> None:
        """Fit a pipeline whose last step is named ``classifier``, its rows weighted by `balance`.

        Parameters
        ----------
        model : Pipeline
            Unfitted.
        rows : DataFrame of shape (n_rows, n_features)
            See `inputs_of`.
        target : ndarray of int of shape (n_rows,)
            Class of each row.
        stars : Series of float of shape (n_rows,), optional
            What the steps that score texts learn instead of the classes (see `grades`).

        Raises
        ------
        InputError
            If a step refuses its parameters or these rows.
        """
        try:
            finer = {} if stars is None else grading(model, rows, target, stars)
            model.fit(rows, target, classifier__sample_weight=self._weights(target), **finer)
        except ValueError as error:
            # A parameter out of its range, a column that is not there, texts without a word.
            reason = str(error).split("\n", maxsplit=1)[0]
            message = f"training.model or classifier cannot be fitted to these rows: {reason}"
            raise InputError(message) from error

    def in_the_way_of(self, artifact: Artifact) -> TrainingJob:
        """Give the job that trains a model as `artifact` was trained.

        Parameters
        ----------
        artifact : Artifact
            A model in use, whose steps, parameters and rules are kept; the thresholds stay
            those of this job.
        """
        rules = artifact.card["rules"]
        return replace(
            self,
            model=artifact.model_pipeline,
            label=StarRule(**rules["label"]),
            split=Split(**rules["split"]),
            balance=rules["balance"],
            max_rows=rules["max_rows"],
            sampling=rules.get("sampling", "newest"),
            seed=rules["seed"],
        )

    def _labelled(
        self, rows: pd.DataFrame, paths: Paths, record: RunRecord, clock: Clock
    ) -> pd.DataFrame:
        """Add the class; rows without one go to the layer's rejected file."""
        with clock.step("label"):
            target = self.label.apply(rows)
            unlabelled = rows.loc[target.isna(), ["id"]].assign(
                source=str(paths.layer("04_feature")),
                row=rows.index[target.isna()] + 1,
                column="stars",
                check="not missing",
                value=None,
            )
            with ParquetSink(paths.layer("05_model_input") / "rejected.parquet", REJECTED) as sink:
                sink.write(from_pandas(unlabelled[REJECTED.names], REJECTED))
            record.produced(sink.path)
        labelled = rows[target.notna()].assign(target=target[target.notna()].astype("int64"))
        record.stage(
            "training/label",
            Counts(read=len(rows), delivered=len(labelled), rejected=len(unlabelled)),
            clock.seconds["read"] + clock.seconds["label"],
        )
        _require_classes(labelled["target"].to_numpy(), "train and judge a model")
        return labelled.reset_index(drop=True)

    def _weights(self, target: npt.NDArray[np.int64]) -> npt.NDArray[np.float64] | None:
        if self.balance == "none":
            return None
        weights: npt.NDArray[np.float64] = compute_sample_weight("balanced", target)
        return np.sqrt(weights) if self.balance == "sqrt" else weights

    @staticmethod
    def _save_split(
        ids: pd.Series, held_out: npt.NDArray[np.bool_], target: npt.NDArray[np.int64], paths: Paths
    ) -> Path:
        split = pd.DataFrame(
            {"id": ids, "split": np.where(held_out, "test", "train"), "target": target}
        )
        with ParquetSink(paths.layer("05_model_input") / "split.parquet", SPLIT) as sink:
            sink.write(from_pandas(split, SPLIT))
        return sink.path

    @staticmethod
    def _conclude(
        comparison: Comparison, registry: Registry, version: str, paths: Paths, *, run_id: str
    ) -> list[Path]:
        """Put the model in use or keep it for inspection, and say why."""
        if comparison.n_rows:
            logger.info(
                "On {:,} held-out rows that it was not trained on, the model in use has F1 macro "
                "{:.3f} and the new one {:.3f}: {:+.3f} (95 % interval {:+.3f} to {:+.3f})",
                comparison.n_rows,
                comparison.champion_f1_macro,
                comparison.challenger_f1_macro,
                comparison.difference,
                comparison.low,
                comparison.high,
            )
        if not comparison.replaces:
            registry.hold(version, why=f"run {run_id}: {comparison.why}")
            logger.warning(
                "Model {0} {1} stays in use, and the new one, {2}, is kept for inspection: {3}.",
                registry.name,
                comparison.champion,
                version,
                comparison.why,
            )
            return []
        saved = (registry.folder / version / CARD_FILE).read_text(encoding="utf-8")
        card, parameters = (
            paths.layer("06_models") / name for name in ("card.json", "parameters.json")
        )
        write_text(card, saved)
        write_json(parameters, json.loads(saved)["parameters"])
        registry.promote(version, why=f"run {run_id}: {comparison.why}")
        logger.info("Model {} {} is in use ({}).", registry.name, version, comparison.why)
        return [card, parameters, registry.folder / CURRENT_FILE]

    @staticmethod
    def _save_predictions(predicted: pd.DataFrame, paths: Paths) -> Path:
        path = paths.layer("07_model_output") / "test_predictions.parquet"
        with ParquetSink(path, TEST_PREDICTIONS) as sink:
            sink.write(from_pandas(predicted[TEST_PREDICTIONS.names], TEST_PREDICTIONS))
        return path

    def _report(
        self,
        model: Pipeline,
        kernel: Kernel,
        evaluation: Evaluation,
        held_out: pd.DataFrame,
        paths: Paths,
    ) -> list[Path]:
        folder = paths.layer("08_reporting")
        moved = importances(model, held_out)
        with ParquetSink(folder / "importance.parquet", IMPORTANCES) as sink:
            sink.write(from_pandas(moved, IMPORTANCES))
        tables = [*evaluation.write(folder), sink.path]
        if not self.pictures:
            return tables
        from batch_nlp.reporting.diagrams import pipeline_html  # noqa: PLC0415
        from batch_nlp.reporting.pictures import (  # noqa: PLC0415  matplotlib, once it draws
            confusion_matrix_png,
            feature_importance_png,
            feature_importances,
            reliability_png,
            shap_importance_png,
        )

        names = (
            "confusion_matrix.png",
            "reliability.png",
            "feature_importance.png",
            "shap_importance.png",
            "feature_pipeline.html",
            "training_pipeline.html",
        )
        pages = [folder / name for name in names]
        confusion, reliability, importance, shap, features, training = pages
        confusion_matrix_png(evaluation, confusion)
        reliability_png(evaluation, reliability)
        feature_importance_png(feature_importances(model), importance)
        shap_importance_png(moved, shap)
        pipeline_html(kernel.pipeline, "Feature pipeline", features)
        pipeline_html(model, "Training pipeline", training)
        return [*tables, *pages]


def inputs_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Give the columns that the model pipeline takes, of labelled rows."""
    return rows.drop(columns=["id", "key", "stars", "label"])


def _shares(target: npt.NDArray[np.int64]) -> list[float]:
    counts = np.bincount(target, minlength=len(LABELS))
    return [float(share) for share in counts / counts.sum()]


def _require_classes(target: npt.NDArray[np.int64], purpose: str) -> None:
    counts = np.bincount(target, minlength=len(LABELS))
    if counts.min() < FEWEST_PER_CLASS:
        found = ", ".join(f"{n} {label}" for n, label in zip(counts, LABELS, strict=True))
        message = (
            f"To {purpose}, each class needs at least {FEWEST_PER_CLASS} labelled rows; "
            f"there are {found}."
        )
        raise InputError(message)
