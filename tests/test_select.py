"""Selection: balanced clusters, and embeddings."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

import tiny
from salad.errors import RecipeError
from salad.select.balanced_kmeans import balanced_assignment, balanced_kmeans

# --- balanced clusters ----------------------------------------------------------------------------------------------


def cheapest(cost_NK):
    """The least cost of sizes floor or ceil of N / K: an assignment to places, some of which may stay empty."""
    num_points, num_clusters = cost_NK.shape
    low, high = num_points // num_clusters, -(-num_points // num_clusters)
    places = [(k, place < low) for k in range(num_clusters) for place in range(high)]
    empty = len(places) - num_points
    forbidden = 1e9
    cost = np.zeros((len(places), len(places)))
    for column, (k, required) in enumerate(places):
        cost[:num_points, column] = cost_NK[:, k]
        cost[num_points:, column] = forbidden if required else 0.0
    rows, columns = linear_sum_assignment(cost)
    assert len(rows) == num_points + empty
    return cost[rows, columns].sum()


def assert_balanced(labels, num_clusters):
    sizes = np.bincount(labels, minlength=num_clusters)
    assert len(sizes) == num_clusters
    assert sizes.max() - sizes.min() <= 1


@given(st.integers(1, 24), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from(["uniform", "ties", "skewed"]))
@settings(deadline=None, max_examples=150)
def test_the_balanced_assignment_is_the_cheapest(num_points, num_clusters, seed, kind):
    num_clusters = min(num_clusters, num_points)
    cost = np.random.default_rng(seed).random((num_points, num_clusters))
    if kind == "ties":
        cost = np.floor(cost * 3)
    elif kind == "skewed":  # everyone wants the first cluster
        cost = cost + 10.0 * np.arange(num_clusters)
    labels = balanced_assignment(cost)
    assert_balanced(labels, num_clusters)
    assert cost[np.arange(num_points), labels].sum() == pytest.approx(cheapest(cost), abs=1e-6)


def test_the_balanced_assignment_is_the_cheapest_of_all():
    # one case by hand: without sizes all four points would go to cluster 0
    cost = np.array([[0.0, 1.0], [0.0, 5.0], [0.0, 2.0], [0.0, 9.0]])
    assert balanced_assignment(cost).tolist() == [1, 0, 1, 0]
    totals = [
        sum(cost[i, k] for i, k in enumerate(labels))
        for labels in itertools.product(range(2), repeat=4)
        if sum(labels) == 2
    ]
    assert min(totals) == 3.0


@pytest.mark.parametrize(("num_points", "num_clusters"), [(200, 8), (203, 8), (64, 64), (10, 1)])
def test_clusters_have_the_same_size_and_are_the_same_each_time(num_points, num_clusters):
    points = np.random.default_rng(0).standard_normal((num_points, 5)).astype(np.float32)
    points[: num_points // 2] *= 0.1  # half of them huddle, so plain k-means is far from balanced
    one, again = (balanced_kmeans(points, num_clusters, seed=0) for _ in range(2))
    assert (one.labels == again.labels).all()
    assert (one.centres == again.centres).all()
    assert one.inertia == again.inertia == pytest.approx(((points - one.centres[one.labels]) ** 2).sum(), rel=1e-5)
    assert_balanced(one.labels, num_clusters)
    for k in range(num_clusters):
        assert one.centres[k] == pytest.approx(points[one.labels == k].mean(0), abs=1e-5)


def test_clusters_find_what_belongs_together():
    rng = np.random.default_rng(0)
    centres = 20 * np.eye(4)
    order = rng.permutation(80) % 4
    clustering = balanced_kmeans(centres[order] + rng.standard_normal((80, 4)), 4, seed=1)
    groups = [set(order[clustering.labels == k]) for k in range(4)]
    assert sorted(map(sorted, groups)) == [[0], [1], [2], [3]]


def test_clusters_that_cannot_be_are_refused():
    with pytest.raises(RecipeError, match="5 clusters of 4 points"):
        balanced_kmeans(np.zeros((4, 2)), 5, 0)
    with pytest.raises(RecipeError, match="not finite"):
        balanced_kmeans(np.array([[0.0], [np.nan]]), 2, 0)


# --- embeddings -----------------------------------------------------------------------------------------------------


@pytest.mark.assets
def test_embeddings_are_unit_vectors_in_the_order_of_the_texts():
    from salad.select.embed import embed

    texts = [" ".join(tiny.WORDS[i : i + 1 + i % 7]) for i in range(30)] * 3  # more than a batch, of mixed lengths
    told = []
    vectors = embed(texts, "minilm-l6", lambda done, total: told.append((done, total)))
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(90), abs=1e-5)
    assert vectors[:30] == pytest.approx(vectors[30:60], abs=1e-5)
    assert vectors[4] == pytest.approx(embed([texts[4]], "minilm-l6")[0], abs=1e-5)
    assert told[-1] == (90, 90)
