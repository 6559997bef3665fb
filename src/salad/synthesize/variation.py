"""Which voice speaks a text, how fast and how high: drawn for each text by itself, and made where a voice can't.

A draw is a pure function of the seed and the text's words: the same text sounds the same in any order, beside any other
texts, on any number of workers. Another voice in the pool takes texts over from the others and moves none between them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr

from salad.errors import RecipeError
from salad.randomness import generator
from salad.speech.audio import Samples
from salad.synthesize.augment import Augmentation, draw_augmentation
from salad.synthesize.ffmpeg import filtered
from salad.synthesize.voices.voice import Spoken, Voice

if TYPE_CHECKING:  # a worker needs no settings
    from salad.recipe import AugmentSettings, VoiceSettings

SLOWEST, FASTEST = 0.5, 2.0
"""What can be asked of a voice; beyond, speech is no longer understood."""
MOST_SEMITONES = 12.0


@dataclass(frozen=True)
class Utterance:
    """A text in words, and everything that makes its sound: the same utterance is the same bytes.

    Attributes:
        text: what is spoken.
        voice: the voice's name, as `load_voice` knows it.
        speed: 1 is the voice's own.
        semitones: how much higher than the voice's own pitch, at the same speed.
        augmentation: what is done to the sound.
    """

    text: str
    voice: str
    speed: float = 1.0
    semitones: float = 0.0
    augmentation: Augmentation | None = None

    def changes(self) -> dict[str, Any]:
        """What is not plain about it; empty of an utterance as the voice speaks it."""
        found: dict[str, Any] = {}
        if self.speed != 1.0:
            found["speed"] = self.speed
        if self.semitones != 0.0:
            found["pitch_semitones"] = self.semitones
        if self.augmentation is not None:
            found["augmentation"] = self.augmentation.as_dict()
        return found

    def file_name(self, fingerprint: str) -> str:
        """Its name by its sound: sha256(the voice's fingerprint | text | what is not plain), 16 hex digits."""
        changes = self.changes()
        varied = f"|{json.dumps(changes, sort_keys=True)}" if changes else ""
        return hashlib.sha256(f"{fingerprint}|{self.text}{varied}".encode()).hexdigest()[:16]


def check_voices(voices: Sequence[VoiceSettings]) -> None:
    """Refuse a pool that can't be drawn from.

    Raises:
        RecipeError: it is empty, names a voice twice, or asks for a speed or pitch that nobody would understand.
    """
    if not voices:
        raise RecipeError("no voice is given; name one, for instance piper-joe.")
    names = [voice.name for voice in voices]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(
                f"the voice {name!r} stands twice in the pool; give it once, with the sum of its weights."
            )
    for voice in voices:
        (slow, fast), (low, high) = voice.speed, voice.pitch_semitones
        if not SLOWEST <= slow <= fast <= FASTEST:
            raise RecipeError(
                f"voice {voice.name!r}: a speed of {slow:g} to {fast:g}; {SLOWEST:g} to {FASTEST:g} can be had."
            )
        if not -MOST_SEMITONES <= low <= high <= MOST_SEMITONES:
            raise RecipeError(
                f"voice {voice.name!r}: a pitch of {low:g} to {high:g} semitones; {-MOST_SEMITONES:g} to "
                f"{MOST_SEMITONES:g} can be had."
            )


def drawn(text: str, voices: Sequence[VoiceSettings], seed: int, augment: AugmentSettings | None = None) -> Utterance:
    """The utterance of a text: its voice by weight, speed and pitch uniformly between the voice's bounds, augmentation.

    Each voice draws a time to be ready, exponential with its weight for a rate; the first one speaks. That is a draw by
    weight in which each voice's own luck does not depend on who else is there.
    """
    ready = [generator(seed, "voice", voice.name, text).exponential() / voice.weight for voice in voices]
    voice = voices[int(np.argmin(ready))]
    chance = generator(seed, "speed and pitch", voice.name, text)
    speed, semitones = chance.uniform(*voice.speed), chance.uniform(*voice.pitch_semitones)
    augmentation = draw_augmentation(text, augment, seed)
    return Utterance(text, voice.name, round(speed, 3), round(semitones, 2), augmentation)


def spoken(voice: Voice, utterance: Utterance) -> Spoken:
    """The voice's speech of an utterance's text at its speed and pitch, before any augmentation.

    What the voice can't do by itself is done to its sound afterwards, and its word times move along.

    Raises:
        AudioError, AssetError: as `Voice.speak`.
    """
    if utterance.speed == 1.0 and utterance.semitones == 0.0:
        return voice.speak(utterance.text)
    own_speed = min(max(utterance.speed, voice.speeds[0]), voice.speeds[1])
    own_semitones = min(max(utterance.semitones, voice.semitones[0]), voice.semitones[1])
    audio, words = voice.speak(utterance.text, own_speed, own_semitones)
    speed, semitones = utterance.speed / own_speed, utterance.semitones - own_semitones
    if words is not None:
        words = [(start_s / speed, end_s / speed) for start_s, end_s in words]
    return Spoken(stretched(audio, voice.rate_hz, speed, semitones), words)


def stretched(audio: Samples, rate_hz: int, speed: float, semitones: float) -> Samples:
    """Speech [num_samples] `speed` times as fast and `semitones` higher: [round(num_samples / speed)].

    Played 2^(semitones/12) times as fast, which moves the formants along with the pitch, as a smaller or larger speaker
    has them; then brought to its duration by FFmpeg's atempo, which repeats or leaves out periods of the voice (WSOLA).
    """
    if (speed == 1.0 and semitones == 0.0) or len(audio) == 0:
        return audio
    factor = 2.0 ** (semitones / 12)
    if semitones:
        audio = np.asarray(soxr.resample(audio, rate_hz * factor, rate_hz), dtype=np.float32)
        target = round(len(audio) * factor / speed)
    else:
        target = round(len(audio) / speed)
    tempo = speed / factor
    if not math.isclose(tempo, 1.0):
        audio = filtered(audio, rate_hz, "atempo", f"{tempo:.9f}")
    return np.pad(audio, (0, max(0, target - len(audio))))[:target]
