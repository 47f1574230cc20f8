"""The gate between a trained model and the one in use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from batch_nlp.errors import GateError, InputError
from batch_nlp.training.evaluate import Evaluation, evaluate
from batch_nlp.training.gate import METRICS, check


@pytest.fixture
def evaluation() -> Evaluation:
    return replace(
        evaluate([0, 1, 2], np.eye(3)),
        f1_weighted=0.7,
        f1_macro=0.312,
        recall_macro=0.3,
        accuracy=0.71,
    )


def test_every_failure_is_listed_and_nothing_else(evaluation: Evaluation) -> None:
    with pytest.raises(GateError) as caught:
        check(evaluation, {"f1_macro": 0.4, "accuracy": 0.7, "recall_macro": 0.35})
    message = str(caught.value)
    assert "f1_macro is 0.312, below training.thresholds.f1_macro 0.400" in message
    assert "recall_macro is 0.300, below training.thresholds.recall_macro 0.350" in message
    assert "accuracy" not in message


def test_the_threshold_itself_is_enough(evaluation: Evaluation) -> None:
    check(evaluation, {"f1_macro": 0.312, "recall_macro": 0.3})
    with pytest.raises(GateError):
        check(evaluation, {"f1_macro": np.nextafter(0.312, 1)})


@pytest.mark.parametrize("metric", METRICS)
def test_not_a_number_is_below(evaluation: Evaluation, metric: str) -> None:
    with pytest.raises(GateError, match=f"{metric} is nan, below"):
        check(replace(evaluation, **{metric: float("nan")}), {metric: 0.0})


def test_a_narrow_failure_is_written_with_enough_digits(evaluation: Evaluation) -> None:
    with pytest.raises(GateError, match=r"f1_macro is 0\.39998, below .* 0\.40000"):
        check(replace(evaluation, f1_macro=0.39998), {"f1_macro": 0.4})


def test_no_threshold_lets_pass(evaluation: Evaluation) -> None:
    check(evaluation, {})
    check(evaluation, {"f1_macro": None})


@pytest.mark.parametrize("threshold", [0.4, None])
def test_an_unknown_metric_names_the_valid_ones(
    evaluation: Evaluation, threshold: float | None
) -> None:
    with pytest.raises(InputError, match=r"'f1_macro'.*got \['f1'\]"):
        check(evaluation, {"f1": threshold})


def test_a_loss_is_no_metric_of_which_more_is_better(evaluation: Evaluation) -> None:
    with pytest.raises(InputError, match="log_loss"):
        check(evaluation, {"log_loss": 0.4})


@pytest.mark.parametrize("threshold", ["0.4", 40, -0.1, float("nan"), True])
def test_a_threshold_is_a_number_between_0_and_1(evaluation: Evaluation, threshold: object) -> None:
    with pytest.raises(InputError, match=r"training\.thresholds\.f1_macro must be a number"):
        check(evaluation, {"f1_macro": threshold})  # type: ignore[dict-item]
