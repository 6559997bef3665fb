"""What a voice is, and what it gives: speech, and the times of its words when it knows them."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from salad.errors import AudioError

WordTimes = list[tuple[float, float]]
"""When each whitespace-separated word of a text begins and ends, in seconds."""

Range = tuple[float, float]
"""The least and the greatest of what is possible; both the same where nothing can be changed."""

AS_IT_IS: Range = (1.0, 1.0)
"""The speeds of a voice that has one."""

NO_SHIFT: Range = (0.0, 0.0)
"""The semitones of a voice that can't move its pitch."""


class Spoken(NamedTuple):
    """A text's speech, mono float32 [num_samples] within ±1, empty when nothing in it can be spoken.

    With it, when the voice knows, the times of its words.
    """

    audio: NDArray[np.float32]
    words: WordTimes | None = None


class Voice(Protocol):
    """Something that speaks. Not safe for two threads at once; give each worker process its own."""

    @property
    def name(self) -> str:
        """What manifests call it."""

    @property
    def rate_hz(self) -> int:
        """Samples per second of what it speaks."""

    @property
    def speeds(self) -> Range:
        """The speeds it can speak at by itself; 1 is its own, 2 twice as fast. Others are for the caller to stretch."""

    @property
    def semitones(self) -> Range:
        """How far it can move its own pitch by itself, at the same speed. More is for the caller to shift."""

    @property
    def deterministic(self) -> bool:
        """Whether the same text, speed and pitch give the same samples every time."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same text, speed and pitch could sound different: a hash of model and settings."""

    def speak(self, text: str, speed: float = 1.0, semitones: float = 0.0) -> Spoken:
        """The speech of normalized `text`; the times of its words are those of this speed.

        Args:
            text: spoken literally; markup in it is never carried out.
            speed: within `speeds`.
            semitones: within `semitones`.

        Raises:
            AudioError: the voice fails on this text, or `speed` or `semitones` is out of its range.
            AssetError: the voice itself does not work: a corrupt file, a program or server that is not there.
        """


def check_asked(voice: Voice, speed: float, semitones: float) -> None:
    """Refuse a speed or a pitch that a voice can't speak at by itself.

    Raises:
        AudioError: names the voice, what was asked and what it can do.
    """
    asked = (("speed", speed, voice.speeds), ("semitones", semitones, voice.semitones))
    for what, value, (least, most) in asked:
        if not least <= value <= most:
            can = f"{least:g} to {most:g}" if least < most else f"{least:g} alone"
            raise AudioError(f"voice {voice.name} can't speak with {what} {value:g} by itself, but with {can}.")


def literal(text: str) -> str:
    """`text` without what speech programs take for commands: control characters and doubled square brackets.

    espeak's library, which Piper and Kokoro share, obeys \\x01 and reads [[…]] as phonemes; a C string ends at \\0. The
    words of the text stay its words; markup with < and > is left for a voice to read out as the signs it is made of.
    """
    plain = "".join(
        " " if letter.isspace() else letter for letter in text if letter.isspace() or not _is_control(letter)
    )
    return plain.replace("[[", "[ [").replace("]]", "] ]")


def _is_control(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs")
