"""One message taken apart: the table, and what the page says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from batch_nlp.errors import BatchNlpError
from batch_nlp.explain import contributions
from batch_nlp.explain.contributions import OTHER, SENTENCES, TOLERANCE, WORDS
from batch_nlp.explain.explained import Explained, explain
from batch_nlp.predict import PROBABILITIES, predict
from batch_nlp.schemas import EXPLANATIONS, LABELS
from batch_nlp.tables import from_pandas
from batch_nlp.training.pipeline import chain, ngrams

Fit = Callable[..., Pipeline]


@pytest.fixture
def found(boosted: Pipeline, messages: pd.DataFrame) -> list[Explained]:
    some = messages.head(6)
    return explain(boosted, [f"m{number}" for number in range(6)], some)


def test_a_message_keeps_the_label_that_it_gets_elsewhere(
    found: list[Explained], boosted: Pipeline, messages: pd.DataFrame
) -> None:
    expected = predict(boosted, messages.head(6))
    assert [each.prediction for each in found] == expected["prediction"].tolist()
    np.testing.assert_allclose([each.probabilities for each in found], expected[PROBABILITIES])
    assert [each.id for each in found] == [f"m{number}" for number in range(6)]


def test_the_table_adds_up_for_every_message_class_and_model(found: list[Explained]) -> None:
    table = pd.concat([each.table() for each in found])
    assert table.columns.tolist() == EXPLANATIONS.names
    from_pandas(table, EXPLANATIONS)
    groups = table.groupby(["id", "class", "model"])
    assert len(groups) == 6 * 3 * 2
    for _, rows in groups:
        last = rows[rows["part"] == "margin"]["contribution"]
        assert len(last) == 1
        assert (rows["part"] == "base").sum() == 1
        added = rows[rows["part"] != "margin"]["contribution"].sum()
        assert added == pytest.approx(last.item(), abs=TOLERANCE)
    parts = table.groupby("model")["part"].unique().map(set).to_dict()
    assert parts == {
        "classifier": {"base", "feature", "margin"},
        "text": {"base", "word", "margin"},
    }


def test_the_page_has_the_margins_of_the_predicted_class(
    found: list[Explained], boosted: Pipeline
) -> None:
    for each in found:
        shown = each.shown(boosted, 3)
        assert shown.label == LABELS[each.prediction]
        words, features = shown.sums
        assert features.margin == each.features.margin[each.prediction]
        assert [heading for heading, _, _ in features.groups] == [WORDS, SENTENCES, OTHER]
        for sum_ in (words, features):
            total = sum(total for _, total, _ in sum_.groups)
            assert sum_.base + total == pytest.approx(sum_.margin, abs=TOLERANCE)
            assert all(len(terms) <= 3 for _, _, terms in sum_.groups)
        # The shades are the words' contributions, shared out.
        shades = sum(share or 0 for _, share in shown.pieces)
        assert shades == pytest.approx(sum(total for _, total, _ in words.groups))


def test_the_dimensions_of_a_vector_are_shown_as_one(
    found: list[Explained], boosted: Pipeline
) -> None:
    _, (_, total, terms), _ = found[0].shown(boosted, 9).sums[-1].groups
    names = found[0].features.names.tolist()
    own = [names.index("embedding_0"), names.index("embedding_1")]
    added = found[0].features.contributions[found[0].prediction, own]
    assert (total, terms) == (pytest.approx(added.sum()), [])


def test_a_label_that_is_not_the_most_probable_class_is_said(
    found: list[Explained], boosted: Pipeline
) -> None:
    likely = replace(found[0], probabilities=np.eye(3)[found[0].prediction])
    assert likely.shown(boosted, 3).notes == []
    other = 0 if found[0].prediction else 1
    odd = replace(found[0], probabilities=np.eye(3)[other])
    (note,) = odd.shown(boosted, 3).notes
    assert note.startswith(f"{LABELS[other]} is more probable")


def test_a_text_model_of_stars_speaks_for_the_likeliest_star_of_the_class(
    fit: Fit, messages: pd.DataFrame
) -> None:
    model = fit(LogisticRegression(), stars=True)
    for each in explain(model, list("abcdefghij"), messages.head(10)):
        assert each.gap <= TOLERANCE
        table = each.table()
        stars = table.loc[table["model"] == "text", "class"].unique()
        assert stars.tolist() == [1, 3, 4, 5]
        assert table.loc[table["model"] == "classifier", "class"].unique().tolist() == [0, 1, 2]
        words = each.words["text"]
        assert words.terms is not None
        own = {0: [0], 1: [1], 2: [2, 3]}[each.prediction]
        best = max(own, key=lambda place: words.terms.margin[place])
        (shown, _) = each.shown(model, 3).sums
        assert shown.title == f"Words, for {stars[best]} stars (step 'text')"
        assert shown.margin == words.terms.margin[best]


@pytest.mark.parametrize("text", ["", "   ", None])
def test_an_empty_text(text: str | None, boosted: Pipeline, messages: pd.DataFrame) -> None:
    some = messages.head(1).assign(clean_text=pd.array([text], dtype="str"))
    (each,) = explain(boosted, ["m"], some)
    notes = each.shown(boosted, 3).notes
    assert "No word of the text is in the vocabulary of the step 'text'." in notes
    assert "Nothing is left of the text after cleaning." in notes
    assert each.gap <= TOLERANCE
    assert (each.table()["part"] == "word").sum() == 0


def test_a_text_without_known_words(boosted: Pipeline, messages: pd.DataFrame) -> None:
    some = messages.head(1).assign(clean_text=pd.array(["quite unheard of"], dtype="str"))
    (each,) = explain(boosted, ["m"], some)
    shown = each.shown(boosted, 3)
    assert shown.notes[-1] == "No word of the text is in the vocabulary of the step 'text'."
    assert "".join(piece for piece, _ in shown.pieces) == "quite unheard of"
    assert shown.sums[0].margin == shown.sums[0].base


@pytest.mark.parametrize(
    "given",
    [
        {"text": chain(words=ngrams(), reduce=TruncatedSVD(3), classifier=LogisticRegression())},
        {"refit": False},
    ],
    ids=["reduced", "mean of the folds"],
)
def test_a_text_model_that_is_not_linear_in_words_is_named(
    given: dict[str, Any], fit: Fit, messages: pd.DataFrame
) -> None:
    model = fit(LogisticRegression(), **given)
    (each,) = explain(model, ["m"], messages.head(1))
    shown = each.shown(model, 3)
    assert shown.notes == ["The scores of the step 'text' cannot be taken apart into words."]
    assert shown.pieces == [(messages["clean_text"].iloc[0], None)]
    assert set(each.table()["model"]) == {"classifier"}


def test_the_same_again(boosted: Pipeline, messages: pd.DataFrame) -> None:
    first, second = (explain(boosted, ["a", "b"], messages.head(2)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(one.table(), other.table())
        assert one.shown(boosted, 5) == other.shown(boosted, 5)


@pytest.mark.parametrize("wrong", [0.5, np.nan])
def test_what_does_not_add_up_is_not_delivered(
    wrong: float, boosted: Pipeline, messages: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = contributions._of_trees

    def off(*given: object) -> tuple[np.ndarray, ...]:
        added, base, margin = right(*given)
        return added, base + wrong, margin

    monkeypatch.setattr(contributions, "_of_trees", off)
    with pytest.raises(BatchNlpError, match=r"must add up to the margins within 0\.0001"):
        explain(boosted, ["m"], messages.head(1))
