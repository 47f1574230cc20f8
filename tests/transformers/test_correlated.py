"""Which columns go, and correlations against those of pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from batch_nlp.transformers import DropCorrelated
from batch_nlp.transformers.correlated import pearson, spearman

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 200))
HOLES = np.where(np.arange(200) % 3 == 0, np.nan, A)


@pytest.mark.parametrize(
    ("columns", "parameters", "dropped"),
    [
        ({"a": A, "b": B}, {}, []),
        ({"a": A, "b": B, "twin": 3 * A + 1, "mirror": -A}, {}, ["twin", "mirror"]),
        ({"twin": 3 * A + 1, "a": A}, {}, ["a"]),
        ({"a": A, "holes": HOLES}, {}, ["holes"]),
        ({"a": A, "near": A + 0.2 * B}, {}, ["near"]),
        ({"a": A, "near": A + 0.2 * B}, {"threshold": 0.99}, []),
        # Near is dropped for a; far repeats near but not a, so it has no one to stand for it.
        ({"a": A, "near": A + 0.3 * B, "far": A + 0.6 * B}, {"threshold": 0.93}, ["near"]),
        ({"a": A, "cube": A**9}, {}, []),
        ({"a": A, "cube": A**9}, {"method": "spearman"}, ["cube"]),
        ({"holes": HOLES, "cube": A**9}, {"method": "spearman"}, ["cube"]),
        ({"zero": 0 * A, "one": 0 * A + 0.1, "a": A}, {}, []),
        ({"gone": np.nan * A, "also": np.nan * A, "a": A}, {}, []),
        ({"a": A, "two": np.where(np.arange(200) < 2, A, np.nan)}, {}, []),
        ({"a": A, "flag": A > 0, "same": A > 0}, {}, ["same"]),
    ],
)
def test_dropped(
    columns: dict[str, np.ndarray], parameters: dict[str, object], dropped: list[str]
) -> None:
    rows = pd.DataFrame(columns)
    step = DropCorrelated(**parameters).fit(rows)
    assert step.dropped_ == dropped
    assert_frame_equal(step.transform(rows), rows.drop(columns=dropped))


def test_it_can_be_fitted_again_on_other_columns() -> None:
    step = DropCorrelated().fit(pd.DataFrame({"a": A, "twin": A}))
    assert step.fit(pd.DataFrame({"b": B, "mirror": -B})).dropped_ == ["mirror"]


def test_columns_that_it_was_not_fitted_on_go() -> None:
    step = DropCorrelated().fit(pd.DataFrame({"a": A, "b": B}))
    assert list(step.transform(pd.DataFrame({"b": B, "new": B, "a": A}))) == ["a", "b"]


def test_text_is_refused() -> None:
    rows = pd.DataFrame({"a": [1.0, 2.0], "city": ["Reno", "Tampa"]})
    with pytest.raises(ValueError, match="DropCorrelated needs column 'city' to be numeric"):
        DropCorrelated().fit(rows)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"threshold": 1.5}, r"threshold must be from 0 to 1; got 1\.5"),
        ({"method": "kendall"}, "method must be one of .*; got 'kendall'"),
    ],
)
def test_parameters_are_checked(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DropCorrelated(**parameters).fit(pd.DataFrame({"a": A}))


@pytest.mark.parametrize("share_missing", [0.0, 0.3])
@pytest.mark.parametrize("correlate", [pearson, spearman])
def test_correlations_are_those_of_pandas(correlate: object, share_missing: float) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(20_000 if correlate is pearson else 500, 6)) @ rng.normal(size=(6, 6))
    values = values * [1e-6, 1, 1e6, 1, 1, 1] + [0, 1e3, 0, 0, 0, 0]
    values[rng.random(values.shape) < share_missing] = np.nan
    values[:, 5] = 0.1
    expected = pd.DataFrame(values).corr(method=correlate.__name__).to_numpy(copy=True)
    expected[5, :] = expected[:, 5] = np.nan
    np.testing.assert_allclose(correlate(values), expected, atol=1e-9)
