"""Where clusters stand on a map: their centres in two dimensions, near where they are near in meaning."""

from __future__ import annotations

import warnings

import numpy as np

from salad.randomness import torch_seed

FEW = 6  # of so few points t-SNE makes no sense
MANY = 2000  # of more, the exact t-SNE takes minutes
PERPLEXITY = 15.0
DECIMALS = 4


def layout(centres_Kd: np.ndarray, seed: int) -> np.ndarray:
    """Positions in the unit square, float64 [K, 2]: exact t-SNE from principal components, of a few centres the latter.

    Both axes have one scale, and the middle of the picture is (0.5, 0.5). The same centres and seed give the same
    positions; centres that are all equal stand in a row.
    """
    centres = np.asarray(centres_Kd, np.float64)
    num = len(centres)
    if num == 1:
        return np.array([[0.5, 0.5]])
    flat = _principal(centres)
    if np.ptp(flat, axis=0).max() == 0:
        return np.stack([np.linspace(0.0, 1.0, num), np.full(num, 0.5)], axis=1)
    return _in_unit_square(flat if num <= FEW else _tsne(centres, flat, seed))


def _principal(centres: np.ndarray) -> np.ndarray:
    """The first two principal components [K, 2]; each points to where its largest entry is positive."""
    centred = centres - centres.mean(0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    flat = np.zeros((len(centres), 2))
    rank = min(2, len(size))
    flat[:, :rank] = left[:, :rank] * size[:rank]
    flat[np.abs(flat) < 1e-12 * max(1.0, float(np.abs(centres).max()))] = 0.0
    largest = flat[np.abs(flat).argmax(0), np.arange(2)]
    return flat * np.where(largest < 0, -1.0, 1.0)


def _tsne(centres: np.ndarray, flat: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    num = len(centres)
    model = TSNE(
        perplexity=min(PERPLEXITY, (num - 1) / 3),
        init=flat / max(float(flat[:, 0].std()), 1e-12) * 1e-4,
        method="exact" if num <= MANY else "barnes_hut",
        random_state=torch_seed(seed, "layout") % 2**32,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of centres that are equal; what is not finite is seen below
        placed = np.asarray(model.fit_transform(centres), np.float64)
    return placed if np.isfinite(placed).all() else flat


def _in_unit_square(flat: np.ndarray) -> np.ndarray:
    low, high = flat.min(0), flat.max(0)
    placed = (flat - (low + high) / 2) / float((high - low).max()) + 0.5
    return np.asarray(placed.round(DECIMALS).clip(0.0, 1.0))
