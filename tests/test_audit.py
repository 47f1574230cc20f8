"""The audit: any byte, file or row of a finished run that is not as it was left is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batch_nlp.audit import AuditJob, Finding
from batch_nlp.errors import BatchNlpError, InputError
from batch_nlp.records import RunRecord, record_digest
from batch_nlp.rows.extract import Engine
from batch_nlp.settings import Paths
from batch_nlp.tables import file_digest

Cli = Callable[..., Any]
LastRun = Callable[[Path], dict[str, Any]]

PREDICTIONS = "data/09_inference/predictions.parquet"


def audited(root: Path, run_id: str | None = None) -> list[Finding]:
    """Audit a run, and give what was found from the report."""
    record = RunRecord(root / "data" / "08_reporting" / "runs", "audit", "")
    record.path.mkdir(parents=True)
    try:
        AuditJob(run_id=run_id).run(paths=Paths(root=str(root)), engine=Engine(), record=record)
        failed = False
    except InputError:
        raise
    except BatchNlpError:
        failed = True
    finally:
        shutil.rmtree(record.path)
    report = json.loads((root / "data" / "08_reporting" / "audit.json").read_text())
    found = [Finding(**each) for each in report["findings"]]
    assert failed == any(each.verdict == "wrong" for each in found)
    return found


def wrong(found: list[Finding], check: str | None = None) -> dict[str, str]:
    return {
        each.what: each.detail
        for each in found
        if each.verdict == "wrong" and check in (None, each.check)
    }


def forge(root: Path, record: dict[str, Any], name: str, **told: Any) -> None:
    """Have the run record say what a changed file is like now."""
    path = root / name
    about = {"sha256": file_digest(path), "bytes": path.stat().st_size}
    record["outputs"][name] |= {**about, **told}
    record["sha256"] = record_digest(record)
    place = root / "data" / "08_reporting" / "runs" / record["run_id"] / "run.json"
    place.write_text(json.dumps(record))


@pytest.fixture(scope="module")
def ran(trained_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy of a trained root that every test leaves as it was."""
    return Path(shutil.copytree(trained_root, tmp_path_factory.mktemp("audited") / "root"))


@pytest.fixture
def kept(ran: Path) -> Iterator[Callable[[Path], Path]]:
    """Have a file put back as it is after the test."""
    files: dict[Path, bytes] = {}

    def keep(path: Path) -> Path:
        files[path] = path.read_bytes()
        return path

    yield keep
    for path, content in files.items():
        path.write_bytes(content)


def test_an_untouched_run_holds(ran: Path, last_run: LastRun) -> None:
    found = audited(ran)
    assert {each.verdict for each in found} == {"holds"}
    outputs = {each.what for each in found if each.check == "output"}
    assert outputs == set(last_run(ran)["outputs"])
    # What is counted is counted in all tables.
    counted = {each.what.split(",")[0] for each in found if each.check == "counts"}
    assert len(counted) >= 10
    assert PREDICTIONS in counted


@pytest.mark.parametrize("seed", range(4))
def test_one_changed_byte_of_any_output_is_found(
    ran: Path, last_run: LastRun, kept: Callable[[Path], Path], seed: int
) -> None:
    random = Random(seed)
    outputs = last_run(ran)["outputs"]
    for name in outputs:
        path = kept(ran / name)
        content = bytearray(path.read_bytes())
        # Both ends, and anywhere between.
        at = {0: 0, 1: len(content) - 1}.get(seed, random.randrange(len(content)))
        content[at] ^= random.randrange(1, 256)
        path.write_bytes(content)
    found = wrong(audited(ran), "output")
    assert set(found) == set(outputs)


@pytest.mark.parametrize("name", ["feature_pipeline.joblib", "model_pipeline.joblib"])
def test_one_changed_byte_of_the_model_is_found(
    ran: Path, kept: Callable[[Path], Path], name: str
) -> None:
    (path,) = (ran / "models" / "sentiment").glob(f"*/{name}")
    content = bytearray(kept(path).read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (detail,) = wrong(audited(ran), "model").values()
    assert name in detail


def test_removed_and_truncated_files_are_found(
    ran: Path, last_run: LastRun, kept: Callable[[Path], Path]
) -> None:
    outputs = sorted(last_run(ran)["outputs"])
    for position, name in enumerate(outputs):
        path = kept(ran / name)
        if position % 2:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1])
    found = wrong(audited(ran), "output")
    assert set(found) == set(outputs)
    assert all(found[name] == "gone" for name in outputs[1::2])


def test_a_changed_record_is_found(
    ran: Path, last_run: LastRun, kept: Callable[[Path], Path]
) -> None:
    record = last_run(ran)
    path = kept(ran / "data" / "08_reporting" / "runs" / record["run_id"] / "run.json")
    record["stages"]["inference/predict"]["delivered"] -= 1
    path.write_text(json.dumps(record))
    found = audited(ran)
    assert list(wrong(found, "record").values()) == ["changed since it was written"]
    assert {"inference/predict", "inference, first stage to last"} <= set(wrong(found, "stages"))
    assert PREDICTIONS in wrong(found, "counts")


FORGERIES: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "a row less": (lambda table: table.slice(1), "according to inference/predict"),
    "a row twice": (
        lambda table: pa.concat_tables([table.slice(1), table.slice(1, 1)]),
        "id is that of another row in 1 rows",
    ),
    "an id gone": (
        lambda table: table.set_column(
            0, "id", pa.array([None, *table["id"].to_pylist()[1:]], pa.string())
        ),
        "id is missing in 1 rows",
    ),
    "another label": (
        lambda table: table.set_column(
            2, table.schema.field("label"), pa.array(["neutral"] * len(table))
        ),
        "label is not that of the prediction",
    ),
    "a probability above 1": (
        lambda table: table.set_column(
            3, "proba_negative", pc.add(table["proba_negative"], pa.scalar(1.0))
        ),
        "probabilities are not from 0 to 1 with a sum of 1",
    ),
    "no number": (
        lambda table: table.set_column(3, "proba_negative", pa.array([float("nan")] * len(table))),
        "probabilities are not from 0 to 1 with a sum of 1",
    ),
    "another type": (
        lambda table: table.set_column(1, "prediction", table["prediction"].cast(pa.int32())),
        "prediction int32",
    ),
    "no table": (lambda table: table.select([]), "cannot be read"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_table_is_found_by_what_is_in_it(
    ran: Path, last_run: LastRun, kept: Callable[[Path], Path], forgery: str
) -> None:
    record = last_run(ran)
    kept(ran / "data" / "08_reporting" / "runs" / record["run_id"] / "run.json")
    path = kept(ran / PREDICTIONS)
    change, expected = FORGERIES[forgery]
    changed = change(pq.read_table(path))
    pq.write_table(changed, path)
    forge(ran, record, PREDICTIONS, rows=len(changed))
    found = audited(ran)
    assert not wrong(found, "output")
    assert expected in str(wrong(found))


def test_an_id_that_is_both_predicted_and_rejected_is_found(
    ran: Path, last_run: LastRun, kept: Callable[[Path], Path]
) -> None:
    record = last_run(ran)
    kept(ran / "data" / "08_reporting" / "runs" / record["run_id"] / "run.json")
    name = "data/09_inference/rejected.parquet"
    path = kept(ran / name)
    known = pd.read_parquet(ran / PREDICTIONS)["id"][0]
    row = {"source": "new.csv", "row": 1, "id": known, "column": "text", "check": "not blank"}
    schema = pq.read_schema(path)
    for check, both in (("not blank", True), ("not a duplicate", False)):
        pq.write_table(pa.Table.from_pylist([{**row, "check": check}], schema=schema), path)
        forge(ran, record, name, rows=1)
        found = audited(ran)
        assert ("id is in both in 1 rows" in wrong(found, "values").values()) == both
        assert name in str(wrong(found, "counts"))


def test_inputs_that_changed_or_went_are_notes(
    ran: Path, last_run: LastRun, kept: Callable[[Path], Path]
) -> None:
    first, second, *_ = last_run(ran)["sources"]
    # The sources of the copy are those of the original root.
    record = last_run(ran)
    kept(ran / "data" / "08_reporting" / "runs" / record["run_id"] / "run.json")
    record["sources"] = {first: "0" * 64, f"{second}.gone": "0" * 64}
    name = next(iter(record["outputs"]))
    forge(ran, record, name)
    found = audited(ran)
    notes = {each.what: each.detail for each in found if each.verdict == "note"}
    assert notes == {first: "changed since", f"{second}.gone": "gone since"}
    assert not wrong(found)


def test_what_a_later_run_replaced_is_no_damage(
    cli: Cli, root: Path, last_run: LastRun, tmp_path: Path
) -> None:
    first = last_run(root)["run_id"]
    new = tmp_path / "new.csv"
    new.write_text("id,text\n" + "".join(f"{i},good food {i}\n" for i in range(20)))
    infer = ("pipeline=inference", "dataset=messages", f"inference.source={new}")
    ended = cli(*infer, "inference.csv=true", f"paths.root={root}", "logs.level=WARNING")
    assert ended.status == 0, ended.stderr
    second = last_run(root)["run_id"]
    notes = {each.what: each.detail for each in audited(root, first) if each.verdict == "note"}
    assert notes[PREDICTIONS] == f"replaced by run {second}"
    # An audit is of the last run that is none itself, and leaves the run that it looks into alone.
    for _ in range(2):
        ended = cli("pipeline=audit", f"paths.root={root}")
        assert ended.status == 0, ended.stderr
        assert f"Audit of run {second}" in ended.stderr
    # What has replaced it has changed itself.
    path = root / PREDICTIONS
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    detail = wrong(audited(root, first))[PREDICTIONS]
    assert detail == f"replaced by run {second}; its bytes have changed"
    ended = cli("pipeline=audit", f"paths.root={root}", "logs.level=WARNING")
    assert ended.status == 1
    (line,) = ended.stderr.splitlines()
    assert f"Run {second} is not as it was left: {PREDICTIONS}: its bytes have changed" in line


def test_a_snapshot_that_made_room_is_no_damage(
    cli: Cli, root: Path, last_run: LastRun, tmp_path: Path
) -> None:
    first = last_run(root)["run_id"]
    snapshots = root / "data" / "04_feature" / "snapshots"
    (old,) = snapshots.iterdir()
    new = tmp_path / "new.csv"
    new.write_text("id,text\n" + "".join(f"{i},good food {i}\n" for i in range(20)))
    tight = ("engine.store_limit=0B", "logs.level=WARNING", f"paths.root={root}")
    messages = ("dataset=messages", f"dataset.path={new}")
    ended = cli("pipeline=feature", *messages, *tight)
    assert ended.status == 0, ended.stderr
    second = last_run(root)
    # With the users and businesses that were kept for a run that goes on: there are none any more.
    kept = [Path(name).name for name in second["removed"] if "references" in name]
    assert sorted(kept) == ["business.parquet", "user.parquet"]
    others = [name for name in second["removed"] if "references" not in name]
    assert others == [f"data/04_feature/snapshots/{old.name}"]
    assert len(list(snapshots.iterdir())) == 1
    found = {each.what: each.detail for each in audited(root, first) if each.verdict == "note"}
    for name in second["removed"]:
        assert found[name] == f"removed by run {second['run_id']}"
        assert name not in wrong(audited(root, first))


def test_runs_that_cannot_be_audited(tmp_path: Path, root: Path, last_run: LastRun) -> None:
    with pytest.raises(InputError, match="There is no finished run to audit"):
        audited(tmp_path)
    with pytest.raises(InputError, match="there is no run 20200101T000000Z-0000"):
        audited(root, "20200101T000000Z-0000")
    for bad in ("../../etc", "last", ""):
        with pytest.raises(InputError, match=r"audit\.run_id must look like"):
            AuditJob(run_id=bad)
    record = last_run(root)
    place = root / "data" / "08_reporting" / "runs" / record["run_id"] / "run.json"
    place.write_text(json.dumps({**record, "exit_status": None}))
    with pytest.raises(InputError, match="was not finished"):
        audited(root, record["run_id"])
    place.write_text("{")
    with pytest.raises(BatchNlpError, match="cannot be read as a run record"):
        AuditJob(run_id=record["run_id"]).run(
            paths=Paths(root=str(root)),
            engine=Engine(),
            record=RunRecord(place.parents[1], "audit", ""),
        )
