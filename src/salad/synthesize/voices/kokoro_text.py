"""Text → the signs Kokoro reads: English phonemes by espeak, written in the alphabet it was trained with, in pieces.

The alphabet is misaki's: a diphthong or an affricate is one letter (A, I, O, W, Y, ʤ, ʧ), American vowels have no
length mark, and the flap of "water" is T. A sign the model does not know is left out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from piper.phonemize_espeak import EspeakPhonemizer

MOST_SIGNS = 510
"""What the model takes at once: its context of 512 without the marks of begin and end."""

_BOTH = (
    ("ʔˌn\u0329", "tn"), ("ʔn\u0329", "tn"), ("n\u0329", "ᵊn"), ("l\u0329", "ᵊl"), ("m\u0329", "ᵊm"), ("\u0329", ""),
    ("aɪ", "I"), ("aʊ", "W"), ("eɪ", "A"), ("ɔɪ", "Y"), ("dʒ", "ʤ"), ("tʃ", "ʧ"), ("ɚ", "əɹ"), ("ʲ", ""),
    ("ɬ", "l"), ("r", "ɹ"), ("x", "k"), ("ç", "k"), ("ɐ", "ə"),
)  # fmt: skip
_AMERICAN = (*_BOTH, ("oʊ", "O"), ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("ː", ""))
_BRITISH = (*_BOTH, ("əʊ", "Q"), ("eə", "ɛː"), ("iə", "ɪə"))
_AT_LAST = (("e", "A"), ("o", "ɔ"), ("ɾ", "T"), ("ʔ", "t"), ("\u0303", ""))
_SYLLABIC_L = re.compile("əl(?![ˈˌ]?[aeiouæɑɒɔəɛɜɪʊʌᵻAIOQWY])")
_BREAKS = (".!?…", ":;,—", " ")  # where a piece may end, the best first


class KokoroText:
    """English as Kokoro's signs.

    Args:
        vocabulary: the model's number of each sign.
        british: British pronunciation, for the voices whose names begin with b.
    """

    def __init__(self, vocabulary: Mapping[str, int], british: bool = False) -> None:
        self._vocabulary = vocabulary
        self._british = british

    def signs(self, text: str) -> str:
        """The signs of a text, sentence after sentence, each in the vocabulary; none where there are marks alone."""
        voice = "en-gb-x-rp" if self._british else "en-us"
        sentences = ("".join(sentence).strip() for sentence in self._espeak.phonemize(voice, text))
        signs = in_kokoros_alphabet(" ".join(filter(None, sentences)), self._british)
        known = "".join(sign for sign in signs if sign in self._vocabulary)
        return known if any(map(str.isalpha, known)) else ""

    def ids(self, signs: str) -> list[int]:
        """The model's numbers of signs, with the mark of begin and end, 0, around them."""
        return [0, *(self._vocabulary[sign] for sign in signs), 0]

    @cached_property
    def _espeak(self) -> EspeakPhonemizer:
        from piper.phonemize_espeak import EspeakPhonemizer

        return EspeakPhonemizer()


def in_kokoros_alphabet(phonemes: str, british: bool = False) -> str:
    """espeak's English phonemes in the alphabet Kokoro was trained with."""
    signs = unicodedata.normalize("NFC", phonemes)
    for old, new in (*(_BRITISH if british else _AMERICAN), *_AT_LAST):
        signs = signs.replace(old, new)
    return _SYLLABIC_L.sub("ᵊl", signs)


def pieces(signs: str, most: int = MOST_SIGNS) -> list[str]:
    """`signs` in pieces of at most `most`; they hold every sign but the spaces between them.

    A piece ends at a sentence's end, else at a clause's, else at a word's, as late as can be; a longer word is cut.
    """
    found: list[str] = []
    rest = signs.strip()
    while len(rest) > most:
        end = _last_break(rest[: most + 1])
        found.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return [*found, rest] if rest else found


def _last_break(signs: str) -> int:
    """How many of `signs`, one more than fit, the first piece holds."""
    for marks in _BREAKS:
        ends = [place for place, sign in enumerate(signs[:-1], 1) if sign in marks]
        if ends and (marks == " " or ends[-1] >= len(signs) // 4):  # a piece of three words sounds like an outcry
            return ends[-1]
    return len(signs) - 1
