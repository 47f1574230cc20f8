"""A fitted model, applied."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from batch_nlp.predict import PROBABILITIES, predict
from batch_nlp.training.calibrate import CalibratedClassifier


class Fixed(ClassifierMixin, BaseEstimator):
    """Gives the probabilities that stand in its input."""

    def __init__(self, classes: tuple[int, ...] = (0, 1, 2)) -> None:
        self.classes = classes
        self.classes_ = np.array(classes)

    def fit(self, X: pd.DataFrame, y: object = None) -> Fixed:
        return self

    def predict_proba(self, X: pd.DataFrame) -> npt.NDArray[np.float64]:
        return X.to_numpy()

    def predict(self, X: pd.DataFrame) -> npt.NDArray[np.int64]:
        return self.classes_[X.to_numpy().argmax(axis=1)]


class Counting(TransformerMixin, BaseEstimator):
    """Counts how often it is used."""

    def fit(self, X: pd.DataFrame, y: object = None) -> Counting:
        self.n_ = 0
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        self.n_ += 1
        return X


def model(*classes: int) -> Pipeline:
    return Pipeline([("fixed", Fixed(classes).fit(pd.DataFrame()))])


def test_the_most_probable_class_and_the_lowest_on_a_tie() -> None:
    features = pd.DataFrame(
        [[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [0.1, 0.2, 0.7]], index=["c", "a", "b"]
    )
    found = predict(model(0, 1, 2), features)
    assert found.index.tolist() == ["c", "a", "b"]
    assert found["prediction"].tolist() == [1, 0, 2]
    assert found["prediction"].dtype == "int64"
    assert found["label"].tolist() == ["neutral", "negative", "positive"]
    assert found[PROBABILITIES].to_numpy().tolist() == features.to_numpy().tolist()


@pytest.mark.parametrize(
    ("classes", "probabilities", "label"),
    [
        ((0, 2), [0.4, 0.6], "positive"),
        ((1, 2), [0.6, 0.4], "neutral"),
        ((1,), [1.0], "neutral"),
    ],
)
def test_a_class_that_the_model_does_not_know_has_probability_0(
    classes: tuple[int, ...], probabilities: list[float], label: str
) -> None:
    found = predict(model(*classes), pd.DataFrame([probabilities]))
    assert found["label"].item() == label
    known = dict(zip(classes, probabilities, strict=True))
    assert found[PROBABILITIES].to_numpy().tolist() == [[known.get(i, 0.0) for i in range(3)]]


def test_classes_in_another_order_keep_their_columns() -> None:
    found = predict(model(2, 0, 1), pd.DataFrame([[0.7, 0.2, 0.1]]))
    assert found[PROBABILITIES].to_numpy().tolist() == [[0.2, 0.1, 0.7]]
    assert found["label"].item() == "positive"


def test_the_label_is_the_models_own() -> None:
    rng = np.random.default_rng(0)
    target = rng.choice(3, 300, p=[0.2, 0.1, 0.7])
    rows = pd.DataFrame({"a": target + rng.normal(size=300)})
    calibrated = CalibratedClassifier(estimator=LogisticRegression())
    fitted = Pipeline([("count", Counting()), ("classifier", calibrated)]).fit(rows, target)
    found = predict(fitted, rows)
    assert found["prediction"].tolist() == fitted.predict(rows).tolist()
    probabilities = found[PROBABILITIES].to_numpy()
    assert np.array_equal(probabilities, fitted.predict_proba(rows))
    assert (found["prediction"] != probabilities.argmax(axis=1)).any()


def test_the_steps_before_the_classifier_run_once() -> None:
    rows = pd.DataFrame({"a": [0.0, 1.0, 2.0]})
    fitted = Pipeline([("count", Counting()), ("last", LogisticRegression())]).fit(rows, [0, 1, 2])
    before = fitted["count"].n_
    predict(fitted, rows)
    assert fitted["count"].n_ == before + 1
