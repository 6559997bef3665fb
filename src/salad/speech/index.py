"""Random access to the cuts of a prepared folder, however many: a derived index in memory-mapped files.

    OUT/index/KEY/records.jsonl    a cut a line: [id, duration_s, document, text, [start_s, end_s, ...] or null,
                                   whether its text follows that of the cut before it], in the
                                   order of cuts.jsonl.gz
    OUT/index/KEY/offsets.npy      where each line begins, and where the last one ends
    OUT/index/KEY/checksums.npy    CRC-32 of each line
    OUT/index/KEY/num_words.npy    how many words have times; 0: the cut is not aligned
    OUT/index/KEY/sounds.npy       `sound_hash` of each cut
    OUT/index/KEY/seconds.npy      how long each cut is
    OUT/index/KEY/licences.npy     which licence each cut states, as a row of licences.json; row 0 stands for none
    OUT/index/KEY/content.json     {"sha256"}: of the `portable_line` of every cut, in order
    OUT/index/KEY/hashes.npy       `id_hash` of each cut, sorted
    OUT/index/KEY/rows.npy         the cut that each of these hashes is of
    OUT/index/KEY/usable-*.npz     what a sequence policy can use of them (interleave/builder.py)

KEY and how it is made anew: see salad.derived. A record is verified whenever it is read.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from array import array
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from salad.derived import derived, discard
from salad.errors import AlignmentError, DataError
from salad.files import read_json
from salad.speech.identity import id_hash, portable_line, sound_hash
from salad.speech.prepared import CUTS_NAME, TimedWord, cuts_file, follows

INDEX_NAME = "index"
RECORDS_NAME = "records.jsonl"
LICENCES_NAME = "licences.json"
CONTENT_NAME = "content.json"
VERSION = 3
ARRAYS = ("offsets", "checksums", "num_words", "sounds", "seconds", "licences", "hashes", "rows")


@dataclass(frozen=True, slots=True)
class CutRecord:
    """What interleaving needs of a cut. `words` is empty where the cut is not aligned."""

    id: str
    duration_s: float
    document: str | None
    text: str
    words: tuple[TimedWord, ...]


class IndexedCuts(Sequence[CutRecord]):
    """The cuts of a prepared folder by number and by id; memory does not grow with their number.

    The index is made when it is first asked for, in one streaming pass. Pickled, it is its folder's name.
    """

    def __init__(self, folder: Path) -> None:
        """Open the index of a prepared folder, or make it.

        Raises:
            MissingFileError: the folder was never prepared.
            DataError: a line of its cuts is not a cut, or an id stands twice.
            AlignmentError: a cut's word timings are not those of its text.
        """
        self.folder = folder
        cuts_file(folder)
        self._open()

    def _open(self) -> None:
        source = self.folder / CUTS_NAME
        self.place = derived(source, self.folder / INDEX_NAME, VERSION, lambda out: _make(source, out), RECORDS_NAME)
        # Plain views of the maps: numpy's memmap class makes every look-up several times slower.
        arrays = {name: np.asarray(np.load(self.place / f"{name}.npy", mmap_mode="r")) for name in ARRAYS}
        self._offsets, self._checksums = arrays["offsets"], arrays["checksums"]
        self._hashes, self._rows = arrays["hashes"], arrays["rows"]
        self.num_words: NDArray[np.int32] = arrays["num_words"]
        self.sounds: NDArray[np.uint64] = arrays["sounds"]
        self.seconds: NDArray[np.float32] = arrays["seconds"]
        self._licences: NDArray[np.int32] = arrays["licences"]
        self._file = (self.place / RECORDS_NAME).open("rb", buffering=0)

    def __getstate__(self) -> Path:
        return self.folder

    def __setstate__(self, folder: Path) -> None:
        self.__init__(folder)  # type: ignore[misc]  # a worker opens its own maps

    def __len__(self) -> int:
        return len(self._checksums)

    @overload
    def __getitem__(self, row: int) -> CutRecord: ...
    @overload
    def __getitem__(self, row: slice) -> list[CutRecord]: ...
    def __getitem__(self, row: int | slice) -> CutRecord | list[CutRecord]:
        """The record of a cut, in the order of the folder."""
        if isinstance(row, slice):
            return [self[i] for i in range(len(self))[row]]
        name, duration_s, document, text, times, _ = self._read(range(len(self))[row])
        words = map(TimedWord, text.split(), times[::2], times[1::2]) if times else ()
        return CutRecord(name, duration_s, document, text, tuple(words))

    def row(self, name: str) -> int | None:
        """The number of the cut with id `name`; None if there is none."""
        wanted = np.uint64(id_hash(name))
        place = int(self._hashes.searchsorted(wanted))
        while place < len(self) and self._hashes[place] == wanted:
            row = int(self._rows[place])
            if self._read(row)[0] == name:
                return row
            place += 1
        return None

    def rows_of(self, names: Iterable[str]) -> NDArray[np.int64]:
        """The numbers of the cuts with these ids, in their order.

        Raises:
            DataError: there is no such cut.
        """
        rows = [(name, self.row(name)) for name in names]
        missing = [name for name, row in rows if row is None]
        if missing:
            raise DataError(f"{self.folder} has no cut {missing[0]!r} ({len(missing)} of the ids asked for).")
        return np.array([row for _, row in rows], np.int64)

    def hashes(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """`id_hash` of the cuts with these numbers."""
        of_row = np.empty(len(self), np.uint64)
        of_row[self._rows] = self._hashes
        return of_row[rows]

    def licences(self, rows: NDArray[np.int64]) -> dict[str | None, tuple[int, float]]:
        """Of the cuts with these numbers: how many state each licence, and their seconds; None: they state none."""
        names: list[str | None] = [None, *read_json(self.place / LICENCES_NAME)[1:]]
        codes, seconds = self._licences[rows], self.seconds[rows]
        counts = np.bincount(codes, minlength=len(names)).tolist()
        totals = np.bincount(codes, seconds.astype(np.float64), minlength=len(names)).tolist()
        return {name: (count, total) for name, count, total in zip(names, counts, totals, strict=True) if count}

    @property
    def sha256(self) -> str:
        """Of all the folder's cuts, the same wherever the folder and its audio lie."""
        return str(read_json(self.place / CONTENT_NAME)["sha256"])

    def continuation(self, row: int, hidden: Container[int], num_words: int) -> str:
        """The first `num_words` words after the cut in its document, from the cuts that follow it; "" at its end.

        They end before a cut whose number is in `hidden`, and where an utterance of the corpus was rejected.
        """
        words: list[str] = []
        while len(words) < num_words and (row := row + 1) < len(self) and row not in hidden:
            *_, text, _, goes_on = self._read(row)
            if not goes_on:
                break
            words += text.split()
        return " ".join(words[:num_words])

    def _read(self, row: int) -> list[Any]:
        for _ in range(2):
            begin, end = int(self._offsets[row]), int(self._offsets[row + 1])
            line = os.pread(self._file.fileno(), end - begin, begin)  # unlike a map, it adds nothing to resident memory
            if zlib.crc32(line) == self._checksums[row]:
                record: list[Any] = json.loads(line)
                return record
            discard(self.place)
            self._open()
        raise DataError(f"{self.place / RECORDS_NAME} is damaged at cut {row}, made anew or not; check the disk.")


def _make(source: Path, out: Path) -> None:
    """Write the index in one pass over the cuts; memory holds 64 bytes a cut."""
    offsets, checksums, num_words, sounds, hashes = array("q", [0]), array("I"), array("i"), array("Q"), array("Q")
    seconds, licences = array("f"), array("i")
    known: dict[str | None, int] = {None: 0}
    content = hashlib.sha256()
    with (out / RECORDS_NAME).open("wb") as records:
        for record, sound, licence in _records(source, content.update):
            line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            records.write(line)
            offsets.append(offsets[-1] + len(line))
            checksums.append(zlib.crc32(line))
            num_words.append(len(record[4] or ()) // 2)
            sounds.append(sound)
            hashes.append(id_hash(record[0]))
            seconds.append(record[1])
            licences.append(known.setdefault(licence, len(known)))
    unsorted = np.frombuffer(hashes, np.uint64)
    rows = np.argsort(unsorted, kind="stable")
    arrays: dict[str, NDArray[Any]] = {
        "offsets": np.frombuffer(offsets, np.int64),
        "checksums": np.frombuffer(checksums, np.uint32),
        "num_words": np.frombuffer(num_words, np.int32),
        "sounds": np.frombuffer(sounds, np.uint64),
        "seconds": np.frombuffer(seconds, np.float32),
        "licences": np.frombuffer(licences, np.int32),
        "hashes": unsorted[rows],
        "rows": rows,
    }
    for name, values in arrays.items():
        np.save(out / f"{name}.npy", values)
    (out / LICENCES_NAME).write_text(json.dumps(list(known)))
    (out / CONTENT_NAME).write_text(json.dumps({"sha256": content.hexdigest()}))
    _refuse_duplicates(source, out, arrays)


def _records(source: Path, seen: Callable[[bytes], None]) -> Iterator[tuple[list[Any], int, str | None]]:
    """Each cut's record, its `sound_hash`, and the licence it states; `seen` is told its `portable_line`."""
    done = 0
    before: dict[str, Any] | None = None
    try:
        with gzip.open(source, "rb") as file:
            for line in file:
                cut = json.loads(line)
                custom = cut.get("custom")
                yield _record(cut, before), sound_hash(cut, source.parent), (custom or {}).get("licence")
                seen(portable_line(cut))
                before = custom
                done += 1
    except AlignmentError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{source}:{done + 1} is not readable as a cut ({type(error).__name__}: {error}); prepare the corpus again."
        ) from error


def _record(cut: dict[str, Any], before: dict[str, Any] | None) -> list[Any]:
    spoken = cut["supervisions"][0]
    text: str = spoken.get("text") or ""
    items = (spoken.get("alignment") or {}).get("word")
    times: list[float] | None = None
    if items is not None:
        if [item[0] for item in items] != text.split():
            raise AlignmentError(
                f"utterance {cut['id']!r}: its word timings are not those of its text; align it again."
            )
        begin_s = cut["start"]
        spans = [(start - begin_s, start - begin_s + duration) for _, start, duration, *_ in items]
        times = [round(time_s, 8) for span in spans for time_s in span]
    custom = cut.get("custom") or {}
    return [cut["id"], cut["duration"], custom.get("document"), text, times, follows(before, custom)]


def _refuse_duplicates(source: Path, out: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Equal hashes stand next to each other; only their ids are read."""
    hashes, rows, offsets = arrays["hashes"], arrays["rows"], arrays["offsets"]
    with (out / RECORDS_NAME).open("rb") as records:
        for place in np.flatnonzero(hashes[1:] == hashes[:-1]):
            pair = []
            for row in rows[place : place + 2]:
                records.seek(int(offsets[row]))
                pair.append(json.loads(records.readline())[0])
            if pair[0] == pair[1]:
                raise DataError(f"{source}: the id {pair[0]!r} stands twice; ids must be unique within a corpus.")
