"""Which words of an utterance are read as text and which are heard: a pure function of (words, policy, generator).

Policies (METHOD: paper section 3 and the choices in docs/method.md):
    interleaved    text spans of 10-30 words and speech spans of 5-15 words alternate, the first kind drawn at random
    speech_prefix  the first 60 % of the words are heard, the rest is text with loss
    utterance      the whole utterance is heard; the loss is on the text that follows it
    poisson        span lengths drawn from a Poisson distribution, as in SpiritLM (Nguyen et al., 2024)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from salad.errors import DataError
from salad.recipe import SequenceSettings

Kind = Literal["text", "speech"]


@dataclass(frozen=True)
class Span:
    """Words `start` up to but not including `stop`, read as text or heard as speech."""

    kind: Kind
    start: int
    stop: int


def shortened(settings: SequenceSettings, spoken_frac: float) -> SequenceSettings:
    """The settings under which what is heard has `spoken_frac` of its length (`CurriculumSettings`); 1: these."""
    if spoken_frac == 1.0:
        return settings
    low, high = (max(1, round(spoken_frac * words)) for words in settings.speech_words)
    return settings.model_copy(
        update={
            "prefix_frac": spoken_frac * settings.prefix_frac,
            "speech_words": (low, high),
            "poisson_words": max(1.0, spoken_frac * settings.poisson_words),
        }
    )


def plan_spans(num_words: int, settings: SequenceSettings, rng: np.random.Generator) -> list[Span]:
    """The spans of an utterance of `num_words` words, in order, covering every word exactly once.

    Raises:
        DataError: fewer than `min_words` words.
    """
    if num_words < settings.min_words:
        raise DataError(f"{num_words} words, fewer than sequence.min_words={settings.min_words}")
    if settings.policy == "speech_prefix":
        heard = min(num_words - 1, max(1, math.floor(num_words * settings.prefix_frac + 0.5)))
        return [Span("speech", 0, heard), Span("text", heard, num_words)]
    if settings.policy == "utterance":
        return [Span("speech", 0, num_words)]
    return _alternate(num_words, settings, rng)


def _alternate(num_words: int, settings: SequenceSettings, rng: np.random.Generator) -> list[Span]:
    kind: Kind = "speech" if rng.random() < 0.5 else "text"
    spans: list[Span] = []
    start = 0
    while start < num_words:
        if settings.policy == "poisson":
            length = 1 + int(rng.poisson(settings.poisson_words - 1)) if settings.poisson_words > 1 else 1
        else:
            low, high = settings.speech_words if kind == "speech" else settings.text_words
            length = int(rng.integers(low, high + 1))
        stop = min(num_words, start + length)
        spans.append(Span(kind, start, stop))
        start, kind = stop, ("text" if kind == "speech" else "speech")
    return spans
