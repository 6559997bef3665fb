"""Randomness as a pure function of (seed, purpose, item): the same item draws the same on any number of ranks."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *parts: str | int) -> np.random.Generator:
    """A NumPy generator made of the run's seed and what it is for, e.g. `generator(0, "spans", cut.id)`."""
    digest = hashlib.sha256("\x1f".join([str(seed), *map(str, parts)]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def torch_seed(seed: int, *parts: str | int) -> int:
    """A 63-bit seed for `torch.manual_seed`, from the same parts."""
    return int(generator(seed, *parts).integers(2**63 - 1))


def derangement(size: int, rng: np.random.Generator) -> list[int]:
    """A random permutation without a fixed point: one cycle through all items in random order (Sattolo, 1986).

    Raises:
        ValueError: size < 2, where none exists.
    """
    if size < 2:
        raise ValueError(f"a derangement needs at least 2 items, got {size}.")
    items = list(range(size))
    for i in range(size - 1, 0, -1):
        j = int(rng.integers(i))
        items[i], items[j] = items[j], items[i]
    return items
