"""Tokens of texts, each word tokenized once."""

from __future__ import annotations

import json
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_MOST_CHARACTERS = 2_000_000
"""Of the words that are known, about a quarter of a million of them."""


def reads_word_by_word(tokenizer: Any) -> bool:
    """Tell whether a tokenizer is of BERT's kind, which looks at one word at a time.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
    """
    about = json.loads(tokenizer.to_str())
    parts = ("normalizer", "pre_tokenizer", "model")
    kinds = [(about.get(part) or {}).get("type") for part in parts]
    return kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]


class Tokens(NamedTuple):
    """The tokens of some texts.

    Attributes
    ----------
    ids : ndarray of shape (n_tokens,), int32
        Numbers of the tokens, those of all texts one after the other.
    sizes : ndarray of shape (n_texts,), int64
        How many each text has.
    """

    ids: NDArray[np.int32]
    sizes: NDArray[np.int64]


def tokenized(tokenizer: Any, texts: Sequence[str]) -> Tokens:
    """Give the tokens of each text as a tokenizer makes them, none added at the ends.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
    texts : sequence of str
    """
    found = [each.ids for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    return Tokens(
        np.fromiter(chain.from_iterable(found), np.int32),
        np.fromiter(map(len, found), np.int64, len(found)),
    )


class Words:
    """A tokenizer that reads each word once and then knows it.

    BERT's way of making tokens looks at what stands between two spaces alone, so that a text's
    tokens are those of its words, one after the other.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Of BERT's kind, with neither truncation nor padding.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._known = _Known()

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """Give the tokens of each text; several threads may call it."""
        split = [text.split(" ") for text in texts]
        words = list(chain.from_iterable(split))
        known = self._known
        new = set(words).difference(known.numbers)
        if new and known.size + sum(map(len, new)) > _MOST_CHARACTERS:
            # A new one: other threads may still be looking words up in the old one.
            known = self._known = _Known()
            new = set(words)
        if new:
            ordered = list(new)
            known.add(ordered, tokenized(self.tokenizer, ordered))
        numbers = np.fromiter(map(known.numbers.__getitem__, words), np.int64, len(words))
        ids, ends = known.tokens
        lengths = np.diff(ends)[numbers]
        places = np.cumsum(lengths)
        shifts = np.repeat(ends[numbers] - (places - lengths), lengths)
        counts = np.fromiter(map(len, split), np.int64, len(split))
        sizes = np.diff(np.append(0, places)[np.append(0, np.cumsum(counts))])
        return Tokens(ids[shifts + np.arange(len(shifts))], sizes)


class _Known:
    """Words by number, and their tokens.

    Attributes
    ----------
    numbers : dict of str to int
    tokens : tuple of ndarray
        The tokens of all words, and where those of each end: the first entry is 0.
    size : int
        Characters of the words.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.tokens = np.empty(0, np.int32), np.zeros(1, np.int64)
        self.size = 0
        self._lock = Lock()

    def add(self, words: Sequence[str], tokens: Tokens) -> None:
        """Learn words; those that another thread has learned meanwhile keep their number."""
        with self._lock:
            ids, ends = self.tokens
            first = len(ends) - 1
            # Before the numbers: whoever has a word's number finds its tokens.
            self.tokens = (
                np.concatenate([ids, tokens.ids]),
                np.concatenate([ends, ends[-1] + np.cumsum(tokens.sizes)]),
            )
            for number, word in enumerate(words, start=first):
                self.numbers.setdefault(word, number)
            self.size += sum(map(len, words))
