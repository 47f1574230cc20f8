"""One message taken apart: its label, and the sums behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.pipeline import Pipeline

from batch_nlp.errors import BatchNlpError
from batch_nlp.explain.contributions import (
    OTHER,
    SENTENCES,
    TOLERANCE,
    WORDS,
    Numbers,
    Terms,
    feature_contributions,
    feature_groups,
    text_steps,
)
from batch_nlp.explain.page import Message, Sum
from batch_nlp.explain.words import Piece, shaded, word_terms
from batch_nlp.predict import PROBABILITIES, predict
from batch_nlp.schemas import LABELS

CLASSIFIER = "classifier"
"""What the table calls the model that gives the label, beside those of the text alone."""


@dataclass(frozen=True)
class Scored:
    """A text that a step of the model has scored, and its words.

    Parameters
    ----------
    text : str
        What was read.
    terms : Terms or None
        None where the step's model is not linear in words.
    classes : ndarray of shape (n_scores,)
        What is scored, in the order of the sums: classes, or stars.
    class_of : ndarray of shape (n_scores,)
        The class that each belongs to.
    """

    text: str
    terms: Terms | None
    classes: npt.NDArray[np.int64]
    class_of: npt.NDArray[np.int64]

    def nearest(self, terms: Terms, label: int) -> tuple[int, str]:
        """Give the position and the name of the score that speaks for a class most."""
        own = np.flatnonzero(self.class_of == label)
        position = int(own[terms.margin[own].argmax()])
        if np.array_equal(self.classes, self.class_of):
            return position, LABELS[label]
        return position, f"{self.classes[position]} stars"


@dataclass(frozen=True)
class Explained:
    """One message with its label, and the sums behind it.

    Parameters
    ----------
    id : str
        Of the message.
    prediction : int
        The predicted class.
    probabilities : ndarray of shape (3,)
        Of each class, calibrated.
    classes : ndarray of shape (n_classes,)
        That the model knows, in the order of the sums.
    features : Terms
        The classifier's.
    words : mapping of str to Scored
        For each step that scores a text.
    """

    id: str
    prediction: int
    probabilities: Numbers
    classes: npt.NDArray[np.int64]
    features: Terms
    words: Mapping[str, Scored]

    @property
    def gap(self) -> float:
        """How far a sum is from its margin, at most."""
        return max(terms.gap for _, _, _, terms in self._sums())

    def _sums(self) -> Iterator[tuple[str, str, npt.NDArray[np.int64], Terms]]:
        yield CLASSIFIER, "feature", self.classes, self.features
        for name, scored in self.words.items():
            if scored.terms is not None:
                yield name, "word", scored.classes, scored.terms

    def table(self) -> pd.DataFrame:
        """Give the sums of every class, with the columns of `EXPLANATIONS`."""
        frames = [
            pd.DataFrame(
                {
                    "id": self.id,
                    "class": number,
                    "model": model,
                    "part": ["base", *[part] * len(terms.names), "margin"],
                    "name": [None, *terms.names, None],
                    "value": [np.nan, *terms.values, np.nan],
                    "contribution": [base, *added, margin],
                }
            )
            for model, part, classes, terms in self._sums()
            for number, base, added, margin in zip(
                classes, terms.base, terms.contributions, terms.margin, strict=True
            )
        ]
        return pd.concat(frames, ignore_index=True)

    def shown(self, model: Pipeline, top: int) -> Message:
        """Give what the page says of the message.

        Parameters
        ----------
        model : Pipeline
            That was explained.
        top : int
            Words, and features of each kind, at most.
        """
        position = int(np.flatnonzero(self.classes == self.prediction)[0])
        label = LABELS[self.prediction]
        pieces, notes, sums = self._text(model, top)
        if self.probabilities.argmax() != self.prediction:
            likeliest = LABELS[int(self.probabilities.argmax())]
            why = "the label is decided so that the classes are predicted as often as they occur."
            notes = [f"{likeliest} is more probable: {why}", *notes]
        groups = feature_groups(model, [str(name) for name in self.features.names])
        of = np.array([groups[str(name)] for name in self.features.names], dtype=object)
        parts = []
        for heading in (WORDS, SENTENCES, OTHER):
            terms = self.features.only(of == heading)
            if len(terms.names):
                # One dimension of a vector says nothing by itself.
                strongest = [] if heading == SENTENCES else terms.strongest(position, top)
                parts.append((heading, float(terms.contributions[position].sum()), strongest))
        base, margin = float(self.features.base[position]), float(self.features.margin[position])
        sums = [*sums, Sum(f"Features, for {label}", parts, base, margin)]
        return Message(self.id, label, self.probabilities.tolist(), pieces, notes, sums)

    def _text(self, model: Pipeline, top: int) -> tuple[list[Piece], list[str], list[Sum]]:
        """Give the text with its words shaded, notes on it, and the sums of its words."""
        pieces: list[Piece] = []
        notes: list[str] = []
        sums: list[Sum] = []
        for name, scored in self.words.items():
            text, terms = scored.text, scored.terms
            if terms is None:
                notes.append(f"The scores of the step {name!r} cannot be taken apart into words.")
                pieces = pieces or [(text, None)]
                continue
            position, of = scored.nearest(terms, self.prediction)
            added = dict(zip(terms.names, terms.contributions[position], strict=True))
            if not any(share is not None for _, share in pieces):
                pieces = shaded(text_steps(model)[name].estimator_, text, added)
            if not added:
                notes.append(f"No word of the text is in the vocabulary of the step {name!r}.")
            strongest = terms.strongest(position, top)
            total = float(terms.contributions[position].sum())
            heading = f"{len(terms.names):,} known, {len(strongest):,} shown"
            base, margin = float(terms.base[position]), float(terms.margin[position])
            title = f"Words, for {of} (step {name!r})"
            sums.append(Sum(title, [(heading, total, strongest)], base, margin))
        if not "".join(text for text, _ in pieces).strip():
            notes.append("Nothing is left of the text after cleaning.")
        return pieces, notes, sums


def explain(model: Pipeline, ids: Sequence[str], features: pd.DataFrame) -> list[Explained]:
    """Take the labels of some messages apart.

    Parameters
    ----------
    model : Pipeline
        Fitted.
    ids : sequence of str of length n_rows
        Of the messages.
    features : DataFrame of length n_rows
        What the feature pipeline made of them, at least one row.

    Returns
    -------
    list of Explained of length n_rows

    Raises
    ------
    InputError
        If the classifier is neither XGBoost's nor linear.
    BatchNlpError
        If a sum does not come to its margin.
    """
    terms = feature_contributions(model, features).terms()
    predicted = predict(model, features)
    texts = {
        name: features[step.column].fillna("").tolist() for name, step in text_steps(model).items()
    }
    steps = text_steps(model)
    words = {name: word_terms(steps[name].estimator_, texts[name]) for name in texts}
    explained = [
        Explained(
            id=str(each),
            prediction=int(predicted["prediction"].iloc[row]),
            probabilities=predicted[PROBABILITIES].iloc[row].to_numpy(),
            classes=np.asarray(model.classes_),
            features=terms[row],
            words={
                name: Scored(
                    text=texts[name][row],
                    terms=None if found is None else found[row],
                    classes=steps[name].classes_,
                    class_of=steps[name].class_of_,
                )
                for name, found in words.items()
            },
        )
        for row, each in enumerate(ids)
    ]
    missed = float(np.max([each.gap for each in explained]))
    if not missed <= TOLERANCE:
        message = (
            f"Contributions must add up to the margins within {TOLERANCE:g}; they miss one by "
            f"{missed:.2g}, so nothing is explained."
        )
        raise BatchNlpError(message)
    return explained
