"""The model in use against the one that is to follow it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier

from batch_nlp.artifact import Artifact, Registry
from batch_nlp.errors import InputError
from batch_nlp.training.challenge import Comparison, Gate, challenge, difference, fingerprints

FEATURES = {"fingerprint": "f", "vector_fingerprint": "v", "fields": {"text": "string"}}
N = 300
TARGET = np.arange(N) % 3
ROWS = pd.DataFrame({"number": np.arange(N, dtype=float)})
TEXTS = pd.Series([f"text {number}" for number in range(N)])


def wrong(*, every: int) -> np.ndarray:
    """Labels that are wrong in every so-manieth row."""
    return np.where(np.arange(N) % every == 0, (TARGET + 1) % 3, TARGET)


def model(labels: np.ndarray) -> Artifact:
    """A model that gives just these labels, trained on none of the rows."""
    tree = DecisionTreeClassifier().fit(ROWS, labels)
    return Artifact(
        Pipeline([("same", FunctionTransformer())]),
        Pipeline([("tree", tree)]),
        card={"features": FEATURES},
        trained_on=fingerprints(pd.Series(["another text"])),
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path, "sentiment")


@pytest.fixture
def in_use(registry: Registry) -> Any:
    """Put a model in use."""

    def put(artifact: Artifact) -> str:
        version = registry.save(artifact, config_text="")
        registry.promote(version)
        return version

    return put


def judged(registry: Registry, predicted: np.ndarray, **changes: Any) -> Comparison:
    gate = Gate(**changes.pop("gate", {}))
    given: dict[str, Any] = {
        "features": FEATURES,
        "rows": ROWS,
        "texts": TEXTS,
        "target": TARGET,
        "predicted": predicted,
    }
    return challenge(gate, registry, **{**given, **changes})


def test_a_better_model_replaces_the_one_in_use(registry: Registry, in_use: Any) -> None:
    version = in_use(model(wrong(every=4)))
    found = judged(registry, wrong(every=50))
    assert (found.replaces, found.champion, found.n_rows, found.n_seen) == (True, version, N, 0)
    assert found.champion_f1_macro == pytest.approx(
        f1_score(TARGET, wrong(every=4), average="macro")
    )
    assert found.low is not None
    assert found.difference is not None
    assert found.high is not None
    assert 0 < found.low < found.difference < found.high


@pytest.mark.parametrize(("max_drop", "replaces"), [(0.01, False), (0.5, True)])
def test_a_worse_model_replaces_it_within_the_drop(
    registry: Registry, in_use: Any, max_drop: float, replaces: bool
) -> None:
    in_use(model(wrong(every=50)))
    found = judged(registry, wrong(every=4), gate={"max_drop": max_drop})
    assert found.replaces == replaces
    assert f"training.gate.max_drop={max_drop}" in found.why


def test_a_tie_keeps_the_old_one(registry: Registry, in_use: Any) -> None:
    in_use(model(wrong(every=7)))
    found = judged(registry, wrong(every=7))
    assert not found.replaces
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert "same class" in found.why


def test_other_labels_that_are_as_good_replace_it(registry: Registry, in_use: Any) -> None:
    in_use(model(wrong(every=10)))
    shifted = np.roll(wrong(every=10), 3)
    assert judged(registry, shifted).replaces


def test_rows_that_it_was_trained_on_do_not_count(registry: Registry, in_use: Any) -> None:
    # On what it has learned by heart it is right; on what is new it is worse than the challenger.
    labels = np.where(np.arange(N) < 150, TARGET, (TARGET + 1) % 3)
    known = np.sort(fingerprints(TEXTS[:150]))
    in_use(dataclasses.replace(model(labels), trained_on=known))
    found = judged(registry, wrong(every=3))
    assert found.replaces
    assert (found.n_rows, found.n_seen) == (150, 150)
    assert found.champion_f1_macro == 0
    few = judged(registry, wrong(every=3), gate={"min_rows": 151})
    assert few.replaces
    assert (few.n_rows, few.n_seen) == (0, 150)
    assert "150 held-out rows are new to the model in use, fewer than" in few.why


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("first", "there was none before"),
        ("not asked for", "asks for no comparison"),
        ("damaged", "cannot be read: .* was changed after it was saved"),
        ("other features", "made in another way"),
        ("no fingerprints", "does not say which rows"),
    ],
)
def test_where_there_is_no_comparison_the_new_model_is_used(
    registry: Registry, in_use: Any, case: str, why: str
) -> None:
    changes: dict[str, Any] = {}
    champion = model(TARGET)
    if case == "no fingerprints":
        champion = dataclasses.replace(champion, trained_on=None)
    version = in_use(champion) if case != "first" else ""
    if case == "damaged":
        (registry.folder / version / "model_pipeline.joblib").write_bytes(b"else")
    elif case == "other features":
        changes["features"] = {**FEATURES, "vector_fingerprint": "of another embedder"}
    elif case == "not asked for":
        changes["gate"] = {"max_drop": None}
    found = judged(registry, wrong(every=2), **changes)
    assert found.replaces
    assert found.n_rows == 0
    assert found.difference is None
    assert re.search(why, found.why)


def test_the_interval_is_that_of_drawing_rows(registry: Registry) -> None:
    rng = np.random.default_rng(3)
    target = rng.integers(0, 3, 200)
    before = np.where(rng.random(200) < 0.3, rng.integers(0, 3, 200), target)
    after = np.where(rng.random(200) < 0.2, rng.integers(0, 3, 200), target)
    lead, low, high, both = difference(target, before, after, seed=0)
    scores = [f1_score(target, labels, average="macro") for labels in (before, after)]
    assert both == pytest.approx(scores)
    assert lead == pytest.approx(scores[1] - scores[0])
    draws = [rng.integers(0, 200, 200) for _ in range(200)]
    leads = [
        f1_score(target[rows], after[rows], average="macro")
        - f1_score(target[rows], before[rows], average="macro")
        for rows in draws
    ]
    assert (low, high) == pytest.approx(np.quantile(leads, [0.025, 0.975]), abs=0.02)


def test_a_class_that_nobody_has_counts_as_zero() -> None:
    target = np.array([0, 2] * 10)
    _, _, _, (old, new) = difference(target, target, 2 - target, seed=0)
    assert (old, new) == (pytest.approx(2 / 3), 0)


@pytest.mark.parametrize("wrong_value", [{"max_drop": -0.1}, {"max_drop": 2}, {"min_rows": 0}])
def test_a_gate_out_of_range(wrong_value: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"training.gate.{next(iter(wrong_value))} must be"):
        Gate(**wrong_value)
