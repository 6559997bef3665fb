"""flite: Carnegie Mellon's small synthesizer, by its command line; quick, plain, four speakers."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from functools import cached_property
from pathlib import Path

import numpy as np

from salad.errors import AssetError
from salad.synthesize.voices.program import installed, run
from salad.synthesize.voices.voice import NO_SHIFT, Range, Spoken, check_asked, literal
from salad.synthesize.voices.wave import decoded

_RATES_HZ = {"kal": 8_000, "kal16": 16_000, "awb": 16_000, "rms": 16_000, "slt": 16_000}
VOICES = tuple(_RATES_HZ)
"""What flite has built in, but awb_time, which can only tell the time."""


class FliteVoice:
    """One of flite's built-in voices: slt (a woman), rms, awb (Scottish), kal and kal16 (robotic).

    Raises:
        AssetError: flite is not installed, or was built without this voice.
    """

    speeds: Range = (0.5, 2.0)
    semitones: Range = NO_SHIFT
    deterministic = True

    def __init__(self, voice: str = "slt") -> None:
        if voice not in VOICES:  # flite itself speaks with another voice and says nothing
            raise AssetError(f"flite has no voice {voice!r}; choose {', '.join(VOICES)}.")
        self._program = installed("flite", "install your system's flite package")
        self._voice = voice

    @property
    def name(self) -> str:
        """For instance "flite:slt"."""
        return f"flite:{self._voice}"

    @property
    def rate_hz(self) -> int:
        """8,000 for kal, 16,000 for all others."""
        return _RATES_HZ[self._voice]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the voice's name and of what the program says of its version."""
        told = [self._asked("--version"), self._asked("-lv")]
        if self._voice not in told[1].split():
            raise AssetError(f"this flite has no voice {self._voice!r}, but {told[1].partition(':')[2].strip()}.")
        return hashlib.sha256("\n".join([self.name, *told]).encode()).hexdigest()

    def _asked(self, option: str) -> str:  # it answers --version with exit code 1
        return subprocess.run([self._program, option], capture_output=True, check=False, text=True).stdout

    def speak(self, text: str, speed: float = 1.0, semitones: float = 0.0) -> Spoken:
        """The speech of normalized `text`, without word times.

        Raises:
            AudioError: flite fails; the message is its own.
        """
        check_asked(self, speed, semitones)
        with tempfile.TemporaryDirectory(prefix="salad-flite-") as folder:
            words, wav = Path(folder) / "text", Path(folder) / "speech.wav"
            words.write_text(literal(text), encoding="utf-8")
            command = [self._program, "-voice", self._voice, "--setf", f"duration_stretch={1 / speed:.6f}"]
            run([*command, "-f", str(words), "-o", str(wav)], text, None)
            content = wav.read_bytes() if wav.is_file() else b""
        if len(content) <= 44:  # no more than a header: nothing in the text is spoken
            return Spoken(np.zeros(0, dtype=np.float32))
        return Spoken(decoded(content, self.name)[0])
