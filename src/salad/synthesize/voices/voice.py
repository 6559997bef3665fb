"""What a voice is, and what it gives: speech, and the times of its words when it knows them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

WordTimes = list[tuple[float, float]]
"""When each whitespace-separated word of a text begins and ends, in seconds."""


class Spoken(NamedTuple):
    """A text's speech, mono float32 [num_samples] within ±1, empty when nothing in it can be spoken.

    With it, when the voice knows, the times of its words.
    """

    audio: NDArray[np.float32]
    words: WordTimes | None = None


class Voice(Protocol):
    """Something that speaks."""

    @property
    def name(self) -> str:
        """What manifests call it."""

    @property
    def rate_hz(self) -> int:
        """Samples per second of what it speaks."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same text could sound different: a hash of the model and its settings."""

    def speak(self, text: str) -> Spoken:
        """The speech of `text`."""
