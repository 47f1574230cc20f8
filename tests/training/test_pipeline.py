"""All that learns from other rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from batch_nlp.training.calibrate import CalibratedClassifier, inner_classifier
from batch_nlp.training.pipeline import (
    categorical_columns,
    chain,
    embedding_columns,
    model_pipeline,
    ngrams,
    numeric_columns,
)
from batch_nlp.transformers import FrequencyEncoder


@pytest.fixture
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 60
    frame = pd.DataFrame(
        {
            "text": "t",
            "clean_text": "t",
            "user_id": "u",
            "city": rng.choice(["Reno", "Tampa"], n),
            "fans": rng.normal(size=n),
            "date_year": 2020,
            "is_open": rng.integers(0, 2, n),
            "stars": rng.integers(1, 6, n),
            "label": rng.integers(0, 3, n),
            "average_stars": rng.normal(size=n),
            "stars_business": rng.normal(size=n),
            "embedding_000": rng.normal(size=n).astype("float32"),
            "embedding_001": rng.normal(size=n).astype("float32"),
        }
    )
    return frame.astype(dict.fromkeys(("text", "clean_text", "user_id", "city"), "str")).assign(
        date=pd.Timestamp("2020-01-01")
    )


def test_columns_by_kind(rows: pd.DataFrame) -> None:
    assert numeric_columns(rows) == ["fans", "date_year", "is_open"]
    assert numeric_columns(rows, ignore=["date_year"]) == ["fans", "is_open"]
    assert categorical_columns(rows) == ["city"]
    assert embedding_columns(rows) == ["embedding_000", "embedding_001"]


def test_steps_that_are_none_are_left_out(rows: pd.DataFrame) -> None:
    assert chain(reduce=None) == "passthrough"
    steps = chain(one=VarianceThreshold(), two=None, three=LogisticRegression())
    assert isinstance(steps, Pipeline)
    assert [name for name, _ in steps.steps] == ["one", "three"]


def test_a_vocabulary_of_runs() -> None:
    found = ngrams(shortest=2, longest=2).fit(["very good food"]).get_feature_names_out()
    assert found.tolist() == ["good food", "very good"]


def test_only_the_columns_of_a_kind_reach_the_classifier(rows: pd.DataFrame) -> None:
    model = model_pipeline(
        learn={"frequencies": FrequencyEncoder(columns=["city"]), "none": None},
        numeric="passthrough",
        categorical=OneHotEncoder(sparse_output=False),
        embedding="passthrough",
        select={"constant": VarianceThreshold(), "none": None},
        classifier=LogisticRegression(max_iter=1000),
        ignore=["is_open"],
    )
    assert list(model.named_steps) == ["frequencies", "encode", "constant", "classifier"]
    assert isinstance(model["encode"], ColumnTransformer)
    target = np.arange(len(rows)) % 3
    model.fit(rows, target, classifier__sample_weight=np.ones(len(rows)))
    assert model.classes_.tolist() == [0, 1, 2]
    assert model[-1].feature_names_in_.tolist() == [
        "fans",
        "city_frequency",
        "city_Reno",
        "city_Tampa",
        "embedding_000",
        "embedding_001",
    ]
    changed = rows.assign(stars=9, label=9, average_stars=9, stars_business=9, is_open=9, text="x")
    assert np.array_equal(model.predict_proba(changed), model.predict_proba(rows))


def test_calibration_takes_the_place_of_the_classifier(rows: pd.DataFrame) -> None:
    calibration = CalibratedClassifier(method="sigmoid", cv=3)
    model = model_pipeline(
        learn={},
        numeric="passthrough",
        categorical="drop",
        embedding="passthrough",
        select={},
        classifier=LogisticRegression(C=0.5, max_iter=1000),
        calibration=calibration,
    )
    assert calibration.estimator is None
    assert list(model.named_steps) == ["encode", "classifier"]
    target = np.arange(len(rows)) % 3
    model.fit(rows, target, classifier__sample_weight=np.ones(len(rows)))
    assert isinstance(model[-1], CalibratedClassifier)
    assert model[-1].method == "sigmoid"
    assert inner_classifier(model).C == 0.5
    assert inner_classifier(model).feature_names_in_.tolist() == (
        model[-1].feature_names_in_.tolist()
    )
