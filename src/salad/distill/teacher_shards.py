"""The files of a cache of hidden states: sets of documents, each in shards that are whole or not there.

    FOLDER/teacher.json             whose they are: a `TeacherIdentity`
    FOLDER/SET/                     some documents; SET is a hash over their ids and token ids
    FOLDER/SET/000000.safetensors   hidden_LH [L, H], the documents one after another; documents_4D int64: hash
                                    of each one's id and of its token ids, its first row, its number of rows
    FOLDER/SET/000000.json          size and SHA-256 of the shard, written after it: a shard without it is not there
    FOLDER/SET/set.json             what the set holds, written last: a set without it is not whole, and not read

Axes: D documents, L their tokens one after another, H width.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from salad.errors import CheckpointError, RecipeError
from salad.files import read_json, write_atomic, write_json
from salad.ranks import Ranks
from salad.speech.identity import id_hash


@dataclass(frozen=True)
class Document:
    """What the teacher reads of one item: the `teacher_ids` of its sequence."""

    id: str
    ids: Sequence[int]


@dataclass(frozen=True)
class Shard:
    """One shard of the set in the folder `place`."""

    place: Path
    number: int

    @property
    def data(self) -> Path:
        """The hidden states, and whose they are."""
        return self.place / f"{self.number:06d}.safetensors"

    @property
    def note(self) -> Path:
        """Size and SHA-256 of `data`."""
        return self.place / f"{self.number:06d}.json"

    @property
    def there(self) -> bool:
        """Whether it was written to its end."""
        return self.note.is_file() and self.data.is_file()

    def is_sound(self) -> bool:
        """Whether its bytes are those that were written; reads them all."""
        note = read_json(self.note)
        if self.data.stat().st_size != note["bytes"]:
            return False
        with self.data.open("rb") as file:
            return bool(hashlib.file_digest(file, "sha256").hexdigest() == note["sha256"])

    def table(self) -> NDArray[np.uint64]:
        """[4, D]: hash of each document's id, hash of its token ids, its first row, its number of rows."""
        with safe_open(self.data, "np") as file:
            found: NDArray[np.int64] = file.get_tensor("documents_4D")
        return found.view(np.uint64)

    def hidden(self) -> Tensor:
        """Hidden states [L, H], mapped: a row is read when it is indexed."""
        with safe_open(self.data, "pt") as file:
            found: Tensor = file.get_tensor("hidden_LH")
        return found

    def write(self, hidden_LH: Tensor, keys_3D: NDArray[np.uint64]) -> None:
        """Write it as a whole; `keys_3D` are those of its documents."""
        lengths_D = keys_3D[2]
        table_4D = np.stack([keys_3D[0], keys_3D[1], np.cumsum(lengths_D) - lengths_D, lengths_D]).view(np.int64)
        content = save({"hidden_LH": hidden_LH, "documents_4D": torch.from_numpy(table_4D)})
        write_atomic(self.data, content)
        write_json(self.note, {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})


def shards_of(place: Path) -> list[Shard]:
    """The shards of a set."""
    return [Shard(place, number) for number in range(read_json(place / "set.json")["shards"])]


def whole_shards(folder: Path) -> list[Shard]:
    """The shards of all whole sets of a cache."""
    sets = [shards_of(path.parent) for path in sorted(folder.glob("*/set.json"))]
    return [shard for shards in sets if all(shard.there for shard in shards) for shard in shards]


def refuse_damaged(shards: Sequence[Shard], ranks: Ranks) -> None:
    """Compare the bytes of shards with their SHA-256, each rank a share.

    Raises:
        CheckpointError: some are damaged.
    """
    own = [str(shard.data) for shard in shards[ranks.rank :: ranks.world] if not shard.is_sound()]
    damaged = sorted(chain.from_iterable(ranks.gather(own)))
    if damaged:
        raise CheckpointError(
            f"{len(damaged)} shards of the teacher's hidden states are damaged, the first is {damaged[0]}; delete them "
            "and start the stage again, which makes them anew."
        )


def refuse_without_room(place: Path, num_tokens: int, token_bytes: int) -> None:
    """Make sure that the disk has room for so many tokens.

    Raises:
        RecipeError: it has not.
    """
    needed, free = num_tokens * token_bytes, shutil.disk_usage(place).free
    if needed > free:
        raise RecipeError(
            f"engine.teacher=cached needs {needed / 1e9:,.1f} GB for the hidden states of {num_tokens:,} tokens, and "
            f"the disk of {place} has {free / 1e9:,.1f} GB free; make room, or take engine.teacher=auto."
        )


def keys_of(documents: Sequence[Document], ranks: Ranks) -> NDArray[np.uint64]:
    """[3, D]: hash of each document's id, hash of its token ids, their number. Each rank finds out a share."""
    own = map(documents.__getitem__, range(ranks.rank, len(documents), ranks.world))
    rows = [(id_hash(d.id), ids_hash(np.asarray(d.ids, np.int64)), len(d.ids)) for d in own]
    keys_3D = np.empty((3, len(documents)), np.uint64)
    for rank, part in enumerate(ranks.gather(np.array(rows, np.uint64).reshape(-1, 3).T)):
        keys_3D[:, rank :: ranks.world] = part
    return keys_3D


def ids_hash(ids: NDArray[np.int64]) -> int:
    """64 bits of a document's token ids."""
    return int.from_bytes(hashlib.blake2b(ids.astype("<i8").tobytes(), digest_size=8).digest(), "little")


def missing_from(folder: Path, keys_3D: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The numbers of the documents that no whole set of a cache holds, each once, ascending."""
    held = [np.empty((2, 0), np.uint64), *(shard.table()[:2] for shard in whole_shards(folder))]
    num_held = sum(table.shape[1] for table in held)
    first = np.unique(np.concatenate([*held, keys_3D[:2]], axis=1), axis=1, return_index=True)[1]
    numbers: NDArray[np.int64] = np.sort(first[first >= num_held]) - num_held
    return numbers


def parts_of(lengths_D: NDArray[np.int64], limit: int) -> Iterator[range]:
    """Documents after one another, of at most `limit` tokens together; a longer one by itself."""
    ends = np.cumsum(lengths_D)
    start = before = 0
    while start < len(ends):
        stop = max(start + 1, int(ends.searchsorted(before + limit, side="right")))
        yield range(start, stop)
        start, before = stop, int(ends[stop - 1])
