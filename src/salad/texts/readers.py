"""Files of texts, read row by row from any point on: JSON lines, Parquet, plain text.

A source is a list of shards (a file, a Parquet row group, a file of a hub dataset). A shard yields rows and can say at
any time where it is (`cursor`, plain JSON), so that reading goes on there after a stop. Memory holds one row, for
Parquet `BATCH_ROWS` rows, however big the file is. A row that can't be read is a row with a `problem`.
"""

from __future__ import annotations

import difflib
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from salad.errors import DataError, MissingFileError
from salad.texts.rows import Per, Row

MAX_TEXT_BYTES = 64 << 20
"""A longer line or text is refused: it would have to be held in memory whole."""

BATCH_ROWS = 1024

SUFFIXES = {
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".jsonl.gz": "JSON lines",
    ".parquet": "Parquet",
    ".txt": "plain text",
    ".txt.gz": "plain text",
    ".md": "plain text",
}


class Shard(Protocol):
    """A piece of a source that is read from its beginning, or from a cursor it gave earlier, to its end."""

    name: str

    def rows(self, cursor: Any) -> Iterator[Row]:
        """The rows after `cursor`; all of them when it is None."""
        ...

    def cursor(self) -> Any:
        """Where reading goes on after the last row that was yielded, as JSON."""
        ...


@dataclass
class JsonLines:
    """A JSON object a line; lines end at a line feed alone. Blank lines are no rows."""

    path: Path
    name: str
    _at: tuple[int, int] = (0, 0)  # bytes and lines read

    def rows(self, cursor: Any) -> Iterator[Row]:
        """See `Shard`."""
        with _open(self.path) as file:
            for line in _lines(file, cursor):
                self._at = (line.end, line.number)
                if line.problem is None and not line.content.strip():
                    continue
                columns, problem = ({}, line.problem) if line.problem else _json_object(line.content)
                yield Row(line.number, f"{self.path}:{line.number}", columns, problem)

    def cursor(self) -> Any:
        """See `Shard`."""
        return list(self._at)


def _json_object(line: bytes) -> tuple[Mapping[str, Any], str | None]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return {}, f"not UTF-8: {error.reason} at byte {error.start} of the line"
    except (ValueError, RecursionError) as error:
        return {}, f"broken JSON: {error}"
    return (row, None) if isinstance(row, dict) else ({}, f"not a JSON object: the line is {type(row).__name__}")


@dataclass
class PlainText:
    """Plain text: every line, every paragraph (ended by an empty line), or the whole file is a text."""

    path: Path
    name: str
    column: str
    per: Per
    _at: tuple[int, int] = (0, 0)

    def rows(self, cursor: Any) -> Iterator[Row]:
        """See `Shard`; a text's place is its first line."""
        block: list[_Line] = []
        problem: str | None = None
        size = 0
        with _open(self.path) as file:
            for line in _lines(file, cursor):
                blank = not line.content.strip()
                if block and (self.per == "line" or (self.per == "paragraph" and blank)):
                    yield self._row(block, problem)
                    block, problem, size = [], None, 0
                self._at = (line.end, line.number)
                if blank and not block:
                    continue
                size += len(line.content)
                problem = problem or line.problem or _too_long(size, "text")
                if not (block and problem):  # of a text that can't be used the first line is enough
                    block.append(line)
            if block:
                yield self._row(block, problem)

    def _row(self, block: Sequence[_Line], problem: str | None) -> Row:
        number = block[0].number
        place = f"{self.path}:{number}"
        if problem:
            return Row(number, place, problem=problem)
        try:
            return Row(number, place, {self.column: b"".join(line.content for line in block).decode("utf-8").strip()})
        except UnicodeDecodeError as error:
            return Row(number, place, problem=f"not UTF-8: {error.reason} at byte {error.start} of the text")

    def cursor(self) -> Any:
        """See `Shard`."""
        return list(self._at)


@dataclass(frozen=True)
class _Line:
    """A line, its number from 1, the offset in bytes of its end, and why it can't be used."""

    number: int
    end: int
    content: bytes
    problem: str | None


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _lines(file: IO[bytes], cursor: Any) -> Iterator[_Line]:
    """The lines after the cursor [bytes, lines]; of a line that is too long the beginning."""
    end, number = cursor or (0, 0)
    file.seek(end)
    while content := file.readline(MAX_TEXT_BYTES + 1):
        number += 1
        end += len(content)
        problem = _too_long(len(content), "line")
        rest = content
        while problem and rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_TEXT_BYTES)
            end += len(rest)
        yield _Line(number, end, content.removeprefix(b"\xef\xbb\xbf") if number == 1 else content, problem)


def _too_long(num_bytes: int, what: str) -> str | None:
    return (
        f"too long to hold: the {what} has more than {MAX_TEXT_BYTES >> 20} MiB" if num_bytes > MAX_TEXT_BYTES else None
    )


@dataclass
class ParquetRows:
    """One row group of a Parquet file; only the columns asked for are read."""

    path: Path
    name: str
    row_group: int
    first_row: int
    columns: Sequence[str]
    _at: int = 0

    def rows(self, cursor: Any) -> Iterator[Row]:
        """See `Shard`; a row's number is its place in the whole file."""
        self._at = done = cursor or 0
        start = 0
        with parquet_file(self.path) as file:
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[self.row_group], columns=list(self.columns)):
                if start + batch.num_rows > done:
                    for values in _decoded(batch.slice(max(0, done - start))):
                        self._at += 1
                        number = self.first_row + self._at
                        problem = next((str(value) for value in values.values() if isinstance(value, _Broken)), None)
                        yield Row(number, f"{self.path}, row {number}", {} if problem else values, problem)
                start += batch.num_rows

    def cursor(self) -> Any:
        """See `Shard`."""
        return self._at


class _Broken(str):
    """Says why a value can't be read."""


def _decoded(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of a record batch; strings are decoded one by one, so that a broken one spoils no other."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
            is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if is_text:
            column = column.cast(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary())
        values = column.to_pylist()
        columns[name] = [_utf8(value, name) for value in values] if is_text else values
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))


def _utf8(value: bytes | None, name: str) -> str | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError as error:
        return _Broken(f"not UTF-8: {error.reason} at byte {error.start} of {name!r}")


def parquet_file(path: Path) -> Any:
    """An open `pyarrow.parquet.ParquetFile`.

    Raises:
        DataError: the file is not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        return parquet.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not readable as Parquet ({str(error).splitlines()[0]}); fetch it again.") from error


def parquet_shards(path: Path, name: str, wanted: Sequence[str], required: Sequence[str]) -> list[ParquetRows]:
    """A shard for every row group, reading those of the `wanted` columns that there are.

    Raises:
        DataError: the file is not Parquet, or a `required` column is missing.
    """
    with parquet_file(path) as file:
        there = file.schema_arrow.names
        check_columns(str(path), there, required)
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    columns = [column for column in dict.fromkeys(wanted) if column in there]
    return [ParquetRows(path, name, group, sum(counts[:group]), columns) for group in range(len(counts))]


def check_columns(source: str, there: Sequence[str], required: Sequence[str]) -> None:
    """Raise a `DataError` that names a required column that is not there, and those that are."""
    for column in required:
        if column not in there:
            near = difflib.get_close_matches(column, there, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{source} has no column {column!r}, only {', '.join(there)}{hint}")


def file_kind(path: Path) -> str | None:
    """What a file's name says it holds, a value of `SUFFIXES`."""
    return next((kind for suffix, kind in SUFFIXES.items() if path.name.lower().endswith(suffix)), None)


def text_files(source: Path) -> list[Path]:
    """The file itself, or the text files of one kind in a folder and below it, sorted.

    Raises:
        MissingFileError: nothing is there.
        DataError: a file's kind is not known, or a folder holds several kinds.
    """
    if source.is_file():
        if file_kind(source) is None:
            raise DataError(f"{source}: its name says no kind of text file; give it one of {', '.join(SUFFIXES)}.")
        return [source]
    if not source.is_dir():
        raise MissingFileError(f"{source} does not exist; a dataset of the hub is written hub:OWNER/NAME.")
    if (source / "texts.jsonl").is_file():  # a folder of prepared texts has other files beside them
        return [source / "texts.jsonl"]
    hidden = lambda path: any(part.startswith(".") for part in path.relative_to(source).parts)  # noqa: E731
    files = sorted(path for path in source.rglob("*") if path.is_file() and file_kind(path) and not hidden(path))
    kinds = sorted({str(file_kind(path)) for path in files})
    if len(kinds) != 1:
        found = f"files of {len(kinds)} kinds ({', '.join(kinds)})" if kinds else "no text file"
        raise DataError(f"{source} holds {found}; name one file, or a folder with {', '.join(SUFFIXES)} alone.")
    return files
