"""espeak-ng: a formant synthesizer, robotic and always at hand. Runs the installed command line."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
from functools import cached_property

import numpy as np
import soundfile
from numpy.typing import NDArray

from salad.errors import AssetError, AudioError
from salad.synthesize.voices.voice import Spoken

_LONGEST_RUN_S = 60


class EspeakVoice:
    """One of espeak-ng's voices, by espeak's own name for it ("en-us", "en-gb+f3", …).

    Raises:
        AssetError: the espeak-ng program is not installed.
    """

    def __init__(self, voice: str = "en-us") -> None:
        program = shutil.which("espeak-ng")
        if program is None:
            raise AssetError("the program espeak-ng is not installed; install your system's espeak-ng package.")
        self._program = program
        self._voice = voice

    @property
    def name(self) -> str:
        """For instance "espeak-ng:en-us"."""
        return f"espeak-ng:{self._voice}"

    @property
    def rate_hz(self) -> int:
        """22,050: what espeak-ng's built-in voices speak at; `speak` checks it."""
        return 22_050

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the voice's name and of what the program says of its version."""
        done = subprocess.run([self._program, "--version"], capture_output=True, check=False, text=True)
        if done.returncode != 0:
            raise AssetError(f"{self._program} does not run ({done.stderr.strip()}); install espeak-ng again.")
        # the version line ends in where the data lies, which changes nothing
        return hashlib.sha256(f"{self.name}\n{done.stdout.partition('Data at')[0]}".encode()).hexdigest()

    def speak(self, text: str) -> Spoken:
        """The speech of normalized `text`, without word times: the command line does not tell them.

        Raises:
            AudioError: espeak-ng fails; the message is its own.
        """
        command = [self._program, "-v", self._voice, "-b", "1", "--stdin", "--stdout"]
        try:
            done = subprocess.run(
                command, input=text.encode(), capture_output=True, check=False, timeout=_LONGEST_RUN_S
            )
        except subprocess.TimeoutExpired as error:
            raise AudioError(f"espeak-ng did not finish within {_LONGEST_RUN_S} s on {text[:60]!r}.") from error
        if done.returncode != 0:
            message = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
            raise AudioError(f"espeak-ng can't speak {text[:60]!r} with voice {self._voice!r}: {message}.")
        return Spoken(self._decode(done.stdout) if done.stdout else np.zeros(0, dtype=np.float32))

    def _decode(self, wav: bytes) -> NDArray[np.float32]:
        # In a pipe the WAV header can't know the length; what follows its 44 bytes is taken as raw samples.
        if wav[:4] != b"RIFF" or int.from_bytes(wav[24:28], "little") != self.rate_hz:
            raise AudioError(f"espeak-ng voice {self._voice!r} gave no {self.rate_hz} Hz WAV; name another voice.")
        audio, _ = soundfile.read(
            io.BytesIO(wav[44:]), dtype="float32", format="RAW", samplerate=self.rate_hz, channels=1, subtype="PCM_16"
        )
        return np.asarray(audio, dtype=np.float32)
