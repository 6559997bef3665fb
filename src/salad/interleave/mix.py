"""Which item stands at which position of the training stream: a pure function of (seed, position).

Two questions, each answered at once for any position, so that the order is the same on any number of ranks and workers
and resuming costs nothing:

1. Which source? Source k of weight w_k has had round(share_k * n) of the first n positions that no source before it
   took, where share_k = w_k / (w_k + w_k+1 + ...). Every share is exact in the long run, and never off by more than
   one position for each source before it.
2. Which of its items? An epoch's items are cut into chunks of `CHUNK` neighbours, the chunks are put in random order,
   and the items of `BUFFER` chunks after one another are shuffled together. So memory is that of one buffer (and of the
   chunks' order), reading from disk stays local, and a source that fits into one buffer is shuffled uniformly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from salad.errors import RecipeError
from salad.randomness import generator

CHUNK = 256  # neighbouring items that stay near each other
BUFFER = 64  # chunks that are shuffled together: 16,384 items


@dataclass(frozen=True)
class Draw:
    """Item `index` of source `source`, seen for the `epoch`-th time (from 0)."""

    source: int
    index: int
    epoch: int


class Mix:
    """Sources with sizes and weights -> the draw at any position."""

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int, purpose: str) -> None:
        """Weights need not sum to 1; a source of weight 0 is never drawn.

        Raises:
            RecipeError: a source with weight is empty, a weight is negative, or no source has weight.
        """
        if any(weight > 0 and size == 0 for size, weight in zip(sizes, weights, strict=True)):
            raise RecipeError(f"{purpose}: a source of the mix has no items (sizes {list(sizes)}).")
        if min(weights, default=0) < 0 or sum(weights) <= 0:
            raise RecipeError(f"{purpose}: the weights of the mix are {list(weights)}; give one source some, none < 0.")
        self.sizes, self.seed, self.purpose = list(sizes), seed, purpose
        # The nearest fraction makes 1 - 1/3 the two thirds that are meant.
        exact = [Fraction(weight).limit_denominator(10**12) for weight in weights]
        self._shares = [(k, own / sum(exact[k:])) for k, own in enumerate(exact) if own > 0]

    def draw(self, position: int) -> Draw:
        """What stands at `position` (from 0) of the stream."""
        left = position  # positions before this one that no source so far took
        for source, share in self._shares:
            earlier = _rounded(share, left)
            if _rounded(share, left + 1) > earlier:
                epoch, place = divmod(earlier, self.sizes[source])
                return Draw(source, self._item(source, epoch, place), epoch)
            left -= earlier
        raise AssertionError("the last source's share is 1")

    def _item(self, source: int, epoch: int, place: int) -> int:
        key = (self.sizes[source], self.seed, self.purpose, source, epoch)
        starts = _chunks(*key)[2]
        number = int(starts.searchsorted(place, side="right")) - 1
        return int(_buffer(*key, number)[place - int(starts[number])])


def _rounded(share: Fraction, count: int) -> int:
    return (2 * share.numerator * count + share.denominator) // (2 * share.denominator)


@lru_cache(maxsize=16)
def _chunks(size: int, seed: int, purpose: str, source: int, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The chunks of an epoch in their order (first item, end), and the place at which each buffer of them begins.

    The borders between chunks move from epoch to epoch, so that the same neighbours do not always stay together.
    """
    rng = generator(seed, purpose, "chunks", source, epoch)
    borders = np.unique(np.concatenate([[0, size], np.arange(int(rng.integers(CHUNK)), size, CHUNK)]))
    order = rng.permutation(len(borders) - 1)
    first, end = borders[:-1][order], borders[1:][order]
    starts = np.concatenate([[0], np.cumsum(end - first)[BUFFER - 1 : -1 : BUFFER]])
    return first, end, starts


@lru_cache(maxsize=32)
def _buffer(size: int, seed: int, purpose: str, source: int, epoch: int, number: int) -> np.ndarray:
    """The items of one buffer of chunks, in their order."""
    first, end, _ = _chunks(size, seed, purpose, source, epoch)
    own = slice(number * BUFFER, (number + 1) * BUFFER)
    items = np.concatenate([np.arange(a, b) for a, b in zip(first[own], end[own], strict=True)])
    return generator(seed, purpose, "buffer", source, epoch, number).permutation(items)
