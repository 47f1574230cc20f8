"""Run a command, and see what it takes: wall and CPU seconds, memory, bytes read and written."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

INTERVAL = 0.5
"""Seconds between two looks at the memory."""


class FailedError(Exception):
    """A command that did not end well."""


@dataclass(frozen=True)
class Taken:
    """What a command took, with all the processes that it started.

    Attributes
    ----------
    seconds, cpu : float
        Wall and CPU.
    peak : int
        Largest sum of the processes' proportional set sizes, in bytes, of those seen every
        `INTERVAL`: pages that several of them share count once.
    read, written : int
        Bytes that went through read and write calls, page cache included, up to the last look.
        What is read of files that are mapped into memory is not among them.
    """

    seconds: float
    cpu: float
    peak: int
    read: int
    written: int
    output: str


class _Watch(threading.Thread):
    """Looks at a process and all that come from it, until told to stop."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.root = root
        self.peak = self.read = self.written = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(INTERVAL):
            memory = read = written = 0
            for process in _family(self.root):
                # A process may end while it is looked at.
                with suppress(OSError, ValueError, IndexError):
                    memory += _memory(process)
                    # That of processes that have ended is counted in those that they came from.
                    own = _transferred(process)
                    read, written = read + own[0], written + own[1]
            self.peak = max(self.peak, memory)
            self.read, self.written = max(self.read, read), max(self.written, written)


def _family(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, IndexError):
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(stat[1])
    family = [root]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family


def _memory(process: int) -> int:
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _transferred(process: int) -> tuple[int, int]:
    lines = Path(f"/proc/{process}/io").read_text().splitlines()
    numbers = dict(line.split(": ") for line in lines)
    return int(numbers["rchar"]), int(numbers["wchar"])


def taken(
    command: Sequence[str], *, allowed: Sequence[int] = (0,), env: Mapping[str, str] | None = None
) -> Taken:
    """Run a command to its end.

    Raises
    ------
    FailedError
        If it ends with a status that is not `allowed`.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = perf_counter()
    with subprocess.Popen(
        list(command),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_WAIT_POLICY": "passive", **(env or {})},
    ) as process:
        watch = _Watch(process.pid)
        watch.start()
        output, _ = process.communicate()
        seconds = perf_counter() - started
        watch.stopped.set()
        watch.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode not in allowed:
        message = f"{' '.join(command)} ended with status {process.returncode}:\n{output[-2000:]}"
        raise FailedError(message)
    return Taken(
        seconds=seconds,
        cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        peak=watch.peak,
        read=watch.read,
        written=watch.written,
        output=output,
    )
