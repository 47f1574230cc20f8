"""The margin of a class, taken apart into what each feature adds to it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline

from batch_nlp.errors import InputError
from batch_nlp.training.calibrate import inner_classifier
from batch_nlp.training.pipeline import EMBEDDING
from batch_nlp.transformers.scores import OutOfFoldScores

TOLERANCE = 1e-4
"""How far a sum of contributions may be from its margin; relative for a margin above 1."""

WORDS, SENTENCES, OTHER = "words of the text", "sentiment of the sentences", "other features"

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Terms:
    """The margins of one message in one model, as sums.

    Parameters
    ----------
    names : ndarray of str of shape (n_terms,)
        Features or words.
    values : ndarray of shape (n_terms,)
        Their values, as the model takes them.
    contributions : ndarray of shape (n_classes, n_terms)
        What each adds to the margin of each class.
    base : ndarray of shape (n_classes,)
        The margins before anything is added.
    margin : ndarray of shape (n_classes,)
        What the model itself gives.

    Examples
    --------
    >>> Terms(np.array(["fans"]), np.ones(1), np.array([[0.5]]), np.ones(1), np.array([1.5])).gap
    0.0
    """

    names: npt.NDArray[Any]
    values: Numbers
    contributions: Numbers
    base: Numbers
    margin: Numbers

    @property
    def gap(self) -> float:
        """How far base and contributions are from the margin, at most (see `TOLERANCE`)."""
        apart = np.abs(self.contributions.sum(axis=1) + self.base - self.margin)
        return float((apart / np.maximum(np.abs(self.margin), 1)).max())

    def only(self, which: npt.NDArray[np.bool_]) -> Terms:
        """Give some of the terms; their sum is then no margin."""
        return Terms(
            self.names[which],
            self.values[which],
            self.contributions[:, which],
            self.base,
            self.margin,
        )

    def strongest(self, position: int, top: int) -> list[tuple[str, float, float]]:
        """Give the terms that move the margin of one class most.

        Parameters
        ----------
        position : int
            Of the class.
        top : int
            Terms at most; one that adds nothing is left out.

        Returns
        -------
        list of (name, value, contribution)
            By the size of the contribution, descending.
        """
        added = self.contributions[position]
        order = np.argsort(-np.abs(added), kind="stable")[:top]
        return [
            (str(self.names[i]), float(self.values[i]), float(added[i])) for i in order if added[i]
        ]


def linear_parts(classifier: Any) -> tuple[Numbers, Numbers] | None:
    """Give coefficients and intercepts of a linear classifier of several classes.

    Parameters
    ----------
    classifier : classifier
        Fitted.

    Returns
    -------
    tuple of ndarray of shape (n_classes, n_features) and ndarray of shape (n_classes,), or None
        None where the margin of each class is no weighted sum of the features.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = np.eye(3), [0, 1, 2]
    >>> [part.shape for part in linear_parts(LogisticRegression().fit(X, y))]
    [(3, 3), (3,)]
    """
    if isinstance(classifier, OneVsRestClassifier):
        each = classifier.estimators_
        if not all(hasattr(one, "coef_") for one in each):
            return None
        weights = np.vstack([np.asarray(one.coef_) for one in each])
        intercepts = np.concatenate([np.atleast_1d(one.intercept_) for one in each])
    elif hasattr(classifier, "coef_"):
        weights = np.atleast_2d(classifier.coef_)
        intercepts = np.atleast_1d(classifier.intercept_)
    else:
        return None
    if len(weights) != len(classifier.classes_):
        return None
    return weights.astype("float64"), np.broadcast_to(intercepts, len(weights)).astype("float64")


@dataclass(frozen=True)
class FeatureContributions:
    """What each feature adds to the margin of each class, for many rows.

    Parameters
    ----------
    features : DataFrame of shape (n_rows, n_features)
        As the classifier takes them.
    contributions : ndarray of shape (n_rows, n_classes, n_features)
        XGBoost's exact Shapley values of the trees (Lundberg et al. 2020, Nature Machine
        Intelligence 2:56-67), or coefficient times value for a linear classifier.
    base, margin : ndarray of shape (n_rows, n_classes)
        Before and after; the margin is the log odds that probabilities are made of.
    """

    features: pd.DataFrame
    contributions: Numbers
    base: Numbers
    margin: Numbers

    def terms(self) -> list[Terms]:
        """Give the terms of each row."""
        names = self.features.columns.to_numpy(dtype=object)
        values = self.features.to_numpy(dtype="float64")
        return [
            Terms(names, *parts)
            for parts in zip(values, self.contributions, self.base, self.margin, strict=True)
        ]


def can_explain(model: Pipeline) -> bool:
    """Tell whether the classifier of a fitted model can be taken apart."""
    classifier = inner_classifier(model)
    return _is_boosted(classifier) or linear_parts(classifier) is not None


def feature_contributions(model: Pipeline, rows: pd.DataFrame) -> FeatureContributions:
    """Take the margins of the classifier apart into its features.

    Parameters
    ----------
    model : Pipeline
        Fitted; its last step is the classifier, calibrated or not.
    rows : DataFrame
        What the feature pipeline made, one row a message.

    Returns
    -------
    FeatureContributions

    Raises
    ------
    InputError
        If the classifier is neither XGBoost's nor linear.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.preprocessing import StandardScaler
    >>> rows = pd.DataFrame({"noise": [0, 1, 0, 1, 0, 1], "signal": [0, 0, 1, 1, 2, 2]})
    >>> steps = [("scale", StandardScaler()), ("classifier", LogisticRegression())]
    >>> model = Pipeline(steps).set_output(transform="pandas").fit(rows, [0, 0, 1, 1, 2, 2])
    >>> first = feature_contributions(model, rows.head(1)).terms()[0]
    >>> first.strongest(0, top=1)[0][0]
    'signal'
    """
    classifier = inner_classifier(model)
    linear = linear_parts(classifier)
    if not _is_boosted(classifier) and linear is None:
        message = (
            "pipeline=explain needs a model whose classifier is XGBoost or linear; this one's is "
            f"{type(classifier).__name__}."
        )
        raise InputError(message)
    features = model[:-1].transform(rows) if len(model) > 1 else rows
    if linear is None:
        return FeatureContributions(features, *_of_trees(classifier, features))
    weights, intercepts = linear
    contributions = features.to_numpy(dtype="float64")[:, None, :] * weights
    base = np.broadcast_to(intercepts, contributions.shape[:2])
    margin = np.asarray(classifier.decision_function(features), dtype="float64")
    return FeatureContributions(features, contributions, base, margin)


def _is_boosted(classifier: Any) -> bool:
    # Whoever made such a classifier has imported xgboost; nobody else needs to.
    xgboost = sys.modules.get("xgboost")
    return xgboost is not None and isinstance(classifier, xgboost.XGBClassifier)


def _of_trees(classifier: Any, features: pd.DataFrame) -> tuple[Numbers, Numbers, Numbers]:
    import xgboost  # noqa: PLC0415  slow to load, and only trees need it

    booster = classifier.get_booster()
    named = booster.feature_names is not None
    matrix = xgboost.DMatrix(
        features if named else features.to_numpy(),
        missing=classifier.missing,
        nthread=classifier.n_jobs,
    )
    found = booster.predict(matrix, pred_contribs=True, strict_shape=True).astype("float64")
    margin = booster.predict(matrix, output_margin=True, strict_shape=True).astype("float64")
    return found[:, :, :-1], found[:, :, -1], margin


def text_steps(model: Pipeline) -> dict[str, OutOfFoldScores]:
    """Give the steps that score a text, by name."""
    return {name: step for name, step in model.steps if isinstance(step, OutOfFoldScores)}


def feature_groups(model: Pipeline, names: list[str]) -> dict[str, str]:
    """Say of each feature what it was made of.

    Parameters
    ----------
    model : Pipeline
        Fitted.
    names : list of str
        Features that reach the classifier.

    Returns
    -------
    dict of str to str
        `WORDS`, `SENTENCES` or `OTHER`, by feature.
    """
    scores = {
        name for step in text_steps(model).values() for name in step.get_feature_names_out([])
    }
    encode = model.named_steps.get("encode")
    embedded: set[str] = set()
    if isinstance(encode, ColumnTransformer) and "embedding" in encode.output_indices_:
        # A step that reduces the embedding gives its columns names of its own.
        embedded = set(encode.get_feature_names_out()[encode.output_indices_["embedding"]])

    def group(name: str) -> str:
        if name in scores:
            return WORDS
        return SENTENCES if name in embedded or name.startswith(EMBEDDING) else OTHER

    return {name: group(name) for name in names}


def importances(
    model: Pipeline, rows: pd.DataFrame, *, most: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Give how much each feature moves the margin of each class, on average over rows.

    Parameters
    ----------
    model : Pipeline
        Fitted.
    rows : DataFrame
        What the feature pipeline made, best of messages that the model has not seen.
    most : int, default=2000
        Rows to take at random where there are more.
    seed : int, default=0
        Of that choice.

    Returns
    -------
    DataFrame
        ``feature``, ``class`` and ``importance``, the mean size of the contribution; the
        features that move most, all classes together, first. No row where the classifier
        cannot be taken apart.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> rows = pd.DataFrame({"noise": [0, 1, 0, 1, 0, 1], "signal": [0, 0, 1, 1, 2, 2]})
    >>> model = Pipeline([("classifier", LogisticRegression())]).fit(rows, [0, 0, 1, 1, 2, 2])
    >>> importances(model, rows)["feature"].unique().tolist()
    ['signal', 'noise']
    """
    if not can_explain(model):
        return pd.DataFrame({"feature": [], "class": [], "importance": []}).astype(
            {"feature": "str", "class": "int64", "importance": "float64"}
        )
    sample = rows.sample(most, random_state=seed) if len(rows) > most else rows
    found = feature_contributions(model, sample)
    means = np.abs(found.contributions).mean(axis=0)
    order = np.argsort(-means.sum(axis=0), kind="stable")
    classes = np.asarray(model.classes_, dtype="int64")
    return pd.DataFrame(
        {
            "feature": np.repeat(found.features.columns.to_numpy(dtype=object)[order], len(means)),
            "class": np.tile(classes, len(order)),
            "importance": means[:, order].T.ravel(),
        }
    )
