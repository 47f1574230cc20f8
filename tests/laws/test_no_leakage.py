"""What a row's own label does not teach: the model learns nothing from labels that mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline

from batch_nlp.artifact import Registry
from batch_nlp.kernel import Kernel, fields_from_json
from batch_nlp.logs import Clock
from batch_nlp.predict import PROBABILITIES, predict
from batch_nlp.settings import build
from batch_nlp.store import FeatureStore, read_manifest
from batch_nlp.training.evaluate import Evaluation, evaluate
from batch_nlp.training.labels import StarRule
from batch_nlp.training.pipeline import chain, ngrams
from batch_nlp.transformers import OutOfFoldScores

Rows = tuple[pd.DataFrame, npt.NDArray[np.int64]]

N_TRAIN = 400


@pytest.fixture(scope="module")
def rows(trained_root: Path) -> Rows:
    """The rows of a feature store as the model pipeline takes them, and their classes."""
    described = Registry(trained_root / "models", "sentiment").load()
    features = described.card["features"]
    kernel = Kernel(
        fields_from_json(features["fields"]), described.feature_pipeline, features["steps"]
    )
    folder = trained_root / "data" / "04_feature"
    store = FeatureStore(folder, kernel, Clock())
    frames = store.read(read_manifest(folder), batch_rows=1000, newest=1000)
    found = pd.concat(frames, ignore_index=True)
    target = StarRule().apply(found).to_numpy(dtype="int64")
    return found.drop(columns=["id", "key", "stars", "label"]), target


@pytest.fixture(scope="module", params=["logistic", "xgboost"])
def judged(
    request: pytest.FixtureRequest, rows: Rows, conf_folder: Path
) -> Callable[[npt.NDArray[np.int64]], Evaluation]:
    """Fit the configured model pipeline on the first rows, and judge it on the others."""
    overrides = [f"classifier={request.param}"]
    if request.param == "xgboost":
        overrides += ["classifier.n_estimators=30"]
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder)):
        model: Pipeline = build(compose("config", overrides=overrides).training.model, "model")
    X, _ = rows

    def judge(target: npt.NDArray[np.int64]) -> Evaluation:
        fitted = clone(model).fit(X.iloc[:N_TRAIN], target[:N_TRAIN])
        found = predict(fitted, X.iloc[N_TRAIN:])
        return evaluate(
            target[N_TRAIN:], found[PROBABILITIES], predicted=found["prediction"].to_numpy()
        )

    return judge


def shuffled(target: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(target)


def test_shuffled_labels_score_at_chance(
    judged: Callable[[npt.NDArray[np.int64]], Evaluation], rows: Rows
) -> None:
    target = rows[1]
    results = [judged(shuffled(target, seed)) for seed in range(4)]
    assert np.mean([each.recall_macro for each in results]) == pytest.approx(1 / 3, abs=0.06)
    # It knows that it knows nothing: in-fold scores of the text would make it sure of itself.
    shares = np.bincount(target) / len(target)
    entropy = -(shares * np.log(shares)).sum()
    assert np.mean([each.log_loss for each in results]) < entropy + 0.12
    assert judged(target).recall_macro > 0.5


@pytest.fixture(scope="module")
def scores() -> BaseEstimator:
    return OutOfFoldScores(
        estimator=chain(words=ngrams(longest=2), classifier=MultinomialNB(alpha=0.1)), cv=5
    )


def test_scores_of_the_text_are_out_of_fold(scores: BaseEstimator, rows: Rows) -> None:
    X, target = rows
    meaningless = shuffled(target, 0)
    step = clone(scores)
    out_of_fold = step.fit_transform(X, meaningless)
    in_fold = step.transform(X)
    names = [name for name in out_of_fold if name.startswith("text_score_")]
    assert len(names) == 3
    assert (np.abs(out_of_fold[names] - in_fold[names]).max() > 0.1).all()
    truth = meaningless == 2
    assert roc_auc_score(truth, in_fold["text_score_2"]) > 0.9
    assert roc_auc_score(truth, out_of_fold["text_score_2"]) == pytest.approx(0.5, abs=0.1)


def test_scores_by_stars_are_out_of_fold_too(scores: BaseEstimator, rows: Rows) -> None:
    X, target = rows
    meaningless = shuffled(target, 0)
    stars = np.select([meaningless == 0, meaningless == 1], [1, 3], 4 + np.arange(len(X)) % 2)
    step = clone(scores)
    out_of_fold = step.fit_transform(X, meaningless, grades=stars)
    in_fold = step.transform(X)
    for star in (1, 5):
        name = f"text_score_{star}"
        assert roc_auc_score(stars == star, in_fold[name]) > 0.9
        assert roc_auc_score(stars == star, out_of_fold[name]) == pytest.approx(0.5, abs=0.1)


def test_rows_of_one_text_are_in_one_fold(scores: BaseEstimator, rows: Rows) -> None:
    X, target = rows
    twice = pd.concat([X.iloc[:200], X.iloc[:200]], ignore_index=True)
    meaningless = np.tile(shuffled(target[:200], 0), 2)
    out_of_fold = clone(scores).fit_transform(twice, meaningless)["text_score_2"]
    assert roc_auc_score(meaningless == 2, out_of_fold) == pytest.approx(0.5, abs=0.12)
