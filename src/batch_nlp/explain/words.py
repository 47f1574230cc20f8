"""The margin of a linear model of the text, taken apart into words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import OneToOneFeatureMixin
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import SelectorMixin
from sklearn.pipeline import FeatureUnion, Pipeline

from batch_nlp.explain.contributions import Terms, linear_parts

Piece = tuple[str, float | None]
"""A part of a text and what it adds to a margin; None where no word begins or ends."""


def word_terms(estimator: Any, texts: Sequence[str]) -> list[Terms] | None:
    """Take the margins of a linear model of texts apart into its words.

    Parameters
    ----------
    estimator : classifier
        Fitted; a pipeline of vocabularies and a linear classifier can be taken apart.
    texts : sequence of str of length n_texts
        At least one.

    Returns
    -------
    list of Terms of length n_texts, or None
        Of each text the words and runs of words that it has of the vocabulary; None where the
        model is of another kind.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> model = make_pipeline(CountVectorizer(), LogisticRegression())
    >>> model = model.fit(["so good", "so so", "so bad"], [2, 1, 0])
    >>> terms = word_terms(model, ["bad, bad food"])[0]
    >>> terms.names.tolist(), terms.values.tolist()
    (['bad'], [2.0])
    """
    linear = linear_parts(estimator[-1]) if _counts_words(estimator) else None
    if linear is None:
        return None
    weights, intercepts = linear
    counted = sparse.csr_array(estimator[:-1].transform(texts))
    names = np.asarray(estimator[:-1].get_feature_names_out(), dtype=object)
    margins = np.asarray(estimator[-1].decision_function(counted), dtype="float64")
    found = []
    for row, margin in enumerate(margins):
        here = slice(counted.indptr[row], counted.indptr[row + 1])
        columns, values = counted.indices[here], counted.data[here].astype("float64")
        added = weights[:, columns] * values
        found.append(Terms(names[columns], values, added, intercepts, margin))
    return found


def _counts_words(estimator: Any) -> bool:
    """Tell whether a linear classifier at the end would weigh the words of a vocabulary."""
    return (
        isinstance(estimator, Pipeline)
        and isinstance(estimator[0], CountVectorizer | FeatureUnion)
        and all(
            isinstance(step, SelectorMixin | OneToOneFeatureMixin)
            for _, step in estimator.steps[1:-1]
        )
    )


def shaded(estimator: Any, text: str, added: Mapping[str, float]) -> list[Piece]:
    """Cut a text where its words begin and end, and share out what they add.

    What a run of words adds is shared evenly by the places where it stands, and there by its
    words, so that the pieces have as much in all as the words of the vocabulary.

    Parameters
    ----------
    estimator : Pipeline
        Begins with the vocabulary.
    text : str
        What was read.
    added : mapping of str to float
        What each word and run of words of `text` adds to a margin.

    Returns
    -------
    list of (str, float or None)
        Pieces that make up the text, as its vocabulary reads it where it changes more than the
        case. One piece with None where it does not cut a text into words.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> words = make_pipeline(CountVectorizer(ngram_range=(1, 2)))
    >>> shaded(words, "Not good!", {"good": 1.0, "not good": -3.0})
    [('Not', -1.5), (' ', None), ('good', -0.5), ('!', None)]
    """
    vocabulary = estimator[0]
    cuts = (
        isinstance(vocabulary, CountVectorizer)
        and vocabulary.analyzer == "word"
        and vocabulary.tokenizer is None
        and re.compile(vocabulary.token_pattern).groups == 0
    )
    if not cuts:
        return [(text, None)]
    read = vocabulary.build_preprocessor()
    spans = [each.span() for each in re.finditer(vocabulary.token_pattern, text)]
    words = [read(text[begin:end]) for begin, end in spans]
    if words != vocabulary.build_tokenizer()(read(text)):
        text = read(text)
        spans = [each.span() for each in re.finditer(vocabulary.token_pattern, text)]
        words = [text[begin:end] for begin, end in spans]
    stopped = vocabulary.get_stop_words() or ()
    counted = [place for place, word in enumerate(words) if word not in stopped]
    shares = dict.fromkeys(range(len(words)), 0.0)
    shortest, longest = vocabulary.ngram_range
    runs = [
        counted[first : first + length]
        for length in range(shortest, longest + 1)
        for first in range(len(counted) - length + 1)
    ]
    named = [" ".join(words[place] for place in run) for run in runs]
    times = Counter(named)
    for name, run in zip(named, runs, strict=True):
        for place in run:
            shares[place] += added.get(name, 0.0) / times[name] / len(run)
    pieces: list[Piece] = []
    end = 0
    for (begin, stop), share in zip(spans, shares.values(), strict=True):
        pieces += [(text[end:begin], None)] if begin > end else []
        pieces.append((text[begin:stop], share))
        end = stop
    return [*pieces, (text[end:], None)] if end < len(text) else pieces
