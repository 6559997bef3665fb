"""What a cut is and what it sounds like, in 64 bits: for indexes over millions of cuts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import combinations
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from salad.speech import time

if TYPE_CHECKING:  # Lhotse brings PyTorch along: only who holds cuts pays for it
    from lhotse import MonoCut


def id_hash(cut_id: str) -> int:
    """64 bits of a cut's id. Two of ten million ids share them with a probability of 3e-6."""
    return _hash64(cut_id)


def shared_ids(groups: Iterable[NDArray[np.uint64]]) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Of groups of ids, as `id_hash` has them, each two that share some: their numbers, and the places in the first."""
    for (first, one), (second, other) in combinations(enumerate(groups), 2):
        found = np.flatnonzero(np.isin(one, other))
        if len(found):
            yield first, second, found


def sound_hash(cut: MonoCut | dict[str, Any], folder: Path) -> int:
    """64 bits of what a cut's audio is read from: its sources, their rate and length, its channel and its span.

    Takes a cut or its line in the prepared `folder`, from which sources inside are named, so that it can be moved. What
    is said in the cut (text, words) doesn't count.
    """
    row = cut if isinstance(cut, dict) else {**vars(cut), "recording": cut.recording.to_dict()}
    recording = row["recording"]
    rate_hz = recording["sampling_rate"]
    span = [time.samples(row[name], rate_hz) for name in ("start", "duration")]
    home = f"{_resolved(folder)}/"
    sources = [[s["type"], s["source"].removeprefix(home), s["channels"]] for s in recording["sources"]]
    return _hash64(repr([sources, rate_hz, recording["num_samples"], row["channel"], span]))


def portable_line(cut: dict[str, Any]) -> bytes:
    """A cut as JSON with sorted keys and its audio files named without their folders: the same wherever they lie."""
    recording = cut["recording"]
    sources = [s | {"source": PurePath(s["source"]).name} if s["type"] == "file" else s for s in recording["sources"]]
    row = cut | {"recording": recording | {"sources": sources}}
    return json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() + b"\n"


@lru_cache(16)
def _resolved(folder: Path) -> Path:
    return folder.resolve()


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
