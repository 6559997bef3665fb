"""A corpus of texts of any length, dealt out into parts that share no text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from salad.errors import RecipeError
from salad.texts.text import Text


def comparable(text: str) -> str:
    """What two texts share when they count as the same: their words, in lower case, without punctuation."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def split(texts: Sequence[Text], sizes: Mapping[str, int | None], seed: int) -> dict[str, np.ndarray]:
    """Which texts go into which part: row numbers, int64, of as many as `sizes` says; None takes all that are left.

    Texts are ranked by a hash of (seed, id) and dealt out in the order of `sizes`: the same texts in any order give the
    same parts on any machine, and parts of an enlarged corpus keep most of their texts. Of texts that say the same
    (`comparable`) one is kept. It takes 16 bytes of memory a text, whatever the texts are.

    Raises:
        RecipeError: fewer distinct texts than the sizes add up to, or a negative size.
    """
    if any(size is not None and size < 0 for size in sizes.values()):
        raise RecipeError(f"the sizes of a split must not be negative: {dict(sizes)}.")
    ranks, words = (np.empty(len(texts), np.uint64) for _ in range(2))
    for row, text in enumerate(texts):
        ranks[row], words[row] = _hash(f"{seed}:{text.id}"), _hash(comparable(text.text))
    ranked = np.argsort(ranks, kind="stable")
    _, first = np.unique(words[ranked], return_index=True)
    distinct = ranked[np.sort(first)]
    wanted = sum(size or 0 for size in sizes.values())
    if wanted > len(distinct):
        raise RecipeError(
            f"the split asks for {wanted} texts ({dict(sizes)}), but there are {len(distinct)}; ask for less."
        )
    parts: dict[str, np.ndarray] = {}
    begin, free = 0, len(distinct) - wanted
    for name, size in sizes.items():
        end = begin + (free if size is None else size)
        parts[name] = distinct[begin:end]
        begin, free = end, 0 if size is None else free
    return parts


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
