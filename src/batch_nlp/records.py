"""The run record: counts, durations, digests and versions, the one source for every report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from loguru import logger

from batch_nlp.artifact import installed_libraries
from batch_nlp.redaction import redacted
from batch_nlp.rows.counts import Counts
from batch_nlp.tables import write_json


def utc_now() -> str:
    """Give the time, UTC, in ISO 8601 to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_run_id() -> str:
    """Give a name for a run that sorts by time and is used once."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:4]}"


@dataclass
class RunRecord:
    """What one run did, written to ``08_reporting/runs/<run_id>/run.json``.

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
    facts : dict
        Whatever else is worth knowing: share verdict, model, sources.
    """

    folder: Path
    pipeline: str
    config_digest: str
    run_id: str = field(default_factory=new_run_id)
    started: str = field(default_factory=utc_now)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Folder of this run."""
        return self.folder / self.run_id

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
            If a row went missing.
        """
        counts.check(name)
        again = sum(known == name or known.startswith(f"{name}#") for known in self.stages)
        label = f"{name}#{again + 1}" if again else name
        self.stages[label] = {**counts.to_dict(), "seconds": round(seconds, 3), **more}
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

    def write(self, *, exit_status: int, error: str | None = None) -> None:
        """Write the record; a run that failed leaves one too.

        Parameters
        ----------
        exit_status : int
            What the process exits with.
        error : str, optional
            The line that the failure ended in.
        """
        content: Mapping[str, Any] = {
            "run_id": self.run_id,
            "pipeline": self.pipeline,
            "started": self.started,
            "ended": utc_now(),
            "exit_status": exit_status,
            "error": error,
            "stages": self.stages,
            **self.facts,
            "config_digest": self.config_digest,
            "libraries": installed_libraries(),
        }
        write_json(self.path / "run.json", redacted(content))
