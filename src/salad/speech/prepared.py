"""A prepared folder: the one shape in which spoken text travels between the steps.

OUT/cuts.jsonl.gz      Lhotse MonoCuts; each has one supervision with text, speaker, language, and, once aligned,
                       supervision.alignment["word"]: one AlignmentItem(symbol, start, duration, score) for every
                       whitespace-separated word of the text, in order, times in seconds from the recording's start
                       (as Lhotse has it; `words_of` and `with_words` count from the cut's)
OUT/rejected.jsonl     what was not taken: {"id", "reason", "place"} a line, empty when all was taken; a reason reads
                       "kind: what is wrong with this one"
OUT/refused.jsonl      cuts that a check of synthetic speech has set aside, whole (see synthesize/quality.py)
OUT/info.json          {"corpus", "licence", "source", ...}: where it comes from
OUT/features/ENCODER/  frozen-encoder features (see model/features.py)
OUT/index/             derived from the cuts when they are first read at random (speech/index.py)

A recording that lies inside OUT is named from there, so that the folder can be moved with its audio; others by their
absolute path. A cut may keep `licence`, `source` and `document` in `custom`; neighbours with the same document follow
each other in its text. `number` counts the corpus's utterances, those that were rejected too: where it skips one, the
text does.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from salad.errors import AlignmentError, DataError, MissingFileError
from salad.files import open_atomic, read_json, write_atomic
from salad.tally import Kinds

if TYPE_CHECKING:  # Lhotse brings PyTorch along: only who holds cuts pays for it
    from lhotse import MonoCut

CUTS_NAME = "cuts.jsonl.gz"
ALIGNMENT_NAME = "alignment.json"
"""What the last alignment of the folder reported."""
REFUSED_NAME = "refused.jsonl"
"""Cuts that were set aside by a check of the speech (synthesize/quality.py)."""


@dataclass(frozen=True)
class Rejected:
    """One item that was not taken. `place` says where it stands: file:line, or the audio's path."""

    id: str
    reason: str
    place: str

    @property
    def kind(self) -> str:
        """What is wrong, without what is particular to this item: for counting."""
        return kind_of(self.reason)


@dataclass(frozen=True)
class TimedWord:
    """One whitespace-separated word of a transcript and when it is spoken, in seconds from the cut's start."""

    text: str
    start_s: float
    end_s: float


def kind_of(reason: str) -> str:
    """What stands before the first colon of a reason, without quoted words and numbers."""
    kind = re.sub(r"'[^']*'|\d+(?:\.\d+)?", "…", reason.partition(": ")[0])
    return kind.strip() or "no reason given"


def reasons(where: str, rejected: Iterable[Rejected]) -> list[dict[str, Any]]:
    """What was rejected, by reason, as results.json lists it: {"where", "reason", "count"}."""
    kinds = Kinds()
    for row in rejected:
        kinds.add(re.sub(r"^utterance '[^']*': ", "", row.reason), row.id, row.place)
    return [{"where": where, "reason": kind["reason"], "count": kind["count"]} for kind in kinds.rows()]


def write_prepared(out: Path, cuts: Iterable[MonoCut], rejected: Iterable[Rejected], info: dict[str, Any]) -> None:
    """Write a prepared folder. The cuts are put in place last and atomically: a folder that has them is whole.

    `rejected` and `info` are read after the last of `cuts`, which may fill them on the way. What was refused of an
    earlier content of the folder is no part of this one, and goes.

    Raises:
        DataError: two cuts share an id.
    """
    seen: set[str] = set()
    out.mkdir(parents=True, exist_ok=True)
    with open_atomic(out / CUTS_NAME) as file:
        with gzip_writer(file) as zipped:
            for cut in cuts:
                if cut.id in seen:
                    raise DataError(f"{out}: the id {cut.id!r} stands twice; ids must be unique within a corpus.")
                seen.add(cut.id)
                zipped.write(cut_line(cut, out))
        lines = [json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in rejected]
        write_atomic(out / "rejected.jsonl", "".join(lines))
        write_atomic(out / "info.json", json.dumps(info, indent=1, ensure_ascii=False) + "\n")
        (out / REFUSED_NAME).unlink(missing_ok=True)


def gzip_writer(file: BinaryIO) -> gzip.GzipFile:
    """Compresses into `file`; the bytes depend on the content alone, not on the time or the file's name."""
    return gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0)


def cut_line(cut: MonoCut, folder: Path) -> bytes:
    """A cut as a line of `folder`'s cuts: JSON, its recording named from `folder` if it lies inside."""
    row = cut.to_dict()
    home = folder.resolve()
    for source in row.get("recording", {}).get("sources", ()):
        if source["type"] == "file":
            path = Path(source["source"])
            source["source"] = str(path.relative_to(home) if path.is_relative_to(home) else path)
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def cuts_file(folder: Path) -> Path:
    """Where the cuts of a prepared folder stand.

    Raises:
        MissingFileError: the folder was never prepared.
    """
    path = folder / CUTS_NAME
    if not path.is_file():
        raise MissingFileError(f"{folder} holds no {CUTS_NAME}; make it with 'salad prepare … --out {folder}'.")
    return path


def stream_cuts(folder: Path) -> Iterator[MonoCut]:
    """The cuts of a prepared folder, in file order, one at a time; their recordings are named by absolute paths.

    Raises:
        MissingFileError: the folder was never prepared.
    """
    from lhotse import CutSet

    path = cuts_file(folder)
    home = folder.resolve()
    for cut in CutSet.from_jsonl_lazy(path):
        for source in cut.recording.sources if cut.recording is not None else ():
            if source.type == "file":
                source.source = str(home / source.source)  # an absolute path stays as it is
        yield cut


def read_cuts(folder: Path) -> list[MonoCut]:
    """The cuts of a prepared folder, in file order.

    Raises:
        MissingFileError: the folder was never prepared.
    """
    return list(stream_cuts(folder))


def read_info(folder: Path) -> dict[str, Any]:
    """What `info.json` of a prepared folder says; empty when there is none.

    Raises:
        DataError: it is damaged.
    """
    path = folder / "info.json"
    info: dict[str, Any] = read_json(path) if path.is_file() else {}
    return info


def text_of(cut: MonoCut) -> str:
    """The transcript of a cut."""
    return cut.supervisions[0].text or ""


def words_of(cut: MonoCut) -> list[TimedWord]:
    """The timed words of an aligned cut.

    Raises:
        AlignmentError: the cut has no word timings, or they are not the words of its text.
    """
    alignment = cut.supervisions[0].alignment or {}
    if "word" not in alignment:
        raise AlignmentError(f"utterance {cut.id!r} has no word timings; run 'salad align' on its folder first.")
    words = [
        TimedWord(item.symbol, round(item.start - cut.start, 8), round(item.end - cut.start, 8))
        for item in alignment["word"]
    ]
    if [word.text for word in words] != text_of(cut).split():
        raise AlignmentError(f"utterance {cut.id!r}: its word timings are not those of its text; align it again.")
    return words


def with_words(cut: MonoCut, words: Iterable[tuple[str, float, float, float | None]]) -> MonoCut:
    """The same cut with word timings (text, start_s, end_s, confidence 0-1 or None), counted from the cut's start."""
    from lhotse.supervision import AlignmentItem

    items = [
        AlignmentItem(text, round(cut.start + start, 4), round(end - start, 4), score)
        for text, start, end, score in words
    ]
    cut.supervisions[0].alignment = {"word": items}
    return cut


def follows(earlier: dict[str, Any] | None, later: dict[str, Any] | None) -> bool:
    """Whether a cut's text goes on in that of the next cut of its folder, by the `custom` of both."""
    one, other = earlier or {}, later or {}
    if one.get("document") is None or one["document"] != other.get("document"):
        return False
    number, following = one.get("number"), other.get("number")
    return number is None or following is None or bool(number + 1 == following)
