"""An append-only file of JSON lines that survives a process that dies while it writes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batch_nlp.errors import ArtifactError


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Add a line, on disk when this returns; the caller holds the lock of the file.

    Parameters
    ----------
    path : Path
        Made if it is not there. What a writer that died left of a line is cut off first.
    entry : mapping
        JSON-ready.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "ledger.jsonl"
    ...     append(path, {"version": "a"})
    ...     _ = path.write_bytes(path.read_bytes() + b'{"version": "half')
    ...     append(path, {"version": "b"})
    ...     entries(path)
    [{'version': 'a'}, {'version': 'b'}]
    """
    line = json.dumps(dict(entry), ensure_ascii=False, allow_nan=False) + "\n"
    is_new = not path.exists()
    with path.open("a+b") as stream:
        stream.seek(0)
        content = stream.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            stream.truncate(whole)
        stream.write(line.encode())
        stream.flush()
        os.fsync(stream.fileno())
    if is_new:
        path.chmod(path.stat().st_mode & ~0o022)  # whatever the umask: who wrote it changes it
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def entries(path: Path) -> list[dict[str, Any]]:
    """Read the whole lines, oldest first; none where there is no file.

    Raises
    ------
    ArtifactError
        If a whole line is no JSON object.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        message = f"Cannot read {path}: {error.strerror or error}."
        raise ArtifactError(message) from error
    found = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            message = f"{path} must hold one JSON object a line, but line {number} is none."
            raise ArtifactError(message)
        found.append(entry)
    return found
