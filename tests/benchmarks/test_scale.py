"""The benchmark of scale: the data has the shapes it says, measures are what their names say."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from benchmarks.scale import __main__ as command
from benchmarks.scale import generate, report, worker
from benchmarks.scale.measure import FailedError, taken
from benchmarks.scale.worker import WORKS

from batch_nlp.embedders import HashingEmbedder
from batch_nlp.rows.extract import Engine

N_REVIEWS = 3_000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scale")
    generate.generate(folder, N_REVIEWS, processes=1)
    return folder


def lines(path: Path) -> pd.DataFrame:
    return pd.DataFrame(json.loads(line) for line in path.read_text("utf-8").splitlines())


def test_reviews_have_the_shapes_of_real_ones(data: Path) -> None:
    reviews = lines(data / "review.json")
    users, businesses = lines(data / "user.json"), lines(data / "business.json")
    lengths = reviews["text"].str.len()
    assert lengths.mean() == pytest.approx(generate.MEAN_CHARACTERS, rel=0.1)
    assert lengths.std() == pytest.approx(generate.SD_CHARACTERS, rel=0.2)
    assert lengths.max() <= generate.MOST_CHARACTERS + 50
    assert reviews["review_id"].is_unique
    assert reviews["review_id"].str.len().unique().tolist() == [22]
    assert reviews["text"].nunique() > 0.99 * N_REVIEWS
    assert set(reviews["user_id"]) <= set(users["user_id"])
    assert set(reviews["business_id"]) <= set(businesses["business_id"])
    assert len(users) == N_REVIEWS * generate.USERS // generate.REVIEWS
    assert sorted(reviews["stars"].unique()) == [1, 2, 3, 4, 5]


def test_the_data_is_the_same_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = generate.World(N_REVIEWS)
    for table in ("review", "user", "business"):
        block = generate.Block(world, table)
        assert block(0) == (data / f"{table}.json").read_bytes()
    monkeypatch.setattr(generate, "BLOCK", 1_000)
    block = generate.Block(world, "review")
    assert block(0) != block(1)
    assert [block(number).count(b"\n") for number in range(3)] == [1_000] * 3


def test_ways_to_the_same_rows(data: Path, tmp_path: Path) -> None:
    ours = WORKS["rows_ours"](data, tmp_path, N_REVIEWS)
    checked = WORKS["rows_checked"](data, tmp_path, N_REVIEWS)
    bare = WORKS["rows_duckdb"](data, tmp_path, N_REVIEWS)
    assert ours == checked == bare == N_REVIEWS
    names = ["text", "stars", "elite", "city"]
    found = pd.read_parquet(tmp_path / "ours.parquet").set_index("id")[names].sort_index()
    expected = pd.read_parquet(tmp_path / "duckdb.parquet").set_index("review_id")[names]
    expected = expected.sort_index().rename_axis("id")
    pd.testing.assert_frame_equal(found, expected)


def test_texts_are_taken_from_a_store_that_has_them(data: Path, tmp_path: Path) -> None:
    embedder = HashingEmbedder(n_features=4)
    assert worker.known(data, tmp_path / "store", 500, embedder) == 500
    with pytest.raises(RuntimeError, match="had the texts before"):
        worker.known(data, tmp_path / "store", 500, embedder)


def test_items_are_worked_on_once_all_processes_are_ready() -> None:
    two = Engine(processes=2)
    assert worker.on_ready_processes(abs, [1, -2, 3], ready=-10, engine=two, n=3) == 6


def test_a_process_that_does_not_get_ready_is_not_waited_for(tmp_path: Path) -> None:
    new, two = tmp_path / "new", Engine(processes=2)
    with pytest.raises(FileExistsError):  # in one of them
        worker.on_ready_processes(os.mkdir, [], ready=new, engine=two, n=0)
    assert new.is_dir()


def test_what_a_command_takes() -> None:
    burn = "x = bytearray(80_000_000)\nfor i in range(10**7): pass\nprint('done')"
    took = taken([sys.executable, "-c", f"import time\n{burn}\ntime.sleep(0.5)"])
    assert took.output == "done\n"
    assert took.peak > 80_000_000
    assert took.seconds > 0.5
    assert took.cpu > 0


def test_processes_of_processes_count() -> None:
    child = "x = bytearray(80_000_000); import time; time.sleep(0.7)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert taken([sys.executable, "-c", parent]).peak > 80_000_000


def test_bytes_of_processes_of_processes_count_once() -> None:
    reading = "f = open('/dev/zero', 'rb'); [f.read(10**6) for _ in range(50)]"
    child = f"import time; {reading}; time.sleep(1.2)"
    parent = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {child!r}])"
    took = taken([sys.executable, "-c", f"{parent}; time.sleep(1.2)"])
    assert 50e6 <= took.read < 75e6


def test_a_command_that_fails() -> None:
    with pytest.raises(FailedError, match="ended with status 3"):
        taken([sys.executable, "-c", "raise SystemExit(3)"])
    assert taken([sys.executable, "-c", "raise SystemExit(3)"], allowed=(3,)).output == ""


def test_sizes() -> None:
    assert command.n_of("7m") == generate.REVIEWS
    assert command.n_of("5000") == 5_000
    with pytest.raises(SystemExit, match="--size must be 100k, 1m, 7m or a number, got '1g'"):
        command.n_of("1g")


def test_the_report_compares_within_a_group(tmp_path: Path) -> None:
    def measure(rows: int, seconds: float) -> dict[str, Any]:
        facts = {"rows": rows, "seconds": seconds, "cpu": 1.0, "peak": 2e9}
        return facts | {"read": 0, "written": 10**9, "date": "2026-11-24"}

    for size in (100, 1_000):
        folder = tmp_path / "build" / str(size)
        folder.mkdir(parents=True)
        made = {"generate": measure(size, 1.0) | {"bytes": 5e8}} if size == 100 else {}
        measures = made | {
            "rows: ours": measure(size, 4.0),
            "rows: bare DuckDB": measure(size, 2.0),
            "rows: pandas": {"failed": "no memory", "date": "2026-11-25"},
        }
        (folder / "results.json").write_text(json.dumps(measures))
    text = report.write(tmp_path / "out", tmp_path / "build")
    frame = pd.read_parquet(tmp_path / "out" / "scale.parquet")
    ours = frame[frame["what"] == "rows: ours"]
    assert ours["times_as_fast"].tolist() == [0.5, 0.5]
    assert np.isnan(frame.loc[frame["what"] == "generate", "times_as_fast"]).all()
    assert "| rows: ours | 1,000 | 4.0 | 250 | 0.50 | 1.0 | 2.00 | 0.00 | 1.00 |" in text
    assert "| generate, 500 MB/s | 100 | 1.0 |" in text
    assert "| rows: pandas | failed: no memory |" in text
    assert "## 1,000 reviews (2026-11-24, 2026-11-25)" in text
    assert (tmp_path / "out" / "scale.md").read_text("utf-8") == text + "\n"
    assert (tmp_path / "out" / "scale.png").stat().st_size > 1_000
