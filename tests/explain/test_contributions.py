"""Margins and the features that they are made of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier

from batch_nlp.errors import InputError
from batch_nlp.explain.contributions import (
    OTHER,
    SENTENCES,
    TOLERANCE,
    WORDS,
    Terms,
    can_explain,
    feature_contributions,
    feature_groups,
    importances,
    linear_parts,
)
from batch_nlp.training.calibrate import inner_classifier

Fit = Callable[..., Pipeline]


@pytest.fixture(scope="session")
def linear(fit: Fit) -> Pipeline:
    return fit(LogisticRegression())


@pytest.mark.parametrize("kind", ["boosted", "linear"])
def test_base_and_contributions_add_up_to_the_margin(
    kind: str, messages: pd.DataFrame, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(kind)
    found = feature_contributions(model, messages)
    n_features = found.features.shape[1]
    assert found.contributions.shape == (len(messages), 3, n_features)
    sums = found.base + found.contributions.sum(axis=2)
    np.testing.assert_allclose(sums, found.margin, atol=TOLERANCE, rtol=0)
    assert all(terms.gap <= TOLERANCE for terms in found.terms())


@pytest.mark.parametrize("kind", ["boosted", "linear"])
def test_probabilities_are_made_of_the_margins(
    kind: str, messages: pd.DataFrame, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(kind)
    found = feature_contributions(model, messages)
    expected = inner_classifier(model).predict_proba(found.features)
    np.testing.assert_allclose(softmax(found.margin, axis=1), expected, atol=1e-5)


def test_a_linear_contribution_is_coefficient_times_value(
    linear: Pipeline, messages: pd.DataFrame
) -> None:
    first = feature_contributions(linear, messages).terms()[0]
    expected = linear[-1].coef_ * first.values
    np.testing.assert_allclose(first.contributions, expected)
    assert first.names.tolist() == list(linear[:-1].get_feature_names_out())


def test_a_message_is_explained_alone_as_among_others(
    boosted: Pipeline, messages: pd.DataFrame
) -> None:
    together = feature_contributions(boosted, messages).contributions
    alone = feature_contributions(boosted, messages.iloc[[7]]).contributions
    np.testing.assert_allclose(alone[0], together[7], atol=1e-6)


@pytest.mark.parametrize(
    "classifier", [RandomForestClassifier(5), DummyClassifier(), DecisionTreeClassifier()]
)
def test_another_classifier_is_refused_by_name(
    classifier: object, fit: Fit, messages: pd.DataFrame
) -> None:
    model = fit(classifier)
    assert not can_explain(model)
    with pytest.raises(InputError, match=type(classifier).__name__) as caught:
        feature_contributions(model, messages)
    assert "\n" not in str(caught.value)
    nothing = importances(model, messages)
    assert nothing.empty
    assert nothing.columns.tolist() == ["feature", "class", "importance"]


def test_a_sum_that_misses_its_margin_is_seen() -> None:
    exact = Terms(np.array(["a"]), np.ones(1), np.array([[2.0]]), np.ones(1), np.array([3.0]))
    assert exact.gap == 0
    off = Terms(np.array(["a"]), np.ones(1), np.array([[2.0]]), np.ones(1), np.array([3.3]))
    assert off.gap == pytest.approx(0.3 / 3.3)


def test_the_strongest_terms_of_a_class() -> None:
    terms = Terms(
        np.array(["a", "b", "c", "d"]),
        np.arange(4.0),
        np.array([[0.0] * 4, [0.1, -0.5, 0.0, 0.3]]),
        np.zeros(2),
        np.zeros(2),
    )
    assert terms.strongest(1, top=2) == [("b", 1.0, -0.5), ("d", 3.0, 0.3)]
    assert [name for name, _, _ in terms.strongest(1, top=9)] == ["b", "d", "a"]
    assert terms.strongest(0, top=9) == []


def test_linear_classifiers_are_known_by_their_coefficients() -> None:
    X, y = np.eye(6)[:, :4], [0, 1, 2, 0, 1, 2]
    for classifier in (LogisticRegression(), OneVsRestClassifier(LogisticRegression())):
        weights, intercepts = linear_parts(classifier.fit(X, y)) or pytest.fail("not linear")
        np.testing.assert_allclose(X @ weights.T + intercepts, classifier.decision_function(X))
    assert linear_parts(OneVsRestClassifier(DecisionTreeClassifier()).fit(X, y)) is None
    # Of two classes there is one margin, and not one for each.
    assert linear_parts(LogisticRegression().fit(X, [0, 1] * 3)) is None


def test_features_are_grouped_by_what_they_are_made_of(
    boosted: Pipeline, fit: Fit, messages: pd.DataFrame
) -> None:
    names = feature_contributions(boosted, messages).features.columns.tolist()
    groups = feature_groups(boosted, names)
    assert list(groups) == names
    assert {name for name in names if groups[name] == WORDS} == {
        "text_score_0",
        "text_score_1",
        "text_score_2",
    }
    assert {name for name in names if groups[name] == SENTENCES} == {"embedding_0", "embedding_1"}
    assert groups["fans"] == OTHER
    reduced = fit(LogisticRegression(), embedding=PCA(1))
    assert feature_groups(reduced, ["pca0", "fans"]) == {"pca0": SENTENCES, "fans": OTHER}


def test_importances_are_mean_sizes_by_class(boosted: Pipeline, messages: pd.DataFrame) -> None:
    found = importances(boosted, messages)
    sizes = np.abs(feature_contributions(boosted, messages).contributions).mean(axis=0)
    assert found["importance"].sum() == pytest.approx(sizes.sum())
    total = found.groupby("feature", sort=False)["importance"].sum()
    assert total.is_monotonic_decreasing
    assert found["class"].tolist() == [0, 1, 2] * len(total)
    assert total.index[0] in {"text_score_0", "text_score_2", "fans", "embedding_0"}


def test_importances_take_a_sample_that_is_the_same_again(
    boosted: Pipeline, messages: pd.DataFrame
) -> None:
    first = importances(boosted, messages, most=20)
    pd.testing.assert_frame_equal(first, importances(boosted, messages, most=20))
    assert not first.equals(importances(boosted, messages, most=20, seed=1))
    assert not first.equals(importances(boosted, messages))
