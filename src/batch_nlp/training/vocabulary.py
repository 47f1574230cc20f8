"""TF-IDF of words and pairs of words, found and looked up many texts at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.utils.validation import check_is_fitted

from batch_nlp.tables import in_one_piece

WORD = TfidfVectorizer().token_pattern
"""What scikit-learn's vectorizers take for a word."""
_TEXTS = 1000
"""Texts looked up together; their words take a hundred times the room of the result."""


_SHORT = re.compile(r"\w{2,16}", re.ASCII)
_WORDS = re.compile(WORD)
_SIGMA = "\N{GREEK CAPITAL LETTER SIGMA}".encode()
_NOT_ASCII = 128
_BREAK = "\n"
"""Stands between texts: no word goes over it."""
_HALF = 8
"""Bytes that are compared at once; a short word has at most twice as many."""

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
        documents = raw_documents if isinstance(raw_documents, Sized) else list(raw_documents)
        texts = _arrow(documents) if self._is_plain() else None
        if texts is None or not len(texts):
            return super().transform(documents)
        lookup = self._lookup()
        starts = range(0, len(texts), _TEXTS)
        parts = [lookup.counts(texts.slice(start, _TEXTS)) for start in starts]
        counts = sparse.vstack(parts, format="csr")
        return self._tfidf.transform(counts.astype(self.dtype), copy=False)

    def _is_plain(self) -> bool:
        return (
            self.input == "content"
            and self.encoding == "utf-8"
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
    columns: npt.NDArray[np.int32]
    pairs: pd.Index
    pair_columns: npt.NDArray[np.int32]

    @classmethod
    def of(cls, vocabulary: dict[str, int]) -> _Lookup:
        split = {run: run.split(" ") for run in vocabulary}
        words = dict.fromkeys(chain.from_iterable(split.values()))
        numbers = {word: number for number, word in enumerate(words)}
        columns = np.full(len(numbers) + 1, -1, dtype=np.int32)
        found = []
        for run, parts in split.items():
            if len(parts) == 1:
                columns[numbers[run]] = vocabulary[run]
            else:
                first, second = (numbers[word] for word in parts)
                found.append((first * len(numbers) + second, vocabulary[run]))
        pairs, pair_columns = np.array(found, dtype=np.int64).reshape(-1, 2).T
        index = pd.Index(pairs)
        return cls(vocabulary, WordNumbers(numbers), columns, index, pair_columns.astype(np.int32))

    def counts(self, texts: pa.Array | pa.ChunkedArray) -> sparse.csr_matrix:
        """Count the known words and pairs of each text; shape (n_texts, n_features)."""
        numbers, sizes = self.words.find(texts)
        n_features = len(self.vocabulary)
        # Short numbers are sorted faster.
        kind = np.min_scalar_type((len(texts) + 1) * n_features)
        firsts = (np.arange(len(texts) + 1) * n_features).astype(kind)
        row = np.repeat(firsts[:-1], sizes)
        single = self.columns[numbers]
        alone = np.flatnonzero(single >= 0)
        known = numbers >= 0
        both = np.flatnonzero(known[:-1] & known[1:] & (row[:-1] == row[1:]))
        pair = numbers[both] * np.int64(len(self.words.numbers)) + numbers[both + 1]
        place = self.pairs.get_indexer(pd.Index(pair, copy=False))
        met = np.flatnonzero(place >= 0)
        cells = np.empty(len(alone) + len(met), kind)
        cells[: len(alone)] = row[alone] + single[alone].astype(kind)
        cells[len(alone) :] = row[both[met]] + self.pair_columns[place[met]].astype(kind)
        cells.sort()
        begins = np.flatnonzero(np.append(len(cells) > 0, cells[1:] != cells[:-1]))
        distinct, times = cells[begins], np.diff(begins, append=len(cells))
        ends = np.searchsorted(distinct, firsts)
        shape = (len(texts), n_features)
        return sparse.csr_matrix((times, distinct % n_features, ends), shape=shape)


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
    >>> texts = pa.array(["Good, hot soup", "", "soup \u00e0 la SOUP"])
    >>> [each.tolist() for each in known.find(texts)]
    [[0, -1, 1, 1, -1, 1], [3, 0, 3]]
    """

    numbers: dict[str, int]

    def find(
        self, texts: pa.Array | pa.ChunkedArray
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Find the words of texts, capitals lowered.

        Parameters
        ----------
        texts : Array or ChunkedArray of str
            None of them missing.

        Returns
        -------
        numbers : ndarray of shape (n_words,)
            Of the words of all texts in order, -1 for one without a number.
        sizes : ndarray of shape (n_texts,)
            How many words each text has.
        """
        codes, begins = _joined(texts)
        foreign = codes >= _NOT_ASCII
        places = np.flatnonzero(foreign)
        if ((codes[places] == _SIGMA[0]) & (codes[places + 1] == _SIGMA[1])).any():
            # The one letter that is lowered by what is around it.
            return self.find(pa.array([text.lower() for text in texts.to_pylist()]))
        inside = _in_word(codes) | foreign
        edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
        starts, lengths = edges[::2], edges[1::2] - edges[::2]
        whole = np.flatnonzero(lengths >= 2)
        starts, lengths = starts[whole], lengths[whole]
        numbers, sure = self._short.find(*_ends(codes, starts, lengths))
        sure &= lengths <= 2 * _HALF
        sure[np.searchsorted(starts, places, "right") - 1] = False
        # One by one: long words, those whose numbers meet, and what is not all ASCII, which may
        # be several words or none.
        unsure = np.flatnonzero(~sure)
        n_words = np.ones(len(starts), np.int64)
        if len(unsure):
            begin, end = starts[unsure], (starts + lengths)[unsure]
            found = self._one_by_one(codes.tobytes(), begin.tolist(), end.tolist())
            n_words[unsure] = list(map(len, found))
            numbers = np.repeat(numbers, n_words)
            numbers[np.repeat(~sure, n_words)] = list(chain.from_iterable(found))
        ends = np.append(0, np.cumsum(n_words))
        return numbers, np.diff(ends[np.searchsorted(starts, begins)])

    def _one_by_one(self, data: bytes, begin: list[int], end: list[int]) -> list[list[int]]:
        """Give the numbers of the words in each of some runs of characters."""
        found: dict[bytes, list[int]] = {}
        runs = [data[first:last] for first, last in zip(begin, end, strict=True)]
        for run in dict.fromkeys(runs):
            words = _WORDS.findall(run.decode().lower())
            found[run] = [self.numbers.get(word, -1) for word in words]
        return [found[run] for run in runs]

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
    tails : ndarray of shape (n_words + 1,)
        The second number; together with the mixed one it gives the first. The last is no word's.
    numbers : ndarray of shape (n_words + 1,)
        Of each word; the last is -1, that of no word.
    """

    mixed: pd.Index
    tails: npt.NDArray[np.uint64]
    numbers: npt.NDArray[np.int32]

    @classmethod
    def of(cls, numbers: dict[str, int]) -> _ShortWords:
        short = {word: number for word, number in numbers.items() if _SHORT.fullmatch(word)}
        both = np.array(list(short), f"S{2 * _HALF}").view("<u8").reshape(-1, 2)
        mixed = pd.Index(_mixed(both[:, 0], both[:, 1]))
        first = ~mixed.duplicated()
        tails = np.append(both[first, 1], np.uint64(0))
        return cls(
            mixed[first],
            tails,
            np.append(np.array(list(short.values()), np.int32)[first], np.int32(-1)),
        )

    def find(
        self, head: npt.NDArray[np.uint64], tail: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Give the numbers of words, -1 for a new one, and whether that is sure."""
        place = self.mixed.get_indexer(pd.Index(_mixed(head, tail), copy=False))
        return self.numbers[place], (self.tails[place] == tail) | (place < 0)


def _joined(
    texts: pa.Array | pa.ChunkedArray,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Put texts one after the other, the capitals of ASCII lowered, a break around each.

    Returns
    -------
    codes : ndarray of shape (n_bytes,)
        UTF-8, behind the last text as many breaks as bytes are read at once.
    begins : ndarray of shape (n_texts + 1,)
        The place of each text's first byte, and of the one that would come.
    """
    nothing, between = (pa.scalar(each, pa.large_string()) for each in ("", _BREAK))
    whole = in_one_piece(texts).cast(pa.large_string())
    broken = pc.binary_join_element_wise(whole, nothing, between)
    begins = np.append(1, 1 + np.cumsum(pc.binary_length(broken).to_numpy()))
    codes = np.full(begins[-1] + 2 * _HALF, ord(_BREAK), np.uint8)
    if len(broken):
        _, offsets, data = broken.buffers()
        first = np.frombuffer(offsets, np.int64)[broken.offset]
        codes[1 : begins[-1]] = np.frombuffer(data, np.uint8)[first : first + begins[-1] - 1]
    # Not by Arrow's ascii_lower, which garbles an array whose first text is not at its beginning.
    capital = codes - np.uint8(ord("A")) < len(ascii_uppercase)
    codes += capital.view(np.uint8) * np.uint8(ord("a") - ord("A"))
    return codes, begins


def _ends(
    codes: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Give the first 8 bytes of words and the next 8, as numbers, the lowest byte first."""
    read = np.ndarray(len(codes) - _HALF + 1, "<u8", codes, strides=(1,))
    head = read[starts] & _FIRST_BYTES[np.minimum(lengths, _HALF)]
    tail = np.zeros_like(head)
    longer = np.flatnonzero(lengths > _HALF)
    rest = np.minimum(lengths[longer] - _HALF, _HALF)
    tail[longer] = read[starts[longer] + _HALF] & _FIRST_BYTES[rest]
    return head, tail


def _in_word(lowered: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Tell which ASCII characters are letters, digits and underscores; there are no capitals."""
    letter = lowered - np.uint8(ord("a")) < len(ascii_lowercase)
    digit = lowered - np.uint8(ord("0")) < len(digits)
    inside: npt.NDArray[np.bool_] = letter | digit | (lowered == ord("_"))
    return inside


def _arrow(documents: Any) -> pa.Array | pa.ChunkedArray | None:
    """Give texts as Arrow holds them; None where it does not hold such texts."""
    if not isinstance(documents, list | tuple | np.ndarray | pd.Series | pd.Index):
        return None
    try:
        texts = pa.array(documents, pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        return None
    return texts if not texts.null_count else None


def _mixed(head: npt.NDArray[np.uint64], tail: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return head * np.uint64(0x9E3779B97F4A7C15) + tail
