"""The default embedder: sentences, exact sums, rows that don't depend on one another."""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.base import clone

from batch_nlp import sentiment, tokens
from batch_nlp.errors import ArtifactError, InputError
from batch_nlp.sentiment import (
    HIGHEST_ACTIVATION,
    NETWORK_FILE,
    SHIPPED_NETWORK,
    STATISTICS,
    Convolution,
    SentimentEmbedder,
    _network,
    sentences,
    summarize,
)
from batch_nlp.tokens import Words

TEXTS = [
    "The soup was cold and the waiter rude.",
    "Best tacos in town!! ★★★★★",
    "",
    "It was ok, nothing special — but not bad either. Would go again? Maybe.",
    "好吃",
    "Naïve café… 100% worth $12 :)",
    "good " * 900,
    "One. Two! Three? Four. Five.",
]


def column(name: str) -> int:
    return STATISTICS.index(name)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return SentimentEmbedder().encode(TEXTS).vectors


def test_shape_and_type(vectors: np.ndarray) -> None:
    assert vectors.shape == (len(TEXTS), SentimentEmbedder().n_dims)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()


def test_texts_without_a_known_token_have_the_zero_vector(vectors: np.ndarray) -> None:
    assert not vectors[[2, 4]].any()
    assert vectors[[0, 1, 3]].any(axis=1).all()


def test_no_text_gives_no_row() -> None:
    assert SentimentEmbedder().encode([]).vectors.shape == (0, SentimentEmbedder().n_dims)


def test_a_vector_is_the_same_to_the_last_bit_in_any_batch(vectors: np.ndarray) -> None:
    embedder = SentimentEmbedder()
    alone = np.concatenate([embedder.encode([text]).vectors for text in TEXTS])
    np.testing.assert_array_equal(alone, vectors)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    shuffled = embedder.encode([TEXTS[i] for i in order]).vectors
    np.testing.assert_array_equal(shuffled, vectors[order])
    many = embedder.encode(TEXTS * 300).vectors  # more than a chunk and than a block of tokens
    np.testing.assert_array_equal(many, np.tile(vectors, (300, 1)))


def test_valence_knows_good_from_bad_and_negation() -> None:
    texts = ["This was great.", "This was awful.", "This was not great.", "It was fine."]
    great, awful, not_great, fine = SentimentEmbedder().encode(texts).vectors[:, column("mean")]
    assert great > 0.3
    assert awful < -0.3
    assert not_great < 0 < great
    assert awful < fine < great


def test_a_mixed_text_is_told_by_its_extremes() -> None:
    mixed = SentimentEmbedder().encode(["I love the room. The staff were horrible."]).vectors[0]
    assert mixed[column("lowest")] < -0.2
    assert mixed[column("highest")] > 0.2
    assert mixed[column("first")] == mixed[column("highest")]
    assert mixed[column("last")] == mixed[column("lowest")]
    assert mixed[column("log_sentences")] == pytest.approx(np.log(3))


def test_activations_are_exact_in_any_order() -> None:
    network = _network(SHIPPED_NETWORK)
    for layer in (network.first, *network.further):
        assert np.array_equal(layer.weights, np.rint(layer.weights))
        worst = np.abs(layer.weights).sum(axis=(0, 1)).max() * HIGHEST_ACTIVATION
        assert worst < 2**24
    for layer in network.further:
        assert all(np.array_equal(each * 2, np.rint(each * 2)) for each in layer.filters)
        assert layer.largest_sum < 2**23


def test_a_network_whose_sums_are_not_exact_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentiment, "_EXACT", 2**20)
    folder = shutil.copytree(SHIPPED_NETWORK, tmp_path / "network")
    with pytest.raises(ArtifactError, match="too large for exact sums"):
        SentimentEmbedder(path=str(folder)).encode(["good"])


def test_four_products_give_what_six_do() -> None:
    layer = _network(SHIPPED_NETWORK).further[0]
    rows = np.random.default_rng(0).integers(0, HIGHEST_ACTIVATION + 1, (42, 128))
    padded = rows.astype(np.float32)
    out, room = np.empty((40, 128), np.float32), np.empty((3, 20, 128), np.float32)
    layer(padded, out=out, room=room)
    before, here, after = layer.weights.astype(np.float64)
    exact = rows[:-2] @ before + rows[1:-1] @ here + rows[2:] @ after
    expected = exact.astype(np.float32)
    layer.rectify(expected)
    np.testing.assert_array_equal(out, expected)


def test_a_convolution_sees_its_neighbours() -> None:
    weights = np.array([[[1.0]], [[10.0]], [[100.0]]], np.float32)
    convolve = Convolution(weights, scale=np.ones(1, np.float32), shift=np.zeros(1, np.float32))
    rows = np.array([[0], [1], [2], [0]], np.float32)
    out, room = np.empty((2, 1), np.float32), np.empty((3, 1, 1), np.float32)
    convolve(rows, out=out, room=room)
    assert out[:, 0].tolist() == [210, 21]
    convolve(rows * 5, out=out, room=room)
    assert out[:, 0].tolist() == [HIGHEST_ACTIVATION, 105]


def test_sentences_are_read_in_blocks_of_one_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentiment, "_BLOCK_TOKENS", 6)
    lengths = np.array([3, 1, 3, 2, 3, 9])
    blocks = [block.tolist() for block in sentiment._blocks(lengths)]
    assert blocks == [[1], [3], [0, 2], [4], [5]]
    assert list(sentiment._blocks(np.array([], dtype=np.int64))) == []


@given(st.lists(st.text(max_size=40), max_size=5))
@example(["caf\u0065\u0301 [UNK]\x1cx \u2028 o\u3000k", "好吃", " a  b\t"])
def test_tokens_of_words_are_those_of_the_text(texts: list[str]) -> None:
    tokenizer = _network(SHIPPED_NETWORK).words.tokenizer
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    words = Words(tokenizer)
    for _ in range(2):
        ids, sizes = words.tokens(texts)
        assert sizes.tolist() == [len(encoding.ids) for encoding in encodings]
        assert ids.tolist() == list(chain.from_iterable(each.ids for each in encodings))


def test_words_forgotten_by_one_thread_do_not_come_back_from_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens, "_MOST_CHARACTERS", 12)
    words = Words(_network(SHIPPED_NETWORK).words.tokenizer)
    real = words.tokenizer

    class Interrupted:
        """Lets another caller fill and empty the words while this one's are read."""

        def encode_batch_fast(self, *given: Any, **options: Any) -> Any:
            words.tokenizer = real
            words.tokens(["cold tea"])
            words.tokens(["warm soup"])
            return real.encode_batch_fast(*given, **options)

    words.tokenizer = Interrupted()
    words.tokens(["good bread"])
    assert set(words._known.numbers) == {"warm", "soup"}


def test_words_are_forgotten_before_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_MOST_CHARACTERS", 12)
    words = Words(_network(SHIPPED_NETWORK).words.tokenizer)
    first = words.tokens(["good soup"]).ids.tolist()
    assert words.tokens(["cold tea"]).ids.tolist() != first
    assert set(words._known.numbers) == {"cold", "tea"}
    assert words.tokens(["good soup"]).ids.tolist() == first


@pytest.mark.parametrize("n_threads", [1, 4])
def test_vectors_do_not_depend_on_the_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, vectors: np.ndarray, n_threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
    monkeypatch.setattr(sentiment, "_CHUNK", 2)
    np.testing.assert_array_equal(SentimentEmbedder().encode(TEXTS).vectors, vectors)


def test_threads_that_learn_the_same_words_agree() -> None:
    words = Words(_network(SHIPPED_NETWORK).words.tokenizer)
    texts = [f"word{number % 97} soup{number % 89} tea" for number in range(2000)]
    alone = words.tokens(texts)
    shared = Words(words.tokenizer)
    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(lambda start: shared.tokens(texts[start::40]), range(40)))
    for start, part in enumerate(parts):
        own = words.tokens(texts[start::40])
        assert part.ids.tolist() == own.ids.tolist()
        assert part.sizes.tolist() == alone.sizes[start::40].tolist()


def test_statistics_by_hand() -> None:
    results = np.array([[0.2, 1.0], [-0.6, 3.0], [0.1, 5.0], [0.9, 7.0]])
    texts, vectors = summarize(results, np.array([1, 3, 2, 5]), np.array([0, 0, 0, 4]))
    assert texts.tolist() == [0, 4]
    first = dict(zip((*STATISTICS, "content"), vectors[0].tolist(), strict=True))
    assert first == pytest.approx(
        {
            "mean": -0.1,
            "mean_by_tokens": (0.2 - 1.8 + 0.2) / 6,
            "lowest": -0.6,
            "highest": 0.2,
            "deviation": np.std([0.2, -0.6, 0.1]),
            "first": 0.2,
            "last": 0.1,
            "share_positive": 1 / 3,
            "share_negative": 1 / 3,
            "mean_positive_part": 0.1,
            "mean_negative_part": 0.2,
            "two_lowest": -0.25,
            "two_last": -0.25,
            "log_sentences": np.log(4),
            "content": 3.0,
        }
    )
    assert vectors[1, column("two_lowest")] == pytest.approx(0.9)


def test_long_texts_are_cut_and_said_to_be() -> None:
    encoded = SentimentEmbedder(max_tokens=5).encode(["good " * 5, "good " * 6, "Bad. " * 9])
    assert encoded.truncated.tolist() == [False, True, True]
    np.testing.assert_array_equal(encoded.vectors[0], encoded.vectors[1])
    assert not SentimentEmbedder(max_tokens=None).encode(["good " * 5000]).truncated.any()


def test_sentences_end_before_a_space_only() -> None:
    assert sentences("It cost 3.50! (Really.) Ok") == ["It cost 3.50!", "(Really.", "Ok"]
    assert sentences("") == []


def test_clone_and_pickle_keep_parameters_and_no_model() -> None:
    embedder = SentimentEmbedder(max_tokens=7)
    embedder.encode(["good"])
    assert clone(embedder).get_params() == embedder.get_params()
    assert len(pickle.dumps(embedder)) < 1000


def test_fingerprint_changes_with_what_changes_the_vectors(tmp_path: Path) -> None:
    elsewhere = Path(shutil.copytree(SHIPPED_NETWORK, tmp_path / "elsewhere"))
    same = SentimentEmbedder().fingerprint()
    assert SentimentEmbedder(path=str(elsewhere)).fingerprint() == same
    assert SentimentEmbedder(max_tokens=8).fingerprint() != same


def test_damage_is_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SHIPPED_NETWORK, tmp_path / "damaged"))
    with (folder / NETWORK_FILE).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ArtifactError, match=NETWORK_FILE):
        SentimentEmbedder(path=str(folder)).encode(["good"])


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"SentimentEmbedder: path must be .* got"):
        SentimentEmbedder(path=str(tmp_path)).encode(["good"])
    with pytest.raises(InputError, match="max_tokens must be a whole number"):
        SentimentEmbedder(max_tokens=0).encode(["good"])


def test_shipped_folder_is_small_licensed_and_names_no_machine() -> None:
    files = [path for path in SHIPPED_NETWORK.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4_000_000
    assert "Apache License" in (SHIPPED_NETWORK / "LICENSE").read_text(encoding="utf-8")
    notice = (SHIPPED_NETWORK / "NOTICE").read_text(encoding="utf-8")
    assert "all-MiniLM-L6-v2" in notice
    assert "MIT" in notice
    assert set(json.loads((SHIPPED_NETWORK / "digests.json").read_text())) == {
        NETWORK_FILE,
        "tokenizer.json",
    }
    assert not any(
        b"/work/" in path.read_bytes() or b"/home/" in path.read_bytes() for path in files
    )
