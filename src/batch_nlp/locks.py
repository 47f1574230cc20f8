"""Locks between processes, which the operating system frees when their holder dies."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from batch_nlp.errors import InputError, LockedError


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as noted in the lock's file.

    Attributes
    ----------
    what : str
        Such as ``run 20261123T130501Z-1a2b (pipeline=full)``.
    process : int
        Its process id.
    host : str
        The machine it runs on.
    since : str
        When it took the lock, UTC, in ISO 8601 to the second.
    """

    what: str
    process: int
    host: str
    since: str

    @classmethod
    def this_process(cls, what: str) -> Holder:
        """Describe the process that asks."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(what, os.getpid(), platform.node(), now)

    def is_alive(self) -> bool:
        """Tell whether its process still runs; on another machine it is taken to."""
        if self.host != platform.node():
            return True
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's
            return True
        return True

    def __str__(self) -> str:
        elsewhere = "" if self.host == platform.node() else f" on {self.host}"
        return f"{self.what}, process {self.process}{elsewhere}, since {self.since}"


@contextmanager
def locked(path: Path, *, what: str, wait: float | None = 0) -> Iterator[None]:
    """Hold an exclusive lock for the length of the block.

    The lock is the operating system's: it ends with the process that holds it, however that
    ends. The file stays in place afterwards, since removing it would let two in at once; while
    the lock is held it says who holds it, and otherwise what it says means nothing.

    Parameters
    ----------
    path : Path
        The lock's file. Its folder is made if it is not there.
    what : str
        Who holds it, for those that are refused.
    wait : float or None, default=0
        Seconds to wait until it is free; None waits for ever.

    Raises
    ------
    LockedError
        If another process, or another block of this one, holds it; the message names it.
    InputError
        If `wait` is negative, the file cannot be written, or its file system has no locks.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with locked(Path(folder) / "lock", what="run A"):
    ...         with locked(Path(folder) / "lock", what="run B"):
    ...             pass  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    batch_nlp.errors.LockedError: .../lock is held by run A, process ..., since ...: ...
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415  most commands need no lock

    if wait is not None and wait < 0:
        message = f"wait must be at least 0, or null to wait for ever; got {wait}."
        raise InputError(message)
    note = json.dumps(asdict(Holder.this_process(what))).encode()

    def sign(descriptor: int) -> None:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note, 0)

    # Without a soft lock to fall back on: a dead process would hold that for ever.
    lock = FileLock(path, fallback_to_soft=False, preserve_lock_file=True, on_acquired=sign)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A single try is not "blocking": waiting for a lock of this very thread would be refused.
        lock.acquire(timeout=-1 if wait is None else wait, blocking=wait != 0)
    except Timeout as error:
        named = holder(path)
        who = str(named) if named else "another process"
        message = f"{path} is held by {who}: wait until it has ended, and try again."
        raise LockedError(message) from error
    except OSError as error:
        message = f"Cannot lock {path}: {error.strerror or error}."
        raise InputError(message) from error
    try:
        yield
    finally:
        os.truncate(path, 0)
        lock.release()


def holder(path: Path) -> Holder | None:
    """Read who holds a lock that is known to be held.

    Parameters
    ----------
    path : Path
        The lock's file.

    Returns
    -------
    Holder or None
        None where it has not signed yet: the note of one that died is nobody's.
    """
    try:
        found = Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.is_alive() else None
