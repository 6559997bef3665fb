"""Balanced k-means: clusters whose sizes differ by at most one, so that P_web is uniform by construction.

Lloyd's iteration with an exact balanced assignment (a transportation problem). The assignment starts from the nearest
centre for every point, which is optimal without sizes, and then moves points along shortest paths between clusters,
from an overfull one to one with room, until the sizes fit: successive shortest paths on the K-node cluster graph, so
every assignment on the way is the cheapest of its sizes (Ahuja, Magnanti & Orlin, Network Flows, 1993, chapter 9).

Axes: N points, K clusters, d dimensions.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans

from salad.errors import RecipeError
from salad.randomness import torch_seed


@dataclass(frozen=True)
class Clustering:
    """Cluster of every point [N], centres [K, d], and the sum of squared distances to them."""

    labels: np.ndarray
    centres: np.ndarray
    inertia: float


def balanced_kmeans(points_Nd: np.ndarray, num_clusters: int, seed: int, max_steps: int = 10) -> Clustering:
    """Partition points into clusters whose sizes differ by at most one; starts from plain k-means centres.

    Raises:
        RecipeError: more clusters than points, or points that are not finite.
    """
    if not 1 <= num_clusters <= len(points_Nd):
        raise RecipeError(f"{num_clusters} clusters of {len(points_Nd)} points: give at most as many as points.")
    if not np.isfinite(points_Nd).all():
        raise RecipeError("the embeddings hold values that are not finite; embed the corpus again.")
    points = points_Nd.astype(np.float64)
    start = KMeans(num_clusters, n_init=1, random_state=torch_seed(seed, "kmeans") % 2**32).fit(points)
    centres, labels = start.cluster_centers_, np.full(len(points), -1)
    for _ in range(max_steps):
        cost_NK = ((points**2).sum(1)[:, None] - 2 * points @ centres.T + (centres**2).sum(1)[None]).clip(0)
        updated = balanced_assignment(cost_NK)
        if (updated == labels).all():
            break
        labels = updated
        centres = np.stack([points[labels == k].mean(0) for k in range(num_clusters)])
    inertia = float(((points - centres[labels]) ** 2).sum())
    return Clustering(labels, centres, inertia)


def balanced_assignment(cost_NK: np.ndarray) -> np.ndarray:
    """The cheapest assignment of N points to K clusters whose sizes are floor or ceil of N / K. Labels, int [N].

    A size outside those bounds costs more than any move, so the loop ends when no path between clusters is worth it:
    no negative cycle is left, which is the optimality condition of the transportation problem.
    """
    num_points, num_clusters = cost_NK.shape
    low = num_points // num_clusters
    high = -(-num_points // num_clusters)
    penalty = 4.0 * num_clusters * (float(np.ptp(cost_NK)) + 1.0)
    labels: np.ndarray = cost_NK.argmin(1)
    sizes = np.bincount(labels, minlength=num_clusters)
    edges = np.full((num_clusters, num_clusters), np.inf)  # cheapest move of one point from cluster a to cluster b
    movers = np.zeros((num_clusters, num_clusters), int)
    for a in range(num_clusters):
        _refresh(cost_NK, labels, a, edges, movers)
    while True:
        leaving = np.where(sizes > high, -penalty, np.where(sizes > low, 0.0, np.inf))
        entering = np.where(sizes < low, -penalty, np.where(sizes < high, 0.0, np.inf))
        path, saved = _cheapest_path(edges, leaving, entering)
        if saved > -1e-9:
            return labels
        for a, b in itertools.pairwise(path):
            labels[movers[a, b]] = b
        sizes[path[0]] -= 1
        sizes[path[-1]] += 1
        for a in path:
            _refresh(cost_NK, labels, a, edges, movers)


def _refresh(cost_NK: np.ndarray, labels: np.ndarray, a: int, edges: np.ndarray, movers: np.ndarray) -> None:
    members = np.flatnonzero(labels == a)
    if len(members) == 0:
        edges[a] = np.inf
        return
    extra_cost = cost_NK[members] - cost_NK[members, a][:, None]
    best = extra_cost.argmin(0)
    edges[a] = extra_cost[best, np.arange(len(edges))]
    movers[a] = members[best]
    edges[a, a] = np.inf


def _cheapest_path(edges: np.ndarray, leaving: np.ndarray, entering: np.ndarray) -> tuple[list[int], float]:
    """The path between clusters with the least cost, ends included (Bellman-Ford; there is no negative cycle)."""
    clusters = np.arange(len(edges))
    distance = leaving.copy()
    previous = np.full(len(edges), -1)
    for _ in clusters:
        through = distance[:, None] + edges
        best = through.argmin(0)
        shorter = through[best, clusters] < distance - 1e-12
        if not shorter.any():
            break
        distance = np.where(shorter, through[best, clusters], distance)
        previous = np.where(shorter, best, previous)
    total = distance + entering
    path = [int(total.argmin())]
    while previous[path[-1]] >= 0:
        path.append(int(previous[path[-1]]))
    return path[::-1], float(total.min())
