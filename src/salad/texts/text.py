"""One text and its origin, and how texts are kept: one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from salad.errors import DataError
from salad.files import read_jsonl, write_jsonl

NO_DOMAIN = "all"
NO_LICENCE = "not stated"


@dataclass(frozen=True)
class Text:
    """A text, the domain it is sampled by, where it comes from and under which licence; `title`: what it is about."""

    id: str
    text: str
    domain: str
    source: str
    licence: str
    title: str | None = None


def read_texts(path: Path) -> list[Text]:
    """The texts of a JSONL file, in file order; keys other than those of `Text` are not read.

    A row needs id and text. Without the others its domain is "all", its source the file's name, its licence "not
    stated".

    Raises:
        MissingFileError: no such file.
        DataError: a line is no JSON object, a key is missing or not a string, a text is empty, or an id stands twice.
    """
    texts: list[Text] = []
    seen: set[str] = set()
    for number, row in enumerate(read_jsonl(path), start=1):
        text = text_from(row, f"{path}, record {number}", path.name)
        if text.id in seen:
            raise DataError(f"{path}, record {number}: the id {text.id!r} stands twice; give every text its own.")
        seen.add(text.id)
        texts.append(text)
    return texts


def write_texts(path: Path, texts: Iterable[Text]) -> None:
    """Write texts as JSONL, atomically."""
    write_jsonl(path, (asdict(text) for text in texts))


def text_from(row: Mapping[str, Any], place: str, source: str) -> Text:
    """The text of one row that stands at `place`; `source` is where it comes from unless the row says so.

    Raises:
        DataError: a key is missing or not a string, or the text is empty.
    """
    row = {"domain": NO_DOMAIN, "source": source, "licence": NO_LICENCE, **row}
    for key in ("id", "text", "domain", "source", "licence"):
        if not isinstance(row.get(key), str):
            raise DataError(f"{place}: {key!r} must be a string, not {row.get(key)!r}; add it to the file.")
    if not row["text"].strip():
        raise DataError(f"{place}: the text of {row['id']!r} is empty; leave the line out.")
    title = row.get("title")
    if title is not None and not isinstance(title, str):
        raise DataError(f"{place}: 'title' must be a string or left out, not {title!r}.")
    return Text(row["id"], row["text"], row["domain"], row["source"], row["licence"], title)
