"""The committed sample of features is what the feature pipeline makes today."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from batch_nlp.feature.job import FeatureJob
from batch_nlp.kernel import Kernel, fields_from_json
from batch_nlp.logs import Clock
from batch_nlp.settings import build, plain
from batch_nlp.store import FeatureStore, Manifest, read_manifest

PROJECT = Path(__file__).parent.parent
SAMPLE = PROJECT / "data" / "04_feature" / "sample"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(SAMPLE)


@pytest.fixture(scope="module")
def kernel(manifest: Manifest) -> Kernel:
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        config = compose("config")
    job: FeatureJob = build(config.feature, "feature")
    return job.kernel(fields_from_json(manifest.fields), plain(config.feature.steps))


@pytest.fixture(scope="module")
def rows(manifest: Manifest, kernel: Kernel) -> pd.DataFrame:
    frames = FeatureStore(SAMPLE, kernel, Clock()).read(manifest, batch_rows=500, newest=10**6)
    return pd.concat(frames, ignore_index=True)


def test_it_is_of_the_default_feature_pipeline(manifest: Manifest, kernel: Kernel) -> None:
    assert manifest.fingerprint == kernel.fingerprint
    assert manifest.vector_fingerprint == kernel.vector_fingerprint


def test_features_are_what_the_pipeline_makes_today(rows: pd.DataFrame, kernel: Kernel) -> None:
    some = rows.head(100)
    made = kernel.derive(some[kernel.content])
    pd.testing.assert_frame_equal(some[made.columns.tolist()], made, rtol=1e-9)


def test_vectors_are_what_the_embedder_makes_today(rows: pd.DataFrame, kernel: Kernel) -> None:
    some = rows.head(50)
    made = kernel.embedder.encode_distinct(some[kernel.embedder.column]).vectors
    stored = some[kernel.embedder.vector_frame(made, some.index).columns.tolist()]
    np.testing.assert_allclose(stored.to_numpy(), made, atol=1e-6)


def test_texts_have_their_vectors(rows: pd.DataFrame, kernel: Kernel, tmp_path: Path) -> None:
    # Of a copy: what was lacking would be added.
    store = FeatureStore(shutil.copytree(SAMPLE, tmp_path / "sample"), kernel, Clock())
    texts = rows[kernel.embedder.column]
    store.vectors(texts, store.text_keys(texts))
    assert store.usage.embedded == 0


def test_all_rows_are_labelled_and_of_every_class(rows: pd.DataFrame, manifest: Manifest) -> None:
    assert len(rows) == manifest.n_rows
    assert rows["stars"].between(1, 5).all()
    assert rows["stars"].nunique() == 5
