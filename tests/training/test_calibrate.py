"""Calibrated probabilities, and labels in the natural shares."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from batch_nlp.training.calibrate import CalibratedClassifier, inner_classifier
from batch_nlp.training.evaluate import evaluate

Rows = tuple[pd.DataFrame, npt.NDArray[np.int64]]

SHARES = [0.25, 0.12, 0.63]


def drawn(n: int, seed: int, copies: int = 5) -> Rows:
    """Rows whose one signal stands in several columns: naive Bayes counts it several times."""
    rng = np.random.default_rng(seed)
    y = rng.choice(3, n, p=SHARES)
    signal = y[:, None] + rng.normal(size=(n, 1))
    X = np.repeat(signal, copies, axis=1) + rng.normal(scale=0.1, size=(n, copies))
    return pd.DataFrame(X, columns=[f"copy_{i}" for i in range(copies)]), y


@pytest.fixture(scope="module")
def training() -> Rows:
    return drawn(2400, seed=1)


@pytest.fixture(scope="module")
def held_out() -> Rows:
    return drawn(4000, seed=2)


def classifiers() -> dict[str, Any]:
    from xgboost import XGBClassifier

    return {
        "boosted": XGBClassifier(n_estimators=60, max_depth=3, learning_rate=0.1, n_jobs=1),
        "logistic": LogisticRegression(),
        "forest": RandomForestClassifier(n_estimators=20, min_samples_leaf=5, random_state=0),
        "prior": DummyClassifier(),
    }


# Probabilities


@pytest.mark.parametrize("method", ["temperature", "sigmoid", "isotonic"])
def test_too_sure_a_classifier_is_put_right(method: str, training: Rows, held_out: Rows) -> None:
    bare = GaussianNB().fit(*training)
    model = CalibratedClassifier(estimator=GaussianNB(), method=method).fit(*training)
    X, y = held_out
    before, after = (evaluate(y, each.predict_proba(X)) for each in (bare, model))
    assert model.method_ == method
    assert after.log_loss < 0.8 * before.log_loss
    # One temperature cannot undo all that counting a signal five times does.
    least = 0.15 if method == "temperature" else 0.05
    assert after.expected_calibration_error < least < before.expected_calibration_error
    assert model.predict_proba(X).sum(axis=1) == pytest.approx(1)
    assert (model.predict_proba(X) > 0).all()


def test_one_temperature_leaves_the_order_of_the_classes(training: Rows) -> None:
    model = CalibratedClassifier(estimator=GaussianNB()).fit(*training)
    raw = model.estimator_.predict_proba(training[0])
    assert model.temperature_ > 1.5
    corrected = model.predict_proba(training[0])
    assert np.array_equal(corrected.argmax(axis=1), raw.argmax(axis=1))
    powers = raw.clip(min=1e-15) ** (1 / model.temperature_)
    assert corrected == pytest.approx(powers / powers.sum(axis=1, keepdims=True))


class Honest(ClassifierMixin, BaseEstimator):
    """Gives the probabilities that stand in its input, whatever it was fitted on."""

    def fit(self, X: pd.DataFrame, y: Any) -> Honest:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X: pd.DataFrame) -> npt.NDArray[np.float64]:
        return X.to_numpy()

    def predict(self, X: pd.DataFrame) -> npt.NDArray[np.int64]:
        return self.classes_[X.to_numpy().argmax(axis=1)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", ["temperature", "sigmoid", "isotonic"])
def test_a_correction_that_makes_things_worse_is_dropped(method: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    honest = rng.dirichlet([1, 1, 1], 150)
    y = (honest.cumsum(axis=1) < rng.random((150, 1))).sum(axis=1)
    model = CalibratedClassifier(estimator=Honest(), method=method).fit(pd.DataFrame(honest), y)
    losses = model.log_losses_
    assert model.method_ == (method if losses["after"] <= losses["before"] else "none")
    if model.method_ == "none":
        assert np.array_equal(model.predict_proba(pd.DataFrame(honest)), honest)
        assert model.temperature_ == 1


def test_some_correction_is_dropped() -> None:
    rng = np.random.default_rng(0)
    honest = rng.dirichlet([1, 1, 1], 150)
    y = (honest.cumsum(axis=1) < rng.random((150, 1))).sum(axis=1)
    model = CalibratedClassifier(estimator=Honest(), method="isotonic")
    assert model.fit(pd.DataFrame(honest), y).method_ == "none"


# Decision


@pytest.mark.parametrize("name", ["boosted", "logistic", "forest"])
@pytest.mark.parametrize("method", ["temperature", "none"])
def test_classes_are_predicted_as_often_as_they_occur(
    name: str, method: str, training: Rows, held_out: Rows
) -> None:
    model = CalibratedClassifier(estimator=classifiers()[name], method=method).fit(*training)
    wanted = np.bincount(training[1]) / len(training[1])
    predicted = np.bincount(model.predict(held_out[0]), minlength=3) / len(held_out[1])
    assert predicted == pytest.approx(wanted, abs=0.02)
    most_probable = model.predict_proba(held_out[0]).argmax(axis=1)
    # Without the weights the scarce class stays hidden behind its neighbours.
    assert np.mean(most_probable == 1) < 0.06


def test_the_most_probable_class_on_request(training: Rows, held_out: Rows) -> None:
    model = CalibratedClassifier(estimator=LogisticRegression(), decision="argmax").fit(*training)
    assert model.log_weights_.tolist() == [0, 0, 0]
    expected = model.predict_proba(held_out[0]).argmax(axis=1)
    assert np.array_equal(model.predict(held_out[0]), expected)


def test_neither_is_the_classifier_itself(training: Rows, held_out: Rows) -> None:
    bare = LogisticRegression().fit(*training)
    model = CalibratedClassifier(estimator=LogisticRegression(), method="none", decision="argmax")
    model.fit(*training)
    assert np.array_equal(model.predict_proba(held_out[0]), bare.predict_proba(held_out[0]))
    assert np.array_equal(model.predict(held_out[0]), bare.predict(held_out[0]))
    assert model.log_losses_ == {}


@pytest.mark.parametrize("method", ["temperature", "sigmoid", "isotonic", "none"])
def test_an_answer_that_is_always_the_same_stays_the_most_frequent_class(
    method: str, training: Rows, held_out: Rows
) -> None:
    model = CalibratedClassifier(estimator=DummyClassifier(), method=method).fit(*training)
    assert set(model.predict(held_out[0])) == {2}


def test_certainty_is_decided_as_it_is(training: Rows) -> None:
    X = pd.DataFrame(np.eye(3)[training[1]])
    model = CalibratedClassifier(estimator=Honest()).fit(X, training[1])
    assert np.array_equal(model.predict(X), training[1])
    assert np.isfinite(model.predict_proba(X)).all()


def test_labels_need_not_be_numbers(training: Rows) -> None:
    names = np.array(["bad", "middling", "good"])[training[1]]
    model = CalibratedClassifier(estimator=LogisticRegression()).fit(training[0], names)
    assert model.classes_.tolist() == ["bad", "good", "middling"]
    found = pd.Series(model.predict(training[0])).value_counts(normalize=True)
    assert found["middling"] == pytest.approx(np.mean(training[1] == 1), abs=0.03)


# Weights of the rows


def test_weights_reach_the_classifier_and_not_the_shares(training: Rows, held_out: Rows) -> None:
    X, y = training
    weights = compute_sample_weight("balanced", y)
    bare = LogisticRegression().fit(X, y, sample_weight=weights)
    model = CalibratedClassifier(estimator=LogisticRegression()).fit(X, y, sample_weight=weights)
    assert np.array_equal(model.estimator_.coef_, bare.coef_)
    assert not np.allclose(bare.coef_, LogisticRegression().fit(X, y).coef_)
    predicted = np.bincount(model.predict(held_out[0]), minlength=3) / len(held_out[1])
    assert predicted == pytest.approx(np.bincount(y) / len(y), abs=0.02)


def test_weights_reach_the_folds_too(training: Rows) -> None:
    X, y = training
    weights = compute_sample_weight("balanced", y)
    model = CalibratedClassifier(estimator=LogisticRegression(), method="none")
    even, balanced = model.fit(X, y).log_weights_, clone(model).fit(X, y, weights).log_weights_
    # What balancing gives the scarce class, the decision takes back.
    assert np.ptp(balanced - even) > 0.5


# Scarce classes


@pytest.mark.parametrize(("rarest", "learns"), [(4, True), (2, True), (1, False)])
def test_a_class_of_few_rows(training: Rows, rarest: int, learns: bool) -> None:
    X, y = training
    kept = np.concatenate([np.flatnonzero(y != 1), np.flatnonzero(y == 1)[:rarest]])
    model = CalibratedClassifier(estimator=LogisticRegression()).fit(X.iloc[kept], y[kept])
    assert model.classes_.tolist() == [0, 1, 2]
    assert bool(model.log_losses_) == learns
    if not learns:
        assert model.method_ == "none"
        assert model.log_weights_.tolist() == [0, 0, 0]
    assert model.predict_proba(X).shape == (len(X), 3)


def test_two_classes(training: Rows) -> None:
    X, y = training
    kept = y != 1
    model = CalibratedClassifier(estimator=LogisticRegression()).fit(X[kept], y[kept])
    assert set(model.predict(X)) == {0, 2}
    assert np.mean(model.predict(X[kept]) == 0) == pytest.approx(np.mean(y[kept] == 0), abs=0.02)


def test_one_class(training: Rows) -> None:
    X = training[0]
    model = CalibratedClassifier(estimator=DummyClassifier()).fit(X, np.full(len(X), 2))
    assert set(model.predict(X)) == {2}


# Contract


@pytest.mark.parametrize("name", ["boosted", "logistic", "forest", "prior"])
@pytest.mark.parametrize("method", ["temperature", "sigmoid", "isotonic", "none"])
def test_a_row_alone_is_that_row_among_others(name: str, method: str, training: Rows) -> None:
    model = CalibratedClassifier(estimator=classifiers()[name], method=method).fit(*training)
    X = training[0].iloc[:12]
    together, labels = model.predict_proba(X), model.predict(X)
    alone = np.vstack([model.predict_proba(X.iloc[[i]]) for i in range(12)])
    # BLAS adds up one row in another order than many.
    assert alone == pytest.approx(together, abs=1e-12)
    assert [model.predict(X.iloc[[i]]).item() for i in range(12)] == labels.tolist()
    order = np.random.default_rng(0).permutation(12)
    assert model.predict_proba(X.iloc[order]) == pytest.approx(together[order], abs=1e-12)


@pytest.mark.parametrize("name", ["boosted", "forest"])
def test_two_fits_are_equal(name: str, training: Rows) -> None:
    fits = [
        CalibratedClassifier(estimator=classifiers()[name], seed=3).fit(*training) for _ in range(2)
    ]
    first, second = (each.predict_proba(training[0]) for each in fits)
    assert np.array_equal(first, second)
    assert fits[0].describe() == fits[1].describe()
    other = CalibratedClassifier(estimator=classifiers()[name], seed=4).fit(*training)
    assert other.describe() != fits[0].describe()


def test_parameters_are_stored_and_nothing_else(training: Rows) -> None:
    inner = LogisticRegression()
    model = CalibratedClassifier(estimator=inner, method="sigmoid", cv=3, seed=9)
    assert set(vars(model)) == {"estimator", "method", "decision", "cv", "seed"}
    copy = clone(model).set_params(estimator__C=2.0)
    copy.fit(*training)
    assert copy.estimator_.C == 2
    assert not hasattr(inner, "coef_")
    assert copy.feature_names_in_.tolist() == list(training[0].columns)
    with pytest.raises(NotFittedError):
        model.predict_proba(training[0])
    with pytest.raises(NotFittedError):
        model.describe()


def test_the_rows_are_left_as_they_are(training: Rows) -> None:
    X, y = training[0].copy(), training[1].copy()
    CalibratedClassifier(estimator=GaussianNB(), method="isotonic").fit(X, y).predict(X)
    pd.testing.assert_frame_equal(X, training[0])
    assert np.array_equal(y, training[1])


@pytest.mark.parametrize("method", ["temperature", "sigmoid", "isotonic"])
def test_pickled_and_read(method: str, training: Rows) -> None:
    model = CalibratedClassifier(estimator=GaussianNB(), method=method).fit(*training)
    read = pickle.loads(pickle.dumps(model))
    assert np.array_equal(read.predict_proba(training[0]), model.predict_proba(training[0]))


def test_arrays_will_do(training: Rows) -> None:
    X, y = training
    model = CalibratedClassifier(estimator=LogisticRegression()).fit(X.to_numpy(), list(y))
    assert model.n_features_in_ == X.shape[1]
    assert not hasattr(model, "feature_names_in_")


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"estimator": None}, "needs an estimator, the classifier; got None"),
        ({"method": "platt"}, r"method must be one of .*, got 'platt'"),
        ({"decision": "best"}, r"decision must be one of .*, got 'best'"),
        ({"cv": 1}, "cv must be at least 2 folds, got 1"),
    ],
)
def test_parameters_out_of_range(parameters: dict[str, Any], says: str, training: Rows) -> None:
    model = CalibratedClassifier(**{"estimator": LogisticRegression(), **parameters})
    with pytest.raises(ValueError, match=says):
        model.fit(*training)


def test_what_was_learned_is_told(training: Rows) -> None:
    told = CalibratedClassifier(estimator=LogisticRegression()).fit(*training).describe()
    assert list(told) == ["method", "temperature", "decision", "log_weights", "log_losses"]
    assert told["method"] in {"temperature", "none"}
    assert json.loads(json.dumps(told)) == told
    assert list(told["log_weights"]) == ["0", "1", "2"]
    assert told["log_weights"]["1"] > told["log_weights"]["2"]
    assert list(told["log_losses"]) == ["before", "after"]


def test_the_classifier_under_it(training: Rows) -> None:
    bare = Pipeline([("scale", StandardScaler()), ("classifier", LogisticRegression())])
    bare.fit(*training)
    assert inner_classifier(bare) is bare[-1]
    wrapped = Pipeline([("classifier", CalibratedClassifier(estimator=LogisticRegression()))])
    wrapped.fit(*training)
    assert inner_classifier(wrapped) is wrapped[-1].estimator_
    # A forest has an estimator_ of its own, which is not meant.
    forest = Pipeline([("classifier", classifiers()["forest"])]).fit(*training)
    assert inner_classifier(forest) is forest[-1]


def test_a_constant_classifier_keeps_the_most_frequent_class() -> None:
    target = np.repeat([0, 1, 2], [17, 13, 70])
    rows = np.zeros((100, 1))
    model = CalibratedClassifier(estimator=DummyClassifier(), cv=3).fit(rows, target)
    assert set(model.predict(rows)) == {2}
