"""``pipeline=models``: versions are listed, put in use again, and removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from batch_nlp import artifact
from batch_nlp.artifact import Artifact, Registry

Cli = Callable[..., Any]
LastRun = Callable[[Path], dict[str, Any]]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models", "sentiment")


@pytest.fixture
def versions(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Five versions, oldest first: saved, used, used, in use, held."""
    model = Pipeline([("prior", DummyClassifier())]).fit([[0.0]] * 3, [0, 1, 2])
    features = Pipeline([("same", FunctionTransformer())])
    made = []
    for number in range(5):
        monkeypatch.setattr(artifact.secrets, "token_hex", lambda _, n=number: f"000{n}")
        card = {"n_train": 1000 + number, "metrics": {"f1_macro": 0.7, "f1_weighted": 0.8}}
        made.append(registry.save(Artifact(features, model, card=card), config_text=""))
        if 1 <= number <= 3:
            registry.promote(made[-1])
    registry.hold(made[4], why="worse")
    return made


@pytest.fixture
def models(
    cli: Cli, tmp_path: Path, last_run: LastRun
) -> Callable[..., tuple[dict[str, Any], str]]:
    """Run ``pipeline=models``, and give its record and what it printed."""

    def run(*overrides: str, status: int = 0) -> tuple[dict[str, Any], str]:
        ended = cli("pipeline=models", f"paths.root={tmp_path}", *overrides)
        assert ended.status == status, ended.stderr
        return last_run(tmp_path), ended.stderr

    return run


def test_versions_are_listed_with_what_became_of_them(models: Any, versions: list[str]) -> None:
    record, printed = models()
    assert [row["version"] for row in record["models"]] == versions
    statuses = ["saved", "used before", "used before", "in use", "held"]
    assert [row["status"] for row in record["models"]] == statuses
    assert [row["n_train"] for row in record["models"]] == list(range(1000, 1005))
    line = next(line for line in printed.splitlines() if line.startswith(versions[3]))
    assert line.split()[2:] == ["1,003", "0.700", "0.800", "in", "use"]


def test_no_versions_are_listed_too(models: Any, tmp_path: Path) -> None:
    record, printed = models()
    assert record["models"] == []
    assert "Versions of sentiment: 0" in printed
    assert not (tmp_path / "models").exists()


def test_a_damaged_version_is_told_and_the_others_are_listed(
    models: Any, registry: Registry, versions: list[str]
) -> None:
    path = registry.folder / versions[0] / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "n_train": 10**6}))
    record, _ = models()
    assert record["models"][0]["status"].startswith("damaged: ")
    assert record["models"][3]["status"] == "in use"


@pytest.mark.parametrize("asked", ["previous", "named"])
def test_a_rollback(models: Any, registry: Registry, versions: list[str], asked: str) -> None:
    expected = versions[2] if asked == "previous" else versions[4]
    record, printed = models(
        f"models.rollback={'previous' if asked == 'previous' else versions[4]}"
    )
    assert record["rolled_back"] == registry.current() == expected
    assert f"Model sentiment {expected} is in use." in printed
    last = registry.ledger()[-1]
    assert (last["event"], last["version"], last["previous"]) == (
        *("rolled back", expected),
        versions[3],
    )
    assert last["why"] == f"run {record['run_id']}"


@pytest.mark.parametrize("asked", ["20261123T130501Z-1a2b", "20261123T1305", "latest", "../other"])
def test_a_misspelt_version_is_one_line(
    models: Any, registry: Registry, versions: list[str], asked: str
) -> None:
    record, printed = models(f"models.rollback={asked}", status=1)
    (line,) = printed.splitlines()
    assert asked in line
    assert versions[0] in line  # what there is
    assert record["exit_status"] == 1
    assert registry.current() == versions[3]


def test_pruning(models: Any, registry: Registry, versions: list[str]) -> None:
    record, _ = models("models.prune.keep=1")
    assert record["pruned"] == versions[:2]
    assert [name.split("/")[-2] for name in record["removed"]] == versions[:2]
    assert registry.versions() == versions[2:]  # the one used before, the one in use, the newest
    assert [line["event"] for line in registry.ledger()[-2:]] == ["pruned", "pruned"]


def test_a_prune_that_keeps_nothing_is_refused(models: Any, versions: list[str]) -> None:
    _, printed = models("models.prune.keep=0", status=2)
    assert "models.prune.keep must be at least 1" in printed
