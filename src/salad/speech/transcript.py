"""What can be told of a transcript without hearing the audio: that it has words, in which script, and whose timings."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from salad.errors import AlignmentError, DataError
from salad.speech.windows import plain

TIMING_SLACK_S = 0.025
"""How far a time may lie beyond the end of its audio: times are written with few decimals. Lhotse allows the same."""

Words = Sequence[tuple[str, float, float]]
"""(word, start, end), seconds from the utterance's start."""

# The scripts of languages that are not written in Latin letters, by Lhotse's English name or ISO 639 code. The names of
# scripts are the first words of Unicode's names of their letters.
_SCRIPTS = {
    "CYRILLIC": "russian ru ukrainian uk belarusian be bulgarian bg macedonian mk kazakh kk kyrgyz ky mongolian mn "
    "tatar tt bashkir ba chuvash cv tajik tg",
    "GREEK": "greek el",
    "ARABIC": "arabic ar persian farsi fa urdu ur pashto ps uyghur ug sindhi sd",
    "HEBREW": "hebrew he yiddish yi",
    "DEVANAGARI": "hindi hi marathi mr nepali ne sanskrit sa",
    "BENGALI": "bengali bn assamese as",
    "GURMUKHI": "punjabi pa",
    "GUJARATI": "gujarati gu",
    "ORIYA": "odia or",
    "TAMIL": "tamil ta",
    "TELUGU": "telugu te",
    "KANNADA": "kannada kn",
    "MALAYALAM": "malayalam ml",
    "SINHALA": "sinhala si",
    "THAI": "thai th",
    "LAO": "lao lo",
    "MYANMAR": "burmese my",
    "KHMER": "khmer km",
    "TIBETAN": "tibetan bo",
    "GEORGIAN": "georgian ka",
    "ARMENIAN": "armenian hy",
    "ETHIOPIC": "amharic am tigrinya ti",
    "HANGUL": "korean ko",
    "CJK": "chinese mandarin cantonese zh yue cmn",
    "HIRAGANA KATAKANA CJK": "japanese ja",
    "CYRILLIC LATIN": "serbian sr uzbek uz azerbaijani az turkmen tk",
}
_SCRIPTS_OF = {name: tuple(scripts.split()) for scripts, names in _SCRIPTS.items() for name in names.split()}


def transcript(text: str) -> str:
    """A transcript with single spaces between its words.

    Raises:
        DataError: it has no letter and no digit.
    """
    if not any(character.isalnum() for character in text):
        raise DataError(f"empty transcript: {_shortened(text)} has no words")
    return " ".join(text.split())


def check_script(text: str, language: str, min_frac: float) -> None:
    """See that a transcript's letters are those of its language.

    A language that is not written in Latin letters may hold some (names, units) as long as others are its own.

    Args:
        text: the transcript.
        language: an English name or an ISO 639 code, with or without a region: "English", "en", "zh-CN". A language
            that is not known to be written otherwise is taken to be written in Latin letters.
        min_frac: share (0-1) of the letters that must be of its script.

    Raises:
        DataError: they are not.
    """
    expected = _SCRIPTS_OF.get(language.lower().replace("_", "-").split("-")[0].strip(), ("LATIN",))
    scripts = Counter(map(_script, filter(str.isalpha, unicodedata.normalize("NFKC", text))))
    own = sum(scripts[script] for script in expected)
    foreign = sum(count for script, count in scripts.items() if script not in (*expected, "LATIN"))
    counted = own + foreign + (scripts["LATIN"] if own == 0 and "LATIN" not in expected else 0)
    if counted and own / counted < min_frac:
        most = max((script for script in scripts if script not in expected), key=lambda script: scripts[script])
        raise DataError(
            f"transcript in another script: {own / counted:.0%} of the letters are {' or '.join(expected).title()}, "
            f"in which {language} is written (most others are {most.title()}): {_shortened(text)}"
        )


def timed_words(text: str, words: Words, duration_s: float) -> list[tuple[str, float, float]]:
    """The words of a transcript, as it spells them, with times that were given for their plain forms.

    Given words without a letter or digit are silence. Several given words may make one of the text ("forty", "two":
    "forty-two"); a word of the text that has no letter or digit ("—") gets no time of its own: it ends where it begins.

    Raises:
        AlignmentError: the given words are others, their times do not increase, or they reach beyond `duration_s`.
    """
    matched = match_words(text, [word for word, _, _ in words])
    placed: list[tuple[str, float, float]] = []
    now_s = 0.0
    for token, indices in zip(text.split(), matched, strict=True):
        start_s, end_s = (words[indices[0]][1], words[indices[-1]][2]) if indices else (now_s, now_s)
        inner = [words[index][1:] for index in indices]
        ordered = all(now <= later for now, later in pairwise(inner))
        if not (ordered and 0 <= start_s <= end_s < float("inf") and (not placed or start_s >= placed[-1][1])):
            raise AlignmentError(f"word timings out of order: {token!r} is said to be spoken at {start_s}-{end_s} s")
        if end_s > duration_s + TIMING_SLACK_S:
            raise AlignmentError(
                f"word timing beyond the end: {token!r} is said to end at {end_s:.3f} s of {duration_s:.3f} s"
            )
        now_s = min(end_s, duration_s)
        placed.append((token, min(start_s, duration_s), now_s))
    return placed


def match_words(text: str, words: Sequence[str]) -> list[list[int]]:
    """For every word of a transcript, the numbers of the given words that make it up, by their plain forms.

    Raises:
        AlignmentError: the given words are not those of the text.
    """
    spoken = [(index, form) for index, word in enumerate(words) if (form := plain(word))]
    matched: list[list[int]] = []
    at = 0
    for token in text.split():
        wanted, got, begin = plain(token), "", at
        while len(got) < len(wanted) and at < len(spoken):
            got += spoken[at][1]
            at += 1
        if got != wanted:
            there = " ".join(form for _, form in spoken[begin : begin + 3]) or "nothing"
            raise AlignmentError(f"word timings of other words: they have {there!r} where the text has {token!r}")
        matched.append([index for index, _ in spoken[begin:at]])
    if at < len(spoken):
        raise AlignmentError(f"word timings of other words: they have {spoken[at][1]!r} after the text's last word")
    return matched


def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNNAMED").split()[0]


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
