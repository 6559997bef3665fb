"""Emilia and Emilia-YODAS: 101,000 and 114,000 hours of talk from the internet in six languages, 24 kHz MP3.

Both layouts are read; DIR may be any folder above them:

    DIR/EN/EN-B000000.tar                        WebDataset: KEY.json beside KEY.mp3       (Hugging Face, since 2025)
    DIR/EN/EN_B00000.jsonl                       one JSON object a line, `wav` from the same folder         (2024)
    DIR/EN/EN_B00000/EN_B00000_S00000/mp3/EN_B00000_S00000_W000000.mp3

Download (gated: accept the terms on its page and log in by `hf auth login` first):

    hf download amphion/Emilia-Dataset --repo-type dataset --include 'Emilia-YODAS/EN/EN-B00000*.tar' --local-dir DIR

Emilia may be used for non-commercial purposes only (CC BY-NC 4.0), Emilia-YODAS commercially too (CC BY 4.0); which of
them an item is of is told by its id: EN_B00000_S00000_W000000 or EN_tKvmUvxYZXI_W000006.

A shard is read as a stream, and the bytes of its audio are kept as they are in OUT/audio/SHARD/; a file that is there
with the right size is not written again. Items of one recording that follow each other make a document. For the older
layout the fields are those of Lhotse's recipe, which is not called: it passes over what is missing and holds all cuts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from salad.errors import DataError, MissingFileError, RecipeError
from salad.files import write_atomic
from salad.speech.candidate import Candidate
from salad.speech.corpora.lines import read_lines
from salad.speech.corpora.tars import BrokenTarError, Member, read_members
from salad.speech.prepared import Rejected

LICENCE = "CC BY-NC 4.0"
NON_COMMERCIAL = True
YODAS_LICENCE = "CC BY 4.0"
SOURCE = "https://huggingface.co/datasets/amphion/Emilia-Dataset"
INFO = {"corpus": "emilia", "source": SOURCE, "text": "as a recogniser wrote it, with case and punctuation"}
"""Without a licence: every item has its own."""

AUDIO_SUFFIXES = (".mp3", ".flac", ".wav", ".ogg", ".opus")
KEPT = ("dnsmos", "phone_count")
MAX_KEY_BYTES = 150

_EMILIA_ID = re.compile(r"[A-Z]{2}_B\d{5,}_S\d{5,}_W\d+")
_YODAS_ID = re.compile(r"[A-Z]{2}_[\w-]{11}_W\d+")
_SHARD = re.compile(r"[A-Z]{2}(-B\d+\.tar|_B\d+\.jsonl)")
_BATCH = re.compile(r"[A-Z]{2}[_-]B\d+")


@dataclass(frozen=True)
class Wanted:
    """What is taken of a release.

    Attributes:
        yodas: Emilia-YODAS alone; an item of Emilia proper is an error, as its licence is another one.
        language: code as the items have it ("en"); None takes all.
        min_dnsmos: items whose DNSMOS (estimated speech quality, 1-5) is lower are rejected; 0 takes all.
    """

    yodas: bool = False
    language: str | None = None
    min_dnsmos: float = 0.0


def candidates(source: Path, out: Path, wanted: Wanted | None = None) -> Iterator[Candidate | Rejected]:
    """The items of every shard under `source`, shard by shard, each in its order; audio in shards goes to `out/audio`.

    Raises:
        MissingFileError: no shard under `source`, or none of the language.
        RecipeError: `wanted.yodas`, and an item is of Emilia proper; raised when it is reached.
    """
    wanted = wanted or Wanted()
    found = list(_shards(source))
    shards = [path for path in found if wanted.language in (None, path.name[:2].lower())]
    if not shards:
        there = ", ".join(sorted({path.name[:2] for path in found})) or "no shard"
        which = f" of language {wanted.language!r}" if wanted.language else ""
        raise MissingFileError(f"{source} holds no shard{which} (XX-B000000.tar or XX_B00000.jsonl); found: {there}.")
    return (item for shard in shards for item in _shard(shard, out, wanted))


def _shards(source: Path) -> Iterator[Path]:
    """Tars and JSONL files by their names; a batch's folders, which hold audio by the million, are not looked into."""
    if source.is_file() and _SHARD.fullmatch(source.name):
        yield source
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if not _BATCH.fullmatch(name))
        yield from (Path(folder) / name for name in sorted(files) if _SHARD.fullmatch(name))


def _shard(shard: Path, out: Path, wanted: Wanted) -> Iterator[Candidate | Rejected]:
    if shard.suffix == ".jsonl":
        yield from _from_jsonl(shard, wanted)
    else:
        yield from _from_tar(shard, out / "audio" / shard.stem, wanted)


def _from_jsonl(manifest: Path, wanted: Wanted) -> Iterator[Candidate | Rejected]:
    for item in read_lines(manifest):
        if isinstance(item, Rejected):
            yield item
            continue
        place, line = item
        key = f"line {place.rpartition(':')[2]}"
        try:
            row = _row(line)
            key = str(row.get("id") or key)
            audio = row.get("wav")
            if not isinstance(audio, str) or not audio:
                raise DataError(f"missing audio: 'wav' must be a path, not {audio!r}")
            yield _candidate(key, row, manifest.parent / audio, place, wanted)
        except DataError as error:
            yield Rejected(key, str(error), place)


def _from_tar(shard: Path, folder: Path, wanted: Wanted) -> Iterator[Candidate | Rejected]:
    """The pairs of a shard. The two members of a pair stand next to each other, in either order."""
    pending: dict[str, Member] = {}
    key = ""
    try:
        for member in read_members(shard):
            name = PurePosixPath(member.name)
            if pending and name.stem != key:
                yield _half(key, pending, shard)
                pending = {}
            key = name.stem
            kind = "json" if name.suffix == ".json" else "audio" if name.suffix in AUDIO_SUFFIXES else ""
            if not kind or kind in pending:
                what = "a second one of its kind" if kind else "neither JSON nor audio"
                yield Rejected(key, f"unknown member: {member.name!r} is {what}", f"{shard}:{member.name}")
                continue
            pending[kind] = member
            if len(pending) == 2:
                yield _pair(key, pending, shard, folder, wanted)
                pending = {}
    except BrokenTarError as error:
        yield Rejected(shard.name, str(error), str(shard))
    if pending:
        yield _half(key, pending, shard)


def _half(key: str, pending: dict[str, Member], shard: Path) -> Rejected:
    absent = "audio" if "json" in pending else "transcript"
    return Rejected(key, f"missing {absent}: none stands beside it in its shard", f"{shard}:{key}")


def _pair(key: str, pair: dict[str, Member], shard: Path, folder: Path, wanted: Wanted) -> Candidate | Rejected:
    place = f"{shard}:{pair['json'].name}"
    audio = folder / f"{key}{PurePosixPath(pair['audio'].name).suffix}"
    try:
        if len(key.encode(errors="replace")) > MAX_KEY_BYTES:
            raise DataError(f"unfit id: {key[:40]!r}… has over {MAX_KEY_BYTES} bytes and can't name a file")
        candidate = _candidate(key, _row(pair["json"].content), audio, place, wanted)
    except DataError as error:
        return Rejected(key, str(error), place)
    content = pair["audio"].content
    if not audio.is_file() or audio.stat().st_size != len(content):
        write_atomic(audio, content)
    return candidate


def _row(line: str | bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"broken item: not readable as JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"broken item: not a JSON object but {type(row).__name__}")
    return row


def _candidate(key: str, row: dict[str, Any], audio: Path, place: str, wanted: Wanted) -> Candidate:
    licence = _licence(key, place)
    if wanted.yodas and licence != YODAS_LICENCE:
        remedy = "use 'salad prepare emilia … --accept-licence', or point at the folder Emilia-YODAS"
        raise RecipeError(f"{place}: {key} is of Emilia ({LICENCE}), not of Emilia-YODAS; {remedy}.")
    text, language, dnsmos = row.get("text"), row.get("language"), row.get("dnsmos")
    if not isinstance(text, str):
        raise DataError(f"missing transcript: 'text' must be a string, not {text!r}")
    if wanted.language is not None and language != wanted.language:
        raise DataError(f"another language: {language!r}, and {wanted.language!r} was asked for")
    if wanted.min_dnsmos and not (isinstance(dnsmos, int | float) and dnsmos >= wanted.min_dnsmos):
        raise DataError(f"low DNSMOS: {dnsmos}, and at least {wanted.min_dnsmos} was asked for")
    duration, speaker = row.get("duration"), row.get("speaker")
    if duration is not None and (isinstance(duration, bool) or not isinstance(duration, int | float)):
        raise DataError(f"broken item: 'duration' must be a number of seconds, not {duration!r}")
    return Candidate(
        id=key,
        place=place,
        audio=audio,
        text=text.strip(),
        stated_duration_s=duration,
        speaker=None if speaker is None else str(speaker),
        language=language if isinstance(language, str) else None,
        licence=licence,
        source="Emilia-YODAS" if licence == YODAS_LICENCE else "Emilia",
        document=key.rpartition("_W")[0] or None,
        custom={name: row[name] for name in KEPT if row.get(name) is not None},
    )


def _licence(key: str, place: str) -> str:
    """The licence of an item; where neither its id nor its path says Emilia-YODAS, the stricter one."""
    of_yodas = _YODAS_ID.fullmatch(key) or ("Emilia-YODAS" in place and not _EMILIA_ID.fullmatch(key))
    return YODAS_LICENCE if of_yodas else LICENCE
