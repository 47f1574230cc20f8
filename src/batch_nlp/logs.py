"""The log: loguru on the terminal and in the run's file, and steps timed from outside."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from loguru import logger
from tqdm import tqdm

from batch_nlp.errors import InputError
from batch_nlp.redaction import redacted

Item = TypeVar("Item")

TERMINAL_FORMAT = "<green>{time:HH:mm:ss}</green> <level>{level: <7}</level> {message}"
FILE_FORMAT = "{time:YYYY-MM-DDTHH:mm:ss.SSSZZ} {level: <7} {name}:{line} {message}"

_REFRESHED = 1.0
"""Seconds after which a bar shows the time again."""


@dataclass(frozen=True, kw_only=True)
class Logs:
    """What is logged, and where.

    Parameters
    ----------
    level : {"TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL"}, default="INFO"
        Least severe level shown on the terminal; the run's file has everything.
    every : float, default=30
        Seconds between two lines of progress where the output is no terminal; above 0.
    """

    level: Literal["TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    every: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.every <= threading.TIMEOUT_MAX:
            message = f"logs.every must be a number of seconds above 0, got {self.every}."
            raise InputError(message)

    def set_up(self) -> None:
        """Log to the terminal, through tqdm so that a progress bar stays whole."""
        logger.remove()
        logger.add(
            lambda message: tqdm.write(redacted(str(message)), file=sys.stderr, end=""),
            level=self.level,
            format=TERMINAL_FORMAT,
            colorize=sys.stderr.isatty(),
            # A traceback is for the file.
            filter=lambda record: record["extra"].get("only") != "file",
            backtrace=False,
            diagnose=False,
        )

    @contextmanager
    def to_file(self, path: Path) -> Iterator[None]:
        """Log to `path` too, as long as the block lasts."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # `diagnose` would write values of variables, and so messages' texts, into the log.
        file = _LogFile(path)
        sink = logger.add(file.write, level="DEBUG", format=FILE_FORMAT, diagnose=False)
        try:
            yield
        finally:
            logger.remove(sink)
            file.close()

    def progress(
        self,
        items: Iterable[Item],
        *,
        what: str,
        unit: str = "batches",
        total: int | None = None,
        done: Callable[[], int] | None = None,
    ) -> Generator[Item]:
        """Show how far a loop is: a bar on a terminal, elsewhere a line now and then.

        Parameters
        ----------
        items : iterable
            What to loop over.
        what : str
            Name of the work.
        unit : str, default="batches"
            What is counted.
        total : int, optional
            How many there will be.
        done : callable, optional
            Says how many there have been; by default the items themselves are counted.

        Yields
        ------
        object
            The items.
        """
        passed = 0
        bar = tqdm(total=total, unit=f" {unit}", unit_scale=True, **_bar(what))
        with bar, self._shown(bar, what, lambda seconds: _so_far(passed, total, unit, seconds)):
            for item in items:
                yield item
                before, passed = passed, done() if done else passed + 1
                bar.update(passed - before)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Show that work goes on of which nothing is counted, as long as the block lasts.

        Parameters
        ----------
        what : str
            Name of the work.
        """
        bar = tqdm(bar_format="{desc}: {elapsed}", **_bar(what))
        with bar, self._shown(bar, what, lambda seconds: f"{seconds:,.0f} s so far"):
            yield

    @contextmanager
    def _shown(self, bar: tqdm[Any], what: str, say: Callable[[float], str]) -> Iterator[None]:
        """Keep a bar alive, or log a line now and then, however long one item takes."""
        started = time.monotonic()
        ended = threading.Event()

        def show() -> None:
            while not ended.wait(self.every if bar.disable else _REFRESHED):
                if bar.disable:
                    logger.info("{}: {}", what, say(time.monotonic() - started))
                else:
                    bar.refresh()

        thread = threading.Thread(target=show, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _bar(what: str) -> dict[str, Any]:
    terminal = sys.stderr.isatty()
    return {"desc": what, "leave": False, "file": sys.stderr, "disable": not terminal}


class _LogFile:
    """A log file that falls silent when it cannot be written, as on a full disk."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("a", encoding="utf-8")

    def write(self, message: str) -> None:
        with suppress(OSError):
            self._stream.write(redacted(message))
            self._stream.flush()

    def close(self) -> None:
        with suppress(OSError):
            self._stream.close()


def _so_far(passed: int, total: int | None, unit: str, seconds: float) -> str:
    rate = passed / seconds if seconds else 0.0
    if not total:
        return f"{passed:,} {unit} done, {rate:,.1f} a second"
    left = f"{(total - passed) / rate:,.0f} s left" if rate else "just begun"
    return f"{passed:,} of {total:,} {unit} done, {rate:,.1f} a second, {left}"


@dataclass
class Clock:
    """Seconds spent in steps, by name; a step may run many times.

    Attributes
    ----------
    seconds : dict of str to float

    Examples
    --------
    >>> clock = Clock()
    >>> with clock.step("read"):
    ...     pass
    >>> list(clock.seconds)
    ['read']
    """

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the block's duration to the step `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def timed(self, items: Iterable[Item], name: str) -> Iterator[Item]:
        """Pass items on, and count the wait for each towards the step `name`."""
        iterator = iter(items)
        while True:
            with self.step(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add what another clock measured, as that of a worker process."""
        for name, more in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + more
