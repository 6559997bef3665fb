"""Any folder of audio that says what is spoken: by a manifest, a Kaldi data folder, or a text file beside each file.

The format is known by the files' names and the manifest's first line:

    jsonl     *.jsonl, *.json: JSON lines with audio and text; NeMo's manifests too        corpora/rows.py
    csv, tsv  *.csv, *.tsv: a first line of column names                                   corpora/rows.py
    lhotse    JSON lines of Lhotse: cuts, or supervisions with recordings beside them      corpora/lhotse_manifests.py
    kaldi     wav.scp, text and perhaps segments, utt2spk                                  corpora/kaldi.py
    text      01.flac and 01.txt                                                           corpora/text_beside.py

The audio stays where it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from salad.errors import DataError, MissingFileError, RecipeError
from salad.speech.candidate import Candidate, Checks
from salad.speech.corpora import kaldi, lhotse_manifests, rows, text_beside
from salad.speech.corpora.alignments import Alignments
from salad.speech.corpora.lines import read_lines
from salad.speech.intake import Summary, prepare_corpus
from salad.speech.prepared import Rejected

FORMATS = ("jsonl", "csv", "tsv", "lhotse", "kaldi", "text")
DEFAULT_NAME = "manifest.jsonl"
_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".csv.gz", ".tsv", ".tsv.gz")
_NOT_MANIFESTS = frozenset({"alignment.json", "alignments.jsonl", "rejected.jsonl", "info.json"})


def prepare(
    folder: Path,
    out: Path,
    manifest: str | None = None,
    style: str | None = None,
    alignments: Path | None = None,
    checks: Checks | None = None,
    jobs: int = 1,
) -> Summary:
    """Write the prepared folder `out` from a folder of audio; see `open_folder` and `prepare_corpus`."""
    found, info = open_folder(folder, manifest, style, alignments)
    return prepare_corpus(found, out, info, checks, jobs)


def open_folder(
    folder: Path, manifest: str | None = None, style: str | None = None, alignments: Path | None = None
) -> tuple[Iterator[Candidate | Rejected], dict[str, Any]]:
    """The utterances of a folder, and what is known of the whole.

    Args:
        folder: where the audio and its manifest are.
        manifest: the manifest's name in `folder`, or its path; default: manifest.jsonl, or the only one there.
        style: one of `FORMATS`; default: by the manifest.
        alignments: JSON lines of word timings; those of other words than the transcript's are left out, and counted in
            what is known of the whole.

    Raises:
        MissingFileError: no such folder, manifest or alignments.
        RecipeError: no such format.
        DataError: it is not clear which manifest, or the file is none.
    """
    found = candidates(folder, manifest, style)
    info: dict[str, Any] = {"corpus": folder.resolve().name, "source": str(folder.resolve())}
    if alignments is not None:
        timings = Alignments(alignments)
        info["alignments"] = timings.report  # filled as the utterances come by
        found = timings.put_on(found)
    return found, info


def candidates(folder: Path, manifest: str | None = None, style: str | None = None) -> Iterator[Candidate | Rejected]:
    """The utterances of a folder; arguments and errors as `open_folder`."""
    if style is not None and style not in FORMATS:
        raise RecipeError(f"--format {style}: choose {', '.join(FORMATS)}.")
    if not folder.is_dir():
        raise MissingFileError(f"{folder} is not a folder; name the one that holds the audio's manifest.")
    needs_manifest = style not in ("kaldi", "text") or manifest is not None
    path = _manifest(folder, manifest) if needs_manifest else folder
    style = style or _format(path)
    if style == "kaldi":
        return kaldi.candidates(path if path.is_dir() else path.parent)
    if style == "text":
        return text_beside.candidates(folder)
    if style == "lhotse":
        row = _first_row(path)
        if lhotse_manifests.is_recording(row):
            path = path.with_name(path.name.replace("recording", "supervision"))
            row = _first_row(path) if path.is_file() else None
        of_supervisions = lhotse_manifests.is_supervision(row) and not lhotse_manifests.is_cuts(row)
        return lhotse_manifests.from_supervisions(path) if of_supervisions else lhotse_manifests.from_cuts(path)
    return rows.candidates(path, style)


def _manifest(folder: Path, name: str | None) -> Path:
    """The manifest that is named, or the one that is there; the folder itself if it is Kaldi's or has texts."""
    if name is not None:
        if not (folder / name).is_file():
            raise MissingFileError(f"{folder / name} does not exist; {_there(folder)}.")
        return folder / name
    if (folder / DEFAULT_NAME).is_file():
        return folder / DEFAULT_NAME
    found = _manifests(folder)
    if (folder / "wav.scp").is_file():
        found.append(folder)
    if len(found) > 1:
        raise DataError(f"{folder} holds no {DEFAULT_NAME}, and {_there(folder)}; name one by --manifest.")
    if found:
        return found[0]
    if text_beside.has_any(folder):
        return folder
    raise MissingFileError(
        f"{folder} holds no manifest (*.jsonl, *.json, *.csv, *.tsv, or Kaldi's wav.scp) and no audio file with a text "
        "beside it; write one with a JSON object with id, audio and text a line."
    )


def _manifests(folder: Path) -> list[Path]:
    """The files that may be manifests; recordings that belong to supervisions are not one of their own."""
    files = sorted(path for path in folder.iterdir() if path.name.endswith(_SUFFIXES) and path.is_file())
    names = {path.name for path in files}
    return [
        path
        for path in files
        if path.name not in _NOT_MANIFESTS
        and not ("recording" in path.name and path.name.replace("recording", "supervision") in names)
    ]


def _there(folder: Path) -> str:
    names = [path.name for path in _manifests(folder)] + ["wav.scp"] * (folder / "wav.scp").is_file()
    return f"the folder holds {', '.join(names[:10])}" if names else "the folder holds none"


def _format(path: Path) -> str:
    if path.is_dir():
        return "kaldi" if (path / "wav.scp").is_file() else "text"
    if path.name == "wav.scp":
        return "kaldi"
    name = path.name.removesuffix(".gz")
    for style in ("csv", "tsv"):
        if name.endswith(f".{style}"):
            return style
    row = _first_row(path)
    if lhotse_manifests.is_cuts(row) or lhotse_manifests.is_supervision(row) or lhotse_manifests.is_recording(row):
        return "lhotse"
    return "jsonl"


def _first_row(path: Path) -> object:
    """The first line's JSON value; None if there is none."""
    first = next(iter(read_lines(path)), None)
    try:
        return json.loads(first[1]) if isinstance(first, tuple) else None
    except (ValueError, RecursionError):
        return None
