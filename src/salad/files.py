"""Writing files so that a power cut leaves either the old one or the new one, never half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from salad.errors import DataError, MissingFileError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` beside `path`, flush it to the disk, and rename it into place."""
    with open_atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """A file to write beside `path`; flushed to the disk and renamed into place when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".tmp-{os.getpid()}-{path.name}"
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of `value` as indented JSON; NaN is refused."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        MissingFileError: no such file.
        DataError: it is not JSON.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not readable as JSON ({error}).") from error


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """One JSON object a line, written atomically."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; lines end at "\\n" alone (some texts hold other Unicode separators).

    Raises:
        MissingFileError: no such file.
        DataError: a line is not a JSON object; says which.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist.")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number} is not readable as JSON ({error}).") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number} is not a JSON object.")
        rows.append(row)
    return rows
