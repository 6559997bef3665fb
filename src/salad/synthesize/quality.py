"""Does the synthetic speech say its text? Character error rate of a recognizer against it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lhotse import MonoCut
from rapidfuzz.distance import Levenshtein

from salad.speech.aligner import RATE_HZ
from salad.speech.audio import load_cut
from salad.speech.prepared import text_of
from salad.speech.recognize import Recognizer


class Misspoken(NamedTuple):
    """A cut whose speech was heard as something else."""

    cut_id: str
    cer: float
    hypothesis: str


def for_comparison(text: str) -> str:
    """What of a text is compared: compatibility form (NFKC), lower case, letters and digits of words, single spaces.

    Apostrophes vanish ("don't" → "dont"); every other mark separates words ("well-known" → "well known").
    """
    plain = unicodedata.normalize("NFKC", text).lower().replace("'", "").replace("\u2019", "")
    return " ".join("".join(letter if letter.isalnum() else " " for letter in plain).split())


def character_error_rate(reference: str, hypothesis: str) -> float:
    """Character edit distance of the two texts, compared as `for_comparison` leaves them, over the reference's length.

    0 for equal texts; over 1 when far more was heard than said. Of an empty reference it is the number of characters
    heard.
    """
    said, heard = for_comparison(reference), for_comparison(hypothesis)
    return Levenshtein.distance(said, heard) / max(1, len(said))


def check_cuts(
    cuts: Sequence[MonoCut],
    recognizer: Recognizer,
    max_cer: float,
    progress: Callable[[int, int], None] | None = None,
) -> list[Misspoken]:
    """The cuts that the recognizer hears with a character error rate above `max_cer`, in order.

    Numbers are recognized as words, as a normalized text has them; otherwise every "42" would count as an error.

    Raises:
        AudioError, MissingFileError: a cut's audio can't be read.
    """
    misspoken = []
    for number, cut in enumerate(cuts, start=1):
        hypothesis = recognizer.transcribe(load_cut(cut, RATE_HZ), spell_numbers=True)
        cer = character_error_rate(text_of(cut), hypothesis)
        if cer > max_cer:
            misspoken.append(Misspoken(cut.id, cer, hypothesis))
        if progress is not None:
            progress(number, len(cuts))
    return misspoken
