"""A vocabulary that is looked up all at once gives what scikit-learn's gives."""

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer

from batch_nlp.training.vocabulary import WORD, NgramVectorizer, WordNumbers

TRAINING = [
    "The soup was good, the tea was good too.",
    "No soup! No good tea, and the waiter was cold.",
    "Café naïve 100 % GOOD",
    "",
] * 2
NEW = ["Good soup, good SOUP.", "", "unheard of", "the the the was good tea no", "café\n100"]
WORDS = [
    "soup",
    "good",
    "tea",
    "no",
    "was",
    "the",
    "GOOD",
    "new",
    "a",
    "!",
    "İ",
    "ß",
    "cafe\u0301",
    "\u039f\u03a3",
    "\u039f\u03a3'\u0391",
]


def both(**options: Any) -> tuple[Any, Any]:
    return (
        NgramVectorizer(**options).fit(TRAINING),
        TfidfVectorizer(**options).fit(TRAINING),
    )


def assert_same(fast: Any, plain: Any, texts: list[str]) -> None:
    found, expected = fast.transform(texts), plain.transform(texts)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(found.indptr, expected.indptr)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.data, expected.data)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ngram_range": (1, 2)},
        {"ngram_range": (2, 2)},
        {"ngram_range": (1, 2), "min_df": 3, "sublinear_tf": True, "max_features": 7},
        {"ngram_range": (1, 2), "norm": None, "use_idf": False, "dtype": np.float32},
        # Scikit-learn's own way:
        {"ngram_range": (1, 3)},
        {"ngram_range": (1, 2), "lowercase": False},
        {"ngram_range": (1, 2), "stop_words": ["the"]},
        {"ngram_range": (1, 2), "strip_accents": "unicode"},
        {"ngram_range": (1, 2), "token_pattern": r"\w+"},
        {"analyzer": "char_wb", "ngram_range": (1, 2)},
        {"ngram_range": (1, 2), "binary": True},
        {"ngram_range": (2, 2), "vocabulary": ["good", "good soup", "no good tea"]},
    ],
)
def test_the_same_to_the_last_bit(options: dict[str, Any]) -> None:
    fast, plain = both(**options)
    assert_same(fast, plain, NEW)
    assert_same(fast, plain, NEW[::-1] * 900)  # more than are looked up together


@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), min_size=1, max_size=4)
)
@example(["good"])
def test_any_texts(texts: list[str]) -> None:
    fast, plain = both(ngram_range=(1, 2), sublinear_tf=True)
    assert_same(fast, plain, texts)


@pytest.mark.parametrize("length", range(1, 40))
def test_words_of_any_length(length: int) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789_abc"
    word = letters[:length]
    others = [word[:-1], f"{word}z", f"z{word[1:]}", f"{word[:-1]}z", f"{word}\u00e9"]
    training = [f"{word} soup", *(f"{other} tea" for other in others[::2])]
    fast = NgramVectorizer(ngram_range=(1, 2)).fit(training)
    plain = TfidfVectorizer(ngram_range=(1, 2)).fit(training)
    assert_same(fast, plain, [word, f"{word}.{word} soup", *others, f"\u212a{word} {word}"])


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
@example(["a\x00b \x00 ab\x1cab \x7fab", "\u212b\u0130 ab"])
@example(["\u039f\u03a3 ab", "ab\u03a3'\u0391 \u039f\u03a3"])
def test_any_characters(texts: list[str]) -> None:
    training = [*texts, "ab \u212a", "\u0130ab \x00ab"]
    fast = NgramVectorizer(ngram_range=(1, 2)).fit(training)
    plain = TfidfVectorizer(ngram_range=(1, 2)).fit(training)
    assert_same(fast, plain, [*texts, *training])


@given(st.lists(st.text(max_size=30), max_size=6), st.integers(0, 6), st.integers(0, 6))
@example(["\u00e9", "good\u2019s so\u00dfp", "\U0001f600\U0001f600", "", "\u1e9e\u0130"], 0, 5)
@example(["plain", "\u03a3\u03a3 a\u03a3", "seventeen_letters seventeen_letters"], 1, 2)
def test_words_are_those_of_the_pattern(texts: list[str], start: int, size: int) -> None:
    chosen = texts[start : start + size]
    expected = [re.findall(WORD, text.lower()) for text in chosen]
    words = sorted({word for each in expected for word in each})
    known = {word: number for number, word in enumerate(words[::2])}
    whole = pa.array(texts, pa.string())
    chunks = pa.chunked_array([whole[:2], whole[2:2], whole[2:]])
    for given_texts in (whole.slice(start, size), chunks.slice(start, size)):
        numbers, sizes = WordNumbers(known).find(given_texts)
        assert sizes.tolist() == [len(each) for each in expected]
        assert numbers.tolist() == [known.get(word, -1) for each in expected for word in each]


def test_half_a_character_is_left_to_scikit_learn() -> None:
    fast, plain = both(ngram_range=(1, 2))
    assert_same(fast, plain, ["\ud800 good", "good\ud800soup"])


def test_words_whose_numbers_meet_are_told_apart() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789_"
    words = [f"aaaaaaa{one}bbbbbbb{other}" for one in letters for other in letters]
    known, new = words[::2], words[1::2]
    numbers = WordNumbers(dict(zip(known, range(len(known)), strict=True)))
    assert len(numbers._short.mixed) < len(known)
    found, sizes = numbers.find(pa.array([" ".join(known), " ".join(new)]))
    assert sizes.tolist() == [len(known), len(new)]
    assert found.tolist() == [*range(len(known)), *[-1] * len(new)]


def test_a_new_fit_is_a_new_vocabulary() -> None:
    fast, _ = both(ngram_range=(1, 2))
    assert fast.transform(["good soup"]).nnz == 2
    fast.fit(["cold tea"])
    assert fast.transform(["good soup"]).nnz == 0
    assert fast.transform(["cold tea"]).nnz == 3


def test_what_is_looked_up_is_not_in_the_pickle() -> None:
    fast, plain = both(ngram_range=(1, 2))
    before = len(pickle.dumps(fast))
    assert_same(fast, plain, NEW)
    assert len(pickle.dumps(fast)) == before
    assert_same(pickle.loads(pickle.dumps(fast)), plain, NEW)


def test_not_fitted() -> None:
    fast, _ = both()
    with pytest.raises(NotFittedError):
        clone(fast).transform(["good"])


def test_no_text_is_refused_as_scikit_learn_does() -> None:
    for vectorizer in both():
        with pytest.raises(ValueError, match="0 sample"):
            vectorizer.transform([])


def test_texts_in_any_container() -> None:
    fast, plain = both(ngram_range=(1, 2))
    expected = plain.transform(NEW).toarray()
    objects = np.array(NEW, dtype=object)
    series = pd.Series(["left out", *NEW]).iloc[1:]
    for texts in (iter(NEW), tuple(NEW), objects, np.array(NEW), series, series.astype(object)):
        np.testing.assert_array_equal(fast.transform(texts).toarray(), expected)


@pytest.mark.parametrize("texts", ["good soup", ["good", None], ["good", 3]])
def test_what_is_no_text_is_refused_as_scikit_learn_does(texts: Any) -> None:
    said = []
    for vectorizer in both():
        with pytest.raises((ValueError, AttributeError)) as caught:
            vectorizer.transform(texts)
        said.append((caught.type, str(caught.value)))
    assert said[0] == said[1]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_bytes(encoding: str) -> None:
    fast, plain = both(encoding=encoding)
    texts = ["caf\u00e9 soup".encode(), b"good soup"]
    np.testing.assert_array_equal(fast.transform(texts).toarray(), plain.transform(texts).toarray())
