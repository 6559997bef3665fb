"""What a prepared folder holds, in numbers: one pass over its cuts, line by line, whatever their number.

Memory holds the distinct speakers and words, and counters of rounded values (salad.tally).
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from salad.errors import DataError, MissingFileError
from salad.speech.prepared import CUTS_NAME, read_info
from salad.tally import Kinds, Tally

CountTokens = Callable[[Sequence[str]], int]
"""Texts → how many tokens the LLM reads them as, together."""

TEXTS_AT_ONCE = 1000
TOP_SPEAKERS = 10

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass
class Hours:
    """Cuts and their time in groups: by speaker, licence, language or rate."""

    groups: dict[str, list[float]] = field(default_factory=dict)  # name → [number of cuts, seconds]

    def add(self, name: str, seconds: float) -> None:
        """Count one cut."""
        group = self.groups.setdefault(name, [0, 0.0])
        group[0] += 1
        group[1] += seconds

    def rows(self, what: str, most: int | None = None) -> list[dict[str, Any]]:
        """{what: name, "num_cuts", "hours"}, the longest group first, `most` of them."""
        ranked = sorted(self.groups.items(), key=lambda item: (-item[1][1], item[0]))[:most]
        return [{what: name, "num_cuts": int(group[0]), "hours": group[1] / 3600} for name, group in ranked]


class SpeechTally:
    """Counts the cuts of a prepared folder one by one."""

    def __init__(self, count_tokens: CountTokens | None) -> None:
        """`count_tokens`: the LLM's; None leaves tokens uncounted."""
        self.count_tokens = count_tokens
        self.speakers, self.licences, self.languages, self.rates = Hours(), Hours(), Hours(), Hours()
        self.durations, self.pace, self.confidence = Tally(0.01), Tally(0.01), Tally(0.001)
        self.words: set[str] = set()
        self.num_words = self.num_tokens = self.num_aligned = self.num_timed_words = self.num_without_speaker = 0
        self._texts: list[str] = []

    def add(self, cut: dict[str, Any], licence: str) -> None:
        """Count one cut, as its line of JSON says; `licence` holds unless the cut has its own."""
        seconds, (supervision, *_) = float(cut["duration"]), cut["supervisions"]
        text = supervision.get("text") or ""
        num_words = len(text.split())
        self.durations.add(seconds)
        self.num_words += num_words
        self.words.update(map(str.lower, _WORD.findall(text)))
        if seconds > 0:
            self.pace.add(num_words / seconds)
        if supervision.get("speaker"):
            self.speakers.add(str(supervision["speaker"]), seconds)
        else:
            self.num_without_speaker += 1
        self.languages.add(supervision.get("language") or "not stated", seconds)
        self.licences.add(str((cut.get("custom") or {}).get("licence") or licence), seconds)
        self.rates.add(str((cut.get("recording") or {}).get("sampling_rate", "not stated")), seconds)
        timed = (supervision.get("alignment") or {}).get("word")
        if timed is not None:
            self.num_aligned += 1
            self.num_timed_words += len(timed)
            self.confidence.add(*[item[3] for item in timed if len(item) > 3 and item[3] is not None])
        self._texts.append(text)
        if len(self._texts) >= TEXTS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Count the tokens of the texts that wait."""
        if self.count_tokens is not None and self._texts:
            self.num_tokens += self.count_tokens(self._texts)
        self._texts.clear()


def speech_stats(
    folder: Path,
    count_tokens: CountTokens | None = None,
    tokenizer: str | None = None,
    position_hz: float = 12.5,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, Any]:
    """What `salad stats --json` prints of a prepared folder, but for its features; see docs/corpora.md.

    Args:
        folder: a prepared folder.
        count_tokens: the LLM's tokenizer's; None leaves `tokens` None.
        tokenizer: its name.
        position_hz: LLM positions per second of speech.
        progress: told (cuts read, None) now and then.

    Raises:
        MissingFileError: the folder was never prepared.
        DataError: a line of its cuts is not a cut.
    """
    info = read_info(folder)
    licence = str(info.get("licence") or "not stated")
    tally = SpeechTally(count_tokens)
    for number, cut in _rows(folder / CUTS_NAME):
        try:
            tally.add(cut, licence)
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"{folder / CUTS_NAME}:{number} is not a cut ({error!r}); prepare the folder again."
            ) from error
        if progress is not None and number % TEXTS_AT_ONCE == 0:
            progress(number, None)
    tally.flush()
    rejected = Kinds()
    for _, row in _rows(folder / "rejected.jsonl") if (folder / "rejected.jsonl").is_file() else ():
        rejected.add(str(row.get("reason", "")), str(row.get("id", "")), str(row.get("place", "")))
    return {
        "folder": str(folder),
        "corpus": info.get("corpus"),
        "source": info.get("source"),
        **_summary(tally),
        "tokens": _tokens(tally, tokenizer, position_hz) if count_tokens is not None else None,
        "rejected": {
            "num": rejected.count,
            "frac": rejected.count / max(1, rejected.count + tally.durations.count),
            "reasons": rejected.rows(),
        },
    }


def _summary(tally: SpeechTally) -> dict[str, Any]:
    num_cuts = tally.durations.count
    scored = tally.confidence.summary()
    return {
        "num_cuts": num_cuts,
        "hours": tally.durations.total / 3600,
        "duration_s": tally.durations.summary(),
        "length_histogram_s": tally.durations.histogram(),
        "num_speakers": len(tally.speakers.groups),
        "num_cuts_without_speaker": tally.num_without_speaker,
        "top_speakers": tally.speakers.rows("speaker", TOP_SPEAKERS),
        "licences": tally.licences.rows("licence"),
        "languages": tally.languages.rows("language"),
        "sample_rates_hz": tally.rates.rows("rate_hz"),
        "num_words": tally.num_words,
        "num_distinct_words": len(tally.words),
        "words_per_second": tally.pace.summary(),
        "pace_histogram": tally.pace.histogram(),
        "word_timings": {
            "num_cuts": tally.num_aligned,
            "frac": tally.num_aligned / max(1, num_cuts),
            "num_words": tally.num_timed_words,
            "num_scored": tally.confidence.count,
            "confidence": {name: scored[name] for name in ("min", "p5", "median", "mean")},
        },
    }


def _tokens(tally: SpeechTally, tokenizer: str | None, position_hz: float) -> dict[str, Any]:
    seconds = tally.durations.total
    return {
        "tokenizer": tokenizer,
        "num_tokens": tally.num_tokens,
        "tokens_per_second": tally.num_tokens / seconds if seconds else None,
        "position_hz": position_hz,
        "num_positions": round(seconds * position_hz),
        "positions_per_token": seconds * position_hz / tally.num_tokens if tally.num_tokens else None,
    }


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of every line of a JSONL file, gzipped or not; lines end at a line feed alone."""
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; make it with 'salad prepare … --out {path.parent}'.")
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _object(path, number, line)
        except (EOFError, gzip.BadGzipFile) as error:
            raise DataError(f"{path} ends too early ({error}); prepare the folder again.") from error


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}:{number} is not readable as JSON ({error}).") from error
    if not isinstance(row, dict):
        raise DataError(f"{path}:{number} is not a JSON object.")
    return row
