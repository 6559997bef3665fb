"""What evaluation sets say: the strings of every item, as a model would read them.

An item is a JSON object of any shape. Its own strings, in their order, are its stem (passage, question); the strings of
a list, however deep, are alternatives, each of which follows the stem. Strings that name the item or its origin, and
letters that name a choice, are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from salad.errors import DataError
from salad.texts.readers import JsonLines, ParquetRows, PlainText, Shard, file_kind, parquet_file, text_files
from salad.texts.rows import Row

# Keys whose strings are about the item and not of it, in the evaluation sets in circulation.
ABOUT = frozenset(
    "id ids idx ind index _id uid qid guid question_id item_id activity_label category categories subject domain topic "
    "source source_id src licence license split split_type set dataset type label labels answerkey answer_key gold "
    "answer_idx answer_index language lang url urls".split()
)


@dataclass(frozen=True)
class EvaluationItem:
    """One item: where it stands, its id if it has one, its stem, and what may follow it."""

    place: str
    id: str | None
    stem: str
    alternatives: tuple[str, ...]


@dataclass
class _Strings:
    stem: list[str] = field(default_factory=list)
    alternatives: list[str] = field(default_factory=list)

    def add(self, value: Any, in_list: bool) -> None:
        if isinstance(value, str):
            (self.alternatives if in_list else self.stem).append(value)
        elif isinstance(value, Mapping):
            for key, part in value.items():
                if str(key).lower() not in ABOUT:
                    self.add(part, in_list)
        elif isinstance(value, Sequence) and not isinstance(value, bytes):
            for part in value:
                self.add(part, True)


def evaluation_items(source: Path) -> Iterator[EvaluationItem]:
    """The items of a file (JSON lines, Parquet, plain text: a paragraph each), or of the files of a folder.

    Raises:
        MissingFileError: nothing is there.
        DataError: its kind is not known, a row can't be read, or an item holds no text.
    """
    for path in text_files(source):
        some = False
        for shard in _shards(path):
            for row in shard.rows(None):
                some = True
                yield _item(row)
        if not some:
            raise DataError(f"{path} holds no evaluation item; leave it out.")


def _shards(path: Path) -> list[Shard]:
    kind = file_kind(path)
    if kind == "JSON lines":
        return [JsonLines(path, path.stem)]
    if kind == "plain text":
        return [PlainText(path, path.stem, "text", "paragraph")]
    with parquet_file(path) as file:
        columns = file.schema_arrow.names
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    return [ParquetRows(path, path.stem, group, sum(counts[:group]), columns) for group in range(len(counts))]


def _item(row: Row) -> EvaluationItem:
    if row.problem:
        raise DataError(f"{row.place}: {row.problem}; mend it, or leave the line out.")
    strings = _Strings()
    strings.add(row.columns, False)
    stem = " ".join(strings.stem)
    if not any(character.isalnum() for part in (stem, *strings.alternatives) for character in part):
        known = ", ".join(map(str, row.columns)) or "nothing"
        raise DataError(f"{row.place} holds no text to compare with, only {known}; leave the line out.")
    name = row.columns.get("id")
    return EvaluationItem(row.place, None if name is None else str(name), stem, tuple(strings.alternatives))
