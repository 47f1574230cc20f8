"""How good a classifier is on rows that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from batch_nlp.errors import InputError
from batch_nlp.schemas import LABELS
from batch_nlp.tables import atomic_path, write_json

CLASSES = tuple(range(len(LABELS)))

BINS = 15
"""Bins of equal width in which confidence is held against accuracy."""

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Evaluation:
    """The measures of one set of predictions; every class is always reported.

    Attributes
    ----------
    f1_weighted, f1_macro, recall_macro, accuracy : float
        Between 0 and 1, higher is better. The macro measures weigh the three classes alike, a
        class without rows included (as 0), so they can be compared between sets of rows.
    log_loss : float
        Mean of minus the natural logarithm of the probability given to the true class; lower
        is better.
    expected_calibration_error : float
        How far the probability of the most probable class is from how often that class is the
        true one: the mean over the bins of `reliability`, weighted by their rows, of the
        distance between the two (Naeini et al. 2015, Obtaining Well Calibrated Probabilities
        Using Bayesian Binning, AAAI). 0 is best.
    per_class : dict of str to dict of str to float
        ``precision``, ``recall``, ``f1`` and ``support`` (rows) by the name of the class.
    confusion_matrix : list of list of int, 3 by 3
        Rows are true classes, columns are predicted ones.
    n_rows : int
        Rows judged.
    predicted_shares, true_shares : dict of str to float
        Share of the rows by the name of the class; each sums to 1.
    reliability : list of dict of str to float
        For each of `BINS` bins of equal width that holds rows: the probabilities ``above``
        and ``up_to`` which it lies, the mean ``confidence`` (probability of the most probable
        class), the ``accuracy`` of that class, and ``rows``.
    """

    f1_weighted: float
    f1_macro: float
    recall_macro: float
    accuracy: float
    log_loss: float
    expected_calibration_error: float
    per_class: dict[str, dict[str, float]]
    confusion_matrix: list[list[int]]
    n_rows: int
    predicted_shares: dict[str, float]
    true_shares: dict[str, float]
    reliability: list[dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Give every field by name, in plain Python numbers that JSON can hold."""
        return asdict(self)

    def write(self, folder: Path) -> list[Path]:
        """Write ``metrics.json`` and ``metrics.parquet``, each whole or not at all.

        The table has one row per measure: ``metric`` (str), ``label`` (the class, missing for
        measures of the whole) and ``value`` (float). The confusion matrix is in it as the metrics
        ``predicted_negative`` and so on, counted among the rows whose true class is ``label``.

        Parameters
        ----------
        folder : Path
            Where to; it is made if it is not there.

        Returns
        -------
        list of Path
            The files.
        """
        files = [folder / "metrics.json", folder / "metrics.parquet"]
        write_json(files[0], self.to_dict())
        table = pa.Table.from_pylist(
            [dict(zip(METRICS.names, row, strict=True)) for row in self._rows()], schema=METRICS
        )
        with atomic_path(files[1]) as beside:
            pq.write_table(table, beside)
        return files

    def _rows(self) -> list[tuple[str, str | None, float]]:
        rows: list[tuple[str, str | None, float]] = [
            (name, None, float(value))
            for name, value in self.to_dict().items()
            if isinstance(value, int | float)
        ]
        for label, counts in zip(LABELS, self.confusion_matrix, strict=True):
            rows += [(name, label, value) for name, value in self.per_class[label].items()]
            rows.append(("predicted_share", label, self.predicted_shares[label]))
            rows.append(("true_share", label, self.true_shares[label]))
            rows += [
                (f"predicted_{predicted}", label, float(count))
                for predicted, count in zip(LABELS, counts, strict=True)
            ]
        return rows


METRICS = pa.schema({"metric": pa.string(), "label": pa.string(), "value": pa.float64()})
"""One row for each measure."""


def evaluate(
    y_true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    classes: Sequence[int] = CLASSES,
    predicted: npt.ArrayLike | None = None,
) -> Evaluation:
    """Compare class probabilities, and the labels made of them, with the true classes.

    Parameters
    ----------
    y_true : array-like of int, shape (n_rows,)
        True classes: 0 negative, 1 neutral, 2 positive.
    probabilities : array-like of float, shape (n_rows, len(classes))
        Probability of each class; each row sums to 1.
    classes : sequence of int, default=(0, 1, 2)
        The class of each column, as in a classifier's ``classes_``. A class left out was not
        known to the classifier: its probability counts as 0.
    predicted : array-like of int, shape (n_rows,), optional
        The label of each row; None takes the most probable class, the lowest one on a tie.
        Log loss and calibration are those of the probabilities alone.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        If there are no rows.
    ValueError
        If `y_true`, `probabilities`, `classes` and `predicted` do not fit together, or are no
        classes and no probabilities.

    Examples
    --------
    >>> result = evaluate([0, 2, 2], [[0.8, 0.1, 0.1], [0.2, 0.2, 0.6], [0.5, 0.1, 0.4]])
    >>> result.confusion_matrix
    [[1, 0, 0], [0, 0, 0], [1, 0, 1]]
    >>> round(result.accuracy, 3), result.per_class["positive"]["recall"]
    (0.667, 0.5)
    >>> round(result.expected_calibration_error, 3)
    0.367
    >>> evaluate([0, 3], [[1, 0, 0], [0, 0, 1]])
    Traceback (most recent call last):
    ...
    ValueError: y_true must hold classes out of [0, 1, 2], got [3] as well.
    """
    truth = np.asarray(y_true)
    probability = _by_class(np.asarray(probabilities, dtype="float64"), classes, len(truth))
    _check_classes(truth, "y_true")
    label = probability.argmax(axis=1) if predicted is None else np.asarray(predicted)
    if label.shape != truth.shape:
        message = f"predicted must have one class per true class, {truth.shape}, got {label.shape}."
        raise ValueError(message)
    _check_classes(label, "predicted")

    counts = confusion_matrix(truth, label, labels=CLASSES)
    measures = dict(
        zip(("precision", "recall", "f1"), class_scores(truth, label, None), strict=True)
    )
    support = counts.sum(axis=1)
    reliability = _reliability(truth, probability)
    return Evaluation(
        f1_weighted=float(class_scores(truth, label, "weighted")[2]),
        f1_macro=float(measures["f1"].mean()),
        recall_macro=float(measures["recall"].mean()),
        accuracy=float(np.trace(counts) / len(truth)),
        log_loss=float(log_loss(truth, probability, labels=CLASSES)),
        expected_calibration_error=sum(
            each["rows"] * abs(each["confidence"] - each["accuracy"]) for each in reliability
        )
        / len(truth),
        per_class={
            name: {measure: float(values[i]) for measure, values in measures.items()}
            | {"support": int(support[i])}
            for i, name in enumerate(LABELS)
        },
        confusion_matrix=counts.tolist(),
        n_rows=len(truth),
        predicted_shares=_shares(counts.sum(axis=0)),
        true_shares=_shares(support),
        reliability=reliability,
    )


def class_scores(truth: npt.NDArray[Any], label: npt.NDArray[Any], average: str | None) -> Any:
    """Give precision, recall and F1, of each class in order, or one number each by `average`."""
    return precision_recall_fscore_support(
        truth, label, labels=CLASSES, average=average, zero_division=0
    )[:3]


def _shares(counts: npt.NDArray[np.int64]) -> dict[str, float]:
    return dict(zip(LABELS, (counts / counts.sum()).tolist(), strict=True))


def _reliability(
    truth: npt.NDArray[Any], probability: npt.NDArray[np.float64]
) -> list[dict[str, float]]:
    confidence = probability.max(axis=1)
    right = probability.argmax(axis=1) == truth
    # A probability on an edge belongs to the bin below it.
    number = np.ceil(confidence * BINS).astype("int64") - 1
    return [
        {
            "above": each / BINS,
            "up_to": (each + 1) / BINS,
            "confidence": float(confidence[number == each].mean()),
            "accuracy": float(right[number == each].mean()),
            "rows": int((number == each).sum()),
        }
        for each in np.unique(number).tolist()
    ]


def _check_classes(values: npt.NDArray[Any], name: str) -> None:
    strangers = sorted(set(values.tolist()) - set(CLASSES))
    if strangers:
        message = f"{name} must hold classes out of {list(CLASSES)}, got {strangers} as well."
        raise ValueError(message)


def _by_class(
    probabilities: npt.NDArray[np.float64], classes: Sequence[int], n_rows: int
) -> npt.NDArray[np.float64]:
    """Give one column per class, each row summing to 1 in double precision."""
    if n_rows == 0:
        message = "There are no rows to evaluate on: hold out a larger share, or give more data."
        raise InputError(message)
    columns = [int(number) for number in classes]
    if len(set(columns)) != len(columns) or not set(columns) <= set(CLASSES):
        message = f"classes must be different ones out of {list(CLASSES)}, got {columns}."
        raise ValueError(message)
    if probabilities.shape != (n_rows, len(columns)):
        message = (
            f"probabilities must have one row per true class and one column per class, "
            f"{(n_rows, len(columns))}, got {probabilities.shape}."
        )
        raise ValueError(message)
    sums = probabilities.sum(axis=1, keepdims=True)
    # The comparisons are written so that NaN fails them.
    if not ((probabilities >= 0).all() and (abs(sums - 1) <= _SUM_TOLERANCE).all()):
        message = (
            "probabilities must be at least 0 and sum to 1 in each row, got "
            f"a lowest of {probabilities.min():.3g} and sums from {sums.min():.6g} to "
            f"{sums.max():.6g}."
        )
        raise ValueError(message)
    placed = np.zeros((n_rows, len(CLASSES)))
    placed[:, columns] = probabilities / sums
    return placed
