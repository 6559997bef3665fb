"""Texts at random from a JSONL file of any length: a derived index of where each begins, not a list in memory.

    FILE.index/KEY/offsets.npy    where each text's line begins, and where the file ends
    FILE.index/KEY/origins.json   [source, licence, number of texts] of each origin

KEY and how it is made anew: see salad.derived. Making it reads every text once, so that a line that is none is found
then and not in the middle of a training run.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from salad.derived import derived
from salad.errors import DataError
from salad.files import read_json
from salad.texts.text import Text, text_from

VERSION = 2
ORIGINS_NAME = "origins.json"


class TextCorpus(Sequence[Text]):
    """The texts of a JSONL file by number, read when asked for. Pickled, it is its file's name."""

    def __init__(self, path: Path) -> None:
        """Open the index of a file, or make it.

        Raises:
            MissingFileError: no such file.
            DataError: a line is no JSON object, a key is missing or not a string, a text is empty, or an id stands
                twice.
        """
        self.path = path
        place = derived(path, path.parent / f"{path.name}.index", VERSION, lambda out: _make(path, out))
        self.origins: list[tuple[str, str, int]] = [tuple(row) for row in read_json(place / ORIGINS_NAME)]
        self._offsets = np.asarray(np.load(place / "offsets.npy", mmap_mode="r"))
        self._file = path.open("rb", buffering=0)

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.__init__(path)  # type: ignore[misc]  # a worker opens its own file

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> Text: ...
    @overload
    def __getitem__(self, index: slice) -> list[Text]: ...
    def __getitem__(self, index: int | slice) -> Text | list[Text]:
        """A text, in the order of the file."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        number = range(len(self))[index]
        begin, end = int(self._offsets[number]), int(self._offsets[number + 1])
        return _text(os.pread(self._file.fileno(), end - begin, begin), self.path, number + 1)


def _make(path: Path, out: Path) -> None:
    offsets, hashes, position = array("q"), array("Q"), 0
    origins = Counter[tuple[str, str]]()
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                offsets.append(position)
                text = _text(line, path, len(offsets))
                hashes.append(_hash(text.id))
                origins[text.source, text.licence] += 1
            position += len(line)
    offsets.append(position)
    np.save(out / "offsets.npy", np.frombuffer(offsets, np.int64))
    (out / ORIGINS_NAME).write_text(json.dumps([[*origin, count] for origin, count in sorted(origins.items())]))
    _refuse_duplicates(path, np.frombuffer(offsets, np.int64), np.frombuffer(hashes, np.uint64))


def _text(line: bytes, path: Path, number: int) -> Text:
    place = f"{path}, record {number}"
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place} is not readable as JSON ({error}).") from error
    if not isinstance(row, dict):
        raise DataError(f"{place} is not a JSON object.")
    return text_from(row, place, path.name)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _refuse_duplicates(path: Path, offsets: np.ndarray, hashes: np.ndarray) -> None:
    """Equal hashes stand next to each other when sorted; only their ids are read again."""
    rows = np.argsort(hashes, kind="stable")
    with path.open("rb") as file:
        for place in np.flatnonzero(hashes[rows][1:] == hashes[rows][:-1]):
            names = []
            for row in rows[place : place + 2]:
                file.seek(int(offsets[row]))
                names.append(_text(file.readline(), path, int(row) + 1).id)
            if names[0] == names[1]:
                raise DataError(
                    f"{path}, record {rows[place + 1] + 1}: the id {names[0]!r} stands twice; give every text its own."
                )
