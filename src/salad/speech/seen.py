"""Which names came before, in 8 bytes a name."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

RECENT = 4096
"""Names that are kept in a set before they are sorted into an array."""


class SeenNames:
    """The names that came before, as 64-bit hashes: a set of recent ones, and sorted arrays of increasing sizes.

    Among 10 million names the chance that any two share a hash, and a new one is taken for an old one, is 3 in a
    million.
    """

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted: list[NDArray[np.uint64]] = []

    def before(self, name: str) -> bool:
        """Whether this name came before; from now on it did."""
        digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
        number = int.from_bytes(digest)
        if number in self._recent or any(_holds(array, np.uint64(number)) for array in self._sorted):
            return True
        self._recent.add(number)
        if len(self._recent) == RECENT:
            self._sort_recent()
        return False

    def _sort_recent(self) -> None:
        self._sorted.append(np.sort(np.fromiter(self._recent, np.uint64, len(self._recent))))
        self._recent.clear()
        while len(self._sorted) > 1 and len(self._sorted[-2]) <= len(self._sorted[-1]):
            self._sorted.append(np.sort(np.concatenate([self._sorted.pop(), self._sorted.pop()])))


def _holds(array: NDArray[np.uint64], number: np.uint64) -> bool:
    place = int(array.searchsorted(number))
    return place < len(array) and bool(array[place] == number)
