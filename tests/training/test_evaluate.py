"""The measures of a set of predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from batch_nlp.errors import InputError
from batch_nlp.training.evaluate import evaluate

TRUTH = [0, 0, 0, 1, 1, 2, 2, 2, 2, 2]
PREDICTED = [0, 0, 2, 1, 0, 2, 2, 2, 2, 1]


def one_hot(classes: list[int], confidence: float = 0.8) -> np.ndarray:
    rest = (1 - confidence) / 2
    return np.where(np.eye(3)[classes] == 1, confidence, rest)


def test_a_small_table_by_hand() -> None:
    result = evaluate(TRUTH, one_hot(PREDICTED))
    assert result.confusion_matrix == [[2, 0, 1], [1, 1, 0], [0, 1, 4]]
    assert result.n_rows == 10
    assert result.accuracy == 0.7
    assert result.per_class["negative"] == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3}
    )
    assert result.per_class["neutral"] == pytest.approx(
        {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2}
    )
    assert result.per_class["positive"] == pytest.approx(
        {"precision": 4 / 5, "recall": 4 / 5, "f1": 4 / 5, "support": 5}
    )
    assert result.f1_macro == pytest.approx((2 / 3 + 1 / 2 + 4 / 5) / 3)
    assert result.recall_macro == pytest.approx((2 / 3 + 1 / 2 + 4 / 5) / 3)
    assert result.f1_weighted == pytest.approx(0.3 * 2 / 3 + 0.2 * 1 / 2 + 0.5 * 4 / 5)
    assert result.log_loss == pytest.approx(-(7 * np.log(0.8) + 3 * np.log(0.1)) / 10)
    assert result.predicted_shares == {"negative": 0.3, "neutral": 0.2, "positive": 0.5}
    assert result.true_shares == {"negative": 0.3, "neutral": 0.2, "positive": 0.5}


def test_agrees_with_each_metric_on_its_own() -> None:
    rng = np.random.default_rng(3)
    truth = rng.choice(3, 400, p=[0.25, 0.1, 0.65])
    probabilities = rng.dirichlet([1, 1, 1], 400)
    predicted = probabilities.argmax(axis=1)
    result = evaluate(pd.Series(truth, index=range(400, 0, -1)), probabilities)
    assert result.f1_weighted == pytest.approx(
        metrics.f1_score(truth, predicted, average="weighted")
    )
    assert result.f1_macro == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
    assert result.recall_macro == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))
    assert result.log_loss == pytest.approx(metrics.log_loss(truth, probabilities))


def test_a_class_without_rows_is_reported_and_counts_as_zero() -> None:
    result = evaluate([0, 0, 2, 2], one_hot([0, 0, 2, 2]))
    assert result.per_class["neutral"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert result.f1_macro == pytest.approx(2 / 3)
    assert result.recall_macro == pytest.approx(2 / 3)
    assert result.f1_weighted == 1
    assert np.shape(result.confusion_matrix) == (3, 3)
    assert result.predicted_shares["neutral"] == 0


def test_columns_are_placed_by_class() -> None:
    probabilities = one_hot(PREDICTED)
    turned = evaluate(TRUTH, probabilities[:, [2, 0, 1]], classes=[2, 0, 1])
    assert turned == evaluate(TRUTH, probabilities)


def test_a_class_unknown_to_the_classifier_has_probability_zero() -> None:
    result = evaluate([0, 1, 2], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], classes=np.array([0, 2]))
    assert result.confusion_matrix == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert result.log_loss > 10


def test_the_lowest_class_wins_a_tie() -> None:
    result = evaluate([2, 2], [[0.4, 0.2, 0.4], [0.2, 0.4, 0.4]])
    assert result.confusion_matrix[2] == [1, 1, 0]


def test_labels_need_not_be_the_most_probable_classes() -> None:
    probabilities = one_hot(PREDICTED)
    decided = evaluate(TRUTH, probabilities, predicted=pd.Series(TRUTH, index=range(10, 0, -1)))
    most_probable = evaluate(TRUTH, probabilities)
    assert decided.accuracy == decided.f1_macro == 1
    assert decided.predicted_shares == decided.true_shares
    assert decided.log_loss == most_probable.log_loss
    assert decided.reliability == most_probable.reliability
    assert evaluate(TRUTH, probabilities, predicted=PREDICTED) == most_probable


def test_calibration_error_by_hand() -> None:
    # Six rows at 0.8, of which three are right; four at 0.5, on the edge of no bin, all right.
    probabilities = [[0.8, 0.1, 0.1]] * 6 + [[0.2, 0.3, 0.5]] * 4
    result = evaluate([0, 0, 0, 1, 2, 1, 2, 2, 2, 2], probabilities)
    assert [each["rows"] for each in result.reliability] == [4, 6]
    assert [each["accuracy"] for each in result.reliability] == [1, 0.5]
    assert [each["confidence"] for each in result.reliability] == pytest.approx([0.5, 0.8])
    for each in result.reliability:
        assert each["above"] < each["confidence"] <= each["up_to"]
    assert result.expected_calibration_error == pytest.approx((6 * 0.3 + 4 * 0.5) / 10)


def test_certainty_that_is_right_is_calibrated() -> None:
    result = evaluate(TRUTH, np.eye(3)[TRUTH])
    assert result.expected_calibration_error == 0
    assert result.reliability == [
        {"above": 14 / 15, "up_to": 1, "confidence": 1, "accuracy": 1, "rows": 10}
    ]


def test_probabilities_that_tell_the_truth_have_next_to_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    honest = rng.dirichlet([0.5, 0.5, 0.5], 20_000)
    truth = (honest.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    assert evaluate(truth, honest).expected_calibration_error < 0.01
    bold = honest**3 / (honest**3).sum(axis=1, keepdims=True)
    assert evaluate(truth, bold).expected_calibration_error > 0.1


def test_single_precision_probabilities_pass() -> None:
    exact = np.random.default_rng(0).dirichlet([1, 1, 1], 200)
    truth = np.arange(200) % 3
    result = evaluate(truth, exact.astype("float32"))
    assert result.log_loss == pytest.approx(evaluate(truth, exact).log_loss, rel=1e-4)


@pytest.mark.parametrize(
    ("truth", "probabilities", "classes", "says"),
    [
        ([0, 3], [[1, 0, 0]] * 2, (0, 1, 2), r"y_true must hold .*\[0, 1, 2\], got \[3\]"),
        ([0, np.nan], [[1, 0, 0]] * 2, (0, 1, 2), "got .*nan"),
        ([0, 1], [[1, 0, 0]], (0, 1, 2), r"\(2, 3\), got \(1, 3\)"),
        ([0], [[0.5, 0.5]], (0, 1, 2), r"\(1, 3\), got \(1, 2\)"),
        ([0], [[1, 0, 0]], (0, 1, 3), r"classes must be .*got \[0, 1, 3\]"),
        ([0], [[1, 0, 0]], (0, 1, 1), r"classes must be different .*got \[0, 1, 1\]"),
        ([0], [[np.nan, 0, 1]], (0, 1, 2), "lowest of nan"),
        ([0], [[-0.5, 0.5, 1]], (0, 1, 2), "lowest of -0.5"),
        ([0], [[3.0, 1.0, 0.0]], (0, 1, 2), "sums from 4 to 4"),
    ],
)
def test_what_does_not_fit_is_refused(
    truth: list[float], probabilities: list[list[float]], classes: tuple[int, ...], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        evaluate(truth, probabilities, classes=classes)


@pytest.mark.parametrize(
    ("predicted", "says"),
    [
        ([0], r"predicted must have one class per true class, \(2,\), got \(1,\)"),
        ([0, 3], r"predicted must hold classes out of \[0, 1, 2\], got \[3\]"),
    ],
)
def test_labels_that_do_not_fit_are_refused(predicted: list[int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        evaluate([0, 1], np.eye(3)[[0, 1]], predicted=predicted)


def test_no_rows_is_the_users_to_put_right() -> None:
    with pytest.raises(InputError, match="no rows to evaluate on"):
        evaluate([], np.empty((0, 3)))


def test_written_as_json_and_as_a_tidy_table(tmp_path: Path) -> None:
    result = evaluate(TRUTH, one_hot(PREDICTED))
    folder = tmp_path / "08_reporting"
    result.write(folder)

    read = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert read == result.to_dict()
    assert {
        "f1_weighted", "f1_macro", "recall_macro", "log_loss", "per_class", "confusion_matrix"
    } <= set(read)  # fmt: skip
    assert list(read["per_class"]) == ["negative", "neutral", "positive"]

    table = pd.read_parquet(folder / "metrics.parquet")
    assert list(table.columns) == ["metric", "label", "value"]
    assert not table.duplicated(["metric", "label"]).any()
    overall = table[table["label"].isna()].set_index("metric")["value"]
    assert overall.to_dict() == pytest.approx(
        {
            name: read[name]
            for name in (
                "f1_weighted", "f1_macro", "recall_macro", "accuracy", "log_loss", "n_rows",
                "expected_calibration_error",
            )
        }
    )  # fmt: skip
    by_label = table.dropna().pivot_table(index="metric", columns="label", values="value")
    assert by_label.loc["recall", "positive"] == 0.8
    assert by_label.loc["true_share", "neutral"] == 0.2
    assert by_label.loc["predicted_share", "negative"] == 0.3
    assert by_label.loc["predicted_negative", "neutral"] == 1
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.json", "metrics.parquet"]


def test_writing_again_replaces(tmp_path: Path) -> None:
    evaluate(TRUTH, one_hot(PREDICTED)).write(tmp_path)
    better = evaluate(TRUTH, one_hot(TRUTH))
    better.write(tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["accuracy"] == 1
    assert pd.read_parquet(tmp_path / "metrics.parquet").set_index("metric").loc[
        "accuracy", "value"
    ] == 1  # fmt: skip
