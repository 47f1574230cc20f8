"""The margin of the text alone, and its words."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from batch_nlp.explain.contributions import TOLERANCE
from batch_nlp.explain.words import shaded, word_terms

TEXTS = ["so good, good food", "not good", "so so", "okay food", "bad food", "so bad and so rude"]
CLASSES = [2, 0, 1, 1, 0, 0]


def fitted(*steps: object) -> Pipeline:
    return make_pipeline(*steps, OneVsRestClassifier(LogisticRegression())).fit(TEXTS, CLASSES)


@pytest.mark.parametrize(
    "vocabulary",
    [
        [TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)],
        [CountVectorizer()],
        [TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3))],
        [make_union(TfidfVectorizer(), TfidfVectorizer(analyzer="char"))],
        [TfidfVectorizer(), SelectKBest(k=3)],
    ],
)
def test_words_add_up_to_the_margin_of_the_text(vocabulary: list[object]) -> None:
    model = fitted(*vocabulary)
    texts = [*TEXTS, "", "unseen", "Good, not BAD"]
    found = word_terms(model, texts)
    assert found is not None
    for terms, margin in zip(found, model.decision_function(texts), strict=True):
        np.testing.assert_allclose(
            terms.base + terms.contributions.sum(axis=1), margin, atol=TOLERANCE, rtol=0
        )
        assert terms.gap <= TOLERANCE


def test_a_text_without_known_words_is_its_base() -> None:
    model = fitted(TfidfVectorizer())
    for terms in word_terms(model, ["", "unseen words"]) or pytest.fail("not linear"):
        assert terms.names.size == 0
        assert terms.contributions.shape == (3, 0)
        np.testing.assert_allclose(terms.base, terms.margin)


def test_a_word_has_its_weight_times_its_coefficient() -> None:
    model = fitted(TfidfVectorizer())
    (terms,) = word_terms(model, ["bad bad"]) or pytest.fail("not linear")
    assert terms.names.tolist() == ["bad"]
    assert terms.values.tolist() == [1.0]
    column = model[0].vocabulary_["bad"]
    expected = [one.coef_[0, column] for one in model[-1].estimators_]
    np.testing.assert_allclose(terms.contributions[:, 0], expected)
    assert terms.contributions[:, 0].argmax() == 0


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(CountVectorizer(), MultinomialNB()),
        make_pipeline(TfidfVectorizer(), TruncatedSVD(2), LogisticRegression()),
        LogisticRegression(),
    ],
)
def test_a_model_without_weighted_words_is_left_whole(model: object) -> None:
    if isinstance(model, Pipeline):
        model.fit(TEXTS, CLASSES)
    assert word_terms(model, TEXTS) is None


@pytest.mark.parametrize(
    "vocabulary",
    [
        TfidfVectorizer(),
        TfidfVectorizer(ngram_range=(1, 3)),
        TfidfVectorizer(ngram_range=(2, 2)),
        TfidfVectorizer(ngram_range=(1, 2), stop_words=["so", "and"]),
        TfidfVectorizer(strip_accents="unicode"),
        TfidfVectorizer(token_pattern=r"\S+", lowercase=False),
    ],
)
@pytest.mark.parametrize(
    "text", ["So bad, and SO rude; so bad!", "not  göod\nfood", "", "...", "İ so"]
)
def test_shades_are_as_much_as_the_words(vocabulary: TfidfVectorizer, text: str) -> None:
    model = fitted(vocabulary)
    (terms,) = word_terms(model, [text]) or pytest.fail("not linear")
    added = dict(zip(terms.names, terms.contributions[0], strict=True))
    pieces = shaded(model, text, added)
    whole = "".join(piece for piece, _ in pieces)
    assert whole in {text, model[0].build_preprocessor()(text)}
    assert sum(share or 0 for _, share in pieces) == pytest.approx(sum(added.values()))


def test_a_run_of_words_is_shared_by_its_words_and_places() -> None:
    model = make_pipeline(CountVectorizer(ngram_range=(1, 2)))
    added = {"bad": 2.0, "so bad": 4.0}
    assert shaded(model, "So bad. So bad!", added) == [
        ("So", 1.0),
        (" ", None),
        ("bad", 2.0),
        (". ", None),
        ("So", 1.0),
        (" ", None),
        ("bad", 2.0),
        ("!", None),
    ]


def test_stop_words_are_passed_over_as_the_vocabulary_does() -> None:
    model = make_pipeline(CountVectorizer(ngram_range=(2, 2), stop_words=["the"]))
    pieces = shaded(model, "hate the food", {"hate food": 2.0})
    assert pieces == [("hate", 1.0), (" ", None), ("the", 0.0), (" ", None), ("food", 1.0)]


@pytest.mark.parametrize(
    "vocabulary",
    [
        CountVectorizer(analyzer="char_wb"),
        CountVectorizer(tokenizer=str.split, token_pattern=None),
        CountVectorizer(token_pattern=r"(\w)\w*"),
        make_union(CountVectorizer()),
    ],
)
def test_what_is_not_cut_into_words_stays_whole(vocabulary: object) -> None:
    assert shaded(make_pipeline(vocabulary), "so <bad>", {}) == [("so <bad>", None)]
