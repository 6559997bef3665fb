"""Synthetic speech: which voices say it, what is done to the sound, and what of it is refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from salad.recipe.base import FloatRange, Frac, Positive, PositiveRange, Settings


class VoiceSettings(Settings):
    """One voice of a pool. Each utterance draws its voice by `weight`, and a speed and a pitch between their bounds.

    `name` as docs/voices.md lists them. `speed`: 1 is the voice's own, 2 twice as fast. `pitch_semitones` moves the
    pitch and leaves the speed.
    """

    name: str
    weight: Positive = 1.0
    speed: PositiveRange = (1.0, 1.0)
    pitch_semitones: FloatRange = (0.0, 0.0)


class AugmentSettings(Settings):
    """What is done to synthetic speech after it is spoken, each to a share of the utterances; 0: never.

    `noise`: coloured noise at a signal-to-noise ratio in dB. `reverb`: a room with a reverberation time (RT60) in
    seconds. `codec`: coded and decoded again. `telephone`: the band of a telephone line, 300 to 3400 Hz, in mu-law.
    """

    noise_frac: Frac = 0.0
    noise_snr_db: FloatRange = (10.0, 30.0)
    reverb_frac: Frac = 0.0
    reverb_s: PositiveRange = (0.1, 0.6)
    codec_frac: Frac = 0.0
    codecs: tuple[Literal["mp3", "opus"], ...] = ("mp3", "opus")
    codec_kbps: PositiveRange = (12.0, 32.0)
    telephone_frac: Frac = 0.0


class QualitySettings(Settings):
    """Which synthetic utterances are refused; null switches a check off. docs/quality.md has what each was measured on.

    `max_cer`: character error rate of the ASR on an utterance. `seconds_per_character` of its text, letters, digits and
    spaces: slower or faster is babble, or words left out. `max_silence_frac` of its duration, `max_pause_s` the longest
    silence inside it. `max_clipped_frac` of its samples near the highest or the lowest value. `max_end_db`: how loud it
    still is at its end, against its speech; louder was cut off. `max_repeated_words`: how many words in a row the ASR
    may hear again that the text does not repeat.
    """

    max_cer: Positive | None = 0.5
    seconds_per_character: PositiveRange | None = (0.03, 0.18)
    max_silence_frac: Frac | None = 0.7
    max_pause_s: Positive | None = 2.0
    max_clipped_frac: Frac | None = 0.015
    max_end_db: float | None = -20.0
    max_repeated_words: Annotated[int, Field(ge=1)] | None = 3
