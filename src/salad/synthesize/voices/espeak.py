"""espeak-ng: a formant synthesizer, robotic and always at hand. Runs the installed command line."""

from __future__ import annotations

import hashlib
import math
import subprocess
from functools import cached_property

import numpy as np

from salad.errors import AssetError, AudioError
from salad.synthesize.voices.program import installed, run
from salad.synthesize.voices.voice import Range, Spoken, check_asked, literal
from salad.synthesize.voices.wave import decoded

_WORDS_PER_MINUTE = 175  # espeak-ng's own
_MEAN_OVER_BASE = 1.48
"""The mean pitch of the voice en-us over the part of it that -p scales (pitch_adjust_tab, 2^((p − 50) / 50)); the rest
is its melody. Measured by autocorrelation on eight sentences at ten settings: 1.43 to 1.49 but for the lowest."""


class EspeakVoice:
    """One of espeak-ng's voices, by espeak's own name for it ("en-us", "en-gb+f3", …).

    Raises:
        AssetError: the espeak-ng program is not installed.
    """

    speeds: Range = (0.5, 2.0)
    semitones: Range = (-5.0, 8.0)
    deterministic = True
    rate_hz = 22_050
    """What espeak-ng's built-in voices speak at; `speak` checks it."""

    def __init__(self, voice: str = "en-us") -> None:
        self._program = installed("espeak-ng", "install your system's espeak-ng package")
        self._voice = voice

    @property
    def name(self) -> str:
        """For instance "espeak-ng:en-us"."""
        return f"espeak-ng:{self._voice}"

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the voice's name and of what the program says of its version."""
        done = subprocess.run([self._program, "--version"], capture_output=True, check=False, text=True)
        if done.returncode != 0:
            raise AssetError(f"{self._program} does not run ({done.stderr.strip()}); install espeak-ng again.")
        # the version line ends in where the data lies, which changes nothing
        return hashlib.sha256(f"{self.name}\n{done.stdout.partition('Data at')[0]}".encode()).hexdigest()

    def speak(self, text: str, speed: float = 1.0, semitones: float = 0.0) -> Spoken:
        """The speech of normalized `text`, without word times: the command line does not tell them.

        Raises:
            AudioError: espeak-ng fails; the message is its own.
            AssetError: it has no such voice.
        """
        check_asked(self, speed, semitones)
        scale = 1.0 + _MEAN_OVER_BASE * (2.0 ** (semitones / 12) - 1.0)
        pitch = min(99, max(0, round(50 + 50 * math.log2(scale))))
        command = [self._program, "-v", self._voice, "-b", "1", "-s", str(round(_WORDS_PER_MINUTE * speed))]
        try:
            wav = run([*command, "-p", str(pitch), "--stdin", "--stdout"], text, literal(text).encode())
        except AudioError as error:
            if "voice does not exist" not in str(error):
                raise
            raise AssetError(
                f"espeak-ng has no voice {self._voice!r}; 'espeak-ng --voices' lists what it has."
            ) from error
        if not wav:
            return Spoken(np.zeros(0, dtype=np.float32))
        audio, rate_hz = decoded(wav, f"espeak-ng voice {self._voice!r}")
        if rate_hz != self.rate_hz:
            raise AudioError(f"espeak-ng voice {self._voice!r} gave no {self.rate_hz} Hz WAV; name another voice.")
        return Spoken(audio)
