"""Shared by the tests of explanations: messages, and models fitted to them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from batch_nlp.training.calibrate import CalibratedClassifier
from batch_nlp.training.pipeline import chain, model_pipeline, ngrams
from batch_nlp.transformers import OutOfFoldScores

FILLERS = ("the", "a", "we", "was")
WORDS = ("awful rude dirty slow", "okay average fine ordinary", "great lovely clean quick")

Fit = Callable[..., Pipeline]


def labelled(n: int = 240) -> tuple[pd.DataFrame, np.ndarray]:
    """Give features of messages whose words tell their class, most of the time, and the classes."""
    random, rng = Random(0), np.random.default_rng(0)
    target = np.array([random.choice((0, 0, 1, 2, 2, 2)) for _ in range(n)])
    texts = []
    for number in target:
        told = number if random.random() < 0.9 else random.randrange(3)
        words = random.choices(WORDS[told].split(), k=3) + random.choices(FILLERS, k=3)
        random.shuffle(words)
        texts.append(f"{' '.join(words)} {random.randrange(50)}")
    rows = pd.DataFrame(
        {
            "clean_text": pd.array(texts, dtype="str"),
            "city": pd.array(random.choices(["Reno", "Tampa"], k=n), dtype="str"),
            "fans": rng.normal(size=n) + target,
            "embedding_0": rng.normal(size=n).astype("float32") - target,
            "embedding_1": rng.normal(size=n).astype("float32"),
        }
    )
    return rows, target


@pytest.fixture(scope="session")
def messages() -> pd.DataFrame:
    """Features of some messages."""
    return labelled()[0]


@pytest.fixture(scope="session")
def fit() -> Fit:
    """Fit a model of the usual form: ``fit(classifier)``."""

    def make(
        classifier: BaseEstimator,
        *,
        text: BaseEstimator | None = None,
        refit: bool = True,
        embedding: BaseEstimator | str = "passthrough",
        stars: bool = False,
    ) -> Pipeline:
        linear = OneVsRestClassifier(LogisticRegression(solver="liblinear"))
        model = model_pipeline(
            learn={
                "text": OutOfFoldScores(
                    estimator=text or chain(words=ngrams(longest=2), classifier=linear),
                    cv=3,
                    refit=refit,
                )
            },
            numeric=StandardScaler(),
            categorical=OneHotEncoder(sparse_output=False, handle_unknown="ignore"),
            embedding=embedding,
            select={"constant": VarianceThreshold()},
            classifier=classifier,
        )
        rows, target = labelled()
        fine = 2 * target + np.where(target == 2, np.arange(len(target)) % 2, 1)
        return model.fit(rows, target, **({"text__grades": fine} if stars else {}))

    return make


@pytest.fixture(scope="session")
def boosted(fit: Fit) -> Pipeline:
    """A model whose classifier is XGBoost, calibrated."""
    from xgboost import XGBClassifier

    classifier = XGBClassifier(n_estimators=40, max_depth=3, n_jobs=1, objective="multi:softprob")
    return fit(CalibratedClassifier(estimator=classifier, cv=3))
