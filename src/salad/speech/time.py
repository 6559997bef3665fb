"""Seconds, samples and frames: the one place that converts between them, with one rounding rule.

The rule: the nearest whole count, halves up. A product within 1e-6 of a half counts as that half, because
0.29 s × 50 Hz is 14.499999999999998 in floating point and 14.5 to everyone else.
"""

from __future__ import annotations

import math

_HALF = 0.5 + 1e-6


def samples(seconds: float, rate_hz: float) -> int:
    """The number of audio samples nearest to a time of `seconds` at `rate_hz`."""
    return math.floor(seconds * rate_hz + _HALF)


def frames(seconds: float, frame_hz: float) -> int:
    """The number of encoder frames nearest to `seconds` at `frame_hz`; as an index, the frame that starts nearest."""
    return math.floor(seconds * frame_hz + _HALF)


def seconds(count: int, rate_hz: float) -> float:
    """The time in seconds that `count` samples or frames take at `rate_hz`."""
    return count / rate_hz
