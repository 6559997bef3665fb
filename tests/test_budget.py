"""How much: hours, tokens, a share; what is written so that it can be reached; the pace of a voice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salad.errors import MissingFileError, RecipeError
from salad.select.budget import (
    CHARACTERS_PER_TOKEN,
    SECONDS_PER_CHARACTER,
    natural_seconds,
    pace_of,
    parse_budget,
)


@pytest.mark.parametrize(
    ("asked", "amount", "unit"),
    [
        ("0.5h", 1800, "seconds"),
        ("30m", 1800, "seconds"),
        ("30 min", 1800, "seconds"),
        (" 90s ", 90, "seconds"),
        ("200000 tokens", 200_000, "tokens"),
        ("200k tokens", 200_000, "tokens"),
        ("2Mtok", 2_000_000, "tokens"),
        ("1.5Btok", 1_500_000_000, "tokens"),
        ("1 token", 1, "tokens"),
        ("1%", 36, "seconds"),
        ("0.25 %", 9, "seconds"),
    ],
)
def test_a_budget_as_it_is_written(asked, amount, unit):
    budget = parse_budget(asked, natural_s=3600.0)
    assert budget.amount == pytest.approx(amount)
    assert budget.unit == unit


@pytest.mark.parametrize(
    "asked", ["", "5", "0h", "0 tokens", "-1h", "1 hour and a half", "h", "1e3s", "2M", "5 %%", "1,5h", "nanh", "infh"]
)
def test_what_is_no_budget_is_refused(asked):
    with pytest.raises(RecipeError, match="30m or 90s") as raised:
        parse_budget(asked, natural_s=10.0)
    assert asked in str(raised.value)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(RecipeError, match="--natural"):
        parse_budget("1%")


def test_what_a_text_costs():
    assert parse_budget("1h").cost("abcd", 4) == pytest.approx(4 * SECONDS_PER_CHARACTER)
    assert parse_budget("1h", 0.1).cost("abcd", 4) == pytest.approx(0.4)
    assert parse_budget("9 tokens").cost("abcd", 9) == pytest.approx(9 / CHARACTERS_PER_TOKEN)
    assert parse_budget("9 tokens", count_tokens=lambda text: float(len(text.split()))).cost("a b c", 5) == 3
    assert parse_budget("1h", 0.1, count_tokens=lambda _: 99.0).cost("a", 1) == pytest.approx(0.1)  # speech is speech


@given(
    st.sampled_from(["1h", "1m", "90s", "1000 tokens", "1%"]),
    st.floats(1e-3, 1e9, allow_nan=False, allow_infinity=False),
)
def test_what_is_written_can_be_reached_and_is_near(asked, amount):
    budget = parse_budget(asked, natural_s=1e6)
    if budget.unit == "tokens" and amount < 100:
        return
    written = budget.written(amount)
    read = parse_budget(written, natural_s=1e6)
    assert read.unit == budget.unit
    assert 0.99 * amount <= read.amount <= amount * (1 + 1e-12)


def test_natural_speech_in_hours():
    assert natural_seconds("960h") == 960 * 3600
    assert natural_seconds("0.5") == 1800
    assert natural_seconds("90m") == 5400
    with pytest.raises(RecipeError, match="give a prepared folder"):
        natural_seconds("plenty")
    with pytest.raises(RecipeError, match="no speech"):
        natural_seconds("0h")


def test_natural_speech_and_pace_of_a_prepared_folder(tmp_path):
    from lhotse import MonoCut, SupervisionSegment

    from salad.speech.prepared import write_prepared

    def cut(number, seconds, text, **custom):
        name = f"c{number}"
        spoken = SupervisionSegment(name, name, 0, seconds, text=text)
        return MonoCut(name, 0, seconds, 0, supervisions=[spoken], custom=custom or None)

    write_prepared(tmp_path, [cut(0, 2.0, "x" * 30), cut(1, 4.0, "x" * 90, written="x" * 30)], [], {})
    assert natural_seconds(str(tmp_path)) == pytest.approx(6.0)
    assert pace_of(tmp_path) == pytest.approx(0.1)
    with pytest.raises(MissingFileError):
        pace_of(tmp_path / "nothing")
    empty = tmp_path / "empty"
    write_prepared(empty, [], [], {})
    with pytest.raises(RecipeError, match="no speech"):
        pace_of(empty)
    with pytest.raises(RecipeError, match="no speech"):
        natural_seconds(str(empty))
