"""From written to spoken English: what a reader would say, in letters and plain punctuation.

The result is what a voice is asked to speak and what the language model reads, so that both see the same words. Every
whitespace-separated word of it has a letter, which lets a word's place in time be found by counting words.
"""

from __future__ import annotations

import re
import unicodedata

from salad.errors import DataError
from salad.texts.abbreviations import abbreviations_to_words
from salad.texts.markup import addresses_to_words, without_markup
from salad.texts.measures import measures_to_words
from salad.texts.numbers import numbers_to_words, powers_to_words

_MARKS = ".,;:'\"!?()-"
PUNCTUATION = frozenset(_MARKS)

# NFKC would turn 2½ into 21⁄2 and x² into x2, so these go first.
_BEFORE_NFKC = {
    "½": "1/2",
    "⅓": "1/3",
    "⅔": "2/3",
    "¼": "1/4",
    "¾": "3/4",
    "⅛": "1/8",
    "⅜": "3/8",
    "⅝": "5/8",
    "⅞": "7/8",
}
_PLAIN = {
    "‘": "'", "’": "'", "‚": "'", "‛": "'", "′": "'", "`": "'", "´": "'",
    "“": '"', "”": '"', "„": '"', "″": '"', "«": '"', "»": '"',
    "‐": "-", "‑": "-", "−": "-", "–": "--", "—": "--", "―": "--", "‒": "--",
    "[": "(", "]": ")", "⁄": "/", "•": " ", "·": " ", "⋅": " ", "∙": " ", "ʻ": "'", "ʼ": "'", "∼": "~",
    "™": "", "®": "", "©": "", "\u00ad": "", "\u200b": "", "\ufeff": "",
}  # fmt: skip
_SYMBOLS = {
    "&": "and",
    "@": "at",
    "+": "plus",
    "=": "equals",
    "±": "plus or minus",
    "×": "times",
    "÷": "divided by",
    "§": "section",
    "%": "percent",
    "≠": "is not equal to",
    "≈": "is about",
    "√": "the square root of",
    "∞": "infinity",
    "♯": "sharp",
    "♭": "flat",
    "_": "",
    "¢": "cent sign",
    "$": "dollar sign",
    "£": "pound sign",
    "€": "euro sign",
    "/": "slash",
}
_COMPARISONS = {"<": "less than", ">": "greater than", "≤": "at most", "≥": "at least", "⩽": "at most", "⩾": "at least"}
_COMPARISON = re.compile(r"(?<=[\w)%'\"])(\s?)([<>]=?|[≤≥⩽⩾])|([<>]=?|[≤≥⩽⩾])")
_GREEK = re.compile(r"(?<![^\W\d_A-Za-z])[Α-Ωα-ω](?![^\W\d_A-Za-z])")
_UNITS = {
    "°C": "degrees Celsius",
    "°F": "degrees Fahrenheit",
    "°N": "degrees north",
    "°S": "degrees south",
    "°E": "degrees east",
    "°W": "degrees west",
    "°": "degrees",
}
_UNIT = re.compile("|".join(rf"{re.escape(unit)}(?![A-Za-z])" for unit in _UNITS))

_SPEAKABLE = re.compile(r"[A-Za-z\s.,;:'\"!?()-]*", re.ASCII)
_UNTIDY = re.compile(r"--|\s-|\s[.,;:!?)]|\(\s|\(\)|[,;:(]\s*,")


def spoken_form(text: str, language: str = "en") -> str:
    """`text` as it is read aloud: numbers and signs as words; case, letters and plain punctuation as they were.

    Numbers of four digits from 1100 to 2099 are read as years, leading zeros and more than nine digits one by one;
    "#" is "number" before a digit and "pound" alone; "/" is "or" between words ("and/or": "and or"), a fraction or
    "slash" between numbers; "*" is "times" between numbers and "star" alone; dashes become commas. Of units,
    abbreviations, dates and addresses: measures.py, abbreviations.py, markup.py.

    Raises:
        DataError: `language` is not "en", the text holds markup, or a character has no spoken form; shows it and what
            stands around it.
    """
    if language != "en":
        raise DataError(f"numbers and signs can't be put into words of language {language!r}, only of 'en'.")
    text = without_markup(text)
    is_plain = _SPEAKABLE.fullmatch(text) is not None
    if not is_plain:
        text = measures_to_words(addresses_to_words(_plain_characters(text)))
        text = _UNIT.sub(lambda found: f" {_UNITS[found[0]]} ", text)
    text = abbreviations_to_words(text)
    if not (is_plain and _SPEAKABLE.fullmatch(text)):  # Roman numerals were digits for a moment
        text = numbers_to_words(text)
        text = _signs_to_words(text)
    text = _tidy(text)
    _refuse_unspeakable(text)
    return text


def _plain_characters(text: str) -> str:
    """One form for each quotation mark, dash, space and ligature."""
    for vulgar, plain in _BEFORE_NFKC.items():
        text = re.sub(rf"(?<=\d){vulgar}", f" {plain}", text).replace(vulgar, plain)
    text = powers_to_words(text.replace("+/-", "±"))
    text = "".join(_PLAIN.get(character, character) for character in text)
    text = unicodedata.normalize("NFKC", text)
    return "".join(_PLAIN.get(character, character) for character in text)


def _signs_to_words(text: str) -> str:
    text = re.sub(r"\b(and|or)/(and|or)\b", r"\1 \2", text)
    text = re.sub(r"(?<=[^\W\d_.])\s?/\s?(?=[^\W\d_])", " or ", text)
    text = re.sub(r"(?<!\S)#(?![^\s.,;:!?])", "pound", text)
    text = re.sub(r"(?<!\S)\*(?![^\s.,;:!?])", "star", text)
    text = re.sub(r"(?<!\S)#(?=[A-Za-z])", "hashtag ", text)
    text = _COMPARISON.sub(_comparison, text)
    text = re.sub(r"(?<=[A-Za-z])(?=[Α-Ωα-ω])|(?<=[Α-Ωα-ω])(?=[A-Za-z])", " ", text)
    text = _GREEK.sub(lambda found: _letter_name(found[0]), text)
    for sign, word in _SYMBOLS.items():
        text = text.replace(sign, f" {word} ")
    return text


def _comparison(found: re.Match[str]) -> str:
    """Between two things "is less than", before one "less than"; <= is "at most"."""
    sign = found[2] or found[3]
    words = {"<=": "at most", ">=": "at least"}.get(sign) or _COMPARISONS[sign]
    return f" is {words} " if found[2] else f" {words} "


def _letter_name(letter: str) -> str:
    """Of a Greek letter that stands alone: β is "beta"."""
    return unicodedata.name(letter).lower().removesuffix(" with tonos").rpartition(" ")[2]


def _tidy(text: str) -> str:
    """Dashes as commas, single spaces, no space before a closing mark, no word without a letter."""
    if _UNTIDY.search(text):
        text = re.sub(r"\s*--+\s*|\s+-+\s+", ", ", text)
        text = re.sub(r"\s+([.,;:!?)])", r"\1", re.sub(r"\(\s+", "(", text))
        text = re.sub(r"\(\)", "", text)
        text = re.sub(r"([,;:(])(?:\s*,)+", r"\1", text)
    words: list[str] = []
    for word in text.split():
        if word.strip(_MARKS):
            words.append(word)
        elif words:
            words[-1] += word
    return " ".join(words).lstrip(",;:.!?- ") if words else ""


def _refuse_unspeakable(text: str) -> None:
    if _SPEAKABLE.fullmatch(text):
        return
    for place, character in enumerate(text):
        if character in PUNCTUATION or character == " ":
            continue
        if character.isalpha() and unicodedata.name(character, "").startswith("LATIN"):
            continue
        name = unicodedata.name(character, "a control character" if ord(character) < 160 else "no name").lower()
        near = text[max(0, place - 20) : place + 20]
        raise DataError(f"no spoken form: the character {character!r} ({name}) in {near!r}; write it as words.")
