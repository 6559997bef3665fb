"""One row of a source and the text it becomes, or the reason why it becomes none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from salad.errors import DataError
from salad.texts.text import NO_DOMAIN, NO_LICENCE, Text

Per = Literal["line", "paragraph", "file"]
"""What of a plain text file is one text."""


@dataclass(frozen=True)
class TextSettings:
    """What to take from a source; see `salad.texts.sources.prepare_text`."""

    source: str
    limit: int | None = None
    text_column: str = "text"
    split: str = "train"
    config: str | None = None
    domain_column: str | None = None
    licence: str | None = None
    min_words: int = 1
    max_words: int | None = None
    seed: int | None = None
    per: Per = "paragraph"

    @property
    def columns(self) -> list[str]:
        """The columns that a text is made of, where a source has them."""
        named = [self.text_column, self.domain_column or "domain"]
        return [*named, "id", "title", "source", "licence", "license"]

    @property
    def required(self) -> list[str]:
        """The columns that must be there."""
        return [self.text_column, *([self.domain_column] if self.domain_column else [])]


@dataclass(frozen=True)
class Row:
    """One row: its number within the shard from 1, where it stands, its columns, or why it has none."""

    number: int
    place: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


def text_of_row(row: Row, shard: str, settings: TextSettings, licence: str | None = None) -> Text:
    """The text that a row of a source is; its id, unless the row has one, is made of the shard's name and the number.

    Raises:
        DataError: the row can't be used; the message is the reason.
    """
    if row.problem:
        raise DataError(row.problem)
    columns = row.columns
    text = _spoken(columns, settings)
    domain = _string(columns, settings.domain_column or "domain")
    if domain is None and settings.domain_column:
        raise DataError(f"no domain: {settings.domain_column!r} is missing")
    stated = _string(columns, "licence") or _string(columns, "license")
    return Text(
        id=_string(columns, "id") or _made_id(row, shard),
        text=text,
        domain=domain or NO_DOMAIN,
        source=_string(columns, "source") or settings.source,
        licence=stated or settings.licence or licence or NO_LICENCE,
        title=_string(columns, "title"),
    )


def row_id(row: Row, shard: str) -> str:
    """What a row is called, in whatever state it is: its own id, or one made of the shard's name and its number."""
    try:
        own = _string(row.columns, "id") or ""
        own.encode()
    except (DataError, UnicodeEncodeError):
        own = ""
    return own or _made_id(row, shard)


def _made_id(row: Row, shard: str) -> str:
    return f"{shard}-{row.number:06}"


def _spoken(columns: Mapping[str, Any], settings: TextSettings) -> str:
    """The text itself.

    Raises:
        DataError: it is missing, no string, without words, too short or too long.
    """
    text = columns.get(settings.text_column)
    if text is None:
        raise DataError(
            f"no text: there is no {settings.text_column!r}, only {', '.join(sorted(columns)) or 'nothing'}"
        )
    if not isinstance(text, str):
        raise DataError(f"not a string: {settings.text_column!r} is {_kind(text)}")
    num_words = len(text.split())
    if not num_words:
        raise DataError("empty text")
    if not any(character.isalnum() for character in text):
        raise DataError("no words: it is made of punctuation alone")
    if num_words < settings.min_words:
        raise DataError(f"fewer than {settings.min_words} words")
    if settings.max_words is not None and num_words > settings.max_words:
        raise DataError(f"more than {settings.max_words} words")
    return text


def _string(columns: Mapping[str, Any], name: str) -> str | None:
    """A column as a string, None where it is blank; whole numbers (ids, classes) are written out."""
    value = columns.get(name)
    if value is None or value != value:  # NaN, which tables put where nothing is
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"not a string: {name!r} is {_kind(value)}")
    return value.strip() or None


def _kind(value: object) -> str:
    shown = repr(value)
    return f"{type(value).__name__} ({shown[:60]}{'…' * (len(shown) > 60)})"
