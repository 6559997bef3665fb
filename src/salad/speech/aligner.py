"""What an aligner is: it says when each word of a *given* transcript is spoken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from salad.errors import AlignmentError, DataError
from salad.speech.audio import Samples
from salad.texts.normalize import spoken_form

RATE_HZ = 16_000
"""What every aligner hears."""
SHORTEST_WORD_S = 0.02


class PlacedWord(NamedTuple):
    """When a word is spoken, in seconds from the clip's start, and how sure the aligner is of it.

    The confidence is a probability (0-1) where the aligner's model has one for the word, else None. Confidences of two
    aligners can't be compared.
    """

    start_s: float
    end_s: float
    confidence: float | None


class Aligner(Protocol):
    """Something that places words."""

    @property
    def name(self) -> str:
        """What reports and cuts call it."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same speech and words could be placed differently: a hash of model and settings."""

    @property
    def english_only(self) -> bool:
        """Whether it would take words of any language for English."""

    def align(self, audio: Samples, words: Sequence[str]) -> list[PlacedWord]:
        """When each of `words` is spoken in `audio` [num_samples] at `RATE_HZ`.

        One entry a word, in order, none overlapping the next, each at least `SHORTEST_WORD_S` long and in the clip.

        Raises:
            AlignmentError: the words can't be placed.
        """


def check_language(aligner: Aligner, language: str | None) -> None:
    """Refuse speech that is said to be in a language that the aligner doesn't know.

    Args:
        aligner: who is to place the words.
        language: an English name or a code, with or without a region ("English", "en-US"); None: not stated.

    Raises:
        AlignmentError: English is all it knows, and that is something else.
    """
    if aligner.english_only and language and re.split(r"[-_ ]", language.lower())[0] not in ("en", "eng", "english"):
        raise AlignmentError(
            f"{aligner.name} places English words, and the language is {language!r}; align it with ctc:MODEL, of a "
            "model for that language."
        )


def check_room(words: Sequence[str], duration_s: float) -> None:
    """Refuse what no aligner can place.

    Raises:
        AlignmentError: no words, or more than the clip has room for.
    """
    if not words:
        raise AlignmentError("the transcript is empty, so there is nothing to align; leave the utterance out.")
    if len(words) * SHORTEST_WORD_S > duration_s:
        raise AlignmentError(
            f"{len(words)} words do not fit into {duration_s:.2f} s of speech; do text and audio belong together?"
        )


def spread(placed: Sequence[PlacedWord], duration_s: float) -> list[PlacedWord]:
    """Near times at which no word overlaps the next, none is under `SHORTEST_WORD_S`, and all are in the clip."""
    starts, ends = [word.start_s for word in placed], [word.end_s for word in placed]
    free_s = 0.0
    for i in range(len(placed)):
        starts[i] = max(starts[i], free_s)
        ends[i] = free_s = max(ends[i], starts[i] + SHORTEST_WORD_S)
    limit_s = duration_s
    for i in reversed(range(len(placed))):
        ends[i] = min(ends[i], limit_s)
        starts[i] = limit_s = min(starts[i], ends[i] - SHORTEST_WORD_S)
    return [PlacedWord(max(0.0, s), e, word.confidence) for s, e, word in zip(starts, ends, placed, strict=True)]


def in_words(word: str) -> str:
    """A word of a transcript with its digits as words: "42nd" → "forty-second".

    Empty when it is a mark of something else than a word: "<noise>".
    """
    if word.startswith("<") and word.endswith(">"):
        return ""
    if any(letter.isdigit() for letter in word):
        with suppress(DataError):
            word = spoken_form(word)
    return word.replace("\u2019", "'")
