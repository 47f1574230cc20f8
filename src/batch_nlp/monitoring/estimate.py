"""F1 without labels: what calibrated probabilities say about how often the labels are right.

Confidence-based performance estimation (Garg et al. 2022, Leveraging Unlabeled Data to Predict
Out-of-Distribution Performance, ICLR; the estimator of NannyML, CBPE): where probabilities are
calibrated, a row labelled `k` is of class `j` with its probability of `j`, so the sums of the
probabilities by label are the confusion matrix that is to be expected. The label is the one that
was delivered, which need not be the most probable class.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from batch_nlp.schemas import LABELS

N_CLASSES = len(LABELS)
MEASURES = ("f1_macro", "f1_weighted", "accuracy")

LEVEL = 0.95
"""Of the intervals."""

_DRAWS = 2000
_SEED = 0

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Expected:
    """Sums over rows from which a confusion matrix can be expected; they add up.

    Attributes
    ----------
    counts : ndarray of int of shape (3,)
        Rows by label.
    sums : ndarray of shape (3, 3)
        By label, the sum of the probabilities of each class.
    products : ndarray of shape (3, 3, 3)
        By label, the sum of the outer products of the probabilities with themselves.
    """

    counts: npt.NDArray[np.int64]
    sums: Matrix
    products: Matrix

    @classmethod
    def of(cls, predicted: npt.NDArray[np.int64], probabilities: Matrix) -> Expected:
        """Sum over rows.

        Parameters
        ----------
        predicted : ndarray of int of shape (n_rows,)
            The label of each row.
        probabilities : ndarray of float of shape (n_rows, 3)
            Each row sums to 1.
        """
        labelled = np.eye(N_CLASSES)[predicted]
        return cls(
            counts=np.bincount(predicted, minlength=N_CLASSES),
            sums=labelled.T @ probabilities,
            products=np.einsum("nk,ni,nj->kij", labelled, probabilities, probabilities),
        )

    def __add__(self, other: Expected) -> Expected:
        return Expected(
            self.counts + other.counts, self.sums + other.sums, self.products + other.products
        )

    @property
    def moments(self) -> tuple[int, Matrix, Matrix]:
        """Rows, and the mean and the covariance of their probabilities."""
        n = int(self.counts.sum())
        mean = self.sums.sum(axis=0) / n
        return n, mean, self.products.sum(axis=0) / n - np.outer(mean, mean)

    @property
    def covariances(self) -> Matrix:
        """By label, the covariance of the numbers of rows of each class; shape (3, 3, 3)."""
        return np.asarray([np.diag(each) for each in self.sums]) - self.products


@dataclass(frozen=True)
class Estimate:
    """A measure without labels.

    Attributes
    ----------
    value : float
        What is to be expected.
    low, high : float
        Between them it lies with a probability of `LEVEL`, if the probabilities of these rows
        are as right as those of the rows that training held out.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Give plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Calibration:
    """How right the probabilities were on the rows that training held out.

    Attributes
    ----------
    expected : Expected
        Of those rows.
    confusion : ndarray of int of shape (3, 3)
        What they turned out to be; rows are true classes, columns are labels.
    """

    expected: Expected
    confusion: npt.NDArray[np.int64]

    def shifts(self) -> tuple[Matrix, Matrix]:
        """Give by label how far the share of each class was from its mean probability.

        Returns
        -------
        means : ndarray of shape (3, 3)
        covariances : ndarray of shape (3, 3, 3)
            Of those means.
        """
        rows = np.maximum(self.expected.counts, 1)
        means = (self.confusion.T - self.expected.sums) / rows[:, None]
        return means, self.expected.covariances / (rows**2)[:, None, None]


def estimate(batch: Expected, calibration: Calibration) -> dict[str, Estimate]:
    """Estimate F1 and accuracy of rows that have no labels.

    The expected confusion matrix is moved by what the probabilities were off on the rows that
    training held out, so that the estimate for those very rows is what was measured on them. The
    interval comes from draws of both the classes of the rows (their counts by label are sums of
    independent draws, near a normal distribution) and of that correction.

    Parameters
    ----------
    batch : Expected
        Of the rows.
    calibration : Calibration
        Of the rows that training held out.

    Returns
    -------
    dict of str to Estimate
        By the names in `MEASURES`; each between 0 and 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> probabilities = rng.dirichlet([1, 0.5, 2], size=1000)
    >>> true = (rng.random((1000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    >>> predicted = probabilities.argmax(axis=1)
    >>> confusion = np.zeros((3, 3), dtype=int)
    >>> np.add.at(confusion, (true, predicted), 1)
    >>> expected = Expected.of(predicted, probabilities)
    >>> found = estimate(expected, Calibration(expected, confusion))["accuracy"]
    >>> bool(np.isclose(found.value, (true == predicted).mean())), found.low < found.value
    (True, True)
    """
    rng = np.random.default_rng(_SEED)
    shift, uncertainty = calibration.shifts()
    n = batch.counts[:, None]
    by_label = batch.sums + n * shift
    spread = batch.covariances + uncertainty * (batch.counts**2)[:, None, None]
    draws = np.stack(
        [
            rng.multivariate_normal(
                mean, covariance, size=_DRAWS, method="eigh", check_valid="ignore"
            )
            for mean, covariance in zip(by_label, spread, strict=True)
        ]
    )
    points = _scores(_within(by_label, n)[:, None])
    drawn = _scores(_within(draws, n[:, None]))
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    found = {}
    for name in MEASURES:
        low, high = np.quantile(drawn[name], tails)
        value = float(points[name][0])
        found[name] = Estimate(value, min(value, float(low)), max(value, float(high)))
    return found


def _within(by_label: Matrix, n: Matrix | npt.NDArray[np.int64]) -> Matrix:
    """Bring counts back to what is possible: none below 0, and all rows of a label."""
    positive = np.clip(by_label, 0, None)
    total = positive.sum(axis=-1, keepdims=True)
    return np.asarray(positive * np.divide(n, total, out=np.zeros_like(total), where=total > 0))


def _scores(by_label: Matrix) -> dict[str, Matrix]:
    """Give the measures of confusion matrices of shape (label, draw, class)."""
    right = np.stack([by_label[k, :, k] for k in range(N_CLASSES)], axis=-1)
    labelled, true = by_label.sum(axis=-1).T, by_label.sum(axis=0)
    sizes = labelled + true
    f1 = np.divide(2 * right, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    total = np.maximum(true.sum(axis=-1), 1e-12)
    return {
        "f1_macro": f1.mean(axis=-1),
        "f1_weighted": (f1 * true).sum(axis=-1) / total,
        "accuracy": right.sum(axis=-1) / total,
    }
