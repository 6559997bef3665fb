"""Kaldi's data folder: wav.scp and text, and if they are there segments, utt2spk and utt2lang.

    wav.scp    call1 audio/call1.wav                            recording, file
    segments   anna-call1-1 call1 0.35 4.10                     utterance, recording, start, end (-1: to its end)
    text       anna-call1-1 so what did you say
    utt2spk    anna-call1-1 anna

Without segments a recording is an utterance. A path that is not absolute is taken from the data folder, or, if there is
no such file there, from the working directory, as Kaldi's own programs take it. No command is run: a recording that
wav.scp describes by one ("sph2pipe … |") is rejected with what to do about it. Memory holds wav.scp and utt2spk.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from salad.errors import DataError
from salad.speech.candidate import Candidate
from salad.speech.corpora.lines import read_lines
from salad.speech.prepared import Rejected

Entry = tuple[str, str]
"""Where a line stands, and what it says after its first word."""


def candidates(folder: Path) -> Iterator[Candidate | Rejected]:
    """The utterances of `text`, in order; then the recordings or segments that it has no line for."""
    broken: list[Rejected] = []
    recordings = _table(folder / "wav.scp", broken)
    segments = _table(folder / "segments", broken) if (folder / "segments").is_file() else None
    speakers = _table(folder / "utt2spk", broken)
    languages = _table(folder / "utt2lang", broken)
    yield from broken
    spoken = recordings if segments is None else segments
    without_text = dict.fromkeys(spoken)
    for item in read_lines(folder / "text") if (folder / "text").is_file() else ():
        if isinstance(item, Rejected):
            yield item
            continue
        place, line = item
        name, *rest = line.split(maxsplit=1)
        without_text.pop(name, None)
        try:
            audio, start_s, duration_s = _span(name, folder, recordings, segments)
        except DataError as error:
            yield Rejected(name, str(error), place)
            continue
        speaker, language = speakers.get(name), languages.get(name)
        yield Candidate(
            id=name,
            place=place,
            audio=audio,
            text="".join(rest),
            start_s=start_s,
            duration_s=duration_s,
            speaker=speaker[1] if speaker else None,
            language=language[1] if language else None,
            document=None if segments is None or name not in segments else segments[name][1].split()[0],
        )
    for name in without_text:
        yield Rejected(name, "no transcript: text has no line for it", spoken[name][0])


def _table(path: Path, broken: list[Rejected]) -> dict[str, Entry]:
    """The lines of one of Kaldi's files by their first word; the first line of a name counts."""
    table: dict[str, Entry] = {}
    for item in read_lines(path) if path.is_file() else ():
        if isinstance(item, Rejected):
            broken.append(item)
            continue
        place, line = item
        name, *rest = line.split(maxsplit=1)
        if name in table:
            broken.append(Rejected(name, f"duplicate id: {name!r} stands earlier in {path.name} too", place))
            continue
        table[name] = (place, "".join(rest).strip())
    return table


def _span(
    name: str, folder: Path, recordings: dict[str, Entry], segments: dict[str, Entry] | None
) -> tuple[Path, float, float | None]:
    """The file of an utterance, where it begins there, and how long it is (None: to its end)."""
    start_s, duration_s, recording = 0.0, None, name
    if segments is not None:
        if name not in segments:
            raise DataError(f"no segment: segments has no line for {name!r}")
        try:
            recording, start, end = segments[name][1].split()
            start_s, end_s = float(start), float(end)
        except ValueError as error:
            raise DataError(f"broken line: {segments[name][0]} is not a recording, a start and an end") from error
        duration_s = None if end_s == -1 else end_s - start_s
        if not 0 <= start_s < float("inf") or (duration_s is not None and not 0 < duration_s < float("inf")):
            raise DataError(f"broken line: {segments[name][0]} says that it is spoken from {start} to {end} s")
    if recording not in recordings:
        raise DataError(f"no audio: wav.scp has no line for {recording!r}")
    source = recordings[recording][1]
    if source.endswith("|") or source.startswith("|"):
        raise DataError(
            f"piped command: wav.scp has a command for {recording!r} and salad runs none; run it once to write a file "
            "(wav-copy does so for a whole wav.scp) and name that in wav.scp"
        )
    head, _, offset = source.rpartition(":")
    if head.endswith(".ark") and offset.isdigit():
        raise DataError(
            f"Kaldi archive: wav.scp names {source} for {recording!r}; write it to a file (wav-copy) and name that"
        )
    return located(source, folder), start_s, duration_s


def located(source: str, folder: Path) -> Path:
    """A path that a manifest in `folder` names: from there, or, if nothing is there, from the working directory."""
    if not source or "\0" in source:
        raise DataError(f"no audio: {source!r} is not a path")
    inside, outside = folder / source, Path(source).absolute()
    try:
        return outside if not inside.exists() and outside.exists() else inside
    except OSError:  # a name too long: the intake says so
        return inside
