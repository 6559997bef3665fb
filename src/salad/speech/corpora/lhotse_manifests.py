"""Lhotse's manifests, JSON lines, plain or gzipped: cuts, or supervisions with the recordings beside them.

Every supervision becomes a cut of its own span; a cut with one of them keeps its id. Word alignments go along. The
manifest is read as a stream of lines, each by itself, where Lhotse's own reader would end at the first broken one. What
Lhotse would compute on the fly is not taken: mixed cuts, recordings with transforms, one channel of several, audio that
is not in a file. A path that is not absolute is taken from the manifest's folder, or, if nothing is there, from the
working directory, as Lhotse takes it. Memory holds the recordings where they have a manifest of their own.

The times of an alignment count from the recording's start, says Lhotse, and stay so when a cut is cut out of another;
some programs write them from the cut's or the supervision's start. They are taken from the first of these by which all
words lie in the supervision's span.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from salad.errors import DataError, MissingFileError
from salad.speech.candidate import Candidate
from salad.speech.corpora.kaldi import located
from salad.speech.corpora.lines import read_lines
from salad.speech.prepared import Rejected
from salad.speech.transcript import TIMING_SLACK_S


def is_cuts(row: object) -> bool:
    """Whether a JSON value is one of Lhotse's cuts."""
    return isinstance(row, dict) and (
        str(row.get("type", "")).endswith("Cut") or {"supervisions", "start"} <= row.keys()
    )


def is_supervision(row: object) -> bool:
    """Whether a JSON value is one of Lhotse's supervisions."""
    return isinstance(row, dict) and {"recording_id", "start", "duration"} <= row.keys() and "audio" not in row


def is_recording(row: object) -> bool:
    """Whether a JSON value is one of Lhotse's recordings."""
    return isinstance(row, dict) and {"sources", "sampling_rate"} <= row.keys()


def from_cuts(manifest: Path) -> Iterator[Candidate | Rejected]:
    """The supervisions of a manifest of cuts, in order; a cut without one is a rejection."""
    for item in _rows(manifest):
        if isinstance(item, Rejected):
            yield item
            continue
        place, cut = item
        name = str(cut.get("id", f"line {place.rpartition(':')[2]}"))
        try:
            supervisions = _list(cut, "supervisions")
            if cut.get("type") in ("MixedCut", "PaddingCut"):
                raise DataError(
                    f"not a recording: it is a {cut['type']}, put together on the fly; save its audio first"
                )
            if not supervisions:
                raise DataError("no transcript: the cut has no supervision")
            _check_channels(cut.get("channel"), cut.get("recording"))
            audio = _audio(cut.get("recording"), manifest.parent)
        except DataError as error:
            yield Rejected(name, str(error), place)
            continue
        for supervision in supervisions:
            own = name if len(supervisions) == 1 else str(_dict(supervision).get("id", name))
            try:
                origin = {**(_dict(supervision).get("custom") or {}), **(cut.get("custom") or {})}
                begins_s = _number(cut, "start")
                yield _candidate(own, place, audio, _dict(supervision), begins_s, origin)
            except (DataError, TypeError) as error:
                yield Rejected(own, str(error), place)


def from_supervisions(manifest: Path) -> Iterator[Candidate | Rejected]:
    """The supervisions of a manifest, in order; their recordings are looked up in the manifest beside it.

    Raises:
        MissingFileError: there is none.
    """
    beside = manifest.with_name(re.sub("supervision", "recording", manifest.name))
    if beside == manifest or not beside.is_file():
        raise MissingFileError(f"{manifest} holds supervisions, and there is no {beside.name} beside it; put it there.")
    recordings: dict[str, dict[str, Any]] = {}
    for item in _rows(beside):
        if isinstance(item, Rejected):
            yield item
        else:
            recordings.setdefault(str(item[1].get("id")), item[1])
    for item in _rows(manifest):
        if isinstance(item, Rejected):
            yield item
            continue
        place, supervision = item
        name = str(supervision.get("id", f"line {place.rpartition(':')[2]}"))
        try:
            recording = recordings.get(str(supervision.get("recording_id")))
            if recording is None:
                raise DataError(f"no audio: {beside.name} has no recording {supervision.get('recording_id')!r}")
            _check_channels(supervision.get("channel", 0), recording)
            origin = _dict(supervision.get("custom") or {})
            yield _candidate(name, place, _audio(recording, manifest.parent), supervision, 0.0, origin)
        except (DataError, TypeError) as error:
            yield Rejected(name, str(error), place)


def _rows(manifest: Path) -> Iterator[tuple[str, dict[str, Any]] | Rejected]:
    for item in read_lines(manifest):
        if isinstance(item, Rejected):
            yield item
            continue
        place, line = item
        try:
            yield place, _dict(json.loads(line))
        except (ValueError, RecursionError) as error:  # DataError is a ValueError
            number = place.rpartition(":")[2]
            yield Rejected(f"line {number}", f"broken line: it is not readable as JSON ({error})", place)


def _candidate(
    name: str,
    place: str,
    audio: Path,
    supervision: dict[str, Any],
    cut_start_s: float,
    origin: dict[str, Any],
) -> Candidate:
    """A supervision whose times count from the cut's start, which stands at `cut_start_s` of the recording."""
    start_s, duration_s = _number(supervision, "start"), _number(supervision, "duration")
    references_s = (cut_start_s + start_s, start_s, 0.0)
    speaker, language = supervision.get("speaker"), supervision.get("language")
    return Candidate(
        id=name,
        place=place,
        audio=audio,
        text=str(supervision.get("text") or ""),
        start_s=cut_start_s + start_s,
        duration_s=duration_s,
        speaker=None if speaker is None else str(speaker),
        language=None if language is None else str(language),
        licence=_optional(origin, "licence"),
        source=_optional(origin, "source"),
        document=_optional(origin, "document"),
        words=_words(supervision, references_s, duration_s),
    )


def _words(
    supervision: dict[str, Any], references_s: tuple[float, ...], duration_s: float
) -> tuple[tuple[str, float, float], ...] | None:
    """The word alignment, from the span's start: by the first reference by which all words lie in the span."""
    alignment = supervision.get("alignment")
    items = alignment.get("word") if isinstance(alignment, dict) else None
    if items is None:
        return None
    try:
        words = [
            item[:3] if isinstance(item, list) else [item[key] for key in ("symbol", "start", "duration")]
            for item in items
        ]
        starts = [float(start) for _, start, _ in words]
        ends = [float(start) + float(length) for _, start, length in words]
    except (TypeError, ValueError, LookupError) as error:
        raise DataError(f"unreadable word timings: {str(items)[:60]} ({error})") from error
    first, last = min(starts, default=0.0), max(ends, default=0.0)
    fitting = [at for at in references_s if at - TIMING_SLACK_S <= first and last <= at + duration_s + TIMING_SLACK_S]
    at = fitting[0] if fitting else references_s[0]
    return tuple(
        (str(word), max(0.0, round(start - at, 6)), round(end - at, 6))
        for (word, _, _), start, end in zip(words, starts, ends, strict=True)
    )


def _audio(recording: object, folder: Path) -> Path:
    if not isinstance(recording, dict):
        raise DataError("no audio: it has no recording")
    if recording.get("transforms"):
        raise DataError("transformed recording: its transforms are not applied; save the audio with them first")
    sources = _list(recording, "sources")
    if len(sources) != 1:
        raise DataError(f"no audio: its recording has {len(sources)} sources; one file is needed")
    source = _dict(sources[0])
    if source.get("type") != "file" or not isinstance(source.get("source"), str):
        raise DataError(f"no audio: its recording is of type {source.get('type')!r}; save it to a file first")
    return located(source["source"], folder)


def _check_channels(channel: object, recording: object) -> None:
    if isinstance(channel, list) or not isinstance(recording, dict):
        return  # all that the cut names: their mean is taken
    channels = recording.get("channel_ids") or [
        number for source in _list(recording, "sources") for number in _dict(source).get("channels") or []
    ]
    if len(channels) > 1:
        raise DataError(
            f"one channel of several: it is channel {channel} of {len(channels)}, and salad takes the mean of all; "
            "save the channels as files of their own"
        )


def _list(row: dict[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    return value if isinstance(value, list) else []


def _dict(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"broken line: a JSON object is needed, not {type(value).__name__}")
    return value


def _number(row: dict[str, Any], key: str) -> float:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e7:
        raise DataError(f"broken line: {key!r} must be a number of seconds, not {str(value)[:60]}")
    return float(value)


def _optional(row: dict[str, Any], key: str) -> str | None:
    value = row.get(key)
    return None if value is None else str(value)
