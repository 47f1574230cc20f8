"""Law 4: a reader never sees half a file, and a run after a crash ends like an undisturbed one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_nlp.tables import ParquetSink, atomic_path, write_json, write_text

Cli = Callable[..., Any]

SCHEMA = pa.schema({"id": pa.string()})


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A file of an earlier run, which must be whole and alone in its folder after the test."""
    path = tmp_path / "layer" / "file"
    path.parent.mkdir()
    path.write_text("as it was")
    yield path
    assert path.read_text() == "as it was"
    assert list(path.parent.iterdir()) == [path]


def interrupted(error: BaseException) -> Callable[..., Any]:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit()])
def test_a_block_that_raises(target: Path, error: BaseException) -> None:
    def write() -> None:
        with atomic_path(target) as beside:
            beside.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()


def test_a_batch_that_does_not_fit(target: Path) -> None:
    def write() -> None:
        with ParquetSink(target, SCHEMA) as sink:
            sink.write(pa.table({"id": ["a"]}))
            sink.write(pa.table({"name": ["b"]}))

    with pytest.raises(KeyError):
        write()


def test_a_disk_that_is_full_at_the_last_byte(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write() -> None:
        with ParquetSink(target, SCHEMA) as sink:
            sink.write(pa.table({"id": ["a"]}))

    monkeypatch.setattr(pq.ParquetWriter, "close", interrupted(OSError("No space left")))
    with pytest.raises(OSError, match="No space left"):
        write()


def test_a_sink_that_cannot_open(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pq, "ParquetWriter", interrupted(OSError("No space left")))
    with pytest.raises(OSError, match="No space left"):
        ParquetSink(target, SCHEMA).__enter__()


def test_a_number_that_json_cannot_say(target: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(target, {"fine": 1, "not": float("nan")})


def test_a_rename_that_fails(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", interrupted(OSError("Read-only file system")))
    with pytest.raises(OSError, match="Read-only"):
        write_text(target, "new")


def leftovers(root: Path) -> list[Path]:
    return [*root.rglob("*.tmp"), *root.rglob(".spill/*")]


@pytest.mark.parametrize("as_csv", ["true", "false"])
def test_a_failure_among_the_predictions(
    cli: Cli, root: Path, monkeypatch: pytest.MonkeyPatch, as_csv: str
) -> None:
    from batch_nlp.inference import job

    folder = root / "data" / "09_inference"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    whole, calls = job.predict, []

    def predict(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise RuntimeError("lost")
        return whole(*args)

    monkeypatch.setattr(job, "predict", predict)
    ended = cli(
        "pipeline=inference",
        f"paths.root={root}",
        "engine.batch_rows=20",
        f"inference.csv={as_csv}",
        "logs.level=WARNING",
    )
    assert ended.status == 1
    assert len(calls) == 3
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before
    assert not leftovers(root)


def test_a_failure_among_the_features_leaves_the_last_snapshot(
    cli: Cli, root: Path, fast: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from batch_nlp.store import FeatureStore

    store = root / "data" / "04_feature"
    before = (store / "manifest.json").read_bytes()
    snapshots = set((store / "snapshots").iterdir())
    monkeypatch.setattr(FeatureStore, "_derive", interrupted(MemoryError("lost")))
    ended = cli(*fast, "pipeline=feature", "sample.seed=3", f"paths.root={root}")
    assert ended.status == 1
    assert (store / "manifest.json").read_bytes() == before
    assert set((store / "snapshots").iterdir()) == snapshots
    assert not leftovers(root)


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    with ParquetSink(path, SCHEMA) as sink:
        sink.write(pa.table({"id": ["old"]}))
    with ParquetSink(path, SCHEMA) as sink:
        sink.write(pa.table({"id": ["new"]}))
        assert pq.read_table(path)["id"].to_pylist() == ["old"]
    assert pq.read_table(path)["id"].to_pylist() == ["new"]


KILLED = """
import os, runpy, signal, sys
fragment = sys.argv.pop(1)
opened = os.open
def dying(path, *args, **options):
    # Files are opened once more to be flushed to disk, before they take their final names.
    if fragment in str(path):
        os.kill(os.getpid(), signal.SIGKILL)
    return opened(path, *args, **options)
os.open = dying
sys.argv[0] = {script!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("fragment", ["04_feature/.manifest.json", "models/sentiment/"])
def test_killed_anywhere_the_next_run_ends_like_an_undisturbed_one(
    *,
    cli: Cli,
    tmp_path: Path,
    project_root: Path,
    trained_root: Path,
    fast: tuple[str, ...],
    delivered: Callable[[Path], pd.DataFrame],
    fragment: str,
) -> None:
    root = tmp_path / "root"
    code = KILLED.format(script=str(project_root / "start_batch_nlp.py"))
    arguments = [*fast, f"paths.root={root}", "engine.batch_rows=200"]
    killed = subprocess.run(
        [sys.executable, "-c", code, fragment, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert any(path.is_file() for path in (root / "data" / "04_feature" / "rows").rglob("*"))
    assert not (root / "models" / "sentiment" / "current").exists()
    for path in (root / "data").rglob("*.parquet"):
        pq.read_metadata(path)
    ended = cli(*arguments)
    assert ended.status == 0, ended.stderr
    run = ["model_version", "run_id"]
    found, expected = delivered(root), delivered(trained_root)
    pd.testing.assert_frame_equal(
        found.drop(columns=run), expected.drop(columns=run), rtol=0, atol=1e-5
    )


def test_killed_among_the_predictions_the_last_ones_stay(
    *,
    cli: Cli,
    tmp_path: Path,
    project_root: Path,
    root: Path,
    fast: tuple[str, ...],
    delivered: Callable[[Path], pd.DataFrame],
) -> None:
    before = delivered(root)
    code = KILLED.format(script=str(project_root / "start_batch_nlp.py"))
    arguments = [*fast, "pipeline=inference", f"paths.root={root}"]
    killed = subprocess.run(
        [sys.executable, "-c", code, "09_inference/.predictions.parquet", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    pd.testing.assert_frame_equal(delivered(root), before)
    ended = cli(*arguments)
    assert ended.status == 0, ended.stderr
    pd.testing.assert_frame_equal(
        delivered(root).drop(columns="run_id"), before.drop(columns="run_id")
    )
