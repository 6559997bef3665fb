"""LibriHeavy: 50,000 hours of English audiobooks, transcripts with case and punctuation over Libri-Light's recordings.

Layout (DIR holds the manifests; AUDIO_ROOT holds Libri-Light as it unpacks, by default DIR/download/librilight):

    DIR/libriheavy_cuts_small.jsonl.gz                                      Lhotse cuts, one a line
    AUDIO_ROOT/small/100/sea_fairies_0812_librivox_64kb_mp3/01_baum_sea_fairies_64kb.flac

Download (manifests 77 MB, 0.7 GB, 7.1 GB; audio 35 GB, 321 GB, 3.1 TB for small, medium, large):

    curl -LO https://huggingface.co/datasets/pkufool/libriheavy/resolve/main/libriheavy_cuts_small.jsonl.gz
    curl -L https://dl.fbaipublicfiles.com/librilight/data/small.tar | tar x

A cut is a span of a recording of up to hours, read aloud from one chapter; its transcript is `custom["texts"][0]` of
its supervision (`texts[1]`, what a recogniser heard, is not used), or, in the manifests that LibriHeavy's own scripts
derive, the supervision's text. The manifest is read as a stream of JSON lines: Lhotse's lazy reader gives the same
fields but ends at the first broken line. Neighbouring cuts of one recording are put in the order of their start; no
more than one recording's cuts are held in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from salad.errors import MissingFileError
from salad.speech.candidate import Candidate
from salad.speech.corpora.lines import read_lines
from salad.speech.prepared import Rejected

LICENCE = "manifests Apache 2.0, audio public domain (LibriVox)"
NON_COMMERCIAL = False
SOURCE = "https://github.com/k2-fsa/libriheavy over https://github.com/facebookresearch/libri-light"
INFO = {"corpus": "libriheavy", "licence": LICENCE, "source": SOURCE, "text": "case and punctuation as in the book"}

AUDIO_PREFIX = "download/librilight/"
"""What every recording's path begins with in the manifests as they are published."""


def candidates(
    source: Path, subsets: Sequence[str] = (), audio_root: Path | None = None
) -> Iterator[Candidate | Rejected]:
    """The cuts of `subsets` ("small", "medium", …; default: of every manifest that is there).

    Args:
        source: the folder of the manifests, or one manifest.
        audio_root: where `small/100/….flac` stands; default: the manifests' folder + "download/librilight".

    Raises:
        MissingFileError: no manifest, or no folder of audio.
    """
    manifests = _manifests(source, subsets)
    root = audio_root if audio_root is not None else manifests[0].parent / AUDIO_PREFIX
    if not root.is_dir():
        remedy = "name the folder that Libri-Light's archives were unpacked in by --audio-root"
        raise MissingFileError(f"{root} does not exist, so LibriHeavy's audio can't be found; {remedy}.")
    return (item for manifest in manifests for item in _in_order(_cuts(manifest, root)))


def _manifests(source: Path, subsets: Sequence[str]) -> list[Path]:
    if source.is_file():
        return [source]
    found = sorted(source.glob("libriheavy_cuts_*.jsonl*"))
    if not subsets and found:
        return found
    wanted = {name: [path for path in found if path.name.startswith(f"libriheavy_cuts_{name}.")] for name in subsets}
    absent = [name for name, paths in wanted.items() if not paths]
    if not found or absent:
        what = f"libriheavy_cuts_{absent[0] if absent else 'SUBSET'}.jsonl.gz"
        there = ", ".join(path.name for path in found) or "no manifest of LibriHeavy"
        raise MissingFileError(f"{source} holds no {what}; found: {there}.")
    return [path for paths in wanted.values() for path in paths]


def _in_order(items: Iterator[Candidate | Rejected]) -> Iterator[Candidate | Rejected]:
    """The same items; cuts that follow each other and are of one recording are ordered by their start."""
    for _, neighbours in groupby(items, key=lambda item: getattr(item, "document", None)):
        yield from sorted(neighbours, key=lambda item: getattr(item, "start_s", 0.0))


def _cuts(manifest: Path, root: Path) -> Iterator[Candidate | Rejected]:
    for item in read_lines(manifest):
        if isinstance(item, Rejected):
            yield item
            continue
        place, line = item
        identifier = f"line {place.rpartition(':')[2]}"
        try:
            cut = json.loads(line)
            identifier = str(cut["id"]).replace("/", "--")
            yield _candidate(identifier, cut, place, root)
        except (KeyError, IndexError) as error:
            yield Rejected(identifier, f"broken line: the cut lacks {error} where LibriHeavy's have it", place)
        except (ValueError, TypeError, RecursionError) as error:  # JSONDecodeError is a ValueError
            yield Rejected(identifier, f"broken line: it is not one of LibriHeavy's cuts ({error})", place)


def _candidate(identifier: str, cut: dict[str, Any], place: str, root: Path) -> Candidate:
    supervision = cut["supervisions"][0]
    recording = cut["recording"]
    text = supervision["text"] if supervision.get("text") else supervision["custom"]["texts"][0]
    if not isinstance(text, str):
        raise TypeError(f"its text is {text!r}")
    return Candidate(
        id=identifier,
        place=place,
        audio=root / str(recording["sources"][0]["source"]).removeprefix(AUDIO_PREFIX),
        text=text,
        start_s=float(cut["start"]),
        duration_s=float(cut["duration"]),
        speaker=supervision.get("speaker"),
        language=supervision.get("language"),
        licence=LICENCE,
        source="LibriHeavy",
        document=str(recording["id"]),
    )
