"""A run by its parts: what is recorded and returned, whatever happens within."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from batch_nlp import run as program
from batch_nlp.errors import ArtifactError, GateError, InputError
from batch_nlp.interrupt import listen
from batch_nlp.run import OUTSIDE_BAND, run
from batch_nlp.workers import own_threads

Composed = Callable[..., DictConfig]
LastRun = Callable[[Path], dict[str, Any]]


@pytest.fixture
def composed(conf_folder: Path, tmp_path: Path) -> Composed:
    """Compose a configuration whose root is ``tmp_path / "root"``, with some overrides."""

    def give(*overrides: str) -> DictConfig:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder)):
            root = f"paths.root={tmp_path / 'root'}"
            return compose("config", overrides=[root, "embedder=none", *overrides])

    return give


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def test_it_runs_without_the_command_line(
    composed: Composed, tmp_path: Path, last_run: LastRun
) -> None:
    assert run(composed("pipeline=feature", "sample.n_reviews=50")) == 0
    record = last_run(tmp_path / "root")
    assert record["pipeline"] == "feature"
    assert record["stages"]["feature/extract"]["read"] == 50


def test_freed_memory_is_kept(composed: Composed, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    monkeypatch.setattr(program, "keep_freed_memory", kept.append)
    assert run(composed("pipeline=feature", "sample.n_reviews=50")) == 0
    assert kept == [own_threads()]


def test_the_configuration_of_a_run_is_kept_and_can_be_run_again(
    composed: Composed, tmp_path: Path, last_run: LastRun
) -> None:
    assert run(composed("pipeline=feature", "sample.n_reviews=50")) == 0
    first = last_run(tmp_path / "root")
    folder = tmp_path / "root" / "data" / "08_reporting" / "runs" / first["run_id"]
    from omegaconf import OmegaConf

    again = OmegaConf.load(folder / "config.yaml")
    assert isinstance(again, DictConfig)
    assert run(again) == 0
    second = last_run(tmp_path / "root")
    assert second["run_id"] != first["run_id"]
    assert second["config_digest"] == first["config_digest"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("the input is odd"), 2),
        (GateError("the model is bad"), 1),
        (ArtifactError("the model is gone"), 1),
        (ZeroDivisionError("nobody thought of this"), 1),
        (MemoryError("too much"), 1),
    ],
)
def test_any_failure_is_recorded_with_its_status(
    *,
    composed: Composed,
    tmp_path: Path,
    last_run: LastRun,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
) -> None:
    monkeypatch.setattr(program._Run, "feature", failing(error))
    assert run(composed("pipeline=feature")) == status
    record = last_run(tmp_path / "root")
    assert record["exit_status"] == status
    assert str(error) in record["error"]
    log = tmp_path / "root" / "data" / "08_reporting" / "runs" / record["run_id"] / "run.log"
    assert "Traceback" in log.read_text(encoding="utf-8")


@pytest.mark.parametrize("within", [None, "a library"])
def test_an_interruption_is_recorded_and_goes_on(
    *,
    composed: Composed,
    tmp_path: Path,
    last_run: LastRun,
    monkeypatch: pytest.MonkeyPatch,
    within: str | None,
) -> None:
    def interrupted(*_args: Any) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as interruption:
            if within is None:
                raise
            raise RuntimeError("Query interrupted") from interruption

    monkeypatch.setattr(program._Run, "feature", interrupted)
    listen()
    with pytest.raises(KeyboardInterrupt):
        run(composed("pipeline=feature"))
    listen()
    record = last_run(tmp_path / "root")
    assert record["exit_status"] == 130
    assert record["error"] == "interrupted"


def test_what_is_wrong_with_the_last_stage_is_told_before_the_first_runs(
    composed: Composed, tmp_path: Path, last_run: LastRun
) -> None:
    assert run(composed("inference.shares.low=0.5", "inference.shares.high=0.4")) == 2
    record = last_run(tmp_path / "root")
    assert "inference.shares needs 0 <= low < high <= 1" in record["error"]
    assert record["stages"] == {}
    assert not (tmp_path / "root" / "data" / "01_raw").exists()


def test_stages_run_in_the_order_given(composed: Composed, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    for stage in ("feature", "inference", "distill"):
        monkeypatch.setattr(program._Run, stage, lambda _, stage=stage: ran.append(stage))
    assert run(composed("pipeline.stages=[distill,feature,inference]")) == 0
    assert ran == ["distill", "feature", "inference"]


def test_features_of_another_version_of_the_program_are_not_trained_on(
    composed: Composed, tmp_path: Path, last_run: LastRun
) -> None:
    assert run(composed("pipeline=feature", "sample.n_reviews=50")) == 0
    store = tmp_path / "root" / "data" / "04_feature"
    manifest = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    manifest |= {"fingerprint": "0" * 64, "version": "0.0.9"}
    (store / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert run(composed("pipeline=training")) == 2
    error = last_run(tmp_path / "root")["error"]
    assert f"The features in {store} were made by version 0.0.9" in error
    assert "run pipeline=feature again" in error


def test_the_status_of_predictions_outside_the_band_is_like_no_other() -> None:
    assert OUTSIDE_BAND == 3
    assert OUTSIDE_BAND not in {error.exit_status for error in (InputError, GateError)}


def test_a_run_names_all_that_it_leaves_behind(trained_root: Path, last_run: LastRun) -> None:
    record = last_run(trained_root)
    left = {
        path.relative_to(trained_root).as_posix()
        for folder in ("data", "models")
        for path in (trained_root / folder).rglob("*")
        if path.is_file()
    } - {
        "data/.lock",
        "data/08_reporting/finished/inference.json",
        # Every run adds to these.
        "data/08_reporting/monitoring.parquet",
        "models/sentiment/.lock",
        "models/sentiment/ledger.jsonl",
    }
    run = f"data/08_reporting/runs/{record['run_id']}/"
    own = {"run.json", "run.log"}
    # The store's parts are a cache, and the card has the digests of the model's other files.
    unnamed = {
        *(f"{run}{name}" for name in own),
        *(name for name in left if name.startswith(("data/01_raw/", "data/04_feature/rows/"))),
        *(name for name in left if name.startswith("data/04_feature/vectors/")),
        *(
            name
            for name in left
            if name.startswith("models/")
            and name.endswith((".joblib", ".yaml", ".npy", "/reference.json"))
        ),
    }
    assert set(record["outputs"]) == left - unnamed
    for name, told in record["outputs"].items():
        content = (trained_root / name).read_bytes()
        assert told["sha256"] == hashlib.sha256(content).hexdigest()
        assert told["bytes"] == len(content)
