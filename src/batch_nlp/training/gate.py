"""The gate between a trained model and the one in use."""

from __future__ import annotations

from collections.abc import Mapping

from batch_nlp.errors import GateError, InputError
from batch_nlp.training.evaluate import Evaluation

METRICS = ("f1_weighted", "f1_macro", "recall_macro", "accuracy")
"""What a threshold can be set on: the measures between 0 and 1 of which more is better."""


def limits(thresholds: Mapping[str, float | None]) -> dict[str, float]:
    """Give the thresholds that are set.

    Parameters
    ----------
    thresholds : mapping of str to float or None
        As in `check`.

    Raises
    ------
    InputError
        If a metric is not known or a threshold is not a number between 0 and 1.
    """
    unknown = [metric for metric in thresholds if metric not in METRICS]
    if unknown:
        message = f"training.thresholds must name metrics out of {list(METRICS)}, got {unknown}."
        raise InputError(message)
    return {
        metric: _limit(metric, threshold)
        for metric, threshold in thresholds.items()
        if threshold is not None
    }


def check(evaluation: Evaluation, thresholds: Mapping[str, float | None]) -> None:
    """Refuse a model that is below a threshold.

    Parameters
    ----------
    evaluation : Evaluation
        Of the model, on rows that it has not seen.
    thresholds : mapping of str to float or None
        The least value allowed (itself included) by metric, out of `METRICS`; None sets no
        threshold.

    Raises
    ------
    GateError
        If a metric is below its threshold or is not a number; the message lists every such one.
    InputError
        If a metric is not known or a threshold is not a number between 0 and 1.

    Examples
    --------
    >>> from batch_nlp.training.evaluate import evaluate
    >>> result = evaluate([0, 1, 2], [[1, 0, 0], [0, 1, 0], [1, 0, 0]])
    >>> check(result, {"accuracy": 0.6})
    >>> check(result, {"accuracy": 0.6, "f1_macro": 0.75})
    Traceback (most recent call last):
    ...
    batch_nlp.errors.GateError: The model is not good enough to be put in use, and nothing is \
replaced: f1_macro is 0.556, below training.thresholds.f1_macro 0.750.
    """
    # "Not at least" and not "below", so that NaN fails.
    failures = [
        _failure(metric, value, limit)
        for metric, limit in limits(thresholds).items()
        if not (value := float(getattr(evaluation, metric))) >= limit
    ]
    if failures:
        message = (
            f"The model is not good enough to be put in use, and nothing is replaced: "
            f"{'; '.join(failures)}."
        )
        raise GateError(message)


def _limit(metric: str, threshold: float) -> float:
    # The configuration gives whatever was typed there.
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not number or not 0 <= threshold <= 1:
        message = (
            f"training.thresholds.{metric} must be a number between 0 and 1 (or null for no "
            f"threshold), got {threshold!r}."
        )
        raise InputError(message)
    return float(threshold)


def _failure(metric: str, value: float, limit: float) -> str:
    # As many digits as tell the two apart: "0.400, below 0.400" would explain nothing.
    digits = next((n for n in range(3, 17) if f"{value:.{n}f}" != f"{limit:.{n}f}"), 17)
    return f"{metric} is {value:.{digits}f}, below training.thresholds.{metric} {limit:.{digits}f}"
