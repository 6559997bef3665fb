"""Common Voice: sentences that volunteers read, and others checked, in more than a hundred languages; MP3.

Layout, as a language's archive unpacks (DIR is the language's folder, or the release with `--language en`):

    DIR/validated.tsv, train.tsv, dev.tsv, test.tsv, …          client_id  path  sentence  … with a line of names
    DIR/clips/common_voice_en_1.mp3

Download: from https://mozilladatacollective.com (an account is needed), then `tar xzf`. `validated` includes
`train`, `dev` and `test`; `train` is the default, so that the test clips stay unheard.

Lhotse's recipe is not used: it starts a pool of processes, insists on columns that only some releases have, and passes
over a clip that is missing with a line in the log. The file is split at tabs as that recipe does (csv's QUOTE_NONE):
sentences hold unbalanced quotation marks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from salad.errors import DataError, MissingFileError
from salad.speech.candidate import Candidate
from salad.speech.corpora.lines import read_lines
from salad.speech.prepared import Rejected

LICENCE = "CC0 1.0"
NON_COMMERCIAL = False
SOURCE = "https://commonvoice.mozilla.org"
INFO = {"corpus": "common-voice", "licence": LICENCE, "source": SOURCE, "text": "case and punctuation as written"}

COLUMNS = ("client_id", "path", "sentence")
KEPT = ("age", "gender", "accents", "accent", "variant")
"""Columns kept with the cut where they say something."""


def candidates(
    source: Path, splits: Sequence[str] = ("train",), language: str | None = None
) -> Iterator[Candidate | Rejected]:
    """The utterances of `splits` ("train", "validated", …) of one language.

    Args:
        source: the folder with `clips` and the tables, or the release's folder that holds one per language.
        language: code of the language, "en"; default: the table's `locale`, else the folder's name.

    Raises:
        MissingFileError: no clips or no such split.
        DataError: a table has not the columns it should have.
    """
    folder = source / language if language and (source / language / "clips").is_dir() else source
    if not (folder / "clips").is_dir():
        found = sorted(path.parent.name for path in source.glob("*/clips"))
        remedy = (
            f"choose one of its languages by --language: {', '.join(found)}" if found else "unpack the archive there"
        )
        raise MissingFileError(f"{folder} has no folder 'clips', as a language of Common Voice has; {remedy}.")
    tables = [folder / f"{split}.tsv" for split in splits]
    for table in tables:
        if not table.is_file():
            found = sorted(path.stem for path in folder.glob("*.tsv"))
            raise MissingFileError(f"{folder} has no {table.name}; found: {', '.join(found) or 'no table at all'}.")
    headers = [_header(table) for table in tables]
    return (
        item
        for table, header in zip(tables, headers, strict=True)
        for item in _rows(table, header, language or folder.resolve().name)
    )


def _header(table: Path) -> list[str]:
    first = next(read_lines(table), None)
    header = first[1].split("\t") if isinstance(first, tuple) else []
    absent = [name for name in COLUMNS if name not in header]
    if absent:
        raise DataError(f"{table}:1 must name the columns {', '.join(COLUMNS)}, and {', '.join(absent)} is not there.")
    return header


def _rows(table: Path, header: list[str], language: str) -> Iterator[Candidate | Rejected]:
    lines = read_lines(table)
    next(lines)
    for item in lines:
        if isinstance(item, Rejected):
            yield item
            continue
        place, line = item
        fields = line.split("\t")
        if len(fields) != len(header):
            identifier = f"line {place.rpartition(':')[2]}"
            yield Rejected(identifier, f"broken line: it has {len(fields)} fields and the table {len(header)}", place)
            continue
        row = dict(zip(header, fields, strict=True))
        yield Candidate(
            id=Path(row["path"]).stem,
            place=place,
            audio=table.parent / "clips" / row["path"],
            text=row["sentence"],
            speaker=row["client_id"] or None,
            language=row.get("locale") or language,
            licence=LICENCE,
            source=f"Common Voice {table.stem}",
            custom={name: row[name] for name in KEPT if row.get(name)},
        )
