"""A lock is one process's at a time, says whose it is, and ends with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from batch_nlp.errors import InputError, LockedError
from batch_nlp.locks import Holder, holder, locked

HOLD = """
import sys, time
from pathlib import Path
from batch_nlp.locks import locked
with locked(Path(sys.argv[1]), what="run of the child"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""

Hold = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "new" / ".lock"


@pytest.fixture
def hold(lock: Path) -> Iterator[Hold]:
    """Start a process that holds the lock."""
    with ExitStack() as ended:

        def start(seconds: float = 60) -> subprocess.Popen[str]:
            child = subprocess.Popen(
                [sys.executable, "-c", HOLD, str(lock), str(seconds)],
                stdout=subprocess.PIPE,
                text=True,
            )
            ended.enter_context(child)
            ended.callback(child.kill)
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            return child

        yield start


def test_a_second_process_is_refused_with_the_name_of_the_first(lock: Path, hold: Hold) -> None:
    child = hold()
    with (
        pytest.raises(
            LockedError, match=rf"{lock} is held by run of the child, process {child.pid}, since 2"
        ),
        locked(lock, what="second"),
    ):
        pytest.fail("it was let in")
    found = holder(lock)
    assert found is not None
    assert (found.what, found.process) == ("run of the child", child.pid)


def test_a_process_that_is_killed_holds_nothing(lock: Path, hold: Hold) -> None:
    child = hold()
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert holder(lock) is None  # its note is still there, and nobody's
    with locked(lock, what="second"):
        found = holder(lock)
        assert found is not None
        assert (found.what, found.process) == ("second", os.getpid())
    assert holder(lock) is None


def test_waiting_ends_with_the_holder_or_with_the_time(lock: Path, hold: Hold) -> None:
    child = hold(0.6)
    with pytest.raises(LockedError, match="run of the child"), locked(lock, what="b", wait=0.1):
        pytest.fail("it was let in")
    with locked(lock, what="b", wait=None):
        found = holder(lock)
        assert found is not None
        assert found.what == "b"
    assert child.wait() == 0  # it was waited for, and not robbed


def test_a_block_that_raises_frees_it(lock: Path) -> None:
    def work() -> None:
        with locked(lock, what="first"):
            raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        work()
    with locked(lock, what="second"):
        pass
    assert [path.name for path in lock.parent.iterdir()] == [".lock"]


@pytest.mark.parametrize("note", [b"", b"{", b'"text"', b'{"what": "half"}', b"\xff"])
def test_a_note_that_cannot_be_read_names_nobody(lock: Path, note: bytes) -> None:
    with locked(lock, what="first"):
        lock.write_bytes(note)
        with pytest.raises(LockedError, match="held by another process: "), locked(lock, what="b"):
            pytest.fail("it was let in")


def test_a_holder_on_another_machine_is_taken_to_be_alive(lock: Path) -> None:
    with locked(lock, what="first"):
        lock.write_text(json.dumps(vars(Holder("run X", 2**22 + 1, "elsewhere", "2026-01-01"))))
        with (
            pytest.raises(LockedError, match="run X, process 4194305 on elsewhere, since 2026"),
            locked(lock, what="b"),
        ):
            pytest.fail("it was let in")


def test_one_cannot_wait_for_less_than_no_time(lock: Path) -> None:
    with (
        pytest.raises(InputError, match=r"wait must be at least 0, or null .* got -5"),
        locked(lock, what="test", wait=-5),
    ):
        pass


def test_a_folder_in_the_place_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot lock .*directory"), locked(tmp_path, what="a"):
        pytest.fail("it was let in")
