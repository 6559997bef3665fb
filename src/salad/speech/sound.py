"""What a span of an audio file sounds like, measured in one pass over the file, whatever its length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salad.speech import time
from salad.speech.decode import open_audio


@dataclass(frozen=True)
class AudioFile:
    """A file that was decoded to its end."""

    rate_hz: int
    num_channels: int
    num_samples: int


@dataclass
class Span:
    """A span of a file, in samples, and what was found in it; `num_samples` is what the file had of it.

    `not_finite` is the first sample that is not a number. `lowest` and `highest` are those of the mean over the
    channels; `num_clipped` counts samples at full scale that follow another one of the same sign, in the channel that
    has most of them.
    """

    start: int
    wanted: int | None
    num_samples: int = 0
    not_finite: int | None = None
    lowest: float = float("inf")
    highest: float = float("-inf")
    num_clipped: int = 0
    _clipped_C: NDArray[np.int64] | None = field(default=None, repr=False)
    _last_C: NDArray[np.int8] | None = field(default=None, repr=False)

    @property
    def peak(self) -> float:
        """Half the distance between the lowest and the highest sample: how loud it is, whatever its offset."""
        return max(0.0, (self.highest - self.lowest) / 2)

    @property
    def clipped_frac(self) -> float:
        """Share (0-1) of the samples that are clipped."""
        return self.num_clipped / max(1, self.num_samples)

    def hear(self, block_TC: NDArray[np.float32], block_start: int, full_scale: float) -> None:
        """Take in what of a block belongs to the span; blocks come in order."""
        end = len(block_TC) if self.wanted is None else self.start + self.wanted - block_start
        part_TC = block_TC[max(0, self.start - block_start) : max(0, end)]
        if len(part_TC) == 0:
            return
        with np.errstate(invalid="ignore", over="ignore"):
            mono_T = part_TC.mean(axis=1)
        if self.not_finite is None and not np.isfinite(mono_T).all():
            self.not_finite = self.num_samples + int(np.flatnonzero(~np.isfinite(mono_T))[0])
        self.num_samples += len(part_TC)
        self.lowest = min(self.lowest, float(mono_T.min()))
        self.highest = max(self.highest, float(mono_T.max()))
        self._count_clipped(part_TC, full_scale)

    def _count_clipped(self, part_TC: NDArray[np.float32], full_scale: float) -> None:
        sign_TC = (part_TC >= full_scale).astype(np.int8) - (part_TC <= -full_scale).astype(np.int8)
        before_C = np.zeros(part_TC.shape[1], np.int8) if self._last_C is None else self._last_C
        earlier_TC = np.concatenate([before_C[None], sign_TC[:-1]])
        clipped_C = np.count_nonzero((sign_TC == earlier_TC) & (sign_TC != 0), axis=0)
        self._clipped_C = clipped_C if self._clipped_C is None else self._clipped_C + clipped_C
        self._last_C = sign_TC[-1]
        self.num_clipped = int(self._clipped_C.max())


def examine(path: Path, spans_s: Sequence[tuple[float, float | None]]) -> tuple[AudioFile, list[Span]]:
    """Decode a file completely and measure spans (start_s, duration_s or None: to its end) of it.

    Raises:
        AudioError: the file is no audio, cut short or damaged.
    """
    with open_audio(path) as stream:
        spans = [
            Span(
                time.samples(start_s, stream.rate_hz),
                None if duration_s is None else time.samples(duration_s, stream.rate_hz),
            )
            for start_s, duration_s in spans_s
        ]
        count = 0
        for block_TC in stream.blocks:
            for span in spans:
                begins = span.start < count + len(block_TC)
                if begins and (span.wanted is None or span.start + span.wanted > count):
                    span.hear(block_TC, count, stream.full_scale)
            count += len(block_TC)
        return AudioFile(stream.rate_hz, stream.num_channels, count), spans
