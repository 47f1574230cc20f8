"""The feature store: what was computed for a message is kept by its content and used again.

::

    04_feature/
      manifest.json                 what the last feature run delivered
      snapshots/<run id>.parquet    its messages in order: id, content key, stars and label
      rows/<fingerprint>/*.parquet     features, by content key
      vectors/<fingerprint>/*.parquet  embeddings, by text key
      .../<fingerprint>/*.index        where the keys of many rows are

Labels live in the snapshot and nowhere else, so that no feature can hold one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_nlp import __version__
from batch_nlp.errors import InputError
from batch_nlp.kernel import Kernel, fields_to_json, vector_type
from batch_nlp.keys import KeyIndex, text_keys
from batch_nlp.logs import Clock
from batch_nlp.rows.extract import Engine
from batch_nlp.schemas import typed_schema
from batch_nlp.tables import ParquetSink, from_pandas, quoted, write_json

Item = TypeVar("Item")

SNAPSHOT = pa.schema(
    {
        "id": pa.string(),
        "key": pa.string(),
        "stars": pa.float64(),
        "label": pa.float64(),
    }
)

_FOLDER_CHARACTERS = 16

_GROUP_ROWS = 1_000
"""Rows that are read at least where one of them is asked for."""

_ROOM_EVERY = 50
"""Batches after which an inference makes room; by what they add the store may exceed its limit."""

_DATED_FOR = 60.0
"""Seconds after which a file that is still used is dated again."""

_HASHING_LIMIT = "80%"
"""Of the machine's memory, as DuckDB has it by default."""


@dataclass
class Usage:
    """What a run took from the store and what it added.

    Attributes
    ----------
    computed, reused : int
        Rows whose features were made, or were there.
    embedded : int
        Distinct texts that were embedded.
    truncated : int
        Of them, how many were longer than the embedder reads.
    """

    computed: int = 0
    reused: int = 0
    embedded: int = 0
    truncated: int = 0

    def add(self, other: Usage) -> None:
        """Add what another process took and added."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(frozen=True)
class Manifest:
    """What a feature run delivered.

    Attributes
    ----------
    run_id, created : str
        Which run, and when (UTC, ISO 8601).
    snapshot : str
        The snapshot's file, relative to the store.
    n_rows : int
        Messages in it.
    columns : mapping of str to str
        Feature columns and their Arrow types.
    n_dims : int
        Dimensions of the embedding.
    fields : mapping
        The contract of the rows.
    steps : mapping
        Configuration of the feature pipeline, enough to build it again.
    fingerprint, vector_fingerprint : str
        Of the feature pipeline and of the embedder.
    sources : mapping of str to str
        Files read and their SHA-256.
    dated : bool
        Whether every message has a date.
    version : str
        Of the program.
    """

    run_id: str
    created: str
    snapshot: str
    n_rows: int
    columns: Mapping[str, str]
    n_dims: int
    fields: Mapping[str, Mapping[str, Any]]
    steps: Mapping[str, Any]
    fingerprint: str
    vector_fingerprint: str
    sources: Mapping[str, str]
    dated: bool
    version: str = __version__


def read_manifest(folder: Path) -> Manifest:
    """Read what the last feature run delivered into the store at `folder`.

    Raises
    ------
    InputError
        If there is none, or it cannot be read.
    """
    path = folder / "manifest.json"
    try:
        return Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        message = f"There are no features in {folder}: run pipeline=feature first."
        raise InputError(message) from error
    except (ValueError, TypeError) as error:
        message = f"{path} is damaged ({error}): run pipeline=feature again."
        raise InputError(message) from error


@dataclass
class FeatureStore:
    """Features by message content, for one feature pipeline.

    Parameters
    ----------
    folder : Path
        The store.
    kernel : Kernel
        What computes features that are not there yet.
    clock : Clock
        Measures the steps.
    engine : Engine
        Limits for looking things up.

    Attributes
    ----------
    usage : Usage
        What was taken and added so far.
    """

    folder: Path
    kernel: Kernel
    clock: Clock
    engine: Engine = field(default_factory=Engine)
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        kernel = self.kernel
        # It hashes rows that are in memory already, however long one of them is.
        engine = replace(self.engine, memory_limit=_HASHING_LIMIT)
        self._db = engine.connect(spill=self.folder / ".spill")
        self._content = typed_schema({name: kernel.fields[name] for name in kernel.content})
        self._row_schema = pa.schema(
            [("key", pa.string()), ("text_key", pa.string()), *kernel.features]
        )
        self._vector_schema = pa.schema(
            [("text_key", pa.string()), ("vector", vector_type(kernel.n_dims))]
        )
        self._rows = _Parts(
            self.folder / "rows" / kernel.fingerprint[:_FOLDER_CHARACTERS],
            self._row_schema,
            distinct={"key", "text_key", "text", kernel.embedder.column},
        )
        self._vectors = _Parts(
            self.folder / "vectors" / kernel.vector_fingerprint[:_FOLDER_CHARACTERS],
            self._vector_schema,
            distinct={"text_key"},
        )

    def features(self, accepted: pd.DataFrame) -> pd.DataFrame:
        """Give the features of typed rows, computing only those that the store lacks.

        Parameters
        ----------
        accepted : DataFrame
            Rows that meet the kernel's contract.

        Returns
        -------
        DataFrame of the same index
            ``key`` (of the content), the columns of ``kernel.features`` and the embedding's.
        """
        content = accepted[self.kernel.content]
        # The content is at hand; what is read is what was made of it.
        names = [name for name in self._row_schema.names if name not in content]
        keys, known, made = self._rows_of(accepted, names)
        made = made[names]
        rows = pd.concat([known, made]) if len(known) and len(made) else max(known, made, key=len)
        rows = _arranged(rows, _places(keys, rows["key"])).set_axis(content.index)
        whole = pd.concat([rows, content], axis="columns")[self._row_schema.names]
        return self._with_vectors(whole)

    def keep(self, accepted: pd.DataFrame) -> pd.Series:
        """Compute and keep the features that the store lacks, and read none that it has.

        Parameters
        ----------
        accepted : DataFrame
            Rows that meet the kernel's contract.

        Returns
        -------
        Series of str of the same index
            The key of each row's content, under which the store has its features.
        """
        keys, known, made = self._rows_of(accepted, ["key", "text_key"])
        if self.kernel.n_dims:
            self._keep_vectors(made, known)
        return keys

    def _rows_of(
        self, accepted: pd.DataFrame, columns: Sequence[str]
    ) -> tuple[pd.Series, pd.DataFrame, pd.DataFrame]:
        """Give the keys of rows, those that the store has, and those computed now, each once."""
        content = accepted[self.kernel.content]
        keys = self._digests(content)
        with self.clock.step("store"):
            known: pd.DataFrame = self._rows.take(keys, columns=columns).to_pandas()
        new = _places(keys, known["key"]) < 0
        fresh = content[new].assign(key=keys[new])
        self.usage.reused += len(content) - len(fresh)
        self.usage.computed += len(fresh)
        return keys, known, self._derive(fresh.drop_duplicates("key"))

    def read(
        self,
        manifest: Manifest,
        *,
        batch_rows: int,
        newest: int,
        classes: Callable[[pd.DataFrame], pd.Series] | None = None,
        seed: int = 0,
    ) -> Iterator[pd.DataFrame]:
        """Give the messages of a snapshot with their features, in order.

        Parameters
        ----------
        manifest : Manifest
            Which snapshot.
        batch_rows : int
            Rows of a frame.
        newest : int
            At most so many: the newest by date, or the last where some have no date.
        classes : callable, optional
            Gives the class of each row of a frame with ``stars`` and ``label``. With it they are
            not the newest but a random sample in which each class keeps its share.
        seed : int, default=0
            Of the sample.

        Yields
        ------
        DataFrame
            ``id``, ``stars``, ``label``, ``key``, features and embedding.

        Raises
        ------
        InputError
            If features of the snapshot are gone from the store.
        """
        path = self.folder / manifest.snapshot
        chosen = np.zeros(pq.read_metadata(path).num_rows, dtype=np.bool_)
        if len(chosen) > newest and classes is not None:
            parts = [classes(part) for part in _frames(path, batch_rows, ["stars", "label"])]
            chosen[_stratified(pd.concat(parts, ignore_index=True), newest, seed)] = True
        elif len(chosen) > newest and manifest.dated:
            dates = [self._dates(part["key"]) for part in _frames(path, batch_rows, ["key"])]
            chosen[np.argsort(np.concatenate(dates), kind="stable")[-newest:]] = True
        else:
            chosen[-newest:] = True
        snapshot = pd.concat(part[chosen[part.index]] for part in _frames(path, batch_rows))
        for chunk in _chunks(snapshot, batch_rows):
            rows = self._rows.take(chunk["key"]).to_pandas()
            places = _places(chunk["key"], rows["key"])
            if (gone := places < 0).any():
                message = (
                    f"{self.folder} lacks the features of {gone.sum()} messages of its snapshot: "
                    "run pipeline=feature again."
                )
                raise InputError(message)
            features = self._with_vectors(_arranged(rows, places).set_axis(chunk.index))
            yield chunk[["id", "stars", "label"]].join(features)

    def _dates(self, keys: pd.Series) -> npt.NDArray[np.int64]:
        """Give when each message is from, as a number; the lowest where its features are gone."""
        rows = self._rows.take(keys, columns=["key", "date"])
        places = _places(keys, rows["key"])
        dates = np.append(rows["date"].to_numpy(), np.datetime64("NaT"))
        return dates[places].astype("datetime64[us]").view(np.int64)

    def _digests(self, content: pd.DataFrame) -> pd.Series:
        """Give the MD5 of each row, as the row's JSON."""
        row = ", ".join(quoted(name) for name in self._content.names)
        with self.clock.step("store"):
            self._db.register("hashed", from_pandas(content, self._content))
            found = self._db.sql(f"SELECT md5(to_json(row({row}))::VARCHAR) AS digest FROM hashed")
            digests: pd.Series = found.to_arrow_table()["digest"].to_pandas()
        return digests.set_axis(content.index)

    def _derive(self, fresh: pd.DataFrame) -> pd.DataFrame:
        """Compute and keep the features of rows with distinct keys."""
        if fresh.empty:
            nothing: pd.DataFrame = self._row_schema.empty_table().to_pandas()
            return nothing
        derived = self.kernel.derive(fresh, self.clock)
        made = derived.assign(
            key=fresh["key"], text_key=self.text_keys(derived[self.kernel.embedder.column])
        )
        made = made[list(self._row_schema.names)]
        with self.clock.step("store"):
            self._rows.add(from_pandas(made, self._row_schema))
        return made

    def text_keys(self, texts: pd.Series) -> pd.Series:
        """Give the keys under which the store has the embeddings of texts.

        Parameters
        ----------
        texts : Series of str

        Returns
        -------
        Series of str of the same index
        """
        with self.clock.step("store"):
            return pd.Series(
                text_keys(pa.array(texts, pa.large_string())), texts.index, dtype="str"
            )

    def vectors(self, texts: pd.Series, keys: pd.Series) -> npt.NDArray[np.float32]:
        """Give the embedding of each text, computing only those that the store lacks.

        Parameters
        ----------
        texts : Series of str
        keys : Series of str of the same index
            As `text_keys` gives them.

        Returns
        -------
        ndarray of shape (n_texts, n_dims), float32
        """
        if not self.kernel.n_dims:
            return np.empty((len(texts), 0), np.float32)
        with self.clock.step("store"):
            found = self._vectors.take(keys)
            places = _places(keys, found["text_key"])
        if (new := places < 0).any():
            found = pa.concat_tables([found, self._embed(texts[new], keys[new])])
            places = _places(keys, found["text_key"])
        flat = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        matrix = np.asarray(flat, np.float32).reshape(-1, self.kernel.n_dims)
        arranged: npt.NDArray[np.float32] = _arranged(matrix, places)
        return arranged

    def _with_vectors(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Join the embedding of each row's text, making those that the store lacks."""
        embedder = self.kernel.embedder
        vectors = self.vectors(rows[embedder.column], rows["text_key"])
        return rows.drop(columns="text_key").join(embedder.vector_frame(vectors, rows.index))

    def _keep_vectors(self, made: pd.DataFrame, known: pd.DataFrame) -> None:
        """Embed the texts of rows just made, and of known ones whose embeddings have gone."""
        columns = ["key", "text_key", self.kernel.embedder.column]
        with self.clock.step("store"):
            keys = pd.concat([made["text_key"], known["text_key"]])
            there = self._vectors.take(keys, columns=["text_key"])["text_key"]
            lost = known[_places(known["text_key"], there) < 0]
            again = self._rows.take(lost["key"], columns=columns).to_pandas()
            new = made.loc[_places(made["text_key"], there) < 0, columns]
        rows = pd.concat([new, again]) if len(again) else new
        if len(rows):
            self._embed(rows[self.kernel.embedder.column], rows["text_key"])

    def _embed(self, texts: pd.Series, keys: pd.Series) -> pa.Table:
        """Embed and keep texts that the store lacks, each once."""
        fresh = pd.DataFrame({"key": keys, "text": texts}).drop_duplicates("key")
        with self.clock.step("embed"):
            vectors, truncated = self.kernel.embedder.encode_distinct(fresh["text"])
        self.usage.embedded += len(fresh)
        self.usage.truncated += int(truncated.sum())
        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
        made = pa.table(
            [
                pa.array(fresh["key"], pa.string()),
                pa.FixedSizeListArray.from_arrays(flat, self.kernel.n_dims),
            ],
            schema=self._vector_schema,
        )
        with self.clock.step("store"):
            self._vectors.add(made)
        return made


@dataclass
class StoreAccess:
    """A feature store that is opened where it is used, in whatever process.

    Parameters
    ----------
    folder : Path
        The store.
    kernel : Kernel
        What computes features that are not there yet.
    engine : Engine
        Limits for looking things up.
    """

    folder: Path
    kernel: Kernel
    engine: Engine

    def for_batch(self, clock: Clock) -> FeatureStore:
        """Give the store, its usage counted anew and its steps measured by `clock`."""
        store = self._opened
        store.clock, store.usage = clock, Usage()
        return store

    @cached_property
    def _opened(self) -> FeatureStore:
        return FeatureStore(self.folder, self.kernel, Clock(), self.engine)


class _Parts:
    """A folder of Parquet files with distinct keys, to which files are added whole.

    Only those row groups are read that have what is asked for (`KeyIndex`). Files that other runs
    and processes add are found as they come.
    """

    def __init__(self, folder: Path, schema: pa.Schema, *, distinct: Collection[str]) -> None:
        self.folder = folder
        self.schema = schema
        self.distinct = distinct
        self.key = schema.names[0]
        self._index = KeyIndex(folder, lambda file: self._read(file, [self.key])[self.key])
        self._used: dict[Path, float] = {}

    def add(self, table: pa.Table) -> None:
        """Keep rows; their keys must be distinct."""
        if table.num_rows:
            path = self.folder / f"{uuid4().hex}.parquet"
            with ParquetSink(
                path, self.schema, group_rows=_GROUP_ROWS, distinct=self.distinct
            ) as sink:
                sink.write(table)

    def take(self, keys: pd.Series, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Give the rows that hold one of `keys`, each key once."""
        names = list(columns or self.schema.names)
        self._index.refresh()
        wanted = pa.array(keys, pa.string()).unique()
        places = self._index.rows_of(wanted)
        files, starts = self._index.files, self._index.starts
        bounds = np.searchsorted(places, starts)
        found = [pa.schema([self.schema.field(name) for name in names]).empty_table()]
        for file in np.flatnonzero(np.diff(bounds)).tolist():
            self._use(files[file])
            own = places[bounds[file] : bounds[file + 1]] - starts[file]
            found.append(self._read(files[file], names, own))
        rows = pa.concat_tables(found)
        # Another key may have the same short digest.
        asked = pc.is_in(rows[self.key], value_set=wanted)
        rows = rows if pc.all(asked).as_py() else rows.filter(asked)
        if rows.num_rows > 1 and len(found) > 2:
            # Two runs at once may both have added a key; what they added is the same.
            again = pd.Series(rows[self.key].to_pandas()).duplicated().to_numpy()
            rows = rows.filter(pa.array(~again)) if again.any() else rows
        return rows

    def _use(self, file: Path) -> None:
        """Date a file that is used: the last use decides what goes once there is too much."""
        now = time.monotonic()
        if now - self._used.get(file, -inf) > _DATED_FOR:
            self._used[file] = now
            with suppress(FileNotFoundError):
                os.utime(file)

    def _read(
        self, file: Path, names: list[str], rows: npt.NDArray[np.int64] | None = None
    ) -> pa.Table:
        """Read columns of a file, all of its rows or those with some numbers, in order."""
        schema = pa.schema([self.schema.field(name) for name in names])
        try:
            with pq.ParquetFile(file, memory_map=True) as parquet:
                table = parquet.read(names) if rows is None else _rows_in(parquet, names, rows)
        except FileNotFoundError:
            return schema.empty_table()  # another run has made room
        return table.select(names).cast(schema)


def _rows_in(parquet: pq.ParquetFile, names: list[str], rows: npt.NDArray[np.int64]) -> pa.Table:
    """Read columns of the rows with some numbers, in order, and only the row groups they are in."""
    about = parquet.metadata
    sizes = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
    ends = np.cumsum(sizes)
    groups, group = np.unique(np.searchsorted(ends, rows, "right"), return_inverse=True)
    table = parquet.read_row_groups(groups.tolist(), names)
    # Rows of groups that were not read come before.
    before = ends[groups] - np.cumsum(np.take(sizes, groups))
    return table.take(rows - before[group]) if len(rows) < table.num_rows else table


def _places(sought: Any, among: Any) -> npt.NDArray[np.int64]:
    """Give where each of some strings is first among others, -1 where it is not."""
    sought, among = (
        each if isinstance(each, pa.ChunkedArray) else pa.array(each, pa.string())
        for each in (sought, among)
    )
    found = pc.index_in(sought, value_set=among)
    return np.asarray(pc.fill_null(found, -1).to_numpy(), np.int64)


def _arranged(rows: Any, places: npt.NDArray[np.int64]) -> Any:
    """Give the rows at some places, without a copy where those are all of them in order."""
    return rows if np.array_equal(places, np.arange(len(rows))) else rows.take(places, axis=0)


def make_room(
    folder: Path, limit: int, *, remove_snapshot: Callable[[Path], None] = Path.unlink
) -> int:
    """Remove what has not been used for longest while the store takes too much.

    The snapshot that the store delivers stays.

    Parameters
    ----------
    folder : Path
        The store.
    limit : int
        Most bytes that its rows, vectors, their indexes and snapshots of earlier runs may take.
    remove_snapshot : callable, optional
        Removes a snapshot, which a run record may name.

    Returns
    -------
    int
        How many bytes were removed.
    """
    parts = []
    kinds = [f"{part}/*/*.{kind}" for part in ("rows", "vectors") for kind in ("parquet", "index")]
    found = {path for kind in [*kinds, "snapshots/*.parquet"] for path in folder.glob(kind)}
    with suppress(InputError):
        found.discard(folder / read_manifest(folder).snapshot)
    for path in found:
        with suppress(FileNotFoundError):
            about = path.stat()
            parts.append((about.st_mtime, about.st_size, path))
    excess = sum(size for _, size, _ in parts) - limit
    removed = 0
    for _, size, path in sorted(parts):
        if removed >= excess:
            break
        with suppress(FileNotFoundError):
            (remove_snapshot if path.parent.name == "snapshots" else Path.unlink)(path)
        removed += size
    return removed


def making_room(
    items: Generator[Item], folder: Path, limit: int, *, remove_snapshot: Callable[[Path], None]
) -> Generator[Item]:
    """Pass on what is made of batches, and make room in the store now and then meanwhile."""
    with closing(items):
        for number, item in enumerate(items, start=1):
            yield item
            if not number % _ROOM_EVERY:
                make_room(folder, limit, remove_snapshot=remove_snapshot)


def parts_of(folder: Path, kernel: Kernel, *, used_since: float) -> dict[str, int]:
    """Give the files of a store that were used for a kernel, relative to it, and their bytes.

    Parameters
    ----------
    folder : Path
        The store.
    kernel : Kernel
        What makes the features.
    used_since : float
        Unix time, in seconds. Files date a little behind the clock, so that a second more counts.
    """
    found = [
        folder / kind / fingerprint[:_FOLDER_CHARACTERS]
        for kind, fingerprint in (
            ("rows", kernel.fingerprint),
            ("vectors", kernel.vector_fingerprint),
        )
        if fingerprint
    ]
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for each in found
        for path in sorted(each.glob("*.parquet"))
        if path.stat().st_mtime >= used_since - 1
    }


def _stratified(classes: pd.Series, n_rows: int, seed: int) -> pd.Index:
    """Choose rows at random so that each class, and what has none, keeps its share.

    Examples
    --------
    >>> chosen = _stratified(pd.Series([0.0, 0, 0, 0, 2, 2, None, None]), 4, seed=0)
    >>> sorted(pd.Series([0.0, 0, 0, 0, 2, 2, -1, -1])[chosen])
    [-1.0, 0.0, 0.0, 2.0]
    """
    shuffled = classes.fillna(-1).sample(frac=1, random_state=seed)
    groups = shuffled.groupby(shuffled)
    # How far along its class a row is; the first ones of all classes are the sample.
    along = (groups.cumcount() + 0.5) / groups.transform("size")
    return along.sort_values(kind="stable").index[:n_rows].sort_values()


def _frames(path: Path, rows: int, columns: list[str] | None = None) -> Iterator[pd.DataFrame]:
    """Give the rows of a Parquet file, numbered, so many at a time."""
    start = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(rows, columns=columns):
            frame = batch.to_pandas()
            yield frame.set_axis(pd.RangeIndex(start, start + len(frame)))
            start += len(frame)


def _chunks(frame: pd.DataFrame, size: int) -> Iterator[pd.DataFrame]:
    for start in range(0, len(frame), size):
        yield frame.iloc[start : start + size]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make `manifest` what the store delivers from now on."""
    write_json(folder / "manifest.json", asdict(manifest))


def manifest_of(
    kernel: Kernel,
    *,
    run_id: str,
    created: str,
    snapshot: str,
    n_rows: int,
    sources: Mapping[str, str],
    dated: bool,
) -> Manifest:
    """Describe what `kernel` made of some sources."""
    return Manifest(
        run_id=run_id,
        created=created,
        snapshot=snapshot,
        n_rows=n_rows,
        columns={name: str(kernel.features.field(name).type) for name in kernel.features.names},
        n_dims=kernel.n_dims,
        fields=fields_to_json(kernel.fields),
        steps=kernel.spec,
        fingerprint=kernel.fingerprint,
        vector_fingerprint=kernel.vector_fingerprint,
        sources=sources,
        dated=dated,
    )
