"""Which cuts go into which shard of features: dealt in the folder's order, once, and the same for every process.

The plan is made under a lock and never shuffled, so any number of processes agree on it. It grows as the folder does; a
shard is planned anew only when the audio of one of its cuts is another than it was made of.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from lhotse import MonoCut
from numpy.typing import NDArray

from salad.errors import DataError, MissingFileError
from salad.files import write_atomic
from salad.model.shards import Shard, locked, npy, planned, sweep
from salad.speech.identity import id_hash, sound_hash
from salad.speech.prepared import CUTS_NAME

CUTS_PER_SHARD = 512
SECONDS_PER_SHARD = 3600.0  # so that a shard of the widest features (1,280 at 50 Hz, float16) takes 460 MB of memory


def plan(folder: Path, where: Path, readable: Callable[[MonoCut], bool]) -> tuple[list[Shard], NDArray[np.uint64]]:
    """Put every cut of the prepared `folder` that is in no shard yet into one.

    A shard that holds a cut whose audio is no longer the one it was made of, or none of the folder's cuts, is dropped,
    and its cuts are planned anew; one that lacks a cut whose audio could not be read, and now can, is to be done again.

    Args:
        folder: a prepared folder; its cuts are read line by line.
        where: the encoder's folder in it.
        readable: whether a cut's audio can be read.

    Returns:
        All shards, and the `id_hash` [num_cuts] of the folder's cuts.

    Raises:
        MissingFileError: the folder was never prepared.
        DataError: two cuts share an id.
    """
    with locked(where / "shards" / "plan.lock"):
        sweep(where / "shards", "*.cuts.jsonl.gz", "*.rows.npy")
        wanted = _wanted(folder)
        _drop_changed(planned(where), wanted)
        for shard in planned(where):
            done = shard.done
            unreadable = {row["id"] for row in done["rejected"] if row["unreadable"]} if done else set()
            if unreadable and any(cut.id in unreadable and readable(cut) for cut in shard.cuts()):
                shard.undo()
        there = np.concatenate([np.empty(0, np.uint64), *(shard.rows()[0] for shard in planned(where))])
        _deal(folder, where, ~np.isin(wanted[0], there))
        return planned(where), wanted[0]


def _lines(folder: Path) -> Iterator[str]:
    path = folder / CUTS_NAME
    if not path.is_file():
        raise MissingFileError(f"{folder} holds no {CUTS_NAME}; make it with 'salad prepare … --out {folder}'.")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from lines


def _wanted(folder: Path) -> NDArray[np.uint64]:
    """[2, num_cuts]: id and sound of every cut of the folder, in order."""
    hashes = (
        value for cut in map(json.loads, _lines(folder)) for value in (id_hash(cut["id"]), sound_hash(cut, folder))
    )
    wanted = np.fromiter(hashes, np.uint64).reshape(-1, 2).T
    ids, counts = np.unique(wanted[0], return_counts=True)
    if (counts > 1).any():
        twice = int(ids[counts > 1][0])
        names = [cut["id"] for cut in map(json.loads, _lines(folder)) if id_hash(cut["id"]) == twice]
        raise DataError(f"{folder}: the ids {names[0]!r} and {names[1]!r} can't be told apart; rename one of the cuts.")
    return wanted


def _drop_changed(shards: list[Shard], wanted: NDArray[np.uint64]) -> None:
    order = np.argsort(wanted[0])
    ids, sounds = wanted[0][order], wanted[1][order]
    for shard in shards:
        rows = shard.rows()
        column = np.searchsorted(ids, rows[0]).clip(max=len(ids) - 1)
        there = ids[column] == rows[0] if len(ids) else np.zeros(rows.shape[1], bool)
        if not there.any() or (sounds[column] != rows[1])[there].any():
            shard.drop()


def _deal(folder: Path, where: Path, chosen: NDArray[np.bool_]) -> None:
    """Plan new shards of the chosen cuts, in the folder's order."""
    if not chosen.any():
        return
    number = max((shard.number for shard in planned(where)), default=-1) + 1
    lines: list[str] = []
    rows: list[tuple[int, int]] = []
    seconds = 0.0
    for line, is_chosen in zip(_lines(folder), chosen, strict=True):
        if is_chosen:
            cut = json.loads(line)
            if lines and (len(lines) == CUTS_PER_SHARD or seconds + cut["duration"] > SECONDS_PER_SHARD):
                _write_plan(Shard(where, number), lines, rows)
                number, lines, rows, seconds = number + 1, [], [], 0.0
            lines.append(line)
            rows.append((id_hash(cut["id"]), sound_hash(cut, folder)))
            seconds += cut["duration"]
    _write_plan(Shard(where, number), lines, rows)


def _write_plan(shard: Shard, lines: list[str], rows: list[tuple[int, int]]) -> None:
    write_atomic(shard.part("cuts.jsonl.gz"), gzip.compress("".join(lines).encode(), mtime=0))
    write_atomic(shard.part("rows.npy"), npy(np.array(rows, dtype=np.uint64).T))
