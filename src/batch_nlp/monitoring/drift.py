"""How far apart two sets of rows are: counts in bins, and means of random features.

Every distance comes with what chance alone would make of it, so that a small batch does not look
like a changed one.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, rel_entr

Counts = npt.NDArray[np.int64]

N_BINS = 10
"""Bins of a number: the tenths of the training rows, as is usual for the stability index."""

N_FREQUENCIES = 64
"""Random frequencies, each of which gives a cosine and a sine."""

_FLAT = 1e-9
"""Variance that counts as none."""

_HALF = 0.5
"""Rows added to every bin, so that an empty one has a logarithm (Jeffreys 1946)."""


@dataclass(frozen=True)
class Drift:
    """How far a batch is from the reference in one measure.

    Attributes
    ----------
    psi : float
        Population stability index, less what chance is expected to make; at least 0.
    js : float
        Jensen-Shannon distance (base 2, 0 to 1), less the same; at least 0.
    p_value : float
        How often chance alone would give a difference as large as this.
    """

    psi: float
    js: float
    p_value: float


def drift(reference: Counts, batch: Counts) -> Drift:
    r"""Compare the counts of two sets of rows in the same bins.

    The population stability index is :math:`\sum_i (q_i - p_i) \ln(q_i / p_i)` (Siddiqi 2006,
    Credit Risk Scorecards). Where nothing has changed it is distributed as
    :math:`(1/n + 1/m)\,\chi^2_{B-1}` for `B` bins and `n` and `m` rows (Yurdakul and Naranjo 2020,
    Statistical Properties of the Population Stability Index, Journal of Risk Model Validation
    14), so :math:`(B - 1)(1/n + 1/m)` is taken off. The Jensen-Shannon distance is the square
    root of the divergence (Lin 1991, IEEE Transactions on Information Theory 37; Endres and
    Schindelin 2003), which for small changes is :math:`PSI / (8 \ln 2)` bits, so its share of the
    same is taken off the divergence. The p-value is that of Pearson's chi-squared test of two
    binned samples, which bins with few rows disturb less.

    Parameters
    ----------
    reference, batch : ndarray of int of shape (n_bins,)
        Rows in each bin. Bins that are empty in both do not count.

    Returns
    -------
    Drift

    Examples
    --------
    >>> same = drift(np.array([100, 300]), np.array([11, 29]))
    >>> same.psi, same.p_value > 0.5
    (0.0, True)
    >>> other = drift(np.array([100, 300]), np.array([200, 200]))
    >>> round(other.psi, 2), round(other.js, 2), other.p_value < 1e-6
    (0.27, 0.22, True)
    """
    used = (reference + batch) > 0
    a, b = reference[used].astype("float64"), batch[used].astype("float64")
    n, m = a.sum(), b.sum()
    if len(a) < 2 or not n or not m:
        return Drift(0.0, 0.0, 1.0)
    p, q = (a + _HALF) / (n + _HALF * len(a)), (b + _HALF) / (m + _HALF * len(b))
    chance = (len(a) - 1) * (1 / n + 1 / m)
    psi = float(((q - p) * np.log(q / p)).sum()) - chance
    middle = (p + q) / 2
    bits = (rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / (2 * np.log(2))
    divergence = bits - chance / (8 * np.log(2))
    statistic = ((np.sqrt(m / n) * a - np.sqrt(n / m) * b) ** 2 / (a + b)).sum()
    return Drift(
        psi=float(max(0.0, psi)),
        js=float(np.sqrt(max(0.0, divergence))),
        p_value=float(chdtrc(len(a) - 1, statistic)),
    )


def tenths(values: npt.NDArray[np.float64]) -> list[float]:
    """Give the edges of bins that hold about a tenth of the values each.

    A value that is so frequent that it is an edge twice gets a bin of its own, so that zeros
    and ones are told apart whichever is rare.

    Parameters
    ----------
    values : ndarray of float of shape (n_rows,)
        Missing ones do not count.

    Returns
    -------
    list of float
        Ascending; a bin reaches from above one edge up to the next, included. Empty where there
        is no value.

    Examples
    --------
    >>> tenths(np.arange(101.0))
    [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0]
    >>> binned(np.array([0.0, 1.0, np.nan]), tenths(np.array([1.0] * 99 + [0.0]))).tolist()
    [0, 1, 3]
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return []
    # One of the values, so that a frequent one is met exactly.
    found = np.quantile(known, np.arange(1, N_BINS) / N_BINS, method="lower")
    edges, times = np.unique(found, return_counts=True)
    below = np.nextafter(edges[times > 1], -np.inf)
    return [float(edge) for edge in np.unique(np.concatenate([edges, below]))]


def binned(values: npt.NDArray[np.float64], edges: Sequence[float]) -> Counts:
    """Give the bin of each value; a missing one is in the last, ``len(edges) + 1``."""
    codes = np.searchsorted(np.asarray(edges), values, side="left")
    return np.where(np.isnan(values), len(edges) + 1, codes)


@dataclass(frozen=True)
class RandomFeatures:
    """Vectors to cosines and sines of random projections, whose means tell distributions apart.

    The inner product of two rows of features comes near a Gaussian kernel of the vectors (Rahimi
    and Recht 2007, Random Features for Large-Scale Kernel Machines, NeurIPS), so the distance of
    two means is the maximum mean discrepancy (Gretton et al. 2012, A Kernel Two-Sample Test,
    Journal of Machine Learning Research 13), at a cost that does not grow with the rows.

    Attributes
    ----------
    frequencies : ndarray of float32 of shape (n_dims, N_FREQUENCIES)
        Drawn once, in training, and divided by the kernel's width.
    """

    frequencies: npt.NDArray[np.float32]

    @classmethod
    def drawn(cls, vectors: npt.NDArray[np.float32], seed: int = 0) -> RandomFeatures:
        """Draw the frequencies, the kernel as wide as the median distance of the vectors.

        Parameters
        ----------
        vectors : ndarray of shape (n_rows, n_dims)
            Reference rows. Each dimension is scaled by its standard deviation; one that does not
            vary is left out.
        seed : int, default=0
            Of the draw.
        """
        rng = np.random.default_rng(seed)
        deviation = vectors.std(axis=0, dtype="float64")
        scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        pairs = rng.integers(len(vectors), size=(2, 2000))
        apart = (vectors[pairs[0]] - vectors[pairs[1]]) * scale
        lengths = np.sqrt((apart**2).sum(axis=1))
        width = float(np.median(lengths[lengths > 0])) if (lengths > 0).any() else 1.0
        normal = rng.standard_normal((vectors.shape[1], N_FREQUENCIES))
        return cls((normal * scale[:, None] / width).astype("float32"))

    def __call__(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Give the features of vectors; shape (n_rows, 2 * N_FREQUENCIES)."""
        angles = vectors @ self.frequencies
        waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
        return np.asarray(waves / np.sqrt(N_FREQUENCIES), dtype="float32")

    def to_dict(self) -> dict[str, Any]:
        """Give plain data: the shape, and the numbers as base64 of little-endian float32."""
        content = self.frequencies.astype("<f4").tobytes()
        return {"n_dims": len(self.frequencies), "float32": base64.b64encode(content).decode()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> RandomFeatures:
        """Read it back."""
        flat = np.frombuffer(base64.b64decode(plain["float32"]), "<f4")
        return cls(flat.reshape(plain["n_dims"], N_FREQUENCIES).astype("float32"))


@dataclass(frozen=True)
class MeanDrift:
    """How far the means of random features are apart.

    Attributes
    ----------
    distance : float
        Squared distance less what chance is expected to make, as a share of the variance of the
        reference rows; at least 0.
    p_value : float
        How often chance alone would give a distance as large as this.
    """

    distance: float
    p_value: float


def mean_drift(
    reference: npt.NDArray[np.float64],
    n_reference: int,
    batch: npt.NDArray[np.float64],
    n_batch: int,
    *,
    variance: float,
    squared: float,
) -> MeanDrift:
    r"""Compare two means of random features.

    Where nothing has changed, the squared distance is a weighted sum of :math:`\chi^2_1` whose
    weights are :math:`1/n + 1/m` times the eigenvalues of the features' covariance. Its first two
    moments need the trace of the covariance and of its square alone, and a scaled
    :math:`\chi^2` with these moments stands for it (Satterthwaite 1946, Biometrics Bulletin 2).

    Parameters
    ----------
    reference, batch : ndarray of float of shape (n_features,)
        The means.
    n_reference, n_batch : int
        Rows that each is the mean of.
    variance, squared : float
        Traces of the covariance of the reference rows, and of its square.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows, more = rng.normal(size=(500, 4)), rng.normal(size=(100, 4))
    >>> spread = {"variance": 4.0, "squared": 4.0}
    >>> mean_drift(rows.mean(0), 500, more.mean(0), 100, **spread).p_value > 0.05
    True
    >>> moved = mean_drift(rows.mean(0), 500, more.mean(0) + 0.5, 100, **spread)
    >>> round(moved.distance, 1), moved.p_value < 1e-6
    (0.3, True)
    """
    if variance <= 0 or not n_reference or not n_batch:
        return MeanDrift(0.0, 1.0)
    apart = float(((reference - batch) ** 2).sum())
    chance = 1 / n_reference + 1 / n_batch
    scale = chance * squared / variance
    return MeanDrift(
        distance=max(0.0, apart / variance - chance),
        p_value=float(chdtrc(variance**2 / squared, apart / scale)),
    )


def shift(
    n_reference: int,
    reference: npt.NDArray[np.float64],
    covariance: npt.NDArray[np.float64],
    n_batch: int,
    batch: npt.NDArray[np.float64],
) -> MeanDrift:
    r"""Compare two means of a few numbers.

    The squared Mahalanobis distance of the means, in units of :math:`1/n + 1/m`, is distributed
    as :math:`\chi^2` with as many degrees of freedom as the covariance has dimensions (Hotelling
    1931, The Generalization of Student's Ratio, for many rows).

    Parameters
    ----------
    n_reference, n_batch : int
        Rows that each is the mean of.
    reference, batch : ndarray of float of shape (n_numbers,)
        The means.
    covariance : ndarray of float of shape (n_numbers, n_numbers)
        Of the reference rows; it need not have full rank.

    Returns
    -------
    MeanDrift
        Its distance is in variances.

    Examples
    --------
    >>> found = shift(400, np.zeros(2), np.eye(2), 400, np.array([0.5, 0.0]))
    >>> round(found.distance, 2), found.p_value < 1e-9
    (0.24, True)
    """
    rank = int(np.linalg.matrix_rank(covariance, tol=_FLAT, hermitian=True))
    if not rank:
        return MeanDrift(0.0, 1.0)
    inverse = np.linalg.pinv(covariance, rcond=_FLAT / np.linalg.norm(covariance, 2))
    apart = float((batch - reference) @ inverse @ (batch - reference))
    chance = 1 / n_reference + 1 / n_batch
    return MeanDrift(max(0.0, apart - rank * chance), float(chdtrc(rank, apart / chance)))
