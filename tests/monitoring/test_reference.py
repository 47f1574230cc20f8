"""What a model was judged on, and what there is to see in a batch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import Pipeline

from batch_nlp.monitoring.monitor import Monitor
from batch_nlp.monitoring.reference import Kinds, Reference, Seen, Words, build_reference
from batch_nlp.training.vocabulary import WORD


def test_it_comes_back_from_plain_data(judged: Any) -> None:
    plain = judged.reference.to_dict()
    again = Reference.from_dict(json.loads(json.dumps(plain, allow_nan=False)))
    assert again is not None
    assert again.to_dict() == plain
    assert Reference.from_dict({**plain, "format": 0}) is None


def test_the_card_has_its_digest_and_its_f1(judged: Any) -> None:
    card = judged.artifact.card
    assert "reference.json" in card["files"]
    for name, value in judged.reference.measured.items():
        assert value == pytest.approx(card["metrics"][name])
    assert judged.reference.held_out.n_rows == card["n_test"]


def test_the_columns_are_those_that_the_classifier_is_shown(judged: Any) -> None:
    reference = judged.reference
    assert {"text_length", "fans", "has_useful", "date_missing"} <= set(reference.numbers)
    assert not {"date_year", "date_month", "text_length_level"} & set(reference.numbers)
    assert set(reference.kinds) == {"city", "state", "category_group"}


def test_looking_at_the_rows_held_out_again_gives_the_same(judged: Any) -> None:
    seen = judged.watch(judged.features, judged.predicted)
    for name, counts in judged.reference.held_out.counts.items():
        np.testing.assert_array_equal(seen.counts[name], counts)
        assert counts.sum() == seen.n_rows
    np.testing.assert_allclose(seen.waves, judged.reference.held_out.waves, atol=1e-3)


@pytest.mark.parametrize("size", [1, 7, 50])
def test_batches_add_up_to_the_whole_however_they_are_cut(judged: Any, size: int) -> None:
    whole = judged.watch(judged.features, judged.predicted)
    n = len(judged.features)
    parts = [
        judged.watch(
            judged.features.iloc[start : start + size], judged.predicted.iloc[start : start + size]
        )
        for start in range(0, n, size)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + Seen.from_dict(json.loads(json.dumps(part.to_dict())))
    assert total.n_rows == n
    for name, counts in whole.counts.items():
        np.testing.assert_array_equal(total.counts[name], counts)
    np.testing.assert_allclose(total.sums, whole.sums)
    np.testing.assert_allclose(total.waves, whole.waves, atol=1e-3)
    np.testing.assert_allclose(total.expected.products, whole.expected.products)
    # What is kept of a batch does not grow with it.
    assert sum(len(each) for each in total.counts.values()) == sum(
        len(each) for each in parts[-1].counts.values()
    )


def test_kinds_are_frequent_rare_unseen_or_missing() -> None:
    training = pd.Series(["a"] * 150 + ["b"] * 149 + ["c"] * 2 + [None], dtype="str")
    kinds = Kinds.of(training)
    assert (kinds.frequent, kinds.rare) == (["a", "b"], ["c"])
    codes = kinds.codes(pd.Series(["b", "c", "z", None], dtype="str"))
    assert codes.tolist() == [1, 2, kinds.unseen, kinds.n_bins - 1]
    assert kinds.codes(pd.Series([], dtype="str")).tolist() == []


def test_a_long_text_is_looked_at_up_to_a_whole_word() -> None:
    words = Words(frozenset({"soup"}), r"\w+", lowercase=True)
    found = words.unknown(pd.Series(["soup " * 60, "soup" * 60, "soup " * 39 + "unheard of"]))
    assert found.tolist() == [0, 1, 0]


def test_words_looked_up_at_once_are_those_looked_up_one_by_one() -> None:
    texts = pd.Series(
        ["Good soup, good tea", "", "caf\u00e9 soup \u00e0 la carte", "a", "soup " * 60]
    )
    known = frozenset({"soup", "caf\u00e9", "good"})
    at_once = Words(known, WORD, lowercase=True).unknown(texts)
    # The same words, said in a way that is not known to be the same.
    one_by_one = Words(known, rf"{WORD}(?:)", lowercase=True).unknown(texts)
    np.testing.assert_array_equal(at_once, one_by_one)
    assert at_once.round(2).tolist() == pytest.approx([0.25, np.nan, 0.5, np.nan, 0], nan_ok=True)


def test_no_text_model_and_no_embedding_leave_these_out(judged: Any) -> None:
    embedded = judged.features.columns.str.startswith("embedding_")
    rows = judged.features.loc[:, ~embedded]
    model = Pipeline([("prior", DummyClassifier())]).fit(rows, judged.target)
    held_out = np.arange(len(rows)) % 2 == 0
    predicted = judged.predicted[held_out]
    reference = build_reference(
        model, rows, held_out, predicted, judged.target[held_out], text="clean_text"
    )
    watch = Monitor(min_rows=1).watch(model, json.loads(json.dumps(reference.to_dict())))
    assert watch is not None
    verdict = Monitor(min_rows=1).judge(watch(rows, judged.predicted), watch.reference)
    assert verdict.verdict == "fits"
    row = verdict.row()
    assert (row["embedding_drift"], row["unknown_words"]) == (None, None)
    assert "unknown words" not in verdict.table()


def test_a_class_that_the_model_does_not_know_and_a_column_without_values(judged: Any) -> None:
    rows = judged.features.assign(fans=np.nan, city=pd.Series(dtype="str"))
    everyone = np.ones(len(rows), dtype=bool)
    predicted = judged.predicted.assign(
        prediction=2, proba_negative=0.0, proba_neutral=0.2, proba_positive=0.8
    )
    reference = build_reference(
        judged.artifact.model_pipeline,
        rows,
        everyone,
        predicted,
        judged.target,
        text="clean_text",
    )
    again = Reference.from_dict(json.loads(json.dumps(reference.to_dict(), allow_nan=False)))
    assert again is not None
    look = again.look(rows, predicted, judged.watch.words)
    verdict = Monitor(min_rows=1).judge(look.seen(), again)
    assert verdict.verdict == "fits"
    assert np.isfinite([each.p_value for each in verdict.measures]).all()
