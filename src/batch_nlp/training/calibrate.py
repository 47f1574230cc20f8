"""Probabilities that mean what they say, and labels in the classes' natural shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_METHODS = ("temperature", "sigmoid", "isotonic", "none")
_DECISIONS = ("shares", "argmax")

_SMALLEST = 1e-15
"""Probability that a lower one counts as where a logarithm is taken."""

_HOTTEST = 20.0
"""Temperatures are sought from one in so many to so many."""

_ROUNDS = 300
_STEP = 0.1
_LOWEST_SHARE = 1e-3
"""Share that a class predicted less often counts as, so that no step is endless."""


class CalibratedClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Calibrate a classifier's probabilities, and label in the shares of the training rows.

    The classifier is fitted on all rows; what corrects its probabilities, and what the labels
    are decided by, is learned from probabilities of rows that a fold's classifier has not seen.

    Sample weights reach the classifier alone. The correction and the decision count every row
    once, so that they answer to the classes' natural frequencies however the classifier was
    balanced.

    Parameters
    ----------
    estimator : classifier
        Gives `predict_proba`; cloned before it is fitted.
    method : {"temperature", "sigmoid", "isotonic", "none"}, default="temperature"
        How probabilities are corrected. ``temperature`` raises them to the power 1/T and
        normalises them, with one T for all classes (Guo et al. 2017, On Calibration of Modern
        Neural Networks, ICML). ``sigmoid`` fits a logistic curve to the log odds of each
        class against the rest (Platt 1999, Advances in Large Margin Classifiers),
        ``isotonic`` a rising step function to its probability; both are then normalised
        (Zadrozny and Elkan 2002, Transforming Classifier Scores into Accurate Multiclass
        Probability Estimates, KDD). A correction that makes the log loss of rows it was not
        learned from worse is dropped.
    decision : {"shares", "argmax"}, default="shares"
        ``shares`` adds a weight to the logarithm of each class's probability, such that the
        classes are predicted as often as they occur among the training rows; the prior of a
        scarce class otherwise hides it behind its neighbours. ``argmax`` takes the most
        probable class.
    cv : int, default=5
        Folds; with a class of fewer rows, as many as that class has rows. A class of one row
        leaves nothing to learn from: then nothing is corrected, and the most probable class is
        taken.
    seed : int, default=0
        Of the shuffle before the folds are cut.

    Attributes
    ----------
    estimator_ : classifier
        Fitted on all rows.
    classes_ : ndarray of shape (n_classes,)
        Classes, in order.
    method_ : str
        The correction in effect; ``none`` where `method` made the log loss worse.
    temperature_ : float
        T of ``temperature``, above 1 where the classifier was too sure; else 1.
    log_weights_ : ndarray of shape (n_classes,)
        What is added to the logarithms of the probabilities before the highest is taken.
    log_losses_ : dict of str to float
        ``before`` and ``after`` the correction, each on rows that it was not learned from;
        empty where none was tried.

    Examples
    --------
    >>> from sklearn.naive_bayes import GaussianNB
    >>> rng = np.random.default_rng(0)
    >>> y = rng.choice(3, size=600, p=[0.2, 0.1, 0.7])
    >>> X = np.repeat(y[:, None] + rng.normal(size=(600, 1)), 4, axis=1)  # the same four times
    >>> model = CalibratedClassifier(estimator=GaussianNB()).fit(X, y)
    >>> model.log_losses_["after"] < model.log_losses_["before"], model.temperature_ > 2
    (True, True)
    >>> np.bincount(y).tolist()
    [115, 45, 440]
    >>> np.bincount(model.estimator_.predict(X)).tolist()
    [118, 101, 381]
    >>> np.bincount(model.predict(X)).tolist()
    [119, 45, 436]
    """

    def __init__(
        self,
        *,
        estimator: BaseEstimator | None = None,
        method: Literal["temperature", "sigmoid", "isotonic", "none"] = "temperature",
        decision: Literal["shares", "argmax"] = "shares",
        cv: int = 5,
        seed: int = 0,
    ) -> None:
        self.estimator = estimator
        self.method = method
        self.decision = decision
        self.cv = cv
        self.seed = seed

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the classifier on all rows, and learn from the folds how to read it.

        Parameters
        ----------
        X : DataFrame or array of shape (n_rows, n_features)
            Features.
        y : array-like of shape (n_rows,)
            Classes.
        sample_weight : array-like of shape (n_rows,), optional
            For the classifier.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter is out of its range.
        """
        self._check_parameters()
        target = np.asarray(y)
        weights = {} if sample_weight is None else {"sample_weight": np.asarray(sample_weight)}
        self.estimator_ = clone(self.estimator).fit(X, target, **weights)
        self.classes_ = self.estimator_.classes_
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        self.method_ = "none"
        self.temperature_ = 1.0
        self.log_weights_ = np.zeros(len(self.classes_))
        self.log_losses_: dict[str, float] = {}
        self._correction: _Temperature | _OneVsRest | None = None

        truth = np.searchsorted(self.classes_, target)
        n_folds = min(self.cv, int(np.bincount(truth).min()))
        if n_folds < 2 or (self.method == "none" and self.decision == "argmax"):
            return self
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=self.seed)
        unseen = cross_val_predict(
            clone(self.estimator), X, target, cv=folds, method="predict_proba", params=weights
        ).astype("float64")
        self._learn_correction(unseen, truth, folds)
        # A classifier that tells no rows of a fold apart leaves nothing to decide by.
        if self.decision == "shares" and len(np.unique(unseen, axis=0)) > n_folds:
            self.log_weights_ = _weights_for_shares(self._corrected(unseen), truth)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Give the corrected probability of each class.

        Parameters
        ----------
        X : DataFrame or array of shape (n_rows, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_rows, n_classes)
            Each row sums to 1.
        """
        check_is_fitted(self)
        return self._corrected(np.asarray(self.estimator_.predict_proba(X), dtype="float64"))

    def predict(self, X: Any) -> NDArray[Any]:
        """Give each row the class whose weighted probability is highest.

        Parameters
        ----------
        X : DataFrame or array of shape (n_rows, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_rows,)
            The lowest class on a tie.
        """
        return self.decide(self.predict_proba(X))

    def decide(self, probabilities: NDArray[np.float64]) -> NDArray[Any]:
        """Give the class whose weighted probability is highest.

        Parameters
        ----------
        probabilities : ndarray of shape (n_rows, n_classes)
            From `predict_proba`.

        Returns
        -------
        ndarray of shape (n_rows,)
            The lowest class on a tie.
        """
        labels: NDArray[Any] = self.classes_[_decide(probabilities, self.log_weights_)]
        return labels

    def describe(self) -> dict[str, Any]:
        """Give what was learned beside the classifier, in plain Python values.

        Returns
        -------
        dict
            ``method`` in effect, ``temperature``, ``decision``, ``log_weights`` by class and
            ``log_losses``.
        """
        check_is_fitted(self)
        return {
            "method": self.method_,
            "temperature": self.temperature_,
            "decision": self.decision,
            "log_weights": {
                str(name): float(weight)
                for name, weight in zip(self.classes_, self.log_weights_, strict=True)
            },
            "log_losses": dict(self.log_losses_),
        }

    def _check_parameters(self) -> None:
        if self.estimator is None:
            raise ValueError("CalibratedClassifier needs an estimator, the classifier; got None.")
        for name, known in (("method", _METHODS), ("decision", _DECISIONS)):
            if (value := getattr(self, name)) not in known:
                message = (
                    f"CalibratedClassifier's {name} must be one of {list(known)}, got {value!r}."
                )
                raise ValueError(message)
        if self.cv < 2:
            message = f"CalibratedClassifier's cv must be at least 2 folds, got {self.cv}."
            raise ValueError(message)

    def _learn_correction(
        self, unseen: NDArray[np.float64], truth: NDArray[np.int64], folds: StratifiedKFold
    ) -> None:
        if self.method == "none":
            return
        # The correction is judged as the classifier is: on rows that it was not learned from.
        judged = np.empty_like(unseen)
        for learn, judge in folds.split(unseen, truth):
            tried = _correction(self.method).fit(unseen[learn], truth[learn])
            judged[judge] = tried.apply(unseen[judge])
        self.log_losses_ = {"before": _log_loss(unseen, truth), "after": _log_loss(judged, truth)}
        if self.log_losses_["after"] > self.log_losses_["before"]:
            return
        self._correction = _correction(self.method).fit(unseen, truth)
        self.method_ = self.method
        if isinstance(self._correction, _Temperature):
            self.temperature_ = self._correction.temperature

    def _corrected(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        return probabilities if self._correction is None else self._correction.apply(probabilities)


def inner_classifier(pipeline: Any) -> Any:
    """Give the fitted classifier at the end of a pipeline, without what calibrates it.

    Parameters
    ----------
    pipeline : sklearn.pipeline.Pipeline
        Fitted; its last step is the classifier.

    Returns
    -------
    classifier
        The one under a `CalibratedClassifier`, else the last step itself.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.pipeline import Pipeline
    >>> calibrated = CalibratedClassifier(estimator=DummyClassifier())
    >>> model = Pipeline([("classifier", calibrated)]).fit([[0], [1], [2], [3]], [0, 0, 1, 1])
    >>> inner_classifier(model)
    DummyClassifier()
    """
    last = pipeline[-1]
    return last.estimator_ if isinstance(last, CalibratedClassifier) else last


class _Temperature:
    """One exponent for all probabilities."""

    def fit(self, probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> Self:
        logs = _logs(probabilities)
        found = minimize_scalar(
            lambda log_t: _log_loss(softmax(logs / np.exp(log_t), axis=1), truth),
            bounds=(-np.log(_HOTTEST), np.log(_HOTTEST)),
            method="bounded",
        )
        self.temperature = float(np.exp(found.x))
        return self

    def apply(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        powers: NDArray[np.float64] = softmax(_logs(probabilities) / self.temperature, axis=1)
        return powers


class _OneVsRest:
    """One curve for each class, from its probability to how often it is right."""

    def __init__(self, method: str) -> None:
        self.method = method

    def fit(self, probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> Self:
        # What n rows all of one kind leave possible (Laplace's rule of succession).
        lowest = 1 / (len(truth) + 2)
        self.curves = [
            LogisticRegression().fit(_log_odds(column), truth == number)
            if self.method == "sigmoid"
            else IsotonicRegression(y_min=lowest, y_max=1 - lowest, out_of_bounds="clip").fit(
                column, truth == number
            )
            for number, column in enumerate(probabilities.T)
        ]
        return self

    def apply(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        if len(probabilities) == 0:
            return probabilities
        curved = np.column_stack(
            [
                curve.predict_proba(_log_odds(column))[:, 1]
                if self.method == "sigmoid"
                else curve.predict(column)
                for curve, column in zip(self.curves, probabilities.T, strict=True)
            ]
        )
        shares: NDArray[np.float64] = curved / curved.sum(axis=1, keepdims=True)
        return shares


def _correction(method: str) -> _Temperature | _OneVsRest:
    return _Temperature() if method == "temperature" else _OneVsRest(method)


def _logs(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log(np.maximum(probabilities, _SMALLEST))
    return logs


def _log_odds(column: NDArray[np.float64]) -> NDArray[np.float64]:
    odds: NDArray[np.float64] = logit(np.clip(column, _SMALLEST, 1 - _SMALLEST))
    return odds[:, np.newaxis]


def _log_loss(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    return float(-_logs(probabilities[np.arange(len(truth)), truth]).mean())


def _decide(
    probabilities: NDArray[np.float64], log_weights: NDArray[np.float64]
) -> NDArray[np.int64]:
    decided: NDArray[np.int64] = (probabilities * np.exp(log_weights)).argmax(axis=1)
    return decided


def _weights_for_shares(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Give the log weights with which the classes are predicted as often as they occur.

    Each round moves every weight towards its class's share, and the round that came closest is
    kept: probabilities that are alike for many rows have no exact answer, and those that are
    alike for all rows are best left as they are.
    """
    n_rows, n_classes = probabilities.shape
    wanted = np.bincount(truth, minlength=n_classes) / n_rows
    weights = np.zeros(n_classes)
    best, least = weights, np.inf
    for _ in range(_ROUNDS):
        shares = np.bincount(_decide(probabilities, weights), minlength=n_classes) / n_rows
        distance = np.abs(shares - wanted).sum()
        if distance < least:
            best, least = weights, distance
        if least < 1 / n_rows:
            break
        weights = weights + _STEP * (np.log(wanted) - np.log(np.maximum(shares, _LOWEST_SHARE)))
    return best
