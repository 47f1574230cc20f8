"""A quick model, its reference, and what there is to see in the rows it held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from batch_nlp.artifact import Artifact, Registry
from batch_nlp.logs import Clock
from batch_nlp.monitoring.monitor import Watch
from batch_nlp.monitoring.reference import Look, Reference, Words
from batch_nlp.predict import predict
from batch_nlp.rows.extract import Engine
from batch_nlp.run import kernel_of
from batch_nlp.store import FeatureStore


@dataclass(frozen=True)
class Judged:
    """A model and the rows that it was judged on."""

    artifact: Artifact
    watch: Watch
    features: pd.DataFrame
    predicted: pd.DataFrame
    target: npt.NDArray[np.int64]

    @property
    def reference(self) -> Reference:
        return self.watch.reference

    def look(self) -> Look:
        return self.reference.look(self.features, self.predicted, self.watch.words)

    def look_at(self, texts: list[str]) -> Look:
        """Look at the same rows with other texts."""
        features = self.features.iloc[: len(texts)].reset_index(drop=True)
        kernel = kernel_of(self.artifact)
        content = features[kernel.content].assign(text=pd.Series(texts, dtype="str"))
        derived = kernel.derive(content)
        vectors = kernel.embedder.encode_distinct(derived["clean_text"]).vectors
        whole = derived.join(kernel.embedder.vector_frame(vectors, derived.index))
        predicted = predict(self.artifact.model_pipeline, whole)
        return self.reference.look(whole, predicted, self.watch.words)


@pytest.fixture(scope="session")
def judged(trained_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """The model of `trained_root`, and the rows that it held out."""
    artifact = Registry(trained_root / "models", "sentiment").load()
    assert artifact.reference is not None
    reference = Reference.from_dict(artifact.reference)
    assert reference is not None
    kernel = kernel_of(artifact)
    rows = pd.read_parquet(trained_root / "data" / "09_inference" / "new" / "held_out.parquet")
    store = FeatureStore(tmp_path_factory.mktemp("store"), kernel, Clock(), Engine())
    features = store.features(rows).drop(columns="key")
    tested = pd.read_parquet(
        trained_root / "data" / "07_model_output" / "test_predictions.parquet"
    ).set_index("id")
    return Judged(
        artifact,
        Watch(reference, Words.of(artifact.model_pipeline)),
        features,
        predict(artifact.model_pipeline, features),
        tested["target"].loc[rows["id"]].to_numpy(),
    )
