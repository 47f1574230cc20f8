"""Data sets that people choose from: what their files are and how their columns are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from batch_nlp.errors import InputError
from batch_nlp.rows.extract import Source, Table
from batch_nlp.sample import Sample
from batch_nlp.schemas import (
    JOINED_FIELDS,
    LEAKING,
    MESSAGE_FIELDS,
    NO_CATEGORY,
    REFERENCE_FIELDS,
    REFERENCE_KEYS,
    TARGETS,
    Field,
    Kind,
    text_schema,
)
from batch_nlp.tables import (
    PROVENANCE,
    csv_columns,
    expand,
    file_format,
    file_suffix,
    is_gzipped,
    json_columns,
    parquet_columns,
    read_csv,
    read_lines,
    read_parquet,
)

Files = str | list[str]

RESERVED = (*PROVENANCE, "seq", "shown", "key", "text_key", "vector", "failures")
"""Columns that the program puts beside a message's own."""

_JSON_SPACE = r"\t\r\n "
"""What JSON takes for white space, as SQL and regular expressions escape it."""

MESSAGE_FILES = ("review", "path")
"""Options of the data sets that name the files of messages."""

YELP_NAMES = {"id": "review_id"}
"""What Yelp's review files call a column that has another name here."""


class Dataset(Protocol):
    """What a data set can do."""

    def source(
        self, files: Files | None = None, fields: Mapping[str, Field] | None = None
    ) -> Source:
        """Say where messages come from.

        Parameters
        ----------
        files : str, list of str or None
            Message files to read in place of the data set's own.
        fields : mapping of str to Field, optional
            Contract to keep to, that of a trained model; None takes the data set's own.
        """
        ...

    def labels(self, files: Files | None) -> Source:
        """Say where labels of messages come from: their ids, and stars or classes.

        Parameters
        ----------
        files : str, list of str or None
            Files with an id column and at least one of the others.

        Raises
        ------
        InputError
            If no file is named, or one lacks a column.
        """
        ...


LABEL_FIELDS = {
    "id": replace(MESSAGE_FIELDS["id"], required=True),
    **{name: MESSAGE_FIELDS[name] for name in TARGETS},
}
"""Contract on labels that come without their messages."""


@dataclass(frozen=True)
class Wanted:
    """A column asked of a file.

    Parameters
    ----------
    column : str
        What the file calls it.
    missing : str or None
        What to say when the file lacks it; None when it may be lacking.
    """

    column: str
    missing: str | None = None


@dataclass(frozen=True)
class _Reader:
    """How one file is read, and the columns it has."""

    columns: list[str]
    schema: pa.Schema
    batches: Callable[[], Iterable[pa.RecordBatch]]
    behind: Callable[[int, int], Iterable[pa.RecordBatch]] | None = None


def _reader(path: str, file_type: str, delimiter: str) -> _Reader:
    provenance = [("source", pa.string()), ("row", pa.int64()), ("problem", pa.string())]
    if file_type == "json":
        schema = pa.schema([*provenance, ("line", pa.string())])
        read_on = None if is_gzipped(path) else partial(read_lines, path)
        return _Reader(json_columns(path), schema, partial(read_lines, path), read_on)
    if file_type == "csv":
        own = text_schema(csv_columns(path, delimiter=delimiter))
        read = partial(read_csv, path, delimiter=delimiter)
    else:
        own = parquet_columns(path)
        read = partial(read_parquet, path)
        doubled = sorted({name for name in own.names if own.names.count(name) > 1})
        if doubled:
            message = f"{path} has several columns named {doubled}: rename them."
            raise InputError(message)
    # By position: SQL takes names that differ in case alone for one, and some for its own.
    placed = [(_placed(i), own.field(i).type) for i in range(len(own))]
    schema = pa.schema([*provenance, *placed])
    return _Reader(own.names, schema, partial(_renamed, read, schema.names))


def _placed(position: int) -> str:
    return f"column_{position}"


def _renamed(
    read: Callable[[], Iterable[pa.RecordBatch]], names: list[str]
) -> Iterator[pa.RecordBatch]:
    for batch in read():
        yield batch.rename_columns(names)


def open_table(
    path: str,
    wanted: Mapping[str, Wanted],
    *,
    declared: str | None = None,
    delimiter: str | None = None,
    derive_id: bool = False,
) -> Table:
    """Say how SQL reads the wanted columns of one file.

    Parameters
    ----------
    path : str
        A JSON-lines, CSV or Parquet file.
    wanted : mapping of str to Wanted
        Columns by their names in the program.
    declared : {"json", "csv", "parquet"}, optional
        Format, where the file's name does not say it.
    delimiter : str, optional
        Of CSV; None is a comma, and a tab where the file's name ends in ``.tsv``.
    derive_id : bool, default=False
        Whether a file without ids gets them: the MD5 of each row's whole content.

    Raises
    ------
    InputError
        If the file lacks a column that it must have.
    """
    file_type = file_format(path, declared=declared)
    by_name = "\t" if file_suffix(path) == ".tsv" else ","
    reader = _reader(path, file_type, delimiter or by_name)
    found = {name: want.column for name, want in wanted.items() if want.column in reader.columns}
    for name, want in wanted.items():
        if name not in found and want.missing is not None and reader.columns:
            message = (
                f"{want.missing}: {path} has no column {want.column!r}; it has {reader.columns}."
            )
            raise InputError(message)
    derived = derive_id and "id" not in found
    if file_type != "json":
        place = {column: _placed(i) for i, column in enumerate(reader.columns)}
        columns = {name: place[column] for name, column in found.items()}
        if derived:
            columns["id"] = f"md5(to_json(row({', '.join(place.values())}))::VARCHAR)"
        return Table(path, reader.batches, reader.schema, columns)
    # Any line may bring a key that the first lines lack.
    keys = {name: want.column for name, want in wanted.items() if name != "id" or not derived}
    pointers = ", ".join(_json_pointer(key) for key in keys.values())
    columns = {name: f"parsed[{i}]" for i, name in enumerate(keys, start=1)}
    if derived:
        columns["id"] = f"md5(trim(line, E'{_JSON_SPACE}'))"
    parsed = f"json_extract_string(line, [{pointers}]::VARCHAR[])"
    return Table(
        path,
        reader.batches,
        reader.schema,
        columns,
        # Read once: TRY gives null for what is no JSON, and only an object begins with a brace.
        relation=rf"""(
            SELECT source, "row", line, parsed, coalesce(problem, CASE
                WHEN parsed IS NULL OR {_no_number(len(keys))} THEN 'valid JSON'
                WHEN NOT (starts_with(line, '{{') OR regexp_matches(line, '^[{_JSON_SPACE}]*\{{'))
                THEN 'a JSON object'
                END) AS problem
            FROM (SELECT *, TRY({parsed}) AS parsed FROM incoming))""",
        sound=f"(SELECT *, {parsed} AS parsed FROM incoming)",
        shown="rtrim(line, E'\\n')",
        behind=reader.behind,
    )


def _no_number(n_parsed: int) -> str:
    """Find by SQL lines with a NaN or infinity, which JSON lacks and DuckDB takes, in what is read.

    Quoted they are texts, so that a value alone does not tell.
    """
    found = " OR ".join(
        # By length first: most values need no search.
        f"(strlen(parsed[{i}]) BETWEEN {len('nan')} AND {len('-infinity')} "
        f"AND regexp_full_match(parsed[{i}], '(?i)-?(nan|inf|infinity)'))"
        for i in range(1, n_parsed + 1)
    )
    unquoted = r"""regexp_replace(line, '"(\\.|[^"\\])*"', '', 'g')"""
    return f"(({found}) AND regexp_matches({unquoted}, '(?i)nan|inf'))"


def _json_pointer(key: str) -> str:
    """Address a key by an RFC 6901 pointer, as an SQL literal."""
    escaped = key.replace("~", "~0").replace("/", "~1").replace("'", "''")
    return f"'/{escaped}'"


def _source(
    files: Sequence[str],
    references: Mapping[str, Sequence[str]],
    wanted: Mapping[str, Wanted],
    fields: Mapping[str, Field],
    *,
    declared: str | None = None,
    delimiter: str | None = None,
    derive_id: bool = False,
    limits: tuple[int | None, str | None, str | None] = (None, None, None),
) -> Source:
    messages = [
        open_table(path, wanted, declared=declared, delimiter=delimiter, derive_id=derive_id)
        for path in files
    ]
    max_reviews, since, until = limits
    return Source(
        messages=messages,
        references={
            table: [open_table(path, _reference_columns(table)) for path in paths]
            for table, paths in references.items()
        },
        fields=fields,
        names={name: want.column for name, want in wanted.items()},
        files=[*files, *(path for paths in references.values() for path in paths)],
        id_derived=derive_id and any("md5(" in table.columns["id"] for table in messages),
        max_reviews=max_reviews,
        since=since,
        until=until,
    )


def _labels(
    files: Files | None,
    names: Mapping[str, str],
    *,
    declared: str | None = None,
    delimiter: str | None = None,
) -> Source:
    if not files:
        message = "score.labels must name the file or files of labels; it is not set."
        raise InputError(message)
    wanted = {
        name: Wanted(column, "score.labels" if name == "id" else None)
        for name, column in names.items()
    }
    source = _source(
        expand(files, key="score.labels"),
        {},
        wanted,
        LABEL_FIELDS,
        declared=declared,
        delimiter=delimiter,
    )
    for table in source.messages:
        if not set(TARGETS).intersection(table.columns):
            sought = " nor ".join(repr(names[name]) for name in TARGETS if name in names)
            message = f"score.labels: {table.path} has no column of labels, neither {sought}."
            raise InputError(message)
    return source


def _reference_columns(table: str) -> dict[str, Wanted]:
    key = REFERENCE_KEYS[table]
    return {
        name: Wanted(name, f"dataset.{table}" if name == key else None)
        for name in REFERENCE_FIELDS[table]
    }


@dataclass(frozen=True, kw_only=True)
class YelpDataset:
    """Reviews in the Yelp Open Dataset's format, joined to their users and businesses.

    Parameters
    ----------
    review : str or list of str, optional
        Path or glob of JSON lines (also ``.gz``; CSV and Parquet with the same columns too).
    user, business : str or list of str, optional
        The reference tables; without one, its columns are missing values.
    max_reviews : int, optional
        Read at most so many reviews, the first in input order.
    since, until : str, optional
        Dates: reviews from `since` on, and before `until`.
    """

    review: Files | None = None
    user: Files | None = None
    business: Files | None = None
    max_reviews: int | None = None
    since: str | None = None
    until: str | None = None

    def source(
        self, files: Files | None = None, fields: Mapping[str, Field] | None = None
    ) -> Source:
        """Say where messages come from (see `Dataset.source`)."""
        key = "inference.source" if files is not None else "dataset.review"
        chosen = files if files is not None else self.review
        if not chosen:
            message = f"{key} must name the review file or files; it is not set."
            raise InputError(message)
        references = {
            table: expand(pattern, key=f"dataset.{table}")
            for table, pattern in (("user", self.user), ("business", self.business))
            if pattern
        }
        must = {"id", "text"}
        wanted = {
            name: Wanted(YELP_NAMES.get(name, name), key if name in must else None)
            for name in MESSAGE_FIELDS
            if name != "label"
        }
        wanted |= _named(fields or {})
        limits = (self.max_reviews, self.since, self.until) if files is None else (None,) * 3
        return _source(
            expand(chosen, key=key),
            references,
            wanted,
            fields or JOINED_FIELDS,
            limits=limits,
        )

    def labels(self, files: Files | None) -> Source:
        """Say where labels come from (see `Dataset.labels`)."""
        return _labels(files, {"id": YELP_NAMES["id"], "stars": "stars"})


@dataclass(frozen=True, kw_only=True)
class SampleDataset:
    """The synthetic data set that the program writes for itself, in Yelp's format.

    Parameters
    ----------
    sample : Sample
        How many reviews, from which seed.
    folder : str
        Where its files go.
    max_reviews, since, until : optional
        As in `YelpDataset`.
    """

    sample: Sample
    folder: str
    max_reviews: int | None = None
    since: str | None = None
    until: str | None = None

    def source(
        self, files: Files | None = None, fields: Mapping[str, Field] | None = None
    ) -> Source:
        """Write the sample where it is not there yet, and say where messages come from."""
        written = self.sample.write(Path(self.folder))
        return YelpDataset(
            review=str(written.review),
            user=str(written.user),
            business=str(written.business),
            max_reviews=self.max_reviews,
            since=self.since,
            until=self.until,
        ).source(files, fields)

    def labels(self, files: Files | None) -> Source:
        """Say where labels come from (see `Dataset.labels`)."""
        return YelpDataset().labels(files)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """How a messages file calls its columns; None takes the column of the same name, if any.

    Parameters
    ----------
    id, text, date, rating, label : str, optional
        The file's own names. Only a text is required.
    """

    id: str | None = None
    text: str | None = None
    date: str | None = None
    rating: str | None = None
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class MessagesDataset:
    """Messages in any CSV, JSON-lines or Parquet file.

    Parameters
    ----------
    path : str or list of str, optional
        Path or glob.
    columns : Columns
        What the file calls its id, text, date, rating and label.
    numeric, categorical : list of str
        Further columns to take as features.
    format : {"csv", "json", "parquet"}, optional
        Where the files' names do not say it.
    delimiter : str, optional
        Of CSV; None is a comma, and a tab where the file's name ends in ``.tsv``.
    max_reviews, since, until : optional
        As in `YelpDataset`.
    """

    path: Files | None = None
    columns: Columns = field(default_factory=Columns)
    numeric: list[str] = field(default_factory=list)
    categorical: list[str] = field(default_factory=list)
    format: str | None = None
    delimiter: str | None = None
    max_reviews: int | None = None
    since: str | None = None
    until: str | None = None

    def __post_init__(self) -> None:
        if self.format not in (None, "csv", "json", "parquet"):
            message = f"dataset.format must be csv, json or parquet, got {self.format!r}."
            raise InputError(message)
        if self.delimiter is not None and len(self.delimiter) != 1:
            message = f"dataset.delimiter must be one character, got {self.delimiter!r}."
            raise InputError(message)
        own = {"id", "text", "date", *TARGETS, *LEAKING, *NO_CATEGORY, *self._names().values()}
        both = sorted(set(self.numeric).intersection(self.categorical))
        if both:
            message = f"dataset.numeric and dataset.categorical both name {both}: choose one."
            raise InputError(message)
        for key, names in (("numeric", self.numeric), ("categorical", self.categorical)):
            taken = sorted(own.intersection(names))
            if taken:
                message = f"dataset.{key} cannot take {taken}: these columns have a meaning here."
                raise InputError(message)
            taken = [name for name in names if name.lower() in RESERVED or _differs_in_case(name)]
            if taken:
                message = f"dataset.{key}: rename the columns {taken}, whose names are taken here."
                raise InputError(message)

    def source(
        self, files: Files | None = None, fields: Mapping[str, Field] | None = None
    ) -> Source:
        """Say where messages come from (see `Dataset.source`)."""
        key = "inference.source" if files is not None else "dataset.path"
        chosen = files if files is not None else self.path
        if not chosen:
            message = f"{key} must name the messages file or files; it is not set."
            raise InputError(message)
        contract = fields or {
            **JOINED_FIELDS,
            **{name: Field(Kind.NUMBER, named=True) for name in self.numeric},
            **{name: Field(Kind.TEXT, named=True) for name in self.categorical},
        }
        limits = (self.max_reviews, self.since, self.until) if files is None else (None,) * 3
        return _source(
            expand(chosen, key=key),
            {},
            self._wanted(contract, for_inference=files is not None),
            contract,
            declared=self.format,
            delimiter=self.delimiter,
            derive_id=self.columns.id is None,
            limits=limits,
        )

    def labels(self, files: Files | None) -> Source:
        """Say where labels come from (see `Dataset.labels`)."""
        names = {name: column for name, column in self._names().items() if name in LABEL_FIELDS}
        return _labels(files, names, declared=self.format, delimiter=self.delimiter)

    def _names(self) -> dict[str, str]:
        """Say what the file calls the program's own columns."""
        options = {"stars": "rating"}
        return {
            name: getattr(self.columns, options.get(name, name)) or options.get(name, name)
            for name in ("id", "text", "date", *TARGETS)
        }

    def _wanted(self, fields: Mapping[str, Field], *, for_inference: bool) -> dict[str, Wanted]:
        wanted = {}
        for name, column in self._names().items():
            option = "rating" if name == "stars" else name
            must = getattr(self.columns, option) is not None
            must = must and not (for_inference and name in TARGETS)
            must = must or name == "text"
            wanted[name] = Wanted(column, f"dataset.columns.{option}" if must else None)
        return wanted | _named(fields)


def _named(fields: Mapping[str, Field]) -> dict[str, Wanted]:
    """Ask for the columns that the configuration named as features."""
    missing = "dataset.numeric or dataset.categorical"
    return {name: Wanted(name, missing) for name, field in fields.items() if field.named}


def _differs_in_case(name: str) -> bool:
    return name not in JOINED_FIELDS and name.lower() in JOINED_FIELDS


@dataclass(frozen=True, kw_only=True)
class HeldOutDataset:
    """Joined rows in Parquet, under the program's own names: what training held out.

    Parameters
    ----------
    path : str
        Path or glob.
    """

    path: str

    def source(
        self, files: Files | None = None, fields: Mapping[str, Field] | None = None
    ) -> Source:
        """Say where messages come from (see `Dataset.source`)."""
        contract = fields or JOINED_FIELDS
        wanted = {
            name: Wanted(name, "inference.source" if name in {"id", "text"} else None)
            for name in contract
        }
        return _source(expand(files or self.path, key="inference.source"), {}, wanted, contract)
