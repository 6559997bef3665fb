"""Balanced k-means: sizes, the cheapest assignment against an exact solver, the certificate, disk, and bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from salad.errors import RecipeError
from salad.select.balanced_kmeans import allowed_sizes, balanced_kmeans


def cheapest(cost_NK, low, high):
    """The least cost of sizes from low to high: an assignment of points to places, some of which may stay empty."""
    num_points, num_clusters = cost_NK.shape
    places = [(k, place < low) for k in range(num_clusters) for place in range(high)]
    cost = np.zeros((len(places), len(places)))
    for column, (k, required) in enumerate(places):
        cost[:num_points, column] = cost_NK[:, k]
        cost[num_points:, column] = 1e9 if required else 0.0
    rows, columns = linear_sum_assignment(cost)
    return cost[rows, columns].sum()


def squared_distances(points, centres):
    return ((points[:, None].astype(np.float64) - centres[None].astype(np.float64)) ** 2).sum(-1)


def bound(cost_NK, prices, low, high):
    """The dual, from its definition."""
    return (cost_NK + prices).min(1).sum() - np.maximum(low * prices, high * prices).sum()


def drawn(num_points, num_dimensions, seed, kind):
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((num_points, num_dimensions))
    if kind == "ties":
        return np.round(points)
    if kind == "skewed":
        points[: num_points // 2] *= 0.05
    if kind == "duplicates":
        points[num_points // 3 :] = points[rng.integers(0, num_points // 3 + 1, num_points - num_points // 3)]
    if kind == "far away":
        points += 1000
    return points


KINDS = ["plain", "ties", "skewed", "duplicates", "far away"]


@given(
    st.integers(2, 60),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(0, 10**6),
    st.sampled_from(KINDS),
    st.sampled_from([0.0, 0.0, 0.3, 0.7]),
)
@settings(deadline=None, max_examples=120)
def test_the_assignment_is_the_cheapest_for_its_centres(
    num_points, num_clusters, num_dimensions, seed, kind, tolerance
):
    num_clusters = min(num_clusters, num_points)
    points = drawn(num_points, num_dimensions, seed, kind)
    if np.ptp(points, axis=0).max() == 0:
        return
    try:
        sizes = allowed_sizes(num_points, num_clusters, tolerance)
    except RecipeError:
        return
    for max_steps in (1, 30):
        result = balanced_kmeans(points, num_clusters, seed, max_steps=max_steps, tolerance=tolerance)
        assert result.labels.dtype == np.int32
        assert result.centres.dtype == np.float32
        assert sizes.low <= result.sizes.min() <= result.sizes.max() <= sizes.high
        assert len(result.sizes) == num_clusters
        cost = squared_distances(points, result.centres)
        spread = ((points - points.mean(0)) ** 2).sum()
        found = cost[np.arange(num_points), result.labels].sum()
        scale = 1e-5 * spread * (100 if kind == "far away" else 1)  # centres are float32
        assert found == pytest.approx(cheapest(cost, sizes.low, sizes.high), abs=scale)
        assert result.inertia == pytest.approx(found, abs=scale)
        assert 0 <= result.gap <= 1e-5
        assert bound(cost, result.prices, sizes.low, sizes.high) == pytest.approx(found * (1 - result.gap), abs=scale)
