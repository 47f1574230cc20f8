"""Small tables of frequencies."""

from __future__ import annotations

import pandas as pd
import pytest

from batch_nlp.transformers import FrequencyEncoder

TRAINING = pd.DataFrame({"city": ["Reno", "Reno", "Tampa", None], "open": [1.0, 0.0, 1.0, 1.0]})


@pytest.mark.parametrize(("normalize", "reno", "tampa"), [(True, 0.5, 0.25), (False, 2.0, 1.0)])
def test_share_or_number(normalize: bool, reno: float, tampa: float) -> None:
    encoder = FrequencyEncoder(columns=["city"], normalize=normalize).fit(TRAINING)
    assert encoder.frequencies_ == {"city": {"Reno": reno, "Tampa": tampa}}


def test_a_category_dtype_is_read_by_value() -> None:
    encoder = FrequencyEncoder(columns=["city", "open"]).fit(TRAINING)
    out = encoder.transform(TRAINING.astype({"city": "category", "open": "float32"}))
    assert out["city_frequency"].tolist() == pytest.approx(
        [0.5, 0.5, 0.25, float("nan")], nan_ok=True
    )
    assert out["open_frequency"].tolist() == [0.75, 0.25, 0.75, 0.75]


def test_a_batch_does_not_change_what_was_learned() -> None:
    encoder = FrequencyEncoder(columns=["city"]).fit(TRAINING)
    tampa = pd.DataFrame({"city": ["Tampa"] * 9})
    assert encoder.transform(tampa)["city_frequency"].unique().tolist() == [0.25]
