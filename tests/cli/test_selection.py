"""Selecting on one's own messages, and training with what was selected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

Cli = Callable[..., Any]
LastRun = Callable[[Path], dict[str, Any]]


def test_select_then_train(
    cli: Cli, messages_root: Path, quick: tuple[str, ...], last_run: LastRun
) -> None:
    common = (*quick, f"paths.root={messages_root}")
    others = ("random_forest", "xgboost", "lightgbm")
    ended = cli(
        *common,
        "pipeline=selection",
        "selection.cv=2",
        "selection.flaml_seconds=null",
        *(f"selection.candidates.{name}=null" for name in others),
        "selection.grid.logistic.C=[0.1,1.0]",
    )
    assert ended.status == 0, ended.stderr
    assert "pipeline=training classifier=best" in ended.stderr
    chosen = last_run(messages_root)["selection"]
    board = pd.read_parquet(
        messages_root / "data" / "08_reporting" / "selection_leaderboard.parquet"
    )
    assert board["candidate"][0] == chosen["name"] == "logistic"

    ended = cli(*common, "pipeline=training", "classifier=best")
    assert ended.status == 0, ended.stderr
    card = messages_root / "data" / "06_models" / "card.json"
    parameters = json.loads(card.read_text(encoding="utf-8"))["parameters"]
    assert chosen["parameters"].items() <= parameters.items()


def test_a_selection_needs_features(cli: Cli, quick: tuple[str, ...], tmp_path: Path) -> None:
    ended = cli(*quick, "pipeline=selection", f"paths.root={tmp_path / 'root'}")
    assert ended.status == 2
    assert ended.stderr.splitlines()[-1].endswith("run pipeline=feature first.")
