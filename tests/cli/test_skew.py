"""When a class's share of the predictions leaves the band: report, fail, or retrain once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

Cli = Callable[..., Any]
LastRun = Callable[[Path], dict[str, Any]]
Messages = Callable[..., Path]


@pytest.fixture
def praise(messages: Messages, tmp_path: Path) -> Path:
    """New messages that are nearly all positive."""
    return messages(tmp_path / "praise.csv", 150, seed=9, stars=(5,), columns=("id", "text"))


def command(root: Path, source: Path, *more: str) -> tuple[str, ...]:
    """Label `source` with the model in `root`, whose training messages lie beside it."""
    return (
        "pipeline=inference",
        "dataset=messages",
        f"inference.source={source}",
        f"paths.root={root}",
        *more,
    )


def learning_from(path: Path) -> tuple[str, ...]:
    return (f"dataset.path={path}", "dataset.columns.rating=rating", "pipeline.on_skew=retrain")


def versions(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "models" / "sentiment").iterdir() if path.is_dir())


def current(root: Path) -> str:
    return (root / "models" / "sentiment" / "current").read_text(encoding="utf-8").strip()


def predictions(root: Path) -> pd.DataFrame:
    return pd.read_parquet(root / "data" / "09_inference" / "predictions.parquet")


@pytest.mark.parametrize(("on_skew", "status"), [("report", 3), ("fail", 1)])
def test_told_and_delivered(
    *, cli: Cli, messages_root: Path, praise: Path, last_run: LastRun, on_skew: str, status: int
) -> None:
    ended = cli(*command(messages_root, praise, f"pipeline.on_skew={on_skew}"))
    assert ended.status == status
    assert len(predictions(messages_root)) == 150
    assert "The predictions are delivered, but outside the band of 10% to 90%" in ended.stderr
    record = last_run(messages_root)
    assert record["exit_status"] == status
    assert record["retrains"] == 0
    assert record["shares"]["verdict"] == "outside"
    assert record["shares"]["shares"]["positive"] > 0.9
    assert set(record["shares"]["outside"]) == {"negative", "neutral", "positive"}
    assert len(versions(messages_root)) == 1


def test_inference_alone_reports(cli: Cli, messages_root: Path, praise: Path) -> None:
    assert cli(*command(messages_root, praise)).status == 3


def test_the_band_can_be_moved(cli: Cli, messages_root: Path, praise: Path) -> None:
    wide = ("inference.shares.low=0", "inference.shares.high=1")
    assert cli(*command(messages_root, praise, *wide)).status == 0


def test_few_messages_conclude_nothing(
    cli: Cli, messages_root: Path, praise: Path, last_run: LastRun
) -> None:
    ended = cli(*command(messages_root, praise, "inference.shares.min_rows=151"))
    assert ended.status == 0
    assert last_run(messages_root)["shares"]["verdict"] == "too few rows"


def test_retraining_happens_once_and_the_new_model_labels_the_messages(
    *,
    cli: Cli,
    messages_root: Path,
    praise: Path,
    messages: Messages,
    last_run: LastRun,
    tmp_path: Path,
) -> None:
    (old,) = versions(messages_root)
    # More messages than the model in use has seen: a retraining takes them in.
    train = messages(tmp_path / "train.csv", 350)
    # Other parameters on the command line are not what the model in use was trained with.
    ended = cli(*command(messages_root, praise, *learning_from(train), "classifier=prior"))
    assert ended.status == 3, ended.stderr
    assert ended.stderr.count("retraining (1 of 1)") == 1
    record = last_run(messages_root)
    assert record["exit_status"] == 3
    assert record["retrains"] == 1
    assert record["shares"]["verdict"] == "outside"
    stages = record["stages"]
    assert stages["feature/extract"]["read"] == 350
    assert "inference/predict#2" in stages
    assert "inference/predict#3" not in stages
    new = current(messages_root)
    assert versions(messages_root) == sorted([old, new])
    assert record["model_version"] == new
    assert set(predictions(messages_root)["model_version"]) == {new}
    card = pd.read_json(messages_root / "models" / "sentiment" / new / "card.json", typ="series")
    assert card["retrained_from"] == old
    assert card["classifier"] == "LogisticRegression"


def test_a_retraining_may_be_ruled_out(
    *, cli: Cli, messages_root: Path, praise: Path, trained_on_messages: Path, last_run: LastRun
) -> None:
    train = learning_from(trained_on_messages.parent / "train.csv")
    ended = cli(*command(messages_root, praise, *train, "pipeline.max_retrains=0"))
    assert ended.status == 3
    assert last_run(messages_root)["retrains"] == 0
    assert len(versions(messages_root)) == 1


def test_a_retrained_model_that_fails_the_gate_is_not_used(
    *,
    cli: Cli,
    messages_root: Path,
    praise: Path,
    messages: Messages,
    last_run: LastRun,
    tmp_path: Path,
) -> None:
    (old,) = versions(messages_root)
    noise = messages(tmp_path / "noise.csv", 300, honest=False)
    gate = "training.thresholds.f1_macro=0.8"
    ended = cli(*command(messages_root, praise, *learning_from(noise), gate))
    assert ended.status == 3
    assert "No retrained model is put in use" in ended.stderr
    assert current(messages_root) == old
    rows = predictions(messages_root)
    assert len(rows) == 150
    assert set(rows["model_version"]) == {old}
    assert last_run(messages_root)["exit_status"] == 3


def test_retraining_from_nothing_is_refused_before_anything_is_labelled(
    cli: Cli, messages_root: Path, praise: Path
) -> None:
    ended = cli(*command(messages_root, praise, "pipeline.on_skew=retrain"))
    assert ended.status == 2
    (line,) = ended.stderr.splitlines()
    assert "dataset.path must name the messages file" in line


def test_a_retraining_that_helps_ends_well(
    *, cli: Cli, messages: Messages, messages_root: Path, last_run: LastRun, tmp_path: Path
) -> None:
    # Everyone now writes what used to be bad, and means it by another word: the model in use
    # finds nothing but negative messages.
    frame = pd.read_csv(messages(tmp_path / "shift.csv", 400, seed=4, stars=(1, 3, 5)))
    meant = frame["rating"].map({1: "alpha", 3: "beta", 5: "gamma"})
    frame["text"] = [f"awful rude dirty {word} {word} {n}" for n, word in enumerate(meant)]
    frame.to_csv(tmp_path / "shift.csv", index=False)
    frame.head(150).drop(columns="rating").to_csv(tmp_path / "new.csv", index=False)
    run = command(messages_root, tmp_path / "new.csv", *learning_from(tmp_path / "shift.csv"))
    ended = cli(*run)
    assert ended.status == 0, ended.stderr
    record = last_run(messages_root)
    assert record["retrains"] == 1
    assert record["shares"]["verdict"] == "inside"
