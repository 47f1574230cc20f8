"""TF-IDF of words and pairs of words, found and looked up many texts at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.utils.validation import check_is_fitted

WORD = TfidfVectorizer().token_pattern
"""What scikit-learn's vectorizers take for a word."""
_TEXTS = 1000
"""Texts looked up together; their words take a hundred times the room of the result."""


_SHORT = re.compile(r"\w{2,16}", re.ASCII)
_NOT_ASCII = 128
_IN_WORD = np.array([chr(code).isalnum() or chr(code) == "_" for code in range(_NOT_ASCII + 1)])
_HALF = 8
"""Characters that are compared at once; a short word has at most twice as many."""

_FIRST_BYTES = np.array([(1 << 8 * n) - 1 for n in range(_HALF)] + [2**64 - 1], np.uint64)
"""What keeps the first 0 to 8 bytes of a number whose lowest byte comes first."""


class NgramVectorizer(TfidfVectorizer):  # type: ignore[misc]
    """scikit-learn's `TfidfVectorizer`, several times as fast on texts it was not fitted to.

    Words and pairs of words are looked up by number and all at once, with the same weights to the
    last bit. With another analyzer than words, another pattern of a word, accents stripped, stop
    words or runs of three words, scikit-learn's own way is taken.

    Examples
    --------
    >>> texts = ["good soup", "good good tea", "no soup"]
    >>> fast = NgramVectorizer(ngram_range=(1, 2)).fit(texts)
    >>> plain = TfidfVectorizer(ngram_range=(1, 2)).fit(texts)
    >>> new = ["Good soup, good soup.", "", "unheard"]
    >>> abs(fast.transform(new) - plain.transform(new)).max().item()
    0.0
    """

    def transform(self, raw_documents: Iterable[str]) -> Any:
        """Give the TF-IDF weights of texts.

        Parameters
        ----------
        raw_documents : iterable of str of length n_texts
            Texts.

        Returns
        -------
        sparse matrix of shape (n_texts, n_features)

        Raises
        ------
        ValueError
            If there is no text.
        """
        check_is_fitted(self)
        texts = list(raw_documents)
        if not texts or not self._is_plain():
            return super().transform(texts)
        lookup = self._lookup()
        parts = [
            lookup.counts([text.lower() for text in texts[start : start + _TEXTS]])
            for start in range(0, len(texts), _TEXTS)
        ]
        counts = sparse.vstack(parts, format="csr")
        return self._tfidf.transform(counts.astype(self.dtype), copy=False)

    def _is_plain(self) -> bool:
        return (
            self.input == "content"
            and self.analyzer == "word"
            and self.lowercase
            and not self.binary
            and self.vocabulary is None
            and set(self.ngram_range) <= {1, 2}
            and self.preprocessor is self.tokenizer is self.strip_accents is self.stop_words is None
            and self.token_pattern == WORD
        )

    def _lookup(self) -> _Lookup:
        # Derived from the vocabulary, so a copy makes its own.
        found: _Lookup | None = self.__dict__.get("_looked_up")
        if found is None or found.vocabulary is not self.vocabulary_:
            found = self._looked_up = _Lookup.of(self.vocabulary_)
        return found

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_looked_up", None)
        return state


@dataclass(frozen=True)
class _Lookup:
    """Columns of words by number, and of pairs by the numbers of their words.

    Attributes
    ----------
    vocabulary : dict of str to int
        Columns of words and of pairs of words.
    words : WordNumbers
        Of every word.
    columns : ndarray of shape (n_words + 1,)
        Of each word on its own, -1 where it has none; the last is that of no word.
    pairs : pandas.Index
        Of each pair the first number times all, plus the second number.
    pair_columns : ndarray of shape (n_pairs,)
        Of each pair.
    """

    vocabulary: dict[str, int]
    words: WordNumbers
    columns: npt.NDArray[np.int64]
    pairs: pd.Index
    pair_columns: npt.NDArray[np.int64]

    @classmethod
    def of(cls, vocabulary: dict[str, int]) -> _Lookup:
        split = {run: run.split(" ") for run in vocabulary}
        words = dict.fromkeys(chain.from_iterable(split.values()))
        numbers = {word: number for number, word in enumerate(words)}
        columns = np.full(len(numbers) + 1, -1, dtype=np.int64)
        found = []
        for run, parts in split.items():
            if len(parts) == 1:
                columns[numbers[run]] = vocabulary[run]
            else:
                first, second = (numbers[word] for word in parts)
                found.append((first * len(numbers) + second, vocabulary[run]))
        pairs, pair_columns = np.array(found, dtype=np.int64).reshape(-1, 2).T
        return cls(vocabulary, WordNumbers(numbers), columns, pd.Index(pairs), pair_columns)

    def counts(self, texts: list[str]) -> sparse.csr_matrix:
        """Count the known words and pairs of each text; shape (n_texts, n_features)."""
        numbers, sizes = self.words.find(texts)
        text = np.repeat(np.arange(len(texts)), sizes)
        first, second = numbers[:-1], numbers[1:]
        both = (first >= 0) & (second >= 0) & (text[:-1] == text[1:])
        sought = first[both] * len(self.words.numbers) + second[both]
        place = self.pairs.get_indexer(pd.Index(sought))
        single = self.columns[numbers]
        column = np.concatenate([single[single >= 0], self.pair_columns[place[place >= 0]]])
        row = np.concatenate([text[single >= 0], text[:-1][both][place >= 0]])
        n_features = len(self.vocabulary)
        # Short numbers are sorted faster.
        kind = np.min_scalar_type((len(texts) + 1) * n_features)
        cells, times = np.unique((row * n_features + column).astype(kind), return_counts=True)
        ends = np.searchsorted(cells, (np.arange(len(texts) + 1) * n_features).astype(kind))
        return sparse.csr_matrix((times, cells % n_features, ends), shape=(len(texts), n_features))


@dataclass(frozen=True)
class WordNumbers:
    """Numbers of words, looked up in many texts at once.

    A word is what scikit-learn's vectorizers take for one: two or more letters, digits and
    underscores.

    Attributes
    ----------
    numbers : dict of str to int
        Of the words, lowered.

    Examples
    --------
    >>> known = WordNumbers({"good": 0, "soup": 1})
    >>> [each.tolist() for each in known.find(["good, hot soup", "", "soup \u00e0 la soup"])]
    [[0, -1, 1, 1, -1, 1], [3, 0, 3]]
    """

    numbers: dict[str, int]

    def find(self, texts: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Find the words of texts in which capitals are lowered already.

        Returns
        -------
        numbers : ndarray of shape (n_words,)
            Of the words of all texts in order, -1 for one without a number.
        sizes : ndarray of shape (n_texts,)
            How many words each text has.
        """
        plain = np.fromiter(map(str.isascii, texts), np.bool_, len(texts))
        sizes = np.empty(len(texts), np.int64)
        some, sizes[plain] = self._find([text for text in texts if text.isascii()])
        if plain.all():
            return some, sizes
        # Apart, for they take four times the room.
        others, sizes[~plain] = self._find([text for text in texts if not text.isascii()])
        numbers = np.empty(sizes.sum(), np.int64)
        of_plain = np.repeat(plain, sizes)
        numbers[of_plain], numbers[~of_plain] = some, others
        return numbers, sizes

    def _find(self, texts: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        # A blank on both sides of each text, and behind the last as many as are read at once.
        joined = "\n".join(["", *texts, *[""] * 2 * _HALF])
        characters, inside = _characters(joined)
        edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
        starts, lengths = edges[::2], edges[1::2] - edges[::2]
        whole = lengths >= 2
        starts, lengths = starts[whole], lengths[whole]
        begins = np.cumsum([1, *(len(text) + 1 for text in texts)])
        sizes = np.diff(np.searchsorted(starts, begins))
        read = np.ndarray(len(characters) - _HALF + 1, "<u8", characters, strides=(1,))
        head = read[starts] & _FIRST_BYTES[np.minimum(lengths, _HALF)]
        tail = read[starts + _HALF] & _FIRST_BYTES[np.clip(lengths - _HALF, 0, _HALF)]
        numbers, sure = self._short.find(head, tail)
        unsure = ~sure | (lengths > 2 * _HALF)
        if not joined.isascii():
            foreign = np.append(0, np.cumsum(characters == _NOT_ASCII))
            unsure |= foreign[starts + lengths] > foreign[starts]
        for place in np.flatnonzero(unsure).tolist():
            start = int(starts[place])
            numbers[place] = self.numbers.get(joined[start : start + int(lengths[place])], -1)
        return numbers, sizes

    @cached_property
    def _short(self) -> _ShortWords:
        return _ShortWords.of(self.numbers)


@dataclass(frozen=True)
class _ShortWords:
    """ASCII words of at most 16 characters, each as two numbers that its bytes make.

    Attributes
    ----------
    mixed : pandas.Index
        One number made of the two; a word with that of an earlier one is left out.
    heads, tails : ndarray of shape (n_words,)
        The two numbers.
    numbers : ndarray of shape (n_words,)
        Of each word.
    """

    mixed: pd.Index
    heads: npt.NDArray[np.uint64]
    tails: npt.NDArray[np.uint64]
    numbers: npt.NDArray[np.int64]

    @classmethod
    def of(cls, numbers: dict[str, int]) -> _ShortWords:
        short = {word: number for word, number in numbers.items() if _SHORT.fullmatch(word)}
        both = np.array(list(short), f"S{2 * _HALF}").view("<u8").reshape(-1, 2)
        mixed = pd.Index(_mixed(both[:, 0], both[:, 1]))
        first = ~mixed.duplicated()
        heads, tails = both[first].T.copy()
        return cls(mixed[first], heads, tails, np.array(list(short.values()), np.int64)[first])

    def find(
        self, head: npt.NDArray[np.uint64], tail: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Give the numbers of words, -1 for a new one, and whether that is sure."""
        place = self.mixed.get_indexer(pd.Index(_mixed(head, tail)))
        numbers = np.full(len(place), -1, np.int64)
        met = np.flatnonzero(place >= 0)
        place = place[met]
        same = (self.heads[place] == head[met]) & (self.tails[place] == tail[met])
        numbers[met[same]] = self.numbers[place[same]]
        sure = np.ones(len(numbers), np.bool_)
        sure[met[~same]] = False
        return numbers, sure


def _characters(text: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Give the ASCII code of each character, or `_NOT_ASCII`, and whether it may be in a word."""
    if text.isascii():
        characters = np.frombuffer(text.encode("ascii"), np.uint8)
        return characters, _IN_WORD[characters]
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    characters = np.minimum(codes, _NOT_ASCII).astype(np.uint8)
    inside = _IN_WORD[characters]
    foreign = characters == _NOT_ASCII
    distinct, which = np.unique(codes[foreign], return_inverse=True)
    inside[foreign] = np.array([chr(code).isalnum() for code in distinct.tolist()])[which]
    return characters, inside


def _mixed(head: npt.NDArray[np.uint64], tail: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return head * np.uint64(0x9E3779B97F4A7C15) + tail
