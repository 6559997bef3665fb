"""Forced alignment of US English by the phone models that PocketSphinx brings along: small, quick, and near the sound.

Every word's pronunciations come from its dictionary (CMUdict, 126,000 words); a word that isn't in it is pronounced by
espeak-ng, which the Piper voices bring along, so nothing has to be left out. A hidden Markov model of the words in
their order, with optional silence and noise between them, is matched to the sound at 100 frames a second.

A word's confidence is the mean over its frames of how likely its sounds are against the likeliest sound of each frame
(geometric, 0-1): about 0.3 for words that are spoken clearly (the right sounds are seldom the best of all for long),
0.02 for words that are not spoken.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from salad.errors import AlignmentError
from salad.speech.aligner import RATE_HZ, PlacedWord, check_room, in_words, spread
from salad.speech.audio import Samples

if TYPE_CHECKING:
    from piper.phonemize_espeak import EspeakPhonemizer
    from pocketsphinx import Decoder

FRAME_HZ = 100
WINDOW_S = 0.025625
LEAD_S = (WINDOW_S - 1 / FRAME_HZ) / 2
"""A frame stands for the 10 ms in the middle of the 25.6 ms that it hears."""
SCORE_SCALE = 1 << 10
"""PocketSphinx keeps acoustic scores without their last ten bits, and hands them out so."""
BEAM = 1e-120
"""How far below the best a path may fall and still be followed. With PocketSphinx's own, 1e-48, hesitant speech loses
it at the first cough; this one takes 20 % longer. Confidences depend on it."""

# espeak's symbols for US English → the dictionary's; the longest fits first.
_ARPABET = {
    "ɚɹ": "ER", "ɜːɹ": "ER", "aɪ": "AY", "aʊ": "AW", "ɔɪ": "OY", "eɪ": "EY", "oʊ": "OW", "iː": "IY", "uː": "UW",
    "ɑː": "AA", "ɔː": "AO", "oː": "AO", "ɜː": "ER", "i": "IY", "ɪ": "IH", "ᵻ": "IH", "e": "EY", "ɛ": "EH", "æ": "AE",
    "a": "AA", "ɑ": "AA", "ɒ": "AA", "ɔ": "AO", "o": "OW", "ʊ": "UH", "u": "UW", "ʌ": "AH", "ə": "AH", "ɐ": "AH",
    "ɚ": "ER", "ɜ": "ER", "n\u0329": "AH N", "tʃ": "CH", "dʒ": "JH", "p": "P", "b": "B", "t": "T", "d": "D", "k": "K",
    "ɡ": "G", "f": "F", "v": "V", "θ": "TH", "ð": "DH", "s": "S", "z": "Z", "ʃ": "SH", "ʒ": "ZH", "h": "HH", "m": "M",
    "n": "N", "ŋ": "NG", "l": "L", "ɫ": "L", "ɹ": "R", "r": "R", "ɾ": "T", "j": "Y", "w": "W", "ʔ": "T", "x": "K",
}  # fmt: skip
_SYMBOL = re.compile("|".join(sorted(_ARPABET, key=len, reverse=True)))


class _Heard(NamedTuple):
    """A word of the dictionary in the sound: its first and one past its last frame, and the log of its likelihood."""

    word: str
    begin: int
    end: int
    log_likelihood: float


class SphinxAligner:
    """Places US English words by PocketSphinx."""

    def __init__(self) -> None:
        self._decoder = _decoder()

    @property
    def name(self) -> str:
        """Always "pocketsphinx"."""
        return "pocketsphinx"

    @property
    def english_only(self) -> bool:
        """Yes: its phone models are of US English."""
        return True

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the versions of PocketSphinx, which has its models in it, and of Piper, and of the settings."""
        made_of = (version("pocketsphinx"), version("piper-tts"), BEAM, LEAD_S, sorted(_ARPABET.items()))
        return hashlib.sha256(repr(made_of).encode()).hexdigest()

    def align(self, audio: Samples, words: Sequence[str]) -> list[PlacedWord]:
        """When each of `words` is spoken in `audio` [num_samples] at 16 kHz; see `salad.speech.aligner.Aligner`.

        A word of no Latin letter goes between its neighbours, without confidence.

        Raises:
            AlignmentError: no words, none that can be pronounced, or no path of the words through the sound.
        """
        duration_s = len(audio) / RATE_HZ
        check_room(words, duration_s)
        parts = [self._known(word) for word in words]
        text = [part for word in parts for part in word]
        if not text:
            raise AlignmentError("no word of the transcript has a Latin letter; pocketsphinx places English words.")
        heard = iter(self._heard(audio, text))
        placed: list[PlacedWord] = []
        for word in parts:
            own = [next(heard) for _ in word]
            placed.append(_placed(own) if own else _between(placed))
        return spread(placed, duration_s)

    def _heard(self, audio: Samples, text: list[str]) -> list[_Heard]:
        """The words of `text`, all in the dictionary, in the sound."""
        pcm = np.round(np.clip(audio, -1.0, 1.0) * 32767).astype(np.int16).tobytes()
        try:
            self._decoder.set_align_text(" ".join(text))
            with warnings.catch_warnings():
                # It is said to be needless, but without it an utterance's scores depend on the one before.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._decoder.start_stream()
            self._decoder.start_utt()
            self._decoder.process_raw(pcm, full_utt=True)
            self._decoder.end_utt()
        except RuntimeError as error:
            self._decoder = _decoder()  # this one is still in the middle of the utterance
            raise AlignmentError(f"pocketsphinx can't work on it ({error}); leave the utterance out.") from error
        found = self._decoder.seg() if self._decoder.hyp() is not None else ()
        heard = [
            _Heard(_base(s.word), s.start_frame, s.end_frame + 1, SCORE_SCALE * math.log(s.ascore))
            for s in found
            if s.word[0] not in "<["  # silence and noise
        ]
        if [part.word for part in heard] != text:
            raise AlignmentError(
                f"the {len(text)} words are not found in the speech in their order; do text and audio belong together?"
            )
        return heard

    def _known(self, word: str) -> list[str]:
        """A word as entries of the dictionary; what is missing there is added, as espeak pronounces it."""
        bare = "".join(c for c in unicodedata.normalize("NFKD", in_words(word)) if not unicodedata.combining(c))
        known: list[str] = []
        for part in re.findall(r"'?[a-z][a-z']*", bare.lower()):
            for form in (part, part.strip("'")):
                if self._decoder.lookup_word(form) is not None:
                    known.append(form)
                    break
            else:
                if self._add(part.strip("'")):
                    known.append(part.strip("'"))
        return known

    def _add(self, word: str) -> bool:
        phonemes = "".join(symbol for part in self._espeak.phonemize("en-us", word) for symbol in part)
        pronunciation = arpabet(phonemes)
        if pronunciation:
            self._decoder.add_word(word, pronunciation, False)
        return bool(pronunciation)

    @cached_property
    def _espeak(self) -> EspeakPhonemizer:
        from piper.phonemize_espeak import EspeakPhonemizer

        return EspeakPhonemizer()


def _decoder() -> Decoder:
    import pocketsphinx

    return pocketsphinx.Decoder(
        lm=None,
        bestpath=False,  # its second search, over the lattice of the first, may leave words out at the end
        samprate=RATE_HZ,
        loglevel="FATAL",
        beam=BEAM,
        pbeam=BEAM,
        wbeam=BEAM**0.6,
    )


def arpabet(phonemes: str) -> str:
    """espeak's phonemes of US English as the dictionary writes them: "wˈɜːd" → "W ER D"; stress is dropped."""
    plain = "".join(symbol for symbol in phonemes if symbol not in "ˈˌ ")
    return " ".join(_ARPABET[symbol] for symbol in _SYMBOL.findall(plain))


def _base(entry: str) -> str:
    """A dictionary entry without the number of its pronunciation: "the(2)" → "the"."""
    return entry.partition("(")[0]


def _placed(own: Iterable[_Heard]) -> PlacedWord:
    parts = list(own)
    num_frames = sum(part.end - part.begin for part in parts)
    confidence = math.exp(sum(part.log_likelihood for part in parts) / num_frames)
    return PlacedWord(parts[0].begin / FRAME_HZ + LEAD_S, parts[-1].end / FRAME_HZ + LEAD_S, min(1.0, confidence))


def _between(placed: Sequence[PlacedWord]) -> PlacedWord:
    end_s = placed[-1].end_s if placed else 0.0
    return PlacedWord(end_s, end_s, None)
