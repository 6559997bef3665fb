"""Speech longer than Whisper's 30 s: where to cut it, and which words of its transcript fall into which piece."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

from salad.speech.audio import Samples
from salad.speech.time import samples as to_samples

_FRAME_S = 0.02


def frame_loudness(audio: Samples, rate_hz: int) -> np.ndarray:
    """Root mean square of consecutive 20 ms frames of `audio` [num_samples] → [num_frames], at least one frame."""
    size = to_samples(_FRAME_S, rate_hz)
    padded = np.pad(audio, (0, -len(audio) % size))
    loudness: np.ndarray = np.sqrt(np.mean(padded.reshape(-1, size).astype(np.float64) ** 2, axis=1))
    return loudness


def speech_span(audio: Samples, rate_hz: int, floor: float = 0.03) -> tuple[float, float]:
    """When sound begins and ends in a clip, in seconds; the whole clip when it is silent.

    Sound is a 20 ms frame above `floor` × the loudest one (the default is -30 dB).
    """
    loud = frame_loudness(audio, rate_hz)
    heard = np.flatnonzero(loud > floor * loud.max())
    duration_s = len(audio) / rate_hz
    if len(heard) == 0:
        return 0.0, duration_s
    return float(heard[0] * _FRAME_S), min(duration_s, float((heard[-1] + 1) * _FRAME_S))


def quiet_windows(audio: Samples, rate_hz: int, longest_s: float = 30.0) -> list[tuple[int, int]]:
    """Consecutive windows [start, end) in samples that cover `audio`, none longer than `longest_s`.

    Each ends in the middle of the quietest 100 ms of the last third that it may have, so that words stay whole.
    """
    longest, size = to_samples(longest_s, rate_hz), to_samples(_FRAME_S, rate_hz)
    loudness = np.convolve(frame_loudness(audio, rate_hz), np.ones(5) / 5, mode="same")
    bounds = [0]
    while len(audio) - bounds[-1] > longest:
        first, last = (bounds[-1] + longest * 2 // 3) // size, (bounds[-1] + longest) // size
        bounds.append((first + int(np.argmin(loudness[first:last]))) * size)
    return list(zip(bounds, [*bounds[1:], len(audio)], strict=True))


def share_words(words: Sequence[str], heard: Sequence[Sequence[str]]) -> list[list[str]]:
    """Deal the transcript `words`, in order, to the windows in which they were `heard`.

    The heard words of all windows are matched to the transcript by edit distance (both in plain form: lower case,
    letters and digits); a word goes to the window of the heard word it stands opposite, and one that was not heard goes
    with the word before it.
    """
    flat = [(plain(word), window) for window, spoken in enumerate(heard) for word in spoken]
    window_of = [-1] * len(words)
    for step in Levenshtein.opcodes([plain(word) for word in words], [word for word, _ in flat]):
        if step.tag in ("equal", "replace"):
            for offset in range(step.src_end - step.src_start):
                window_of[step.src_start + offset] = flat[step.dest_start + offset][1]
    shares: list[list[str]] = [[] for _ in heard]
    current = next((window for window in window_of if window >= 0), 0)
    for word, window in zip(words, window_of, strict=True):
        current = max(current, window)
        shares[current].append(word)
    return shares


def plain(word: str) -> str:
    """A word in lower case with everything but letters and digits taken away."""
    return "".join(letter for letter in word.lower() if letter.isalnum())
