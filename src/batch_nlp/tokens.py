"""Tokens of texts, each word tokenized once."""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        self._known: dict[str, list[int]] = {}
        self._size = 0

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the numbers of the tokens of each text; several threads may call it."""
        split = [text.split(" ") for text in texts]
        known = self._known
        new = {word for words in split for word in words if word not in known}
        size = sum(map(len, new))
        if self._size + size > _MOST_CHARACTERS:
            # A new one: other threads may still be looking words up in the old one.
            self._known = known = {}
            self._size = 0
            new = set(chain.from_iterable(split))
            size = sum(map(len, new))
        ordered = list(new)
        encodings = self.tokenizer.encode_batch_fast(ordered, add_special_tokens=False)
        known.update(zip(ordered, (encoding.ids for encoding in encodings), strict=True))
        self._size += size
        return [list(chain.from_iterable(map(known.__getitem__, words))) for words in split]
