"""Audio in: any file that libsndfile or FFmpeg's library reads → mono float32. Audio out: 16-bit FLAC, atomically."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from salad.errors import AudioError, MissingFileError
from salad.files import write_atomic
from salad.speech import time
from salad.speech.decode import ffmpeg_format, open_audio

if TYPE_CHECKING:
    from lhotse import MonoCut

Samples = NDArray[np.float32]
"""Mono audio, [num_samples], nominally within ±1."""

FULL_SCALE_SLACK = 1e-3
"""How far past ±1 a sample may reach and still be written (0.009 dB): rounding, not clipping."""


def load_audio(path: Path, rate_hz: int | None = None) -> tuple[Samples, int]:
    """A whole audio file as mono float32 [num_samples] and its rate in Hz.

    Channels are averaged; with `rate_hz` the audio is resampled (soxr HQ), which may overshoot ±1 by a little.

    Raises:
        MissingFileError: no such file.
        AudioError: it can't be decoded, is cut short, is empty, or holds NaN or infinity.
    """
    return _load_span(path, 0.0, None, rate_hz)


def load_cut(cut: MonoCut, rate_hz: int) -> Samples:
    """The audio of one cut, its own span of its recording alone, mono float32 [num_samples] at `rate_hz`.

    Raises:
        MissingFileError, AudioError: as `load_audio`.
    """
    source = cut.recording.sources[0] if cut.recording is not None else None
    if source is not None and source.type == "file":
        return _load_span(Path(source.source), cut.start, cut.duration, rate_hz)[0]
    audio = np.asarray(cut.load_audio(), dtype=np.float32).mean(axis=0)
    return resample(_checked(audio, f"utterance {cut.id!r}"), cut.sampling_rate, rate_hz)


def audio_place(cut: MonoCut) -> str:
    """Where a cut's audio stands, for messages: the file's path, or the cut's id when the audio is not in a file."""
    source = cut.recording.sources[0] if cut.recording is not None else None
    return str(source.source) if source is not None and source.type == "file" else str(cut.id)


def resample(audio: Samples, from_hz: int, to_hz: int) -> Samples:
    """`audio` [num_samples] at `to_hz`, by soxr at its HQ setting; unchanged when the rates are equal."""
    if from_hz == to_hz:
        return audio
    return np.asarray(soxr.resample(audio, from_hz, to_hz), dtype=np.float32)


def save_flac(path: Path, audio: Samples, rate_hz: int) -> None:
    """Write mono `audio` [num_samples] as 16-bit FLAC: a temporary file beside `path`, flushed, renamed into place.

    A file read back gives the same 16-bit values; nothing is scaled.

    Raises:
        AudioError: empty, not finite, or reaching past ±1 by more than `FULL_SCALE_SLACK` (it would be clipped).
    """
    _checked(audio, str(path))
    peak = float(np.abs(audio).max())
    if peak > 1.0 + FULL_SCALE_SLACK:
        raise AudioError(f"{path}: samples reach {peak:.3f}, past ±1, and would be clipped; scale it down first.")
    pcm = np.clip(np.round(audio * 32768.0), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, rate_hz, format="FLAC", subtype="PCM_16")
    write_atomic(path, buffer.getvalue())


def _load_span(path: Path, start_s: float, duration_s: float | None, rate_hz: int | None) -> tuple[Samples, int]:
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; check the manifest that names it, or prepare its corpus again.")
    if ffmpeg_format(path):
        audio, file_hz, wanted = _by_blocks(path, start_s, duration_s)
    else:
        audio, file_hz, wanted = _by_seeking(path, start_s, duration_s)
    if len(audio) < wanted:
        raise AudioError(f"{path} is cut short: {len(audio)} of {wanted} samples can be read; copy it again.")
    audio = _checked(np.asarray(audio, dtype=np.float32), str(path))
    return (audio, file_hz) if rate_hz is None else (resample(audio, file_hz, rate_hz), rate_hz)


def _by_seeking(path: Path, start_s: float, duration_s: float | None) -> tuple[Samples, int, int]:
    """The samples of a span that are there, their rate, and how many there should be."""
    try:
        with soundfile.SoundFile(path) as file:
            rate_hz = int(file.samplerate)
            start = time.samples(start_s, rate_hz)
            wanted = file.frames - start if duration_s is None else time.samples(duration_s, rate_hz)
            wanted = max(0, min(wanted, file.frames - start))
            file.seek(min(start, file.frames))
            return file.read(wanted, dtype="float32", always_2d=True).mean(axis=1), rate_hz, wanted
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(f"{path} can't be decoded as audio ({error}); convert it to FLAC or leave it out.") from error


def _by_blocks(path: Path, start_s: float, duration_s: float | None) -> tuple[Samples, int, int]:
    """The same of a file in which no place can be found without decoding what lies before it."""
    parts: list[Samples] = []
    count = 0
    with open_audio(path) as stream:
        start = time.samples(start_s, stream.rate_hz)
        end = None if duration_s is None else start + time.samples(duration_s, stream.rate_hz)
        for block_TC in stream.blocks:
            mono_T = block_TC.mean(axis=1)
            parts.append(mono_T[max(0, start - count) : None if end is None else max(0, end - count)])
            count += len(block_TC)
            if end is not None and count >= end:
                break
        wanted = max(0, (count if end is None else min(end, count)) - start)
        return np.concatenate(parts or [np.zeros(0, np.float32)]), stream.rate_hz, wanted


def _checked(audio: Samples, place: str) -> Samples:
    if audio.ndim != 1 or len(audio) == 0:
        raise AudioError(f"{place} holds no audio (shape {audio.shape}, mono samples needed); leave it out.")
    if not np.isfinite(audio).all():
        where = int(np.flatnonzero(~np.isfinite(audio))[0])
        raise AudioError(f"{place} holds a sample that is not a number (at {where}); export it again or leave it out.")
    return audio
