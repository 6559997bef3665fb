"""Rows that were taken from a stream that is dear to read again, and where the stream stood when they were.

    FOLDER/rows.jsonl   one JSON object a row, in the stream's order
    FOLDER/state.json   what the rows were made of, how many there are, how many bytes they take, the stream's state

A commit first flushes the rows to the disk and then replaces the state. Going on cuts the rows back to the length that
the state knows, so what a killed run had read since its last commit is read once more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from salad.errors import DataError, RecipeError
from salad.files import read_json, write_json


class Journal:
    """The rows so far; a context manager while rows are added.

    Attributes:
        num_rows: how many rows are in it, committed or not.
        complete: whether the stream has no more.
        stream_state: the stream's state after the last committed row; None at its beginning.
        noted: what `begin` was given to note, plain JSON.
    """

    def __init__(self, folder: Path, made_of: dict[str, Any]) -> None:
        """Read the state of the journal in `folder`, if one was begun.

        Raises:
            RecipeError: the folder's journal is made of something else.
        """
        self._rows_path, self._state_path = folder / "rows.jsonl", folder / "state.json"
        self._made_of = made_of
        self.num_rows, self.complete = 0, False
        self.stream_state: Any = None
        self.noted: Any = None
        self._num_bytes = 0
        self._file: Any = None
        if self._state_path.is_file():
            state = read_json(self._state_path)
            self._compare(state["made_of"])
            self.num_rows, self.complete = state["num_rows"], state["complete"]
            self.stream_state, self.noted, self._num_bytes = state["stream"], state["noted"], state["num_bytes"]

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever committed."""
        return not self._state_path.is_file()

    def __enter__(self) -> Self:
        """The journal, open for rows.

        Raises:
            DataError: its rows are shorter than its state says.
        """
        self._rows_path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._rows_path.open("r+b" if self._rows_path.is_file() else "w+b")
        if self._file.seek(0, os.SEEK_END) < self._num_bytes:
            self._file.close()
            raise DataError(f"{self._rows_path} has lost rows it had; delete {self._rows_path.parent} and start again.")
        self._file.truncate(self._num_bytes)
        self._file.seek(self._num_bytes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; what was not committed is not counted on."""
        self._file.close()

    def rows(self, limit: int | None) -> Iterator[dict[str, Any]]:
        """The first `limit` rows (None: all), read from the disk one by one."""
        with self._rows_path.open("rb") as lines:
            for line in islice(lines, self.num_rows if limit is None else min(limit, self.num_rows)):
                yield json.loads(line)

    def add(self, row: dict[str, Any]) -> None:
        """Write a row after the others."""
        self._file.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", errors="replace"))
        self.num_rows += 1

    def commit(self, stream_state: Any, complete: bool) -> None:
        """Make the rows so far last; the stream is at `stream_state`, or has no more."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self.stream_state, self.complete = stream_state, complete
        state = {
            "made_of": self._made_of,
            "noted": self.noted,
            "num_rows": self.num_rows,
            "num_bytes": self._file.tell(),
            "complete": complete,
            "stream": stream_state,
        }
        write_json(self._state_path, state)

    def _compare(self, made_of: dict[str, Any]) -> None:
        differing = [name for name, value in self._made_of.items() if made_of.get(name) != value]
        if differing:
            before = ", ".join(f"{name} {made_of.get(name)!r}" for name in differing)
            now = ", ".join(f"{name} {self._made_of[name]!r}" for name in differing)
            folder = self._state_path.parent.parent
            raise RecipeError(f"{folder} was begun with {before}, not with {now}; choose another --out.")
