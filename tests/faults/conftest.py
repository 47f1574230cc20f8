"""A server of runs that can be killed, and what is compared after one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

HERE = Path(__file__).resolve().parent

SMALL = (
    "embedder=hashing",
    "embedder.n_features=16",
    "training.model.learn.text.cv=2",
    "training.model.calibration.cv=2",
    "training.pictures=false",
    "training.thresholds.f1_macro=null",
    "training.thresholds.recall_macro=null",
    # Several batches of features, two of an inference.
    "training.split.test_share=0.4",
    "engine.batch_rows=60",
    "engine.processes=1",
    "pipeline.on_skew=report",
    "sample.n_reviews=200",
    "logs.level=WARNING",
)


@dataclass(frozen=True)
class Died:
    """How a run ended, and the points that it passed."""

    status: int
    stderr: str
    points: list[str]


@dataclass
class Server:
    """The process that forks the runs."""

    process: subprocess.Popen[str]
    folder: Path

    def run(self, root: Path, *overrides: str, **how: Any) -> Died:
        told = self.folder / "points"
        told.unlink(missing_ok=True)
        asked = {
            "overrides": overrides,
            "root": str(root),
            "folder": str(self.folder),
            **how,
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        status = json.loads(self.process.stdout.readline())["status"]
        points = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
        return Died(status, (self.folder / "err").read_text(encoding="utf-8"), points)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start the server; each worker of pytest-xdist has one."""
    # Threads of one process would not be there in its forks.
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with subprocess.Popen(
        [sys.executable, str(HERE / "server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **single, "HYDRA_FULL_ERROR": "1"},
    ) as process:
        started = Server(process, tmp_path_factory.mktemp("server"))
        ended = started.run(tmp_path_factory.mktemp("first") / "root", *SMALL, first=True)
        assert ended.status == 0, ended.stderr
        yield started
        assert process.stdin is not None
        process.stdin.close()


def _frame(path: Path, *, without: tuple[str, ...] = ()) -> pd.DataFrame:
    return pd.read_parquet(path).drop(columns=list(without))


def _stages(record: dict[str, Any]) -> dict[str, Any]:
    """Counts by stage: whether features were made or found depends on where a run died."""
    counted = {}
    for name, stage in record["stages"].items():
        kept = {key: stage[key] for key in ("read", "delivered", "rejected", "duplicates")}
        if "computed" in stage:
            kept["used"] = stage["computed"] + stage["reused"]
        counted[name] = kept
    return counted


def state(root: Path) -> dict[str, Any]:
    """Read all that a run leaves behind and the next one or a user relies on."""
    data = root / "data"
    found: dict[str, Any] = {}
    inference = data / "09_inference"
    found["predictions"] = _frame(
        inference / "predictions.parquet", without=("run_id", "model_version")
    )
    for layer in ("02_intermediate", "05_model_input", "09_inference"):
        rejected = _frame(data / layer / "rejected.parquet")
        found[f"rejected {layer}"] = rejected.assign(
            source=rejected["source"].str.replace(str(root), "", regex=False)
        )
    store = data / "04_feature"
    manifest = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    found["snapshot"] = _frame(store / manifest["snapshot"])
    for kind, key in (("rows", "key"), ("vectors", "text_key")):
        parts = pd.concat(_frame(path) for path in sorted(store.glob(f"{kind}/*/*.parquet")))
        whole = parts.drop_duplicates(key).sort_values(key).reset_index(drop=True)
        found[kind] = whole.map(
            lambda value: value.tobytes() if hasattr(value, "tobytes") else value
        )
    for layer, name in (("05_model_input", "split"), ("07_model_output", "test_predictions")):
        found[name] = _frame(data / layer / f"{name}.parquet")
    models = root / "models" / "sentiment"
    version = (models / "current").read_text(encoding="utf-8").strip()
    card = json.loads((models / version / "card.json").read_text(encoding="utf-8"))
    for key in ("metrics", "class_shares", "n_train", "n_test", "parameters", "calibration"):
        found[f"card {key}"] = card[key]
    records = sorted((data / "08_reporting" / "runs").glob("*/run.json"))
    record = max(
        (json.loads(path.read_text(encoding="utf-8")) for path in records),
        key=lambda each: (each["ended"] or "", each["run_id"]),
    )
    found["stages"] = _stages(record)
    for key in ("exit_status", "error", "shares", "metrics", "skipped", "pipeline"):
        found[f"record {key}"] = record.get(key)
    return found


def strays(root: Path) -> list[str]:
    """Give what no run should leave behind."""
    patterns = (".*.tmp", ".spill/*", ".shards", "finished/feature.json", "finished/training.json")
    return [str(path.relative_to(root)) for each in patterns for path in root.rglob(each)]


def files(root: Path) -> set[str]:
    """Give the files by name, run ids and parts of the store aside."""
    names = set()
    for path in root.rglob("*"):
        if path.is_file():
            name = re.sub(r"\d{8}T\d{6}Z-[0-9a-f]{4}(-\d+)?", "RUN", str(path.relative_to(root)))
            names.add(re.sub(r"[0-9a-f]{32}", "HEX", name))
    return names


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Name what differs."""
    wrong = []
    for key, value in expected.items():
        same = value.equals(found[key]) if isinstance(value, pd.DataFrame) else value == found[key]
        if not same:
            wrong.append(key)
    return wrong


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: its root, how long it took, the points it passed, and what it left."""

    root: Path
    seconds: float
    points: list[str]
    state: dict[str, Any]


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """Overrides that make a run quick."""
    return SMALL


@pytest.fixture(scope="session")
def compare() -> Any:
    """What compares roots."""
    return SimpleNamespace(state=state, strays=strays, files=files, differences=differences)


@pytest.fixture(scope="session")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Whole]:
    """Run to the end with a seed, once."""
    done: dict[int, Whole] = {}

    def of(seed: int) -> Whole:
        if seed not in done:
            root = tmp_path_factory.mktemp("undisturbed") / "root"
            started = time.monotonic()
            ended = server.run(root, *SMALL, f"sample.seed={seed}")
            seconds = time.monotonic() - started
            assert ended.status in {0, 3}, ended.stderr
            done[seed] = Whole(root, seconds, ended.points, state(root))
        return done[seed]

    return of
