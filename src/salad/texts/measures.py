"""Numbers with a unit: "75 kg" is "75 kilograms", "10 mg/dL" is "10 milligrams per deciliter"."""

from __future__ import annotations

import re

_PREFIXES = {"k": "kilo", "c": "centi", "m": "milli", "μ": "micro", "n": "nano", "M": "mega", "G": "giga", "T": "tera"}
_PREFIXED = {
    "m": ("meter", "kcmμn"), "g": ("gram", "kmμn"), "L": ("liter", "mμ"), "l": ("liter", "cmμ"), "Hz": ("hertz", "kMG"),
    "W": ("watt", "kMGT"), "Wh": ("watt hour", "kMGT"), "V": ("volt", "km"), "J": ("joule", "kM"),
    "B": ("byte", "kMGT"),
    "Pa": ("pascal", "kM"), "mol": ("mole", "mμn"), "M": ("molar", "mμn"), "eV": ("electron volt", "kMG"),
    "Da": ("dalton", "k"), "cal": ("calorie", "k"), "bps": ("bit per second", "kMG"), "s": ("second", "mμn"),
}  # fmt: skip
_PLAIN = {
    "m": "meter", "g": "gram", "L": "liter", "l": "liter", "h": "hour", "W": "watt", "V": "volt", "J": "joule",
    "Hz": "hertz", "Pa": "pascal", "mol": "mole", "eV": "electron volt", "cal": "calorie", "KB": "kilobyte",
    "dL": "deciliter", "dl": "deciliter", "dm": "decimeter", "hPa": "hectopascal", "ha": "hectare", "dB": "decibel",
    "mcg": "microgram", "mi": "mile", "ft": "foot", "yd": "yard", "lb": "pound", "lbs": "pound", "oz": "ounce",
    "sec": "second", "secs": "second", "min": "minute", "mins": "minute", "hr": "hour", "hrs": "hour", "yr": "year",
    "yrs": "year", "wk": "week", "wks": "week", "mph": "mile per hour", "kph": "kilometer per hour",
    "kmh": "kilometer per hour", "rpm": "revolution per minute", "bpm": "beat per minute", "ppm": "part per million",
    "ppb": "part per billion", "IU": "international unit", "mmHg": "millimeter of mercury", "kt": "knot", "kn": "knot",
}  # fmt: skip
UNITS = _PLAIN | {
    prefix + unit: _PREFIXES[prefix] + word for unit, (word, prefixes) in _PREFIXED.items() for prefix in prefixes
}
_PER = UNITS | {"s": "second", "d": "day"} | {word: word for word in "second minute hour day week month year".split()}
_AS_OFTEN_NONE = ("m", "s")  # 5m is five million as often
_NO_PLURAL = ("hertz", "molar")
_LONGEST_FIRST = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
_PER_ONE = "|".join(sorted(map(re.escape, _PER), key=len, reverse=True))
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_MEASURE = re.compile(
    rf"(?<![$£€\d.,])({_NUMBER})(\s?|-)(sq\.?\s|cu\.?\s)?({_LONGEST_FIRST})(?:(?<=m|t|i|d)([23])|\s?(squared|cubed)\b)?"
    rf"(?:\s?/\s?({_PER_ONE})(?:([23])|\s?(squared|cubed)\b)?)?(?![\w'/])"
)
_FEET_AND_INCHES = re.compile(r"(\d+)\s?ft\.?,?\s(\d+(?:\.\d+)?)\s?in(?:\b\.|\b)")
_POWERS = {"2": "square ", "3": "cubic ", "squared": "square ", "cubed": "cubic ", "s": "square ", "c": "cubic "}


def measures_to_words(text: str) -> str:
    """Units after a number in full, in the plural where the number is not one; the numbers stay digits."""
    text = _FEET_AND_INCHES.sub(r"\1 feet \2 inches", text)
    return _MEASURE.sub(_measure, text)


def _measure(found: re.Match[str]) -> str:
    number, joint, square, unit, digit, power, per, per_digit, per_power = found.groups()
    if joint == "" and unit in _AS_OFTEN_NONE and not (per or digit or power):
        return found[0]
    word = UNITS[unit]
    if number != "1" and joint != "-":
        word = _plural(word)
    word = _POWERS.get((square or "")[:1] or digit or power or "", "") + word
    if per is not None:
        word += f" per {_POWERS.get(per_digit or per_power or '', '')}{_PER[per]}"
    return f"{number}{joint or ' '}{word.replace(' ', '-') if joint == '-' else word}"


def _plural(unit: str) -> str:
    """foot → feet, mile per hour → miles per hour."""
    first, space, rest = unit.partition(" ")
    if first in ("electron", "watt", "kilowatt", "megawatt", "gigawatt", "terawatt", "international") and rest:
        return f"{unit}s"
    if first.endswith(_NO_PLURAL):
        return unit
    return f"{'feet' if first == 'foot' else first + 's'}{space}{rest}"
