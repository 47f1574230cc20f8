"""Missing values of every dtype."""

from __future__ import annotations

import pandas as pd

from batch_nlp.transformers import MissingIndicators


def test_missing_values_of_every_dtype() -> None:
    rows = pd.DataFrame(
        {
            "text": pd.Series(["", None], dtype="str"),
            "number": [0.0, None],
            "date": pd.to_datetime(["2020-01-01", None]),
        }
    )
    out = MissingIndicators(columns=list(rows), suffix="_gone").transform(rows)
    for column in rows:
        assert out[f"{column}_gone"].tolist() == [0.0, 1.0]
