"""A text classifier made by training a sentence-transformers model further on the labels."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from batch_nlp.embedders import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    MINILM_DISTRIBUTION,
    MINILM_SHA256,
    SHIPPED_ADAPTER,
    check_positive,
    checked_digests,
    file_digests,
    require_extra,
    sentence_folder,
)
from batch_nlp.errors import ArtifactError, InputError
from batch_nlp.tables import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_WARM_UP = 0.1
_WEIGHT_DECAY = 0.01
_LONGEST_GRADIENT = 1.0
_POOL = 32  # batches whose texts are sorted by length together
_HEAD = "head."
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
)
"""What comes of an adapter's files that are not as they should be."""

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_rslora": (False,),
    "use_dora": (False,),
    "fan_in_fan_out": (False,),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layer_replication": (None,),
    "alora_invocation_tokens": (None,),
    "init_lora_weights": (True, False, "gaussian"),  # others change the model underneath
}
"""What an adapter must be, where it says so, to be added as it is here."""


class FineTunedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify texts by a language model whose upper layers are trained on the labels.

    The vectors of a text's tokens are averaged and go through one linear layer; the layer and
    the model's own layers are trained together by cross-entropy, with AdamW (Loshchilov and
    Hutter 2019), a rate of learning that rises over the first tenth of the steps and then falls
    to zero, and gradients cut to a length of 1. Of a text that is too long the beginning and the
    end are read (Sun et al. 2019, "How to fine-tune BERT for text classification"). The vectors
    of the words and of their places stay as they are.

    A fitted classifier holds the weights that were trained, in half precision, and the digest of
    the model that they belong to, but nothing of torch; the network is put together again for
    the first prediction. Training uses bfloat16 where the processor has instructions for it, and
    predictions float32. Needs the extra `transformers`.

    Parameters
    ----------
    model : str, optional
        Folder of a sentence-transformers model, or a model's name, which is downloaded unless it
        has been before. By default the packaged all-MiniLM-L6-v2.
    adapter : str, optional
        Folder of a LoRA adapter of the model (Hu et al. 2021, arXiv:2106.09685) in peft's
        format, which is added to its weights before they are trained further; ``sentiment`` is
        the one that comes with the package and belongs to the packaged model. It has learned
        how people rate sentences. By default there is none.
    epochs : int, default=2
        How often each text is trained on.
    batch_size : int, default=16
        Texts in a step of training.
    learning_rate : float, default=5e-5
        Highest rate of the model's own layers.
    head_learning_rate : float, default=1e-3
        Highest rate of the linear layer.
    max_tokens : int, default=256
        Tokens read of each text, half of them from its beginning and half from its end.
    frozen_layers : int, default=0
        The model's lowest layers that stay as they are, which saves time.
    seed : int, default=0
        Of the order of the texts, of dropout and of the linear layer.
    device : str, optional
        Such as ``cpu`` or ``cuda``; by default a GPU if there is one.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Classes, in order.
    weights_ : dict of str to ndarray
        The trained weights by their names, float16.
    base_digest_ : str
        SHA-256 over the files of the model that was trained further, and of the adapter.

    Examples
    --------
    >>> FineTunedClassifier(epochs=1, frozen_layers=3)
    FineTunedClassifier(epochs=1, frozen_layers=3)
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        adapter: str | None = None,
        epochs: int = 2,
        batch_size: int = 16,
        learning_rate: float = 5e-5,
        head_learning_rate: float = 1e-3,
        max_tokens: int = 256,
        frozen_layers: int = 0,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self.model = model
        self.adapter = adapter
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.head_learning_rate = head_learning_rate
        self.max_tokens = max_tokens
        self.frozen_layers = frozen_layers
        self.seed = seed
        self.device = device

    def fit(self, X: Sequence[str], y: Any) -> Self:
        """Train on texts and their classes.

        On a terminal the progress is shown.

        Parameters
        ----------
        X : sequence of str
            Texts, at least one; each may be empty.
        y : array-like of shape (n_texts,)
            Classes.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If the extra is not installed, the model cannot be loaded, there is no such device,
            or a parameter makes no sense.
        ArtifactError
            If a file of the packaged model or of the shipped adapter is missing or damaged.
        """
        self._check()
        folder = sentence_folder(self.model)
        classes, targets = np.unique(np.asarray(y), return_inverse=True)
        if len(X) != len(targets) or len(targets) == 0:
            raise InputError(
                "FineTunedClassifier needs at least one text and as many classes as texts; got "
                f"{len(X)} texts and {len(targets)} classes."
            )
        import torch  # noqa: PLC0415

        network = self._network_of(folder, len(classes))
        with torch.random.fork_rng(devices=_cuda_devices(network)):
            torch.manual_seed(self.seed)
            network.head.reset_parameters()
            self._train(network, network.tokens(X, self.max_tokens), targets)
        self.classes_ = classes
        self.base_digest_ = self._base_digest(folder)
        self.weights_ = {
            name: weight.detach().cpu().numpy().astype(np.float16)
            for name, weight in network.named_weights()
            if weight.requires_grad
        }
        self._network: _Network | None = None
        return self

    def predict_proba(self, X: Sequence[str]) -> NDArray[np.float64]:
        """Give the probability of each class.

        Parameters
        ----------
        X : sequence of str
            Texts; may be empty, and so may each text.

        Returns
        -------
        ndarray of shape (n_texts, n_classes)
            A row changes by less than 1e-5 with the other texts of its batch.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it has not been fitted.
        InputError
            If the extra is not installed, the model cannot be loaded, or there is no such device.
        ArtifactError
            If the model or the adapter is not the one that was trained further.
        """
        check_is_fitted(self)
        network = self._ready()
        import torch  # noqa: PLC0415

        tokens = network.tokens(X, self.max_tokens)
        order = np.argsort([len(ids) for ids in tokens], kind="stable")
        proba = np.empty((len(tokens), len(self.classes_)))
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        with torch.inference_mode():
            for batch in _progress(batches, "scoring"):
                logits = network.logits([tokens[i] for i in batch])
                proba[batch] = torch.softmax(logits.double(), dim=1).cpu().numpy()
        return proba

    def predict(self, X: Sequence[str]) -> NDArray[Any]:
        """Give the most probable class of each text.

        Parameters
        ----------
        X : sequence of str
            Texts; may be empty, and so may each text.

        Returns
        -------
        ndarray of shape (n_texts,)
        """
        proba = self.predict_proba(X)
        classes: NDArray[Any] = self.classes_[proba.argmax(axis=1)]
        return classes

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {**state, "_network": None} if "_network" in state else state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def _check(self) -> None:
        for name in ("epochs", "batch_size", "max_tokens"):
            check_positive(self, name)
        for name in ("learning_rate", "head_learning_rate"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value > 0:
                message = f"FineTunedClassifier: {name} must be more than 0; got {value!r}."
                raise InputError(message)
        require_extra("torch", "transformers", needed_by="FineTunedClassifier")

    def _network_of(self, folder: Path, n_classes: int) -> _Network:
        network = _load(folder, self.model, self.device, n_classes)
        if self.adapter is not None:
            _adapt(network.encoder, self._adapter_folder(folder))
        most = network.encoder.config.max_position_embeddings
        if not 2 < self.max_tokens <= most:
            raise InputError(
                f"FineTunedClassifier: max_tokens must be at least 3 and at most {most}; "
                f"got {self.max_tokens}."
            )
        network.freeze(self.frozen_layers)
        return network

    def _adapter_folder(self, folder: Path) -> Path:
        if self.adapter != "sentiment":
            return Path(str(self.adapter))
        if file_digests(folder).get("model.safetensors") != MINILM_SHA256:
            raise InputError(
                "FineTunedClassifier: adapter=sentiment belongs to the packaged model "
                f"{MINILM_DISTRIBUTION}; with the model {self.model} set adapter=null."
            )
        return SHIPPED_ADAPTER

    def _base_digest(self, folder: Path) -> str:
        model = file_digests(folder)
        if self.adapter is None:
            return digest(model)
        adapter = checked_digests(self._adapter_folder(folder))
        return digest({"model": dict(model), "adapter": dict(adapter)})

    def _ready(self) -> _Network:
        if self._network is None:
            self._check()
            folder = sentence_folder(self.model)
            found = self._base_digest(folder)
            if found != self.base_digest_:
                adapter = f" with the adapter {self.adapter}" if self.adapter else ""
                raise ArtifactError(
                    f"FineTunedClassifier: the model {self.model or MINILM_DISTRIBUTION}{adapter} "
                    f"must have the SHA-256 {self.base_digest_}, over which it was trained; "
                    f"it has {found}."
                )
            network = self._network_of(folder, len(self.classes_))
            network.put(self.weights_)
            self._network = network
        return self._network

    def _train(self, network: _Network, tokens: list[list[int]], targets: NDArray[np.intp]) -> None:
        import torch  # noqa: PLC0415

        rng = np.random.default_rng(self.seed)
        lengths = np.array([len(ids) for ids in tokens])
        batches = [
            batch for _ in range(self.epochs) for batch in _batches(lengths, self.batch_size, rng)
        ]
        trained = [weight for weight in network.encoder.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(
            [
                {"params": trained, "lr": self.learning_rate},
                {"params": network.head.parameters(), "lr": self.head_learning_rate},
            ],
            weight_decay=_WEIGHT_DECAY,
        )
        rising = max(1, round(_WARM_UP * len(batches)))

        def share(step: int) -> float:
            falling = (len(batches) - step) / max(1, len(batches) - rising)
            return min((step + 1) / rising, falling)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        network.encoder.train()
        for batch in _progress(batches, "fine-tuning"):
            with _autocast(network.device):
                logits = network.logits([tokens[i] for i in batch])
            wanted = torch.as_tensor(targets[batch], device=network.device)
            loss = torch.nn.functional.cross_entropy(logits.float(), wanted)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(
                [*trained, *network.head.parameters()], _LONGEST_GRADIENT
            )
            optimizer.step()
            schedule.step()
        network.encoder.eval()


class _Network(NamedTuple):
    tokenizer: Any
    encoder: Any
    head: Any
    device: Any

    def tokens(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        if len(texts) == 0:
            return []
        encoded = self.tokenizer(
            [str(text) for text in texts],
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        tail = max_tokens // 2
        return [
            ids if len(ids) <= max_tokens else [*ids[: max_tokens - tail], *ids[-tail:]]
            for ids in encoded
        ]

    def logits(self, tokens: Sequence[Sequence[int]]) -> Any:
        import torch  # noqa: PLC0415

        longest = max(map(len, tokens))
        ids = torch.full((len(tokens), longest), self.tokenizer.pad_token_id)
        mask = torch.zeros(len(tokens), longest, dtype=torch.long)
        for row, some in enumerate(tokens):
            ids[row, : len(some)] = torch.as_tensor(some)
            mask[row, : len(some)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        vectors = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        read = mask.unsqueeze(-1)
        return self.head((vectors * read).sum(dim=1) / read.sum(dim=1))

    def named_weights(self) -> Iterator[tuple[str, Any]]:
        yield from self.encoder.named_parameters()
        for name, weight in self.head.named_parameters():
            yield _HEAD + name, weight

    def put(self, weights: dict[str, NDArray[np.float16]]) -> None:
        import torch  # noqa: PLC0415

        places = dict(self.named_weights())
        with torch.no_grad():
            for name, weight in weights.items():
                places[name].copy_(torch.from_numpy(weight.astype(np.float32)))

    def freeze(self, n_layers: int) -> None:
        import torch  # noqa: PLC0415

        layers = next(
            part for part in self.encoder.modules() if isinstance(part, torch.nn.ModuleList)
        )
        if not isinstance(n_layers, int) or not 0 <= n_layers <= len(layers):
            raise InputError(
                "FineTunedClassifier: frozen_layers must be a whole number from 0 to "
                f"{len(layers)}; got {n_layers!r}."
            )
        self.encoder.requires_grad_(requires_grad=False)
        for layer in layers[n_layers:]:
            layer.requires_grad_(requires_grad=True)


def _load(folder: Path, model: str | None, device: str | None, n_classes: int) -> _Network:
    import torch  # noqa: PLC0415

    from transformers import AutoConfig, AutoModel, AutoTokenizer  # noqa: PLC0415

    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        with _quiet():
            config = AutoConfig.from_pretrained(folder, local_files_only=True)  # nosec B615
            # Dropout there would keep torch from its fused attention, which is much faster.
            if hasattr(config, "attention_probs_dropout_prob"):
                config.attention_probs_dropout_prob = 0.0
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)  # nosec B615
            encoder = AutoModel.from_pretrained(  # nosec B615
                folder, config=config, local_files_only=True, dtype=torch.float32
            )
        # Not drawn at random here: that would move the caller's generator on.
        head = torch.nn.utils.skip_init(torch.nn.Linear, encoder.config.hidden_size, n_classes)
        return _Network(tokenizer, encoder.eval().to(place), head.to(place), place)
    # torch raises an AssertionError for a device that it was not built for.
    except (OSError, ValueError, KeyError, RuntimeError, AssertionError) as e:
        raise InputError(
            f"FineTunedClassifier cannot load the model '{model or MINILM_DISTRIBUTION}' "
            f"(device: {device or 'any'}): {e}"
        ) from e


def _adapt(encoder: Any, folder: Path) -> None:
    """Add an adapter to the weights that it belongs to."""
    import torch  # noqa: PLC0415
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    weights = dict(encoder.named_parameters())
    faults: list[str] = []
    try:
        checked_digests(folder)
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        faults += [
            name for name, plain in _PLAIN.items() if config.get(name, plain[0]) not in plain
        ]
        share = config["lora_alpha"] / config["r"]
        with torch.no_grad():
            for key in [key for key in tensors if key.endswith(_DOWN)]:
                name = key.removeprefix("base_model.model.").removesuffix(_DOWN) + ".weight"
                down = tensors.pop(key).to(weights[name])
                up = tensors.pop(key.removesuffix(_DOWN) + _UP).to(down)
                weights[name] += share * (up @ down)
        faults += tensors
    except (*_UNREADABLE, SafetensorError) as e:
        raise InputError(
            f"FineTunedClassifier cannot add the adapter '{folder}' to the model: {e!r}"
        ) from e
    if faults:
        raise InputError(
            f"FineTunedClassifier: the adapter '{folder}' is no plain LoRA adapter: it has "
            f"{', '.join(faults[:3])}."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    # What is reported at length is only that the model's own head is not read.
    from transformers.utils import logging as reports  # noqa: PLC0415

    logger = logging.getLogger("transformers")
    level, bar = logger.level, reports.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    reports.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bar:
            reports.enable_progress_bar()


def _autocast(device: Any) -> Any:
    import torch  # noqa: PLC0415

    if device.type == "cuda":
        quick = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        quick = device.type == "cpu" and (able.get("avx512_bf16") or able.get("amx_bf16"))
    return torch.autocast(device.type, dtype=torch.bfloat16) if quick else nullcontext()


def _cuda_devices(network: _Network) -> list[Any]:
    return [network.device] if network.device.type == "cuda" else []


def _batches(
    lengths: NDArray[np.int_], size: int, rng: np.random.Generator
) -> list[NDArray[np.intp]]:
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), size * _POOL):
        pool = order[start : start + size * _POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + size] for i in range(0, len(pool), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def _progress(batches: list[Any], what: str) -> Any:
    return tqdm(batches, desc=what, leave=False, disable=not sys.stderr.isatty())
