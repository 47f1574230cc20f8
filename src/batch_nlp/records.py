"""The run record: counts, durations, digests and versions, the one source for every report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq
from loguru import logger

from batch_nlp.artifact import installed_libraries
from batch_nlp.redaction import redacted
from batch_nlp.rows.counts import Counts, totals
from batch_nlp.tables import digest, file_digest, write_json

RECORD_FILE = "run.json"

_libraries = cache(installed_libraries)


def utc_now() -> str:
    """Give the time, UTC, in ISO 8601 to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_run_id() -> str:
    """Give a name for a run that sorts by time and is used once."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:4]}"


@dataclass
class RunRecord:
    """What one run did, written to ``08_reporting/runs/<run_id>/run.json``.

    It is written after every stage, so that a run that is killed leaves one too.

    Parameters
    ----------
    folder : Path
        Where run folders go.
    pipeline : str
        Which pipeline runs.
    config_digest : str
        SHA-256 of the composed configuration.

    Attributes
    ----------
    stages : dict
        For each stage ``read``, ``delivered``, ``rejected``, ``duplicates`` and ``seconds``.
    outputs : dict
        For each file that the run left behind, by its path from the root: ``sha256``, ``bytes``,
        and ``rows`` of a table.
    facts : dict
        Whatever else is worth knowing: share verdict, model, sources.
    """

    folder: Path
    pipeline: str
    config_digest: str
    run_id: str = field(default_factory=new_run_id)
    started: str = field(default_factory=utc_now)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Folder of this run."""
        return self.folder / self.run_id

    @property
    def root(self) -> Path:
        """Folder of the installation, which paths are told from."""
        return self.folder.absolute().parents[2]

    def produced(self, path: Path, *, rows: int | None = None) -> None:
        """Add a file that the run leaves behind, once it is complete.

        Parameters
        ----------
        path : Path
            The file; one that is written again is added again.
        rows : int, optional
            Of a table; those of a Parquet file are read from it.

        Raises
        ------
        InputError
            If the file is not there.
        """
        path = path.absolute()
        sha256 = file_digest(path)
        if rows is None and path.suffix == ".parquet":
            rows = pq.read_metadata(path).num_rows
        told = {"sha256": sha256, "bytes": path.stat().st_size}
        name = self.name_of(path)
        self.outputs[name] = told if rows is None else {**told, "rows": rows}
        # A second pass may write again what the first one removed.
        if name in self.facts.get("removed", ()):
            self.facts["removed"] = [each for each in self.facts["removed"] if each != name]

    def removed(self, path: Path) -> None:
        """Remove a file that was left behind, by an earlier run or this one, and is out of date."""
        if path.exists():
            path.unlink()
            self.facts.setdefault("removed", []).append(self.name_of(path.absolute()))

    def name_of(self, path: Path) -> str:
        """Give an absolute path from the root, or as it is where it is not under it."""
        inside = path.is_relative_to(self.root)
        return (path.relative_to(self.root) if inside else path).as_posix()

    def stage(
        self, name: str, counts: Counts, seconds: float, *, level: str = "INFO", **more: Any
    ) -> None:
        """Add a stage, after checking that its rows add up.

        Parameters
        ----------
        name : str
            ``<package>/<step>``; the same stage of a second pass gets a number.
        counts : Counts
            Where its rows went.
        seconds : float
            How long it took.
        level : str, default="INFO"
            Of its line in the log.
        **more
            Further facts, JSON-ready.

        Raises
        ------
        RuntimeError
            If a row went missing, within the stage or since the one before.
        """
        counts.check(name)
        again = sum(known == name or known.startswith(f"{name}#") for known in self.stages)
        label = f"{name}#{again + 1}" if again else name
        self.stages[label] = {**counts.to_dict(), "seconds": round(seconds, 3), **more}
        for package, whole in totals(self.stages).items():
            whole.check(f"{package}, from its first step to {name},")
        logger.log(
            level,
            "{:<24} {:>9,} read {:>9,} delivered {:>6,} rejected {:>6,} duplicates {:>7.2f} s",
            label,
            counts.read,
            counts.delivered,
            counts.rejected,
            counts.duplicates,
            seconds,
        )
        self.write(exit_status=None)

    def write(self, *, exit_status: int | None, error: str | None = None) -> None:
        """Write the record; a run that failed or was killed leaves one too.

        Parameters
        ----------
        exit_status : int or None
            What the process exits with; None while it runs.
        error : str, optional
            The line that the failure ended in.
        """
        content: Mapping[str, Any] = {
            "run_id": self.run_id,
            "pipeline": self.pipeline,
            "started": self.started,
            "ended": None if exit_status is None else utc_now(),
            "exit_status": exit_status,
            "error": error,
            "rows": {package: whole.to_dict() for package, whole in totals(self.stages).items()},
            "stages": self.stages,
            **self.facts,
            "outputs": self.outputs,
            "config_digest": self.config_digest,
            "libraries": _libraries(),
        }
        content = redacted(content)
        write_json(self.path / RECORD_FILE, {**content, "sha256": record_digest(content)})


def record_digest(content: Mapping[str, Any]) -> str:
    """Give the SHA-256 of a record's content, its own ``sha256`` aside, however it is laid out."""
    plain = json.loads(json.dumps(content))
    return digest({key: value for key, value in plain.items() if key != "sha256"})
