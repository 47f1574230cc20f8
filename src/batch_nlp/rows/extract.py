"""Read a data set into DuckDB, join it, remove duplicates, and hand it on batch by batch.

DuckDB works out of core: its memory limit, threads and spill folder come from the
configuration, and no frame of the whole data set is ever built.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar
from uuid import uuid4

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_nlp.errors import InputError
from batch_nlp.rows.counts import Counts
from batch_nlp.rows.validate import validate
from batch_nlp.schemas import (
    REFERENCE_FIELDS,
    REFERENCE_KEYS,
    REJECTED,
    TARGETS,
    Field,
    Kind,
    joined_name,
    parse,
    text_schema,
)
from batch_nlp.tables import BLOCK_BYTES, ParquetSink, from_pandas, quoted
from batch_nlp.workers import cores, own_threads, read_ahead

PART_ROWS = 50_000
"""Most rows joined at a time, for with fewer a large table is searched too often; and most rows of
such a table checked at a time.
"""

PART_BYTES = 32_000_000
"""Or fewer rows, where they are long: three parts are held at once, some of their texts twice."""

_PARTS_AHEAD = 2
"""With one, the first to be done, of reading and writing, waits for the other, and a core idles."""

SHOWN_CHARACTERS = 200
"""How much of an unreadable line a rejected row shows."""

_DATABASE = "extracted"
_PACKED_FROM = 4
"""Tables are compressed that take more than one in so many parts of the memory."""

_BYTES_PER_THREAD = 8_000_000
"""A statement fails where every thread has less; 96 of them want more than 150 MB."""

_ROW_BITS = 40
_SEQ = pa.schema({"seq": pa.int64()})
_TIMES_A_MESSAGE = 16
"""How many times DuckDB may hold a message of many megabytes at once, and some more."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?B)")
_UNITS = ("B", "KB", "MB", "GB", "TB")
_ROWS_PER_PROCESS = 10_000
_BATCHES_PER_PROCESS = 4
_MOST_AT_WORK = 50_000

_Rows = TypeVar("_Rows", pa.RecordBatch, pa.Table)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How the row stages run on this machine.

    Parameters
    ----------
    threads : int or None, default=None
        Threads of DuckDB; None takes every core, but no more than `memory_limit` has room for.
    memory_limit : str, default="150MB"
        What DuckDB may hold in memory; beyond it, it spills.
    spill : str or None, default=None
        Folder for what does not fit; None takes one beside the intermediate data.
    batch_rows : int, default=10000
        Most rows in a batch. Results do not depend on it; peak memory does.
    processes : int or None, default=None
        Processes that validate, derive, embed and predict; None takes one for each core, where
        there are so many rows that it pays. Results do not depend on it.
    store_limit : str, default="20GB"
        What the feature store may take on disk; beyond it, what has not been used for longest
        goes.
    """

    threads: int | None = None
    memory_limit: str = "150MB"
    spill: str | None = None
    batch_rows: int = 10_000
    processes: int | None = None
    store_limit: str = "20GB"

    def __post_init__(self) -> None:
        if self.processes is not None and self.processes < 1:
            message = f"engine.processes must be at least 1 or null, got {self.processes}."
            raise InputError(message)
        if not _SIZE.fullmatch(self.store_limit):
            shown = repr(self.store_limit)
            message = f"engine.store_limit must be a size such as 500MB or 20GB, got {shown}."
            raise InputError(message)
        if self.batch_rows < 1:
            message = f"engine.batch_rows must be at least 1, got {self.batch_rows}."
            raise InputError(message)

    @property
    def store_bytes(self) -> int:
        """`store_limit` in bytes."""
        number, unit = _SIZE.fullmatch(self.store_limit).groups()  # type: ignore[union-attr]
        return int(float(number) * 1000 ** _UNITS.index(unit))

    def processes_for(self, n_rows: int) -> int:
        """Give how many processes work on so many rows."""
        if self.processes is not None:
            return self.processes
        return max(1, min(cores(), n_rows // _ROWS_PER_PROCESS))

    def batch_rows_for(self, n_rows: int, processes: int) -> int:
        """Give how many rows a batch has, so that each process gets some batches."""
        if processes == 1:
            return self.batch_rows
        fair = -(-n_rows // (_BATCHES_PER_PROCESS * processes))
        # What all processes are at is lost with a killed run.
        return max(1, min(self.batch_rows, fair, _MOST_AT_WORK // processes))

    def connect(self, *, spill: Path | None = None) -> duckdb.DuckDBPyConnection:
        """Start DuckDB, its tables in memory, within these limits.

        Parameters
        ----------
        spill : Path, optional
            Where it puts what does not fit in memory.

        Raises
        ------
        InputError
            If DuckDB refuses a value.
        """
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self.memory_limit
        }
        if self.threads is not None:
            settings["threads"] = self.threads
        if spill is not None:
            settings["temp_directory"] = str(spill)
        try:
            database = duckdb.connect(config=settings)
        except duckdb.Error as error:
            message = f"engine: DuckDB does not start with {settings}: {error}"
            raise InputError(message) from error
        if self.threads is None:
            most = _limit_of(database) // _BYTES_PER_THREAD
            database.execute(f"SET threads = {max(1, min(own_threads(), most))}")
        return database


@dataclass(frozen=True)
class Table:
    """One file of a table: its batches, and how SQL reads the program's columns from them.

    Attributes
    ----------
    path : str
        The file.
    batches : callable
        Gives record batches that begin with the columns of `PROVENANCE`.
    schema : Schema
        What the batches hold.
    columns : mapping of str to str
        For each column that the file provides, the SQL expression that reads it.
    relation : str, default="incoming"
        What SQL selects from; ``incoming`` stands for the batches.
    sound : str, optional
        The same for batches without a row that has a problem, which need not be checked again.
    problem : str, default="problem"
        SQL expression for what is wrong with a row as a whole; null where nothing is.
    shown : str, default="NULL"
        SQL expression for what a row with a problem shows of itself.
    behind : callable, optional
        Gives the batches from a byte offset on, where a row begins, and from that row's number.
        None where a file cannot be read from the middle.
    """

    path: str
    batches: Callable[[], Iterable[pa.RecordBatch]]
    schema: pa.Schema
    columns: Mapping[str, str]
    relation: str = "incoming"
    sound: str | None = None
    problem: str = "problem"
    shown: str = "NULL"
    behind: Callable[[int, int], Iterable[pa.RecordBatch]] | None = None


@dataclass(frozen=True)
class Earlier:
    """Messages that an earlier run has read, which come before those of a source.

    Attributes
    ----------
    files : sequence of str
        Where they were read.
    snapshot : Path
        A Parquet file with the ids of those that were delivered.
    rejected : Path
        A Parquet file, of the schema `REJECTED`, with those that were not.
    references : mapping of str to Path
        Of each table that is joined to them, a Parquet file of the accepted rows, as
        `Extraction.keep_references` writes it.
    counts : mapping of str to Counts
        Of the stages `STAGES` and of the tables in `references`.
    skipped : int
        Messages that were not asked for.
    """

    STAGES: ClassVar = ("extract", "deduplicate", "validate")

    files: Sequence[str]
    snapshot: Path
    rejected: Path
    references: Mapping[str, Path]
    counts: Mapping[str, Counts]
    skipped: int

    def ids(self) -> Iterator[pa.RecordBatch]:
        """Give the ids of all messages that have one."""
        with pq.ParquetFile(self.snapshot) as file:
            yield from file.iter_batches(columns=["id"])
        for batch in self.rejections():
            messages = batch.filter(pc.is_in(batch["source"], value_set=pa.array(self.files)))
            yield messages.select(["id"])

    def rejections(self) -> Iterator[pa.RecordBatch]:
        """Give the rows that were turned away, of messages and of the tables joined to them."""
        with pq.ParquetFile(self.rejected) as file:
            yield from file.iter_batches()


@dataclass(frozen=True)
class Source:
    """Where messages come from: their own table and the reference tables joined to it.

    Attributes
    ----------
    messages : sequence of Table
        One for each file, in order.
    references : mapping of str to sequence of Table
        Files of the tables ``user`` and ``business``, where there are any.
    fields : mapping of str to Field
        The contract on the joined rows: `JOINED_FIELDS` and what the data set adds.
    names : mapping of str to str
        What the files call a column, where that is not its name here; rejected rows say it so.
    files : sequence of str
        Every file read, for the record.
    id_derived : bool
        Whether ids are digests of the rows because the files bring none.
    max_reviews, since, until : optional
        Which messages are asked for: at most so many in input order, dated from `since`
        (included) to `until` (excluded).
    earlier : Earlier, optional
        Messages that come before these and have been read.
    """

    messages: Sequence[Table]
    references: Mapping[str, Sequence[Table]]
    fields: Mapping[str, Field]
    names: Mapping[str, str]
    files: Sequence[str]
    id_derived: bool = False
    max_reviews: int | None = None
    since: str | None = None
    until: str | None = None
    earlier: Earlier | None = None

    def __post_init__(self) -> None:
        if self.max_reviews is not None and self.max_reviews < 1:
            message = f"dataset.max_reviews must be at least 1, got {self.max_reviews}."
            raise InputError(message)
        for key, bound in (("since", self.since), ("until", self.until)):
            if bound is not None and pd.isna(_moment(bound)):
                message = f"dataset.{key} must be an ISO 8601 date, got {bound!r}."
                raise InputError(message)


class Extraction:
    """The joined rows of a source.

    The files are read twice: first for the ids, to find the unreadable rows and the repeats, and
    then for the rows, so that no text is ever held but those of some batches.

    Use it as a context manager: entering reads the files for the first time, leaving forgets.

    Parameters
    ----------
    source : Source
        What to read.
    engine : Engine
        How.
    spill : Path
        Folder for whatever does not fit in memory.
    targets : bool, default=True
        Whether `TARGETS` are read; where not, they are missing.

    Attributes
    ----------
    counts : dict of str to Counts
        Of the stages ``user``, ``business``, ``extract`` and ``deduplicate``.
    skipped : int
        Messages outside `max_reviews`, `since` and `until`; they do not count as read.
    """

    def __init__(
        self, source: Source, engine: Engine, spill: Path, *, targets: bool = True
    ) -> None:
        self.source = source
        self.engine = engine
        self.spill = spill
        self.targets = targets
        self.counts: dict[str, Counts] = {}
        self.skipped = 0
        self._enough = 0
        self._last: Mapping[int, int] = {}

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            folder = (Path(self.engine.spill) if self.engine.spill else self.spill) / uuid4().hex
            folder.mkdir(parents=True)
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            # In memory, as far as it goes: what is compressed into a file takes twice as long.
            self._db = undo.enter_context(self.engine.connect(spill=folder))
            self._run(f"ATTACH ':memory:' AS {_DATABASE} (COMPRESS)")
            self._run(f"USE {_DATABASE}")
            self._create("rejected", REJECTED)
            for table in REFERENCE_FIELDS:
                self._load_reference(table)
            self._load_messages()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._undo.close()

    @property
    def n_rows(self) -> int:
        """How many rows `rows` gives."""
        return self.counts["deduplicate"].delivered

    def keep_references(self, folder: Path) -> dict[str, Path]:
        """Write the accepted rows of each joined table into a folder, and give the files."""
        kept = {}
        for table in filter(self.source.references.get, self.source.references):
            kept[table] = folder / f"{table}.parquet"
            with ParquetSink(kept[table], text_schema(list(REFERENCE_FIELDS[table]))) as sink:
                for batch in self._batches(f"FROM {table}"):
                    sink.write(batch)
        return kept

    def rejected(self) -> Iterator[pa.RecordBatch]:
        """Give the rows set aside so far, unreadable ones and duplicates, as `REJECTED`."""
        yield from self._batches('SELECT * FROM rejected ORDER BY source, "row"')

    def rows(self, batch_rows: int | None = None) -> Iterator[pa.RecordBatch]:
        """Give the joined rows as text, in input order.

        Parameters
        ----------
        batch_rows : int, optional
            Rows of each batch but the last; by default the engine's.

        Yields
        ------
        pyarrow.RecordBatch
            ``source`` (str), ``row`` (int64) and the columns of the contract (str).

        Raises
        ------
        InputError
            If there are other rows than at the first reading, or a line is no longer JSON.
        """
        given = 0
        # Whole parts ahead: the next ones are read while the batches of the last one are in use.
        with closing(read_ahead(self._joined(), _PARTS_AHEAD)) as parts:
            pieces = chain.from_iterable(part.to_batches() for part in parts)
            for batch in _batched(pieces, batch_rows or self.engine.batch_rows):
                given += batch.num_rows
                yield batch
        if given != self.n_rows:
            files = ", ".join(self.source.files[:3])
            raise _changed(files, f"{self.n_rows} rows at first, then {given}")

    def _joined(self) -> Iterator[pa.Table]:
        left = self.n_rows
        for position in sorted(self._last):
            if not left:
                return
            file = self.source.messages[position]
            keep = self._wanted(position)
            parts = _parts(file)
            while left and (batches := next(parts, None)):
                # Arrow filters not every type that a file may have, but all of what DuckDB gives.
                early = file.sound is not None
                with (
                    _still_json(file),
                    self._incoming(file, map(keep, batches) if early else batches),
                ):
                    part = self._part(file)
                part = part if early else keep(part)
                left -= part.num_rows
                if part.num_rows:
                    yield self._with_references(part.drop_columns(["problem"]))
                del part  # before the next one is read

    def _wanted(self, position: int) -> Callable[[_Rows], _Rows]:
        """Give what leaves out of a file's rows those that are not wanted."""
        first, last = position << _ROW_BITS, self._last[position]
        wanted = np.ones(last - first + 1, bool)
        for batch in self._batches(f"FROM unwanted WHERE seq BETWEEN {first} AND {last}"):
            wanted[batch["seq"].to_numpy() - first] = False

        def keep(rows: _Rows) -> _Rows:
            numbers = rows["row"].to_numpy()
            kept = (numbers < len(wanted)) & wanted[np.minimum(numbers, len(wanted) - 1)]
            # A row of which something is wrong only now.
            kept &= pc.is_null(rows["problem"]).to_numpy(zero_copy_only=False)
            return rows if kept.all() else rows.filter(pa.array(kept))

        return keep

    def _part(self, file: Table) -> pa.Table:
        """Give of the rows on offer ``source``, ``row``, ``problem`` and the file's columns."""
        present = {*file.columns, *self._keys().values()}
        wanted = present if self.targets else present.difference(TARGETS)
        names = [name for name in self.source.fields if name in wanted]
        # Without ORDER BY: a plain statement keeps the order of what it reads.
        found = self._table(
            f"""
            SELECT "row", {file.problem} AS problem, {_texts(file, names)}
            FROM {file.sound or file.relation}
            """
        )
        return found.add_column(0, "source", pa.repeat(file.path, len(found)))

    def _with_references(self, part: pa.Table) -> pa.Table:
        """Give a part with the columns of the joined tables, where it has none of its own."""
        tables = self._keys()
        columns = {name: part[name] for name in part.column_names}
        if tables:
            found = self._looked_up(part.select(list(tables.values())), tables)
            for name in found.column_names:
                own = columns.get(name)
                columns[name] = found[name] if own is None else pc.coalesce(own, found[name])
        for name in self.source.fields:
            columns.setdefault(name, pa.nulls(part.num_rows, pa.string()))
        order = ["source", "row", *self.source.fields]
        return pa.table({name: columns[name] for name in order})

    def _keys(self) -> dict[str, str]:
        """Give the tables that are joined, and what joins each."""
        return {
            table: key for table, key in REFERENCE_KEYS.items() if self.source.references.get(table)
        }

    def _looked_up(self, keys: pa.Table, tables: Mapping[str, str]) -> pa.Table:
        """Give the columns of `tables`, of which `keys` names a row each, in that order."""
        columns = {
            joined_name(table, column): f"{table}.{quoted(column)}"
            for table, key in tables.items()
            for column in REFERENCE_FIELDS[table]
            if column != key
        }
        joins = [f"LEFT JOIN {table} USING ({key})" for table, key in tables.items()]
        with self._offered("part", keys.append_column("at", pa.array(np.arange(len(keys))))):
            return self._table(
                f"SELECT {_aliased(columns)} FROM part {' '.join(joins)} ORDER BY part.at"
            )

    @contextmanager
    def _incoming(self, table: Table, batches: Iterable[pa.RecordBatch]) -> Iterator[None]:
        """Offer batches of a file as the relation ``incoming``."""
        faults: list[InputError] = []
        watched = _watched(map(self._with_room, batches), faults)
        reader = pa.RecordBatchReader.from_batches(table.schema, watched)
        try:
            with self._offered("incoming", reader):
                yield
        except duckdb.Error as error:
            # DuckDB wraps what a reader raises in an error of its own.
            if faults:
                raise faults[0] from error
            raise

    @contextmanager
    def _offered(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> Iterator[None]:
        """Let statements read rows as a relation of some name."""
        self._db.register(name, rows)
        try:
            yield
        finally:
            self._db.unregister(name)

    def _with_room(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Let DuckDB have what it needs for a message of many megabytes, whatever its limit."""
        needed = _TIMES_A_MESSAGE * max(map(_longest, batch.columns), default=0)
        if needed > self._enough:
            # A cursor of its own: the batch is asked for while a statement runs.
            with self._db.cursor() as cursor:
                self._enough = _limit_of(cursor)
                if needed > self._enough:
                    cursor.execute(f"SET GLOBAL memory_limit = '{needed}B'")
                    self._enough = needed
        return batch

    def _batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        # Its own cursor, so that the loop may write to the database while it reads.
        with self._db.cursor() as cursor:
            cursor.execute(f"USE {_DATABASE}")
            with self._limited():
                reader = cursor.sql(sql).to_arrow_reader(self.engine.batch_rows)
            while True:
                with self._limited():
                    batch = next(reader, None)
                if batch is None:
                    return
                yield batch

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Name the setting where DuckDB has not enough memory, or no room to spill to.

        Raises
        ------
        InputError
        """
        try:
            yield
        # Within a reader of Arrow batches it is an OSError.
        except (duckdb.OutOfMemoryException, OSError) as error:
            if "Out of Memory" not in str(error):
                raise
            message = (
                f"engine.memory_limit={self.engine.memory_limit} is too little, or the disk is "
                f"full: {str(error).splitlines()[0]}"
            )
            raise InputError(message) from error

    def _create(self, name: str, schema: pa.Schema) -> None:
        self._append(name, schema.empty_table(), verb=f"CREATE TABLE {name} AS")

    def _append(
        self, name: str, table: pa.Table | pa.RecordBatchReader, *, verb: str | None = None
    ) -> None:
        with self._offered("incoming", table):
            self._run(f"{verb or f'INSERT INTO {name}'} FROM incoming")

    def _ingest(self, name: str, tables: Sequence[Table], columns: Sequence[str]) -> None:
        """Read files into the table `name`: ``seq`` in input order, problems, text columns."""
        self._create(name, _ingested(columns))
        for position, table in enumerate(tables):
            with self._incoming(table, table.batches()):
                self._run(f"INSERT INTO {name} {_ingesting(position, table, columns)}")
        self._compress()

    def _compress(self) -> None:
        """Pack what the tables hold, to about a third, where it takes much of the memory."""
        held = self._run("SELECT sum(memory_usage_bytes) FROM duckdb_memory()")[0][0]
        if held * _PACKED_FROM > _limit_of(self._db):
            self._run(f"CHECKPOINT {_DATABASE}")

    def _set_problems_aside(self, name: str, tables: Sequence[Table]) -> int:
        self._run(
            f"""
            INSERT INTO rejected SELECT {_provenance(tables)}, NULL, 'line', problem, shown
            FROM {name} WHERE problem IS NOT NULL
            """
        )
        return self._count(f"{name} WHERE problem IS NOT NULL")

    def _set_repeats_aside(
        self, name: str, tables: Sequence[Table], key: str, earlier: Earlier | None = None
    ) -> int:
        """Name in ``<name>_again`` the rows whose key an earlier row has, and reject them."""
        # Digests first: few keys repeat, and only theirs are compared whole.
        self._run(
            f"""
            CREATE TABLE {name}_again AS SELECT seq FROM (
                SELECT seq, row_number() OVER (PARTITION BY {key} ORDER BY seq) AS nth
                FROM {name} WHERE problem IS NULL AND {key} IS NOT NULL AND hash({key}) IN (
                    SELECT hash({key}) AS digest FROM {name}
                    WHERE problem IS NULL AND {key} IS NOT NULL
                    GROUP BY digest HAVING count(*) > 1)
            ) WHERE nth > 1
            """
        )
        if earlier is not None:
            # Not read_parquet: it takes folders named like source=a for columns.
            shape = pa.schema({"id": pa.string()})
            ids = pa.RecordBatchReader.from_batches(shape, earlier.ids())
            with self._offered("earlier", ids):
                self._run(
                    f"""
                    INSERT INTO {name}_again
                    SELECT seq FROM {name} SEMI JOIN earlier ON earlier.id = {name}.{key}
                    WHERE problem IS NULL AND seq NOT IN (SELECT seq FROM {name}_again)
                    """
                )
        self._run(
            f"""
            INSERT INTO rejected
            SELECT {_provenance(tables)}, {key}, $1, 'not a duplicate', {key}
            FROM {name} SEMI JOIN {name}_again USING (seq)
            """,
            [self.source.names.get(key, key)],
        )
        return self._count(f"{name}_again")

    def _count(self, relation: str) -> int:
        return int(self._run(f"SELECT count(*) FROM {relation}")[0][0])

    def _run(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        # Fetched whole: DuckDB takes no other statement while a result is open.
        with self._limited():
            return list(self._db.execute(sql, list(values)).fetchall())

    def _table(self, sql: str) -> pa.Table:
        with self._limited():
            return self._db.sql(sql).to_arrow_table()

    def _load_reference(self, table: str) -> None:
        fields, key = REFERENCE_FIELDS[table], REFERENCE_KEYS[table]
        files = self.source.references.get(table, ())
        earlier = self.source.earlier
        if files and earlier is None:
            self._ingest(table, files, list(fields))
            self.counts[table] = self._keep_accepted(table, files, fields, key)
            return
        self._create(table, text_schema(list(fields)))
        if files and earlier is not None:
            with pq.ParquetFile(earlier.references[table]) as kept:
                rows = kept.iter_batches()
                self._append(table, pa.RecordBatchReader.from_batches(kept.schema_arrow, rows))
            self.counts[table] = Counts()  # beside those of the earlier run

    def _keep_accepted(
        self, table: str, files: Sequence[Table], fields: Mapping[str, Field], key: str
    ) -> Counts:
        """Set aside what a joined table must not hold, and leave its own columns."""
        counts = Counts(
            read=self._count(table),
            rejected=self._set_problems_aside(table, files),
            duplicates=self._set_repeats_aside(table, files, key),
        )
        self._run(f"DELETE FROM {table} WHERE problem IS NOT NULL OR seq IN (FROM {table}_again)")
        self._create(f"{table}_failed", _SEQ)
        rows = self._batches(f"SELECT {_provenance(files)}, * FROM {table}")
        for batch in _batched(rows, PART_ROWS):
            frame = batch.to_pandas()
            verdict = validate(frame, fields)
            counts.delivered += len(verdict.accepted)
            failed = frame.drop(index=verdict.accepted.index)
            if len(failed):
                counts.rejected += len(failed)
                self._append("rejected", rejections(frame, verdict.failures, key))
                self._append(f"{table}_failed", from_pandas(failed[["seq"]], _SEQ))
        self._run(f"DELETE FROM {table} WHERE seq IN (FROM {table}_failed)")
        for column in ("seq", "problem", "shown"):
            self._run(f"ALTER TABLE {table} DROP {column}")
        for done in (f"{table}_again", f"{table}_failed"):
            self._run(f"DROP TABLE {done}")
        self._compress()
        return counts

    def _load_messages(self) -> None:
        files = self.source.messages
        self._create("unwanted", _SEQ)
        if self.source.since is None and self.source.until is None:
            self._ingest("message", files, ["id"])
        else:
            self._ingest_dated()
        self.skipped = self._count("unwanted") + self._cut()
        # What comes behind them in a file was not asked for, or was not there.
        last = self._run(f"SELECT seq >> {_ROW_BITS} AS file, max(seq) FROM message GROUP BY file")
        self._last = dict(last)
        problems = self._set_problems_aside("message", files)
        read = self._count("message")
        repeats = self._set_repeats_aside("message", files, "id", self.source.earlier)
        self._run("INSERT INTO unwanted SELECT seq FROM message WHERE problem IS NOT NULL")
        self._run("INSERT INTO unwanted FROM message_again")
        self._run("DROP TABLE message")
        self._compress()
        self.counts["extract"] = Counts(read=read, delivered=read - problems, rejected=problems)
        self.counts["deduplicate"] = Counts(
            read=read - problems, delivered=read - problems - repeats, duplicates=repeats
        )

    def _ingest_dated(self) -> None:
        """Read the messages dated as asked for, as `_ingest` does, and name the others.

        The others are never in the table: with millions of them it would not fit in memory to
        take them out again.
        """
        self._create("message", _ingested(["id"]))
        for position, file in enumerate(self.source.messages):
            for batches in _parts(file):
                with self._incoming(file, batches):
                    found = self._table(_ingesting(position, file, ["id", "date"]))
                outside = self._outside(found.select(["problem", "date"]).to_pandas())
                self._append("unwanted", found.select(["seq"]).filter(outside))
                self._append("message", found.drop_columns(["date"]).filter(~outside))
        self._compress()

    def _outside(self, frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Tell which messages are not dated as asked for."""
        # Dated as the contract does it; what is no date stays, to be rejected with its reason.
        dates = parse(frame["date"], Kind.DATE)
        outside = frame["date"].isna()
        if self.source.since is not None:
            outside |= dates < _moment(self.source.since)
        if self.source.until is not None:
            outside |= dates >= _moment(self.source.until)
        return (outside & frame["problem"].isna()).to_numpy()

    def _cut(self) -> int:
        """Take out the messages beyond `max_reviews`, and say how many they were."""
        if (most := self.source.max_reviews) is None:
            return 0
        read = self._count("message")
        first = f"SELECT seq FROM message ORDER BY seq LIMIT {most}"
        self._run(f"DELETE FROM message WHERE seq > (SELECT max(seq) FROM ({first}))")
        return read - self._count("message")


def rejections(frame: pd.DataFrame, failures: pd.DataFrame, key: str) -> pa.Table:
    """Say for each failed check where its row stands.

    Parameters
    ----------
    frame : DataFrame
        Rows with ``source``, ``row`` and the column `key`.
    failures : DataFrame
        As `validate` gives them, indexed like `frame`.
    key : str
        Column that identifies a row.

    Returns
    -------
    pyarrow.Table of the schema `REJECTED`
    """
    where = frame.loc[failures.index, ["source", "row", key]].set_axis(
        ["source", "row", "id"], axis="columns"
    )
    return from_pandas(pd.concat([where, failures], axis="columns"), REJECTED)


def _ingested(columns: Sequence[str]) -> pa.Schema:
    """Give the columns of a table that is read for the first time."""
    return pa.schema([*_SEQ, *text_schema(["problem", "shown", *columns])])


def _ingesting(position: int, table: Table, columns: Sequence[str]) -> str:
    """Say in SQL how a file is read for the first time."""
    return f"""
        SELECT {_seq(position)} AS seq, {table.problem} AS problem,
        CASE WHEN {table.problem} IS NOT NULL
        THEN left({table.shown}, {SHOWN_CHARACTERS}) END AS shown, {_texts(table, columns)}
        FROM {table.relation}
        """


def _seq(position: int) -> str:
    """Give the SQL for a row's number, by which the rows of all files sort in input order."""
    return f'({position}::BIGINT << {_ROW_BITS}) + "row"'


def _provenance(tables: Sequence[Table]) -> str:
    """Say in SQL where the row with a ``seq`` stands."""
    paths = ", ".join("'" + table.path.replace("'", "''") + "'" for table in tables)
    return (
        f"list_extract([{paths}]::VARCHAR[], (seq >> {_ROW_BITS}) + 1) AS source, "
        f'seq & {(1 << _ROW_BITS) - 1} AS "row"'
    )


def _texts(table: Table, names: Sequence[str]) -> str:
    return _aliased({name: f"CAST({table.columns.get(name, 'NULL')} AS VARCHAR)" for name in names})


def _small(batch: pa.RecordBatch, most: int = BLOCK_BYTES) -> Iterator[pa.RecordBatch]:
    """Cut a batch so that no piece but a single row has more than `most` bytes; none is empty.

    Examples
    --------
    >>> batch = pa.record_batch({"text": ["x" * 100, "", "y", "z"]})
    >>> [piece.num_rows for piece in _small(batch, 80)]
    [1, 1, 2]
    """
    if batch.num_rows > 1 and batch.nbytes > most:
        half = batch.num_rows // 2
        yield from _small(batch.slice(0, half), most)
        yield from _small(batch.slice(half), most)
    elif batch.num_rows:
        yield batch


def _parts(file: Table) -> Iterator[Iterator[pa.RecordBatch]]:
    """Give the batches of a file, as many at a time as are joined."""
    batches = chain.from_iterable(map(_small, file.batches()))
    while first := next(batches, None):
        yield _part(first, batches)


def _part(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Give the first batch and as many more as are joined at a time."""
    yield first
    rows, size = first.num_rows, first.nbytes
    while rows < PART_ROWS and size < PART_BYTES and (batch := next(rest, None)):
        yield batch
        rows += batch.num_rows
        size += batch.nbytes


def _batched(batches: Iterable[pa.RecordBatch], n_rows: int) -> Iterator[pa.RecordBatch]:
    """Cut and join batches so that each but the last has `n_rows`."""
    held: list[pa.RecordBatch] = []
    missing = n_rows
    for batch in batches:
        at = 0
        while at < batch.num_rows:
            held.append(batch.slice(at, missing))
            at += held[-1].num_rows
            missing -= held[-1].num_rows
            if not missing:
                # A copy, even of one: pickled for a worker, a slice takes all that it is cut from.
                whole = pa.concat_batches(held)
                held, missing = [], n_rows  # and keeps it alive
                yield whole
    if held:
        yield pa.concat_batches(held)


def _changed(files: str, what: str) -> InputError:
    return InputError(f"{files} changed while being read: {what}. Run again.")


@contextmanager
def _still_json(file: Table) -> Iterator[None]:
    """Say that a file changed, where DuckDB meets a line that it could read before.

    Raises
    ------
    InputError
    """
    try:
        yield
    except duckdb.InvalidInputException as error:
        if "Malformed JSON" not in str(error):
            raise
        raise _changed(file.path, "a line is no longer JSON") from error


def _watched(
    batches: Iterable[pa.RecordBatch], faults: list[InputError]
) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except InputError as error:
        faults.append(error)
        raise


def _longest(column: pa.Array) -> int:
    """Give the bytes of the longest text of a column; 0 where it has none.

    Examples
    --------
    >>> _longest(pa.array(["one", "three"])), _longest(pa.array([None], pa.string()))
    (5, 0)
    >>> _longest(pa.array([3]))
    0
    """
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return 0
    return int(pc.max(pc.binary_length(column)).as_py() or 0)


def _limit_of(database: duckdb.DuckDBPyConnection) -> int:
    """Give the bytes that DuckDB may hold in memory."""
    ((shown,),) = database.sql("SELECT current_setting('memory_limit')").fetchall()
    return _bytes_of(shown)


def _bytes_of(shown: str) -> int:
    """Read a size as DuckDB shows it.

    Examples
    --------
    >>> _bytes_of("2.5 KiB"), _bytes_of("10 bytes")
    (2560, 10)
    >>> _bytes_of("88.8 PiB") > 2**56
    True
    """
    number, unit = shown.split(" ")
    return int(float(number) * 1024 ** "bKMGTPE".index(unit[0]))


def _moment(text: str) -> pd.Timestamp:
    moment: pd.Timestamp = parse(pd.Series([text], dtype="str"), Kind.DATE).iloc[0]
    return moment


def _aliased(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{sql} AS {quoted(name)}" for name, sql in columns.items())
