"""Where the rows with some keys are, among the Parquet files of a folder."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_nlp.tables import atomic_path, in_one_piece

_KEY_CHARACTERS = 32
"""Of a key: 128 bits in hexadecimal."""

_KEPT_ROWS = 500_000
"""Keys that a process sorts for itself; with more of them the index is written for all."""

_KEPT_SHARE = 8
"""Or with such a part of those that are written, so that a large one is not written too often."""

_PIECE_ROWS = 1 << 20
"""Keys that are written or searched at a time, so that little memory is asked for at once."""

_COLUMNS = (np.dtype(np.uint32), np.dtype(np.uint32), np.dtype(np.uint16))
"""Of the file: heads, rows, tails."""

_ALIGNED_BYTES = 64
"""The columns begin at a multiple of so many bytes."""

_SUFFIX = ".index"


class Short(NamedTuple):
    """What some keys begin with.

    Attributes
    ----------
    heads, tails : ndarray of shape (n_keys,), uint32 and uint16
        The first 32 bits of each, and the next 16.
    """

    heads: npt.NDArray[np.uint32]
    tails: npt.NDArray[np.uint16]


class KeyIndex:
    """The keys of all rows of a folder, by the first 48 bits of each, in 10 bytes for each.

    Those of many rows are in a file beside them, which is mapped into memory: processes
    that work at once share it, and the next run need not read the keys again. Files that come
    later are indexed in memory, until there are so many that the file is written anew.

    Parameters
    ----------
    folder : Path
        Of Parquet files, each added whole and never changed.
    keys_of : callable
        Gives the keys of the rows of a file, in order; none if it has gone.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> keys = {"a.parquet": ["0" * 32, "1" * 32], "b.parquet": ["1" * 32]}
    >>> with TemporaryDirectory() as folder:
    ...     index = KeyIndex(Path(folder), lambda file: pa.array(keys[file.name]))
    ...     for name in keys:
    ...         (Path(folder) / name).touch()
    ...     index.refresh()
    ...     index.rows_of(pa.array(["1" * 32, "2" * 32])).tolist()
    [1, 2]
    """

    def __init__(self, folder: Path, keys_of: Callable[[Path], pa.Array | pa.ChunkedArray]) -> None:
        self.folder = folder
        self._keys_of = keys_of
        self._kept = self._recent = _Sorted.empty()
        self._looked = False

    @property
    def files(self) -> list[Path]:
        """The files, in the order in which their rows are numbered."""
        return [self.folder / name for name in (*self._kept.names, *self._recent.names)]

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """The number of the first row of each file, and of the next row to come."""
        return np.append(self._kept.starts, self._kept.n_rows + self._recent.starts[1:])

    def refresh(self) -> None:
        """Take the keys of files that have come since the last time into the index."""
        there = {path.name for path in self.folder.glob("*.parquet")}
        if not self._looked and there:
            self._looked = True
            self._take_over()
        while new := sorted(there.difference(self._kept.names, self._recent.names)):
            most = max(_KEPT_ROWS, self._kept.n_rows // _KEPT_SHARE)
            held: list[tuple[str, Short]] = []
            n_rows = self._recent.n_rows
            while len(held) < len(new) and n_rows < most:
                name = new[len(held)]
                held.append((name, short(self._keys_of(self.folder / name))))
                n_rows += len(held[-1][1].heads)
            self._recent = self._recent.merged(_Sorted.of(held))
            if n_rows >= most:
                self._keep(there)

    def rows_of(self, keys: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """Give the numbers of the rows that may have one of some keys, in order.

        Another key may begin with the same 48 bits: at 7 million rows that of one in 40 million
        keys. With 32 bits it was one in 600, and their rows took as long as those that are sought.
        """
        sought = short(keys)
        found = [self._kept.find(sought), self._recent.find(sought) + self._kept.n_rows]
        places = np.sort(np.concatenate(found))
        return places[np.diff(places, prepend=-1) > 0]  # faster than NumPy's unique

    def _keep(self, there: Iterable[str]) -> None:
        """Write the index of all rows for every process, or take over what another has written."""
        before = self._kept.n_rows
        others = list(self.folder.glob(f"*{_SUFFIX}"))
        self._take_over()
        if self._kept.n_rows > before:
            return
        path = self.folder / f"{uuid4().hex}{_SUFFIX}"
        self._kept.without_gone(there).write(path, self._recent.without_gone(there))
        try:
            self._kept, self._recent = _Sorted.read(path), _Sorted.empty()
        except OSError:  # another process has put a larger one in its place
            self._take_over()
        for other in others:
            with suppress(OSError):
                other.unlink()

    def _take_over(self) -> None:
        """Take the written index of the most rows, where it has more than this one."""
        for path in self.folder.glob(f"*{_SUFFIX}"):
            # Another process may remove it meanwhile; a damaged one is as good as none.
            with suppress(OSError, ValueError, KeyError, TypeError):
                found = _Sorted.read(path)
                if found.n_rows > self._kept.n_rows:
                    covered = {*self._kept.names, *self._recent.names} - set(found.names)
                    self._kept, self._recent = found, self._of_files(sorted(covered))
                    # The last use decides what goes once there is too much.
                    os.utime(path)

    def _of_files(self, names: Iterable[str]) -> _Sorted:
        return _Sorted.of([(name, short(self._keys_of(self.folder / name))) for name in names])


@dataclass(frozen=True)
class _Sorted:
    """What keys begin with, in order, and the rows that have them.

    Attributes
    ----------
    names : tuple of str
        Of the files, in the order in which their rows are numbered.
    starts : ndarray of shape (n_files + 1,), int64
        The number of the first row of each file, and in the end how many rows there are.
    heads, tails : ndarray of shape (n_rows,), uint32 and uint16
        As in `Short`; in the order of the heads.
    rows : ndarray of shape (n_rows,), uint32
    mapped : mmap or None
        The memory of these columns, where a file is mapped there.
    """

    names: tuple[str, ...]
    starts: npt.NDArray[np.int64]
    heads: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.uint32]
    tails: npt.NDArray[np.uint16]
    mapped: mmap.mmap | None = None

    @classmethod
    def empty(cls) -> Self:
        nothing = np.empty(0, np.uint32)
        return cls((), np.zeros(1, np.int64), nothing, nothing, nothing.astype(np.uint16))

    @classmethod
    def of(cls, files: list[tuple[str, Short]]) -> Self:
        """Sort what the keys of the rows of files begin with."""
        if not files:
            return cls.empty()
        heads = np.concatenate([held.heads for _, held in files])
        tails = np.concatenate([held.tails for _, held in files])
        starts = np.cumsum([0, *(len(held.heads) for _, held in files)])
        order = np.argsort(heads, kind="stable")
        names = tuple(name for name, _ in files)
        return cls(names, starts, heads[order], order.astype(np.uint32), tails[order])

    @classmethod
    def read(cls, path: Path) -> Self:
        """Map a written index into memory.

        Raises
        ------
        OSError
            If it is not there.
        ValueError, KeyError, TypeError
            If it is damaged.
        """
        with path.open("rb") as file:
            about = json.loads(file.readline())
            begins, ends = file.tell(), file.seek(0, os.SEEK_END)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        names, starts = tuple(about["names"]), np.array(about["starts"], np.int64)
        n_rows, rest = divmod(ends - begins, sum(kind.itemsize for kind in _COLUMNS))
        if len(starts) != len(set(names)) + 1 or starts[-1] != n_rows or rest:
            message = f"{path} says other things of its files than it holds."
            raise ValueError(message)
        whole = np.frombuffer(mapped, np.uint8, offset=begins)
        ends_at = np.cumsum([n_rows * kind.itemsize for kind in _COLUMNS])
        parts = np.split(whole, ends_at[:-1])
        heads, rows, tails = (part.view(kind) for part, kind in zip(parts, _COLUMNS, strict=True))
        return cls(names, starts, heads, rows, tails, mapped)

    def let_go(self) -> None:
        """Give the pages of a mapped file back to the system, which reads them again as needed."""
        if self.mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.mapped.madvise(mmap.MADV_DONTNEED)

    def write(self, path: Path, later: _Sorted) -> None:
        """Write this index and a later one as one: a line of JSON, then column by column."""
        at = np.searchsorted(self.heads, later.heads, "right")
        self.let_go()
        names, starts = self._numbered(later)
        about = json.dumps({"names": names, "starts": starts.tolist()}).encode()
        with atomic_path(path) as beside, beside.open("wb") as file:
            padding = b" " * (-(len(about) + 1) % _ALIGNED_BYTES)
            file.write(about + padding + b"\n")
            for own, added in self._beside(later):
                for first in range(0, max(self.n_rows, 1), _PIECE_ROWS):
                    last = min(first + _PIECE_ROWS, self.n_rows)
                    low, high = np.searchsorted(at, [first, last])
                    until = len(at) if last == self.n_rows else high
                    np.insert(own[first:last], at[low:until] - first, added[low:until]).tofile(file)
                    self.let_go()

    @property
    def n_rows(self) -> int:
        return len(self.heads)

    def merged(self, later: _Sorted) -> _Sorted:
        """Give this index and a later one as one."""
        at = np.searchsorted(self.heads, later.heads, "right")
        heads, rows, tails = (np.insert(own, at, added) for own, added in self._beside(later))
        return _Sorted(*self._numbered(later), heads, rows, tails)

    def _numbered(self, later: _Sorted) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
        names = (*self.names, *later.names)
        return names, np.append(self.starts, self.n_rows + later.starts[1:])

    def _beside(self, later: _Sorted) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Give each column with that of a later index, whose rows come behind."""
        rows = later.rows + np.uint32(self.n_rows)
        return [(self.heads, later.heads), (self.rows, rows), (self.tails, later.tails)]

    def without_gone(self, there: Iterable[str]) -> _Sorted:
        """Leave the files out that are no longer there."""
        stays = np.isin(np.array(self.names, str), list(there))
        if stays.all():
            return self
        sizes = np.diff(self.starts)
        starts = np.cumsum([0, *sizes[stays]])
        shift = np.zeros(len(sizes), np.int64)
        shift[stays] = starts[:-1] - self.starts[:-1][stays]
        file = np.searchsorted(self.starts, self.rows, "right") - 1
        kept = stays[file]
        rows = (self.rows[kept] + shift[file[kept]]).astype(np.uint32)
        names = tuple(np.array(self.names)[stays].tolist())
        return _Sorted(names, starts, self.heads[kept], rows, self.tails[kept])

    def find(self, sought: Short) -> npt.NDArray[np.int64]:
        """Give the rows whose keys begin as some others do."""
        order = np.argsort(sought.heads)  # neighbours are near each other in memory then
        held = [np.empty(0, np.int64)]
        # Of a mapped file only a piece is in memory at a time.
        for part in np.array_split(order, 1 + self.n_rows // _PIECE_ROWS):
            heads, tails = sought.heads[part], sought.tails[part]
            at = np.searchsorted(self.heads, heads)
            while len(at):
                inside = at < self.n_rows
                at, heads, tails = at[inside], heads[inside], tails[inside]
                same = self.heads[at] == heads
                at, heads, tails = at[same], heads[same], tails[same]
                held.append(self.rows[at[self.tails[at] == tails]].astype(np.int64))
                at = at + 1
            self.let_go()
        return np.concatenate(held)


def short(keys: pa.Array | pa.ChunkedArray) -> Short:
    """Give the first 48 bits of keys.

    Examples
    --------
    >>> found = short(pa.array(["0123456789abcdef" * 2, "f" * 32]))
    >>> [f"{bits:08x}" for bits in found.heads], [f"{bits:04x}" for bits in found.tails]
    (['01234567', 'ffffffff'], ['89ab', 'ffff'])
    """
    whole = in_one_piece(keys.cast(pa.binary()).cast(pa.binary(_KEY_CHARACTERS)))
    if not len(whole):
        return Short(np.empty(0, np.uint32), np.empty(0, np.uint16))
    _, data = whole.buffers()
    characters = np.frombuffer(data, np.uint8)[whole.offset * _KEY_CHARACTERS :]
    digits = characters[: len(whole) * _KEY_CHARACTERS].reshape(-1, _KEY_CHARACTERS)[:, :12]
    values = (digits & 0xF) + 9 * (digits > ord("9")).astype(np.uint8)
    octets = (values[:, ::2] << 4 | values[:, 1::2]).view(">u2")
    heads = octets[:, :2].copy().view(">u4").ravel().astype(np.uint32)
    return Short(heads, octets[:, 2].astype(np.uint16))


def text_keys(texts: pa.Array | pa.ChunkedArray) -> list[str]:
    """Give a key for each text: the first 128 bits of its SHA-256.

    A missing text has the key of an empty one.

    Examples
    --------
    >>> text_keys(pa.array(["", "good"]))
    ['e3b0c44298fc1c149afbf4c8996fb924', '770e607624d689265ca6c44884d0807d']
    """
    whole = in_one_piece(texts).cast(pa.large_string()).fill_null("")
    if not len(whole):
        return []
    _, offsets, data = whole.buffers()
    bounds = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
    octets = memoryview(data or b"")
    return [
        sha256(octets[first:last]).hexdigest()[:_KEY_CHARACTERS]
        for first, last in pairwise(bounds.tolist())
    ]
