"""Features to classes: the fitted model, applied."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from batch_nlp.schemas import LABELS


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
        prediction is the most probable class, the lowest one on a tie.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> rows = pd.DataFrame({"text_length": [4.0, 9.0]})
    >>> model = Pipeline([("prior", DummyClassifier())]).fit(rows.loc[[0, 1, 1]], [0, 2, 2])
    >>> predict(model, rows)["label"].tolist()
    ['positive', 'positive']
    """
    probabilities = np.zeros((len(features), len(LABELS)))
    probabilities[:, model.classes_] = model.predict_proba(features)
    prediction = probabilities.argmax(axis=1)
    columns = [f"proba_{label}" for label in LABELS]
    return pd.DataFrame(probabilities, columns=columns, index=features.index).assign(
        prediction=prediction.astype("int64"), label=np.array(LABELS, dtype=object)[prediction]
    )
