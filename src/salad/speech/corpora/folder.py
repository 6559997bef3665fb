"""Any folder of audio with a manifest: one JSON object a line with id, audio, text and, if known, the rest.

    {"id": "LJ001-0001", "audio": "LJ001-0001.flac", "text": "Printing, in the only sense …",
     "speaker": "LJ", "duration": 9.655, "language": "English", "source": "…", "licence": "…"}

`audio` is a path from the manifest's folder or an absolute one; the files stay where they are. The transcript is taken
as it is, with single spaces between its words. An item that can't be used is listed with its reason, not passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lhotse import MonoCut, Recording, SupervisionSegment

from salad.errors import AudioError, DataError, MissingFileError, SaladError
from salad.files import write_jsonl
from salad.speech.audio import load_audio
from salad.speech.prepared import Rejected, write_prepared

DURATION_SLACK_S = 0.5
"""How far the manifest's duration may be from the audio's before the transcript is held to be another file's."""

MAX_DURATION_S = 1e6
"""No file is longer; also keeps NaN, infinity and integers beyond float out of the comparison."""


def prepare(folder: Path, out: Path, manifest_name: str = "manifest.jsonl", strict: bool = False) -> None:
    """Write the prepared folder `out` from `folder/manifest_name`; every audio file is decoded once to check it.

    Raises:
        MissingFileError: no such manifest.
        DataError: no item can be used, or, if `strict`, any item can't; `out/rejected.jsonl` says why.
    """
    manifest = folder / manifest_name
    if not manifest.is_file():
        raise MissingFileError(f"{manifest} does not exist; it must have a JSON object with id, audio and text a line.")
    cuts: list[MonoCut] = []
    rejected: list[Rejected] = []
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for number, line in _lines(manifest):
        identifier = f"line {number}"
        try:
            row = _row(line)
            identifier = _identifier(row, seen)
            cuts.append(_cut(identifier, row, folder))
            rows.append(row)
        except (SaladError, OSError) as error:  # OSError: a path too long, a file that may not be read
            rejected.append(Rejected(identifier, str(error), f"{manifest}:{number}"))
    if not cuts or (strict and rejected):
        raise _unusable(manifest, out, len(cuts), rejected)
    write_prepared(out, cuts, rejected, _info(folder, cuts, rows))


def _lines(manifest: Path) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of every line that is not blank; they end at a line feed alone."""
    content = manifest.read_bytes().removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            yield number, line


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair can't be written down again
    except (ValueError, RecursionError) as error:  # the Unicode errors and JSONDecodeError are ValueErrors
        raise DataError(f"the line is not readable as JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"the line is not a JSON object but {type(row).__name__}")
    return row


def _identifier(row: dict[str, Any], seen: set[str]) -> str:
    """The row's id, entered in `seen`; it names files of features, so it must be fit for that."""
    identifier = row.get("id")
    if not isinstance(identifier, str) or not identifier.strip():
        raise DataError(f"'id' must be a string that is not empty, not {identifier!r}")
    if "/" in identifier or "\0" in identifier or identifier.startswith("."):
        raise DataError(f"the id {identifier!r} can't name a file; write it without '/' and a leading '.'")
    if identifier in seen:
        raise DataError(f"the id {identifier!r} stands in an earlier line too")
    seen.add(identifier)
    return identifier


def _cut(identifier: str, row: dict[str, Any], folder: Path) -> MonoCut:
    text = _transcript(row)
    audio = row.get("audio")
    if not isinstance(audio, str) or not audio or "\0" in audio:
        raise DataError(f"'audio' must be a path, not {audio!r}")
    path = (folder / audio).resolve()
    recording = _recording(identifier, path)
    _compare_duration(row.get("duration"), recording.duration)
    speaker, language = row.get("speaker"), row.get("language")
    supervision = SupervisionSegment(
        id=identifier,
        recording_id=identifier,
        start=0.0,
        duration=recording.duration,
        text=text,
        speaker=None if speaker is None else str(speaker),
        language=language if isinstance(language, str) else "English",
    )
    return MonoCut(
        id=identifier,
        start=0.0,
        duration=recording.duration,
        channel=0,
        recording=recording,
        supervisions=[supervision],
    )


def _transcript(row: dict[str, Any]) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        raise DataError(f"'text' must be a string, not {text!r}")
    if not any(character.isalnum() for character in text):
        raise DataError(f"the transcript {text!r} has no words")
    return " ".join(text.split())


def _recording(identifier: str, path: Path) -> Recording:
    """The audio as Lhotse describes it, after all of it has been decoded.

    Raises:
        MissingFileError, AudioError: as `load_audio`.
    """
    load_audio(path)
    try:
        return Recording.from_file(path, recording_id=identifier)
    except Exception as error:  # Lhotse tries several backends and raises what the last one raised
        raise AudioError(f"{path} can't be described by Lhotse ({error})") from error


def _compare_duration(stated: object, actual_s: float) -> None:
    if stated is None:
        return
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 < stated < MAX_DURATION_S:
        raise DataError(f"'duration' must be a number of seconds, not {stated!r}")
    if abs(stated - actual_s) > DURATION_SLACK_S:
        raise DataError(
            f"the manifest says {stated:.2f} s, the audio has {actual_s:.2f} s (they may differ by {DURATION_SLACK_S})"
        )


def _unusable(manifest: Path, out: Path, num_usable: int, rejected: list[Rejected]) -> DataError:
    """The error to raise, its items written to `out/rejected.jsonl` first."""
    report = out / "rejected.jsonl"
    write_jsonl(report, [asdict(item) for item in rejected])
    first = f"; the first, at {rejected[0].place}: {rejected[0].reason}" if rejected else ""
    return DataError(
        f"{manifest}: {len(rejected)} of {len(rejected) + num_usable} items can't be used{first}. All are in {report}."
    )


def _info(folder: Path, cuts: list[MonoCut], rows: list[dict[str, Any]]) -> dict[str, object]:
    licences = sorted({str(row["licence"]) for row in rows if row.get("licence")})
    sources = sorted({str(row["source"]) for row in rows if row.get("source")})
    return {
        "corpus": folder.resolve().name,
        "licence": "; ".join(licences) or "not stated",
        "source": sources[0] if len(sources) == 1 else f"{folder.resolve()} ({len(sources)} sources, see its manifest)",
        "num_cuts": len(cuts),
        "hours": round(sum(cut.duration for cut in cuts) / 3600, 4),
    }
