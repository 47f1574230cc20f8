"""Runs the command line in forks of one process, and breaks them at a named point.

A fork saves the start: the libraries are imported once. One line of JSON asks for a run, and one
says how it ended. A point is a place where the run writes: the opening of a file for writing, a
rename, a removal, a flush to disk, a batch of rows, the end of a stage. Its name has no run id.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import sys
import threading
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

PROJECT = Path(__file__).resolve().parents[2]

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {"os.rename": "rename", "os.remove": "remove", "os.mkdir": "mkdir", "os.rmdir": "rmdir"}
_NAMES = (
    (re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}(-\d+)?"), "RUN"),
    (re.compile(r"[0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{16}|(?<=\.)[0-9a-f]{8}(?=\.tmp)"), "HEX"),
    (re.compile(r"(?<=/)\d{6}(?=\b)"), "N"),
)


class Points:
    """Counts the points that a run passes, writes their names, and breaks it at one of them.

    `fault` is ``kill``; an error number, which every change on disk ends in from then on, as on a
    full disk; or the path of a file that vanishes.
    """

    def __init__(
        self, root: Path, told: Path, point: tuple[str, int] | None, fault: str | int
    ) -> None:
        self.root = str(root) + os.sep
        self.point = point
        self.fault = fault
        self.broken = 0
        self.passed: Counter[str] = Counter()
        self.told = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.within = threading.local()

    def at(self, what: str, path: Any) -> None:
        if getattr(self.within, "busy", False) or not isinstance(path, str | os.PathLike | int):
            return
        self.within.busy = True
        try:
            place = str(Path(f"/proc/self/fd/{path}").readlink() if isinstance(path, int) else path)
            place = os.path.abspath(place)  # noqa: PTH100  paths are text here
            if place.startswith(self.root):
                self.hit(f"{what} {place.removeprefix(self.root)}")
                if self.broken and what not in {"remove", "rmdir"}:
                    raise OSError(self.broken, os.strerror(self.broken), place)
        finally:
            self.within.busy = False

    def hit(self, name: str) -> None:
        for pattern, short in _NAMES:
            name = pattern.sub(short, name)
        self.passed[name] += 1
        os.write(self.told, f"{name}\n".encode())
        if self.point != (name, self.passed[name]):
            return
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif isinstance(self.fault, int):
            self.broken = self.fault
        else:
            Path(self.fault).unlink()

    def watch(self) -> None:
        """Stand at every place where the program changes something on disk."""
        from pyarrow import parquet

        from batch_nlp.records import RunRecord
        from batch_nlp.tables import ParquetSink

        flush, write, stage = os.fsync, ParquetSink.write, RunRecord.stage
        close, whole = parquet.ParquetWriter.close, parquet.write_table

        def fsync(descriptor: int) -> None:
            self.at("fsync", descriptor)
            flush(descriptor)

        def batch(sink: Any, rows: Any) -> None:
            self.at("write", sink.path)
            write(sink, rows)

        def closed(writer: Any) -> None:
            self.at("close", str(writer.where))
            close(writer)

        def table(rows: Any, path: Any) -> None:
            self.at("write", path)
            whole(rows, path)

        def ended(record: Any, name: str, *rest: Any, **more: Any) -> None:
            self.hit(f"before {name}")
            stage(record, name, *rest, **more)
            self.hit(f"after {name}")

        os.fsync = fsync
        for owner, name, standing in (
            (ParquetSink, "write", batch),
            (parquet.ParquetWriter, "close", closed),
            (parquet, "write_table", table),
            (RunRecord, "stage", ended),
        ):
            setattr(owner, name, standing)
        sys.addaudithook(self.audit)

    def audit(self, event: str, values: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = values
            if flags & _WRITING if mode is None else set(mode) & set("wax+"):
                self.at("open", path)
        elif event in _CHANGES:
            self.at(_CHANGES[event], values[0])


@cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    """Compose a configuration once: nothing is written meanwhile, so no fork need do it."""
    with hydra.initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        return hydra.compose("config", list(overrides))


def run(asked: dict[str, Any], config: DictConfig) -> None:
    """Be the fork: run what is asked for, and exit with its status."""
    folder = Path(asked["folder"])
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.setpgid(0, 0)
    point = tuple(asked["point"]) if "point" in asked else None
    points = Points(Path(asked["root"]), folder / "points", point, asked.get("fault", "kill"))
    points.watch()
    if (seconds := asked.get("seconds")) is not None:
        group = os.getpgrp()
        threading.Timer(seconds, os.killpg, (group, asked["signal"])).start()
    from batch_nlp.cli import main

    OmegaConf.update(config, "paths.root", asked["root"])
    hydra.compose = lambda *_: config
    sys.argv = ["start_batch_nlp.py", *asked["overrides"]]
    status = main(PROJECT / "conf")
    if asked.get("first"):
        (folder / "modules").write_text("\n".join(sorted(sys.modules)), encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def serve() -> None:
    """Fork for each line that comes in."""
    import batch_nlp.explain.job
    import batch_nlp.feature.job
    import batch_nlp.inference.job
    import batch_nlp.run
    import batch_nlp.training.job  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        config = composed(tuple(asked["overrides"]))
        process = os.fork()
        if not process:
            try:
                run(asked, config)
            finally:
                os._exit(99)
        _, status = os.waitpid(process, 0)
        if asked.get("first") and not status:
            # What a run imports on its way, its forks need not.
            for name in (Path(asked["folder"]) / "modules").read_text("utf-8").splitlines():
                if name not in sys.modules:
                    with suppress(ImportError):
                        importlib.import_module(name)
        sys.stdout.write(json.dumps({"status": os.waitstatus_to_exitcode(status)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
