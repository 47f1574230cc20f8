"""What the last feature run has read, so that the next one reads what was added since, alone.

It lies in the store as ``extent.json``. A run that finds its files at the beginning of its own
input, and everything else that decides what becomes of a row unchanged, goes on behind them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from batch_nlp.errors import InputError
from batch_nlp.rows.counts import Counts
from batch_nlp.rows.extract import Earlier, Source, Table
from batch_nlp.store import Manifest, read_manifest
from batch_nlp.tables import BLOCK_BYTES, digest, file_digest, open_bytes, write_json

_FILE = "extent.json"


@dataclass(frozen=True)
class Extent:
    """What a feature run has read and what became of it.

    Attributes
    ----------
    run_id, snapshot : str
        The run, and the snapshot that it delivered, relative to the store.
    choices : str
        Digest of what else decides what becomes of a message.
    messages : sequence of mapping
        ``path``, ``bytes`` and ``sha256`` of each message file in order, and ``reading``, a digest
        of how its columns are read.
    references : mapping of str to str
        Of each table that is joined to the messages, a file of the accepted rows, relative to
        the store.
    sha256 : mapping of str to str
        Digests of the ``snapshot``, of the file of ``rejected`` rows and of those of
        `references`, by table.
    parts : mapping of str to int
        Files of the store that the run used or added, and their bytes.
    counts : mapping of str to mapping
        Where the messages went, by stage, and the rows of `references`, by table.
    skipped : int
        Messages that were not asked for.
    dated : bool
        Whether every delivered message has a date.
    """

    run_id: str
    snapshot: str
    choices: str
    messages: Sequence[Mapping[str, Any]]
    references: Mapping[str, str]
    sha256: Mapping[str, str]
    parts: Mapping[str, int]
    counts: Mapping[str, Mapping[str, int]]
    skipped: int
    dated: bool

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        source: Source,
        *,
        folder: Path,
        rejected: Path,
        choices: str,
        references: Mapping[str, Path],
        parts: Mapping[str, int],
        counts: Mapping[str, Counts],
        skipped: int,
    ) -> Extent:
        """Describe what a run has read: all of `source`, of which `manifest` tells the digests."""
        files = {"snapshot": folder / manifest.snapshot, "rejected": rejected, **references}
        return cls(
            run_id=manifest.run_id,
            snapshot=manifest.snapshot,
            choices=choices,
            messages=[
                {
                    "path": table.path,
                    "bytes": Path(table.path).stat().st_size,
                    "sha256": manifest.sources[table.path],
                    "reading": _reading(table),
                }
                for table in source.messages
            ],
            references={
                table: path.relative_to(folder).as_posix() for table, path in references.items()
            },
            sha256={name: file_digest(path) for name, path in files.items()},
            parts=parts,
            counts={name: counts[name].to_dict() for name in (*Earlier.STAGES, *references)},
            skipped=skipped,
            dated=manifest.dated,
        )

    def write(self, folder: Path) -> Path:
        """Keep it in the store at `folder`, in place of that of the run before; give the file."""
        path = folder / _FILE
        write_json(path, asdict(self))
        return path

    def rest_of(
        self,
        source: Source,
        inputs: Mapping[str, str],
        *,
        folder: Path,
        rejected: Path,
        choices: str,
    ) -> Source | None:
        """Give what of a source has not been read, or None where it must be read as a whole.

        Parameters
        ----------
        source : Source
            What is to be read now.
        inputs : mapping of str to str
            SHA-256 of each of its files now.
        folder : Path
            The store.
        rejected : Path
            The file of rejected rows.
        choices : str
            Digest of what else decides what becomes of a message, now.
        """
        if choices != self.choices or not self._is_whole(folder, rejected):
            return None
        known = len(self.messages)
        rest = list(source.messages[known:])
        for place, told in enumerate(self.messages):
            table = source.messages[place] if place < len(source.messages) else None
            if table is None or (table.path, _reading(table)) != (told["path"], told["reading"]):
                return None
            if inputs[table.path] == told["sha256"]:
                continue
            added = _behind(table, told) if place == known - 1 else None
            if added is None:
                return None
            rest.insert(0, added)
        for name in self.parts:
            os.utime(folder / name)  # used, though not read
        earlier = Earlier(
            files=[told["path"] for told in self.messages],
            snapshot=folder / self.snapshot,
            rejected=rejected,
            references={table: folder / name for table, name in self.references.items()},
            counts={name: Counts(**counts) for name, counts in self.counts.items()},
            skipped=self.skipped,
        )
        return replace(source, messages=rest, earlier=earlier)

    def _is_whole(self, folder: Path, rejected: Path) -> bool:
        """Tell whether what the run left behind is still there."""
        try:
            if read_manifest(folder).snapshot != self.snapshot:
                return False
            files = {"snapshot": folder / self.snapshot, "rejected": rejected}
            files |= {table: folder / name for table, name in self.references.items()}
            if {name: file_digest(path) for name, path in files.items()} != self.sha256:
                return False
            return all((folder / name).stat().st_size == size for name, size in self.parts.items())
        except (InputError, FileNotFoundError):
            return False


def read_extent(folder: Path) -> Extent | None:
    """Read what the last feature run noted in the store at `folder`, if it did."""
    try:
        return Extent(**json.loads((folder / _FILE).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # then everything is read, which is right if slower


def _reading(table: Table) -> str:
    return digest({"columns": dict(table.columns), "relation": table.relation})


def _behind(table: Table, told: Mapping[str, Any]) -> Table | None:
    """Give the lines that were added to a file, or None if that is not all that has changed."""
    if table.behind is None:
        return None
    found, n_lines, last = hashlib.sha256(), 0, b"\n"
    left = told["bytes"]
    block = memoryview(bytearray(BLOCK_BYTES))
    with open_bytes(table.path) as stream:
        while left and (n_read := stream.readinto(block[:left])):  # type: ignore[attr-defined]
            part = block[:n_read]
            found.update(part)
            n_lines += int(np.count_nonzero(np.frombuffer(part, np.uint8) == ord("\n")))
            last = bytes(part[-1:])
            left -= n_read
    if left or found.hexdigest() != told["sha256"] or last != b"\n":
        return None
    batches = partial(table.behind, told["bytes"], n_lines + 1)
    return replace(table, batches=batches, behind=None)
