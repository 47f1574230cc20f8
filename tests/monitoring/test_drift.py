"""Distances, and what chance makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

from batch_nlp.monitoring.drift import (
    RandomFeatures,
    binned,
    drift,
    mean_drift,
    shift,
    tenths,
)


def test_the_index_is_that_of_the_formula_less_what_chance_makes() -> None:
    reference, batch = np.array([40_000, 60_000]), np.array([70_000, 30_000])
    p, q = np.array([0.4, 0.6]), np.array([0.7, 0.3])
    found = drift(reference, batch)
    assert found.psi == pytest.approx(((q - p) * np.log(q / p)).sum(), abs=1e-4)
    middle = (p + q) / 2
    divergence = (entropy(p, middle, base=2) + entropy(q, middle, base=2)) / 2
    assert found.js == pytest.approx(np.sqrt(divergence), abs=1e-4)


def test_chance_alone_makes_no_distance_and_p_values_are_even() -> None:
    rng = np.random.default_rng(3)
    shares = np.array([0.1] * 10)
    found = [drift(rng.multinomial(400, shares), rng.multinomial(150, shares)) for _ in range(2000)]
    p_values = np.array([each.p_value for each in found])
    for level in (0.01, 0.05, 0.5):
        assert (p_values < level).mean() == pytest.approx(level, abs=4 * np.sqrt(level / 2000))
    assert np.mean([each.psi for each in found]) < 0.02


def test_bins_that_are_empty_in_both_count_for_nothing_and_one_that_empties_is_finite() -> None:
    some = drift(np.array([50, 50]), np.array([20, 30]))
    assert drift(np.array([50, 0, 50, 0]), np.array([20, 0, 30, 0])) == some
    gone = drift(np.array([500, 500, 500]), np.array([500, 500, 0]))
    assert 1 < gone.psi < 10
    assert gone.p_value < 1e-9
    for nothing in (np.array([0, 0]), np.array([7, 0])):
        assert drift(np.array([9, 0]), nothing).p_value == 1


@pytest.mark.parametrize("rare", [0.0, 1.0])
def test_a_rare_flag_is_told_from_a_frequent_one(rare: float) -> None:
    edges = tenths(np.array([rare] * 5 + [1 - rare] * 95))
    codes = binned(np.array([0.0, 1.0, np.nan]), edges)
    assert len(set(codes.tolist())) == 3
    assert codes[-1] == len(edges) + 1


def test_a_constant_is_told_from_less_and_from_more() -> None:
    edges = tenths(np.full(50, 3.0))
    assert len(set(binned(np.array([2.0, 3.0, 4.0]), edges).tolist())) == 3
    assert tenths(np.array([np.nan])) == []
    assert binned(np.array([np.nan, 1.0]), []).tolist() == [1, 0]


def test_random_features_come_near_the_kernel_and_survive_being_plain() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 5)).astype("float32")
    vectors[:, 4] = 2  # does not vary
    features = RandomFeatures.drawn(vectors)
    waves = features(vectors)
    assert (waves**2).sum(axis=1) == pytest.approx(1, abs=1e-4)
    again = RandomFeatures.from_dict(features.to_dict())
    np.testing.assert_array_equal(again(vectors), waves)
    np.testing.assert_array_equal(features(vectors + np.eye(5, dtype="float32")[4]), waves)
    assert np.isfinite(RandomFeatures.drawn(np.zeros((4, 3), "float32")).frequencies).all()


def test_means_of_random_features_have_even_p_values_and_see_a_change_of_shape() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(600, 6)).astype("float32")
    features = RandomFeatures.drawn(vectors)
    waves = features(vectors)
    covariance = np.cov(waves, rowvar=False)
    spread = {"variance": float(np.trace(covariance)), "squared": float((covariance**2).sum())}

    def p_value(batch: np.ndarray) -> float:
        seen = features(batch.astype("float32")).mean(0, dtype="float64")
        reference = features(rng.normal(size=(600, 6)).astype("float32")).mean(0, dtype="float64")
        return mean_drift(reference, 600, seen, len(batch), **spread).p_value

    same = np.array([p_value(rng.normal(size=(200, 6))) for _ in range(300)])
    assert (same < 0.01).mean() < 0.04
    assert (same < 0.5).mean() == pytest.approx(0.5, abs=0.12)
    # The same mean and the same variance of each number.
    both = rng.normal(size=(200, 1)).repeat(6, axis=1)
    assert p_value(both) < 1e-6


def test_a_shift_needs_no_covariance_of_full_rank() -> None:
    covariance = np.array([[0.2, -0.2, 0.0], [-0.2, 0.2, 0.0], [0.0, 0.0, 0.0]])
    moved = shift(500, np.array([0.5, 0.5, 0.0]), covariance, 500, np.array([0.7, 0.3, 0.0]))
    assert moved.distance == pytest.approx(0.2 - 1 / 250)
    assert shift(5, np.ones(3), np.zeros((3, 3)), 5, np.zeros(3)).p_value == 1
