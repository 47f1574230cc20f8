"""Files in and out: the one opener, batches of rows, and writes that are whole or not there."""

from __future__ import annotations

import codecs
import glob
import gzip
import hashlib
import io
import itertools
import json
import os
import shutil
import uuid
import zlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO, Self, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from batch_nlp.errors import InputError
from batch_nlp.workers import own_threads

BLOCK_BYTES = 1 << 24
"""Bytes of CSV read at a time; a record must fit in one block."""

LINES_BYTES = 1 << 21
"""Bytes of lines read at a time: few enough to stay in the processor's cache."""

_HASHED_BYTES = 1 << 20  # for the same reason

PROVENANCE = ("source", "row", "problem")
"""Columns that every reader puts before the file's own."""

_KNOWN_SUFFIXES = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, and put it in place only when the block succeeds.

    Parameters
    ----------
    path : Path
        Final name; its folder is made if it is not there.

    Yields
    ------
    Path
        A name in the same folder. It is flushed to disk and renamed to `path` when the block
        ends, and removed when the block raises: a reader never sees half a file.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     target = Path(folder) / "new" / "note.txt"
    ...     with atomic_path(target) as beside:
    ...         _ = beside.write_text("whole")
    ...     target.read_text()
    'whole'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield beside
        _flush_to_disk(beside)
        beside.replace(path)
        _flush_to_disk(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill, and put it in place only when the block succeeds.

    Parameters
    ----------
    path : Path
        Final name, not taken yet or an empty folder.

    Yields
    ------
    Path
        A new folder beside it, flushed to disk and renamed when the block ends, and removed
        when the block raises. What a killed run left under that name is removed first.
    """
    beside = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        for inside in (*beside.rglob("*"), beside):
            _flush_to_disk(inside)
        beside.replace(path)
        _flush_to_disk(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def remove(path: Path) -> bool:
    """Remove a file, or a folder with all that is in it; tell whether it was there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return True
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented JSON, whole or not at all.

    Raises
    ------
    ValueError
        If a number is NaN or infinite, which JSON cannot say.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def digest(content: Mapping[str, Any]) -> str:
    """Give the SHA-256 of plain data, whatever the order of its keys.

    Examples
    --------
    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: str | Path) -> str:
    """Give the SHA-256 of a file's bytes, in hexadecimal."""
    return _digest_until(path, Event())


class Hashing:
    """Threads that take the SHA-256 of files' bytes, several files at once.

    Use it as a context manager: when the block ends, what is not done is given up, so that after
    Ctrl-C nobody waits for the rest of a large file.

    Parameters
    ----------
    paths : iterable of str
        The files.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = list(paths)
        self._ended = Event()
        self._pool = ThreadPoolExecutor(own_threads())
        self._found: dict[str, Future[str]] = {}

    def __enter__(self) -> Self:
        try:
            for path in self._paths:
                # hashlib lets go of Python's lock.
                self._found[path] = self._pool.submit(_digest_until, path, self._ended)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        self._ended.set()
        self._pool.shutdown(cancel_futures=True)

    def digests(self) -> dict[str, str]:
        """Give the digests in hexadecimal, by path, once all are there.

        Raises
        ------
        InputError
            If there is no such file, or it cannot be read.
        """
        return {path: found.result() for path, found in self._found.items()}


def digests_of(paths: Iterable[str]) -> dict[str, str]:
    """Give the SHA-256 of each file's bytes, by its path, several files being read at once.

    Raises
    ------
    InputError
        If there is no such file, or it cannot be read.
    """
    with Hashing(paths) as hashing:
        return hashing.digests()


def _digest_until(path: str | Path, ended: Event) -> str:
    found = hashlib.sha256()
    block = memoryview(bytearray(_HASHED_BYTES))
    with open_bytes(path) as stream:
        while not ended.is_set() and (n_read := stream.readinto(block)):  # type: ignore[attr-defined]
            found.update(block[:n_read])
    return found.hexdigest()


def open_bytes(path: str | Path) -> BinaryIO:
    """Open a file for reading bytes; every reader of the program opens through here.

    Raises
    ------
    InputError
        If there is no such file, or it cannot be read.
    """
    try:
        return Path(path).open("rb")
    except OSError as error:
        message = f"Cannot read {path}: {error.strerror or error}."
        raise InputError(message) from error


class ParquetSink:
    """A Parquet file that is written batch by batch and appears only when it is complete.

    Parameters
    ----------
    path : Path
        Final name.
    schema : pyarrow.Schema
        Columns of every batch.
    group_rows : int, optional
        Most rows of a row group; by default pyarrow's.
    distinct : collection of str, optional
        Columns whose values hardly repeat: no dictionary is made of them, and no smallest and
        largest value is kept. Lists are such columns in any case; of vectors the bytes of the
        same rank are put together.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> schema = pa.schema({"id": pa.string()})
    >>> with TemporaryDirectory() as folder:
    ...     target = Path(folder) / "ids.parquet"
    ...     with ParquetSink(target, schema) as sink:
    ...         sink.write(pa.table({"id": ["a", "b"]}))
    ...     pq.read_table(target).num_rows
    2
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        *,
        group_rows: int | None = None,
        distinct: Collection[str] = (),
    ) -> None:
        self.path = path
        self.schema = schema
        self.group_rows = group_rows
        self._vectors = [each.name for each in schema if pa.types.is_fixed_size_list(each.type)]
        self._repeating = [
            name for name in schema.names if name not in distinct and name not in self._vectors
        ]
        self.rows = 0
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            beside = undo.enter_context(atomic_path(self.path))
            writer = pq.ParquetWriter(
                beside,
                self.schema,
                compression="zstd",
                use_dictionary=self._repeating,
                write_statistics=self._repeating,
                column_encoding={
                    f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in self._vectors
                },
            )
            self._writer = undo.enter_context(writer)
            self._undo = undo.pop_all()
        return self

    def write(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Append the rows of `batch`, which must hold the columns of the schema."""
        if self._writer is None:
            message = "ParquetSink.write must be called inside its `with` block."
            raise RuntimeError(message)
        table = pa.table(batch) if isinstance(batch, pa.RecordBatch) else batch
        whole = table.select(self.schema.names).cast(self.schema)
        self._writer.write_table(whole, row_group_size=self.group_rows)
        self.rows += batch.num_rows

    def __exit__(self, *failure: object) -> None:
        self._writer = None
        # The file is closed first: where that fails, it is not put in place.
        self._undo.__exit__(*failure)  # type: ignore[arg-type]


def expand(pattern: str | Sequence[str], *, key: str) -> list[str]:
    """Give the files that a path, a glob, or a list of either names, in a fixed order.

    Parameters
    ----------
    pattern : str or sequence of str
        Paths or globs; ``**`` spans folders.
    key : str
        Configuration key that the pattern came from, for the message.

    Raises
    ------
    InputError
        If a path does not exist, is a folder, or a glob matches no file.
    """
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    files: list[str] = []
    for each in patterns:
        named = Path(each).expanduser()
        try:
            is_file = named.is_file()
        except OSError as error:  # such as a name that is too long
            message = f"{key}: {each}: {error.strerror}."
            raise InputError(message) from error
        if is_file:
            files.append(str(named))
            continue
        if named.is_dir():
            message = f"{key} must name files, but {each} is a folder: give {each}/*.json or alike."
            raise InputError(message)
        matches = sorted(
            match
            for match in glob.glob(str(named), recursive=True)  # noqa: PTH207  absolute patterns
            if Path(match).is_file()
        )
        if not matches:
            what = "matches no file" if glob.has_magic(each) else "does not exist"
            message = f"{key}: {each} {what}."
            raise InputError(message)
        files += [match for match in matches if match not in files]
    return files


def file_format(path: str | Path, *, declared: str | None = None) -> str:
    """Tell how a file is written, from `declared` or from its name (``.gz`` aside).

    Returns
    -------
    {"json", "csv", "parquet"}

    Raises
    ------
    InputError
        If the name's ending says nothing and no format is declared.

    Examples
    --------
    >>> file_format("messages.csv.gz")
    'csv'
    """
    if declared is not None:
        return declared
    suffix = file_suffix(path)
    found = _KNOWN_SUFFIXES.get(suffix)
    if found is None or (found == "parquet" and is_gzipped(path)):
        message = (
            f"{path}: the format must show in the name ({', '.join(_KNOWN_SUFFIXES)}, those of "
            "text also with .gz) or be set with dataset.format=csv|json|parquet; "
            f"got {Path(path).suffix!r}."
        )
        raise InputError(message)
    return found


def is_gzipped(path: str | Path) -> bool:
    """Tell by its name whether a file is gzipped."""
    return str(path).lower().endswith(".gz")


def file_suffix(path: str | Path) -> str:
    """Give the ending of a file's name in small letters, that of gzip aside.

    Examples
    --------
    >>> file_suffix("M.TSV.GZ")
    '.tsv'
    """
    return Path(Path(path).name.lower().removesuffix(".gz")).suffix


@contextmanager
def _decompressed(path: str | Path) -> Iterator[BinaryIO]:
    with open_bytes(path) as raw:
        if not is_gzipped(path):
            yield raw
            return
        try:
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield cast("BinaryIO", unpacked)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            message = f"{path} is not a whole gzip file: {error}."
            raise InputError(message) from error


def read_lines(path: str | Path, offset: int = 0, number: int = 1) -> Iterator[pa.RecordBatch]:
    """Read a text file line by line, in blocks.

    Parameters
    ----------
    path : str or Path
        A UTF-8 text file, gzipped when its name ends in ``.gz``. A byte-order mark is skipped.
    offset : int, default=0
        Bytes that are left out at the beginning, where a line must end.
    number : int, default=1
        Number of the first line behind them.

    Yields
    ------
    pyarrow.RecordBatch
        ``source`` (str), ``row`` (line number from 1), ``problem`` (what is wrong with the
        line's bytes, else null) and ``line`` (str, its end with it). Blank lines are counted and
        left out.
    """
    with _decompressed(path) as stream:
        stream.seek(offset)
        if not offset and stream.peek(3).startswith(codecs.BOM_UTF8):  # type: ignore[attr-defined]
            stream.read(len(codecs.BOM_UTF8))
        for block, ends in _line_blocks(stream):
            yield _lines_batch(path, block, ends, number)
            number += len(ends)


def _line_blocks(stream: BinaryIO) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    r"""Read whole lines, some at a time, and give their bytes and where each line ends in them.

    Examples
    --------
    >>> [(block.tobytes(), ends) for block, ends in _line_blocks(io.BytesIO(b"a\nbc\nd"))]
    [(b'a\nbc\n', array([2, 5])), (b'd', array([1]))]
    """
    begun = np.empty(0, np.uint8)
    while True:
        # Of a line of many megabytes twice as much each time, or it would be copied too often.
        block = np.empty(LINES_BYTES + 2 * len(begun), np.uint8)
        block[: len(begun)] = begun
        n_read = stream.readinto(block[len(begun) :].data)  # type: ignore[attr-defined]
        if not n_read:
            break
        new = block[len(begun) : len(begun) + n_read]
        ends = np.flatnonzero(new == ord("\n")) + len(begun) + 1
        whole = ends[-1] if len(ends) else 0
        begun = block[whole : len(begun) + n_read]
        if whole:
            yield block[:whole], ends
    if len(begun):
        yield begun, np.array([len(begun)])


def _lines_batch(
    path: str | Path, block: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64], number: int
) -> pa.RecordBatch:
    """Give the lines of a block by where they end."""
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    whole = pa.Array.from_buffers(
        pa.binary(), len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(block)]
    )
    lines, problem = _decoded(whole)
    rows = pa.array(np.arange(number, number + len(ends)))
    # Only a line that begins with white space may hold nothing else.
    if (block[offsets[:-1]] <= ord(" ")).any():
        kept = pc.not_equal(pc.ascii_trim_whitespace(lines), "")
        lines, problem, rows = (each.filter(kept) for each in (lines, problem, rows))
    columns = [pa.repeat(str(path), len(rows)), rows, problem, lines]
    return pa.RecordBatch.from_arrays(columns, [*PROVENANCE, "line"])


def _decoded(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Turn bytes into text; where they are not UTF-8, say so and keep a readable stand-in."""
    fine = pa.nulls(len(column), pa.string())
    try:
        return column.cast(pa.string()), fine
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        problems: list[str | None] = []
        for value in column.to_pylist():
            try:
                texts.append(None if value is None else value.decode("utf-8"))
                problems.append(None)
            except UnicodeDecodeError:
                texts.append(value.decode("utf-8", errors="replace"))
                problems.append("valid UTF-8")
        return pa.array(texts, pa.string()), pa.array(problems, pa.string())


def read_csv(path: str | Path, *, delimiter: str = ",") -> Iterator[pa.RecordBatch]:
    """Read a CSV file with a header, every column as text.

    Parameters
    ----------
    path : str or Path
        Gzipped when its name ends in ``.gz``. Quoted values may span lines.
    delimiter : str, default=","
        One character between values.

    Yields
    ------
    pyarrow.RecordBatch
        ``source``, ``row`` (record number from 1, the header not counted), ``problem`` and the
        file's columns. An empty value is null. A record with too few or too many values has
        its columns null and its text in the problem.

    Raises
    ------
    InputError
        If the file is empty, its header is not UTF-8, or a quote is never closed.
    """
    with _decompressed(path) as stream, _csv_errors(path, delimiter):
        header = _csv_header(path, delimiter)
        records = _CsvRecords(stream)
        yield from _csv_batches(path, records, header, delimiter)
        if records.end_in_quotes(len(header), delimiter):
            message = (
                f"{path}: a quote that begins in record {records.last - 1} is never closed, so "
                "that the rest of the file would be one value: close it, or double it where it is "
                "meant."
            )
            raise InputError(message)
        if records.broken:
            yield _broken_records(path, records.broken, header)


class _CsvRecords(io.RawIOBase):
    """A stream that remembers how it ended, and which of its records have the wrong length."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        # A value fits in a block, and so in the last two that were read.
        self._blocks: deque[bytes] = deque(maxlen=2)
        self._text = ""
        self.broken: dict[int, str] = {}
        self.number = 1
        self.value = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        if block:
            self._blocks.append(block)
        return block

    def remember(self, record: Any) -> str:
        self.broken[record.number] = (
            f"{record.expected_columns} values in a record, got {record.actual_columns}"
        )
        self._text = record.text
        return "skip"

    @property
    def last(self) -> int:
        """Number of the last record, the header being the first."""
        return max([self.number, *self.broken])

    def end_in_quotes(self, n_columns: int, delimiter: str) -> bool:
        if self.last in self.broken:
            return _ends_in_quotes(self._text, delimiter)
        return _never_closed(b"".join(self._blocks), self.value, n_columns, delimiter)


def _never_closed(tail: bytes, value: bytes, n_columns: int, delimiter: str) -> bool:
    """Tell whether a file that ends in `tail` and in the value `value` ends within quotes."""
    opened = b'"' + value.replace(b'"', b'""')
    if tail.rstrip(b"\r\n").endswith(opened + b'"'):
        return False
    before = (delimiter.encode(),) if n_columns > 1 else (b"", b"\n", b"\r")
    line_ended = tail.removesuffix(b"\n").removesuffix(b"\r")
    return any(
        end.endswith(opened) and end[: -len(opened)][-1:] in before for end in (tail, line_ended)
    )


def _ends_in_quotes(record: str, delimiter: str) -> bool:
    """Tell whether the last value of a record begins with a quote and goes on to its end."""
    inside, begins = False, True
    for character in record:
        if character == '"' and (inside or begins):
            # Doubled, it leaves and enters again.
            inside, begins = not inside, inside
        else:
            begins = not inside and character == delimiter
    return inside


@contextmanager
def _csv_errors(path: str | Path, delimiter: str) -> Iterator[None]:
    try:
        yield
    except pa.ArrowInvalid as error:
        reason = str(error).split("\n", maxsplit=1)[0].removesuffix(".")
        message = f"{path} cannot be read as CSV with dataset.delimiter={delimiter!r}: {reason}."
        raise InputError(message) from error


def _csv_batches(
    path: str | Path, records: _CsvRecords, header: list[str], delimiter: str
) -> Iterator[pa.RecordBatch]:
    reader = pa.csv.open_csv(
        records,
        read_options=pa.csv.ReadOptions(
            use_threads=False, block_size=BLOCK_BYTES, column_names=header, skip_rows=1
        ),
        parse_options=pa.csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=records.remember
        ),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.binary()),
            strings_can_be_null=True,
            null_values=[""],
        ),
    )
    number = 2
    for batch in reader:
        rows: list[int] = []
        while len(rows) < batch.num_rows:
            if number not in records.broken:
                rows.append(number - 1)
            number += 1
        texts, problems = zip(*(_decoded(column) for column in batch.columns), strict=True)
        provenance = [
            pa.repeat(str(path), batch.num_rows),
            pa.array(rows, pa.int64()),
            pc.coalesce(*problems),
        ]
        yield pa.RecordBatch.from_arrays([*provenance, *texts], [*PROVENANCE, *header])
        if batch.num_rows:
            records.number = number - 1
            records.value = batch.columns[-1][-1].as_py() or b""


def _csv_header(path: str | Path, delimiter: str) -> list[str]:
    with _decompressed(path) as stream:
        reader = pa.csv.open_csv(
            stream,
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=pa.csv.ParseOptions(
                delimiter=delimiter,
                newlines_in_values=True,
                invalid_row_handler=lambda _: "skip",
            ),
            convert_options=pa.csv.ConvertOptions(column_types={}),
        )
        try:
            names = list(reader.schema.names)
        except UnicodeDecodeError as error:
            message = f"{path} must be UTF-8 text, but its header is not ({error}): convert it."
            raise InputError(message) from error
    for name in names:
        if name and names.count(name) > 1:
            message = f"{path} has two columns named {name!r}: rename one."
            raise InputError(message)
    taken = set(names) | set(PROVENANCE)
    return [name or _unnamed(position, taken) for position, name in enumerate(names)]


def _unnamed(position: int, taken: set[str]) -> str:
    name = f"unnamed_{position}"
    while name in taken:
        name += "_"
    return name


def _broken_records(path: str | Path, broken: dict[int, str], header: list[str]) -> pa.RecordBatch:
    nothing = pa.nulls(len(broken), pa.string())
    columns = [
        pa.repeat(str(path), len(broken)),
        pa.array([number - 1 for number in broken], pa.int64()),
        pa.array(list(broken.values()), pa.string()),
        *[nothing] * len(header),
    ]
    return pa.RecordBatch.from_arrays(columns, [*PROVENANCE, *header])


@contextmanager
def _parquet_file(path: str | Path) -> Iterator[pq.ParquetFile]:
    with open_bytes(path) as stream:
        try:
            yield pq.ParquetFile(stream)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).split("\n", maxsplit=1)[0].removesuffix(".")
            message = f"{path} is not a whole Parquet file: {reason}."
            raise InputError(message) from error


def read_parquet(path: str | Path, *, batch_rows: int = 20_000) -> Iterator[pa.RecordBatch]:
    """Read a Parquet file in batches, with ``source``, ``row`` (from 1) and ``problem`` first."""
    row = 1
    with _parquet_file(path) as file:
        for batch in file.iter_batches(batch_size=batch_rows):
            provenance = [
                pa.repeat(str(path), batch.num_rows),
                pa.array(range(row, row + batch.num_rows), pa.int64()),
                pa.nulls(batch.num_rows, pa.string()),
            ]
            row += batch.num_rows
            yield pa.RecordBatch.from_arrays(
                [*provenance, *batch.columns], [*PROVENANCE, *batch.schema.names]
            )


def csv_columns(path: str | Path, *, delimiter: str = ",") -> list[str]:
    """Give the columns that a CSV file's header names; a nameless one is ``unnamed_<position>``.

    Raises
    ------
    InputError
        If the file is empty, its header is not UTF-8, or it names a column twice.
    """
    with _csv_errors(path, delimiter):
        return _csv_header(path, delimiter)


def parquet_columns(path: str | Path) -> pa.Schema:
    """Give the columns of a Parquet file."""
    with _parquet_file(path) as file:
        return file.schema_arrow


def json_columns(path: str | Path, *, n_lines: int = 1000) -> list[str]:
    """Give the keys that the first lines of a JSON-lines file name, in the order met."""
    keys: dict[str, None] = {}
    with _decompressed(path) as stream:
        for line in itertools.islice(stream, n_lines):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                keys |= dict.fromkeys(row)
    return list(keys)


def quoted(name: str) -> str:
    """Quote an SQL name.

    Examples
    --------
    >>> quoted("unit price")
    '"unit price"'
    """
    return '"' + name.replace('"', '""') + '"'


def from_pandas(frame: Any, schema: pa.Schema) -> pa.Table:
    """Turn a frame into an Arrow table of the given columns, its index left out."""
    return pa.Table.from_pandas(frame, schema=schema, preserve_index=False)


def in_one_piece(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Give a column as one array, which has its buffers.

    Examples
    --------
    >>> in_one_piece(pa.chunked_array([["a"], ["b"]])).to_pylist()
    ['a', 'b']
    """
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def formula_safe(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    r"""Put an apostrophe before texts that a spreadsheet would take for a formula.

    Which these are follows OWASP's page on CSV injection: what begins with ``=``, ``+``, ``-``,
    ``@`` (their full-width forms too), a tab or the end of a line.

    Examples
    --------
    >>> formula_safe(pa.array(["=1+1", "a=1", None])).to_pylist()
    ["'=1+1", 'a=1', None]
    """
    formulas = pc.match_substring_regex(texts, r"^[=+\-@\t\r\n\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]")
    return pc.if_else(formulas, pc.binary_join_element_wise("'", texts, ""), texts)
