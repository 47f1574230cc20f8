"""Scores of a text classifier, cross-fitted."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from batch_nlp.transformers import OutOfFoldScores

NAMES = ["text_score_0", "text_score_1", "text_score_2"]
WORDS = (("bad", "cold"), ("fine", "okay"), ("good", "warm"))


@pytest.fixture
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    texts = [f"{rng.choice(WORDS[i % 3])} {rng.choice(['soup', 'tea', 'room'])}" for i in range(60)]
    return pd.DataFrame({"clean_text": texts}).astype("str")


@pytest.fixture
def y() -> np.ndarray:
    return np.arange(60) % 3


def step(**parameters: object) -> OutOfFoldScores:
    estimator = make_pipeline(CountVectorizer(), MultinomialNB())
    return OutOfFoldScores(estimator=estimator, cv=3, **parameters)


def test_training_rows_get_the_same_scores_with_and_without_a_last_fit(
    rows: pd.DataFrame, y: np.ndarray
) -> None:
    with_last, without = step().fit_transform(rows, y), step(refit=False).fit_transform(rows, y)
    pd.testing.assert_frame_equal(with_last, without)


def test_without_a_last_fit_other_rows_get_the_mean_of_the_folds(
    rows: pd.DataFrame, y: np.ndarray
) -> None:
    fitted = step(refit=False).fit(rows, y)
    new = pd.DataFrame({"clean_text": ["cold tea", "", "good good room"]}).astype("str")
    each = [estimator.predict_proba(new["clean_text"]) for estimator in fitted.estimators_]
    assert len(each) == 3
    assert fitted.estimator_ is None
    np.testing.assert_allclose(fitted.transform(new)[NAMES], np.mean(each, axis=0))
    again = pickle.loads(pickle.dumps(fitted)).transform(new)
    pd.testing.assert_frame_equal(again, fitted.transform(new))
    assert fitted.transform(new.iloc[:0]).columns.tolist() == ["clean_text", *NAMES]


def test_a_class_that_a_fold_lacks_counts_as_impossible_there() -> None:
    rows = pd.DataFrame({"clean_text": [f"t{i % 6}" for i in range(12)]}).astype("str")
    y = np.array([0, 0, 0, 1, 1, 2] * 2)  # the only text of class 2 is in one fold
    fitted = OutOfFoldScores(estimator=DummyClassifier(), cv=2, refit=False)
    with pytest.warns(UserWarning, match="least populated|fewer"):
        scores = fitted.fit_transform(rows.iloc[:11], y[:11])
    lacking = [estimator for estimator in fitted.estimators_ if 2 not in estimator.classes_]
    assert len(lacking) == 1
    np.testing.assert_allclose(scores[NAMES].sum(axis=1), 1)
    assert (scores["text_score_2"] == 0).any()


def test_grades_are_scored_in_place_of_the_classes(rows: pd.DataFrame, y: np.ndarray) -> None:
    grades = np.where(y == 2, 4 + np.arange(60) // 3 % 2, 2 * y + 1)
    fitted = step()
    scored = fitted.fit_transform(rows, y, grades=grades)
    names = [f"text_score_{grade}" for grade in (1, 3, 4, 5)]
    assert scored.columns.tolist() == ["clean_text", *names]
    assert (fitted.classes_.tolist(), fitted.class_of_.tolist()) == ([1, 3, 4, 5], [0, 1, 2, 2])
    pd.testing.assert_frame_equal(scored, step().fit_transform(rows, grades))
    assert step().fit(rows, y).class_of_.tolist() == [0, 1, 2]


def test_a_grade_of_two_classes_is_refused(rows: pd.DataFrame, y: np.ndarray) -> None:
    with pytest.raises(ValueError, match="grades that each belong to one class"):
        step().fit(rows, y, grades=np.zeros(60))


def test_log_odds_are_those_of_the_probabilities(rows: pd.DataFrame, y: np.ndarray) -> None:
    fitted = step(log_odds=True)
    scored = fitted.fit_transform(rows, y)
    assert scored.columns.tolist() == ["clean_text", *NAMES, *(f"{n}_log_odds" for n in NAMES)]
    for frame in (scored, fitted.transform(rows)):
        odds = frame[NAMES].to_numpy() / (1 - frame[NAMES].to_numpy())
        found = frame[[f"{name}_log_odds" for name in NAMES]]
        np.testing.assert_allclose(found, np.log(odds), rtol=1e-6)
    assert np.isfinite(
        OutOfFoldScores(
            estimator=DummyClassifier(strategy="most_frequent"), cv=2, log_odds=True
        ).fit_transform(rows, y)[[f"{name}_log_odds" for name in NAMES]]
    ).all(axis=None)
