"""Abbreviations, dates and Roman numerals, in full; numbers in them stay digits, which are put into words later."""

from __future__ import annotations

import re

_MONTHS = "January February March April May June July August September October November December".split()
_MONTH = "|".join(_MONTHS)
_SHORT_MONTHS = {month[:3]: month for month in _MONTHS if month != "May"} | {"Sept": "September"}
_SHORT_MONTH = "|".join(sorted(_SHORT_MONTHS, key=len, reverse=True))

# Before a name.
_TITLES = {
    "Dr": "Doctor", "Prof": "Professor", "Gen": "General", "Gov": "Governor", "Sen": "Senator", "Rep": "Representative",
    "Rev": "Reverend", "Col": "Colonel", "Lt": "Lieutenant", "Capt": "Captain", "Sgt": "Sergeant", "Maj": "Major",
    "Cpl": "Corporal", "Adm": "Admiral", "Pres": "President", "Hon": "Honorable", "St": "Saint", "Mt": "Mount",
    "Ft": "Fort",
}  # fmt: skip
# After a name.
_AFTER = {
    "St": "Street", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Ln": "Lane", "Hwy": "Highway", "Jr": "Junior",
    "Sr": "Senior", "Inc": "Incorporated", "Corp": "Corporation", "Ltd": "Limited", "Co": "Company", "Bros": "Brothers",
}  # fmt: skip
# Before a number.
_BEFORE_DIGITS = {
    "No": "number", "Nos": "numbers", "Fig": "figure", "Figs": "figures", "Eq": "equation", "Eqs": "equations",
    "Ch": "chapter", "Vol": "volume", "Vols": "volumes", "Sec": "section", "Art": "article", "Ref": "reference",
    "Refs": "references", "Tab": "table", "p": "page", "pp": "pages", "ca": "circa", "c": "circa",
}  # fmt: skip
_ANYWHERE = {
    "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "vs.": "versus", "approx.": "approximately",
    "cf.": "compare", "viz.": "namely", "Dept.": "Department", "dept.": "department", "Univ.": "University",
}  # fmt: skip
_ANY = re.compile("|".join(rf"(?<![A-Za-z]){re.escape(short)}(?![A-Za-z])" for short in _ANYWHERE))
# British writers put no full stop where the last letter stands: Dr Smith, St Paul, Mt Etna.
_TITLE = re.compile(rf"\b(?:(Dr|St|Mt)\.?|({'|'.join(_TITLES)})\.)\s+(?=[A-Z])")
_NAME_PART = re.compile(
    rf"((?:\b[A-Z][a-z'-]+|\b\d{{1,3}}(?:st|nd|rd|th)),?\s)({'|'.join(_AFTER)})\.(?=\s+[a-z(\d]|[,;:)?!]|\s*$)"
)
_NUMBERED = re.compile(rf"\b({'|'.join(sorted(_BEFORE_DIGITS, key=len, reverse=True))})\.\s?(?=\d)", re.IGNORECASE)
_MONTH_BEFORE = re.compile(rf"\b({_SHORT_MONTH})\b\.?(?=\s\d)|(?<=\d\s)({_SHORT_MONTH})\b\.?")

_ISO = re.compile(r"(?<![\d-])(1\d{3}|20\d\d)-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(?![\d-])")
_SLASHES = re.compile(r"(?<![\d/])(\d{1,2})/(\d{1,2})/(1\d{3}|20\d\d)(?![\d/])")
_MONTH_DAY = re.compile(rf"\b({_MONTH})\s(0?[1-9]|[12]\d|3[01])(?=,?\s\d{{4}}\b|[,.;:)!?](?!\d)|\s+[a-z(]|\s*$)")
_DAY_MONTH = re.compile(rf"(\b[Tt]he\s)?(?<![\d.,/:-])\b(0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?\s(?:of\s)?({_MONTH})\b")

_ROMAN = r"X{0,3}(?:IX|IV|V?I{1,3}|V|X)"
_RULERS = (
    "Albert Alexander Alfonso Amenhotep Artaxerxes Baldwin Benedict Boniface Carl Catherine Charles Christian Clement "
    "Cleopatra Constantine Darius David Edward Elizabeth Eric Ferdinand Francis Frederick George Gregory Gustav Haakon "
    "Henri Henry Innocent Isabella Ivan James Jean John Joseph Julius Justinian Kenneth Leo Leopold Louis Malcolm "
    "Mary Mehmed Murad Napoleon Nicholas Olaf Otto Paul Pedro Peter Philip Pius Ptolemy Ramesses Richard Robert "
    "Selim Seti Sigismund Sixtus Suleiman Theodosius Thutmose Umberto Urban Victor Vittorio Wilhelm William Xerxes"
).split()
_RULER = re.compile(rf"\b({'|'.join(_RULERS)})\s({_ROMAN})\b(?!\.[A-Z])")
_NUMBERED_BY_ROMANS = re.compile(
    rf"\b(War|Chapter|Part|Volume|Act|Book|Section|Article|Title|Type|Phase|Stage|Class|Table|Figure|Appendix|Bowl|"
    rf"Level|Grade|Group|Unit|Psalm|Scene|Mark|type|phase|stage|class|grade)\s({_ROMAN})\b(?!['.][A-Z])"
)
_VALUES = {"I": 1, "V": 5, "X": 10}


def abbreviations_to_words(text: str) -> str:
    """Abbreviations in full, dates with the month's name and an ordinal day, Roman numerals in digits.

    A date of digits alone is read year-month-day, or as Americans write it, month/day/year, where there is such a
    month. "Henry VIII" is "Henry the 8th", "World War II" "World War 2".
    """
    text = _ANY.sub(lambda found: _ANYWHERE[found[0]], text)
    text = re.sub(r"(?<!\S)(?:w/o|W/o)(?=\s)", "without", re.sub(r"(?<!\S)w/(?=\s)", "with", text))
    text = _NAME_PART.sub(_after_name, text)
    text = _TITLE.sub(lambda found: f"{_TITLES[found[1] or found[2]]} ", text)
    text = _NUMBERED.sub(_numbered, text)
    text = _RULER.sub(lambda found: f"{found[1]} the {_ordinal(_value(found[2]))}", text)
    text = _NUMBERED_BY_ROMANS.sub(lambda found: f"{found[1]} {_value(found[2])}", text)
    return _dates(text)


def _after_name(found: re.Match[str]) -> str:
    ends = "." if not found.string[found.end() :].strip() else ""
    return f"{found[1]}{_AFTER[found[2]]}{ends}"


def _numbered(found: re.Match[str]) -> str:
    short = found[1]
    if short.lower() in ("p", "pp", "c", "ca") and short != short.lower():
        return found[0]
    word = next(word for key, word in _BEFORE_DIGITS.items() if key.lower() == short.lower())
    return f"{word.capitalize() if short[0].isupper() and word not in ('number', 'numbers') else word} "


def _dates(text: str) -> str:
    text = _MONTH_BEFORE.sub(lambda found: _SHORT_MONTHS[found[1] or found[2]], text)
    text = _ISO.sub(lambda found: _date(int(found[2]), int(found[3]), found[1]) or found[0], text)
    text = _SLASHES.sub(_with_slashes, text)
    text = _MONTH_DAY.sub(lambda found: f"{found[1]} {_ordinal(int(found[2]))}", text)
    return _DAY_MONTH.sub(lambda found: f"{found[1] or 'the '}{_ordinal(int(found[2]))} of {found[3]}", text)


def _with_slashes(found: re.Match[str]) -> str:
    first, second, year = int(found[1]), int(found[2]), found[3]
    return _date(first, second, year) or _date(second, first, year) or found[0]


def _date(month: int, day: int, year: str) -> str | None:
    return f"{_MONTHS[month - 1]} {_ordinal(day)}, {year}" if 1 <= month <= 12 and 1 <= day <= 31 else None


def _ordinal(number: int) -> str:
    last = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{last}"


def _value(roman: str) -> int:
    values = [_VALUES[letter] for letter in roman]
    return sum(-one if one < after else one for one, after in zip(values, [*values[1:], 0], strict=True))
