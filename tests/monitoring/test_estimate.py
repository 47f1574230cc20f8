"""F1 without labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from batch_nlp.monitoring.estimate import MEASURES, Calibration, Expected, estimate

Rows = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]


def drawn(rng: np.random.Generator, n: int, sharpness: tuple[float, ...] = (1, 0.5, 2)) -> Rows:
    """Draw true classes, labels that are no argmax, and probabilities that are right."""
    probabilities = rng.dirichlet(sharpness, size=n)
    true = (rng.random((n, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return true, (probabilities * [1.0, 1.8, 1.0]).argmax(axis=1), probabilities


def calibration(rows: Rows) -> Calibration:
    true, predicted, probabilities = rows
    confusion = confusion_matrix(true, predicted, labels=range(3))
    return Calibration(Expected.of(predicted, probabilities), confusion)


def measured(rows: Rows) -> dict[str, float]:
    true, predicted, _ = rows
    return {
        "f1_macro": f1_score(true, predicted, average="macro", labels=range(3), zero_division=0),
        "f1_weighted": f1_score(true, predicted, average="weighted"),
        "accuracy": accuracy_score(true, predicted),
    }


def test_for_the_rows_held_out_it_is_what_was_measured() -> None:
    rows = drawn(np.random.default_rng(0), 800)
    known = calibration(rows)
    found = estimate(known.expected, known)
    assert {name: found[name].value for name in MEASURES} == pytest.approx(measured(rows))


def test_the_interval_holds_what_is_measured_later_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(100):
        # Another mixture of messages than the one held out: harder ones, other classes.
        known, rows = calibration(drawn(rng, 600)), drawn(rng, 300, (2, 2, 2))
        found = estimate(Expected.of(*rows[1:]), known)["f1_macro"]
        inside.append(found.low <= measured(rows)["f1_macro"] <= found.high)
    assert 0.89 <= np.mean(inside) <= 0.99


def test_sure_probabilities_leave_no_doubt_but_that_of_the_calibration() -> None:
    predicted = np.array([0, 1, 2, 2] * 50)
    rows = (predicted, predicted, np.eye(3)[predicted])
    found = estimate(calibration(rows).expected, calibration(rows))["f1_macro"]
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_parts_add_up() -> None:
    _, predicted, probabilities = drawn(np.random.default_rng(2), 90)
    whole = Expected.of(predicted, probabilities)
    parts = [Expected.of(predicted[part], probabilities[part]) for part in (slice(7), slice(7, 90))]
    both = parts[0] + parts[1]
    for name in ("counts", "sums", "products"):
        np.testing.assert_allclose(getattr(both, name), getattr(whole, name))


def test_a_label_that_nobody_got_is_no_hindrance() -> None:
    predicted = np.array([2] * 40)
    probabilities = np.tile([0.1, 0.2, 0.7], (40, 1))
    found = estimate(
        Expected.of(predicted, probabilities), calibration(drawn(np.random.default_rng(3), 400))
    )
    assert 0 < found["f1_macro"].low <= found["f1_macro"].value < 1 / 3
