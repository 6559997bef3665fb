"""Which item stands at which position of the training stream: a pure function of (seed, position).

Sources are drawn in blocks of fixed composition (largest remainder of the weights), shuffled inside the block; within a
source, items come in a fresh random order each epoch. So any rank can compute any position at once, the order is the
same on any number of ranks, and resuming at position p costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from salad.errors import RecipeError
from salad.randomness import generator

BLOCK = 60  # positions; divisible by 2, 3, 4, 5: the paper's 2/3-1/3 and thirds are exact


@dataclass(frozen=True)
class Draw:
    """Item `index` of source `source`, seen for the `epoch`-th time (from 0)."""

    source: int
    index: int
    epoch: int


class Mix:
    """Sources with sizes and weights -> the draw at any position."""

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int, purpose: str) -> None:
        """Weights need not sum to 1.

        Raises:
            RecipeError: a source with weight is empty or has too little to be drawn, or no source has weight.
        """
        if any(weight > 0 and size == 0 for size, weight in zip(sizes, weights, strict=True)):
            raise RecipeError(f"{purpose}: a source of the mix has no items (sizes {list(sizes)}).")
        if sum(weights) <= 0:
            raise RecipeError(f"{purpose}: no source of the mix has weight.")
        self.sizes, self.seed, self.purpose = list(sizes), seed, purpose
        self.per_block = _largest_remainder([weight / sum(weights) for weight in weights], BLOCK)
        if any(weight > 0 and share == 0 for weight, share in zip(weights, self.per_block, strict=True)):
            raise RecipeError(f"{purpose}: a source of the mix has less weight than 1 in {BLOCK} ({list(weights)}).")
        self._permutation = lru_cache(maxsize=64)(self._fresh_permutation)

    def draw(self, position: int) -> Draw:
        """What stands at `position` (from 0) of the stream."""
        block, offset = divmod(position, BLOCK)
        order = self._block(block)
        source = int(order[offset])
        earlier = block * self.per_block[source] + int((order[:offset] == source).sum())
        epoch, within = divmod(earlier, self.sizes[source])
        return Draw(source, int(self._permutation(source, epoch)[within]), epoch)

    def _block(self, block: int) -> np.ndarray:
        kinds = np.repeat(np.arange(len(self.sizes)), self.per_block)
        return generator(self.seed, self.purpose, "block", block).permutation(kinds)

    def _fresh_permutation(self, source: int, epoch: int) -> np.ndarray:
        return generator(self.seed, self.purpose, "epoch", source, epoch).permutation(self.sizes[source])


def _largest_remainder(fractions: Sequence[float], total: int) -> list[int]:
    exact = [fraction * total for fraction in fractions]
    counts = [int(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts
