"""From written to spoken English: what a reader would say, in letters and plain punctuation.

The result is what a voice is asked to speak and what the language model reads, so that both see the same words. Every
whitespace-separated word of it has a letter, which lets a word's place in time be found by counting words.
"""

from __future__ import annotations

import re
import unicodedata

from num2words import num2words

from salad.errors import DataError

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
    "[": "(", "]": ")", "_": " ", "⁄": "/", "•": " ", "·": " ",
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
}
_ABBREVIATIONS = {"e.g.": "for example", "i.e.": "that is", "etc.": "et cetera"}
_UNITS = {"°C": "degrees Celsius", "°F": "degrees Fahrenheit", "°": "degrees", "km/h": "kilometers per hour"}
_UNIT = re.compile("|".join(rf"{re.escape(unit)}(?![A-Za-z])" for unit in _UNITS))
_ABBREVIATION = re.compile("|".join(rf"(?<![A-Za-z]){re.escape(short)}(?![A-Za-z])" for short in _ABBREVIATIONS))
_CURRENCIES = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
_DENOMINATORS = {2: "half", 3: "third", 4: "quarter", 5: "fifth", 6: "sixth", 8: "eighth", 10: "tenth", 16: "sixteenth"}

_SPEAKABLE = re.compile(r"[A-Za-z\s.,;:'\"!?()-]*", re.ASCII)
_UNTIDY = re.compile(r"--|\s-|\s[.,;:!?)]|\(\s|\(\)|[,;:(]\s*,")
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_POWER = re.compile(r"([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)|\^\s?(-?\d{1,9})")
_MONEY_RANGE = re.compile(rf"([$£€])({_NUMBER})\s?--?\s?\1?({_NUMBER})(?![\w-])")
_MONEY = re.compile(rf"([$£€])\s?({_NUMBER})(\s(?:thousand|million|billion|trillion))?\b")
_MIXED_FRACTION = re.compile(r"(?<![\d/.,])(?:(\d+)[ -]?)??(\d{1,2})/(\d{1,2})(?![\d/])")
_CLOCK = re.compile(r"\b([01]?\d|2[0-3]):([0-5]\d)\b(?!:)")
_DECADE = re.compile(r"(?<![\d.,])'?(\d{1,3}0)'?s\b")
_ORDINAL = re.compile(r"\b(\d{1,3}(?:,\d{3})+|\d{1,15})(?:st|nd|rd|th)\b")
_FEET_AND_INCHES = re.compile(r"\b(\d{1,2})'(\d{1,2})\"")
_DIALLED = re.compile(r"(?<![\d-])(\d{3}-)?\d{3}-\d{4}(?![\d-])")
_RANGE = re.compile(rf"(?<![\d-])({_NUMBER})(?:\s?%)?(?:-|\s-\s|\s?--\s?)({_NUMBER})(?![\d-])")
_MINUS = re.compile(r"(?<![\w.-])-(?=\d)")
_TALLY = re.compile(r"(?<![\w.,])(\d+(?:\.\d+){2,})(?![\w])")
_PLAIN_NUMBER = re.compile(_NUMBER)


def spoken_form(text: str, language: str = "en") -> str:
    """`text` as it is read aloud: numbers and signs as words; case, letters and plain punctuation as they were.

    Numbers of four digits from 1100 to 2099 are read as years, leading zeros and more than nine digits one by one;
    "#" is "number" before a digit and "pound" alone; "/" is "or" between words ("and/or": "and or"), a fraction or
    "slash" between numbers; "*" is "times" between numbers and "star" alone; dashes become commas.

    Raises:
        DataError: `language` is not "en", or a character has no spoken form; shows it and what stands around it.
    """
    if language != "en":
        raise DataError(f"numbers and signs can't be put into words of language {language!r}, only of 'en'.")
    if not _SPEAKABLE.fullmatch(text):
        text = _plain_characters(text)
        text = _UNIT.sub(lambda found: f" {_UNITS[found[0]]} ", text)
        text = _numbers_to_words(text)
        text = _signs_to_words(text)
    text = _ABBREVIATION.sub(lambda found: f" {_ABBREVIATIONS[found[0]]} ", text)
    text = _tidy(text)
    _refuse_unspeakable(text)
    return text


def _plain_characters(text: str) -> str:
    """One form for each quotation mark, dash, space and ligature."""
    for vulgar, plain in _BEFORE_NFKC.items():
        text = re.sub(rf"(?<=\d){vulgar}", f" {plain}", text).replace(vulgar, plain)
    text = _POWER.sub(_power, text)
    text = "".join(_PLAIN.get(character, character) for character in text)
    text = unicodedata.normalize("NFKC", text)
    return "".join(_PLAIN.get(character, character) for character in text)


def _numbers_to_words(text: str) -> str:
    text = _MONEY_RANGE.sub(r"\2 to \1\3", text)
    text = _MONEY.sub(_money, text)
    text = _MIXED_FRACTION.sub(_fraction, text)
    text = _CLOCK.sub(_clock, text)
    text = _ORDINAL.sub(lambda found: _words(found[1].replace(",", ""), "ordinal"), text)
    text = _DECADE.sub(lambda found: _plural(_integer(found[1])), text)
    text = _TALLY.sub(lambda found: " point ".join(_integer(part) for part in found[1].split(".")), text)
    text = _FEET_AND_INCHES.sub(r"\1 feet \2 inches", text)
    text = _DIALLED.sub(lambda found: " ".join(map(_digit_by_digit, found[0].split("-"))), text)
    text = _RANGE.sub(_range, text)
    text = re.sub(r"(?<=\d)-(?=\d)", " ", text)
    text = re.sub(r"#\s?(?=\d)", "number ", text)
    text = re.sub(r"(?<=\d)\s?\*\s?(?=\d)|(?<=\d)\sx\s(?=\d)", " times ", text)
    text = re.sub(r"(?<=\d)\s?/\s?(?=\d)", " slash ", text)
    text = re.sub(r"~\s?(?=\d)", "about ", text)
    text = re.sub(r"(?<=\d)\s?¢", " cents", text)
    text = _MINUS.sub("minus ", text)
    return _PLAIN_NUMBER.sub(lambda found: _number(found[0]), _apart(text))


def _apart(text: str) -> str:
    """A space where a letter meets a digit: "3D", "MP3", "H.323", "(CH3CO)2"."""
    text = re.sub(r"(?<=[^\W\d_])(\.?)(?=\d)|(?<=\))(?=\d)", r"\1 ", text)
    return re.sub(r"(?<=\d)(?=[^\W\d_])", " ", text)


def _signs_to_words(text: str) -> str:
    text = re.sub(r"\b(and|or)/(and|or)\b", r"\1 \2", text)
    text = re.sub(r"(?<=[^\W\d_.])\s?/\s?(?=[^\W\d_])", " or ", text)
    text = re.sub(r"(?<!\S)#(?![^\s.,;:!?])", "pound", text)
    text = re.sub(r"(?<!\S)\*(?![^\s.,;:!?])", "star", text)
    text = re.sub(r"(?<=\s)<(?=\s)", "is less than", text)
    text = re.sub(r"(?<=\s)>(?=\s)", "is greater than", text)
    for sign, word in _SYMBOLS.items():
        text = text.replace(sign, f" {word} ")
    return text


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
        name = unicodedata.name(character, "no name").lower()
        near = text[max(0, place - 20) : place + 20]
        raise DataError(f"the character {character!r} ({name}) in {near!r} has no spoken form; write it as words.")


# --- numbers --------------------------------------------------------------------------------------------------------


def _words(number: str, to: str = "cardinal") -> str:
    """num2words without its commas, which a voice would speak as pauses; beyond its reach, digit by digit."""
    if len(number) > 15:
        return _digit_by_digit(number)
    spoken: str = num2words(int(number), to=to)
    return spoken.replace(",", "")


def _digit_by_digit(digits: str) -> str:
    return " ".join(_words(digit) for digit in digits)


def _integer(digits: str) -> str:
    if len(digits) > 9 or (len(digits) > 1 and digits[0] == "0"):
        return _digit_by_digit(digits)
    if len(digits) == 4 and 1100 <= int(digits) < 2100:
        return _words(digits, "year")
    return _words(digits)


def _number(number: str) -> str:
    """Words for digits with or without thousands separators and decimals."""
    whole, _, decimals = number.partition(".")
    spoken = _words(whole.replace(",", "")) if "," in whole or decimals else _integer(whole)
    return f"{spoken} point {_digit_by_digit(decimals)}" if decimals else spoken


def _plural(words: str) -> str:
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"


def _counted(amount: str, unit: str) -> str:
    if amount == "one":
        return f"one {unit}"
    return f"{amount} {'pence' if unit == 'penny' else unit + 's'}"


def _money(found: re.Match[str]) -> str:
    unit, subunit = _CURRENCIES[found[1]]
    amount, scale = found[2].replace(",", ""), found[3]
    if scale:
        return f"{_number(amount)}{scale} {unit}s"
    whole, _, cents = amount.partition(".")
    if cents and len(cents) != 2:
        return f"{_words(whole)} point {_digit_by_digit(cents)} {unit}s"
    spoken = _counted(_words(whole), unit)
    if int(cents or 0) == 0:
        return spoken
    small = _counted(_words(cents), subunit)
    return small if int(whole) == 0 else f"{spoken} and {small}"


def _power(found: re.Match[str]) -> str:
    exponent = found[2] or unicodedata.normalize("NFKC", found[1]).replace("\u2212", "-")
    if exponent in ("2", "3"):
        return " squared " if exponent == "2" else " cubed "
    return f" to the power of {exponent.replace('-', 'minus ')} "


def _fraction(found: re.Match[str]) -> str:
    whole, top, bottom = found[1], int(found[2]), int(found[3])
    if not 0 < top < bottom or bottom not in _DENOMINATORS:
        return found[0]
    name = _DENOMINATORS[bottom]
    if top > 1:
        name = "halves" if name == "half" else f"{name}s"
    spoken = f"{_words(str(top))} {name}"
    if not whole:
        return spoken
    return f"{_integer(whole)} and {'a half' if bottom == 2 else spoken}"


def _clock(found: re.Match[str]) -> str:
    hour, minute = _words(str(int(found[1]))), found[2]
    if minute == "00":
        return f"{hour} o'clock"
    return f"{hour} oh {_words(minute)}" if minute[0] == "0" else f"{hour} {_words(minute)}"


def _range(found: re.Match[str]) -> str:
    """1914-1918, 10-20 and 3,000-5,000 are ranges; 24-7 is two numbers."""
    low, high = (float(number.replace(",", "")) for number in found.groups())
    return f"{_number(found[1])} {'to ' if high > low else ''}{_number(found[2])}"
