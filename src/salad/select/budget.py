"""How much is selected: hours of speech, tokens of an LLM, or a share of the natural speech."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from salad.errors import RecipeError
from salad.speech.prepared import stream_cuts, text_of
from salad.speech.stats import speech_stats

SECONDS_PER_CHARACTER = 0.065
"""A human reader's: LJ Speech takes 0.066 s for a character of its transcripts (23.9 h, 1.3 M characters)."""

CHARACTERS_PER_TOKEN = 4.5
"""Of English prose: SmolLM2's on Wikipedia, abstracts, interviews and news are of 4.3 to 4.6."""

Unit = Literal["seconds", "tokens"]

_SECONDS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_THOUSANDS = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9}
_NUMBER = r"(\d+(?:\.\d+)?)"
_TIME = re.compile(rf"{_NUMBER}\s*(h|min|m|s)")
_TOKENS = re.compile(rf"{_NUMBER}\s*([kMB]?)\s*tok(?:ens?)?")
_SHARE = re.compile(rf"{_NUMBER}\s*%")


@dataclass(frozen=True)
class Budget:
    """An amount of `unit`, how much of it a text costs, and how the user wrote it.

    `cost_of` counts a text's tokens exactly, by the tokenizer `counted_by`; without it a text costs `per_character` for
    each of its characters.
    """

    amount: float
    unit: Unit
    per_character: float
    asked: str
    cost_of: Callable[[str], float] | None = None
    of_natural_s: float | None = None
    counted_by: str | None = None

    def cost(self, text: str, num_chars: int) -> float:
        """What a text costs, in `unit`."""
        return self.cost_of(text) if self.cost_of is not None else num_chars * self.per_character

    def written(self, amount: float) -> str:
        """An amount as `--budget` takes it, in the unit that was asked in, rounded down so that it can be reached."""
        if self.of_natural_s is not None:
            return f"{_down(100 * amount / self.of_natural_s)}%"
        if self.unit == "tokens":
            return f"{math.floor(amount)} tokens"
        suffix = found[2] if (found := _TIME.fullmatch(self.asked)) else "h"
        return f"{_down(amount / _SECONDS[suffix])}{suffix}"


def seconds_budget(seconds: float, per_character: float = SECONDS_PER_CHARACTER) -> Budget:
    """So many seconds of speech, of a voice that takes `per_character` seconds for a character."""
    return Budget(seconds, "seconds", per_character, f"{seconds / 3600:g}h")


def parse_budget(
    asked: str,
    seconds_per_character: float = SECONDS_PER_CHARACTER,
    count_tokens: Callable[[str], float] | None = None,
    natural_s: float | None = None,
    counted_by: str | None = None,
) -> Budget:
    """The budget that "0.5h", "30m", "90s", "200000 tokens", "2Mtok" or "1%" asks for.

    Args:
        asked: what the user wrote.
        seconds_per_character: the voice's.
        count_tokens: the LLM's, of a text; None: `CHARACTERS_PER_TOKEN`.
        natural_s: seconds of natural speech, which a percentage is of.
        counted_by: the name of the tokenizer.

    Raises:
        RecipeError: it is none of these, it is 0, or a percentage of nothing.
    """
    text = asked.strip()
    budget: Budget | None = None
    if found := _TIME.fullmatch(text):
        budget = Budget(float(found[1]) * _SECONDS[found[2]], "seconds", seconds_per_character, text)
    elif found := _TOKENS.fullmatch(text):
        amount = float(found[1]) * _THOUSANDS[found[2]]
        budget = Budget(amount, "tokens", 1 / CHARACTERS_PER_TOKEN, text, count_tokens, counted_by=counted_by)
    elif found := _SHARE.fullmatch(text):
        if natural_s is None:
            raise RecipeError(f"--budget {text}: of what? Give --natural DIR (a prepared folder) or --natural 960h.")
        amount = float(found[1]) / 100 * natural_s
        budget = Budget(amount, "seconds", seconds_per_character, text, of_natural_s=natural_s)
    if budget is None or budget.amount == 0:
        raise RecipeError(
            f"--budget {asked}: write speech as 0.5h, 30m or 90s, tokens as 200000 tokens or 2Mtok, or a share of the "
            "natural speech as 1%, and more than 0."
        )
    return budget


def natural_seconds(natural: str) -> float:
    """Seconds of natural speech: of a prepared folder, or as it is written ("960h"; a bare number is hours).

    Raises:
        RecipeError: neither.
        MissingFileError: the folder was never prepared.
    """
    if found := re.fullmatch(rf"{_NUMBER}\s*(h|min|m|s)?", natural.strip()):
        seconds = float(found[1]) * _SECONDS[found[2] or "h"]
    elif Path(natural).is_dir():
        seconds = float(speech_stats(Path(natural))["hours"]) * 3600
    else:
        raise RecipeError(f"--natural {natural}: give a prepared folder, or hours such as 960h.")
    if seconds == 0:
        raise RecipeError(f"--natural {natural} is no speech, so there is no share of it; give --budget in hours.")
    return seconds


def token_counter(tokenizer: str) -> Callable[[str], float]:
    """Counts the tokens of a text as the LLM of that name or folder reads it, without marks around it.

    Raises:
        AssetError: there is no such LLM.
    """
    from salad.model.llm import load_tokenizer  # here, because it is slow to import

    count = load_tokenizer(tokenizer)
    return lambda text: float(len(count(text, add_special_tokens=False)["input_ids"]))


def pace_of(folder: Path) -> float:
    """Seconds per character of the speech in a prepared folder: its length over that of its texts, as they are written.

    Raises:
        MissingFileError: the folder was never prepared.
        RecipeError: it holds no speech.
    """
    seconds, characters = 0.0, 0
    for cut in stream_cuts(folder):
        seconds += cut.duration
        characters += len((cut.custom or {}).get("written") or text_of(cut))
    if not (seconds and characters):
        raise RecipeError(f"{folder} holds no speech to measure a pace on; give --seconds-per-character.")
    return seconds / characters


def _down(value: float) -> str:
    """Three significant digits, not above the value."""
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 0
    step = 10.0**-digits
    rounded = math.floor(value / step) * step
    return f"{rounded:.{max(0, digits)}f}".rstrip("0").rstrip(".") if digits > 0 else f"{rounded:.0f}"
