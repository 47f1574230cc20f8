"""Features to classes: the fitted model, applied."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from batch_nlp.schemas import LABELS
from batch_nlp.training.calibrate import CalibratedClassifier

PROBABILITIES = [f"proba_{label}" for label in LABELS]
"""Columns of the probabilities, in the order of the classes."""


def predict(model: Pipeline, features: pd.DataFrame) -> pd.DataFrame:
    """Give each row its class and the probability of each class.

    Parameters
    ----------
    model : Pipeline
        Fitted, with classes among 0, 1 and 2.
    features : DataFrame
        What the feature pipeline made, one row a message.

    Returns
    -------
    DataFrame of the same index
        ``prediction`` (int64), ``label`` and ``proba_negative``, ``proba_neutral``,
        ``proba_positive`` (float64; 0 for a class that the model does not know). The
        prediction is the model's own, which need not be the most probable class.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> rows = pd.DataFrame({"text_length": [4.0, 9.0]})
    >>> model = Pipeline([("prior", DummyClassifier())]).fit(rows.loc[[0, 1, 1]], [0, 2, 2])
    >>> predict(model, rows)["label"].tolist()
    ['positive', 'positive']
    """
    # What both answers need is worked out once.
    encoded = model[:-1].transform(features) if len(model) > 1 else features
    last = model[-1]
    known = last.predict_proba(encoded)
    probabilities = np.zeros((len(features), len(LABELS)))
    probabilities[:, model.classes_] = known
    calibrated = isinstance(last, CalibratedClassifier)
    decided = last.decide(known) if calibrated else last.predict(encoded)
    prediction = np.asarray(decided, dtype="int64")
    return pd.DataFrame(probabilities, columns=PROBABILITIES, index=features.index).assign(
        prediction=prediction, label=np.array(LABELS, dtype=object)[prediction]
    )
