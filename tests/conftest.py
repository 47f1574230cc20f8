"""Shared by every test: the configuration tree, real data, a trained root, the command line."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import settings

from batch_nlp.sample import Sample, SampleFiles

# The same examples in every run, so that a red test stays red until it is mended.
# No deadline: how long something takes is measured in benchmarks.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")

PROJECT = Path(__file__).resolve().parents[1]

FAST = (
    "embedder=hashing",
    "classifier=logistic",
    "sample.n_reviews=600",
    "training.model.learn.text.cv=2",
    "training.pictures=false",
    "logs.level=WARNING",
)
"""Overrides that make a run quick; another override of the same key may follow them."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


Cli = Callable[..., Ended]


def run_cli(*overrides: str) -> Ended:
    """Run the command line in this process, as the entry script would."""
    from batch_nlp.cli import main

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("sys.argv", ["start_batch_nlp.py", *overrides])
        try:
            status = main(PROJECT / "conf")
        except SystemExit as leaving:  # Hydra leaves so after --cfg
            status = leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
    return Ended(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the entry script sets; a run that names no root gets a scratch one."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("OMP_WAIT_POLICY", "passive"),
            ("TOKENIZERS_PARALLELISM", "false"),
            ("HYDRA_FULL_ERROR", "1"),
            ("BATCH_NLP_ROOT", str(tmp_path_factory.getbasetemp() / "no-root-given")),
        ):
            patch.setitem(os.environ, name, value)
        yield


@pytest.fixture(scope="session")
def project_root() -> Path:
    """Folder of the project."""
    return PROJECT


@pytest.fixture(scope="session")
def conf_folder() -> Path:
    """Root of the Hydra tree."""
    return PROJECT / "conf"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data, which does not ship with the project."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data in ../shared/data, which is not there")
    return folder


@pytest.fixture(scope="session")
def fast() -> tuple[str, ...]:
    """Overrides that make a run quick; another override of the same key may follow them."""
    return FAST


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run the command line in this process: ``cli("pipeline=full", ...)`` gives an `Ended`."""
    return run_cli


@pytest.fixture(scope="session")
def trained_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root in which a quick ``pipeline=full`` ran; read only (see `root`)."""
    folder = tmp_path_factory.mktemp("trained") / "root"
    ended = run_cli(*FAST, "training.pictures=true", f"paths.root={folder}")
    assert ended.status == 0, ended.stderr
    return folder


@pytest.fixture
def root(trained_root: Path, tmp_path: Path) -> Path:
    """Copy of `trained_root` that a test may change."""
    return Path(shutil.copytree(trained_root, tmp_path / "root"))


@pytest.fixture(scope="session")
def last_run() -> Callable[[Path], dict[str, Any]]:
    """Read the record of the latest run under a root."""

    def read(root: Path) -> dict[str, Any]:
        records = (root / "data" / "08_reporting" / "runs").glob("*/run.json")
        latest = max(records, key=lambda path: path.stat().st_mtime_ns)
        content: dict[str, Any] = json.loads(latest.read_text(encoding="utf-8"))
        return content

    return read


@pytest.fixture(scope="session")
def delivered() -> Callable[[Path], pd.DataFrame]:
    """Read the predictions under a root, by id."""

    def read(root: Path) -> pd.DataFrame:
        path = root / "data" / "09_inference" / "predictions.parquet"
        rows = pd.read_parquet(path).set_index("id")
        assert rows.index.is_unique
        return rows

    return read


@pytest.fixture(scope="session")
def turned_away() -> Callable[[Path], pd.DataFrame]:
    """Read what inference rejected under a root."""

    def read(root: Path) -> pd.DataFrame:
        return pd.read_parquet(root / "data" / "09_inference" / "rejected.parquet")

    return read


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SampleFiles:
    """Synthetic reviews, users and businesses that no trained root has seen."""
    return Sample(n_reviews=600, seed=11).write(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture(scope="session")
def reviews(synthetic: SampleFiles) -> list[dict[str, Any]]:
    """The reviews of `synthetic` that are whole: no faulty lines, each id once."""
    found: dict[str, dict[str, Any]] = {}
    for line in synthetic.review.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["text"] and 1 <= row["stars"] <= 5 and row["date"][5:10] != "02-30":
            found.setdefault(row["review_id"], row)
    return list(found.values())


@pytest.fixture(scope="session")
def tally() -> Iterator[Counter[str]]:
    """Count what was tried, for the report of the last run."""
    counted: Counter[str] = Counter()
    yield counted
    if folder := os.environ.get("FAULTS_REPORT"):
        worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{worker}.json").write_text(json.dumps(counted), encoding="utf-8")
