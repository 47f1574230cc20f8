"""The program's own entries, built from the configuration alone."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from benchmarks.quality.rivals import LEAKING, Predict, Rival, Rows
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from batch_nlp.feature.job import FeatureJob
from batch_nlp.kernel import Kernel
from batch_nlp.predict import predict as label
from batch_nlp.schemas import JOINED_FIELDS, LABELS
from batch_nlp.settings import build, plain
from batch_nlp.tables import digest
from batch_nlp.training.job import TrainingJob

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"

LEFT_OUT = {
    "classifier": {"best", "prior"},  # what a selection found; the majority class
    "embedder": set[str](),
}
"""Options that are no entries."""

SLOW = {"sentence"}
"""Embedders that read some dozens of messages a second."""


_CALIBRATION = "training.model.calibration"
RULES = {
    "argmax": (f"{_CALIBRATION}.decision=argmax",),
    "class weights": ("training.balance=balanced",),
    "class weights, argmax": ("training.balance=balanced", f"{_CALIBRATION}.decision=argmax"),
    "temperature": (f"{_CALIBRATION}.method=temperature",),
    "isotonic": (f"{_CALIBRATION}.method=isotonic",),
    "uncalibrated": (f"{_CALIBRATION}.method=none",),
}
"""Other ways from the default's classifier to probabilities and labels."""


def configuration(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of messages that have a text and nothing else."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("config", overrides=["dataset=messages", *overrides])


def kernel_of(config: DictConfig) -> Kernel:
    job: FeatureJob = build(config.feature, "feature")
    return job.kernel(JOINED_FIELDS, plain(config.feature.steps))


def features(texts: Sequence[str], kernel: Kernel) -> pd.DataFrame:
    """Give the frame that the model pipeline would get for these texts."""
    rows = pd.DataFrame(index=range(len(texts)), columns=list(JOINED_FIELDS), dtype="str")
    rows["id"] = [str(number) for number in range(len(texts))]
    rows["text"] = pd.Series(list(texts), dtype="str")
    verdict = kernel.check(rows)
    if len(verdict.accepted) != len(texts):
        message = f"{len(texts) - len(verdict.accepted)} texts were rejected."
        raise ValueError(message)
    derived = kernel.derive(verdict.accepted)
    encoded = kernel.embedder.encode_distinct(derived[kernel.embedder.column])
    return derived.join(kernel.embedder.vector_frame(encoded.vectors, derived.index))


def training_job(train: Rows, overrides: Sequence[str]) -> TrainingJob:
    config = configuration([*overrides, f"seed={train.seed}"])
    job: TrainingJob = build(config.training, "training")
    return job


def fitted(job: TrainingJob, train: Rows, X: pd.DataFrame) -> Predict:
    """Fit as a training run does, and label as inference does."""
    model: Pipeline = clone(job.model)
    job.fit(model, X, train.y, stars=pd.Series(train.stars))

    def predict(rows: Rows) -> tuple[Any, Any]:
        found = label(model, rows.X)
        probabilities = found[[f"proba_{name}" for name in LABELS]].to_numpy()
        return found["prediction"].to_numpy(), probabilities

    return predict


def entry(overrides: Sequence[str]) -> Any:
    """Give the function that fits the program's own entry."""

    def fit(train: Rows) -> Predict:
        return fitted(training_job(train, overrides), train, train.X)

    return fit


def table_entry(train: Rows) -> Predict:
    """Fit the classifier, calibrated as configured, on the columns of a table."""

    def columns(X: pd.DataFrame) -> pd.DataFrame:
        kept = X.drop(columns=LEAKING, errors="ignore")
        kinds = kept.select_dtypes("category").columns
        types = {name: "str" if name in kinds else "float64" for name in kept.columns}
        return kept.astype(types)

    config = configuration([f"seed={train.seed}"])
    node = plain(config.training)
    node["model"]["learn"] = {}
    job: TrainingJob = build(node, "training")
    predict = fitted(job, train, columns(train.X))
    return lambda rows: predict(replace(rows, X=columns(rows.X)))


def options(group: str) -> list[str]:
    """Give the options of a group that are entries."""
    names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    return [name for name in names if name not in LEFT_OUT[group]]


def entries() -> dict[str, Rival]:
    """Give the program's entries: the default, the best, other rules, each pair of parts."""
    found = [
        Rival("ours: default", entry(()), "features", "light", (8, 15)),
        Rival("ours: default, table", table_entry, "table", "light", (10, 3)),
    ]
    best = "experiment=best"
    if (CONF / "experiment" / "best.yaml").is_file():
        found.append(
            Rival(
                f"ours: {best}", entry((best,)), "features", "heavy", (60, 200), overrides=(best,)
            )
        )
    variants = dict(RULES)
    for embedder in options("embedder"):
        for classifier in options("classifier"):
            overrides = (f"embedder={embedder}", f"classifier={classifier}")
            variants[f"{embedder} + {classifier}"] = overrides
    found += [
        Rival(f"ours: {name}", entry(each), "features", "variant", (8, 15), overrides=each)
        for name, each in variants.items()
    ]
    return {each.name: each for each in found}


def features_digest(overrides: Sequence[str]) -> str:
    """Identify what decides the features: their configuration and the program's sources."""
    return digest(
        {"feature": plain(configuration(overrides).feature), "sources": sources_digest()}
    )[:16]


def entry_digest(overrides: Sequence[str]) -> str:
    """Identify what decides a model: its configuration and the program's sources."""
    config = configuration(overrides)
    parts = {name: plain(config[name]) for name in ("feature", "training")}
    return digest({**parts, "sources": sources_digest()})[:16]


def sources_digest() -> str:
    found = hashlib.sha256()
    package = ROOT / "src" / "batch_nlp"
    for path in sorted([*package.rglob("*.py"), *(package / "assets").rglob("digests.json")]):
        found.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def frame_of(texts: Sequence[str], overrides: Sequence[str]) -> tuple[pd.DataFrame, float]:
    """Give the features of texts, and the seconds that it took once everything was loaded."""
    kernel = kernel_of(configuration(overrides))
    features(texts[:8], kernel)
    start = time.perf_counter()
    frame = features(texts, kernel)
    return frame, time.perf_counter() - start
