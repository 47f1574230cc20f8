"""Distillation, with a source of a few dozen tokens."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from batch_nlp import distill, embedders
from batch_nlp.distill import Distillation
from batch_nlp.embedders import StaticEmbedder, file_digests
from batch_nlp.errors import ArtifactError, InputError

WORDS = ["good", "bad", "soup", "cold", "warm", "the", "was", "service", "place", "not", "très"]

needs_extra = pytest.mark.skipif(
    find_spec("sentence_transformers") is None,
    reason="the extra `transformers` is not installed (make install EXTRAS=transformers)",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a BERT with one layer and weights drawn at random."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = [*specials, "[unused0]", *WORDS, *"abcdefghijklmnopqrstuvwxyz", "好", "★"]
    tokenizer = Tokenizer(
        models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    folder = tmp_path_factory.mktemp("sources") / "tiny-bert"
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dims": 0}, "Distillation: dims must be a whole number of at least 1; got 0"),
        ({"dtype": "int4"}, "dtype must be one of 'int8', 'float16', 'float32'; got 'int4'"),
        ({"sif_coefficient": 1.5}, "sif_coefficient must lie between 0 and 1, or be null; got 1.5"),
        ({"remove_tokens": "(["}, "remove_tokens must be a regular expression"),
    ],
)
def test_senseless_parameters_are_refused(
    tmp_path: Path, parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Distillation(output=str(tmp_path / "out"), **parameters).run()
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine", encoding="utf-8")
    for taken in (tmp_path, tmp_path / "note.txt"):
        with pytest.raises(InputError, match=f"output must be a new or an empty folder; '{taken}'"):
            Distillation(output=str(taken)).run()
    assert (tmp_path / "note.txt").read_text(encoding="utf-8") == "mine"


def test_a_missing_extra_is_told_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedders, "find_spec", lambda module: None)
    with pytest.raises(InputError, match=r"Distillation needs torch, .*EXTRAS=transformers"):
        Distillation(output=str(tmp_path / "out")).run()
    assert not list(tmp_path.iterdir())


@pytest.mark.transformers
@needs_extra
def test_a_distilled_model_is_whole(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "models" / "tiny"
    partial = output.with_name(".tiny.tmp")
    partial.mkdir(parents=True)
    (partial / "left").touch()
    done = Distillation(
        output=str(output), source=str(source), dims=8, measured="F1 0.5 on nothing."
    ).run()
    assert done == output
    assert [path.name for path in output.parent.iterdir()] == ["tiny"]
    names = {path.name for path in output.iterdir()}
    digested = {"config.json", "model.safetensors", "modules.json", "tokenizer.json"}
    assert names == digested | {"digests.json", "README.md"}
    digests = json.loads((output / "digests.json").read_text(encoding="utf-8"))
    assert digests == file_digests(output)
    assert set(digests) == digested
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_name"] == "tiny-bert"
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "license: other" in card
    assert "distilled from tiny-bert" in card
    assert "8 dimensions" in card
    assert "stored as int8" in card
    assert "F1 0.5 on nothing." in card
    for path in output.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
        assert str(source.parent).encode() not in path.read_bytes()


@pytest.mark.transformers
@needs_extra
@pytest.mark.parametrize("dtype", ["int8", "float16", "float32"])
def test_a_distilled_model_embeds(source: Path, tmp_path: Path, dtype: str) -> None:
    path = str(
        Distillation(output=str(tmp_path / dtype), source=str(source), dims=8, dtype=dtype).run()
    )
    texts = ["good soup", "the soup was not cold", "[unused0]", "好", "★"]
    vectors = StaticEmbedder(path=path).encode(texts).vectors
    assert vectors.shape == (5, 8)
    lengths = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(lengths[[0, 1, 4]], 1, atol=1e-3)
    assert lengths[3] == 0  # Han script is not in a vocabulary for English.
    (Path(path) / "model.safetensors").write_bytes(b"")
    embedders.verified_digests.cache_clear()
    with pytest.raises(ArtifactError, match=r"model\.safetensors must have the SHA-256"):
        StaticEmbedder(path=path).fingerprint()


@pytest.mark.transformers
@needs_extra
def test_the_packaged_source_brings_its_licence(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "sentence_folder", lambda model: source)
    output = Distillation(output=str(tmp_path / "out"), dims=8, remove_tokens=None).run()
    assert "Apache License" in (output / "LICENSE").read_text(encoding="utf-8")
    assert "all-MiniLM-L6-v2" in (output / "NOTICE").read_text(encoding="utf-8")
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card
    assert "Not measured." in card
    assert StaticEmbedder(path=str(output)).encode(["好"]).vectors.any()


@pytest.mark.transformers
@needs_extra
def test_a_failure_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> dict[str, str]:
        raise OSError("no space left on device")

    monkeypatch.setattr(distill, "file_digests", fail)
    with pytest.raises(OSError, match="no space left"):
        Distillation(output=str(tmp_path / "out"), source=str(source), dims=8).run()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="cannot be distilled"):
        Distillation(output=str(tmp_path / "out"), source=str(tmp_path / "empty")).run()
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
