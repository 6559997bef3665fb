"""What speech sounds like, whatever it says: its silences, its clipped samples, how it ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salad.errors import AudioError
from salad.speech.audio import Samples
from salad.speech.time import samples as to_samples

FRAME_S, HOP_S = 0.02, 0.01
SPEECH_RANGE_DB = 30.0
"""Speech is what is at most so far below its own loud parts (the 95th percentile of the frames) …"""
ABOVE_NOISE_DB, LEAST_RANGE_DB = 6.0, 8.0
"""… and so far above what is always there (the 5th percentile), unless that leaves less than the least range."""
NEAR_PEAK = 0.99
"""Of its own highest or lowest value: where a sample may be clipped."""
CLIPPED_RUN = 3
"""Samples in a row near the peak; a wave that was not clipped turns around sooner."""
SILENT_DB = -120.0


@dataclass(frozen=True)
class Sound:
    """Numbers of one utterance's sound.

    `speech_s` lies from the first sound to the last; `silence_frac` of the whole is silent, `max_pause_s` the longest
    silence between two sounds. `clipped_frac` of the samples are clipped. `end_db`: the level of the last 20 ms
    against that of the speech.
    """

    seconds: float
    speech_s: float
    silence_frac: float
    max_pause_s: float
    clipped_frac: float
    end_db: float


def measure_sound(audio: Samples, rate_hz: int) -> Sound:
    """The numbers of `audio` [num_samples].

    Levels are those of 20 ms frames of the pre-emphasized audio, so that the slow swings of a rumble are not sound.
    What counts as silence depends on the utterance: on its own level and on the noise that is always there, and so a
    pause stays a pause when noise was added.

    Raises:
        AudioError: every sample is the same: there is no sound.
    """
    if len(audio) == 0 or float(np.ptp(audio)) == 0.0:
        raise AudioError("no sound: every sample is the same.")
    levels_db = _levels_db(audio, rate_hz)
    loud_db, noise_db = (float(np.percentile(levels_db, share)) for share in (95, 5))
    heard = levels_db > max(loud_db - SPEECH_RANGE_DB, min(noise_db + ABOVE_NOISE_DB, loud_db - LEAST_RANGE_DB))
    first, last = int(np.argmax(heard)), len(heard) - 1 - int(np.argmax(heard[::-1]))
    end_db = float(_levels_db(audio[-to_samples(FRAME_S, rate_hz) - 1 :], rate_hz)[-1]) - loud_db
    return Sound(
        seconds=len(audio) / rate_hz,
        speech_s=min(len(audio) / rate_hz, (last - first) * HOP_S + FRAME_S),
        silence_frac=float(1 - heard.mean()),
        max_pause_s=_longest_run(~heard[first : last + 1]) * HOP_S,
        clipped_frac=_num_clipped(audio) / len(audio),
        end_db=max(end_db, SILENT_DB),
    )


def _levels_db(audio: Samples, rate_hz: int) -> NDArray[np.float64]:
    """The level of each frame of the pre-emphasized audio, in dB of full scale."""
    size, hop = to_samples(FRAME_S, rate_hz), to_samples(HOP_S, rate_hz)
    emphasized = audio[1:].astype(np.float64) - 0.97 * audio[:-1]
    emphasized = np.pad(emphasized, (0, max(0, size - len(emphasized))))
    frames_TS = np.lib.stride_tricks.sliding_window_view(emphasized, size)[::hop]
    return np.asarray(10 * np.log10(np.maximum(np.mean(frames_TS**2, axis=1), 10 ** (SILENT_DB / 10))))


def _num_clipped(audio: Samples) -> int:
    """How many samples lie near the highest or lowest value in runs of several."""
    high, low = float(audio.max()), float(audio.min())
    count = 0
    for near in (audio >= high * NEAR_PEAK if high > 0 else None, audio <= low * NEAR_PEAK if low < 0 else None):
        if near is not None:
            lengths = _run_lengths(near)
            count += int(lengths[lengths >= CLIPPED_RUN].sum())
    return count


def _longest_run(marked: NDArray[np.bool_]) -> int:
    return int(_run_lengths(marked).max(initial=0))


def _run_lengths(marked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(np.int8)))
    return np.asarray(edges[1::2] - edges[::2])
