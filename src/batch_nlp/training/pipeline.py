"""The model pipeline: all that learns from other rows, from features to classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from batch_nlp.schemas import LEAKING, NO_CATEGORY, TARGETS
from batch_nlp.training.labels import grades
from batch_nlp.training.vocabulary import NgramVectorizer
from batch_nlp.transformers.scores import OutOfFoldScores

EMBEDDING = "embedding_"
"""How the names of the embedding's columns begin."""


def embedding_columns(X: pd.DataFrame) -> list[str]:
    """Give the columns of the embedding."""
    return [str(name) for name in X.columns if str(name).startswith(EMBEDDING)]


def numeric_columns(X: pd.DataFrame, ignore: Sequence[str] = ()) -> list[str]:
    """Give the numeric columns that may be features, the embedding and `ignore` aside."""
    numeric: list[str] = X.select_dtypes("number").columns.tolist()
    excluded = {*TARGETS, *LEAKING, *embedding_columns(X), *ignore}
    return [name for name in numeric if name not in excluded]


def categorical_columns(X: pd.DataFrame) -> list[str]:
    """Give the columns whose texts are kinds."""
    texts: list[str] = X.select_dtypes("str").columns.tolist()
    return [name for name in texts if name not in NO_CATEGORY]


def chain(**steps: BaseEstimator | None) -> Pipeline | str:
    """Make a pipeline of named steps, those that are None left out.

    Examples
    --------
    >>> from sklearn.preprocessing import StandardScaler
    >>> list(chain(scale=StandardScaler(), reduce=None).named_steps)
    ['scale']
    """
    present = [(name, step) for name, step in steps.items() if step is not None]
    return Pipeline(present) if present else "passthrough"


def ngrams(*, shortest: int = 1, longest: int = 2, **options: Any) -> NgramVectorizer:
    """Make a TF-IDF vocabulary of runs of words or characters.

    Parameters
    ----------
    shortest, longest : int
        Words or characters in a run.
    **options
        Further parameters of `TfidfVectorizer`.

    Examples
    --------
    >>> ngrams(longest=3, min_df=2)
    NgramVectorizer(min_df=2, ngram_range=(1, 3))
    """
    return NgramVectorizer(ngram_range=(shortest, longest), **options)


def grading(
    steps: Pipeline, rows: pd.DataFrame, target: npt.NDArray[np.int64], stars: pd.Series
) -> dict[str, Any]:
    """Give the parameters with which `Pipeline.fit` hands grades to the steps that score them.

    Parameters
    ----------
    steps : Pipeline
        With any number of `OutOfFoldScores`.
    rows : DataFrame of shape (n_rows, n_columns)
        That it is fitted to.
    target : ndarray of int of shape (n_rows,)
        Class of each row.
    stars : Series of float of shape (n_rows,)
        See `grades`; where they make none, the steps stay with the classes.

    Examples
    --------
    >>> rows = pd.DataFrame({"clean_text": [f"text {i}" for i in range(30)]})
    >>> target, stars = np.repeat([0, 1, 2], 10), pd.Series(np.repeat([1.0, 3.0, 5.0], 10))
    >>> steps = Pipeline([("words", OutOfFoldScores(estimator=ngrams()))])
    >>> grading(steps, rows, target, stars)["words__grades"][[0, 10, 20]].tolist()
    [1, 3, 5]
    """
    return {
        f"{name}__grades": found
        for name, step in steps.steps
        if isinstance(step, OutOfFoldScores)
        and (found := grades(stars, target, rows[step.column])) is not None
    }


def model_pipeline(
    *,
    learn: Mapping[str, BaseEstimator | None],
    numeric: BaseEstimator | str,
    categorical: BaseEstimator | str,
    embedding: BaseEstimator | str,
    select: Mapping[str, BaseEstimator | None],
    classifier: BaseEstimator,
    calibration: BaseEstimator | None = None,
    ignore: Sequence[str] = (),
) -> Pipeline:
    """Put the steps that learn together.

    Parameters
    ----------
    learn : mapping of str to transformer
        Steps that add columns: frequencies, levels, group means, scores of the text.
    numeric, categorical, embedding : transformer or "passthrough" or "drop"
        What becomes of each kind of column; any other column ends here.
    select : mapping of str to transformer
        Steps that drop columns.
    classifier : classifier
        Last step, named ``classifier``.
    calibration : CalibratedClassifier, optional
        Takes the classifier as its ``estimator`` and the last step's place; None leaves the
        classifier's probabilities and labels as they are.
    ignore : sequence of str, optional
        Numeric columns that the classifier does not see.

    Returns
    -------
    Pipeline
        Unfitted; frames between its steps.
    """
    encode = ColumnTransformer(
        [
            ("numeric", numeric, partial(numeric_columns, ignore=tuple(ignore))),
            ("categorical", categorical, categorical_columns),
            ("embedding", embedding, embedding_columns),
        ],
        verbose_feature_names_out=False,
        sparse_threshold=0,
    )
    last = (
        classifier if calibration is None else clone(calibration).set_params(estimator=classifier)
    )
    steps: list[tuple[str, Any]] = [
        *((name, step) for name, step in learn.items() if step is not None),
        ("encode", encode),
        *((name, step) for name, step in select.items() if step is not None),
        ("classifier", last),
    ]
    return Pipeline(steps).set_output(transform="pandas")
