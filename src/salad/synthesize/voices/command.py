"""Any program as a voice: `command:TEMPLATE`, a command line that reads a text and gives a WAV."""

from __future__ import annotations

import hashlib
import re
import shlex
import tempfile
from functools import cached_property
from pathlib import Path

from salad.errors import AssetError, AudioError
from salad.speech.audio import resample
from salad.synthesize.voices.program import installed, run, shortened
from salad.synthesize.voices.voice import AS_IT_IS, NO_SHIFT, Range, Spoken, check_asked, literal
from salad.synthesize.voices.wave import decoded

RATE_HZ = 24_000
_LIMIT_S = 300
_PLACES = ("text_file", "out", "speed")


class CommandVoice:
    """What a command line of the user's speaks, brought to 24 kHz.

    The template is split into arguments as a shell would (`shlex`), and no shell runs: `|`, `;` and `$(…)` are
    arguments like any other, in the template and in texts. `{text_file}` stands for a UTF-8 file with the text (without
    it the text is on standard input), `{out}` for the WAV to write (without it the WAV is read from standard output),
    `{speed}` for the speed, 1 being the voice's own (without it the voice has one).

    Raises:
        AssetError: the template can't be split, has another {place}, or its program is not installed.
    """

    rate_hz = RATE_HZ
    semitones: Range = NO_SHIFT
    deterministic = False  # nobody knows what a program does

    def __init__(self, template: str) -> None:
        try:
            self._arguments = shlex.split(template)
        except ValueError as error:
            raise AssetError(f"the voice command:{template} can't be split into arguments ({error}).") from error
        if not self._arguments:
            raise AssetError("the voice 'command:' names no program; write command:PROGRAM ARGUMENTS.")
        strange = set(re.findall(r"{(\w*)}", " ".join(self._arguments))) - set(_PLACES)
        if strange:
            known = ", ".join(f"{{{place}}}" for place in _PLACES)
            raise AssetError(
                f"the voice command:{template} has {{{min(strange)}}}; there are {known}, and a text is never an "
                "argument: it could be taken for an option."
            )
        self._template = template
        self._program = installed(self._arguments[0], "correct the voice's name or install it")

    @property
    def name(self) -> str:
        """The template, after "command:"."""
        return f"command:{self._template}"

    @property
    def speeds(self) -> Range:
        """0.5 to 2 where the template has {speed}."""
        return (0.5, 2.0) if "{speed}" in self._template else AS_IT_IS

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the template and of the program's own file; what else the program reads is not seen."""
        digest = hashlib.sha256(f"command at {RATE_HZ} {self._arguments}".encode())
        with Path(self._program).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def speak(self, text: str, speed: float = 1.0, semitones: float = 0.0) -> Spoken:
        """The speech of normalized `text`, without word times.

        Raises:
            AudioError: the program fails, takes over five minutes, or gives no WAV.
        """
        check_asked(self, speed, semitones)
        said = literal(text).encode()
        with tempfile.TemporaryDirectory(prefix="salad-command-") as folder:
            text_file, out = Path(folder) / "text.txt", Path(folder) / "speech.wav"
            text_file.write_bytes(said)
            places = {"{text_file}": str(text_file), "{out}": str(out), "{speed}": f"{speed:g}"}
            command = [self._program, *(_filled(argument, places) for argument in self._arguments[1:])]
            wav = run(command, text, None if "{text_file}" in self._template else said, limit_s=_LIMIT_S)
            if "{out}" in self._template:
                if not out.is_file():
                    raise AudioError(f"{command[0]} wrote no WAV to {{out}} for {shortened(text)}.")
                wav = out.read_bytes()
        audio, rate_hz = decoded(wav, f"{command[0]} for {shortened(text)}")
        return Spoken(resample(audio, rate_hz, RATE_HZ).clip(-1.0, 1.0))


def _filled(argument: str, places: dict[str, str]) -> str:
    return re.sub(r"{\w+}", lambda found: places[found[0]], argument)
