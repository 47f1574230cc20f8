"""Law 4 by force: killed anywhere, the next run ends in the same as an undisturbed one."""

from __future__ import annotations

import errno
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.faults

Undisturbed = Callable[[int], Any]
Check = Callable[..., None]

SEEDS = (1, 2, 3)
N_POINTS = 40
N_RANDOM = 100
GROUPS = 8
"""Tests of each kind, so that the workers share them evenly."""

DONE = {0, 3}


def chosen(points: list[str]) -> list[tuple[str, int]]:
    """Choose the points to be killed at: evenly over a run, renames and stages first."""
    times = Counter(points)
    kinds = ("rename", "after", "before", "close", "write")
    telling = [name for name in times if name.split()[0] in kinds]
    step = len(telling) / N_POINTS
    return [
        (name, 1 + index % times[name])
        for index, name in enumerate(telling[int(step * number)] for number in range(N_POINTS))
    ]


@pytest.fixture
def check(server: Any, small: tuple[str, ...], compare: Any, tally: Any) -> Check:
    """Run again after a fault, and hold what is there against an undisturbed run."""

    def again(root: Path, expected: Any, *overrides: str) -> None:
        whole_files(root)
        ended = server.run(root, *small, *overrides)
        assert ended.status in DONE, ended.stderr
        assert compare.differences(compare.state(root), expected.state) == []
        assert compare.strays(root) == []
        assert compare.files(root) - compare.files(expected.root) <= {
            # A model that was saved and not put in use before the kill is kept for inspection.
            name
            for name in compare.files(root)
            if name.startswith("models/sentiment/RUN/")
        }

    return again


def whole_files(root: Path) -> None:
    """Open every table that has its final name: none may be half-written."""
    for path in root.rglob("*.parquet"):
        if not any(part.startswith(".") for part in path.relative_to(root).parts):
            pq.read_metadata(path)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("group", range(GROUPS))
def test_killed_at_a_point(
    *,
    server: Any,
    small: tuple[str, ...],
    undisturbed: Undisturbed,
    check: Check,
    tally: Any,
    tmp_path: Path,
    seed: int,
    group: int,
) -> None:
    expected = undisturbed(seed)
    points = chosen(expected.points)
    assert len(set(points)) == N_POINTS >= 40
    for number, point in enumerate(points[group::GROUPS]):
        root = tmp_path / str(number)
        died = server.run(root, *small, f"sample.seed={seed}", point=point)
        assert died.status == -signal.SIGKILL, (point, died.stderr)
        check(root, expected, f"sample.seed={seed}")
        tally["killed at points"] += 1
        shutil.rmtree(root)


@pytest.mark.parametrize("group", range(GROUPS))
def test_killed_at_any_time(
    *,
    server: Any,
    small: tuple[str, ...],
    undisturbed: Undisturbed,
    check: Check,
    tally: Any,
    tmp_path: Path,
    group: int,
) -> None:
    expected = undisturbed(1)
    moments = random.Random(17)
    shares = [moments.random() for _ in range(N_RANDOM)][group::GROUPS]
    for number, share in enumerate(shares):
        root = tmp_path / str(number)
        how = {"seconds": share * expected.seconds, "signal": signal.SIGKILL}
        while (died := server.run(root, *small, "sample.seed=1", **how)).status in DONE:
            # It was quicker than the undisturbed one: another is killed earlier.
            tally["ended before a random kill"] += 1
            shutil.rmtree(root)
            how["seconds"] *= 0.8
        assert died.status == -signal.SIGKILL, died.stderr
        check(root, expected, "sample.seed=1")
        tally["killed at random"] += 1
        shutil.rmtree(root)


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end(
    *,
    server: Any,
    small: tuple[str, ...],
    undisturbed: Undisturbed,
    check: Check,
    tally: Any,
    tmp_path: Path,
    asked: signal.Signals,
) -> None:
    expected = undisturbed(1)
    ended_early = 0
    for number, seconds in enumerate((0.6, 1.2, 1.8, 2.4, 3.0)):
        root = tmp_path / str(number)
        ended = server.run(root, *small, "sample.seed=1", seconds=seconds, signal=asked)
        if ended.status not in DONE:
            ended_early += 1
            assert ended.status == 130, ended.stderr
            assert ended.stderr.splitlines()[-1] == "batch_nlp: Interrupted."
            assert len([line for line in ended.stderr.splitlines() if "WARNING" not in line]) == 1
        check(root, expected, "sample.seed=1")
        tally[f"ended by {asked.name}"] += ended.status == 130
    assert ended_early


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")],
)
def test_a_disk_that_takes_no_more(
    *,
    server: Any,
    small: tuple[str, ...],
    undisturbed: Undisturbed,
    check: Check,
    tally: Any,
    tmp_path: Path,
    number: int,
    reason: str,
) -> None:
    expected = undisturbed(1)
    for index, point in enumerate(chosen(expected.points)[:: 4 if number == errno.ENOSPC else 12]):
        root = tmp_path / str(index)
        ended = server.run(root, *small, "sample.seed=1", point=point, fault=number)
        # 2 where it is the lock that cannot be written.
        assert ended.status in {1, 2}, (point, ended.stderr)
        told = [line for line in ended.stderr.splitlines() if "WARNING" not in line]
        assert len(told) == 1, (point, ended.stderr)
        assert reason in told[0]
        check(root, expected, "sample.seed=1")
        tally[reason] += 1


def test_after_a_kill_only_the_batch_at_work_is_done_again(
    *,
    server: Any,
    small: tuple[str, ...],
    undisturbed: Undisturbed,
    compare: Any,
    tally: Any,
    tmp_path: Path,
) -> None:
    trained = undisturbed(1).root
    messages = tmp_path / "new.csv"
    texts = [f"The soup was number {number}, and fine." for number in range(260)]
    pd.DataFrame({"id": range(260), "text": texts}).to_csv(messages, index=False)
    source = ("dataset=messages", f"inference.source={messages}", "engine.batch_rows=25")
    overrides = (*small, "pipeline=inference", *source)
    whole = Path(shutil.copytree(trained, tmp_path / "whole"))
    ended = server.run(whole, *overrides)
    assert ended.status in DONE, ended.stderr
    kept = "rename data/09_inference/.shards/HEX/25/.0000{:02d}.tmp"
    batches = 11
    assert [kept.format(each) in ended.points for each in range(batches + 1)] == [
        *[True] * batches,
        False,
    ]
    for stopped in (0, 3, 7, 10):
        root = Path(shutil.copytree(trained, tmp_path / str(stopped)))
        died = server.run(root, *overrides, point=(kept.format(stopped), 1))
        assert died.status == -signal.SIGKILL, died.stderr
        again = server.run(root, *overrides)
        assert again.status in DONE, again.stderr
        made = [each for each in range(batches) if kept.format(each) in again.points]
        assert made == list(range(stopped, batches))
        found, expected = (
            pd.read_parquet(each / "data/09_inference/predictions.parquet").drop(columns="run_id")
            for each in (root, whole)
        )
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
        assert compare.strays(root) == []
        tally["killed between batches"] += 1


def test_a_file_that_vanishes(
    *, server: Any, small: tuple[str, ...], undisturbed: Undisturbed, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(undisturbed(1).root, tmp_path / "root"))
    before = pd.read_parquet(root / "data/09_inference/predictions.parquet")
    messages = tmp_path / "new.csv"
    messages.write_text("id,text\n" + "".join(f"{n},fine soup {n}\n" for n in range(60)))
    source = "pipeline=inference", "dataset=messages", f"inference.source={messages}"
    batches = "engine.batch_rows=25"
    point = "mkdir data/09_inference/.shards/HEX/25/.000000.tmp", 1
    ended = server.run(root, *small, *source, batches, point=point, fault=str(messages))
    assert ended.status == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert str(messages) in line
    after = pd.read_parquet(root / "data/09_inference/predictions.parquet")
    pd.testing.assert_frame_equal(after, before)
