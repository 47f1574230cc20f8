"""Law 1: a message's prediction depends on that message and the artifact alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from batch_nlp.artifact import Artifact, Registry
from batch_nlp.kernel import Kernel, fields_from_json
from batch_nlp.logs import Clock
from batch_nlp.rows.datasets import YelpDataset
from batch_nlp.rows.extract import Engine, Extraction
from batch_nlp.sample import SampleFiles
from batch_nlp.store import FeatureStore

PROBABILITIES = ["proba_negative", "proba_neutral", "proba_positive"]

NOISE = [
    '{"review_id": "cut off", "text": "The be',
    '{"review_id": "no text", "text": null}',
    '{"review_id": "bad date", "text": "Fine.", "date": "2020-02-30 00:00:00"}',
    '{"review_id": "bad count", "text": "Fine.", "useful": -1}',
    "[]",
]


@pytest.fixture(scope="module", params=["hashing", "static"])
def model_root(
    request: pytest.FixtureRequest,
    trained_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
    cli: Callable[..., Any],
    fast: tuple[str, ...],
) -> Path:
    """Root of a trained model: a quick one, and one as it is by default."""
    if request.param == "hashing":
        return trained_root
    folder = tmp_path_factory.mktemp("static") / "root"
    own = ("embedder=static", "classifier=xgboost", "classifier.n_estimators=40")
    for stage in ("feature", "training"):
        ended = cli(*fast, *own, f"pipeline={stage}", f"paths.root={folder}")
        assert ended.status == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def lines(reviews: list[dict[str, Any]]) -> list[str]:
    """New messages, of all lengths, each a line."""
    return [json.dumps(row) for row in reviews[:40]]


@pytest.fixture(scope="module")
def score(
    model_root: Path,
    synthetic: SampleFiles,
    tmp_path_factory: pytest.TempPathFactory,
    cli: Callable[..., Any],
    delivered: Callable[[Path], pd.DataFrame],
) -> Callable[..., pd.DataFrame]:
    """Score lines of reviews in a root where nothing is kept from before."""

    def run(lines: list[str], *overrides: str) -> pd.DataFrame:
        folder = tmp_path_factory.mktemp("scored")
        shutil.copytree(model_root / "models", folder / "models")
        source = folder / "new.json"
        source.write_text("\n".join(lines) + "\n", encoding="utf-8")
        for table in ("user", "business"):
            # Only those that wrote or are written about: the others cost time in batches of 1.
            known = getattr(synthetic, table).read_text(encoding="utf-8").splitlines()
            wanted = {key for line in lines for key in re.findall(rf'"{table}_id": "(.+?)"', line)}
            rows = [line for line in known if json.loads(line)[f"{table}_id"] in wanted]
            (folder / f"{table}.json").write_text("\n".join(rows) + "\n", encoding="utf-8")
        ended = cli(
            "pipeline=inference",
            "dataset=yelp",
            f"dataset.user={folder / 'user.json'}",
            f"dataset.business={folder / 'business.json'}",
            f"inference.source={source}",
            f"paths.root={folder}",
            "logs.level=WARNING",
            "inference.shares.min_rows=1000",
            *overrides,
        )
        assert ended.status == 0, ended.stderr
        return delivered(folder)

    return run


@pytest.fixture(scope="module")
def together(score: Callable[..., pd.DataFrame], lines: list[str]) -> pd.DataFrame:
    """The predictions of all messages at once."""
    return score(lines)


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    expected = expected.loc[found.index]
    assert found["prediction"].tolist() == expected["prediction"].tolist()
    assert found["label"].tolist() == expected["label"].tolist()
    assert found[PROBABILITIES].to_numpy() == pytest.approx(
        expected[PROBABILITIES].to_numpy(), abs=1e-5
    )


def test_the_predictions_differ_from_message_to_message(together: pd.DataFrame) -> None:
    assert together["prediction"].nunique() == 3
    assert together["proba_positive"].nunique() > 30


def test_alone(
    score: Callable[..., pd.DataFrame], lines: list[str], together: pd.DataFrame
) -> None:
    for line in (lines[0], min(lines, key=len), max(lines, key=len)):
        alone = score([line])
        assert alone.index.tolist() == [json.loads(line)["review_id"]]
        assert_same(alone, together)


def test_in_several_processes(
    score: Callable[..., pd.DataFrame], lines: list[str], together: pd.DataFrame
) -> None:
    found = score(lines, "engine.processes=2", "engine.batch_rows=30")
    assert found.index.tolist() == together.index.tolist()
    assert_same(found, together)


def test_shuffled(
    score: Callable[..., pd.DataFrame], lines: list[str], together: pd.DataFrame
) -> None:
    shuffled = Random(3).sample(lines, len(lines))
    found = score(shuffled)
    assert found.index.tolist() == [json.loads(line)["review_id"] for line in shuffled]
    assert_same(found, together)


@pytest.mark.parametrize(("batch_rows", "n_rows"), [(1, 8), (7, 40), (50_000, 40)])
def test_in_batches_of_any_size(
    score: Callable[..., pd.DataFrame],
    lines: list[str],
    together: pd.DataFrame,
    batch_rows: int,
    n_rows: int,
) -> None:
    found = score(lines[:n_rows], f"engine.batch_rows={batch_rows}")
    assert found.index.tolist() == together.index[:n_rows].tolist()
    assert_same(found, together)


def test_among_rejected_rows_and_duplicates(
    score: Callable[..., pd.DataFrame], lines: list[str], together: pd.DataFrame
) -> None:
    mixed = [each for i, line in enumerate(lines) for each in (line, NOISE[i % len(NOISE)])]
    found = score([*mixed, lines[0], lines[7]], "engine.batch_rows=11", "engine.threads=1")
    assert found.index.tolist() == together.index.tolist()
    assert_same(found, together)


@pytest.fixture(scope="module")
def artifact(model_root: Path) -> Artifact:
    return Registry(model_root / "models", "sentiment").load()


def test_the_kernel_alone_makes_the_features_of_the_store(
    artifact: Artifact, synthetic: SampleFiles, lines: list[str], tmp_path: Path
) -> None:
    described = artifact.card["features"]
    fields = fields_from_json(described["fields"])
    kernel = Kernel(fields, artifact.feature_pipeline, described["steps"])
    path = tmp_path / "new.json"
    path.write_text("\n".join([*lines[:20], *NOISE]), encoding="utf-8")
    source = YelpDataset(user=str(synthetic.user)).source(str(path), fields)
    with Extraction(source, Engine(batch_rows=9), tmp_path / "spill", targets=False) as extraction:
        batches = [batch.drop_columns(["source", "row"]) for batch in extraction.rows()]
    mapped = pa.Table.from_batches([kernel(batch) for batch in batches]).to_pandas()
    rows = pa.Table.from_batches(batches).to_pandas()
    store = FeatureStore(tmp_path / "store", kernel, Clock())
    accepted = kernel.check(rows).accepted
    kept = store.features(accepted)

    passed = mapped["failures"].map(len) == 0
    assert len(mapped) == len(rows)
    assert passed.sum() == len(accepted) == 20
    assert mapped.loc[passed, "id"].tolist() == accepted["id"].tolist()
    pd.testing.assert_frame_equal(
        mapped.loc[passed, kernel.features.names].reset_index(drop=True),
        kept[kernel.features.names].reset_index(drop=True),
    )
    vectors = kept.filter(like="embedding_").to_numpy()
    assert vectors.shape[1] == kernel.n_dims > 0
    assert np.stack(mapped.loc[passed, "vector"].to_list()) == pytest.approx(vectors, abs=1e-6)
    reasons = [case["column"] for cases in mapped.loc[~passed, "failures"] for case in cases]
    assert sorted(reasons) == ["date", "text", "useful"]
    assert mapped.loc[~passed, [*kernel.features.names, "vector"]].isna().all(axis=None)
