"""How the default embedder's network is made."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from batch_nlp.errors import InputError
from batch_nlp.sentiment import SentimentEmbedder, _network
from batch_nlp.sentiment_training import (
    RATING_FILES,
    Teacher,
    Trained,
    main,
    make,
    quantize,
    rated_sentences,
    write_network,
)

N_TOKENS, N_IN, WIDTH = 27_973, 4, 6


@pytest.fixture
def trained() -> Trained:
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return Trained(
        embedding=some(N_TOKENS, N_IN),
        kernels=[some(WIDTH, N_IN, 3) / 4, some(WIDTH, WIDTH, 3) / 6],
        biases=[some(WIDTH) / 4, some(WIDTH) / 4],
        highest=[np.full(WIDTH, 6, np.float32), np.full(WIDTH, 9, np.float32)],
        output=some(2 * WIDTH, 3) / 12,
        bias=some(3) / 4,
    )


def in_floating_point(trained: Trained, tokens: np.ndarray) -> np.ndarray:
    state = trained.embedding[tokens].astype(np.float64)
    for kernel, bias in zip(trained.kernels, trained.biases, strict=True):
        padded = np.pad(state, ((1, 1), (0, 0)))
        state = sum(padded[k : k + len(state)] @ kernel[:, :, k].T for k in range(3)) + bias
        state = np.maximum(state, 0)
    out = np.concatenate([state.mean(axis=0), state.max(axis=0)]) @ trained.output + trained.bias
    return np.concatenate([[np.tanh(out[0])], out[1:]])


def test_whole_numbers_give_nearly_the_same(trained: Trained, tmp_path: Path) -> None:
    write_network(quantize(trained), tmp_path / "network")
    network = _network(tmp_path / "network")
    lengths = np.array([1, 7, 3, 12])
    tokens = np.random.default_rng(1).integers(5, N_TOKENS, lengths.sum()).astype(np.int32)
    found = network.read(tokens, lengths)
    wanted = np.array(
        [in_floating_point(trained, part) for part in np.split(tokens, np.cumsum(lengths)[:-1])]
    )
    np.testing.assert_allclose(found, wanted, atol=0.06)
    assert SentimentEmbedder(path=str(tmp_path / "network")).encode(["good soup"]).vectors.any()


def test_a_network_too_wide_for_exact_sums_is_refused(trained: Trained) -> None:
    wide = Trained(
        embedding=np.ones((3, 400), np.float32),
        kernels=[np.ones((2, 400, 3), np.float32)],
        biases=[np.zeros(2, np.float32)],
        highest=[np.ones(2, np.float32)],
        output=trained.output,
        bias=trained.bias,
    )
    with pytest.raises(InputError, match="too wide for exact sums"):
        quantize(wide)


def test_ratings_are_read_and_scaled(tmp_path: Path) -> None:
    for number, name in enumerate(RATING_FILES):
        (tmp_path / name).write_text(f"{number}\t-2.0\tIt broke.\n{number}_1\t4\tPerfect!\n")
    texts, ratings = rated_sentences(tmp_path)
    assert texts == ["It broke.", "Perfect!"] * 4
    assert ratings.tolist() == [-0.5, 1.0] * 4


def test_a_folder_without_ratings_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"RATINGS must be a folder with movieReviewSnippets"):
        rated_sentences(tmp_path)


@pytest.mark.transformers
@pytest.mark.skipif(find_spec("torch") is None, reason="the extra `transformers` is not installed")
def test_a_network_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from batch_nlp import sentiment_training

    monkeypatch.setattr(
        sentiment_training, "further_texts", lambda *_: ["not good", "so bad", "good", "bad"]
    )
    for name in RATING_FILES:
        (tmp_path / name).write_text("1\t-3\tIt was bad.\n2\t3\tIt was good.\n" * 8)
    make(tmp_path, tmp_path / "network", epochs=30)
    vectors = SentimentEmbedder(path=str(tmp_path / "network")).encode(
        ["It was good.", "It was bad."]
    )
    assert vectors.vectors[0, 0] > vectors.vectors[1, 0]


@pytest.mark.transformers
@pytest.mark.skipif(find_spec("torch") is None, reason="the extra `transformers` is not installed")
def test_an_adapter_is_made(tmp_path: Path) -> None:
    from batch_nlp.embedders import sentence_folder
    from batch_nlp.training.finetune import _adapt, _load

    for name in RATING_FILES:
        (tmp_path / name).write_text("1\t-3\tIt was bad.\n2\t3\tIt was good.\n" * 8)
    main([str(tmp_path), str(tmp_path / "adapter"), "--adapter"])
    names = {file.name for file in (tmp_path / "adapter").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "digests.json"}
    texts, ratings = rated_sentences(tmp_path)
    teacher = Teacher(rank=16).fit(texts, ratings).encoder
    adapted, plain = (_load(sentence_folder(None), None, "cpu", 1).encoder for _ in range(2))
    _adapt(adapted, tmp_path / "adapter")
    for layer in range(6):
        changed, taught, before = (
            model.encoder.layer[layer].attention.self.query.weight.detach().numpy()
            for model in (adapted, teacher, plain)
        )
        learned = taught - before
        assert learned.any()
        np.testing.assert_allclose(changed - before, learned, atol=0.05 * np.abs(learned).max())
