"""The feature store: what was computed for a message is kept by its content and used again.

::

    04_feature/
      manifest.json                 what the last feature run delivered
      snapshots/<run id>.parquet    its messages in order: id, content key, stars and label
      rows/<fingerprint>/*.parquet     features, by content key
      vectors/<fingerprint>/*.parquet  embeddings, by text key

Labels live in the snapshot and nowhere else, so that no feature can hold one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from batch_nlp import __version__
from batch_nlp.errors import InputError
from batch_nlp.kernel import Kernel, fields_to_json, vector_type
from batch_nlp.logs import Clock
from batch_nlp.rows.extract import Engine
from batch_nlp.schemas import typed_schema
from batch_nlp.tables import ParquetSink, from_pandas, quoted, write_json

SNAPSHOT = pa.schema(
    {
        "id": pa.string(),
        "key": pa.string(),
        "stars": pa.float64(),
        "label": pa.float64(),
    }
)

_FOLDER_CHARACTERS = 16


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
        self._db = self.engine.connect(spill=self.folder / ".spill")
        self._content = typed_schema({name: kernel.fields[name] for name in kernel.content})
        self._row_schema = pa.schema(
            [("key", pa.string()), ("text_key", pa.string()), *kernel.features]
        )
        self._vector_schema = pa.schema(
            [("text_key", pa.string()), ("vector", vector_type(kernel.n_dims))]
        )
        self._rows = _Parts(
            self.folder / "rows" / kernel.fingerprint[:_FOLDER_CHARACTERS], self._row_schema
        )
        self._vectors = _Parts(
            self.folder / "vectors" / kernel.vector_fingerprint[:_FOLDER_CHARACTERS],
            self._vector_schema,
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
        keys = self._digests(from_pandas(content, self._content))
        with self.clock.step("store"):
            known = self._rows.take(keys, self._db)
        fresh = content[~np.isin(keys, known["key"])].assign(key=keys[~np.isin(keys, known["key"])])
        self.usage.reused += len(content) - len(fresh)
        self.usage.computed += len(fresh)
        made = self._derive(fresh.drop_duplicates("key"))
        rows = pd.concat([known, made]) if len(known) else made
        return self._with_vectors(rows.set_index("key").loc[keys].reset_index(), accepted.index)

    def read(self, manifest: Manifest, *, batch_rows: int, newest: int) -> Iterator[pd.DataFrame]:
        """Give the messages of a snapshot with their features, in order.

        Parameters
        ----------
        manifest : Manifest
            Which snapshot.
        batch_rows : int
            Rows of a frame.
        newest : int
            At most so many: the newest by date, or the last where some have no date.

        Yields
        ------
        DataFrame
            ``id``, ``stars``, ``label``, ``key``, features and embedding.

        Raises
        ------
        InputError
            If features of the snapshot are gone from the store.
        """
        snapshot = pq.read_table(self.folder / manifest.snapshot).to_pandas()
        if len(snapshot) > newest:
            found = pd.concat(
                self._rows.take(chunk["key"].to_numpy(), self._db, columns=["key", "date"])
                for chunk in _chunks(snapshot, batch_rows)
            )
            dates = found.drop_duplicates("key").set_index("key")["date"]
            order = snapshot["key"].map(dates) if manifest.dated else snapshot.index.to_series()
            snapshot = snapshot.loc[order.sort_values(kind="stable").index[-newest:].sort_values()]
        for chunk in _chunks(snapshot, batch_rows):
            rows = self._rows.take(chunk["key"].to_numpy(), self._db).set_index("key")
            gone = ~chunk["key"].isin(rows.index)
            if gone.any():
                message = (
                    f"{self.folder} lacks the features of {gone.sum()} messages of its snapshot: "
                    "run pipeline=feature again."
                )
                raise InputError(message)
            features = self._with_vectors(rows.loc[chunk["key"]].reset_index(), chunk.index)
            yield chunk[["id", "stars", "label"]].join(features)

    def _digests(self, table: pa.Table) -> np.ndarray:
        """Give the MD5 of each row, as the row's JSON."""
        row = ", ".join(quoted(name) for name in table.column_names)
        self._db.register("hashed", table)
        found = self._db.sql(f"SELECT md5(to_json(row({row}))::VARCHAR) AS digest FROM hashed")
        digests: np.ndarray = found.to_arrow_table()["digest"].to_numpy()
        return digests

    def _derive(self, fresh: pd.DataFrame) -> pd.DataFrame:
        """Compute and keep the features of rows with distinct keys."""
        derived = self.kernel.derive(fresh, self.clock)
        texts = derived[[self.kernel.embedder.column]]
        text_schema = pa.schema([(self.kernel.embedder.column, pa.string())])
        made = derived.assign(
            key=fresh["key"], text_key=self._digests(from_pandas(texts, text_schema))
        )
        made = made[list(self._row_schema.names)]
        with self.clock.step("store"):
            self._rows.add(from_pandas(made, self._row_schema))
        return made

    def _with_vectors(self, rows: pd.DataFrame, index: pd.Index) -> pd.DataFrame:
        """Join the embedding of each row's text, making those that the store lacks."""
        rows = rows.set_axis(index)
        features = rows.drop(columns="text_key")
        if not self.kernel.n_dims:
            return features
        with self.clock.step("store"):
            known = self._vectors.take(rows["text_key"].to_numpy(), self._db)
        fresh = rows[~rows["text_key"].isin(known["text_key"])].drop_duplicates("text_key")
        made = self._embed(fresh)
        both = pd.concat([known, made]) if len(known) else made
        place = pd.Series(range(len(both)), index=both["text_key"]).loc[rows["text_key"]]
        vectors = (
            np.stack(both["vector"].to_list())[place]
            if len(both)
            else np.empty((0, self.kernel.n_dims), "float32")
        )
        return features.join(self.kernel.embedder.vector_frame(vectors, index))

    def _embed(self, fresh: pd.DataFrame) -> pd.DataFrame:
        """Embed and keep rows of distinct texts."""
        texts = fresh[self.kernel.embedder.column].to_numpy()
        with self.clock.step("embed"):
            vectors, truncated = self.kernel.embedder.encode_distinct(texts)
        self.usage.embedded += len(texts)
        self.usage.truncated += int(truncated.sum())
        made = pd.DataFrame(
            {
                "text_key": fresh["text_key"].to_numpy(),
                "vector": pd.Series(list(vectors), dtype=object),
            }
        )
        with self.clock.step("store"):
            self._vectors.add(from_pandas(made, self._vector_schema))
        return made


class _Parts:
    """A folder of Parquet files with distinct keys, to which files are added whole."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder = folder
        self.schema = schema
        self.key = schema.names[0]

    def add(self, table: pa.Table) -> None:
        if table.num_rows:
            with ParquetSink(self.folder / f"{uuid4().hex}.parquet", self.schema) as sink:
                sink.write(table)

    def take(
        self,
        keys: np.ndarray,
        db: duckdb.DuckDBPyConnection,
        *,
        columns: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Give the rows that hold one of `keys`, each key once."""
        names = list(columns or self.schema.names)
        schema = pa.schema([self.schema.field(name) for name in names])
        files = [str(path) for path in sorted(self.folder.glob("*.parquet"))]
        db.register("wanted", pa.table({self.key: pa.array(keys, pa.string()).unique()}))
        # Keys first, alone: the files that hold none of them are then not read at all.
        relevant = files and [
            name
            for (name,) in db.execute(
                f"SELECT DISTINCT filename FROM read_parquet($1, filename=true) "
                f"SEMI JOIN wanted USING ({self.key})",
                [files],
            ).fetchall()
        ]
        if not relevant:
            nothing: pd.DataFrame = schema.empty_table().to_pandas()
            return nothing
        found = db.sql(
            f"SELECT {', '.join(map(quoted, names))} FROM read_parquet($1) "
            f"SEMI JOIN wanted USING ({self.key})",
            params=[sorted(relevant)],
        )
        rows: pd.DataFrame = found.to_arrow_table().cast(schema).to_pandas()
        # Two runs at once may both have added a key; what they added is the same.
        return rows.drop_duplicates(self.key, ignore_index=True)


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
