"""Stages in order, the check of the shares, and retraining.

This is the only module that sees the configuration: it builds the jobs and hands them what
they need.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger
from omegaconf import DictConfig, OmegaConf

from batch_nlp import __version__
from batch_nlp.artifact import Artifact, Registry
from batch_nlp.errors import ArtifactError, BatchNlpError, InputError
from batch_nlp.feature.job import FeatureJob
from batch_nlp.inference.shares import ShareVerdict
from batch_nlp.interrupt import was_asked
from batch_nlp.kernel import Kernel, fields_from_json, fields_to_json
from batch_nlp.locks import locked
from batch_nlp.logs import Logs
from batch_nlp.records import RunRecord
from batch_nlp.redaction import redacted
from batch_nlp.resume import Checkpoints, sweep
from batch_nlp.rows.datasets import MESSAGE_FILES, Dataset, HeldOutDataset
from batch_nlp.rows.extract import Engine, Source
from batch_nlp.settings import ModelChoice, Paths, PipelineChoice, build, plain, verify
from batch_nlp.store import Manifest, read_manifest
from batch_nlp.tables import digest, digests_of, file_digest, write_text
from batch_nlp.workers import keep_freed_memory, own_threads

if TYPE_CHECKING:  # built from the configuration, and imported only where they are needed
    from batch_nlp.audit import AuditJob
    from batch_nlp.explain.job import ExplainJob
    from batch_nlp.inference.job import InferenceJob
    from batch_nlp.models import ModelsJob
    from batch_nlp.score.job import ScoreJob
    from batch_nlp.training.job import Trained, TrainingJob
    from batch_nlp.training.selection import SelectionJob

OUTSIDE_BAND = 3
"""Exit status when predictions were delivered and a class is outside its band."""

_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def run(config: DictConfig) -> int:
    """Run the configured pipeline, and leave a record of it whatever happens.

    Parameters
    ----------
    config : DictConfig
        The composed configuration.

    Returns
    -------
    int
        Exit status: 0 done, 1 failed, 2 bad configuration or input, 3 delivered but outside
        the band.

    Raises
    ------
    KeyboardInterrupt
        When interrupted, after the record is written.
    """
    keep_freed_memory(own_threads())
    Logs().set_up()
    try:
        verify(config)
        logs: Logs = build(config.logs, "logs")
        logs.set_up()
        paths: Paths = build(config.paths, "paths")
        choice: PipelineChoice = build(config.pipeline, "pipeline")
        plain_config = redacted(plain(config))
        record = RunRecord(
            folder=paths.layer("08_reporting") / "runs",
            pipeline=choice.name,
            config_digest=digest(plain_config),
        )
        config_text = OmegaConf.to_yaml(OmegaConf.create(plain_config))
        write_text(record.path / "config.yaml", config_text)
        record.produced(record.path / "config.yaml")
        record.write(exit_status=None)
    except BatchNlpError as error:
        logger.error(str(error))
        return error.exit_status
    except OSError as error:
        logger.error("Cannot write under paths.root={}: {}.", config.paths.root, error)
        return InputError.exit_status

    def alone() -> int:
        what = f"run {record.run_id} (pipeline={choice.name})"
        with locked(paths.data / ".lock", what=what, wait=config.wait):
            sweep(paths.data, paths.models)
            return _Run(config, choice, paths, logs, record, config_text).run()

    with logs.to_file(record.path / "run.log"):
        return _recorded(record, alone)


def _recorded(record: RunRecord, work: Callable[[], int]) -> int:
    """Do the work, and turn whatever happens into a line, a record and an exit status."""
    try:
        status = work()
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or was_asked():
            _write(record, exit_status=130, error="interrupted")
            raise KeyboardInterrupt from error
        return _failed(record, error)
    record.write(exit_status=status)
    logger.info("Run {} ended with status {}: {}", record.run_id, status, record.path / "run.json")
    return status


def _failed(record: RunRecord, error: Exception) -> int:
    """Turn an error into a line, a record and an exit status."""
    log = logger.bind(only="file")
    if isinstance(error, BatchNlpError):
        line, shown, status = str(error), str(error), error.exit_status
        log.opt(exception=error).debug("Where it failed")
    elif isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        place, reason = error.filename or record.root, os.strerror(error.errno)
        line = f"Cannot write {place}: {reason}. Nothing is half-written: run the same again."
        shown, status = line, 1
        log.opt(exception=error).debug("Where it failed")
    else:
        line = f"{type(error).__name__}: {error}".split("\n", maxsplit=1)[0]
        where = record.path / "run.log"
        shown = f"{line} (a fault of the program or its surroundings; see {where})"
        status = 1
        log.opt(exception=error).error("Unexpected failure")
    logger.error("{}", shown)
    _write(record, exit_status=status, error=line)
    return status


def _write(record: RunRecord, *, exit_status: int, error: str) -> None:
    """Write the record of a run that failed, unless that is what fails."""
    with suppress(OSError):
        record.write(exit_status=exit_status, error=error)


@dataclass
class _Run:
    """One run: its configuration, and what its stages share."""

    config: DictConfig
    choice: PipelineChoice
    paths: Paths
    logs: Logs
    record: RunRecord
    config_text: str

    def __post_init__(self) -> None:
        self.engine: Engine = build(self.config.engine, "engine")
        self.dataset: Dataset = build(self.config.dataset, "dataset")
        model: ModelChoice = build(self.config.model, "model")
        self.registry = Registry(self.paths.models, model.name)
        self.store = self.paths.layer("04_feature")
        finished = self.paths.layer("08_reporting") / "finished"
        self.checkpoints = Checkpoints(finished, self.record, force=self.config.force)

    def run(self) -> int:
        self._check()
        verdict: ShareVerdict | None = None
        others: dict[str, Callable[[], None]] = {
            "feature": self.feature,
            "training": self.train,
            "explain": self.explain,
            "selection": self.selection,
            "score": self.score,
            "models": self.models,
            "audit": self.audit,
            "distill": self.distill,
        }
        for stage in self.choice.stages:
            if stage == "inference":
                verdict = self.inference()
            else:
                others[stage]()
        status = self._conclude(verdict) if verdict is not None else 0
        # Asked for again they are done again; the same predictions are not.
        for stage in set(self.choice.stages) - {"inference"}:
            self.checkpoints.drop(stage)
        return status

    def _check(self) -> None:
        """Tell what is wrong with the last stage before the first one runs."""
        for stage in self.choice.stages:
            job = build(self.config[stage], stage)
            if stage in {"inference", "explain"} and job.source is not None:
                self.dataset.source(job.source)
            if stage == "score":
                self.dataset.labels(job.labels)
        if self.choice.on_skew == "retrain":
            self.dataset.source()

    def feature(self, kernel: Kernel | None = None) -> None:
        """Extract and derive; with the kernel of a model in use, in just its way."""
        if kernel is None:
            job: FeatureJob = build(self.config.feature, "feature")
            source = self.dataset.source()
            kernel = job.kernel(source.fields, plain(self.config.feature.steps))
        else:
            job = self._feature_job(kernel.spec)
            source = self.dataset.source(fields=kernel.fields)
        inputs = self._digests(source)
        fingerprint = self._fingerprint(
            inputs,
            "dataset",
            kernel=[kernel.fingerprint, kernel.vector_fingerprint],
            save_layers=job.save_layers,
        )
        if finished := self.checkpoints.take("feature", fingerprint):
            logger.info("The features are those that run {} made.", finished.run_id)
            return
        with self.checkpoints.stage("feature", fingerprint):
            job.run(
                source,
                kernel,
                paths=self.paths,
                engine=self.engine,
                logs=self.logs,
                record=self.record,
                inputs=inputs,
                choices=self._choices(source, kernel, inputs),
                anew=self.config.force,
            )

    def train(self) -> None:
        """Train, and hold messages back as new ones, unless an interrupted run has done so."""
        job: TrainingJob = build(self.config.training, "training")
        store = Path(job.features) if job.features else self.store
        snapshot = store / read_manifest(store).snapshot
        fingerprint = self._fingerprint(
            {file.name: file_digest(file) for file in (snapshot, store / "manifest.json")}
            | digests_of(_named_files(plain(self.config.training).get("model"))),
            "training",
            model=self.registry.name,
        )
        if finished := self.checkpoints.take("training", fingerprint):
            version = finished.facts["model_version"]
            logger.info("The model is {} of run {}.", version, finished.run_id)
            return
        with self.checkpoints.stage("training", fingerprint):
            self._hold_back(self.training())

    def training(self, like: Artifact | None = None) -> Trained:
        """Train on what the store delivers; with a model in use, in just its way."""
        job: TrainingJob = build(self.config.training, "training")
        store = Path(job.features) if job.features else self.store
        if like is not None:
            # A retraining learns from what was just extracted.
            job, store = job.in_the_way_of(like), self.store
        manifest, kernel = self._snapshot(store)
        return job.run(
            manifest,
            kernel,
            self.registry,
            store=store,
            paths=self.paths,
            engine=self.engine,
            logs=self.logs,
            record=self.record,
            config_text=self.config_text,
            retrained_from=like.version if like is not None else None,
        )

    def selection(self) -> None:
        """Choose the classifier that ``classifier=best`` stands for."""
        job: SelectionJob = build(self.config.selection, "selection")
        training = plain(self.config.training)
        store = Path(training["features"]) if training["features"] else self.store
        manifest, kernel = self._snapshot(store)
        job.run(
            training,
            manifest,
            kernel,
            store=store,
            paths=self.paths,
            engine=self.engine,
            logs=self.logs,
            record=self.record,
        )

    def inference(self) -> ShareVerdict:
        """Score the new messages with the model in use."""
        job: InferenceJob = build(self.config.inference, "inference")
        artifact, kernel, source = self._new_messages(job.source)
        inputs = self._digests(source)
        fingerprint = self._fingerprint(
            inputs,
            *(["dataset"] if job.source is not None else []),
            "inference",
            model=[self.registry.name, artifact.card["sha256"]],
        )
        if finished := self.checkpoints.take("inference", fingerprint):
            verdict = ShareVerdict(**finished.facts["shares"])
            logger.info(
                "Nothing to do: run {} gave these messages their labels with this model, in {} "
                "(force=true does it again).",
                finished.run_id,
                self.paths.layer("09_inference") / "predictions.parquet",
            )
            return verdict
        with self.checkpoints.stage("inference", fingerprint):
            return job.run(
                source,
                artifact,
                kernel,
                paths=self.paths,
                engine=self.engine,
                logs=self.logs,
                record=self.record,
                inputs=inputs,
                fingerprint=fingerprint,
            )

    def explain(self) -> None:
        """Say why messages get their labels from the model in use."""
        job: ExplainJob = build(self.config.explain, "explain")
        artifact, kernel, source = self._new_messages(job.source)
        job.run(
            source,
            artifact,
            kernel,
            paths=self.paths,
            engine=self.engine,
            logs=self.logs,
            record=self.record,
        )

    def score(self) -> None:
        """Hold labels that came later against predictions."""
        job: ScoreJob = build(self.config.score, "score")
        job.run(
            self.dataset.labels(job.labels),
            self.registry,
            paths=self.paths,
            engine=self.engine,
            logs=self.logs,
            record=self.record,
        )

    def models(self) -> None:
        """List the versions of the model, and change which is in use or kept if asked to."""
        job: ModelsJob = build(self.config.models, "models")
        job.run(self.registry, self.record)

    def audit(self) -> None:
        """Hold a finished run against its files."""
        job: AuditJob = build(self.config.audit, "audit")
        job.run(paths=self.paths, engine=self.engine, record=self.record)

    def distill(self) -> None:
        """Make a static model."""
        folder = build(self.config.distill, "distill").run()
        for path in sorted(folder.iterdir()):
            self.record.produced(path)
        logger.info("The static model is in {0}; use it with embedder.path={0}", folder)

    def _feature_job(self, steps: Any) -> FeatureJob:
        """Build the feature pipeline that a manifest or an artifact describes."""
        node = {**plain(self.config.feature), "steps": steps}
        job: FeatureJob = build(node, "feature")
        return job

    def _snapshot(self, store: Path) -> tuple[Manifest, Kernel]:
        """Give what the last feature run delivered, and the feature pipeline that made it."""
        manifest = read_manifest(store)
        feature_job = self._feature_job(manifest.steps)
        kernel = feature_job.kernel(fields_from_json(manifest.fields), manifest.steps)
        made = (manifest.fingerprint, manifest.vector_fingerprint)
        if made != (kernel.fingerprint, kernel.vector_fingerprint):
            message = (
                f"The features in {store} were made by version {manifest.version} of the program "
                "or by an embedding model that has changed: run pipeline=feature again."
            )
            raise InputError(message)
        return manifest, kernel

    def _choices(self, source: Source, kernel: Kernel, inputs: Mapping[str, str]) -> str | None:
        """Give the digest of what decides, beside its file, what becomes of a message."""
        if source.max_reviews is not None:
            return None
        references = [each.path for tables in source.references.values() for each in tables]
        dataset = plain(self.config.dataset)
        return self._fingerprint(
            {path: inputs[path] for path in references},
            dataset={name: dataset[name] for name in dataset if name not in MESSAGE_FILES},
            fields=fields_to_json(source.fields),
            kernel=[kernel.fingerprint, kernel.vector_fingerprint],
        )

    def _digests(self, source: Source) -> dict[str, str]:
        with self.logs.working("taking the digests of the files"):
            return digests_of(source.files)

    def _fingerprint(self, inputs: Mapping[str, str], *groups: str, **more: Any) -> str:
        """Give the digest of what a stage's result depends on."""
        choices = {group: plain(self.config)[group] for group in groups}
        return digest({"version": __version__, "inputs": dict(inputs), **choices, **more})

    def _new_messages(self, files: str | list[str] | None) -> tuple[Artifact, Kernel, Source]:
        """Give the model in use, its feature pipeline, and the messages that are named.

        Where none are named, they are what a training held back.
        """
        artifact = self.registry.load()
        kernel = kernel_of(artifact)
        if files is not None:
            return artifact, kernel, self.dataset.source(files, kernel.fields)
        new = self.paths.layer("09_inference") / "new"
        if not any(new.glob("*.parquet")):
            message = (
                "inference.source must name the new messages: it is not set, and no "
                f"training has held any back in {new}."
            )
            raise InputError(message)
        held_out = HeldOutDataset(path=str(new / "*.parquet"))
        return artifact, kernel, held_out.source(None, kernel.fields)

    def _hold_back(self, trained: Trained) -> None:
        path = trained.hold_back(self.paths.layer("09_inference") / "new")
        self.record.produced(path, rows=len(trained.held_out))
        logger.info("Held back {:,} messages as new ones: {}", len(trained.held_out), path)

    def _conclude(self, verdict: ShareVerdict) -> int:
        """Act on the shares, and give the exit status."""
        retrains = 0
        while (
            verdict.is_outside
            and self.choice.on_skew == "retrain"
            and retrains < self.choice.max_retrains
        ):
            retrains += 1
            logger.warning(
                "The share of {} is outside the band: retraining ({} of {}).",
                " and ".join(verdict.outside),
                retrains,
                self.choice.max_retrains,
            )
            in_use = self.registry.load()
            try:
                self.feature(kernel_of(in_use))
                read = read_manifest(self.store).sources
                if set(read.values()) == set(in_use.card["features"]["sources"].values()):
                    logger.warning("No file has changed: this gives the same model again.")
                if not self.training(like=in_use).in_use:
                    break  # the predictions are already those of the model that stays
            except BatchNlpError as error:
                # The predictions are delivered: what is wrong here does not take them back.
                logger.error("No retrained model is put in use: {}", error)
                break
            verdict = self.inference()
        self.record.facts["retrains"] = retrains
        if not verdict.is_outside:
            return 0
        shares = ", ".join(f"{label} {verdict.shares[label]:.1%}" for label in verdict.outside)
        message = (
            f"The predictions are delivered, but outside the band of {verdict.low:.0%} to "
            f"{verdict.high:.0%}: {shares}. The model may no longer fit these messages."
        )
        if self.choice.on_skew == "fail":
            raise BatchNlpError(message)
        logger.warning(message)
        return OUTSIDE_BAND


def kernel_of(artifact: Artifact) -> Kernel:
    """Give the feature pipeline that a model was trained with.

    Raises
    ------
    ArtifactError
        If its embedding model is no longer the same.
    """
    features = artifact.card["features"]
    kernel = Kernel(
        fields=fields_from_json(features["fields"]),
        pipeline=artifact.feature_pipeline,
        spec=features["steps"],
    )
    if kernel.vector_fingerprint != features["vector_fingerprint"]:
        message = (
            f"The embedding model that model {artifact.version} was trained with has changed "
            "since: put it back, or train again."
        )
        raise ArtifactError(message)
    return kernel


def _named_files(node: Any) -> list[str]:
    """Give the files that the values of a configuration name, and those of folders that they do."""
    if isinstance(node, dict):
        return [file for each in node.values() for file in _named_files(each)]
    if isinstance(node, list):
        return [file for each in node for file in _named_files(each)]
    if not isinstance(node, str) or not node:
        return []
    try:
        named = Path(node)
        files = [named] if named.is_file() else sorted(named.rglob("*"))
        return [str(file) for file in files if file.is_file()]
    except OSError:  # such as a text that is too long for a name
        return []
