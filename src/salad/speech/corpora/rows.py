"""Manifests with an utterance a row: JSON lines (NeMo's too), CSV and TSV, by the names their columns usually have.

    {"id": "LJ001-0001", "audio": "LJ001-0001.flac", "text": "Printing, in the only sense …",
     "speaker": "LJ", "duration": 9.655, "language": "English", "source": "…", "licence": "…"}
    {"audio_filepath": "talk.wav", "offset": 12.5, "duration": 3.1, "text": "so that is it",
     "words": [["so", 0.1, 0.3], ["that", 0.3, 0.5], ["is", 0.55, 0.7], ["it", 0.7, 2.9]]}

`audio` is a path from the manifest's folder or an absolute one. With an `offset` the utterance is that span of the
file; without one it is the whole file, and `duration` is compared with it. Word timings count from the span's start.
A row without an id is named after its file; where that name is taken, the row's number follows it. CSV has a row a
line, quoted as usual; TSV has no quotes. Column names are case-insensitive.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from salad.errors import DataError
from salad.speech.candidate import Candidate
from salad.speech.corpora.lines import read_lines
from salad.speech.prepared import Rejected
from salad.speech.seen import SeenNames

NAMES = {
    "id": ("id", "utt_id", "utterance_id", "uttid", "segment_id"),
    "audio": ("audio", "audio_filepath", "audio_path", "audio_file", "path", "file", "file_name", "filename", "wav"),
    "text": ("text", "sentence", "transcript", "transcription"),
    "duration": ("duration", "duration_s"),
    "offset": ("offset", "start", "start_s"),
    "speaker": ("speaker", "speaker_id", "client_id", "spk_id"),
    "language": ("language", "lang", "locale"),
    "licence": ("licence", "license"),
    "source": ("source",),
    "document": ("document", "document_id", "chapter_id"),
    "words": ("words", "alignment"),
}
"""What is read of a row, and the names it may have; where a row has several, the first of them counts."""

_MEANING = {name: meaning for meaning, names in NAMES.items() for name in names}

MAX_TIME_S = 1e7
"""No recording is longer: also keeps infinity and integers beyond float out."""


def candidates(manifest: Path, style: str) -> Iterator[Candidate | Rejected]:
    """The utterances of a manifest, a line each, in order.

    Args:
        manifest: the file, UTF-8; ".gz" is read too.
        style: "jsonl", "csv" or "tsv".

    Raises:
        DataError: a CSV or TSV has no columns of audio and text.
    """
    lines = read_lines(manifest)
    header = None if style == "jsonl" else _header(manifest, lines, style)
    stems = SeenNames()
    for item in lines:
        if isinstance(item, Rejected):
            yield item
            continue
        place, line = item
        number = place.rpartition(":")[2]
        identifier: str | None = None
        try:
            row = _json_row(line) if header is None else _table_row(line, header, style)
            identifier = _text(row, "id")
            yield _candidate(row, identifier, manifest.parent, place, number, stems)
        except DataError as error:
            yield Rejected(identifier or f"line {number}", str(error), place)


# --- lines to rows --------------------------------------------------------------------------------------------------


def _json_row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # JSONDecodeError and too long an integer are ValueErrors
        raise DataError(f"broken line: it is not readable as JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"broken line: it is not a JSON object but {type(row).__name__}")
    return _by_meaning(list(row.items()))


def _header(manifest: Path, lines: Iterator[tuple[str, str] | Rejected], style: str) -> list[str]:
    first = next(lines, None)
    names = _cells(first[1], style) if isinstance(first, tuple) else []
    found = {_MEANING.get(name.strip().lower()) for name in names}
    if not {"audio", "text"} <= found:
        raise DataError(
            f"{manifest} has no columns of audio and text in its first line but {', '.join(names)[:200] or 'nothing'}; "
            f"name them, e.g. 'audio' and 'text' ({' or '.join(NAMES['audio'])}; {' or '.join(NAMES['text'])})."
        )
    return names


def _table_row(line: str, header: list[str], style: str) -> dict[str, Any]:
    cells = _cells(line, style)
    if len(cells) != len(header):
        raise DataError(f"broken line: it has {len(cells)} cells, the first line has {len(header)}")
    return _by_meaning([(name, cell) for name, cell in zip(header, cells, strict=True) if cell.strip()])


def _cells(line: str, style: str) -> list[str]:
    if style == "tsv":
        return line.split("\t")
    try:
        return next(csv.reader([line], strict=True))
    except (csv.Error, StopIteration) as error:
        raise DataError(f"broken line: it is not readable as CSV ({error}); a row must stand in one line") from error


def _by_meaning(cells: list[tuple[str, Any]]) -> dict[str, Any]:
    """What a row says, by what it means; null is nothing."""
    values = {name.strip().lower(): value for name, value in reversed(cells) if value is not None}
    return {
        meaning: next(values[name] for name in names if name in values)
        for meaning, names in NAMES.items()
        if any(name in values for name in names)
    }


# --- rows to candidates ---------------------------------------------------------------------------------------------


def _candidate(
    row: dict[str, Any], identifier: str | None, folder: Path, place: str, number: str, stems: SeenNames
) -> Candidate:
    audio = row.get("audio")
    if not isinstance(audio, str) or not audio.strip() or "\0" in audio:
        raise DataError(f"no audio: the row's 'audio' must be a path, not {_shown(audio)}")
    text = row.get("text", "")
    if not isinstance(text, str):
        raise DataError(f"no transcript: the row's 'text' must be a string, not {_shown(text)}")
    if identifier is None:
        identifier = PurePath(audio).stem
        if stems.before(identifier):
            identifier = f"{identifier}-{number}"
    duration_s, offset_s = _seconds(row, "duration"), _seconds(row, "offset")
    if duration_s == 0:
        raise DataError("wrong duration: the row says 0 s")
    return Candidate(
        id=identifier,
        place=place,
        audio=folder / audio,
        text=text,
        start_s=offset_s or 0.0,
        duration_s=duration_s if offset_s is not None else None,
        stated_duration_s=duration_s,
        speaker=_text(row, "speaker"),
        language=_text(row, "language"),
        licence=_text(row, "licence"),
        source=_text(row, "source"),
        document=_text(row, "document"),
        words=None if "words" not in row else word_timings(row["words"]),
    )


def word_timings(value: object) -> tuple[tuple[str, float, float], ...]:
    """Word timings as manifests write them: [[word, start, end], …] or [{"word": …, "start": …, "end": …}, …].

    Raises:
        DataError: they are written otherwise.
    """
    if isinstance(value, str):  # in a cell of a table
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(f"unreadable word timings: {_shown(value)} is not JSON") from error
    if not isinstance(value, list):
        raise DataError(f"unreadable word timings: a list of [word, start, end] is needed, not {_shown(value)}")
    words = []
    for item in value:
        triple = [item.get(key) for key in ("word", "start", "end")] if isinstance(item, dict) else item
        if not isinstance(triple, list) or len(triple) < 3 or not isinstance(triple[0], str):
            raise DataError(f"unreadable word timings: [word, start, end] is needed, not {_shown(item)}")
        words.append((triple[0], *(_time(time_s, "a word's time") for time_s in triple[1:3])))
    return tuple(words)  # type: ignore[arg-type]  # mypy does not see that the star stands for two


def _text(row: dict[str, Any], meaning: str) -> str | None:
    value = row.get(meaning)
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise DataError(f"unreadable row: {meaning!r} must be a string, not {_shown(value)}")
    return None if value is None or not str(value).strip() else str(value)


def _seconds(row: dict[str, Any], meaning: str) -> float | None:
    return None if meaning not in row else _time(row[meaning], f"{meaning!r}")


def _time(value: object, what: str) -> float:
    """Seconds, written as a number or a string."""
    number = math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not 0 <= number < MAX_TIME_S:
        raise DataError(f"unreadable row: {what} must be a number of seconds, not {_shown(value)}")
    return number


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"
