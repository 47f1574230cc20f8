"""FLAML's AutoML as a search for one of the program's own classifiers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from batch_nlp.training.classifiers import missing

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

FOUND = {
    "lgbm": "lightgbm",
    "xgboost": "xgboost",
    "rf": "random_forest",
}
"""The estimators of FLAML's that are searched, and their names here."""

_SET = {
    "lgbm": (
        *("n_estimators", "num_leaves", "min_child_samples", "learning_rate", "max_bin"),
        *("colsample_bytree", "reg_alpha", "reg_lambda"),
    ),
    "xgboost": (
        *("n_estimators", "max_leaves", "max_depth", "grow_policy", "tree_method"),
        *("min_child_weight", "learning_rate", "subsample", "colsample_bylevel"),
        *("colsample_bytree", "reg_alpha", "reg_lambda"),
    ),
    "rf": ("n_estimators", "max_features", "max_leaf_nodes", "criterion"),
}


def search(
    rows: pd.DataFrame, target: npt.NDArray[np.int64], *, seconds: float, seed: int
) -> tuple[str, dict[str, Any]]:
    """Search a classifier and its parameters by the log loss in three folds.

    What is found is one of the program's own classifiers, so that neither training nor
    inference needs FLAML, and a retraining searches nothing. The time limits the search, so
    another machine may find another one.

    Parameters
    ----------
    rows : DataFrame of shape (n_rows, n_features)
        Features.
    target : ndarray of int of shape (n_rows,)
        The class of each row.
    seconds : float
        How long to search.
    seed : int
        Of the search.

    Returns
    -------
    name : str
        Of `batch_nlp.training.classifiers.TARGETS`.
    parameters : dict of str to scalar
        What to build it with.
    """
    known = [name for name in FOUND if name != "lgbm" or not missing("lightgbm")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls what pandas is going to take away
        from flaml import AutoML  # noqa: PLC0415  an extra

        automl = AutoML()
        automl.fit(
            # Without the columns' names, which may hold what XGBoost or LightGBM cannot read.
            X_train=rows.to_numpy(),
            y_train=target,
            task="classification",
            metric="log_loss",
            eval_method="cv",
            n_splits=3,
            estimator_list=known,
            time_budget=seconds,
            seed=seed,
            verbose=0,
        )
    own = automl.model.estimator.get_params()
    found = {
        name: _plain(own[name]) for name in _SET[automl.best_estimator] if own.get(name) is not None
    }
    return FOUND[automl.best_estimator], found


def _plain(value: Any) -> Any:
    """Give a scalar of NumPy's as Python's."""
    return value.item() if isinstance(value, np.generic) else value
