"""The index of the keys of many files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batch_nlp import keys as keys_module
from batch_nlp.keys import KeyIndex, _Sorted, short, text_keys


def key(number: int) -> str:
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()


class Folder:
    """Files of keys, and which of them were read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read: list[str] = []

    def add(self, name: str, *numbers: int) -> None:
        (self.path / f"{name}.parquet").write_text(" ".join(map(key, numbers)))

    def keys_of(self, file: Path) -> pa.Array:
        self.read.append(file.stem)
        return pa.array(file.read_text().split() if file.exists() else [], pa.string())

    def index(self) -> KeyIndex:
        index = KeyIndex(self.path, self.keys_of)
        index.refresh()
        return index

    @property
    def written(self) -> list[Path]:
        return sorted(self.path.glob("*.index"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr(keys_module, "_KEPT_ROWS", 5)
    return Folder(tmp_path)


def found(index: KeyIndex, *numbers: int) -> dict[str, list[int]]:
    """Give for each file where in it the rows with some keys are."""
    rows = index.rows_of(pa.array(map(key, numbers), pa.string()))
    file = np.searchsorted(index.starts, rows, "right") - 1
    where: dict[str, list[int]] = {}
    for each, row in zip(file.tolist(), rows.tolist(), strict=True):
        where.setdefault(index.files[each].stem, []).append(row - int(index.starts[each]))
    return where


@pytest.mark.parametrize("piece", [1, 3, 1 << 18])
def test_rows_are_found_however_their_files_came(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(keys_module, "_PIECE_ROWS", piece)
    index = folder.index()
    assert found(index, 1) == {}
    expected: dict[int, dict[str, list[int]]] = {}
    numbers = iter(range(100))
    for n_file, size in enumerate([1, 3, 2, 7, 0, 1, 12, 2]):
        own = [next(numbers) for _ in range(size)]
        folder.add(f"f{n_file}", *own)
        expected |= {number: {f"f{n_file}": [row]} for row, number in enumerate(own)}
        index.refresh()
        for each in (index, folder.index()):
            assert {number: found(each, number) for number in expected} == expected
            assert found(each, 1000) == {}


@pytest.mark.parametrize("n_kept", [5, 500])
def test_keys_that_begin_alike_are_told_apart(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, n_kept: int
) -> None:
    monkeypatch.setattr(keys_module, "_KEPT_ROWS", n_kept)
    alike = [f"{'0' * 8}{tail:04x}{'0' * 20}" for tail in (7, 65_535, 0, 256, 7, 1)]
    (folder.path / "a.parquet").write_text(" ".join(alike))
    index = folder.index()
    assert len(folder.written) == (n_kept == 5)
    for each in set(alike):
        rows = [row for row, key_ in enumerate(alike) if key_ == each]
        assert index.rows_of(pa.array([each])).tolist() == rows
    assert index.rows_of(pa.array(["0" * 8 + "0002" + "0" * 20])).tolist() == []


def test_a_written_index_is_not_made_again(folder: Folder) -> None:
    folder.add("a", 1, 2, 3)
    folder.index()
    assert folder.written == []
    folder.add("b", 4, 5, 1)
    folder.index()
    assert len(folder.written) == 1
    folder.add("c", 6)
    folder.read.clear()
    os.utime(folder.written[0], (1_000, 1_000))
    index = folder.index()
    assert folder.read == ["c"]
    assert folder.written[0].stat().st_mtime > 1_000  # used
    assert found(index, 1, 4, 6) == {"a": [0], "b": [0, 2], "c": [0]}
    (first,) = folder.written
    folder.add("d", 7, 8, 9, 10)
    index.refresh()
    assert len(folder.written) == 1
    assert folder.written != [first]


def test_what_another_process_has_written_is_taken_over(folder: Folder) -> None:
    folder.add("b", 1, 2, 3)
    mine = folder.index()
    folder.add("a", 4, 5)
    folder.index()
    (written,) = folder.written
    folder.add("c", 6, 7)
    folder.read.clear()
    mine.refresh()
    assert folder.written == [written]
    assert folder.read == ["a", "c"]
    assert found(mine, 1, 4, 6) == {"b": [0], "a": [0], "c": [0]}


def test_a_large_index_is_written_less_often(folder: Folder) -> None:
    folder.add("a", *range(80))
    index = folder.index()
    (first,) = folder.written
    folder.add("b", *range(80, 89))
    index.refresh()
    assert folder.written == [first]
    folder.add("c", 89)
    index.refresh()
    assert folder.written != [first]
    assert found(index, 79, 88, 89) == {"a": [79], "b": [8], "c": [0]}


def test_no_file_is_indexed_twice_where_another_process_writes_meanwhile(folder: Folder) -> None:
    folder.add("z", 0)
    mine = folder.index()
    folder.add("a", *range(1, 6))
    folder.add("b", *range(6, 11))
    folder.index()
    mine.refresh()
    assert sorted(file.stem for file in mine.files) == ["a", "b", "z"]
    expected = {"z": [0], "a": [0], "b": [4]}
    assert found(mine, 0, 1, 10) == found(folder.index(), 0, 1, 10) == expected


def test_an_index_that_goes_as_it_is_written_is_kept_in_memory(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = keys_module._Sorted.write

    def write_and_lose(self: keys_module._Sorted, path: Path, later: keys_module._Sorted) -> None:
        write(self, path, later)
        path.unlink()

    monkeypatch.setattr(keys_module._Sorted, "write", write_and_lose)
    folder.add("a", *range(6))
    assert found(folder.index(), 5) == {"a": [5]}


def test_files_that_have_gone_leave_the_index(folder: Folder) -> None:
    folder.add("a", 1, 2, 3)
    folder.add("b", 4, 5, 6)
    folder.index()
    (folder.path / "a.parquet").unlink()
    index = folder.index()
    folder.add("c", 1, 7, 8, 9, 10)
    index.refresh()
    assert [file.stem for file in index.files] == ["b", "c"]
    assert found(index, *range(11)) == {"b": [0, 1, 2], "c": [0, 1, 2, 3, 4]}


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"x" * 5000, b"5\n" * 40])
def test_a_damaged_index_is_as_good_as_none(folder: Folder, content: bytes) -> None:
    folder.add("a", *range(5))
    folder.index()
    (written,) = folder.written
    whole = written.read_bytes()
    written.write_bytes(content or whole[: len(whole) // 2])
    index = folder.index()
    assert found(index, 3) == {"a": [3]}
    assert folder.written != [written]
    assert len(folder.written) == 1
    folder.read.clear()
    folder.index()
    assert folder.read == []


@pytest.mark.parametrize(
    ("whole", "damaged"),
    [
        (b"[0, 5]", b"[0, 4]"),
        (b"[0, 5]", b"[1,0,5"),
        (b"[0, 5]", b"[    ]"),
        (b'"names"', b'"nomes"'),
        (b"starts", b"folds"),
        (b'["a.parquet"]', b'"ab.parquet" '),
    ],
)
def test_an_index_that_contradicts_itself_is_damaged(
    folder: Folder, whole: bytes, damaged: bytes
) -> None:
    folder.add("a", *range(5))
    folder.index()
    (written,) = folder.written
    content = written.read_bytes()
    assert whole in content
    written.write_bytes(content.replace(whole, damaged))
    folder.read.clear()
    assert found(folder.index(), 4) == {"a": [4]}
    assert folder.read == ["a"]


def mapped_kb(path: Path) -> int:
    """Give how much of a file this process has in memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    resident = 0
    for line in lines:
        if line.endswith(str(path)):
            resident += next(int(each.split()[1]) for each in lines if each.startswith("Rss:"))
    return resident


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells what is resident")
def test_pages_of_a_written_index_are_given_back(folder: Folder) -> None:
    folder.add("a", *range(5_000))
    index = folder.index()
    (path,) = folder.written
    assert np.sum(index._kept.heads) > 0
    assert mapped_kb(path) > 0
    for _ in range(2):
        assert found(index, 7, 4_999, 5_000) == {"a": [7, 4_999]}
        assert mapped_kb(path) == 0


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells what is resident")
def test_a_written_index_is_in_memory_piece_by_piece(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "_PIECE_ROWS", 20_000)
    folder.add("a", *range(300_000))
    index = folder.index()
    (path,) = folder.written
    resident = []
    let_go = _Sorted.let_go

    def watched(self: _Sorted) -> None:
        resident.append(mapped_kb(path))
        let_go(self)

    monkeypatch.setattr(_Sorted, "let_go", watched)
    assert len(index.rows_of(pa.array(map(key, range(0, 300_000, 10)), pa.string()))) == 30_000
    later = _Sorted.of([("b", short(pa.array(map(key, range(300_000, 310_000)), pa.string())))])
    index._kept.write(folder.path / "other.index", later)
    assert mapped_kb(path) == 0
    # The system reads around what is asked for.
    assert 0 < max(resident) < path.stat().st_size / 1024 * 3 / 4


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_text_has_the_same_key_wherever_it_is_held(kind: pa.DataType) -> None:
    texts = ["", "good", "\u00e9t\u00e9 \U0001f600", "a\x00b", "x" * 5_000, "good"]
    keys = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in texts]
    whole = pa.array(texts, kind)
    assert text_keys(whole) == keys
    assert text_keys(whole.slice(2, 3)) == keys[2:5]
    assert (
        text_keys(pa.chunked_array([whole.slice(4), whole.slice(0, 0), whole])) == keys[4:] + keys
    )
    assert text_keys(whole.slice(1, 0)) == text_keys(pa.array([], kind)) == []
    assert text_keys(pa.array([None, "good", None], kind)) == [keys[0], keys[1], keys[0]]
    assert text_keys(pa.array(["", ""], kind)) == keys[:1] * 2
    hidden = pc.if_else(pa.array([True, False] * 3), whole, pa.scalar(None, kind))
    assert text_keys(hidden) == [keys[0] if number % 2 else keys[number] for number in range(6)]
