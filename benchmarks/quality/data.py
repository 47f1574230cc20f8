"""The data sets of the contest and their splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedKFold, train_test_split

LABELS = ("negative", "neutral", "positive")
N_FOLDS = 5


def classes(stars: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Give 0 up to two stars, 2 from four on, 1 between.

    Examples
    --------
    >>> classes([1, 2, 3, 4, 5]).tolist()
    [0, 0, 1, 2, 2]
    """
    values = np.asarray(stars, dtype="float64")
    return np.select([values <= 2, values >= 4], [0, 2], default=1).astype("int64")


@dataclass(frozen=True)
class DataSet:
    """Rows with stars: texts, or a table of features.

    Parameters
    ----------
    name : str
        In tables.
    stars : ndarray of float of shape (n_rows,)
        1 to 5.
    texts : list of str, optional
        Each a different one; None for a table.
    table : DataFrame, optional
        Features, where there are no texts.
    real : bool, default=True
        Whether people wrote the texts; others are for reference only.
    """

    name: str
    stars: npt.NDArray[np.float64]
    texts: list[str] | None = None
    table: pd.DataFrame | None = None
    real: bool = True

    @cached_property
    def y(self) -> npt.NDArray[np.int64]:
        return classes(self.stars)

    @cached_property
    def digest(self) -> str:
        content = (
            json.dumps(self.texts).encode()
            if self.table is None
            else pd.util.hash_pandas_object(self.table.astype("str")).to_numpy().tobytes()
        )
        return hashlib.sha256(content + self.stars.tobytes()).hexdigest()[:16]

    def first(self, n_rows: int, seed: int = 0) -> DataSet:
        """Give a stratified random part of at most `n_rows`."""
        if self.texts is None or len(self.texts) <= n_rows:
            return self
        kept, _ = train_test_split(
            np.arange(len(self.texts)), train_size=n_rows, stratify=self.y, random_state=seed
        )
        kept.sort()
        return DataSet(self.name, self.stars[kept], [self.texts[i] for i in kept], real=self.real)


@dataclass(frozen=True)
class Split:
    """Which rows are learned from and which are judged.

    Parameters
    ----------
    group : str
        Splits of a group are averaged.
    number : int
        Of the split in its group.
    seed : int
        Of the split and of the rivals.
    train_set, test_set : DataSet
        Where the rows are.
    train, test : ndarray of int
        Their numbers.
    """

    group: str
    number: int
    seed: int
    train_set: DataSet
    test_set: DataSet
    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]

    @property
    def real(self) -> bool:
        return self.train_set.real and self.test_set.real

    @property
    def of_texts(self) -> bool:
        return self.test_set.texts is not None


def same(text: str) -> str:
    """Give what two copies of a text have in common: case and white space don't count."""
    return " ".join(text.casefold().split())


def text_set(
    name: str, rows: pd.DataFrame, *, text: str, rating: str, real: bool = True
) -> DataSet:
    """Make a data set of a table's texts and ratings; repeated and unusable rows are dropped.

    A rating may also be a class by name, which counts as 1, 3 or 5 stars.
    """
    missing = [column for column in (text, rating) if column not in rows]
    if missing:
        message = f"{name} must have the columns {missing}; it has {rows.columns.tolist()}."
        raise SystemExit(message)
    named = rows[rating].astype("str").str.strip().str.lower()
    stars = named.map(dict(zip(LABELS, (1.0, 3.0, 5.0), strict=True)))
    stars = stars.fillna(pd.to_numeric(rows[rating], errors="coerce"))
    texts = rows[text].fillna("").astype("str")
    usable = texts.str.strip().ne("") & stars.between(1, 5)
    usable &= ~texts.where(usable, "").map(same).duplicated()
    kept = stars[usable].to_numpy(dtype="float64")
    fewest = np.bincount(classes(kept), minlength=3).min()
    if fewest < 2 * N_FOLDS:
        message = (
            f"{name} must have at least {2 * N_FOLDS} different texts of each class; "
            f"of one it has {fewest}."
        )
        raise SystemExit(message)
    return DataSet(name, kept, texts[usable].tolist(), real=real)


def read(path: Path) -> pd.DataFrame:
    """Read a CSV, TSV, JSON-lines or Parquet file."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix in {".json", ".jsonl"}:
        return pd.read_json(path, lines=True)
    return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")


def further_sets(
    paths: Sequence[str], texts: Sequence[str], ratings: Sequence[str]
) -> Iterator[DataSet]:
    """Read the files of ``--data``; one column name serves all of them."""
    paths, texts, ratings = (
        [each for given in option for each in given.split(",")]
        for option in (paths, texts, ratings)
    )
    for option, names in (("--text", texts), ("--rating", ratings)):
        if len(names) not in {1, len(paths)}:
            message = f"{option} must be given once, or once for each --data; got {len(names)}."
            raise SystemExit(message)
    for i, path in enumerate(paths):
        yield text_set(
            Path(path).stem,
            read(Path(path)),
            text=texts[i % len(texts)],
            rating=ratings[i % len(ratings)],
        )


def shared_sets(folder: Path) -> Iterator[DataSet]:
    """Read the real data that is there."""
    messages = folder / "messages" / "restaurant_reviews.csv"
    if messages.is_file():
        yield text_set("restaurants", read(messages), text="text", rating="rating")
    yelp = folder / "yelp" / "yelp_academic_dataset_review.json"
    if yelp.is_file():
        yield text_set("Yelp", read(yelp), text="text", rating="stars")
    table = folder / "seed_features_sample.parquet"
    if table.is_file():
        rows = pd.read_parquet(table)
        stars = rows.pop("stars").to_numpy(dtype="float64")
        yield DataSet("feature table", stars, table=rows)


def synthetic_set(folder: Path, n_reviews: int = 3000) -> DataSet:
    """Write and read the synthetic sample."""
    from batch_nlp.sample import Sample  # noqa: PLC0415  not in every rival's environment

    lines = Sample(n_reviews=n_reviews).write(folder).review.read_text(encoding="utf-8")
    rows = []
    for line in lines.splitlines():
        try:
            row: Any = json.loads(line)
        except ValueError:
            continue
        rows.append({"text": row.get("text"), "stars": row.get("stars")})
    return text_set("synthetic", pd.DataFrame(rows), text="text", rating="stars", real=False)


def splits_of(sets: Sequence[DataSet], seed: int, n_folds: int = N_FOLDS) -> Iterator[Split]:
    """Give the splits of a seed: folds within each real set, then one set against another.

    The table has one split of its own, 80/20 with the seed 42, and so has the synthetic sample.
    No text of the test rows is among the training rows.
    """
    real = [each for each in sets if each.real and each.texts is not None]
    for each in real:
        folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed)
        for number, (train, test) in enumerate(folds.split(each.y, each.y)):
            if number < n_folds:
                yield Split(f"{each.name}, {N_FOLDS} folds", number, seed, each, each, train, test)
    for one, other in permutations(real, 2):
        assert one.texts is not None and other.texts is not None  # noqa: PT018
        tested = set(map(same, other.texts))
        train = np.array([i for i, text in enumerate(one.texts) if same(text) not in tested])
        group = f"{one.name} → {other.name}"
        yield Split(group, 0, seed, one, other, train, np.arange(len(other.y)))
    for each in sets:
        if each.texts is None or not each.real:
            train, test = train_test_split(
                np.arange(len(each.y)), test_size=0.2, stratify=each.y, random_state=42
            )
            yield Split(f"{each.name}, 80/20", 0, seed, each, each, train, test)
