"""Small tables of levels."""

from __future__ import annotations

import pandas as pd
import pytest

from batch_nlp.transformers import QuantileLevels


@pytest.mark.parametrize(
    ("values", "n_levels", "edges"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], 4, [2.0, 3.0, 4.0]),
        ([1.0, 2.0, 3.0], 2, [2.0]),
        ([0.0, 0.0, 0.0, 0.0, 7.0], 4, [0.0]),
        ([1.0, None, 3.0, None], 2, [2.0]),
        ([None, None], 4, []),
    ],
)
def test_edges(values: list[float | None], n_levels: int, edges: list[float]) -> None:
    rows = pd.DataFrame({"fans": pd.Series(values, dtype="float64")})
    step = QuantileLevels(columns=["fans"], n_levels=n_levels).fit(rows)
    assert step.edges_["fans"].tolist() == edges


def test_a_value_on_an_edge_is_of_the_lower_level() -> None:
    training = pd.DataFrame({"fans": [1.0, 2.0, 3.0, 4.0, 5.0]})
    step = QuantileLevels(columns=["fans"]).fit(training)
    assert step.transform(training)["fans_level"].tolist() == [0.0, 0.0, 1.0, 2.0, 3.0]


def test_a_column_missing_throughout_training_has_one_level() -> None:
    step = QuantileLevels(columns=["fans"]).fit(pd.DataFrame({"fans": [float("nan")]}))
    assert step.transform(pd.DataFrame({"fans": [-5.0, 5.0]}))["fans_level"].tolist() == [0.0, 0.0]


def test_one_level_is_refused() -> None:
    with pytest.raises(ValueError, match="n_levels must be at least 2; got 1"):
        QuantileLevels(columns=["fans"], n_levels=1).fit(pd.DataFrame({"fans": [1.0]}))
