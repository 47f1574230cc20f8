"""What an interrupted run had finished, and what is not done twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batch_nlp.interrupt import listen, was_asked
from batch_nlp.locks import locked
from batch_nlp.records import RunRecord
from batch_nlp.resume import Checkpoints, sweep
from batch_nlp.rows.counts import Counts

Cli = Callable[..., Any]
LastRun = Callable[[Path], dict[str, Any]]


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    return RunRecord(tmp_path / "data/08_reporting/runs", pipeline="full", config_digest="c")


def finish(record: RunRecord, folder: Path, fingerprint: str = "f") -> Path:
    output = record.root / "data" / "rows.txt"
    output.parent.mkdir(parents=True, exist_ok=True)
    with Checkpoints(folder, record).stage("feature", fingerprint):
        output.write_text("made")
        record.produced(output)
        record.stage("feature/rows", Counts(read=1, delivered=1), 0.0)
        record.facts["sources"] = {"a": "b"}
    return output


def test_a_finished_stage_is_taken_over(record: RunRecord, tmp_path: Path) -> None:
    finish(record, tmp_path / "finished")
    later = RunRecord(record.folder, pipeline="full", config_digest="c")
    found = Checkpoints(tmp_path / "finished", later).take("feature", "f")
    assert found is not None
    assert found.run_id == record.run_id
    assert later.stages == record.stages
    assert later.outputs == record.outputs
    assert later.facts["sources"] == {"a": "b"}
    assert later.facts["fingerprints"] == {"feature": "f"}
    assert later.facts["taken_over"] == {"feature": record.run_id}


def test_a_stage_keeps_what_another_has_noted_alike(record: RunRecord, tmp_path: Path) -> None:
    record.facts["model_version"] = "v"
    with Checkpoints(tmp_path, record).stage("inference", "f"):
        record.facts["model_version"] = "v"
        assert record.facts == {"model_version": "v"}
    assert record.facts == {"model_version": "v", "fingerprints": {"inference": "f"}}
    later = RunRecord(record.folder, pipeline="inference", config_digest="c")
    Checkpoints(tmp_path, later).take("inference", "f")
    assert later.facts["model_version"] == "v"


@pytest.mark.parametrize("change", ["fingerprint", "force", "gone", "same size", "damaged note"])
def test_a_stage_is_done_again_when_anything_differs(
    record: RunRecord, tmp_path: Path, change: str
) -> None:
    output = finish(record, tmp_path / "finished")
    if change == "gone":
        output.unlink()
    elif change == "same size":
        output.write_text("Made")
    elif change == "damaged note":
        (tmp_path / "finished" / "feature.json").write_text("{")
    later = RunRecord(record.folder, pipeline="full", config_digest="c")
    checkpoints = Checkpoints(tmp_path / "finished", later, force=change == "force")
    assert checkpoints.take("feature", "g" if change == "fingerprint" else "f") is None
    assert later.stages == {}


def test_a_stage_that_fails_is_not_finished(record: RunRecord, tmp_path: Path) -> None:
    finish(record, tmp_path / "finished")
    checkpoints = Checkpoints(tmp_path / "finished", record)
    with pytest.raises(ValueError, match="no"), checkpoints.stage("feature", "f"):
        raise ValueError("no")
    assert checkpoints.take("feature", "f") is None


def test_the_same_predictions_are_not_made_twice(
    cli: Cli, root: Path, fast: tuple[str, ...], last_run: LastRun
) -> None:
    predictions = root / "data/09_inference/predictions.parquet"
    asked = (*fast, "pipeline=inference", "logs.level=INFO", f"paths.root={root}")
    assert cli(*asked).status == 0
    before, made = predictions.read_bytes(), last_run(root)
    again = cli(*asked)
    assert again.status == 0
    assert f"Nothing to do: run {made['run_id']} gave these messages their labels" in again.stderr
    assert predictions.read_bytes() == before
    record = last_run(root)
    assert record["shares"] == made["shares"]
    assert record["stages"] == made["stages"]
    audited = cli("pipeline=audit", f"paths.root={root}")
    assert audited.status == 0, audited.stderr
    forced = cli(*asked, "force=true")
    assert "Nothing to do" not in forced.stderr
    assert predictions.read_bytes() != before


@pytest.mark.parametrize("change", ["another message", "another model", "a deleted file"])
def test_other_predictions_are_made(
    cli: Cli, root: Path, fast: tuple[str, ...], tmp_path: Path, change: str
) -> None:
    messages = tmp_path / "new.csv"
    messages.write_text("id,text\n1,good food\n2,bad food\n")
    predictions = root / "data/09_inference/predictions.parquet"
    asked = (
        *(*fast, "pipeline=inference", "dataset=messages", f"inference.source={messages}"),
        *("logs.level=INFO", f"paths.root={root}"),
    )
    assert cli(*asked).status == 0
    if change == "another message":
        messages.write_text("id,text\n1,good food\n3,bad food\n")
    elif change == "a deleted file":
        predictions.unlink()
    else:
        another = "pipeline=training", "seed=5", "training.gate.max_drop=null"
        assert cli(*fast, *another, f"paths.root={root}").status == 0
    again = cli(*asked)
    assert "Nothing to do" not in again.stderr
    assert len(pd.read_parquet(predictions)) == 2


def test_a_root_in_use_is_refused_and_its_user_named(
    cli: Cli, root: Path, fast: tuple[str, ...]
) -> None:
    asked = (*fast, "pipeline=inference", f"paths.root={root}")
    with locked(root / "data" / ".lock", what="run A (pipeline=full)"):
        refused = cli(*asked)
    assert refused.status == 1
    (line,) = refused.stderr.splitlines()
    assert "run A (pipeline=full)" in line
    assert cli(*asked).status == 0


def test_a_run_waits_for_another(cli: Cli, root: Path, fast: tuple[str, ...]) -> None:
    code = (
        "import sys, time, pathlib; from batch_nlp.locks import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), what='run A'): print(flush=True); time.sleep(1)"
    )
    lock = str(root / "data" / ".lock")
    with subprocess.Popen([sys.executable, "-c", code, lock], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        started = time.monotonic()
        waited = cli(*fast, "pipeline=inference", "wait=60", f"paths.root={root}")
        assert waited.status == 0, waited.stderr
        assert other.wait() == 0
        assert time.monotonic() > started


def test_leftovers_of_killed_runs_go_and_files_of_others_stay(tmp_path: Path) -> None:
    data, models = tmp_path / "data", tmp_path / "models"
    gone = [
        data / "04_feature" / ".manifest.json.0a1b2c3d.tmp",
        data / "02_intermediate" / ".spill" / "abc" / "x",
        data / "01_raw" / "sample" / ".sample.json.0a1b2c3d.tmp",
        models / "m" / ".20261124T173038Z-5078.tmp" / "card.json",
    ]
    kept = [
        data / "01_raw" / ".mine.tmp",
        data / "04_feature" / "manifest.json",
        models / "m" / "a",
    ]
    for path in (*gone, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert sweep(data, models) == 4
    assert [path.exists() for path in (*gone, *kept)] == [False] * 4 + [True] * 3
    assert sweep(data, models) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_interrupt_and_are_remembered(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        listen()
        assert not was_asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert was_asked()
        listen()
        assert not was_asked()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_an_interrupted_full_run_goes_on(
    cli: Cli, tmp_path: Path, fast: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from batch_nlp.inference.job import InferenceJob

    def stop(*_args: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    asked = (*fast, "logs.level=INFO", f"paths.root={tmp_path}")
    with monkeypatch.context() as patch:
        patch.setattr(InferenceJob, "run", stop)
        assert cli(*asked).status == 130
    (first,) = (tmp_path / "data/08_reporting/runs").iterdir()
    ended = cli(*asked)
    assert ended.status == 0
    assert f"The features are those that run {first.name} made." in ended.stderr
    assert f"of run {first.name}." in ended.stderr
    assert "training/fit" not in ended.stderr
    newest = max((tmp_path / "data/08_reporting/runs").iterdir())
    record = json.loads((newest / "run.json").read_text(encoding="utf-8"))
    assert record["taken_over"] == {"feature": first.name, "training": first.name}
    assert {"feature/extract", "training/fit", "inference/predict"} <= set(record["stages"])
    whole = cli(*asked)
    assert "training/fit" in whole.stderr
