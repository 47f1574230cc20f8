"""Shared by the tests of the command line: messages files, a root trained on one, the script."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

WORDS = {
    1: "awful rude dirty slow cold terrible broken worst",
    3: "okay average fine ordinary acceptable mixed usual plain",
    5: "great friendly lovely delicious clean quick wonderful excellent",
}
FILLERS = ("the", "a", "food", "room", "staff", "we", "place", "was", "and", "it")
QUICK = (
    "embedder=hashing",
    "classifier=logistic",
    "training.model.learn.text.cv=2",
    "training.pictures=false",
)

Messages = Callable[..., Path]


def write_messages(
    path: Path,
    n: int = 300,
    *,
    seed: int = 0,
    columns: tuple[str, ...] = ("id", "text", "rating"),
    stars: tuple[int, ...] = (1, 1, 3, 5, 5),
    honest: bool = True,
) -> Path:
    """Write a CSV of synthetic messages whose words tell the rating, unless they are not honest."""
    random = Random(seed)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for number in range(n):
            rating = random.choice(stars)
            words = random.choices(WORDS[rating].split(), k=4) + random.choices(FILLERS, k=5)
            random.shuffle(words)
            values = {
                "id": f"m{seed}-{number}",
                "text": f"{' '.join(words)} {number}",
                "rating": rating if honest else random.choice((1, 3, 5)),
                "date": f"20{number % 20:02d}-03-{1 + number % 28:02d}",
            }
            writer.writerow([values.get(name, "x") for name in columns])
    return path


@pytest.fixture(scope="session")
def messages() -> Messages:
    """Write a CSV of synthetic messages (see `write_messages`)."""
    return write_messages


@pytest.fixture(scope="session")
def quick() -> tuple[str, ...]:
    """Overrides that make a run on messages quick."""
    return QUICK


@pytest.fixture(scope="session")
def trained_on_messages(tmp_path_factory: pytest.TempPathFactory, cli: Callable[..., Any]) -> Path:
    """Root in which the first two commands of the contract ran, beside ``train.csv``; read only."""
    folder = tmp_path_factory.mktemp("messages")
    train = write_messages(folder / "train.csv")
    source = ("dataset=messages", f"dataset.path={train}", "dataset.columns.rating=rating")
    root = f"paths.root={folder / 'root'}"
    ended = cli("pipeline=feature", *source, root, *QUICK)
    assert ended.status == 0, ended.stderr
    ended = cli("pipeline=training", root, *QUICK)
    assert ended.status == 0, ended.stderr
    return folder / "root"


@pytest.fixture
def messages_root(trained_on_messages: Path, tmp_path: Path) -> Path:
    """Copy of `trained_on_messages` that a test may change."""
    return Path(shutil.copytree(trained_on_messages, tmp_path / "messages_root"))


def snapshot(root: Path) -> dict[str, bytes]:
    """Give the content of every file under a folder."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def content() -> Callable[[Path], dict[str, bytes]]:
    """Give the content of every file under a folder."""
    return snapshot


@pytest.fixture(scope="session")
def start(project_root: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start the entry script as a shell would: ``start("pipeline=full", cwd=folder)``."""

    def go(*overrides: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
        outside = {name: value for name, value in os.environ.items() if name != "BATCH_NLP_ROOT"}
        return subprocess.Popen(
            [sys.executable, str(project_root / "start_batch_nlp.py"), *overrides],
            cwd=cwd,
            env={**outside, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A background job may have been started with Ctrl-C switched off.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    return go
