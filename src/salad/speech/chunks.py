"""Chunks of candidates, checked in this process or in workers; what became of each is kept until all are done.

    OUT/.parts/0000012-FINGERPRINT.cuts.gz   the chunk's cuts, a gzip member
    OUT/.parts/0000012-FINGERPRINT.jsonl     a `Part`, then what was rejected; written last: the chunk is done

FINGERPRINT is made of the candidates and the checks. A run that was stopped finds the chunks it had finished, unless
their audio files have changed since.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

from salad.errors import DataError
from salad.files import open_atomic, write_atomic
from salad.speech.accept import accept
from salad.speech.candidate import Candidate, Checks
from salad.speech.prepared import Rejected, gzip_writer
from salad.speech.seen import SeenNames
from salad.workers import Died, answer_all

CHUNK = 200
"""Candidates that are checked and kept together: a killed run loses less than so many a worker."""

VERSION = 1
"""Of what the checks do; chunks that another version has checked are checked again."""

PARTS_NAME = ".parts"


@dataclass(frozen=True)
class Chunk:
    """Candidates that follow each other in the corpus; names sort in its order."""

    name: str
    items: list[Candidate | Rejected]


@dataclass(frozen=True)
class Part:
    """What became of a chunk, but for the cuts and rejections themselves, which are on the disk."""

    name: str
    audio: str  # the state of its files when they were checked
    num_cuts: int = 0
    seconds: float = 0.0
    speakers: list[str] = field(default_factory=list)
    licences: list[str] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)  # of rejections
    first_rejected: dict[str, str] | None = None


def chunks(candidates: Iterable[Candidate | Rejected], checks: Checks, out: Path) -> Iterator[Chunk]:
    """The candidates in chunks; a candidate whose id came before becomes a rejection."""
    seen = SeenNames()
    candidates = iter(candidates)
    number = 0
    count = itertools.count()
    while items := [_numbered(_unless_seen(item, seen), next(count)) for item in islice(candidates, CHUNK)]:
        state = repr((VERSION, replace(checks, strict=False), out.resolve(), items)).encode(errors="surrogatepass")
        yield Chunk(f"{number:07d}-{hashlib.sha256(state).hexdigest()[:16]}", items)
        number += 1


def _unless_seen(item: Candidate | Rejected, seen: SeenNames) -> Candidate | Rejected:
    if isinstance(item, Candidate) and seen.before(item.id):
        return Rejected(item.id, f"duplicate id: {item.id!r} stands earlier in the corpus too", item.place)
    return item


def _numbered(item: Candidate | Rejected, number: int) -> Candidate | Rejected:
    """With its number in the corpus, so that one that is rejected leaves a gap in its document."""
    if isinstance(item, Candidate) and item.document is not None:
        return replace(item, custom={**item.custom, "number": number})
    return item


def checked(todo: Iterable[Chunk], checks: Checks, out: Path, jobs: int) -> Iterator[Part]:
    """The part of each chunk, made now or before, in any order."""
    if jobs == 1:
        yield from (_earlier(chunk, out) or _check(chunk, checks, out) for chunk in todo)
        return
    earlier: list[Part] = []

    def unfinished() -> Iterator[Chunk]:
        for chunk in todo:
            if (part := _earlier(chunk, out)) is not None:
                earlier.append(part)
            else:
                yield chunk

    for chunk, answer in answer_all(unfinished(), partial(_checker, checks, out), jobs):
        if isinstance(answer, Died):
            raise DataError(
                f"the process that checked the utterances from {chunk.items[0].place} on died (exit code "
                f"{answer.exit_code}); unless memory ran out, a file there crashes its decoder: leave it out."
            )
        if isinstance(answer, OSError):
            raise answer
        yield answer
    yield from earlier


def _checker(checks: Checks, out: Path) -> Callable[[Chunk], Part | OSError]:
    """What a worker process does with a chunk."""

    def check(chunk: Chunk) -> Part | OSError:
        try:
            return _check(chunk, checks, out)
        except OSError as error:  # a full disk, which the command line explains
            return error

    return check


def _earlier(chunk: Chunk, out: Path) -> Part | None:
    """What an earlier run made of a chunk, if the audio is still the same."""
    try:
        with (out / PARTS_NAME / f"{chunk.name}.jsonl").open("rb") as file:
            part = Part(**json.loads(file.readline()))
    except (OSError, ValueError, TypeError):
        return None
    return part if part.audio == _audio_state(chunk.items) else None


def _check(chunk: Chunk, checks: Checks, out: Path) -> Part:
    """Check a chunk and keep what became of it."""
    audio = _audio_state(chunk.items)
    results = accept(chunk.items, checks, out)
    rejected = [result for result in results if isinstance(result, Rejected)]
    cuts = [result for result in results if not isinstance(result, Rejected)]
    part = Part(
        name=chunk.name,
        audio=audio,
        num_cuts=len(cuts),
        seconds=sum(cut["duration"] for cut in cuts),
        speakers=sorted({cut["supervisions"][0]["speaker"] for cut in cuts if "speaker" in cut["supervisions"][0]}),
        licences=sorted({cut["custom"]["licence"] for cut in cuts if "licence" in cut.get("custom", ())}),
        kinds=dict(Counter(item.kind for item in rejected)),
        first_rejected=asdict(rejected[0]) if rejected else None,
    )
    if checks.strict and rejected:  # left at its first rejection, so not done
        return part
    parts = out / PARTS_NAME
    with open_atomic(parts / f"{chunk.name}.cuts.gz") as file, gzip_writer(file) as zipped:
        zipped.writelines(json.dumps(cut, ensure_ascii=False).encode() + b"\n" for cut in cuts)
    rows = [asdict(part), *(asdict(item) for item in rejected)]
    written = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(parts / f"{chunk.name}.jsonl", written.encode(errors="replace"))  # an id may hold half a character
    return part


def _audio_state(items: Sequence[Candidate | Rejected]) -> str:
    """Sizes and times of the audio files: what was found in them holds as long as these do."""
    digest = hashlib.sha256()
    for audio in dict.fromkeys(item.audio for item in items if isinstance(item, Candidate)):
        try:
            stat = audio.stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns};".encode())
        except (OSError, ValueError):  # what is wrong with it, the check says
            digest.update(b"none;")
    return digest.hexdigest()[:16]
