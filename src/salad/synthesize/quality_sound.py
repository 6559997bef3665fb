"""What speech sounds like, whatever it says: its silences, its clipped samples, how it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salad.errors import AudioError
from salad.speech.audio import Samples
from salad.speech.time import samples as to_samples

FRAME_S, HOP_S, END_S = 0.05, 0.01, 0.02
BAND_HZ = (200.0, 3500.0)
"""Where levels are taken: most of speech is here, rumble and hiss are not."""
SPEECH_RANGE_DB = 30.0
"""Speech is what is at most so far below its own loud parts (the 95th percentile of the frames) …"""
ABOVE_NOISE_DB, LEAST_RANGE_DB = 3.0, 6.0
"""… and so far above what is always there (the 5th percentile), unless that leaves less than the least range."""
NEAR_PEAK, NEAR_PEAK_RUN = 0.7, 3
"""A sample may be clipped that lies, with so many neighbours, above so much of the highest value, or of the lowest."""
SILENT_DB = -120.0


@dataclass(frozen=True)
class Sound:
    """Numbers of one utterance's sound.

    `speech_s` lies from the first sound to the last; `silence_frac` of the whole is silent, `max_pause_s` the longest
    silence between two sounds. `clipped_frac` of the samples are near the highest value, or the lowest. `end_db`: the
    level of the last 20 ms, without the noise that is always there, against that of the speech.
    """

    seconds: float
    speech_s: float
    silence_frac: float
    max_pause_s: float
    clipped_frac: float
    end_db: float


def measure_sound(audio: Samples, rate_hz: int) -> Sound:
    """The numbers of `audio` [num_samples].

    Levels are those of 50 ms frames between 200 and 3500 Hz. What counts as silence depends on the utterance: on its
    own level and on the noise that is always there, and so a pause stays a pause when noise was added.

    Raises:
        AudioError: every sample is the same: there is no sound.
    """
    if len(audio) == 0 or float(np.ptp(audio)) == 0.0:
        raise AudioError("no sound: every sample is the same.")
    power = _band_power(audio, rate_hz, FRAME_S)
    loud, noise = (float(np.percentile(power, share)) for share in (95, 5))
    heard = power > max(
        loud / _ratio(SPEECH_RANGE_DB), min(noise * _ratio(ABOVE_NOISE_DB), loud / _ratio(LEAST_RANGE_DB))
    )
    first, last = int(np.argmax(heard)), len(heard) - 1 - int(np.argmax(heard[::-1]))
    end = float(_band_power(audio[-to_samples(END_S, rate_hz) :], rate_hz, END_S)[-1]) - noise * _ratio(ABOVE_NOISE_DB)
    return Sound(
        seconds=len(audio) / rate_hz,
        speech_s=min(len(audio) / rate_hz, (last - first + 1) * HOP_S),
        silence_frac=float(1 - heard.mean()),
        max_pause_s=_longest_run(~heard[first : last + 1]) * HOP_S,
        clipped_frac=_num_near_peak(audio) / len(audio),
        end_db=max(SILENT_DB, 10 * math.log10(end / loud)) if end > 0 and loud > 0 else SILENT_DB,
    )


def _ratio(db: float) -> float:
    return float(10 ** (db / 10))


def _band_power(audio: Samples, rate_hz: int, frame_s: float) -> NDArray[np.float64]:
    """The power of each frame within `BAND_HZ`."""
    size, hop = to_samples(frame_s, rate_hz), to_samples(HOP_S, rate_hz)
    padded = np.pad(audio, (0, max(0, size - len(audio))))
    frames_TS = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    hz = np.fft.rfftfreq(size, 1 / rate_hz)
    spectrum_TF = np.fft.rfft(frames_TS * np.hanning(size))[:, (hz >= BAND_HZ[0]) & (hz <= BAND_HZ[1])]
    return np.asarray(np.mean(np.abs(spectrum_TF) ** 2, axis=1) / size)


def _num_near_peak(audio: Samples) -> int:
    """How many samples lie near the highest value, or the lowest, with neighbours that do.

    Of a wave that was clipped many do, even after it was resampled, coded, or made softer as a whole.
    """
    high, low = float(audio.max()), float(audio.min())
    near = [audio >= high * NEAR_PEAK] if high > 0 else []
    near += [audio <= low * NEAR_PEAK] if low < 0 else []
    lengths = np.concatenate([_run_lengths(part) for part in near])
    return int(lengths[lengths >= NEAR_PEAK_RUN].sum())


def _longest_run(marked: NDArray[np.bool_]) -> int:
    return int(_run_lengths(marked).max(initial=0))


def _run_lengths(marked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(np.int8)))
    return np.asarray(edges[1::2] - edges[::2])
