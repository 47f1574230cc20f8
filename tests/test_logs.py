"""The log."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from batch_nlp import logs as logs_module
from batch_nlp.errors import InputError
from batch_nlp.logs import Clock, Logs


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    yield
    logger.remove()


def test_the_terminal_shows_a_level_and_the_file_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = Logs(level="WARNING")
    logs.set_up()
    with logs.to_file(tmp_path / "runs" / "run.log"):
        logger.debug("a detail")
        logger.warning("a warning with {braces} and <red>marks</red>")
    logger.warning("afterwards")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "detail" not in shown.err
    assert "WARNING a warning with {braces} and <red>marks</red>" in shown.err
    assert "\x1b[" not in shown.err
    kept = (tmp_path / "runs" / "run.log").read_text(encoding="utf-8")
    assert "a detail" in kept
    assert "a warning" in kept
    assert "afterwards" not in kept


def test_a_traceback_is_for_the_file_and_shows_no_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = Logs()
    logs.set_up()
    with logs.to_file(tmp_path / "run.log"):
        try:
            secret = "words of a customer"
            len(secret) / 0
        except ZeroDivisionError:
            logger.bind(only="file").exception("failed")
    assert capsys.readouterr().err == ""
    kept = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert "ZeroDivisionError" in kept
    assert "failed" in kept
    assert "words of a customer" not in kept


def test_setting_up_again_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    Logs().set_up()
    Logs().set_up()
    logger.info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_progress_off_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Logs().set_up()
    assert list(Logs(every=3600).progress(range(3), what="quiet")) == [0, 1, 2]
    for _ in Logs(every=0.05).progress(range(2), what="features"):
        time.sleep(0.2)  # however long one of them takes
    err = capsys.readouterr().err
    assert "quiet" not in err
    assert "features: 0 batches done, " in err
    assert "features: 1 batches done, " in err


def test_work_of_which_nothing_is_counted_says_how_long_it_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Logs().set_up()
    with Logs(every=3600).working("quiet"):
        pass

    def fail() -> None:
        with Logs(every=0.05).working("fitting"):
            time.sleep(0.2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    told = capsys.readouterr().err
    assert "quiet" not in told
    assert re.search(r"fitting: \d s so far", told)
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("total", "said"),
    [
        (6_000, "4,000 of 6,000 rows done, 100.0 a second, 20 s left"),
        (None, "4,000 rows done, 100.0 a second"),
    ],
)
def test_progress_says_how_fast_it_is_and_what_is_left(total: int | None, said: str) -> None:
    assert logs_module._so_far(4_000, total, "rows", 40.0) == said


def test_progress_that_has_just_begun_promises_nothing() -> None:
    assert logs_module._so_far(0, 6_000, "rows", 40.0).endswith("0.0 a second, just begun")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_counts_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    Logs().set_up()
    rows = [4_000, 4_000]
    passed: list[int] = []
    for more in Logs(every=0.05).progress(
        rows, what="inference", unit="rows", total=9_000, done=lambda: sum(passed)
    ):
        time.sleep(0.2)
        passed.append(more)
    assert "inference: 4,000 of 9,000 rows done, " in capsys.readouterr().err


@pytest.mark.parametrize("every", [0, -1, float("nan"), float("inf")])
def test_lines_come_at_an_interval(every: float) -> None:
    with pytest.raises(InputError, match=r"logs\.every must be a number of seconds above 0"):
        Logs(every=every)


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(logs_module, "_REFRESHED", 0.05)
    for _ in Logs().progress([1, 2], what="features", unit="rows", total=2):
        time.sleep(0.5)
    shown = terminal.getvalue()
    # Again and again, and not as the items come alone.
    assert shown.count("features:   0%") > 2
    assert re.search(r"features:  50%.*1.00/2.00 \[\d\d:\d\d<\d\d:\d\d, .* rows", shown)


def test_work_on_a_terminal_shows_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(logs_module, "_REFRESHED", 0.05)
    with Logs().working("fitting"):
        time.sleep(0.5)
    assert terminal.getvalue().count("fitting: 00:00") > 2


class Hours:
    """A clock that only moves when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def test_a_clock_adds_up_and_counts_a_step_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    hours, clock = Hours(monkeypatch), Clock()

    def fail() -> None:
        with clock.step("a"):
            hours.now += 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with clock.step("a"):
        hours.now += 3
    assert clock.seconds == {"a": 5}


def test_a_clock_counts_the_wait_and_not_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    hours, clock = Hours(monkeypatch), Clock()

    def slow() -> Iterator[int]:
        for i in range(2):
            hours.now += 1
            yield i

    seen = []
    for item in clock.timed(slow(), "read"):
        seen.append(item)
        hours.now += 10
    assert seen == [0, 1]
    assert clock.seconds == {"read": 2}
