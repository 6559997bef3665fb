"""Units, abbreviations, dates, addresses and markup, as a reader of web pages and textbooks meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from salad.errors import DataError
from salad.texts.normalize import spoken_form

SPOKEN = {
    # units
    "He weighs 75 kg and ran 10km at 12 mph.": (
        "He weighs seventy-five kilograms and ran ten kilometers at twelve miles per hour."
    ),
    "1 km, 1.5 km, 5-km run, 200 km/h, 3 m/s": (
        "one kilometer, one point five kilometers, five-kilometer run, two hundred kilometers per hour, "
        "three meters per second"
    ),
    "10 mg/dL; 5 μg/kg; 5 µg; 300 mg/day": (
        "ten milligrams per deciliter; five micrograms per kilogram; five micrograms; three hundred milligrams per day"
    ),
    "100 m² and 3 km2, 2 sq mi": "one hundred square meters and three square kilometers, two square miles",
    "5 ft 3 in. tall, 6'2\", 2,029 ft": (
        "five feet three inches tall, six feet two inches, two thousand and twenty-nine feet"
    ),
    "50 Hz, 2.4 GHz, 60 W, 5 kWh, 16 GB": (
        "fifty hertz, two point four gigahertz, sixty watts, five kilowatt hours, sixteen gigabytes"
    ),
    "35°N, -5°C": "thirty-five degrees north, minus five degrees Celsius",
    "in 5 min or 2 hrs, 30 ms": "in five minutes or two hours, thirty milliseconds",
    "3D, 5 o'clock, a 4x4 and I'm 5": "three D, five o'clock, a four by four and I'm five",
    # money
    "$3.5M, $2bn, $10k, £5m": (
        "three point five million dollars, two billion dollars, ten thousand dollars, five million pounds"
    ),
    # abbreviations
    "Dr. Smith and Prof. Lee met Gen. Grant.": "Doctor Smith and Professor Lee met General Grant.",
    "She lives on 5th St. in St. Louis, near Mt. Hood.": "She lives on fifth Street in Saint Louis, near Mount Hood.",
    "See Fig. 3, No. 5, pp. 10-12 and Vol. 2.": "See Figure three, number five, pages ten to twelve and Volume two.",
    "No. I said no.": "No. I said no.",
    "cats vs. dogs, approx. 5": "cats versus dogs, approximately five",
    "Martin Luther King Jr. spoke for Acme Inc.": "Martin Luther King Junior spoke for Acme Incorporated.",
    # dates
    "It was 2024-05-01.": "It was May first, twenty twenty-four.",
    "5/6/2021 and 25/12/2021": "May sixth, twenty twenty-one and December twenty-fifth, twenty twenty-one",
    "Jan. 5, 2020; Sept 3rd": "January fifth, twenty twenty; September third",
    "12 Oct 1999, the 4 July": "the twelfth of October nineteen ninety-nine, the fourth of July",
    "in May 1968 and on May 10,": "in May nineteen sixty-eight and on May tenth,",
    "35/36/2021": "thirty-five slash thirty-six slash twenty twenty-one",
    "a 3:1 ratio at 3:45 p.m.": "a three to one ratio at three forty-five p.m.",
    # Roman numerals
    "Henry VIII and Louis XIV": "Henry the eighth and Louis the fourteenth",
    "World War II, Chapter IV, Type I": "World War two, Chapter four, Type one",
    "I saw Henry. I did. X and V": "I saw Henry. I did. X and V",
    # signs
    "p<0.05, n ≥ 30 and (<5)": "p is less than zero point zero five, n is at least thirty and (less than five)",
    "38 +/- 11, .001": "thirty-eight plus or minus eleven, point zero zero one",
    "β-sitosterol, Δt, χ²": "beta-sitosterol, delta t, chi squared",
    "50/50, 24/7": "fifty-fifty, twenty-four seven",
    "(800) 555-1234": "eight zero zero five five five one two three four",
    # web pages
    "Tom &amp; Jerry&#39;s &quot;show&quot; &nbsp;now": "Tom and Jerry's \"show\" now",
    "See https://www.example.com/a-b?x=1.": "See example dot com slash a dash b question mark x equals one.",
    "mail joe.doe@mail.example.org, or wikipedia.org": (
        "mail joe dot doe at mail dot example dot org, or wikipedia dot org"
    ),
    "H2O and CO2": "H two O and CO two",
}  # fmt: skip


@pytest.mark.parametrize(("written", "spoken"), SPOKEN.items())
def test_what_is_written_is_said_in_full(written: str, spoken: str) -> None:
    assert spoken_form(written) == spoken
    assert spoken_form(spoken) == spoken


@pytest.mark.parametrize(
    "written",
    [
        "<speak>Hello</speak>",
        'Say <break time="5s"/> now',
        "a <b>bold</b> word",
        "&lt;prosody rate='slow'&gt;x&lt;/prosody&gt;",
        "before <!-- hidden -->",
        "<?xml version='1.0'?>",
    ],
)
def test_markup_is_refused_and_shown(written: str) -> None:
    with pytest.raises(DataError, match=r"^markup: .<.*read aloud"):
        spoken_form(written)


def test_nothing_that_a_voice_could_take_for_a_command_is_left() -> None:
    for written in ("[[ h@l'oU ]]", "a < b and c > d", "&lt; &gt; &amp;", "{pause} <3", "\x1b[31m", "&#0;&#27;"):
        try:
            spoken = spoken_form(written)
        except DataError:
            continue
        assert not set(spoken) & set("<>[]{}&\x1b\x00")


def test_most_of_the_real_text_has_a_spoken_form(shared_data: Path) -> None:
    from sentencex import segment

    passed = count = 0
    for path in sorted((shared_data / "text").glob("*.jsonl")):
        rows = path.read_text(encoding="utf-8").split("\n")
        for line in [row for row in rows if row][::60]:
            for sentence in segment("en", json.loads(line)["text"]):
                if not sentence.strip():
                    continue
                count += 1
                try:
                    spoken = spoken_form(sentence)
                except DataError:
                    continue
                passed += 1
                assert spoken_form(spoken) == spoken
    assert count > 500
    assert passed / count > 0.99
