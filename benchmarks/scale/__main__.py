"""What the program takes for many messages, beside the plain ways: ``make benchmark-scale``.

python -m benchmarks.scale --size 1m
python -m benchmarks.scale --size 7m --only generate rows
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.scale import report
from benchmarks.scale.generate import files, generate
from benchmarks.scale.measure import FailedError, taken
from benchmarks.scale.report import SIZES

from batch_nlp.tables import digests_of

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "start_batch_nlp.py"
TRAINING_ROWS = 4_000
EMBEDDED = {"static": 40_000, "sentiment": 100_000, "sentence": 256}
KNOWN = 2_000
AGAIN = 20_000
TRAINED = 200_000
ANY_MODEL_PASSES = ("training.thresholds.f1_macro=0", "training.thresholds.recall_macro=0")
"""What it takes is measured here, not how good it is."""

NEW_IN = 100
"""One of so many rows is new in the incremental run."""

Measure = dict[str, Any]


MOST_BESIDE = 1_000_000


def beside(measure: Callable[[], Measure]) -> Measure:
    """Measure beside a process that takes all of a core that it can get."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            return measure()
        finally:
            busy.kill()


@dataclass
class Bench:
    """Measures on a data set of one size; what is there from an earlier call stays.

    Parameters
    ----------
    size : int
        Reviews.
    folder : Path
        Where data, runs and results go.
    inference_rows : int
        Messages to score.
    """

    size: int
    folder: Path
    inference_rows: int

    def __post_init__(self) -> None:
        self.results = self.folder / "results.json"
        self.measures: dict[str, Measure] = (
            json.loads(self.results.read_text()) if self.results.exists() else {}
        )

    @cached_property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def root(self) -> Path:
        """Of the runs that score: a small model is trained there first."""
        return self.folder / "root"

    def keep(self, name: str, measure: Callable[[], Measure]) -> None:
        if name in self.measures:
            return
        print(f"{name} ...", flush=True)
        try:
            self.measures[name] = measure()
        except FailedError as error:
            self.measures[name] = {"failed": str(error).splitlines()[-1][:200]}
            print(error)
        self.measures[name]["date"] = f"{datetime.now(UTC):%Y-%m-%d}"
        self.results.parent.mkdir(parents=True, exist_ok=True)
        self.results.write_text(json.dumps(self.measures, indent=1))
        print(f"  {report.line(self.measures[name])}", flush=True)

    def work(self, name: str, n: int | None = None) -> Measure:
        """Measure one of the works of `benchmarks.scale.worker`."""
        target = self.folder / "target"
        shutil.rmtree(target, ignore_errors=True)  # what a killed call has left
        arguments = [name, str(self.data), str(target), str(n or self.size)]
        took = taken([sys.executable, "-m", "benchmarks.scale.worker", *arguments])
        shutil.rmtree(target, ignore_errors=True)
        said = json.loads(took.output.splitlines()[-1])
        return _measure(took, said["rows"], said["seconds"])

    def middle(self, measure: Callable[[], Measure]) -> Measure:
        """Give of three measures the one in the middle; at the largest size there is only one.

        The first is often the slowest, and the machine has moments of its own.
        """
        if self.size > SIZES["1m"]:
            return measure()
        return sorted((measure() for _ in range(3)), key=lambda took: took["seconds"])[1]

    def program(self, *overrides: str, root: Path, rows: int) -> Measure:
        """Measure a run of the program, the start of Python included."""
        tables = files(self.data)
        took = taken(
            [
                sys.executable,
                str(SCRIPT),
                "dataset=yelp",
                f"dataset.user={tables['user']}",
                f"dataset.business={tables['business']}",
                f"paths.root={root}",
                "logs.level=WARNING",
                *overrides,
            ],
            allowed=(0, 3),
        )
        newest = max((root / "data" / "08_reporting" / "runs").glob("*/run.json"))
        stages = json.loads(newest.read_text())["stages"]
        seconds = {name: stage["seconds"] for name, stage in stages.items()}
        return _measure(took, rows, took.seconds) | {"stages": seconds}

    def feature_run(self, rows: int, *, root: Path) -> Measure:
        """Measure the default features of the first reviews."""
        return self.program(
            "pipeline=feature",
            f"dataset.review={files(self.data)['review']}",
            f"dataset.max_reviews={rows}",
            "feature.save_layers=false",
            root=root,
            rows=rows,
        )

    # What is measured, in order.

    def generate(self) -> None:
        def measure() -> Measure:
            shutil.rmtree(self.data, ignore_errors=True)
            command = [sys.executable, "-m", "benchmarks.scale.generate", str(self.data)]
            took = taken([*command, str(self.size)])
            size = sum(path.stat().st_size for path in files(self.data).values())
            return _measure(took, self.size, took.seconds) | {"bytes": size}

        self.keep("generate", measure)
        generate(self.data, self.size)

    def rows(self) -> None:
        works = {
            "rows: ours": "rows_ours",
            "rows: ours, each message checked": "rows_checked",
            "rows: bare DuckDB": "rows_duckdb",
        }
        if find_spec("polars"):
            works["rows: Polars streaming"] = "rows_polars"
        if self.size <= SIZES["1m"]:
            works["rows: pandas"] = "rows_pandas"
        if works.keys() - self.measures.keys():
            # They are read once before, or the first one alone may wait for the disk.
            digests_of(map(str, files(self.data).values()))
        for name, work in works.items():
            self.keep(name, partial(self.middle, partial(self.work, work)))

    def growing(self, n: int, *overrides: str, root: Path) -> tuple[Callable[[], Measure], ...]:
        """Give two measures of the features of `n` reviews: all but 1 % of them, then the rest."""
        growing = self.folder / "growing.json"
        most = n - n // NEW_IN
        plain = (
            "pipeline=feature",
            f"dataset.review={growing}",
            "feature.save_layers=false",
            *overrides,
        )

        def lines(last: int) -> None:
            with (
                files(self.data)["review"].open(encoding="utf-8") as every,
                growing.open("w", encoding="utf-8") as stream,
            ):
                stream.writelines(islice(every, last))

        def part() -> Measure:
            shutil.rmtree(root, ignore_errors=True)
            lines(most)
            return self.program(*plain, root=root, rows=most)

        def rest() -> Measure:
            lines(n)
            return self.program(*plain, root=root, rows=n)

        return part, rest

    def features(self) -> None:
        root = self.folder / "features"
        part, rest = self.growing(self.size, "embedder=none", root=root)
        self.keep("features: all new (99 % of the rows)", part)
        self.keep("features: 1 % new", rest)

        def newest() -> Measure:
            command = ("pipeline=training", "embedder=none", f"training.max_rows={TRAINING_ROWS}")
            return self.program(*command, *ANY_MODEL_PASSES, root=root, rows=TRAINING_ROWS)

        if root.exists():  # unless its features are those of an earlier call
            self.keep("train: the newest 4,000 of all rows, without embedding", newest)
        if self.size <= SIZES["1m"]:
            part, rest = self.growing(self.size, root=root)
            self.keep("features: with default embedding, all new (99 % of the rows)", part)
            self.keep("features: with default embedding, 1 % new", rest)
        few = min(self.size, 100_000)
        self.keep("features: scikit-learn on a frame", lambda: self.work("features_frame", few))
        name = "features: the same, as the program does it"
        self.keep(name, lambda: self.work("features_ours", few))
        shutil.rmtree(root, ignore_errors=True)

    def embedding(self) -> None:
        few = min(self.size, EMBEDDED["static"])
        self.keep("embed: static", lambda: self.work("embed_static", few))
        self.keep("embed: the static tokenizer alone", lambda: self.work("tokenizer_alone", few))
        few = min(self.size, EMBEDDED["sentiment"])
        for name, work in {
            "embed: sentiment (default)": "embed_sentiment",
            "embed: sentiment, from the store": "sentiment_known",
        }.items():
            self.keep(name, partial(self.middle, partial(self.work, work, few)))
        if find_spec("sentence_transformers"):
            again = min(self.size, KNOWN)
            self.keep("embed: sentence, from the store", lambda: self.work("sentence_known", again))
            few = EMBEDDED["sentence"]
            self.keep("embed: sentence", lambda: self.work("embed_sentence", few))
            self.keep(
                "embed: SentenceTransformer.encode", lambda: self.work("sentence_transformers", few)
            )

        few = min(self.size, AGAIN)
        root = self.folder / "again"

        def new() -> Measure:
            shutil.rmtree(root, ignore_errors=True)
            return self.feature_run(few, root=root)

        self.keep("store: features and default embedding, new", new)
        name = "store: features and default embedding, known"
        self.keep(name, lambda: self.feature_run(few, root=root))
        shutil.rmtree(root, ignore_errors=True)

    def training(self) -> None:
        """Train on as many rows as a training reads at most."""
        if self.size < TRAINED:
            return
        root = self.folder / "trained"

        part, rest = self.growing(TRAINED, root=root)

        def train() -> Measure:
            return self.program("pipeline=training", *ANY_MODEL_PASSES, root=root, rows=TRAINED)

        self.keep("train: features and default embedding, all new (99 % of the rows)", part)
        self.keep("train: features and default embedding, 1 % new", rest)
        self.keep("train: default configuration", train)
        shutil.rmtree(root, ignore_errors=True)

    def inference(self) -> None:
        review = files(self.data)["review"]
        new = self.folder / "new.json"

        def train() -> Measure:
            shutil.rmtree(self.root, ignore_errors=True)
            return self.program(
                "pipeline=full",
                "pipeline.on_skew=report",
                f"dataset.review={review}",
                f"dataset.max_reviews={TRAINING_ROWS}",
                "feature.save_layers=false",
                *ANY_MODEL_PASSES,
                root=self.root,
                rows=TRAINING_ROWS,
            )

        def score() -> Measure:
            if self.inference_rows < self.size:
                with review.open(encoding="utf-8") as all_of_them, new.open("w") as stream:
                    stream.writelines(islice(all_of_them, self.inference_rows))
            chosen = new if self.inference_rows < self.size else review
            return self.program(
                "pipeline=inference",
                "pipeline.on_skew=report",
                f"inference.source={chosen}",
                "force=true",
                root=self.root,
                rows=self.inference_rows,
            )

        self.keep("train a small model", train)
        self.keep("inference: all new", score)
        self.keep("inference: all in the store", partial(self.middle, score))
        few = min(self.inference_rows, 400_000)
        self.keep(
            "inference: all in the store, once read and joined",
            lambda: self.work("scored_known", few),
        )
        if self.inference_rows <= MOST_BESIDE:
            name = "inference: all in the store, beside a busy process"
            self.keep(name, partial(self.middle, partial(beside, score)))

    def start(self) -> None:
        few = self.folder / "ten.json"
        review = files(self.data)["review"]
        with review.open(encoding="utf-8") as every, few.open("w", encoding="utf-8") as stream:
            stream.writelines(islice(every, 10))
        root = self.folder / "start"
        plain = [sys.executable, str(SCRIPT), "embedder=static", f"paths.root={root}"]
        names = ("dataset=messages", "dataset.columns.id=review_id")
        command = [*plain, "pipeline=inference", f"inference.source={few}", *names]

        @cache
        def prepare() -> None:
            shutil.rmtree(root, ignore_errors=True)
            taken([*plain, "dataset=sample"], allowed=(0, 3))
            taken(command, allowed=(0, 3))

        def help_() -> Measure:
            took = taken([sys.executable, str(SCRIPT), "--help"])
            return _measure(took, 0, took.seconds)

        def ten(*more: str) -> Measure:
            prepare()
            took = taken([*command, *more], allowed=(0, 3))
            return _measure(took, 10, took.seconds)

        starts = {
            "start: --help": help_,
            "start: inference on 10 known messages, static": partial(ten, "force=true"),
            "start: the same again, nothing to do": ten,
        }
        for name, start in starts.items():
            self.keep(name, partial(self.middle, start))


PARTS = ("generate", "rows", "features", "embedding", "inference", "training", "start")


def _measure(took: Any, rows: int, seconds: float) -> Measure:
    facts = asdict(took)
    facts.pop("output")
    return facts | {"rows": rows, "seconds": seconds}


def n_of(size: str) -> int:
    """Read a size: 100k, 1m, 7m (all of Yelp's 6,990,280) or a number."""
    if size in SIZES:
        return SIZES[size]
    if not re.fullmatch(r"[1-9]\d*", size):
        message = f"--size must be {', '.join(SIZES)} or a number, got {size!r}."
        raise SystemExit(message)
    return int(size)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--size", default="100k", help="reviews: 100k, 1m, 7m or a number (100k)")
    add("--only", nargs="+", choices=PARTS, help="parts of it", default=list(PARTS))
    add("--inference-rows", help="messages to score, as --size (all, at most a million)")
    add("--fresh", action="store_true", help="measure again what is there")
    add("--build", type=Path, default=ROOT / "build" / "scale", help="what need not be kept")
    add("--output", type=Path, default=ROOT / "benchmarks" / "scale" / "results")
    given = parser.parse_args(arguments)
    size = n_of(given.size)
    scored = n_of(given.inference_rows) if given.inference_rows else SIZES["1m"]
    bench = Bench(size, given.build / given.size, min(size, scored))
    if given.fresh:
        bench.measures.clear()
    started = perf_counter()
    for part in PARTS:
        if part in given.only:
            getattr(bench, part)()
    print(report.write(given.output, given.build))
    print(f"That took {(perf_counter() - started) / 60:.1f} minutes.")


if __name__ == "__main__":
    main(sys.argv[1:])
