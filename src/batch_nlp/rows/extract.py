"""Read a data set into DuckDB, join it, remove duplicates, and hand it on batch by batch.

DuckDB works out of core: its memory limit, threads and spill folder come from the
configuration, and no frame of the whole data set is ever built.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import duckdb
import pandas as pd
import pyarrow as pa

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
from batch_nlp.tables import from_pandas, quoted

SHOWN_CHARACTERS = 200
"""How much of an unreadable line a rejected row shows."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How the row stages run on this machine.

    Parameters
    ----------
    threads : int or None, default=None
        Threads of DuckDB; None takes every core.
    memory_limit : str, default="1GB"
        What DuckDB may hold in memory; beyond it, it spills.
    spill : str or None, default=None
        Folder for what does not fit; None takes one beside the intermediate data.
    batch_rows : int, default=20000
        Rows in a batch. Results do not depend on it; peak memory does.
    """

    threads: int | None = None
    memory_limit: str = "1GB"
    spill: str | None = None
    batch_rows: int = 20_000

    def __post_init__(self) -> None:
        if self.batch_rows < 1:
            message = f"engine.batch_rows must be at least 1, got {self.batch_rows}."
            raise InputError(message)

    def connect(
        self, database: Path | None = None, *, spill: Path | None = None
    ) -> duckdb.DuckDBPyConnection:
        """Start DuckDB within these limits.

        Parameters
        ----------
        database : Path, optional
            Its file; None keeps the tables in memory.
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
        if spill is not None:
            settings["temp_directory"] = str(spill)
        if self.threads is not None:
            settings["threads"] = self.threads
        try:
            return duckdb.connect(str(database or ":memory:"), config=settings)
        except duckdb.Error as error:
            message = f"engine: DuckDB does not start with {settings}: {error}"
            raise InputError(message) from error


@dataclass(frozen=True)
class Table:
    """One file of a table: its batches, and how SQL reads the program's columns from them.

    Attributes
    ----------
    batches : callable
        Gives record batches that begin with the columns of `PROVENANCE`.
    schema : Schema
        What the batches hold.
    columns : mapping of str to str
        For each column that the file provides, the SQL expression that reads it.
    relation : str, default="incoming"
        What SQL selects from; ``incoming`` stands for the batches.
    problem : str, default="problem"
        SQL expression for what is wrong with a row as a whole; null where nothing is.
    shown : str, default="NULL"
        SQL expression for what a row with a problem shows of itself.
    """

    batches: Callable[[], Iterable[pa.RecordBatch]]
    schema: pa.Schema
    columns: Mapping[str, str]
    relation: str = "incoming"
    problem: str = "problem"
    shown: str = "NULL"


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

    def __post_init__(self) -> None:
        if self.max_reviews is not None and self.max_reviews < 1:
            message = f"dataset.max_reviews must be at least 1, got {self.max_reviews}."
            raise InputError(message)
        for key, bound in (("since", self.since), ("until", self.until)):
            if bound is not None and pd.isna(_moment(bound)):
                message = f"dataset.{key} must be an ISO 8601 date, got {bound!r}."
                raise InputError(message)


class Extraction:
    """The joined rows of a source, held in DuckDB.

    Use it as a context manager: entering reads the files, leaving removes the database.

    Parameters
    ----------
    source : Source
        What to read.
    engine : Engine
        How.
    spill : Path
        Folder for the database and whatever does not fit in memory.
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

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            folder = (Path(self.engine.spill) if self.engine.spill else self.spill) / uuid4().hex
            folder.mkdir(parents=True)
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            self._db = undo.enter_context(
                self.engine.connect(folder / "rows.duckdb", spill=folder / "spill")
            )
            self._create("rejected", REJECTED)
            for table in REFERENCE_FIELDS:
                self._load_reference(table)
            self._load_messages()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._undo.close()

    def rejected(self) -> Iterator[pa.RecordBatch]:
        """Give the rows set aside so far, unreadable ones and duplicates, as `REJECTED`."""
        yield from self._batches('SELECT * FROM rejected ORDER BY source, "row"')

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Give the joined rows as text, in input order.

        Yields
        ------
        pyarrow.RecordBatch
            ``source`` (str), ``row`` (int64) and the columns of the contract (str).
        """
        columns = {name: f"m.{quoted(name)}" for name in self.source.fields}
        joins = []
        for table, key in REFERENCE_KEYS.items():
            joins.append(f"LEFT JOIN {table} ON {table}.{key} = m.{key}")
            for column in REFERENCE_FIELDS[table]:
                if column != key:
                    name = joined_name(table, column)
                    columns[name] = f"coalesce(m.{quoted(name)}, {table}.{quoted(column)})"
        yield from self._batches(
            f"""
            SELECT m.source, m."row", {_aliased(columns)}
            FROM message m {" ".join(joins)} ANTI JOIN message_again USING (seq)
            WHERE m.problem IS NULL ORDER BY m.seq
            """
        )

    def _batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        # Its own cursor, so that the loop may write to the database while it reads.
        with self._db.cursor() as cursor:
            yield from cursor.sql(sql).to_arrow_reader(self.engine.batch_rows)

    def _create(self, name: str, schema: pa.Schema) -> None:
        self._append(name, schema.empty_table(), verb=f"CREATE TABLE {name} AS")

    def _append(self, name: str, table: pa.Table, *, verb: str | None = None) -> None:
        self._db.register("incoming", table)
        self._run(f"{verb or f'INSERT INTO {name}'} FROM incoming")
        self._db.unregister("incoming")

    def _ingest(self, name: str, tables: Sequence[Table], columns: Sequence[str]) -> None:
        """Read files into the table `name`: ``seq`` in input order, provenance, text columns."""
        shape = [("seq", pa.int64()), ("source", pa.string()), ("row", pa.int64())]
        self._create(
            name,
            pa.schema(
                [*shape, *((column, pa.string()) for column in ("problem", "shown", *columns))]
            ),
        )
        faults: list[InputError] = []
        for position, table in enumerate(tables):
            batches = _watched(table.batches(), faults)
            reader = pa.RecordBatchReader.from_batches(table.schema, batches)
            self._db.register("incoming", reader)
            texts = {
                column: f"CAST({table.columns.get(column, 'NULL')} AS VARCHAR)"
                for column in columns
            }
            try:
                self._run(
                    f"""
                    INSERT INTO {name} SELECT ({position}::BIGINT << 40) + "row", source, "row",
                    {table.problem}, left({table.shown}, {SHOWN_CHARACTERS}), {_aliased(texts)}
                    FROM {table.relation}
                    """
                )
            except duckdb.Error as error:
                # DuckDB wraps what a reader raises in an error of its own.
                if faults:
                    raise faults[0] from error
                raise
            self._db.unregister("incoming")

    def _set_problems_aside(self, name: str) -> int:
        self._run(
            f"""
            INSERT INTO rejected SELECT source, "row", NULL, 'line', problem, shown
            FROM {name} WHERE problem IS NOT NULL
            """
        )
        return self._count(f"{name} WHERE problem IS NOT NULL")

    def _set_repeats_aside(self, name: str, key: str) -> int:
        """Name in ``<name>_again`` the rows whose key an earlier row has, and reject them."""
        self._run(
            f"""
            CREATE TABLE {name}_again AS SELECT seq FROM (
                SELECT seq, row_number() OVER (PARTITION BY {key} ORDER BY seq) AS nth
                FROM {name} WHERE problem IS NULL AND {key} IS NOT NULL
            ) WHERE nth > 1
            """
        )
        self._run(
            f"""
            INSERT INTO rejected SELECT source, "row", {key}, $1, 'not a duplicate', {key}
            FROM {name} SEMI JOIN {name}_again USING (seq)
            """,
            [self.source.names.get(key, key)],
        )
        return self._count(f"{name}_again")

    def _count(self, relation: str) -> int:
        return int(self._run(f"SELECT count(*) FROM {relation}")[0][0])

    def _run(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        # Fetched whole: DuckDB takes no other statement while a result is open.
        return list(self._db.execute(sql, list(values)).fetchall())

    def _load_reference(self, table: str) -> None:
        fields, key = REFERENCE_FIELDS[table], REFERENCE_KEYS[table]
        raw = f"{table}_raw"
        self._create(table, text_schema(list(fields)))
        files = self.source.references.get(table, ())
        if not files:
            return
        self._ingest(raw, files, list(fields))
        counts = Counts(
            read=self._count(raw),
            rejected=self._set_problems_aside(raw),
            duplicates=self._set_repeats_aside(raw, key),
        )
        rows = f"FROM {raw} ANTI JOIN {raw}_again USING (seq) WHERE problem IS NULL ORDER BY seq"
        for batch in self._batches(f"SELECT * {rows}"):
            frame = batch.to_pandas()
            verdict = validate(frame, fields)
            self._append("rejected", rejections(frame, verdict.failures, key))
            accepted = frame.loc[verdict.accepted.index]
            self._append(table, from_pandas(accepted[list(fields)], text_schema(list(fields))))
            counts.delivered += len(accepted)
            counts.rejected += len(frame) - len(accepted)
        self._run(f"DROP TABLE {raw}")
        self.counts[table] = counts

    def _load_messages(self) -> None:
        columns = [name for name in self.source.fields if self.targets or name not in TARGETS]
        self._ingest("message", self.source.messages, columns)
        if not self.targets:
            for name in TARGETS:
                self._run(f"ALTER TABLE message ADD COLUMN {name} VARCHAR")
        self.skipped = self._skip()
        problems = self._set_problems_aside("message")
        read = self._count("message")
        repeats = self._set_repeats_aside("message", "id")
        self.counts["extract"] = Counts(read=read, delivered=read - problems, rejected=problems)
        self.counts["deduplicate"] = Counts(
            read=read - problems, delivered=read - problems - repeats, duplicates=repeats
        )

    def _skip(self) -> int:
        """Delete the messages that are not asked for, and say how many they were."""
        read = self._count("message")
        if self.source.since is not None or self.source.until is not None:
            shape = pa.schema({"seq": pa.int64()})
            self._create("outside", shape)
            for batch in self._batches("SELECT seq, date FROM message WHERE problem IS NULL"):
                frame = batch.to_pandas()
                # Dated as the contract does it; what is no date stays, to be rejected with its
                # reason.
                dates = parse(frame["date"], Kind.DATE)
                outside = frame["date"].isna()
                if self.source.since is not None:
                    outside |= dates < _moment(self.source.since)
                if self.source.until is not None:
                    outside |= dates >= _moment(self.source.until)
                self._append("outside", from_pandas(frame.loc[outside, ["seq"]], shape))
            self._run("DELETE FROM message WHERE seq IN (SELECT seq FROM outside)")
        if self.source.max_reviews is not None:
            self._run(
                """
                DELETE FROM message WHERE seq NOT IN (
                    SELECT seq FROM message ORDER BY seq LIMIT $1)
                """,
                [self.source.max_reviews],
            )
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


def _watched(
    batches: Iterable[pa.RecordBatch], faults: list[InputError]
) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except InputError as error:
        faults.append(error)
        raise


def _moment(text: str) -> pd.Timestamp:
    moment: pd.Timestamp = parse(pd.Series([text], dtype="str"), Kind.DATE).iloc[0]
    return moment


def _aliased(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{sql} AS {quoted(name)}" for name, sql in columns.items())
