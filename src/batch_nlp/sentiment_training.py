"""How the network behind `batch_nlp.sentiment` is made, for those who maintain it.

    python -m batch_nlp.sentiment_training RATINGS OUTPUT

A transformer (the packaged all-MiniLM-L6-v2) learns to rate sentences as people rated them. It
then rates many more texts than people did, and a small convolutional network learns to do as the
transformer does. Needs the extra `transformers`; takes about half an hour on two cores.

    python -m batch_nlp.sentiment_training RATINGS OUTPUT --adapter

makes what `experiment=best` begins with: the same transformer, but what it learns is kept as a
small change of its weights. Takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from batch_nlp.embedders import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    DIGESTS_FILE,
    SHIPPED_MODEL,
    file_digests,
    require_extra,
    sentence_folder,
)
from batch_nlp.errors import InputError
from batch_nlp.sentiment import HIGHEST_ACTIVATION, NETWORK_FILE, TOKENIZER_FILE
from batch_nlp.tables import atomic_folder, write_json

RATING_FILES = (
    "movieReviewSnippets_GroundTruth.txt",
    "amazonReviewSnippets_GroundTruth.txt",
    "nytEditorialSnippets_GroundTruth.txt",
    "tweets_GroundTruth.txt",
)
"""Sentences and their mean rating by people, from -4 to 4: id, rating and text, by tabs."""

HIGHEST_WEIGHT = 127
"""Weights are whole numbers up to this size."""

_RATING_SCALE = 4.0
_LONGEST = 96
_ADAPTER_RANK = 16
_THINGS = """
food service staff room product app order delivery support agent price place waiter driver
package hotel call refund screen battery soup coffee burger manager location team website meal
experience item flight doctor course
"""
_JUDGEMENTS = """
good great okay bad terrible fine amazing slow rude friendly delicious cold broken late helpful
average decent awful excellent bland fresh dirty clean expensive cheap nice
"""
_FRAMES = """\
{word}
very {word}
not {word}
so {word}
the {thing} was {word}
the {thing} was not {word}
the {thing} is {word}
{word} {thing}
we had the {word}
it was {word}
i was {word}
they were {word}
too {word}
the {thing} could have been more {word}
{word}, but the {thing} was {one}
the {thing} was {one} but {word}
nothing {word} about it
how {word}
would {word} again
never {word}
{thing} and {word}
really {word} {thing}
a bit {word}
they {word} us
i {word} it
my {word} was {one}
don't {word}
they didn't {word}
always {word}
the {word} was {one}
the {word} was okay
{word} was {one} and the {thing} was {other}
i will not {word}
best {word}
worst {word}
love the {word}
overpriced {word}"""


@dataclass(frozen=True)
class Rated:
    """Texts, and what is known of them.

    Attributes
    ----------
    texts : list of str
    rating : ndarray of shape (n_texts,)
        By people, from -1 to 1; NaN where none is known.
    valence : ndarray of shape (n_texts,)
        By the transformer, from -1 to 1.
    content : ndarray of shape (n_texts, n_dims)
        The transformer's own vector of the text.
    """

    texts: list[str]
    rating: NDArray[np.float32]
    valence: NDArray[np.float32]
    content: NDArray[np.float32]


def rated_sentences(folder: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Read the sentences that people rated.

    Parameters
    ----------
    folder : Path
        With `RATING_FILES`: the folder ``hutto_ICWSM_2014`` in the source distribution of
        vaderSentiment 3.3.2, under ``additional_resources``.

    Returns
    -------
    texts : list of str
    ratings : ndarray of shape (n_texts,)
        From -1 to 1.

    Raises
    ------
    InputError
        If a file is not there.
    """
    texts, ratings = [], []
    for name in RATING_FILES:
        path = folder / name
        if not path.is_file():
            raise InputError(f"RATINGS must be a folder with {name} in it; got '{folder}'.")
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            _, rating, text = line.split("\t", maxsplit=2)
            texts.append(text)
            ratings.append(float(rating) / _RATING_SCALE)
    return texts, np.array(ratings, dtype=np.float32)


def further_texts(
    texts: Sequence[str], vocabulary: Sequence[str], rng: np.random.Generator
) -> Iterator[str]:
    """Make more texts: parts of sentences, some with other words in them, and words in frames.

    Parameters
    ----------
    texts : sequence of str
        Whole sentences.
    vocabulary : sequence of str
        Words that the network is to know; each comes in four frames.
    rng : Generator
        Decides.

    Examples
    --------
    >>> made = list(further_texts(["All is well"], ["soup"], np.random.default_rng(0)))
    >>> len(made), sum("soup" in text for text in made) >= 4
    (11, True)
    """
    known = np.array(sorted({word.lower() for text in texts for word in text.split()}))
    for text in texts:
        words = text.split()
        for swap in (False,) * 5 + (True,) * 2:
            length = int(rng.integers(2, 26))
            start = int(rng.integers(0, max(1, len(words) - length + 1)))
            part = words[start : start + length]
            if swap:
                part = [
                    str(rng.choice(known if rng.random() < 0.5 else vocabulary))
                    if rng.random() < 0.2
                    else word
                    for word in part
                ]
            yield " ".join(part)
    things, judgements = _THINGS.split(), _JUDGEMENTS.split()
    for word in vocabulary:
        for frame in rng.choice(_FRAMES.splitlines(), 4, replace=False):
            one, other = rng.choice(judgements, 2)
            yield str(frame).format(word=word, thing=rng.choice(things), one=one, other=other)


class Teacher:
    """The transformer that learns to rate sentences.

    Parameters
    ----------
    seed : int, default=0
        Of the order of the sentences and of the new weights.
    rank : int, optional
        Learn a change of each layer's matrices of this rank alone (LoRA, Hu et al. 2021,
        arXiv:2106.09685). By default all weights are learned.
    """

    def __init__(self, *, seed: int = 0, rank: int | None = None) -> None:
        require_extra("torch", "transformers", needed_by="Teacher")
        import torch  # noqa: PLC0415

        from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415

        torch.manual_seed(seed)
        folder = sentence_folder(None)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)  # nosec B615
        self.encoder = AutoModel.from_pretrained(folder)  # nosec B615
        self.head = torch.nn.Linear(self.encoder.config.hidden_size, 1)
        self.rng = np.random.default_rng(seed)
        self.changes = {} if rank is None else _changes(self.encoder, rank)

    def _read(self, texts: list[str]) -> tuple[Any, Any]:
        import torch  # noqa: PLC0415

        tokens = self.tokenizer(
            texts, truncation=True, max_length=_LONGEST, padding=True, return_tensors="pt"
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = self.encoder(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        pooled = (hidden.float() * mask).sum(1) / mask.sum(1)
        return torch.tanh(self.head(pooled)).squeeze(-1), pooled

    def fit(
        self, texts: Sequence[str], ratings: NDArray[np.float32], *, epochs: int = 2
    ) -> Teacher:
        """Learn the ratings by least squares."""
        import torch  # noqa: PLC0415

        trained = [weight for weight in self.encoder.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(
            [
                {"params": trained, "lr": 5e-4 if self.changes else 5e-5},
                {"params": self.head.parameters(), "lr": 1e-3},
            ],
            weight_decay=0.01,
        )
        lengths = np.array([len(text) for text in texts])
        batches = [
            batch for _ in range(epochs) for batch in batches_by_length(lengths, 32, self.rng)
        ]
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(step / 100, 1) * (1 - step / (len(batches) + 1))
        )
        self.encoder.train()
        for batch in batches:
            valence, _ = self._read([texts[i] for i in batch])
            loss = ((valence - torch.from_numpy(ratings[batch])) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
        self.encoder.eval()
        return self

    def rate(self, texts: list[str], ratings: NDArray[np.float32]) -> Rated:
        """Rate texts."""
        import torch  # noqa: PLC0415

        order = np.argsort([len(text) for text in texts])
        valence = np.zeros(len(texts), np.float32)
        content = np.zeros((len(texts), self.encoder.config.hidden_size), np.float32)
        with torch.inference_mode():
            for start in range(0, len(texts), 128):
                batch = order[start : start + 128]
                rated, pooled = self._read([texts[i] for i in batch])
                valence[batch], content[batch] = rated.numpy(), pooled.numpy()
        return Rated(texts, ratings, valence, content)


def _changes(encoder: Any, rank: int) -> dict[str, Any]:
    """Let nothing of an encoder learn but a change, of low rank, of its layers' matrices."""
    import torch  # noqa: PLC0415

    class Change(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, n_out: int, n_in: int) -> None:
            super().__init__()
            self.lora_A = torch.nn.Parameter(torch.empty(rank, n_in))
            self.lora_B = torch.nn.Parameter(torch.zeros(n_out, rank))
            torch.nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)

        def forward(self, weight: Any) -> Any:
            return weight + self.lora_B @ self.lora_A

    encoder.requires_grad_(requires_grad=False)
    found = {}
    for name, part in list(encoder.named_modules()):
        if isinstance(part, torch.nn.Linear) and name.startswith("encoder.layer."):
            found[name] = Change(*part.weight.shape)
            torch.nn.utils.parametrize.register_parametrization(part, "weight", found[name])
    return found


def batches_by_length(
    lengths: NDArray[np.int64], size: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Cut rows in random order into batches of about equal lengths.

    Examples
    --------
    >>> batches = batches_by_length(np.array([9, 1, 8, 2]), 2, np.random.default_rng(0))
    >>> sorted(sorted(batch.tolist()) for batch in batches)
    [[0, 2], [1, 3]]
    """
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), 64 * size):
        pool = order[start : start + 64 * size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[begin : begin + size] for begin in range(0, len(pool), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


@dataclass(frozen=True)
class Trained:
    """A trained network in floating point.

    Attributes
    ----------
    embedding : ndarray of shape (n_tokens, n_in)
    kernels : list of ndarray of shape (n_out, n_in, 3)
        Of the convolutions.
    biases : list of ndarray of shape (n_out,)
    highest : list of ndarray of shape (n_out,)
        Activation that hardly any token exceeds.
    output, bias : ndarray of shape (2 * n_out, 1 + n_content) and (1 + n_content,)
    """

    embedding: NDArray[np.float32]
    kernels: list[NDArray[np.float32]]
    biases: list[NDArray[np.float32]]
    highest: list[NDArray[np.float32]]
    output: NDArray[np.float32]
    bias: NDArray[np.float32]


def fit_student(
    rated: Rated,
    tokenize: Callable[[list[str]], list[list[int]]],
    start: NDArray[np.float32],
    *,
    width: int = 128,
    n_layers: int = 2,
    n_content: int = 64,
    epochs: int = 10,
    seed: int = 0,
) -> Trained:
    """Teach a convolutional network to do as the transformer does.

    Parameters
    ----------
    rated : Rated
        What to learn; a text that people rated counts twice, its target lying half-way between
        their rating and the transformer's.
    tokenize : callable
        Texts to numbers of tokens.
    start : ndarray of shape (n_tokens, n_in)
        Where the tokens' vectors begin.
    width, n_layers : int
        Channels and number of the convolutions.
    n_content : int, default=64
        Principal components of the transformer's vectors that are learned beside the valence.
    epochs, seed : int

    Returns
    -------
    Trained
    """
    import torch  # noqa: PLC0415

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    known = ~np.isnan(rated.rating)
    weight = np.where(known, 2.0, 1.0).astype(np.float32)
    target = np.where(known, (rated.valence + rated.rating) / 2, rated.valence).astype(np.float32)
    content = _components(rated.content, rated.content[known], n_content)
    tokens = tokenize(rated.texts)
    lengths = np.array([len(ids) for ids in tokens])
    n_in = start.shape[1]

    embed = torch.nn.Embedding.from_pretrained(torch.from_numpy(start), freeze=False)
    layers = torch.nn.ModuleList(
        torch.nn.Conv1d(n_in if layer == 0 else width, width, 3, padding=1)
        for layer in range(n_layers)
    )
    head = torch.nn.Linear(2 * width, 1 + n_content)
    drop = torch.nn.Dropout(0.1)
    highest = [np.zeros(width, np.float32) for _ in layers]

    def read(batch: NDArray[np.int64], *, watch: bool = False) -> tuple[Any, Any]:
        ids = np.zeros((len(batch), lengths[batch].max()), np.int64)
        mask = np.zeros(ids.shape, np.float32)
        for row, i in enumerate(batch):
            ids[row, : lengths[i]] = tokens[i]
            mask[row, : lengths[i]] = 1
        seen = torch.from_numpy(mask)[:, None]
        state = (drop(embed(torch.from_numpy(ids))) * seen[:, 0, :, None]).transpose(1, 2)
        for number, layer in enumerate(layers):
            state = torch.relu(layer(state)) * seen
            if watch:
                at = state.transpose(1, 2)[torch.from_numpy(mask) > 0].numpy()
                highest[number] = np.maximum(highest[number], np.quantile(at, 0.9999, axis=0))
        pooled = torch.cat([state.sum(2) / seen.sum(2), state.amax(2)], 1)
        out = head(drop(pooled))
        return torch.tanh(out[:, 0]), out[:, 1:]

    modules = torch.nn.ModuleList([embed, layers, head, drop])
    optimizer = torch.optim.AdamW(
        [
            {"params": embed.parameters(), "lr": 1e-3},
            {"params": [*layers.parameters(), *head.parameters()], "lr": 2e-3},
        ],
        weight_decay=1e-4,
    )
    usable = np.flatnonzero(lengths > 0)
    batches = [
        usable[batch]
        for _ in range(epochs)
        for batch in batches_by_length(lengths[usable], 256, rng)
    ]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [1e-3, 2e-3], total_steps=len(batches) + 1, pct_start=0.1
    )
    for step, batch in enumerate(batches):
        valence, vector = read(batch)
        loss_valence = (valence - torch.from_numpy(target[batch])) ** 2
        loss_content = ((vector - torch.from_numpy(content[batch])) ** 2).mean(1)
        loss = (torch.from_numpy(weight[batch]) * (8 * loss_valence + 0.15 * loss_content)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            logger.info("Step {:,} of {:,}: loss {:.4f}", step, len(batches), loss.item())
    modules.eval()
    with torch.no_grad():
        for batch in batches_by_length(lengths[usable], 128, rng)[:200]:
            read(usable[batch], watch=True)
    return Trained(
        embedding=embed.weight.detach().numpy(),
        kernels=[layer.weight.detach().numpy() for layer in layers],
        biases=[layer.bias.detach().numpy() for layer in layers],
        highest=[np.maximum(values, 1e-6) for values in highest],
        output=head.weight.detach().numpy().T,
        bias=head.bias.detach().numpy(),
    )


def _components(
    vectors: NDArray[np.float32], basis: NDArray[np.float32], n: int
) -> NDArray[np.float32]:
    """Give the principal components of `basis` in `vectors`, each of unit variance there."""
    mean = basis.mean(axis=0)
    _, sizes, axes = np.linalg.svd(basis - mean, full_matrices=False)
    projection = axes[:n].T / (sizes[:n] / np.sqrt(len(basis)))
    scores: NDArray[np.float32] = np.clip((vectors - mean) @ projection, -4, 4)
    return scores.astype(np.float32)


def quantize(trained: Trained) -> dict[str, NDArray[Any]]:
    """Turn a trained network into whole numbers and the scales between them.

    Parameters
    ----------
    trained : Trained
        In floating point.

    Returns
    -------
    dict of str to ndarray
        The tensors of `batch_nlp.sentiment.Network`, by name.

    Raises
    ------
    InputError
        If a sum could pass 2**24, beyond which single precision skips whole numbers.
    """
    steps = np.quantile(np.abs(trained.embedding), 0.9999, axis=0) / HIGHEST_WEIGHT
    steps = np.maximum(steps, 1e-9)
    tensors: dict[str, NDArray[Any]] = {"embedding": _whole(trained.embedding / steps)}
    largest_input = HIGHEST_WEIGHT
    for layer, (kernel, bias, highest) in enumerate(
        zip(trained.kernels, trained.biases, trained.highest, strict=True)
    ):
        weights = kernel.transpose(2, 1, 0) * steps[:, None]
        size = np.abs(weights).max(axis=(0, 1)) / HIGHEST_WEIGHT
        if largest_input * HIGHEST_WEIGHT * weights.shape[0] * weights.shape[1] >= 2**24:
            raise InputError(f"Layer {layer} is too wide for exact sums: {weights.shape[1]}.")
        steps = highest / HIGHEST_ACTIVATION
        tensors[f"convolution_{layer}.weights"] = _whole(weights / size)
        tensors[f"convolution_{layer}.scale"] = (size / steps).astype(np.float32)
        # The half makes rounding of the cutting that follows.
        tensors[f"convolution_{layer}.shift"] = (bias / steps + 0.5).astype(np.float32)
        largest_input = HIGHEST_ACTIVATION
    both = np.concatenate([steps, steps])
    tensors["output"] = (trained.output * both[:, None]).astype(np.float32)
    tensors["bias"] = trained.bias.astype(np.float32)
    return tensors


def _whole(values: NDArray[np.floating[Any]]) -> NDArray[np.int8]:
    whole: NDArray[np.int8] = np.clip(np.rint(values), -HIGHEST_WEIGHT, HIGHEST_WEIGHT).astype(
        np.int8
    )
    return whole


def write_adapter(teacher: Teacher, output: Path) -> None:
    """Write a teacher's change in peft's format, whole or not at all."""
    from safetensors.torch import save_file  # noqa: PLC0415

    tensors = {
        f"base_model.model.{name}.{part}.weight": weight.detach().half().contiguous()
        for name, change in teacher.changes.items()
        for part, weight in change.named_parameters()
    }
    rank = len(next(iter(teacher.changes.values())).lora_A)
    config = {
        "base_model_name_or_path": "sentence-transformers/all-MiniLM-L6-v2",
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": rank,  # so that nothing is scaled
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(teacher.changes),
    }
    with atomic_folder(output) as beside:
        save_file(tensors, beside / ADAPTER_WEIGHTS)
        write_json(beside / ADAPTER_CONFIG, config)
        write_json(beside / DIGESTS_FILE, dict(file_digests(beside)))


def write_network(tensors: dict[str, NDArray[Any]], output: Path) -> None:
    """Write a network's folder, whole or not at all."""
    from safetensors.numpy import save_file  # noqa: PLC0415

    with atomic_folder(output) as beside:
        shutil.copyfile(SHIPPED_MODEL / TOKENIZER_FILE, beside / TOKENIZER_FILE)
        save_file(
            {name: np.ascontiguousarray(values) for name, values in tensors.items()},
            beside / NETWORK_FILE,
        )
        stated = json.dumps(file_digests(beside), indent=2) + "\n"
        (beside / DIGESTS_FILE).write_text(stated, encoding="utf-8")


def token_vectors(teacher: Teacher, vocabulary: dict[str, int], n_in: int) -> NDArray[np.float32]:
    """Give the principal components of the transformer's own vectors of some tokens."""
    whole = teacher.encoder.get_input_embeddings().weight.detach().numpy()
    numbers = teacher.tokenizer.get_vocab()
    unknown = numbers["[UNK]"]
    rows = np.zeros(len(vocabulary), dtype=np.int64)
    for token, place in vocabulary.items():
        rows[place] = numbers.get(token, unknown)
    vectors = whole[rows] - whole.mean(axis=0)
    _, _, axes = np.linalg.svd(vectors, full_matrices=False)
    reduced = vectors @ axes[:n_in].T
    scaled: NDArray[np.float32] = (reduced / reduced.std() / 2).astype(np.float32)
    return scaled


def make(ratings: Path, output: Path, *, seed: int = 0, epochs: int = 10) -> None:
    """Make the network.

    Parameters
    ----------
    ratings : Path
        See `rated_sentences`.
    output : Path
        Folder to make.
    seed : int, default=0
        Of everything random.
    epochs : int, default=10
        Times that the network sees each text.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415

    texts, rating = rated_sentences(ratings)
    logger.info("{:,} sentences rated by people.", len(texts))
    teacher = Teacher(seed=seed).fit(texts, rating)
    vocabulary = [
        token for token in teacher.tokenizer.get_vocab() if re.fullmatch("[a-z]{3,}", token)
    ]
    made = list(further_texts(texts, vocabulary, np.random.default_rng(seed)))
    unrated = np.full(len(made), np.nan, np.float32)
    logger.info("{:,} further texts for the transformer to rate.", len(made))
    rated = teacher.rate([*texts, *made], np.concatenate([rating, unrated]))
    tokenizer = Tokenizer.from_file(str(SHIPPED_MODEL / TOKENIZER_FILE))
    tokenizer.no_truncation()
    trained = fit_student(
        rated,
        tokens_of(tokenizer),
        token_vectors(teacher, tokenizer.get_vocab(), 64),
        epochs=epochs,
        seed=seed,
    )
    write_network(quantize(trained), output)


def tokens_of(tokenizer: Any) -> Callable[[list[str]], list[list[int]]]:
    """Give a function from texts to the tokens that `batch_nlp.sentiment` reads of them."""
    unknown = tokenizer.token_to_id("[UNK]")

    def tokenize(texts: list[str]) -> list[list[int]]:
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        return [
            [number for number in encoding.ids if number != unknown][:_LONGEST]
            for encoding in encodings
        ]

    return tokenize


def make_adapter(ratings: Path, output: Path, *, seed: int = 0, epochs: int = 2) -> None:
    """Make the adapter.

    Parameters
    ----------
    ratings : Path
        See `rated_sentences`.
    output : Path
        Folder to make.
    seed : int, default=0
        Of everything random.
    epochs : int, default=2
        Times that the transformer sees each sentence.
    """
    texts, rating = rated_sentences(ratings)
    logger.info("{:,} sentences rated by people.", len(texts))
    teacher = Teacher(seed=seed, rank=_ADAPTER_RANK).fit(texts, rating, epochs=epochs)
    write_adapter(teacher, output)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what the command line asks for."""
    parser = argparse.ArgumentParser(prog="batch_nlp.sentiment_training")
    parser.add_argument("ratings", type=Path, help="folder hutto_ICWSM_2014")
    parser.add_argument("output", type=Path, help="folder to make")
    parser.add_argument("--adapter", action="store_true", help="make the adapter of MiniLM")
    given = parser.parse_args(arguments)
    (make_adapter if given.adapter else make)(given.ratings, given.output)


if __name__ == "__main__":
    main()
