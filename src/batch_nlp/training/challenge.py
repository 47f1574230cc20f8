"""The model in use against the one that is to follow it, on the same held-out rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from batch_nlp.artifact import CURRENT_FILE, Artifact, Registry
from batch_nlp.errors import ArtifactError, InputError
from batch_nlp.predict import predict
from batch_nlp.training.evaluate import CLASSES

RESAMPLES = 2000
"""Draws behind an interval: its ends then move by about a tenth of its width at most."""

_INTERVAL = (0.025, 0.975)
_SAME_FEATURES = ("fingerprint", "vector_fingerprint", "fields")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """How much worse than the model in use a new one may be.

    Parameters
    ----------
    max_drop : float or None, default=0.01
        F1 macro that it may lose on the rows that both are judged by; None puts every model in
        use that passes the thresholds.
    min_rows : int, default=100
        With fewer rows to judge both by there is no comparison.
    seed : int, default=0
        Of the interval.
    """

    max_drop: float | None = 0.01
    min_rows: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_drop is not None and not 0 <= self.max_drop <= 1:
            message = (
                "training.gate.max_drop must be between 0 and 1 (or null for no comparison), got "
                f"{self.max_drop}."
            )
            raise InputError(message)
        if self.min_rows < 1:
            message = f"training.gate.min_rows must be at least 1, got {self.min_rows}."
            raise InputError(message)


@dataclass(frozen=True)
class Comparison:
    """Whether a new model replaces the one in use, and why.

    Attributes
    ----------
    replaces : bool
        Whether the new model is put in use.
    why : str
        In words.
    champion : str or None
        Version of the model in use; None where there is none that can be read.
    n_rows : int
        Held-out rows that both were judged by; 0 where they were not compared.
    n_seen : int
        Held-out rows left out because the model in use was trained on their texts.
    champion_f1_macro, challenger_f1_macro, difference : float or None
        F1 macro of both and the challenger's lead, on those rows.
    low, high : float or None
        Ends of the 95 % interval of `difference` (paired bootstrap over the rows, percentiles).
    """

    replaces: bool
    why: str
    champion: str | None = None
    n_rows: int = 0
    n_seen: int = 0
    champion_f1_macro: float | None = None
    challenger_f1_macro: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give the comparison as plain data."""
        return asdict(self)


def challenge(
    gate: Gate,
    registry: Registry,
    *,
    features: Mapping[str, Any],
    rows: pd.DataFrame,
    texts: pd.Series,
    target: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
) -> Comparison:
    """Compare the model in use with a new one on held-out rows that neither was trained on.

    Parameters
    ----------
    gate : Gate
        What a new model may lose.
    registry : Registry
        Has the model in use.
    features : mapping
        ``fingerprint``, ``vector_fingerprint`` and ``fields`` of the rows' features: a model
        trained on others cannot judge these rows.
    rows : DataFrame of shape (n_rows, n_features)
        The held-out rows, as models take them.
    texts : Series of str of shape (n_rows,)
        Their texts, by which it is known what the model in use was trained on.
    target, predicted : ndarray of int of shape (n_rows,)
        Their classes, and the ones that the new model gives.

    Returns
    -------
    Comparison
        Where both cannot be compared, the new model replaces the old one, and it says why.
    """
    if gate.max_drop is None:
        return Comparison(replaces=True, why="training.gate.max_drop=null asks for no comparison")
    if not (registry.folder / CURRENT_FILE).exists():
        return Comparison(replaces=True, why="there was none before")
    try:
        champion = registry.load()
    except ArtifactError as error:
        return Comparison(replaces=True, why=f"the model in use cannot be read: {error}")
    seen, why = _seen(champion, features, texts)
    unseen = ~seen
    if not why and unseen.sum() < gate.min_rows:
        why = (
            f"{unseen.sum()} held-out rows are new to the model in use, fewer than "
            f"training.gate.min_rows={gate.min_rows}"
        )
    if why:
        return Comparison(replaces=True, why=why, champion=champion.version, n_seen=int(seen.sum()))
    before = predict(champion.model_pipeline, rows[unseen])["prediction"].to_numpy()
    lead, low, high, (old, new) = difference(
        target[unseen], before, predicted[unseen], seed=gate.seed
    )
    if (before == predicted[unseen]).all():
        replaces, why = False, "both give each of these rows the same class"
    elif lead < -gate.max_drop:
        replaces = False
        why = f"it loses more F1 macro than training.gate.max_drop={gate.max_drop:g}"
    else:
        replaces = True
        why = f"it loses no more F1 macro than training.gate.max_drop={gate.max_drop:g}"
    return Comparison(
        replaces=replaces,
        why=why,
        champion=champion.version,
        n_rows=int(unseen.sum()),
        n_seen=int(seen.sum()),
        champion_f1_macro=old,
        challenger_f1_macro=new,
        difference=lead,
        low=low,
        high=high,
    )


def difference(
    target: npt.NDArray[np.int64],
    before: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
    *,
    seed: int,
) -> tuple[float, float, float, tuple[float, float]]:
    """Give how much more F1 macro the second of two sets of labels has, with its interval.

    Parameters
    ----------
    target, before, after : ndarray of int of shape (n_rows,)
        True classes, and the labels of both models for the same rows.
    seed : int
        Of the draws.

    Returns
    -------
    lead, low, high : float
        The difference, and the ends of its 95 % interval.
    both : tuple of float
        F1 macro of `before` and of `after`.

    Notes
    -----
    A bootstrap that draws rows (Efron and Tibshirani 1993, An Introduction to the Bootstrap,
    chapter 13) need not draw them one by one: F1 macro depends on how often each of the 27
    triples of class, first and second label occurs, and those counts are multinomial.

    Examples
    --------
    >>> target = np.array([0, 1, 2] * 40)
    >>> lead, low, high, _ = difference(target, np.zeros(120, dtype=int), target, seed=0)
    >>> round(lead, 3), 0.75 < low < lead < high
    (0.833, True)
    """
    k = len(CLASSES)
    triples = np.bincount((target * k + before) * k + after, minlength=k**3)
    draws = np.random.default_rng(seed).multinomial(
        len(target), triples / len(target), size=RESAMPLES
    )
    tables = np.vstack([triples, draws]).reshape(-1, k, k, k)
    old, new = _f1_macro(tables.sum(axis=3)), _f1_macro(tables.sum(axis=2))
    leads = new - old
    low, high = np.quantile(leads[1:], _INTERVAL)
    return float(leads[0]), float(low), float(high), (float(old[0]), float(new[0]))


def fingerprints(texts: pd.Series) -> npt.NDArray[np.uint64]:
    """Give a number of 64 bits for each text, the same in every process.

    Examples
    --------
    >>> fingerprints(pd.Series(["good", "bad", "good"])).tolist()[::2]
    [3509812042012788487, 3509812042012788487]
    """
    made = b"".join(
        hashlib.blake2b(str(text).encode(errors="surrogatepass"), digest_size=8).digest()
        for text in texts
    )
    return np.frombuffer(made, dtype="<u8").astype(np.uint64)


def _seen(
    champion: Artifact, features: Mapping[str, Any], texts: pd.Series
) -> tuple[npt.NDArray[np.bool_], str]:
    """Tell which rows a model was trained on, or why it cannot judge any."""
    none = np.zeros(len(texts), dtype=bool)
    own = champion.card.get("features", {})
    if any(own.get(name) != features[name] for name in _SAME_FEATURES):
        return none, "the model in use takes features that were made in another way"
    if champion.trained_on is None:
        return none, "the model in use does not say which rows it was trained on"
    return np.isin(fingerprints(texts), champion.trained_on), ""


def _f1_macro(tables: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Give F1 macro of confusion matrices, of shape (n, classes, classes)."""
    hits = np.diagonal(tables, axis1=1, axis2=2)
    either = tables.sum(axis=1) + tables.sum(axis=2)
    scores = np.divide(2 * hits, either, out=np.zeros(hits.shape), where=either > 0)
    means: npt.NDArray[np.float64] = scores.mean(axis=1)
    return means
