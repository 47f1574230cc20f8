"""The run record."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from batch_nlp.records import RunRecord, new_run_id, utc_now
from batch_nlp.rows.counts import Counts


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    return RunRecord(folder=tmp_path, pipeline="full", config_digest="abc")


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


def test_a_second_pass_gets_a_number(record: RunRecord) -> None:
    for n in range(3):
        record.stage("feature/extract", Counts(read=n, delivered=n), 0.12345, computed=n)
        record.stage("feature/extract_more", Counts(), 0)
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
    written = json.loads((record.path / "run.json").read_text(encoding="utf-8"))
    assert written["run_id"] == record.run_id == record.path.name
    assert (written["exit_status"], written["error"]) == (status, error)
    assert written["pipeline"] == "full"
    assert written["model_version"] == "v1"
    assert written["config_digest"] == "abc"
    assert written["started"] <= written["ended"]
    assert {"python", "scikit-learn", "batch_nlp"} <= set(written["libraries"])
