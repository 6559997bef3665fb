"""Audio as programs and servers hand it over: a WAV whose header was written before its length was known."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile

from salad.errors import AudioError
from salad.files import write_atomic
from salad.speech.audio import Samples

_UNKNOWN = 0x7FFF_0000  # what is written into a pipe for a length that is not known yet lies above this


def decoded(content: bytes, who: str) -> tuple[Samples, int]:
    """Mono float32 [num_samples] and its rate in Hz; channels are averaged.

    Raises:
        AudioError: it is no audio, is cut short, or holds NaN; the message begins with `who`.
    """
    try:
        audio, rate_hz = soundfile.read(io.BytesIO(_with_length(content, who)), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        began = " ".join(content[:60].decode(errors="replace").split())
        what = f"{len(content)} bytes that begin {began!r}" if content else "nothing"
        raise AudioError(f"{who} gave {what} where a WAV was expected.") from error
    mono = audio.mean(axis=1) if audio.shape[1] > 1 else audio[:, 0]
    if not np.isfinite(mono).all():
        raise AudioError(f"{who} gave samples that are no numbers.")
    return np.asarray(mono, dtype=np.float32), int(rate_hz)


def _with_length(content: bytes, who: str) -> bytes:
    """The same file with the length of its samples in the header when there was a stand-in for it."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return content
    place = 12
    while place + 8 <= len(content):
        name, size = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        left = len(content) - place - 8
        if name == b"data":
            if 0 < size < _UNKNOWN and size > left:
                raise AudioError(f"{who} gave a WAV that is cut short: {left} of its {size} bytes.")
            if size > left or size == 0:
                whole = (len(content) - 8).to_bytes(4, "little")
                return b"RIFF" + whole + content[8 : place + 4] + left.to_bytes(4, "little") + content[place + 8 :]
            return content
        place += 8 + size + size % 2
    return content


def write_sound(path: Path, audio: Samples, rate_hz: int) -> None:
    """Mono float32 [num_samples] as 16-bit audio in the format that the file's ending names, atomically."""
    buffer = io.BytesIO()
    form = path.suffix.removeprefix(".").upper()
    soundfile.write(buffer, audio, rate_hz, format=form, subtype="PCM_16")
    write_atomic(path, buffer.getvalue())
