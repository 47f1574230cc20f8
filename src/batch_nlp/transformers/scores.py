"""Class scores of a model of its own, cross-fitted so that the next model can learn from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import StratifiedGroupKFold

from batch_nlp.transformers.base import LearningStep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SMALLEST = 1e-4
"""Probability that a lower one counts as where odds are taken."""


class OutOfFoldScores(LearningStep):
    """Add the class probabilities that a classifier of one text column gives.

    On the training rows a probability comes from a classifier that has not seen the row, so
    that the next model learns how far it can trust the scores; on other rows it comes from the
    classifier fitted on all training rows, or is the mean of the folds' classifiers where that
    fit would take too long (`refit`). `fit_transform` therefore differs from
    ``fit().transform()`` by design, as it does in scikit-learn's `TargetEncoder`; this is the
    first level of stacked generalization (Wolpert 1992, Neural Networks 5:241-259).

    Where the classes are made of something finer, such as stars, `fit` takes it as `grades`, and
    the classifier learns and scores these instead: between two stars of one class the next model
    sees a difference that the classes hide.

    Parameters
    ----------
    estimator : classifier
        Takes texts, gives `predict_proba`; cloned before it is fitted.
    column : str, default="clean_text"
        Column of texts; a missing one counts as empty.
    prefix : str, default="text_score"
        The added float columns are ``<prefix>_<class>``.
    cv : int, default=5
        Folds; rows with the same text are in the same fold.
    seed : int, default=0
        Of the shuffle before the folds are cut.
    log_odds : bool, default=False
        Whether each probability's log odds follow as ``<prefix>_<class>_log_odds``, as a linear
        model wants them.
    refit : bool, default=True
        Whether other rows are scored by a classifier fitted on all training rows. If not, by the
        mean of those that were fitted for the folds: one fit less, but `cv` predictions a row.

    Attributes
    ----------
    estimator_ : classifier or None
        Fitted on all training rows; None without `refit`.
    estimators_ : list of classifiers
        What other rows are scored by: that one, or without `refit` those of the folds in order.
    classes_ : ndarray of shape (n_scores,)
        Classes, or grades, of the added columns, in order.
    class_of_ : ndarray of shape (n_scores,)
        The class that each of them belongs to.

    Examples
    --------
    >>> from sklearn.feature_extraction.text import CountVectorizer
    >>> from sklearn.naive_bayes import MultinomialNB
    >>> from sklearn.pipeline import make_pipeline
    >>> rows = pd.DataFrame({"clean_text": ["good", "so good", "bad", "so bad"]})
    >>> step = OutOfFoldScores(estimator=make_pipeline(CountVectorizer(), MultinomialNB()), cv=2)
    >>> step.fit(rows, [2, 2, 0, 0]).transform(rows)["text_score_2"].round(2).tolist()
    [0.75, 0.75, 0.25, 0.25]

    >>> rows = pd.concat([rows, rows], ignore_index=True)
    >>> step.fit(rows, [2, 2, 0, 0] * 2, grades=[4, 5, 1, 1] * 2).get_feature_names_out([]).tolist()
    ['text_score_1', 'text_score_4', 'text_score_5']
    """

    def __init__(
        self,
        *,
        estimator: BaseEstimator,
        column: str = "clean_text",
        prefix: str = "text_score",
        cv: int = 5,
        seed: int = 0,
        log_odds: bool = False,
        refit: bool = True,
    ) -> None:
        self.estimator = estimator
        self.column = column
        self.prefix = prefix
        self.cv = cv
        self.seed = seed
        self.log_odds = log_odds
        self.refit = refit

    def fit(self, X: pd.DataFrame, y: Any = None, grades: Any = None) -> Self:
        """Fit the classifier on all training rows, or without `refit` on those of each fold.

        Parameters
        ----------
        X : pandas.DataFrame of shape (n_rows, n_columns)
            With the column of texts.
        y : array-like of shape (n_rows,)
            Classes.
        grades : array-like of shape (n_rows,), optional
            What is to be scored instead; each grade belongs to one class.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If `y` is None, there is no row, the column is missing, or a grade belongs to more
            than one class.
        """
        if y is None:
            raise ValueError("OutOfFoldScores needs y, the class of each row; got None.")
        scored = np.asarray(y if grades is None else grades)
        belongs = pd.Series(np.asarray(y)).groupby(scored)
        if (belongs.nunique() > 1).any():
            raise ValueError("OutOfFoldScores needs grades that each belong to one class of y.")
        self._y, self._class_of = scored, belongs.first().to_numpy()
        try:
            return super().fit(X)
        finally:
            del self._y, self._class_of

    def fit_transform(
        self, X: pd.DataFrame, y: Any = None, grades: Any = None, **_: Any
    ) -> pd.DataFrame:
        """Fit, and score each training row by a classifier that has not seen its text."""
        self.fit(X, y, grades)
        texts, classes = self._texts(X), np.asarray(y if grades is None else grades)
        scores = np.empty((len(texts), len(self.classes_)))
        for fold, (seen, unseen) in enumerate(self._folds(texts, classes)):
            estimator = (
                clone(self.estimator).fit(texts.iloc[seen], classes[seen])
                if self.refit
                else self.estimators_[fold]
            )
            scores[unseen] = self._scores(estimator, texts.iloc[unseen])
        added = pd.DataFrame(self._named(scores), index=X.index)
        taken = sorted(set(X.columns).intersection(added.columns))
        if taken:
            raise ValueError(f"OutOfFoldScores adds the columns {taken}, which the input has too.")
        return pd.concat([X, added], axis="columns")

    def _learn(self, X: pd.DataFrame) -> None:
        texts = self._texts(X)
        if self.refit:
            self.estimator_ = clone(self.estimator).fit(texts, self._y)
            self.estimators_ = [self.estimator_]
        else:
            self.estimator_ = None
            self.estimators_ = [
                clone(self.estimator).fit(texts.iloc[seen], self._y[seen])
                for seen, _ in self._folds(texts, self._y)
            ]
        self.classes_, self.class_of_ = np.unique(self._y), self._class_of

    def _folds(self, texts: Any, y: Any) -> list[tuple[Any, Any]]:
        folds = StratifiedGroupKFold(n_splits=self.cv, shuffle=True, random_state=self.seed)
        return list(folds.split(texts, y, groups=pd.factorize(texts)[0]))

    def _scores(self, estimator: Any, texts: Any) -> Any:
        scores = np.zeros((len(texts), len(self.classes_)))
        present = np.searchsorted(self.classes_, estimator.classes_)
        scores[:, present] = estimator.predict_proba(texts)
        return scores

    def _texts(self, X: pd.DataFrame) -> pd.Series:
        return X[self.column].fillna("")

    def _columns_needed(self) -> Sequence[str]:
        return [self.column]

    def _columns_added(self) -> Sequence[str]:
        names = [f"{self.prefix}_{name}" for name in self.classes_]
        return [*names, *(f"{name}_log_odds" for name in names)] if self.log_odds else names

    def _named(self, scores: Any) -> dict[str, Any]:
        columns = [*scores.T]
        if self.log_odds:
            columns += [*logit(np.clip(scores, _SMALLEST, 1 - _SMALLEST)).T]
        return dict(zip(self._columns_added(), columns, strict=True))

    def _derive(self, X: pd.DataFrame) -> Mapping[str, Any]:
        if X.empty:
            return {name: np.empty(0) for name in self._columns_added()}
        texts = self._texts(X)
        each = [self._scores(estimator, texts) for estimator in self.estimators_]
        return self._named(np.mean(each, axis=0))
