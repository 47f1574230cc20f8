"""What a model was judged on, in few numbers: the reference that later messages are held against.

The bins are those of the training rows. What is counted in them are the rows that training held
out: their probabilities are as sure as those of new messages, which those of the training rows are
not; their F1 is the one that the model passed with; and where the split is by time, they are the
newest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import confusion_matrix
from sklearn.pipeline import Pipeline

from batch_nlp.monitoring.drift import RandomFeatures, binned, tenths
from batch_nlp.monitoring.estimate import MEASURES, Calibration, Expected, estimate
from batch_nlp.predict import PROBABILITIES
from batch_nlp.schemas import LABELS
from batch_nlp.training.pipeline import categorical_columns, embedding_columns, numeric_columns
from batch_nlp.training.vocabulary import WORD, WordNumbers
from batch_nlp.transformers.scores import OutOfFoldScores

MOST_KINDS = 20
"""Kinds of a categorical column that are counted one by one."""

RAREST_KIND = 0.01
"""Share of the training rows below which a kind is counted with other rare ones."""

MOST_KNOWN = 10_000
"""Kinds of a categorical column that are known; rarer ones count as unseen."""

BEGINNING = 200
"""Characters of a text in which unknown words are looked for, so that the cost stays small."""

FORMAT = 1
"""Of the plain data; another one is not read."""

LABEL = "label"
UNKNOWN_WORDS = "text.unknown_words"
EMPTY = "text.empty"
FEATURE = "feature."
UNSEEN = "unseen."

Codes = dict[str, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Numbers:
    """Bins of a number (see `binned`).

    Attributes
    ----------
    edges : list of float
        Ascending.
    """

    edges: list[float]

    @property
    def n_bins(self) -> int:
        """Bins, that of missing values included."""
        return len(self.edges) + 2

    def codes(self, values: pd.Series) -> npt.NDArray[np.int64]:
        """Give the bin of each row."""
        return binned(values.to_numpy(dtype="float64", na_value=np.nan), self.edges)


@dataclass(frozen=True)
class Kinds:
    """Bins of a text that names a kind: the frequent ones, rare ones, unseen ones, missing.

    Attributes
    ----------
    frequent, rare : list of str
        Kinds of the training rows.
    """

    frequent: list[str]
    rare: list[str]

    @classmethod
    def of(cls, values: pd.Series) -> Kinds:
        """Learn the kinds of the training rows."""
        shares = values.value_counts(normalize=True)
        # Equal counts in the order of the alphabet, not in that of the rows.
        shares = shares.sort_index().sort_values(ascending=False, kind="stable")[:MOST_KNOWN]
        n_frequent = min(MOST_KINDS, int((shares >= RAREST_KIND).sum()))
        kinds = [str(kind) for kind in shares.index]
        return cls(kinds[:n_frequent], kinds[n_frequent:])

    @property
    def n_bins(self) -> int:
        """Bins: after those of frequent kinds come rare, unseen and missing ones."""
        return len(self.frequent) + 3

    @property
    def unseen(self) -> int:
        """The bin of kinds that the training rows did not have."""
        return len(self.frequent) + 1

    @cached_property
    def _places(self) -> dict[str, int]:
        return {
            **dict.fromkeys(self.rare, len(self.frequent)),
            **{kind: place for place, kind in enumerate(self.frequent)},
        }

    def codes(self, values: pd.Series) -> npt.NDArray[np.int64]:
        """Give the bin of each row."""
        numbers, distinct = pd.factorize(values)
        places = [self._places.get(str(kind), self.unseen) for kind in distinct]
        # A missing value has the number -1, and so the last place.
        return np.array([*places, self.unseen + 1], dtype="int64")[numbers]


@dataclass(frozen=True)
class Words:
    """Which words a model of the text knows.

    Attributes
    ----------
    known : frozenset of str
        Its vocabulary.
    pattern : str
        What a word is.
    lowercase : bool
        Whether texts are lowered first.
    """

    known: frozenset[str]
    pattern: str
    lowercase: bool

    @classmethod
    def of(cls, model: Pipeline) -> Words | None:
        """Find the vocabulary of words in a fitted model; None where it has none."""
        scorers = [step for _, step in model.steps if isinstance(step, OutOfFoldScores)]
        for scorer in scorers:
            first = scorer.estimators_[0]
            parts = [step for _, step in first.steps] if isinstance(first, Pipeline) else [first]
            for part in parts:
                if isinstance(part, TfidfVectorizer) and part.analyzer == "word":
                    runs = part.vocabulary_
                    known = frozenset(word for run in runs for word in run.split(" "))
                    return cls(known, part.token_pattern, part.lowercase)
        return None

    def unknown(self, texts: pd.Series) -> npt.NDArray[np.float64]:
        r"""Give the share of the words at the beginning of each text that are not known.

        Only the first `BEGINNING` characters are looked at; NaN where they have no word.

        Examples
        --------
        >>> words = Words(frozenset({"good", "soup"}), r"\w+", lowercase=True)
        >>> words.unknown(pd.Series(["Good soup", "good tea", "!"])).tolist()
        [0.0, 0.5, nan]
        """
        starts = _beginnings(pa.array(texts, pa.large_string()))
        found, sizes = self._find(starts)
        known = np.bincount(np.repeat(np.arange(len(sizes)), sizes)[found], minlength=len(sizes))
        shares = np.full(len(sizes), np.nan)
        some = sizes > 0
        shares[some] = 1 - known[some] / sizes[some]
        return shares

    def _find(
        self, texts: pa.Array | pa.ChunkedArray
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Tell for each word of the texts whether it is known, and how many each text has."""
        if self.pattern == WORD and self.lowercase:
            numbers, sizes = self._numbers.find(texts)
            return numbers >= 0, sizes
        lowered = [text.lower() if self.lowercase else text for text in texts.to_pylist()]
        words = list(map(re.compile(self.pattern).findall, lowered))
        sizes = np.fromiter(map(len, words), np.int64, len(words))
        knows = map(self.known.__contains__, chain.from_iterable(words))
        return np.fromiter(knows, np.bool_, sizes.sum()), sizes

    @cached_property
    def _numbers(self) -> WordNumbers:
        return WordNumbers(dict.fromkeys(self.known, 0))


def _beginnings(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Give the first `BEGINNING` characters of each text, without a last word that goes on."""
    cut = pc.utf8_slice_codeunits(texts, 0, BEGINNING)
    whole = pc.replace_substring_regex(cut, " [^ ]*$", "")
    goes_on = pc.greater(pc.utf8_length(texts), BEGINNING)
    return pc.if_else(pc.and_(goes_on, pc.not_equal(whole, "")), whole, cut)


@dataclass(frozen=True)
class Look:
    """What there is to see in each row of a batch.

    Attributes
    ----------
    codes : dict of str to ndarray of int of shape (n_rows,)
        Bin of each row in each measure.
    n_bins : dict of str to int
    predicted : ndarray of int of shape (n_rows,)
    probabilities : ndarray of float of shape (n_rows, 3)
    unknown_words : ndarray of float of shape (n_rows,)
        Share of the text's words; NaN where it is not known.
    waves : ndarray of float of shape (n_rows, n_waves)
        Random features of the embedding; no column without one.
    """

    codes: Codes
    n_bins: dict[str, int]
    predicted: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    unknown_words: npt.NDArray[np.float64]
    waves: npt.NDArray[np.float32]

    def rows(self, chosen: npt.NDArray[Any]) -> Look:
        """Give some of the rows, by number or by a mask."""
        return Look(
            {name: codes[chosen] for name, codes in self.codes.items()},
            self.n_bins,
            self.predicted[chosen],
            self.probabilities[chosen],
            self.unknown_words[chosen],
            self.waves[chosen],
        )

    def seen(self) -> Seen:
        """Sum over the rows."""
        logs = np.log(np.clip(self.probabilities, 1e-15, None))
        return Seen(
            n_rows=len(self.predicted),
            counts={
                name: np.bincount(codes, minlength=self.n_bins[name])
                for name, codes in self.codes.items()
            },
            expected=Expected.of(self.predicted, self.probabilities),
            sums=np.array(
                [
                    self.probabilities.max(axis=1).sum(),
                    -(self.probabilities * logs).sum(),
                    np.nansum(self.unknown_words),
                    np.isfinite(self.unknown_words).sum(),
                ]
            ),
            waves=self.waves.sum(axis=0, dtype="float64"),
        )


@dataclass(frozen=True)
class Seen:
    """What was seen of any number of rows, in a size that does not depend on how many; adds up.

    Attributes
    ----------
    n_rows : int
    counts : dict of str to ndarray of int
        Rows in each bin of each measure.
    expected : Expected
        For the estimate of F1.
    sums : ndarray of shape (4,)
        Of confidence, of entropy (natural logarithm) and of the share of unknown words; and of
        how many texts that share is known.
    waves : ndarray of float
        Sums of the random features of the embedding.
    """

    n_rows: int
    counts: dict[str, npt.NDArray[np.int64]]
    expected: Expected
    sums: npt.NDArray[np.float64]
    waves: npt.NDArray[np.float64]

    def __add__(self, other: Seen) -> Seen:
        return Seen(
            self.n_rows + other.n_rows,
            {name: counts + other.counts[name] for name, counts in self.counts.items()},
            self.expected + other.expected,
            self.sums + other.sums,
            self.waves + other.waves,
        )

    @property
    def confidence(self) -> float:
        """Mean probability of the most probable class."""
        return float(self.sums[0] / self.n_rows)

    @property
    def entropy(self) -> float:
        """Mean entropy of the probabilities, in natural units: 0 to ln 3."""
        return float(self.sums[1] / self.n_rows)

    @property
    def unknown_words(self) -> float | None:
        """Mean share of unknown words in a text; None where no text has words."""
        return float(self.sums[2] / self.sums[3]) if self.sums[3] else None

    def to_dict(self) -> dict[str, Any]:
        """Give plain data."""
        expected = self.expected
        return {
            "n_rows": self.n_rows,
            "counts": {name: counts.tolist() for name, counts in self.counts.items()},
            "expected": {
                "counts": expected.counts.tolist(),
                "sums": expected.sums.tolist(),
                "products": expected.products.tolist(),
            },
            "sums": self.sums.tolist(),
            "waves": self.waves.tolist(),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Seen:
        """Read it back."""
        return cls(
            int(plain["n_rows"]),
            {name: np.asarray(counts, "int64") for name, counts in plain["counts"].items()},
            Expected(**{name: np.asarray(each) for name, each in plain["expected"].items()}),
            np.asarray(plain["sums"], "float64"),
            np.asarray(plain["waves"], "float64"),
        )


@dataclass(frozen=True)
class Reference:
    """What a model was judged on.

    Attributes
    ----------
    text : str
        Column of the texts.
    numbers, kinds : dict of str to Numbers or Kinds
        Bins of the features that the classifier is shown, before the steps that learn.
    outputs : dict of str to Numbers
        Bins of the probabilities, and of the share of unknown words.
    embedding : RandomFeatures or None
        None without an embedding.
    spread : tuple of 2 floats
        Traces of the covariance of the random features, and of its square.
    held_out : Seen
        The rows that training held out.
    confusion : ndarray of int of shape (3, 3)
        Of them; rows are true classes, columns are labels.
    """

    text: str
    numbers: dict[str, Numbers]
    kinds: dict[str, Kinds]
    outputs: dict[str, Numbers]
    embedding: RandomFeatures | None
    spread: tuple[float, float]
    held_out: Seen
    confusion: npt.NDArray[np.int64]

    @property
    def calibration(self) -> Calibration:
        """How right the probabilities of the rows held out were."""
        return Calibration(self.held_out.expected, self.confusion)

    @cached_property
    def measured(self) -> dict[str, float]:
        """F1 and accuracy of the rows held out, by name."""
        found = estimate(self.held_out.expected, self.calibration)
        return {name: found[name].value for name in MEASURES}

    def look(
        self, features: pd.DataFrame, predicted: pd.DataFrame, words: Words | None = None
    ) -> Look:
        """Look at a batch.

        Parameters
        ----------
        features : DataFrame of shape (n_rows, n_columns)
            What the feature pipeline made.
        predicted : DataFrame of shape (n_rows, n_columns)
            See `predict`.
        words : Words, optional
            Which words the model knows.
        """
        return _look(
            features,
            predicted,
            words,
            text=self.text,
            numbers=self.numbers,
            kinds=self.kinds,
            outputs=self.outputs,
            embedding=self.embedding,
        )

    def to_dict(self) -> dict[str, Any]:
        """Give plain data, as the artifact keeps it."""
        return {
            "format": FORMAT,
            "text": self.text,
            "numbers": {name: each.edges for name, each in self.numbers.items()},
            "kinds": {
                name: {"frequent": each.frequent, "rare": each.rare}
                for name, each in self.kinds.items()
            },
            "outputs": {name: each.edges for name, each in self.outputs.items()},
            "embedding": self.embedding.to_dict() if self.embedding is not None else None,
            "spread": list(self.spread),
            "held_out": self.held_out.to_dict(),
            "confusion": self.confusion.tolist(),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Reference | None:
        """Read it back; None where it is in a format that this version does not know."""
        if plain.get("format") != FORMAT:
            return None
        first, second = plain["spread"]
        return cls(
            text=plain["text"],
            numbers={name: Numbers(edges) for name, edges in plain["numbers"].items()},
            kinds={name: Kinds(**each) for name, each in plain["kinds"].items()},
            outputs={name: Numbers(edges) for name, edges in plain["outputs"].items()},
            embedding=RandomFeatures.from_dict(plain["embedding"]) if plain["embedding"] else None,
            spread=(first, second),
            held_out=Seen.from_dict(plain["held_out"]),
            confusion=np.asarray(plain["confusion"]),
        )


def _look(
    features: pd.DataFrame,
    predicted: pd.DataFrame,
    words: Words | None,
    *,
    text: str,
    numbers: Mapping[str, Numbers],
    kinds: Mapping[str, Kinds],
    outputs: Mapping[str, Numbers],
    embedding: RandomFeatures | None,
) -> Look:
    label = predicted["prediction"].to_numpy()
    texts = features[text].fillna("")
    codes: Codes = {LABEL: label, EMPTY: (texts == "").to_numpy().astype("int64")}
    n_bins = {LABEL: len(LABELS), EMPTY: 2}
    unknown = np.full(len(features), np.nan)
    if words is not None:
        unknown = words.unknown(texts)
    shown = predicted[PROBABILITIES].assign(**{UNKNOWN_WORDS: unknown})
    bins: list[tuple[str, Numbers | Kinds, pd.Series]] = [
        *((name, each, shown[name]) for name, each in outputs.items()),
        *((FEATURE + name, each, features[name]) for name, each in numbers.items()),
        *((FEATURE + name, each, features[name]) for name, each in kinds.items()),
    ]
    for name, each, values in bins:
        codes[name], n_bins[name] = each.codes(values), each.n_bins
        if isinstance(each, Kinds):
            unseen = UNSEEN + name.removeprefix(FEATURE)
            codes[unseen] = (codes[name] == each.unseen).astype("int64")
            n_bins[unseen] = 2
    waves = np.zeros((len(features), 0), dtype="float32")
    if embedding is not None:
        waves = embedding(features[embedding_columns(features)].to_numpy(dtype="float32"))
    return Look(
        codes,
        n_bins,
        label,
        predicted[PROBABILITIES].to_numpy(),
        unknown,
        waves,
    )


def build_reference(
    model: Pipeline,
    rows: pd.DataFrame,
    held_out: npt.NDArray[np.bool_],
    predicted: pd.DataFrame,
    target: npt.NDArray[np.int64],
    *,
    text: str,
) -> Reference:
    """Keep what later messages are to be held against.

    Parameters
    ----------
    model : Pipeline
        Fitted.
    rows : DataFrame of shape (n_rows, n_columns)
        What the feature pipeline made of all labelled rows.
    held_out : ndarray of bool of shape (n_rows,)
        Which of them the model has not seen.
    predicted : DataFrame of shape (n_held_out, n_columns)
        What `predict` makes of those.
    target : ndarray of int of shape (n_held_out,)
        Their classes.
    text : str
        Column of the texts.

    Returns
    -------
    Reference
    """
    shown = set(_shown(model, rows))
    training, new = rows.loc[~held_out], rows.loc[held_out]
    numbers = {
        name: Numbers(tenths(training[name].to_numpy(dtype="float64", na_value=np.nan)))
        for name in numeric_columns(rows)
        if name in shown
    }
    kinds = {name: Kinds.of(training[name]) for name in categorical_columns(rows) if name in shown}
    words = Words.of(model)
    # Of the rows held out: the model is surer of the training rows, and knows their words.
    outputs = {name: Numbers(tenths(predicted[name].to_numpy())) for name in PROBABILITIES}
    if words is not None:
        unknown = words.unknown(new[text].fillna(""))
        outputs[UNKNOWN_WORDS] = Numbers(tenths(unknown))
    columns = embedding_columns(rows)
    embedding = None
    if columns:
        embedding = RandomFeatures.drawn(new[columns].to_numpy(dtype="float32"))
    look = _look(
        new,
        predicted,
        words,
        text=text,
        numbers=numbers,
        kinds=kinds,
        outputs=outputs,
        embedding=embedding,
    )
    spread = (0.0, 0.0)
    if look.waves.shape[1] and len(new) > 1:
        covariance = np.cov(look.waves, rowvar=False)
        spread = (float(np.trace(covariance)), float((covariance**2).sum()))
    return Reference(
        text=text,
        numbers=numbers,
        kinds=kinds,
        outputs=outputs,
        embedding=embedding,
        spread=spread,
        held_out=look.seen(),
        confusion=confusion_matrix(target, look.predicted, labels=range(len(LABELS))),
    )


def _shown(model: Pipeline, rows: pd.DataFrame) -> Iterator[str]:
    """Give the columns of the feature pipeline that the model reads as numbers or kinds."""
    encoders = [step for _, step in model.steps if isinstance(step, ColumnTransformer)]
    if not encoders:
        yield from rows.columns
    for encoder in encoders:
        for name, _, columns in encoder.transformers_:
            if name != "remainder":
                yield from columns
