"""What interrupted runs had finished, so that the next one goes on from there.

``08_reporting/finished/<stage>.json`` says what a stage came from, as one digest, and what it left
behind. A run whose stage would come from the same takes it over and does not do it again.
"""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from loguru import logger

from batch_nlp.errors import InputError
from batch_nlp.records import RunRecord
from batch_nlp.tables import file_digest, remove, write_json


@dataclass(frozen=True)
class Finished:
    """A stage that was finished.

    Attributes
    ----------
    run_id : str
        By which run.
    fingerprint : str
        Digest of all that its result depends on.
    stages, facts, outputs : dict
        What it added to the record of its run.
    """

    run_id: str
    fingerprint: str
    stages: dict[str, Any]
    facts: Mapping[str, Any]
    outputs: dict[str, dict[str, Any]]


@dataclass
class Checkpoints:
    """The finished stages of an installation.

    Parameters
    ----------
    folder : Path
        Where they are noted, a file for each stage.
    record : RunRecord
        Of this run.
    force : bool, default=False
        Whether every stage is done again, finished or not.
    """

    folder: Path
    record: RunRecord
    force: bool = False

    def take(self, stage: str, fingerprint: str) -> Finished | None:
        """Take a stage over into this run's record, if it is finished and its files are whole.

        Parameters
        ----------
        stage : str
            Such as ``feature``.
        fingerprint : str
            Digest of all that its result would depend on now.
        """
        found = None if self.force else self._read(stage)
        if found is None or found.fingerprint != fingerprint or not self._whole(found):
            return None
        self.record.stages |= found.stages
        self.record.facts |= found.facts
        self.record.outputs |= found.outputs
        self._note(stage, fingerprint)
        self.record.facts.setdefault("taken_over", {})[stage] = found.run_id
        return found

    @contextmanager
    def stage(self, stage: str, fingerprint: str) -> Iterator[None]:
        """Note a stage as finished when the block has ended well.

        Parameters
        ----------
        stage : str
            Such as ``feature``.
        fingerprint : str
            Digest of all that its result depends on.
        """
        self.drop(stage)
        record = self.record
        before = dict(record.stages), dict(record.outputs)
        # What the stage notes is its own, also where another has noted the same.
        facts = ChainMap[str, Any]({}, record.facts)
        record.facts = cast("dict[str, Any]", facts)
        try:
            yield
        finally:
            record.facts = dict(facts)
        self._note(stage, fingerprint)
        stages, outputs = (
            {key: value for key, value in now.items() if key not in then or then[key] != value}
            for now, then in zip((record.stages, record.outputs), before, strict=True)
        )
        # What a stage itself notes of its run, in the run's own folder, is not worth keeping.
        own = record.name_of(record.path.absolute())
        outputs = {name: told for name, told in outputs.items() if not name.startswith(own)}
        finished = Finished(record.run_id, fingerprint, stages, facts.maps[0], outputs)
        write_json(self._path(stage), asdict(finished))

    def drop(self, stage: str) -> None:
        """Forget that a stage was finished."""
        self._path(stage).unlink(missing_ok=True)

    def _note(self, stage: str, fingerprint: str) -> None:
        self.record.facts.setdefault("fingerprints", {})[stage] = fingerprint

    def _path(self, stage: str) -> Path:
        return self.folder / f"{stage}.json"

    def _read(self, stage: str) -> Finished | None:
        try:
            return Finished(**json.loads(self._path(stage).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            logger.warning("{} is damaged ({}): the stage is done again.", self._path(stage), error)
            return None

    def _whole(self, found: Finished) -> bool:
        for name, told in found.outputs.items():
            path = self.record.root / name
            try:
                if path.stat().st_size != told["bytes"] or file_digest(path) != told["sha256"]:
                    return False
            except (OSError, InputError):
                return False
        return True


def sweep(data: Path, models: Path) -> int:
    """Remove what killed runs left half-written.

    Parameters
    ----------
    data : Path
        Folder of the data layers; of the raw data only the sample, which the program writes.
    models : Path
        Folder of the models.

    Returns
    -------
    int
        How many files and folders were removed.
    """
    removed = 0
    places = [place for place in sorted(data.glob("0[2-9]_*")) if place.is_dir()]
    for place in [data / "01_raw" / "sample", *places, models]:
        for left in [*place.rglob(".*.tmp"), *place.rglob(".spill/*")]:
            removed += remove(left)
    return removed
