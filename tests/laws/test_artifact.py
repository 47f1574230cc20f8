"""Law 3: editing the configuration after training cannot change what a trained model sees."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batch_nlp import embedders

Cli = Callable[..., Any]

EDITS = {
    "embedder": ["embedder=none"],
    "embedder's size": ["embedder.n_features=8"],
    "feature steps": [
        "feature.steps.text_statistics=null",
        "feature.steps.flags.columns=[useful]",
        "+feature.steps.clean_text.lowercase=true",
    ],
    "classifier": ["classifier=prior"],
    "labels": ["training.label.negative=1", "training.label.positive=5"],
    "model": ["training.model.learn.text=null", "training.model.select.correlated=null"],
    "seed": ["seed=1"],
    "everything": ["embedder=none", "classifier=random_forest", "feature.steps.tenure=null"],
}


@pytest.fixture(scope="module")
def as_trained(trained_root: Path, delivered: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
    return delivered(trained_root).drop(columns="run_id")


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_after_training_changes_no_prediction(
    *,
    cli: Cli,
    root: Path,
    fast: tuple[str, ...],
    as_trained: pd.DataFrame,
    delivered: Callable[[Path], pd.DataFrame],
    edit: str,
) -> None:
    shutil.rmtree(root / "data" / "04_feature")  # what was computed in training is not used again
    ended = cli(*fast, *EDITS[edit], "pipeline=inference", f"paths.root={root}")
    assert ended.status == 0, ended.stderr
    pd.testing.assert_frame_equal(delivered(root).drop(columns="run_id"), as_trained)


def test_columns_named_for_training_are_read_though_inference_does_not_name_them(
    cli: Cli,
    tmp_path: Path,
    fast: tuple[str, ...],
    reviews: list[dict[str, Any]],
    delivered: Callable[[Path], pd.DataFrame],
) -> None:
    rows = pd.DataFrame(reviews[:300]).rename(columns={"review_id": "id", "stars": "rating"})
    # These columns tell the class, so a model that reads them cannot but use them.
    rows["city"] = rows["rating"].map(lambda stars: f"town of {stars:.0f}")
    rows["channel"] = rows["rating"].map(lambda stars: "web" if stars > 3 else "desk")
    path, root = tmp_path / "messages.csv", tmp_path / "root"
    rows[["id", "text", "rating", "city", "channel"]].to_csv(path, index=False)
    base = (
        *fast,
        "dataset=messages",
        f"paths.root={root}",
        "training.model.learn.text=null",
        "classifier.C=1.0",  # little data
    )
    named = "dataset.categorical=[city,channel]"
    for stage in ("feature", "training"):
        ended = cli(*base, f"pipeline={stage}", f"dataset.path={path}", named)
        assert ended.status == 0, ended.stderr

    def predictions(*overrides: str) -> pd.DataFrame:
        ended = cli(*base, "pipeline=inference", f"inference.source={path}", *overrides)
        assert ended.status == 0, ended.stderr
        return delivered(root).drop(columns="run_id")

    expected = predictions(named)
    target = rows["rating"].map({1.0: 0, 2.0: 0, 3.0: 1, 4.0: 2, 5.0: 2})
    assert (expected["prediction"].to_numpy() == target.to_numpy()).mean() > 0.97
    pd.testing.assert_frame_equal(predictions(), expected)


def test_an_embedding_model_that_has_changed_is_refused(
    cli: Cli, fast: tuple[str, ...], tmp_path: Path
) -> None:
    static = tmp_path / "static"
    shutil.copytree(embedders.SHIPPED_MODEL, static)
    (static / "digests.json").unlink()
    options = [*fast, "embedder=static", f"embedder.path={static}", f"paths.root={tmp_path / 'r'}"]
    assert cli(*options).status == 0
    config = json.loads((static / "config.json").read_text())
    (static / "config.json").write_text(json.dumps({**config, "normalize": False}))
    embedders.verified_digests.cache_clear()
    ended = cli(*options, "pipeline=inference")
    assert ended.status == 1
    assert "embedding model that model" in ended.stderr
    assert "has changed since" in ended.stderr
