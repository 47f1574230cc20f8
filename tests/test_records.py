"""The run record."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_nlp.errors import InputError
from batch_nlp.records import RunRecord, new_run_id, utc_now
from batch_nlp.rows.counts import Counts


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    folder = tmp_path / "data" / "08_reporting" / "runs"
    return RunRecord(folder=folder, pipeline="full", config_digest="abc")


def written(record: RunRecord) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((record.path / "run.json").read_text(encoding="utf-8"))
    return content


def test_run_ids_are_used_once_and_sort_by_time() -> None:
    ids = [new_run_id() for _ in range(50)]
    assert len(set(ids)) == 50
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{4}", each) for each in ids)
    stamps = [each.split("-")[0] for each in ids]
    assert stamps == sorted(stamps)
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", utc_now())


def test_stages_that_do_not_add_up_are_not_recorded(record: RunRecord) -> None:
    with pytest.raises(RuntimeError, match="Stage feature/extract lost rows"):
        record.stage("feature/extract", Counts(read=2, delivered=1), 0.1)
    assert not record.stages


def test_rows_lost_between_two_stages_are_missed(record: RunRecord) -> None:
    record.stage("feature/extract", Counts(read=3, delivered=3), 0.1)
    with pytest.raises(RuntimeError, match="Stage feature, from its first step to feature/valid"):
        record.stage("feature/validate", Counts(read=2, delivered=2), 0.1)


def test_a_second_pass_gets_a_number(record: RunRecord) -> None:
    for n in range(3):
        record.stage("feature/extract", Counts(read=n, delivered=n), 0.12345, computed=n)
        record.stage("feature/extract_more", Counts(read=n, delivered=n), 0)
    assert list(record.stages) == [
        "feature/extract",
        "feature/extract_more",
        "feature/extract#2",
        "feature/extract_more#2",
        "feature/extract#3",
        "feature/extract_more#3",
    ]
    assert record.stages["feature/extract#3"] == {
        "read": 2,
        "delivered": 2,
        "rejected": 0,
        "duplicates": 0,
        "seconds": 0.123,
        "computed": 2,
    }


@pytest.mark.parametrize(("status", "error"), [(0, None), (2, "no such file")])
def test_what_is_written(record: RunRecord, status: int, error: str | None) -> None:
    record.facts["model_version"] = "v1"
    record.write(exit_status=status, error=error)
    content = written(record)
    assert content["run_id"] == record.run_id == record.path.name
    assert (content["exit_status"], content["error"]) == (status, error)
    assert content["pipeline"] == "full"
    assert content["model_version"] == "v1"
    assert content["config_digest"] == "abc"
    assert content["started"] <= content["ended"]
    assert {"python", "scikit-learn", "batch_nlp"} <= set(content["libraries"])


def test_a_run_that_is_killed_leaves_what_it_has_done(record: RunRecord) -> None:
    record.stage("feature/extract", Counts(read=1, delivered=1), 0.1)
    content = written(record)
    assert (content["exit_status"], content["ended"], content["error"]) == (None, None, None)
    assert list(content["stages"]) == ["feature/extract"]


def test_outputs_are_told_by_path_digest_and_size(record: RunRecord, tmp_path: Path) -> None:
    note = tmp_path / "models" / "note.txt"
    note.parent.mkdir()
    note.write_bytes(b"a note")
    table = tmp_path / "ids.parquet"
    pq.write_table(pa.table({"id": ["a", "b", "c"]}), table)
    for path in (note, table):
        record.produced(path)
    record.produced(note, rows=7)
    record.write(exit_status=0)
    assert written(record)["outputs"] == {
        "models/note.txt": {
            "sha256": hashlib.sha256(b"a note").hexdigest(),
            "bytes": 6,
            "rows": 7,
        },
        "ids.parquet": {
            "sha256": hashlib.sha256(table.read_bytes()).hexdigest(),
            "bytes": table.stat().st_size,
            "rows": 3,
        },
    }


def test_an_output_outside_the_root_keeps_its_path(
    record: RunRecord, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "note.txt"
    elsewhere.write_bytes(b"")
    record.produced(elsewhere)
    assert list(record.outputs) == [str(elsewhere)]


def test_an_output_that_is_not_there_is_an_error(record: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot read .*nothing: No such file"):
        record.produced(tmp_path / "nothing")
    assert not record.outputs


def test_a_file_that_is_written_again_is_not_removed(record: RunRecord) -> None:
    path = record.root / "kept.txt"
    for content in ("first", "second"):
        path.write_text(content)
        record.removed(path)
    path.write_text("third")
    record.produced(path)
    assert record.facts["removed"] == []
    assert record.outputs["kept.txt"]["bytes"] == len("third")


def test_a_file_of_an_earlier_run_that_is_removed_is_named(
    record: RunRecord, tmp_path: Path
) -> None:
    path = tmp_path / "old.csv"
    record.removed(path)
    assert "removed" not in record.facts
    path.touch()
    record.removed(path)
    assert not path.exists()
    assert record.facts["removed"] == ["old.csv"]
