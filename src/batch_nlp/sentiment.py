"""The default embedder: how each sentence of a text is meant, and what the text is about.

A small convolutional network reads each sentence. It comes with the package, was taught general
English sentiment, and has never seen the data it is used on (its card says what it was made of).
All of its sums are whole numbers or halves that single precision holds exactly: a text has the same
vector to the last bit on any machine, in any batch, with any number of threads.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batch_nlp.embedders import (
    ASSETS,
    Embedder,
    Encoded,
    check_positive,
    fingerprint_of,
    verified_digests,
)
from batch_nlp.errors import ArtifactError, InputError
from batch_nlp.tokens import Words
from batch_nlp.workers import own_threads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

SHIPPED_NETWORK = ASSETS / "sentence_sentiment"
"""Folder of the network that comes with the package."""

NETWORK_FILE = "network.safetensors"
TOKENIZER_FILE = "tokenizer.json"

STATISTICS = (
    "mean",
    "mean_by_tokens",
    "lowest",
    "highest",
    "deviation",
    "first",
    "last",
    "share_positive",
    "share_negative",
    "mean_positive_part",
    "mean_negative_part",
    "two_lowest",
    "two_last",
    "log_sentences",
)
"""What the first columns of a vector say of the valences of a text's sentences."""

HIGHEST_ACTIVATION = 255
"""Activations are whole numbers from 0 to this."""

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+")
_LEANING = 0.15
_CHUNK = 512
_BLOCK_TOKENS = 2048
_DECIMALS = 6
_EXACT = 2**23
"""Below it single precision holds halves of whole numbers."""


class SentimentEmbedder(Embedder):
    """Embed a text by the valence and the content of its sentences.

    A sentence's valence lies between -1 (bad) and 1 (good). The vector of a text holds the
    `STATISTICS` of its sentences' valences, then the mean of its sentences' content vectors.
    A text without a known token has the zero vector.

    Parameters
    ----------
    path : str, optional
        Folder of a network; by default the one that comes with the package. Its files are
        checked against its ``digests.json``.
    max_tokens : int or None, default=1024
        Tokens read of each text; the rest is not. None reads all.

    Examples
    --------
    >>> embedder = SentimentEmbedder()
    >>> texts = ["Lovely staff. The soup was great!", "Rude staff. The soup was awful!"]
    >>> good, bad = embedder.encode(texts).vectors[:, 0]
    >>> bool(good > 0 > bad)
    True
    """

    def __init__(self, *, path: str | None = None, max_tokens: int | None = 1024) -> None:
        self.path = path
        self.max_tokens = max_tokens

    def _folder(self) -> Path:
        check_positive(self, "max_tokens", or_null=True)
        if self.path is None:
            return SHIPPED_NETWORK
        folder = Path(self.path)
        if not (folder / NETWORK_FILE).is_file():
            raise InputError(
                f"SentimentEmbedder: path must be the folder of a network, with {NETWORK_FILE} in "
                f"it; got '{self.path}'."
            )
        return folder

    @property
    def n_dims(self) -> int:
        """Length of a vector."""
        return len(STATISTICS) + _network(self._folder()).n_content

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return a vector for each text, and which texts were cut short.

        Parameters
        ----------
        texts : sequence of str
            May be empty, and so may each text.

        Returns
        -------
        Encoded
            `vectors` of shape (n_texts, n_dims) and `truncated` of shape (n_texts,).

        Raises
        ------
        InputError
            If `path` is no folder of a network, or `max_tokens` is below 1.
        ArtifactError
            If a file of the network is missing or damaged.
        """
        from threadpoolctl import threadpool_limits  # noqa: PLC0415

        network = _network(self._folder())
        texts = list(texts)
        vectors = np.zeros((len(texts), self.n_dims), dtype=np.float32)
        truncated = np.zeros(len(texts), dtype=np.bool_)

        def fill(start: int) -> None:
            chunk = slice(start, start + _CHUNK)
            vectors[chunk], truncated[chunk] = _encode(network, texts[chunk], self.max_tokens)

        # Tokens take a hundred times the room of their text: never those of a whole batch. One
        # thread a chunk is faster than several within its products.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(own_threads()) as threads:
            for _ in threads.map(fill, range(0, len(texts), _CHUNK)):
                pass
        return Encoded(vectors, truncated)

    def fingerprint(self) -> str:
        """Return a SHA-256 of all that decides the vectors, the same on every machine.

        Returns
        -------
        str
            64 hexadecimal digits, from the digests of the network's files and `max_tokens`.
        """
        digests = verified_digests(self._folder())
        return fingerprint_of("sentiment", digests, max_tokens=self.max_tokens)


def sentences(text: str) -> list[str]:
    """Split a text after ``.``, ``!`` and ``?`` with a space behind.

    Examples
    --------
    >>> sentences('Good. "Very good!" 3.5 stars')
    ['Good.', '"Very good!', '3.5 stars']
    """
    return [part for part in _SENTENCE_END.split(text) if part]


@dataclass(frozen=True)
class Convolution:
    """A quantized convolution over three neighbouring rows, and the rectifier behind it.

    Attributes
    ----------
    weights : ndarray of shape (3, n_in, n_out), float32
        Whole numbers: for the row before, the row itself, the one after.
    scale, shift : ndarray of shape (n_out,), float32
        From the exact sum to the activation.
    """

    weights: NDArray[np.float32]
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]

    @cached_property
    def filters(self) -> tuple[NDArray[np.float32], ...]:
        """The four matrices that stand in for the three, in halves of whole numbers."""
        before, here, after = self.weights
        both = before + after
        return before, (both + here) / 2, (both - here) / 2, after

    @property
    def largest_sum(self) -> float:
        """The largest that a product's sum can be: an input is a sum or a difference of two."""
        worst = max(np.abs(each).sum(axis=0).max() for each in self.filters)
        return float(worst) * 2 * HIGHEST_ACTIVATION

    def __call__(
        self,
        padded: NDArray[np.float32],
        *,
        out: NDArray[np.float32],
        room: NDArray[np.float32],
    ) -> None:
        """Work out the activations of the inner rows of `padded`.

        Two rows take four products and not six (Winograd's minimal filtering F(2, 3); Lavin and
        Gray, Fast Algorithms for Convolutional Neural Networks, 2016). With these weights and
        activations all of it is exact, so that the results are those of the plain sums.

        Parameters
        ----------
        padded : ndarray of shape (n_rows + 2, n_in), float32
            Whole numbers; the first and the last row only serve their neighbours. `n_rows` must
            be even.
        out : ndarray of shape (n_rows, n_out), float32
            Takes them: whole numbers from 0 to `HIGHEST_ACTIVATION`.
        room : ndarray of shape (3, n_rows / 2, n_in), float32
            Room to work in; `n_in` must be `n_out`.
        """
        before, added, subtracted, after = self.filters
        first, second = padded[:-2:2], padded[1:-2:2]
        third, fourth = padded[2::2], padded[3::2]
        even, odd = out[::2], out[1::2]
        rows, one, other = room
        np.matmul(np.add(second, third, out=rows), added, out=one)
        np.matmul(np.subtract(third, second, out=rows), subtracted, out=other)
        np.add(one, other, out=even)
        np.subtract(one, other, out=odd)
        even += np.matmul(np.subtract(first, third, out=rows), before, out=one)
        odd -= np.matmul(np.subtract(second, fourth, out=rows), after, out=one)
        self.rectify(out)

    def rectify(self, total: NDArray[np.float32]) -> None:
        """Turn exact sums into activations, in place."""
        total *= self.scale
        total += self.shift
        np.floor(total, out=total)
        np.clip(total, 0, HIGHEST_ACTIVATION, out=total)


@dataclass(frozen=True)
class Network:
    """From tokens to the valence and the content of sentences.

    All that a convolution adds up are whole numbers with sums below 2**24, or halves with sums
    below 2**23: single precision holds each of them exactly, in whatever order they are added.

    Attributes
    ----------
    words : Words
        Sentences to numbers of tokens.
    unknown : int or None
        Number of the token that stands for what is not known.
    tables : ndarray of shape (3, n_tokens + 1, n_out), float32
        What each token adds to the first convolution's sums as the neighbour before, as the
        token itself and as the neighbour after; the last row, of zeros, stands between sentences.
    first : Convolution
        The one whose products `tables` holds.
    further : tuple of Convolution
        Those that follow, one after the other.
    output, bias : ndarray of shape (2 * n_out, 1 + n_content) and (1 + n_content,), float64
        From the mean and the maximum of the activations to the results.
    """

    words: Words
    unknown: int | None
    tables: NDArray[np.float32]
    first: Convolution
    further: tuple[Convolution, ...]
    output: NDArray[np.float64]
    bias: NDArray[np.float64]

    @property
    def n_content(self) -> int:
        """Length of a sentence's content vector."""
        return len(self.bias) - 1

    def read(self, tokens: NDArray[np.int32], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Read sentences.

        Parameters
        ----------
        tokens : ndarray of shape (n_tokens,)
            Of all sentences, one after the other.
        lengths : ndarray of shape (n_sentences,)
            Tokens of each sentence, at least 1.

        Returns
        -------
        ndarray of shape (n_sentences, 1 + n_content)
            Valence, then content.
        """
        results = np.empty((len(lengths), len(self.bias)))
        starts = np.cumsum(lengths) - lengths
        for block in _blocks(lengths):
            places = starts[block][:, None] + np.arange(lengths[block[0]])
            results[block] = self._read(tokens[places])
        return results

    def _read(self, tokens: NDArray[np.int32]) -> NDArray[np.float64]:
        """Read sentences of one length; `tokens` has the shape (n_sentences, length)."""
        n_sentences, length = tokens.shape
        # A blank before the first sentence and after each one keeps them apart, and one more
        # makes the rows between the first and the last even in number.
        size = n_sentences * (length + 1)
        padded = np.full(size + 1 + (size - 1) % 2, self.tables.shape[1] - 1)
        own = slice(1, size + 1)
        padded[own].reshape(n_sentences, length + 1)[:, :length] = tokens
        # Few new arrays, and calls that let other threads work meanwhile.
        width = self.tables.shape[2]
        rows, further = np.zeros((2, len(padded), width), np.float32)
        room = np.empty((3, len(padded) // 2 - 1, width), np.float32)
        inner = rows[1:-1]
        product = room.reshape(-1, width)[: len(inner)]
        before, here, after = self.tables
        before.take(padded[:-2], axis=0, out=inner, mode="clip")
        inner += here.take(padded[1:-1], axis=0, out=product, mode="clip")
        inner += after.take(padded[2:], axis=0, out=product, mode="clip")
        self.first.rectify(inner)
        by_sentence = rows[own].reshape(n_sentences, length + 1, -1)
        by_sentence[:, length] = 0
        for convolve in self.further:
            convolve(rows, out=further[1:-1], room=room)
            rows, further = further, rows
            by_sentence = rows[own].reshape(n_sentences, length + 1, -1)
            by_sentence[:, length] = 0
        # The blanks add nothing, and no activation is below them.
        totals = by_sentence.sum(axis=1).astype(np.float64)
        highest = by_sentence.max(axis=1).astype(np.float64)
        results = np.hstack([totals / length, highest]) @ self.output + self.bias
        results[:, 0] = np.tanh(results[:, 0])
        # Double precision may differ in its last digits with the block: they are not kept.
        return np.round(results, _DECIMALS)


def _blocks(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Give the numbers of sentences of one length, about `_BLOCK_TOKENS` tokens at a time."""
    order = np.argsort(lengths, kind="stable")
    ends = np.flatnonzero(np.diff(lengths[order], append=-1)) + 1
    begin = 0
    for end in ends.tolist():
        step = max(_BLOCK_TOKENS // int(lengths[order[begin]]), 1)
        for start in range(begin, end, step):
            yield order[start : min(start + step, end)]
        begin = end


@lru_cache(maxsize=2)
def _network(folder: Path) -> Network:
    verified_digests(folder)
    from safetensors.numpy import load_file  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415

    tensors = load_file(folder / NETWORK_FILE)
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    first, *further = (
        Convolution(
            weights=tensors[f"convolution_{layer}.weights"].astype(np.float32),
            scale=tensors[f"convolution_{layer}.scale"],
            shift=tensors[f"convolution_{layer}.shift"],
        )
        for layer in range(sum(name.endswith(".weights") for name in tensors))
    )
    if any(layer.largest_sum >= _EXACT for layer in further):
        message = f"{folder}: a layer's weights are too large for exact sums; train it again."
        raise ArtifactError(message)
    embedding = np.pad(tensors["embedding"].astype(np.float32), ((0, 1), (0, 0)))
    return Network(
        words=Words(tokenizer),
        unknown=tokenizer.token_to_id("[UNK]"),
        tables=embedding @ first.weights,
        first=first,
        further=tuple(further),
        output=tensors["output"].astype(np.float64),
        bias=tensors["bias"].astype(np.float64),
    )


def _encode(
    network: Network, texts: list[str], max_tokens: int | None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    split = [sentences(text) for text in texts]
    owner = np.repeat(np.arange(len(texts)), [len(parts) for parts in split])
    flat, sizes = network.words.tokens(list(chain.from_iterable(split)))
    sentence = np.repeat(np.arange(len(sizes)), sizes)
    kept = np.ones(len(flat), dtype=np.bool_)
    n_tokens = np.bincount(owner, weights=sizes, minlength=len(texts)).astype(np.int64)
    if max_tokens is not None:
        place = np.arange(len(flat)) - (np.cumsum(n_tokens) - n_tokens)[owner[sentence]]
        kept = place < max_tokens
    if network.unknown is not None:
        kept &= flat != network.unknown
    lengths = np.bincount(sentence[kept], minlength=len(sizes))
    some = lengths > 0
    results = network.read(flat[kept], lengths[some])
    vectors = np.zeros((len(texts), len(STATISTICS) + network.n_content), dtype=np.float32)
    if some.any():
        present, vectors_present = summarize(results, lengths[some], owner[some])
        vectors[present] = vectors_present
    truncated = (
        np.zeros(len(texts), dtype=np.bool_) if max_tokens is None else n_tokens > max_tokens
    )
    return vectors, truncated


def summarize(
    results: NDArray[np.float64], lengths: NDArray[np.int64], owner: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Summarize the sentences of each text.

    Parameters
    ----------
    results : ndarray of shape (n_sentences, 1 + n_content)
        Valence and content of each sentence.
    lengths : ndarray of shape (n_sentences,)
        Tokens of each sentence.
    owner : ndarray of shape (n_sentences,)
        Number of the text that the sentence is from, ascending.

    Returns
    -------
    texts : ndarray of shape (n_texts,)
        The numbers in `owner`, each once.
    vectors : ndarray of shape (n_texts, len(STATISTICS) + n_content)

    Examples
    --------
    >>> found = summarize(np.array([[0.5, 1.0], [-0.5, 3.0]]), np.array([4, 4]), np.array([0, 0]))
    >>> dict(zip(STATISTICS, found[1][0].round(2).tolist()))["deviation"], found[1][0, -1].item()
    (0.5, 2.0)
    """
    texts, starts, counts = np.unique(owner, return_index=True, return_counts=True)
    valence = results[:, 0]

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = np.add.reduceat(values.astype(np.float64), starts, axis=0)
        return total / (counts if values.ndim == 1 else counts[:, None])

    average = mean(valence)
    spread = np.sqrt(mean((valence - np.repeat(average, counts)) ** 2))
    ascending = valence[np.lexsort((valence, owner))]
    last = starts + counts - 1
    second = np.minimum(starts + 1, last)
    before_last = np.maximum(last - 1, starts)
    by_tokens = np.add.reduceat(valence * lengths, starts) / np.add.reduceat(lengths, starts)
    statistics = np.column_stack(
        [
            average,
            by_tokens,
            ascending[starts],
            ascending[last],
            spread,
            valence[starts],
            valence[last],
            mean(valence > _LEANING),
            mean(valence < -_LEANING),
            mean(np.maximum(valence, 0)),
            mean(np.maximum(-valence, 0)),
            (ascending[starts] + ascending[second]) / 2,
            (valence[before_last] + valence[last]) / 2,
            np.log1p(counts),
        ]
    )
    return texts, np.hstack([statistics, mean(results[:, 1:])])
