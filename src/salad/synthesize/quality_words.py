"""What of a text was said: the character error rate of what the ASR heard, and words that it heard again and again."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein


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


def repeated_words(text: str, hypothesis: str) -> int:
    """The longest run of words that was heard at least twice, and more often than it stands in the text; 0: none.

    Both as `for_comparison` leaves them; two occurrences may overlap. A voice that loops or babbles says
    "a coating for a coating for a coating for ceramics", of which "a coating for a coating for" (6) is heard twice.
    """
    said, heard = for_comparison(text).split(), for_comparison(hypothesis).split()
    longest = 0
    for length in range(1, len(heard)):
        again = {run: count for run, count in _runs(heard, length).items() if count > 1}
        if not again:
            break
        written = _runs(said, length)
        if any(count > written[run] for run, count in again.items()):
            longest = length
    return longest


def _runs(words: Sequence[str], length: int) -> Counter[tuple[str, ...]]:
    """How often each run of so many words occurs."""
    return Counter(tuple(words[start : start + length]) for start in range(len(words) - length + 1))
