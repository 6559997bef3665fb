"""LibriSpeech and mini LibriSpeech: English audiobooks read aloud, 16 kHz FLAC, 1,000 and 7 hours.

Layout, as both unpack (DIR is `LibriSpeech`, or the folder that holds it; any of the splits may be absent):

    DIR/train-clean-100/84/121123/84-121123-0000.flac
    DIR/train-clean-100/84/121123/84-121123.trans.txt         84-121123-0000 GO DO YOU HEAR
    ALIGNMENTS/train-clean-100/84/121123/84-121123.alignment.txt                     (optional)

Download (6.3 GB for 100 hours; mini LibriSpeech 0.3 GB):

    curl -L https://www.openslr.org/resources/12/train-clean-100.tar.gz | tar xz
    curl -L https://www.openslr.org/resources/31/train-clean-5.tar.gz | tar xz

The text is upper case without punctuation and is kept so. Word timings (Montreal Forced Aligner) are those of
https://github.com/CorentinJ/librispeech-alignments. The names of the splits and the alignments' format are Lhotse's
recipe's; its `prepare_librispeech` itself is not called, as it passes over a missing file with a line in the log and
ends at a line that has no words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lhotse.recipes.librispeech import LIBRISPEECH, MINI_LIBRISPEECH, parse_alignments

from salad.errors import AlignmentError, MissingFileError
from salad.speech.candidate import Candidate
from salad.speech.corpora.lines import read_lines
from salad.speech.prepared import Rejected
from salad.speech.transcript import match_words

LICENCE = "CC BY 4.0"
NON_COMMERCIAL = False
SOURCE = "https://www.openslr.org/12 and https://www.openslr.org/31"
INFO = {"corpus": "librispeech", "licence": LICENCE, "source": SOURCE, "text": "upper case, no punctuation"}
SPLITS = (*LIBRISPEECH, *MINI_LIBRISPEECH)

Words = tuple[tuple[str, float, float], ...]
Report = dict[str, int]


def candidates(
    source: Path, splits: Sequence[str] = (), alignments: Path | None = None, report: Report | None = None
) -> Iterator[Candidate | Rejected]:
    """The utterances of `splits` (default: of all that are there), chapter by chapter, each in its order.

    Args:
        source: `LibriSpeech` as it unpacks, or the folder that holds it.
        splits: names of folders: "train-clean-100".
        alignments: the folder that holds the splits' word timings, if it is not `source` itself.
        report: told, as utterances come by, how many had timings that are "used", and how many had those
            "of_other_words" than the transcript's and go without.

    Raises:
        MissingFileError: no such folder, split or alignments.
    """
    root = source / "LibriSpeech" if (source / "LibriSpeech").is_dir() else source
    found = [name for name in SPLITS if (root / name).is_dir()]
    wanted = list(splits) or found
    absent = [name for name in wanted if not (root / name).is_dir()]
    if not wanted or absent:
        what = f"no split {', '.join(absent)}" if absent else f"none of the splits {', '.join(SPLITS)}"
        raise MissingFileError(f"{root} holds {what}; found: {', '.join(found) or 'no split at all'}.")
    timings = root if alignments is None else alignments
    timings = timings / "LibriSpeech" if (timings / "LibriSpeech").is_dir() else timings
    if alignments is not None and not any((timings / name).is_dir() for name in wanted):
        raise MissingFileError(f"{alignments} holds no alignments: none of {', '.join(wanted)} is a folder there.")
    report = {} if report is None else report
    return (item for name in wanted for item in _split(root, name, timings, report))


def _split(root: Path, split: str, timings: Path, report: Report) -> Iterator[Candidate | Rejected]:
    chapters = sorted(path for path in (root / split).glob("*/*") if path.is_dir())
    if not chapters:
        reason = "empty split: it holds no SPEAKER/CHAPTER folder; unpack its archive again"
        yield Rejected(split, reason, str(root / split))
    for chapter in chapters:
        yield from _chapter(chapter, split, timings / split / chapter.parent.name / chapter.name, report)


def _chapter(folder: Path, split: str, timings_folder: Path, report: Report) -> Iterator[Candidate | Rejected]:
    """The utterances of one chapter, then its audio files that have no transcript."""
    name = f"{folder.parent.name}-{folder.name}"
    transcripts = folder / f"{name}.trans.txt"
    timings, broken = _timings(timings_folder / f"{name}.alignment.txt")
    if broken is not None:
        yield broken
    named: set[str] = set()
    for item in read_lines(transcripts) if transcripts.is_file() else ():
        if isinstance(item, Rejected):
            yield item
            continue
        place, line = item
        identifier, _, text = line.strip().partition(" ")
        named.add(identifier)
        yield Candidate(
            id=identifier,
            place=place,
            audio=folder / f"{identifier}.flac",
            text=text,
            speaker=folder.parent.name,
            language="English",
            licence=LICENCE,
            source=f"LibriSpeech {split}",
            document=name,
            words=_of_text(text, timings.get(identifier), report),
        )
    for audio in sorted(folder.glob("*.flac")):
        if audio.stem not in named:
            yield Rejected(audio.stem, f"missing transcript: {transcripts.name} has no line for it", str(audio))


def _of_text(text: str, words: Words | None, report: Report) -> Words | None:
    """The timings, if they are those of the text's words."""
    if words is None:
        return None
    try:
        match_words(text, [word for word, _, _ in words])
    except AlignmentError:
        report["of_other_words"] = report.get("of_other_words", 0) + 1
        return None
    report["used"] = report.get("used", 0) + 1
    return words


def _timings(path: Path) -> tuple[dict[str, Words], Rejected | None]:
    """Word timings of a chapter by utterance, and why they can't be had, if they are there and can't be read."""
    if not path.is_file():
        return {}, None
    try:
        aligned = parse_alignments(path)
    except ValueError as error:  # also a line that is not UTF-8
        reason = f"unreadable word timings: {error}; the chapter is taken without them"
        return {}, Rejected(path.name, reason, str(path))
    words = {
        identifier: tuple((item.symbol, item.start, item.end) for item in items)
        for identifier, items in aligned.items()
    }
    return words, None
