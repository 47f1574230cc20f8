"""Laws that every step keeps, and scikit-learn's own checks that need no array.

A new step gets them all by an entry in `CASES`; without one, `test_every_step_has_a_case` fails.
"""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import estimator_checks

from batch_nlp import transformers
from batch_nlp.embedders import HashingEmbedder
from batch_nlp.transformers.base import FrameStep, LearningStep

if TYPE_CHECKING:
    from collections.abc import Callable

N_ROWS = 24
Y = np.arange(N_ROWS) % 3
NAN = float("nan")


def make_rows() -> pd.DataFrame:
    """Rows of every dtype, most columns with missing values, under an index that repeats."""
    rng = np.random.default_rng(0)

    def some(values: list[Any], dtype: str) -> pd.Series[Any]:
        return pd.Series([values[i % len(values)] for i in range(N_ROWS)], dtype=dtype)

    words = rng.integers(1, 40, N_ROWS).astype(float)
    clean = ["so bad", "fine", "so good", "bad, rude", "fine enough", "good and kind", "not good"]
    clean += ["just fine", "kind and good", "bad food", "enough", "good food"]  # classes 0 1 2
    texts = ["Never again!", "Good soup, but 2 flies 👍🏽", "", "It's <b>OK</b> &amp; fine", "WHY?"]
    rows = pd.DataFrame(
        {
            "text": some(texts, "str"),
            "clean_text": some(clean, "str"),
            "city": some(["Tampa", "Reno", None, "Tampa", "Boise"], "str"),
            "categories": some(["Bars, Nightlife", "Barbers", None, "", "Doctors"], "str"),
            "elite": some(["2018,2019,20,20", "", None, "2015"], "str"),
            "useful": some([0.0, 2.0, None, 5.0, 1.0], "float64"),
            "funny": some([0.0, 0.0, 3.0], "float64"),
            "date": some(["2021-05-15 12:30", None, "2019-01-07", "2020-12-31"], "datetime64[us]"),
            "yelping_since": some(["2015-03-01", "2020-06-01", None], "datetime64[us]"),
            "words": words,
            "characters": words * 5 + 1,
            "noise": rng.normal(size=N_ROWS),
        }
    )
    rows.index = pd.Index([7, *range(N_ROWS - 1)], name="row")
    return rows


@dataclass(frozen=True)
class Case:
    """How to build a step, and what it gives for values that it has never seen or that lack.

    Attributes
    ----------
    build
        Makes the step.
    needs
        A column without which it cannot work.
    odd
        Values of columns in rows that are unlike any in training.
    expected
        Values of columns in what comes out for those rows.
    columns
        Columns of `make_rows` that it takes; None for all.
    cross_fitted
        Whether it needs `y`, and `fit_transform` scores training rows by models that have not
        seen them, so that it differs from ``fit().transform()`` by design.
    """

    build: Callable[[], FrameStep]
    needs: str
    odd: dict[str, list[Any]]
    expected: dict[str, list[Any]]
    columns: list[str] | None = field(default=None)
    cross_fitted: bool = False

    def rows(self) -> pd.DataFrame:
        rows = make_rows()
        return rows if self.columns is None else rows[self.columns]

    @property
    def y(self) -> np.ndarray | None:
        return Y if self.cross_fitted else None

    def fitted(self) -> FrameStep:
        return self.build().fit(self.rows(), self.y)


CASES: dict[type[FrameStep], Case] = {
    transformers.CategoryGroups: Case(
        build=transformers.CategoryGroups,
        needs="categories",
        odd={"categories": ["Notaries", "", None]},
        expected={"category_group": ["other"] * 3, "n_categories": [1.0, 0.0, 0.0]},
    ),
    transformers.CleanText: Case(
        build=transformers.CleanText,
        needs="text",
        odd={"text": ["😀", "", None]},
        expected={"clean_text": ["😀", "", NAN]},
    ),
    transformers.DateParts: Case(
        build=transformers.DateParts,
        needs="date",
        odd={"date": ["1969-12-31", None]},
        expected={"date_year": [1969.0, NAN], "date_weekend": [0.0, NAN]},
    ),
    transformers.DropCorrelated: Case(
        build=transformers.DropCorrelated,
        needs="noise",
        columns=["useful", "words", "characters", "noise"],
        odd={"words": [1e300, None], "noise": [None, float("inf")]},
        expected={"words": [1e300, NAN], "noise": [NAN, float("inf")]},
    ),
    transformers.EliteYears: Case(
        build=transformers.EliteYears,
        needs="elite",
        odd={"elite": ["nonsense", "", None]},
        expected={"elite_years": [0.0, 0.0, NAN]},
    ),
    transformers.FrequencyEncoder: Case(
        build=lambda: transformers.FrequencyEncoder(columns=["city", "useful"]),
        needs="useful",
        odd={"city": ["Oslo", None], "useful": [99.0, None]},
        expected={"city_frequency": [0.0, NAN], "useful_frequency": [0.0, NAN]},
    ),
    transformers.GroupMeans: Case(
        build=lambda: transformers.GroupMeans(by="city", columns=["useful"]),
        needs="city",
        odd={"city": ["Oslo", None]},
        expected={"useful_mean_by_city": [make_rows()["useful"].mean()] * 2},
    ),
    transformers.MissingIndicators: Case(
        build=lambda: transformers.MissingIndicators(columns=["city", "date", "useful"]),
        needs="city",
        odd={"city": ["Oslo", None], "useful": [None, 1.0]},
        expected={"city_missing": [0.0, 1.0], "useful_missing": [1.0, 0.0]},
    ),
    transformers.OutOfFoldScores: Case(
        build=lambda: transformers.OutOfFoldScores(
            estimator=make_pipeline(TfidfVectorizer(), LogisticRegression()), cv=2
        ),
        needs="clean_text",
        odd={"clean_text": ["zzz", "", None]},
        expected={"clean_text": ["zzz", "", NAN]},
        cross_fitted=True,
    ),
    transformers.PositiveFlags: Case(
        build=lambda: transformers.PositiveFlags(columns=["useful", "funny"]),
        needs="funny",
        odd={"useful": [-1.0, None], "funny": [1e9, 0.0]},
        expected={"has_useful": [0.0, NAN], "has_funny": [1.0, 0.0]},
    ),
    transformers.QuantileLevels: Case(
        build=lambda: transformers.QuantileLevels(columns=["words", "useful"]),
        needs="words",
        odd={"words": [-1e9, 1e9, None]},
        expected={"words_level": [0.0, 3.0, NAN]},
    ),
    transformers.Tenure: Case(
        build=transformers.Tenure,
        needs="yelping_since",
        odd={
            "yelping_since": ["2030-01-01", None, "2020-01-01"],
            "date": ["2020-01-01", "2020-01-01", None],
        },
        expected={"user_tenure_days": [0.0, NAN, NAN]},
    ),
    transformers.TextEmbedder: Case(
        build=lambda: transformers.TextEmbedder(embedder=HashingEmbedder(n_features=4)),
        needs="clean_text",
        odd={"clean_text": ["", None]},
        expected={"embedding_000": [0.0, 0.0], "embedding_003": [0.0, 0.0]},
    ),
    transformers.TextStatistics: Case(
        build=transformers.TextStatistics,
        needs="text",
        odd={"text": ["\x00\U0010ffff", "", None]},
        expected={"text_length": [2.0, 0.0, NAN], "text_words": [0.0, 0.0, NAN]},
    ),
}

STEPS = [getattr(transformers, name) for name in transformers.__all__]
LEARNING = [step for step in STEPS if issubclass(step, LearningStep)]
ROW_LOCAL = [step for step in STEPS if not issubclass(step, LearningStep)]
every_step = pytest.mark.parametrize("step", STEPS)


@pytest.fixture
def case(step: type[FrameStep]) -> Case:
    return CASES[step]


def subclasses(base: type) -> set[type]:
    found = set(base.__subclasses__())
    return found.union(*(subclasses(cls) for cls in found))


def test_every_step_has_a_case() -> None:
    assert {step.__name__ for step in CASES} == set(transformers.__all__)


def test_every_step_is_exported() -> None:
    for module in pkgutil.iter_modules(transformers.__path__, "batch_nlp.transformers."):
        importlib.import_module(module.name)
    steps = {
        cls
        for cls in subclasses(FrameStep)
        if cls.__module__.startswith("batch_nlp.") and not inspect.isabstract(cls)
    }
    assert steps == set(STEPS)


@every_step
def test_clone_keeps_the_parameters_and_init_sets_nothing_else(case: Case) -> None:
    step = case.build()
    parameters = step.get_params(deep=False)
    assert vars(step) == parameters
    twin = clone(case.fitted())
    assert joblib.hash(twin.get_params()) == joblib.hash(step.get_params())
    assert set(vars(twin)) == set(parameters)


@pytest.mark.parametrize("step", LEARNING)
def test_learning_step_that_is_not_fitted_says_so(case: Case) -> None:
    with pytest.raises(NotFittedError):
        case.build().transform(case.rows())
    with pytest.raises(NotFittedError):
        case.build().get_feature_names_out(list(case.rows()))


@pytest.mark.parametrize("step", ROW_LOCAL)
def test_row_local_step_works_without_fit(case: Case) -> None:
    rows = case.rows()
    expected = case.fitted().transform(rows)
    assert_frame_equal(case.build().transform(rows), expected)
    assert_frame_equal(Pipeline([("step", case.build())]).transform(rows), expected)
    assert case.build().get_feature_names_out(list(rows)).tolist() == list(expected)


@every_step
@pytest.mark.parametrize("y", [None, Y], ids=["without y", "with y"])
def test_works_in_a_pipeline(case: Case, y: np.ndarray | None) -> None:
    rows = case.rows()
    first = transformers.MissingIndicators(columns=[case.needs])
    pipeline = Pipeline([("first", first), ("step", case.build())])
    if case.cross_fitted and y is None:
        with pytest.raises(ValueError, match=f"{type(case.build()).__name__} needs y"):
            pipeline.fit(rows, y)
        return
    out = pipeline.fit(rows, y).transform(rows)
    seen = first.transform(rows)
    assert_frame_equal(out, case.build().fit(seen, y).transform(seen))
    assert pipeline.get_feature_names_out().tolist() == list(out)
    pipeline.set_output(transform="pandas")
    assert_frame_equal(pipeline.transform(rows), out)


@every_step
def test_one_row_alone_equals_that_row_in_the_batch(case: Case) -> None:
    rows, step = case.rows(), case.fitted()
    batch = step.transform(rows)
    alone = [step.transform(rows.iloc[[i]]) for i in range(N_ROWS)]
    for i, row in enumerate(alone):
        assert_frame_equal(row, batch.iloc[[i]])


@every_step
def test_shuffled_rows_give_shuffled_results(case: Case) -> None:
    rows, step = case.rows(), case.fitted()
    order = np.random.default_rng(1).permutation(N_ROWS)
    assert_frame_equal(step.transform(rows.iloc[order]), step.transform(rows).iloc[order])


@every_step
def test_rows_and_index_are_kept_and_the_input_is_untouched(case: Case) -> None:
    rows = case.rows()
    before = rows.copy(deep=True)
    step = case.build().fit(rows, case.y)
    out = step.transform(rows)
    assert out.index.equals(rows.index)
    out.iloc[:, 0] = out.iloc[::-1, 0].to_numpy()
    assert_frame_equal(rows, before)
    step.fit_transform(rows, case.y)
    assert_frame_equal(rows, before)


@every_step
def test_other_columns_are_kept_in_their_order(case: Case) -> None:
    rows, step = case.rows(), case.fitted()
    out = step.transform(rows)
    kept = [column for column in rows if column not in getattr(step, "dropped_", [])]
    assert list(out)[: len(kept)] == kept
    untouched = [column for column in kept if column not in step._columns_added()]
    assert_frame_equal(out[untouched], rows[untouched])


@every_step
def test_fit_transform_equals_fit_then_transform(case: Case) -> None:
    rows = case.rows()
    at_once = case.build().fit_transform(rows, case.y)
    in_turn = case.fitted().transform(rows)
    if case.cross_fitted:
        added = [column for column in in_turn if column not in rows]
        assert list(at_once) == list(in_turn)
        assert at_once.dtypes.equals(in_turn.dtypes)
        assert not np.allclose(at_once[added], in_turn[added])
    else:
        assert_frame_equal(at_once, in_turn)


@every_step
def test_pickle_round_trip(case: Case) -> None:
    rows, step = case.rows(), case.fitted()
    back = pickle.loads(pickle.dumps(step))
    assert_frame_equal(back.transform(rows), step.transform(rows))
    assert back.get_feature_names_out().tolist() == step.get_feature_names_out().tolist()


@every_step
def test_missing_column_is_named(step: type[FrameStep], case: Case) -> None:
    rows = case.rows().drop(columns=case.needs)
    message = rf"^{step.__name__} needs columns \['{case.needs}'\], which the input lacks; it has "
    with pytest.raises(ValueError, match=message):
        case.fitted().transform(rows)
    if step is not transformers.DropCorrelated:  # it takes whatever columns it is fitted on
        with pytest.raises(ValueError, match=message):
            case.build().fit(rows, case.y)


@every_step
def test_empty_frame_gives_the_same_columns_and_dtypes(case: Case) -> None:
    rows, step = case.rows(), case.fitted()
    out = step.transform(rows.iloc[:0])
    assert len(out) == 0
    assert out.dtypes.equals(step.transform(rows).dtypes)


@every_step
def test_unseen_and_missing_values_give_what_is_documented(case: Case) -> None:
    rows, step = case.rows(), case.fitted()
    n_odd = len(next(iter(case.odd.values())))
    odd = rows.head(n_odd).copy()
    for column, values in case.odd.items():
        odd[column] = pd.array(values, dtype=rows[column].dtype)
    out = step.transform(odd)
    assert out.dtypes.equals(step.transform(rows).dtypes)
    for column, values in case.expected.items():
        expected = pd.Series(values, index=odd.index, name=column, dtype=out[column].dtype)
        pd.testing.assert_series_equal(out[column], expected)


@every_step
def test_feature_names(case: Case) -> None:
    rows, step = case.rows(), case.fitted()
    assert step.feature_names_in_.tolist() == list(rows)
    assert step.n_features_in_ == rows.shape[1]
    assert step.get_feature_names_out().tolist() == list(step.transform(rows))


@every_step
@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_get_feature_names_out_error,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_mixin_order,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_set_params,
        estimator_checks.check_valid_tag_types,
    ],
    ids=lambda check: check.__name__,
)
def test_scikit_learn(check: Callable[[str, FrameStep], None], case: Case) -> None:
    step = case.build()
    check(type(step).__name__, step)
