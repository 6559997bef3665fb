"""Numbers in words: counts, years, money, fractions, times, ranges, telephone numbers; the words by num2words."""

from __future__ import annotations

import re
import unicodedata

from num2words import num2words

_CURRENCIES = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
_DENOMINATORS = {2: "half", 3: "third", 4: "quarter", 5: "fifth", 6: "sixth", 8: "eighth", 10: "tenth", 16: "sixteenth"}
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_POWER = re.compile(r"([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)|\^\s?(-?\d{1,9})")
_MONEY_RANGE = re.compile(rf"([$£€])({_NUMBER})\s?--?\s?\1?({_NUMBER})(?![\w-])")
_MONEY = re.compile(rf"([$£€])\s?({_NUMBER})(\s(?:thousand|million|billion|trillion)|\s?(?:k|K|m|mn|M|b|bn|B|tn|T))?\b")
_SCALES = {"k": "thousand", "m": "million", "b": "billion", "t": "trillion"}
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


def numbers_to_words(text: str) -> str:
    """`text` with every number in words; what stands beside it (currency, colon, hyphen) says how it is read."""
    text = _MONEY_RANGE.sub(r"\2 to \1\3", text)
    text = _MONEY.sub(_money, text)
    text = _MIXED_FRACTION.sub(_fraction, text)
    text = _CLOCK.sub(_clock, text)
    text = _ORDINAL.sub(lambda found: _words(found[1].replace(",", ""), "ordinal"), text)
    text = _DECADE.sub(lambda found: _plural(_integer(found[1])), text)
    text = _TALLY.sub(lambda found: " point ".join(_integer(part) for part in found[1].split(".")), text)
    text = _FEET_AND_INCHES.sub(r"\1 feet \2 inches", text)
    text = re.sub(r"\((\d{3})\)\s?(?=\d{3}-\d{4}\b)", r"\1-", text)
    text = _DIALLED.sub(lambda found: " ".join(map(_digit_by_digit, found[0].split("-"))), text)
    text = _RANGE.sub(_range, text)
    text = re.sub(r"(?<=\d)-(?=\d)", " ", text)
    text = re.sub(r"#\s?(?=\d)", "number ", text)
    text = re.sub(r"(?<=\d)\s?\*\s?(?=\d)|(?<=\d)\sx\s(?=\d)", " times ", text)
    text = re.sub(r"\b24/7\b", "24 7", re.sub(r"\b50/50\b", "50-50", text))
    text = re.sub(r"\b(\d{1,2})x(\d{1,2})\b", r"\1 by \2", text)
    text = re.sub(r"(?<=\d):(?=\d)", " to ", text)
    text = re.sub(r"(?<=\d)\s?/\s?(?=\d)", " slash ", text)
    text = re.sub(r"~\s?(?=\d)", "about ", text)
    text = re.sub(r"(?<=\d)\s?¢", " cents", text)
    text = _MINUS.sub("minus ", text)
    text = re.sub(r"(?<![\w.])\.(?=\d)", " point ", text)
    return _PLAIN_NUMBER.sub(_plain_number, _apart(text))


def _apart(text: str) -> str:
    """A space where a letter meets a digit: "3D", "MP3", "H.323", "(CH3CO)2"."""
    text = re.sub(r"(?<=[^\W\d_])(\.?)(?=\d)|(?<=\))(?=\d)", r"\1 ", text)
    return re.sub(r"(?<=\d)(?=[^\W\d_])", " ", text)


def powers_to_words(text: str) -> str:
    """x² is "x squared", 10^-3 "10 to the power of minus 3"."""
    return _POWER.sub(_power, text)


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


def _plain_number(found: re.Match[str]) -> str:
    """Decimals without a whole number are read one by one: ".001"."""
    after_point = found.string[: found.start()].endswith(" point ")
    return _digit_by_digit(found[0]) if after_point and found[0].isdigit() else _number(found[0])


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
        scale = scale.strip()
        return f"{_number(amount)} {_SCALES[scale[0].lower()] if len(scale) < 3 else scale} {unit}s"
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
