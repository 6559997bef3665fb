"""Embeddings of a corpus in memory-mapped shards: read in blocks or by row, and never held in memory whole.

    FOLDER/index.json    which corpus (SHA-256) and embedder (SHA-256) they are of; of every shard rows, size, checksum
    FOLDER/00000.npy     the embeddings of the first texts, float16 or float32 [rows, dim]; and so on

A shard stands in the index once it is whole on the disk, so a folder that is being filled is never mistaken for one
that is full. Axes: N texts, d dimensions.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from salad.errors import DataError, MissingFileError
from salad.files import read_json, write_json

FORMAT = "salad embeddings"
VERSION = 1
BLOCK_ROWS = 8192
OPEN_SHARDS = 64  # a memory map keeps its file open, and a process may have some hundred files open


@dataclass(frozen=True)
class Shard:
    """One file of the folder: its rows, its size and CRC-32, and how many of its texts the embedder did not see whole.

    `num_truncated`: texts longer than the embedder reads. `num_unread`: texts of which it knows no part (other scripts,
    emoji, control characters alone), which all get about the same place; `unread`: the ids of the first of them.
    """

    number: int
    rows: int
    dim: int
    size: int
    crc32: int
    num_truncated: int = 0
    num_unread: int = 0
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class EmbeddingIndex:
    """What a folder of embeddings holds, finished or not; `shard_rows` rows in every shard but the last."""

    corpus: str
    corpus_sha256: str
    embedder: str
    embedder_sha256: str
    dtype: str
    num_rows: int
    shard_rows: int
    max_tokens: int | None = None
    shards: tuple[Shard, ...] = ()

    @property
    def num_shards(self) -> int:
        """How many shards there are when it is whole."""
        return -(-self.num_rows // self.shard_rows)

    @property
    def missing(self) -> list[int]:
        """The numbers of the shards that are not there yet."""
        return sorted(set(range(self.num_shards)) - {shard.number for shard in self.shards})

    def with_shard(self, shard: Shard) -> EmbeddingIndex:
        """The index with one more shard, or the shard in place of the one of its number."""
        others = [other for other in self.shards if other.number != shard.number]
        return replace(self, shards=tuple(sorted([*others, shard], key=lambda each: each.number)))

    def write(self, folder: Path) -> None:
        """Write `folder`/index.json, atomically."""
        write_json(folder / "index.json", {"format": FORMAT, "version": VERSION, **asdict(self)})

    @staticmethod
    def read(folder: Path) -> EmbeddingIndex:
        """The index of a folder.

        Raises:
            MissingFileError: there is none.
            DataError: it is not one of embeddings, or of another version.
        """
        path = folder / "index.json"
        if not path.is_file():
            raise MissingFileError(f"{folder} holds no embeddings: {path} does not exist.")
        tree = read_json(path)
        if not isinstance(tree, dict) or tree.pop("format", None) != FORMAT or tree.pop("version", None) != VERSION:
            raise DataError(f"{path} is no index of embeddings of version {VERSION}; delete {folder}.")
        try:
            shards = tuple(Shard(**{**row, "unread": tuple(row["unread"])}) for row in tree.pop("shards"))
            return EmbeddingIndex(**tree, shards=shards)
        except (KeyError, TypeError) as error:
            raise DataError(f"{path} is no index of embeddings ({error}); delete {folder}.") from error


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"{number:05}.npy"


def checksum(path: Path) -> int:
    """The CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def is_sound(folder: Path, shard: Shard) -> bool:
    """Whether a shard's file is there and has the bytes that the index says; reads all of it."""
    path = shard_path(folder, shard.number)
    return path.is_file() and path.stat().st_size == shard.size and checksum(path) == shard.crc32


class Embeddings:
    """The rows of a whole folder as an array [N, d] that lies on the disk; what is asked for comes as float32.

    `embeddings[begin:end]`, `embeddings[rows]` with an array of row numbers, `embeddings.blocks()`. Shards are mapped
    when they are first read. Pickled, it is its folder's name.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, folder: Path, corpus_sha256: str | None = None, embedder_sha256: str | None = None) -> None:
        """Open a folder; with hashes, those of the corpus and the embedder that it must be of.

        Raises:
            MissingFileError: it holds no embeddings, or a shard's file is not there.
            DataError: it is of another corpus or embedder, not finished, or a shard's file has another size.
        """
        self.folder = folder
        self.index = EmbeddingIndex.read(folder)
        refuse_others(folder, self.index, corpus_sha256, embedder_sha256)
        if self.index.missing:
            done = self.index.num_shards - len(self.index.missing)
            raise DataError(
                f"{folder} is not finished: {done} of {self.index.num_shards} shards are there; the 'salad cluster' "
                "that began it goes on when it is started again."
            )
        for shard in self.index.shards:
            path = shard_path(folder, shard.number)
            if not path.is_file():
                raise MissingFileError(f"{path} does not exist; 'salad cluster' with the same options makes it again.")
            if path.stat().st_size != shard.size:
                raise DataError(
                    f"{path} has {path.stat().st_size} bytes, not {shard.size}: it is damaged; "
                    "'salad cluster' with the same options makes it again."
                )
        self.shape = (self.index.num_rows, self.index.shards[0].dim)
        self._mapped: OrderedDict[int, np.ndarray] = OrderedDict()

    def __getstate__(self) -> Path:
        return self.folder

    def __setstate__(self, folder: Path) -> None:
        self.__init__(folder)  # type: ignore[misc]  # a worker opens its own files

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Rows, float32 [n, d]: a slice without a step, or row numbers (quickest when they are sorted).

        Raises:
            IndexError: a row that is not there.
            TypeError: anything else, such as one number.
        """
        if isinstance(rows, slice):
            begin, end, step = rows.indices(len(self))
            if step != 1:
                raise TypeError("embeddings are read in slices without a step; give an array of row numbers.")
            return self._span(begin, max(begin, end))
        if not isinstance(rows, np.ndarray) or rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise TypeError(f"embeddings are read by slice or by a 1-D array of row numbers, not by {rows!r}.")
        return self._gathered(rows)

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[tuple[int, np.ndarray]]:
        """The first row of every block of at most so many rows, and the block, float32 [rows, d]."""
        for begin in range(0, len(self), rows):
            yield begin, self._span(begin, min(begin + rows, len(self)))

    def _span(self, begin: int, end: int) -> np.ndarray:
        out = np.empty((end - begin, self.shape[1]), np.float32)
        size = self.index.shard_rows
        for number in range(begin // size, -(-end // size) if end > begin else 0):
            low, high = max(begin, number * size), min(end, (number + 1) * size)
            out[low - begin : high - begin] = self._shard(number)[low - number * size : high - number * size]
        return out

    def _gathered(self, rows: np.ndarray) -> np.ndarray:
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} were asked of {len(self)} embeddings.")
        out = np.empty((len(rows), self.shape[1]), np.float32)
        order = np.argsort(rows, kind="stable")
        shards, inside = np.divmod(rows[order].astype(np.int64), self.index.shard_rows)
        numbers, starts = np.unique(shards, return_index=True)
        for number, begin, end in zip(numbers, starts, np.append(starts, len(rows))[1:], strict=True):
            out[order[begin:end]] = self._shard(int(number))[inside[begin:end]]
        return out

    def _shard(self, number: int) -> np.ndarray:
        if number in self._mapped:
            self._mapped.move_to_end(number)
            return self._mapped[number]
        path = shard_path(self.folder, number)
        expected = self.index.shards[number]
        try:
            mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError) as error:
            raise DataError(f"{path} is no NumPy file ({error}); delete it and cluster again.") from error
        if mapped.shape != (expected.rows, expected.dim) or mapped.dtype != self.index.dtype:
            raise DataError(
                f"{path} holds {mapped.dtype} {list(mapped.shape)}, not {self.index.dtype} "
                f"[{expected.rows}, {expected.dim}]; delete it and cluster again."
            )
        self._mapped[number] = mapped
        if len(self._mapped) > OPEN_SHARDS:
            self._mapped.popitem(last=False)
        return mapped


def refuse_others(folder: Path, index: EmbeddingIndex, corpus_sha256: str | None, embedder_sha256: str | None) -> None:
    """Raise a `DataError` when embeddings are of another corpus or by another embedder than these hashes say."""
    remedy = "choose another folder, or delete it"
    if corpus_sha256 is not None and index.corpus_sha256 != corpus_sha256:
        raise DataError(
            f"{folder} holds embeddings of another corpus ({index.corpus}, {index.num_rows} texts, SHA-256 "
            f"{index.corpus_sha256[:12]}…), or the corpus has changed since; {remedy}."
        )
    if embedder_sha256 is not None and index.embedder_sha256 != embedder_sha256:
        raise DataError(
            f"{folder} holds embeddings by another embedder ({index.embedder}, SHA-256 "
            f"{index.embedder_sha256[:12]}…); {remedy}."
        )


def summary(index: EmbeddingIndex) -> dict[str, Any]:
    """What the embedder did not see whole: counts and the first ids, for reports."""
    unread = [name for shard in index.shards for name in shard.unread]
    return {
        "num_truncated": sum(shard.num_truncated for shard in index.shards),
        "max_tokens": index.max_tokens,
        "num_unread": sum(shard.num_unread for shard in index.shards),
        "unread": unread[:10],
    }
