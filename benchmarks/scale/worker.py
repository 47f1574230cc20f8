"""One piece of work, in a process of its own: ``python -m benchmarks.scale.worker NAME FOLDER``.

It prints how many rows it handled and how many seconds that took, imports not counted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import Any

REVIEW = ("review_id", "user_id", "business_id", "stars", "useful", "funny", "cool", "text", "date")
USER = ("user_id", "review_count", "yelping_since", "useful", "funny", "cool", "elite", "fans")
BUSINESS = ("business_id", "city", "state", "review_count", "is_open", "categories")
LIMIT = "1GB"
CHUNK = 100_000
READY = "A text that is none of the reviews'."

Work = Callable[[Path, Path, int], int]


def texts_of(folder: Path, n: int) -> list[str]:
    with (folder / "review.json").open(encoding="utf-8") as stream:
        return [json.loads(line)["text"] for line in islice(stream, n)]


def source_of(folder: Path, n: int | None = None) -> Any:
    """Give the source of all reviews, or of the first `n`."""
    from batch_nlp.rows.datasets import YelpDataset

    files = {name: str(folder / f"{name}.json") for name in ("review", "user", "business")}
    return YelpDataset(**files, max_reviews=n).source()


def rows_ours(folder: Path, target: Path, n: int) -> int:
    """Extract, check users and businesses, join, find repeats and write, as the program does it."""
    return _rows(folder, target, checked=False)


def rows_checked(folder: Path, target: Path, n: int) -> int:
    """Do that, and hold each joined row against the contract, in the same process."""
    return _rows(folder, target, checked=True)


def _rows(folder: Path, target: Path, *, checked: bool) -> int:
    import pandera.pandas  # noqa: F401  what the check of users and businesses needs
    import pyarrow as pa

    from batch_nlp.rows.extract import Engine, Extraction
    from batch_nlp.rows.stream import DISTINCT
    from batch_nlp.rows.validate import validate
    from batch_nlp.tables import ParquetSink

    restart()
    source = source_of(folder)
    names = [("source", pa.string()), ("row", pa.int64())]
    schema = pa.schema([*names, *((name, pa.string()) for name in source.fields)])
    with (
        Extraction(source, Engine(memory_limit=LIMIT), target / "spill") as extraction,
        ParquetSink(target / "ours.parquet", schema, distinct=DISTINCT) as sink,
    ):
        for batch in extraction.rows():
            if checked and len(validate(batch.to_pandas(), source.fields).failures):
                raise RuntimeError("A generated row does not meet the contract.")
            sink.write(batch)
    return sink.rows


def rows_duckdb(folder: Path, target: Path, n: int) -> int:
    """Do the same in one bare statement, which checks nothing and forgets the order."""
    import duckdb

    restart()

    def table(name: str, columns: tuple[str, ...]) -> str:
        types = ", ".join(f"'{column}': 'VARCHAR'" for column in columns)
        return f"read_json('{folder / name}.json', format='newline_delimited', columns={{{types}}})"

    database = duckdb.connect(
        config={"memory_limit": LIMIT, "temp_directory": str(target / "spill")}
    )
    database.execute(
        f"""
        COPY (
            SELECT r.*, u.* EXCLUDE (user_id), b.* EXCLUDE (business_id)
            FROM (SELECT * FROM {table("review", REVIEW)}
                  QUALIFY row_number() OVER (PARTITION BY review_id) = 1) r
            LEFT JOIN {table("user", USER)} u USING (user_id)
            LEFT JOIN {table("business", BUSINESS)} b USING (business_id)
        ) TO '{target / "duckdb.parquet"}' (FORMAT parquet, COMPRESSION zstd)
        """
    )
    counted = database.sql(f"SELECT count(*) FROM '{target / 'duckdb.parquet'}'").fetchall()
    return int(counted[0][0])


def rows_pandas(folder: Path, target: Path, n: int) -> int:
    """Read in chunks, put them together and merge, as the reference does it."""
    import pandas as pd
    import pyarrow.parquet  # noqa: F401

    restart()

    def table(name: str, columns: tuple[str, ...]) -> pd.DataFrame:
        chunks = pd.read_json(folder / f"{name}.json", lines=True, chunksize=CHUNK)
        return pd.concat(chunk[list(columns)] for chunk in chunks)

    reviews = table("review", REVIEW).drop_duplicates("review_id")
    joined = reviews.merge(
        table("user", USER), how="left", on="user_id", suffixes=("", "_user")
    ).merge(table("business", BUSINESS), how="left", on="business_id", suffixes=("", "_business"))
    joined.to_parquet(target / "pandas.parquet", compression="zstd")
    return len(joined)


def rows_polars(folder: Path, target: Path, n: int) -> int:
    """Do it with Polars' streaming engine."""
    import polars as pl

    restart()

    def table(name: str, columns: tuple[str, ...]) -> pl.LazyFrame:
        return pl.scan_ndjson(folder / f"{name}.json").select(columns)

    joined = (
        table("review", REVIEW)
        .unique("review_id")
        .join(table("user", USER), on="user_id", how="left", suffix="_user")
        .join(table("business", BUSINESS), on="business_id", how="left", suffix="_business")
    )
    joined.sink_parquet(target / "polars.parquet", compression="zstd", engine="streaming")
    return int(pl.scan_parquet(target / "polars.parquet").select(pl.len()).collect().item())


def features_frame(folder: Path, target: Path, n: int) -> int:
    """Validate one frame in memory and derive its features with scikit-learn's Pipeline."""
    import pandas as pd

    from batch_nlp.rows.validate import validate

    source = source_of(folder, n)
    frames = [batch.to_pandas() for batch in batches_of(source, target, n)]
    frame = pd.concat(frames, ignore_index=True)
    pipeline = derivation()
    restart()
    pipeline.fit_transform(validate(frame, source.fields).accepted)
    return len(frame)


def features_ours(folder: Path, target: Path, n: int) -> int:
    """Do the same in batches and several processes, as the program does it."""
    from batch_nlp.rows.extract import Engine

    source = source_of(folder, n)
    batches = batches_of(source, target, n)
    derive = Derive(source.fields, derivation())
    return on_ready_processes(derive, batches, ready=batches[0][:10], engine=Engine(), n=n)


class Derive:
    """Validates a batch and derives its features; for several processes."""

    def __init__(self, fields: Any, pipeline: Any) -> None:
        self.fields = fields
        self.pipeline = pipeline

    def __call__(self, batch: Any) -> int:
        from batch_nlp.rows.validate import validate

        self.pipeline.fit_transform(validate(batch.to_pandas(), self.fields).accepted)
        return int(batch.num_rows)


def scored_known(folder: Path, target: Path, n: int) -> int:
    """Label joined rows whose features are in the store that a run before has filled.

    That is: checked against the contract, looked up, predicted and watched for drift, in the
    program's processes, the way there and back included. Not in it: reading and joining, loading
    the model, writing.
    """
    from batch_nlp.artifact import Registry
    from batch_nlp.monitoring.monitor import Monitor
    from batch_nlp.rows.extract import Engine
    from batch_nlp.run import kernel_of
    from batch_nlp.settings import Paths
    from batch_nlp.store import StoreAccess

    paths = Paths(root=str(folder.parent / "root"))
    engine = Engine()
    artifact = Registry(paths.models, "sentiment").load()
    kernel = kernel_of(artifact)
    watch = Monitor().watch(artifact.model_pipeline, artifact.reference)
    access = StoreAccess(paths.layer("04_feature"), kernel, engine)
    score = Score(access, artifact.model_pipeline, watch)
    batches = batches_of(source_of(folder, n), target, n)
    return on_ready_processes(score, batches, ready=batches[0][:10], engine=engine, n=n)


class Score:
    """Validates a batch, takes its features from the store and labels it; for several processes."""

    def __init__(self, access: Any, model: Any, watch: Any) -> None:
        from batch_nlp.inference.job import Scoring

        self.check = access.kernel.check
        self.work = Scoring(access, model, watch)

    def __call__(self, batch: Any) -> int:
        from batch_nlp.logs import Clock

        scored = self.work(self.check(batch.to_pandas()).accepted, Clock())
        if scored.usage.computed or scored.usage.embedded:
            raise RuntimeError("The store lacks features of these rows.")
        return int(batch.num_rows)


def batches_of(source: Any, target: Path, n: int) -> list[Any]:
    """Give the `n` joined rows of a source in the batches that the program would make of them."""
    from batch_nlp.rows.extract import Engine, Extraction

    engine = Engine()
    size = engine.batch_rows_for(n, engine.processes_for(n))
    with Extraction(source, engine, target / "spill") as extraction:
        return list(extraction.rows(size))


def derivation() -> Any:
    """Make the row-local steps of the default configuration, the embedding left out."""
    from sklearn.pipeline import make_pipeline

    from batch_nlp.transformers import (
        CategoryGroups,
        CleanText,
        DateParts,
        EliteYears,
        MissingIndicators,
        PositiveFlags,
        Tenure,
        TextStatistics,
    )

    return make_pipeline(
        CleanText(),
        TextStatistics(),
        EliteYears(),
        PositiveFlags(columns=["useful", "funny", "cool"]),
        CategoryGroups(),
        DateParts(),
        Tenure(),
        MissingIndicators(columns=["user_id", "business_id", "categories", "date"]),
    )


def on_ready_processes(function: Any, items: list[Any], *, ready: Any, engine: Any, n: int) -> int:
    """Add up what the program's processes make of the items, from when the first one is begun.

    Each process has worked on `ready` before; that the processes end does not count.
    """
    from batch_nlp.workers import mapped

    processes = engine.processes_for(n)
    done = []
    with TemporaryDirectory() as folder:
        first = [Ready(ready, Path(folder), processes)] * processes
        for each in mapped(Begun(function), first + items, processes=processes):
            done.append(each)
            ended = perf_counter()
    restart(min(begun for begun, _ in done[processes:]) + perf_counter() - ended)
    return sum(rows for _, rows in done[processes:])


@dataclass(frozen=True)
class Ready:
    """An item that a process works on before all others, and then waits for the other processes.

    Attributes
    ----------
    item : object
    folder : Path
        Where each process leaves a file once it is ready.
    processes : int
        How many there are.
    """

    item: Any
    folder: Path
    processes: int

    def wait(self) -> None:
        (self.folder / str(os.getpid())).touch()
        while len(list(self.folder.iterdir())) < self.processes:
            sleep(0.005)


def as_the_program() -> None:
    """Have the environment and the memory of a run of the program, here and in its processes.

    Arrow must not have been loaded.
    """
    import start_batch_nlp  # noqa: F401  what it sets before any other import

    from batch_nlp.workers import keep_freed_memory, own_threads

    keep_freed_memory(own_threads())


class Begun:
    """Tells with each result when it was begun; for several processes."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, item: Any) -> tuple[float, int]:
        if not isinstance(item, Ready):
            return perf_counter(), self.function(item)
        try:
            return perf_counter(), self.function(item.item)
        finally:
            item.wait()


def text_batches(folder: Path, n: int, engine: Any) -> list[Any]:
    """Give the texts of the first reviews in the batches that the program would make of them."""
    texts = texts_of(folder, n)
    size = engine.batch_rows_for(n, engine.processes_for(n))
    return [text_batch(texts[start : start + size]) for start in range(0, n, size)]


def text_batch(texts: list[str]) -> Any:
    import pyarrow as pa

    return pa.RecordBatch.from_pydict({"text": texts})


def embed(folder: Path, n: int, embedder: Any) -> int:
    from batch_nlp.rows.extract import Engine

    engine = Engine()
    batches = text_batches(folder, n, engine)
    return on_ready_processes(
        Embed(embedder), batches, ready=text_batch([READY]), engine=engine, n=n
    )


class Embed:
    """Embeds texts; for several processes."""

    def __init__(self, embedder: Any) -> None:
        self.embedder = embedder

    def __call__(self, batch: Any) -> int:
        return len(self.embedder.encode(batch.to_pandas()["text"].tolist()).vectors)


def embed_static(folder: Path, target: Path, n: int) -> int:
    from batch_nlp.embedders import StaticEmbedder

    return embed(folder, n, StaticEmbedder())


def embed_sentiment(folder: Path, target: Path, n: int) -> int:
    from batch_nlp.sentiment import SentimentEmbedder

    return embed(folder, n, SentimentEmbedder())


def tokenizer_alone(folder: Path, target: Path, n: int) -> int:
    """Make the tokens that the static model needs, and nothing of them."""
    from tokenizers import Tokenizer

    from batch_nlp.embedders import SHIPPED_MODEL

    texts = texts_of(folder, n)
    tokenizer = Tokenizer.from_file(str(SHIPPED_MODEL / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.encode_batch_fast(texts[:10], add_special_tokens=False)
    restart()
    for start in range(0, n, 1_000):
        tokenizer.encode_batch_fast(texts[start : start + 1_000], add_special_tokens=False)
    return n


def embed_sentence(folder: Path, target: Path, n: int) -> int:
    from batch_nlp.embedders import SentenceEmbedder

    texts = texts_of(folder, n)
    embedder = SentenceEmbedder()
    embedder.encode(texts[:2])
    restart()
    return len(embedder.encode(texts).vectors)


def known(folder: Path, target: Path, n: int, embedder: Any) -> int:
    """Take the vectors of texts from a store that has them, where `embed` computes them.

    That is: the texts' keys, and where and what the store has of them, in the order of the run that
    has filled it. Not in it: opening it.
    """
    from sklearn.pipeline import Pipeline

    from batch_nlp.kernel import Kernel
    from batch_nlp.rows.extract import Engine
    from batch_nlp.schemas import JOINED_FIELDS
    from batch_nlp.store import StoreAccess
    from batch_nlp.transformers import CleanText, TextEmbedder

    engine = Engine()
    steps = [("clean_text", CleanText()), ("embed", TextEmbedder(embedder=embedder))]
    kernel = Kernel(fields=JOINED_FIELDS, pipeline=Pipeline(steps), spec={})
    batches = text_batches(folder, n, engine)

    def lacked() -> int:
        take = Take(StoreAccess(target, kernel, engine))
        return on_ready_processes(take, batches, ready=text_batch([READY]), engine=engine, n=n)

    if not lacked():
        raise RuntimeError("The store had the texts before.")
    if lacked():
        raise RuntimeError("The store lacks texts that it was given.")
    return n


class Take:
    """Takes the vectors of texts from a store, and gives how many it lacked; for several processes.

    What it lacked is there afterwards.
    """

    def __init__(self, access: Any) -> None:
        self.access = access

    def __call__(self, batch: Any) -> int:
        from batch_nlp.logs import Clock

        store = self.access.for_batch(Clock())
        texts = batch.to_pandas()["text"]
        if len(store.vectors(texts, store.text_keys(texts))) != len(texts):
            raise RuntimeError("Not every text has a vector.")
        return int(store.usage.embedded)


def sentiment_known(folder: Path, target: Path, n: int) -> int:
    from batch_nlp.sentiment import SentimentEmbedder

    return known(folder, target, n, SentimentEmbedder())


def sentence_known(folder: Path, target: Path, n: int) -> int:
    from batch_nlp.embedders import SentenceEmbedder

    return known(folder, target, n, SentenceEmbedder())


def sentence_transformers(folder: Path, target: Path, n: int) -> int:
    """Call SentenceTransformer.encode as its documentation does."""
    from sentence_transformers import SentenceTransformer

    from batch_nlp.embedders import sentence_folder

    texts = texts_of(folder, n)
    model = SentenceTransformer(str(sentence_folder(None)))
    model.encode(texts[:2])
    restart()
    return len(model.encode(texts))


OURS: tuple[Work, ...] = (
    rows_ours,
    rows_checked,
    features_ours,
    scored_known,
    embed_static,
    embed_sentiment,
    sentiment_known,
    embed_sentence,
    sentence_known,
)
"""What is done as the program does it."""

PLAIN: tuple[Work, ...] = (
    rows_duckdb,
    rows_pandas,
    rows_polars,
    features_frame,
    tokenizer_alone,
    sentence_transformers,
)

WORKS = {work.__name__: work for work in OURS + PLAIN}

_started = 0.0


def restart(moment: float | None = None) -> None:
    """Measure from here on, or from a moment: what came before was preparation."""
    global _started  # noqa: PLW0603
    _started = perf_counter() if moment is None else moment


def main(name: str, folder: str, target: str, n: str) -> None:
    Path(target).mkdir(parents=True, exist_ok=True)
    work = WORKS[name]
    if work in OURS:
        as_the_program()
    restart()
    rows = work(Path(folder), Path(target), int(n))
    print(json.dumps({"rows": rows, "seconds": perf_counter() - _started}))


if __name__ == "__main__":
    main(*sys.argv[1:])
