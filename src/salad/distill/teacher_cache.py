"""A teacher that reads each document once: its last hidden states, kept in 2 bytes a number, instead of its layers.

Only what a stage's steps will draw is read, each rank a share. Which documents a shard holds follows from what was
asked for: killed anywhere and run again, on any number of ranks, a cache comes out the same. Another stage or run adds
what is missing yet. A token takes 2 H bytes; docs/teacher.md says when that pays.

Axes: D documents, L their tokens one after another, N matched positions of a batch, H width, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import overload

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from salad.distill.head import Head, head_of
from salad.distill.teacher import Teacher, bytes_of, dtype_name, teacher_for
from salad.distill.teacher_files import TeacherIdentity, load_head
from salad.distill.teacher_shards import (
    Document,
    Shard,
    ids_hash,
    keys_of,
    missing_from,
    parts_of,
    refuse_damaged,
    refuse_without_room,
    whole_shards,
)
from salad.errors import CheckpointError, NonFiniteError
from salad.files import sweep, write_json
from salad.interleave.batch import Batch
from salad.interleave.stream import Stream
from salad.model.speech_lm import SpeechLM
from salad.ranks import ALONE, Ranks
from salad.recipe import Recipe
from salad.speech.identity import id_hash

VERSION = 1
SHARD_BYTES = 1 << 26  # what a kill can cost: some 58,000 tokens of a 135M LLM, 16,000 of a 3B one
Tell = Callable[[int, int, str], None]  # done, total, note


class DrawnDocuments(Sequence[Document]):
    """The documents that the steps of a stream read, each once, in the order they are first read; made when asked for.

    Whatever spans of it are spoken, in any epoch, the teacher reads the same of an item.
    """

    def __init__(self, stream: Stream, steps: int, also: Sequence[Document] = ()) -> None:
        """Those of steps 0 up to `steps`, and behind them `also` (what is measured during training)."""
        self.stream, self.also = stream, also
        starts = np.concatenate([[0], np.cumsum(stream.mix.sizes)])
        draws = map(stream.mix.draw, range(steps * stream.batch_sequences))
        items = np.fromiter((starts[draw.source] + draw.index for draw in draws), np.int64)
        self.positions = np.sort(np.unique(items, return_index=True)[1])

    def __len__(self) -> int:
        return len(self.positions) + len(self.also)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | Sequence[Document]:
        """A document, or a list of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        if index >= len(self.positions):
            return self.also[index - len(self.positions)]
        sequence = self.stream.sequence(int(self.positions[index]))
        return Document(sequence.item, sequence.teacher_ids)


class CachedTeacher:
    """A teacher that has read already: it answers for the documents in its folder, and needs its head alone."""

    def __init__(self, folder: Path, identity: TeacherIdentity, head: Callable[[], Head], ranks: Ranks = ALONE) -> None:
        """Open the whole sets of `folder`; each rank checks the bytes of a share of the shards.

        `head` gives the head whenever it is needed: one of its own (`load_head`), or that of a student whose LLM keeps
        it, wherever that is moved. Hidden states come on its device and in its type.

        Raises:
            MissingFileError: there is no cache in the folder.
            CheckpointError: it is another teacher's, or a shard is damaged.
        """
        identity.check(folder / "teacher.json")
        shards = whole_shards(folder)
        refuse_damaged(shards, ranks)
        self.folder, self.identity, self._head = folder, identity, head
        self._hidden_LH = [shard.hidden() for shard in shards]
        tables = [np.empty((5, 0), np.uint64)]
        for number, shard in enumerate(shards):
            table_4D = shard.table()
            tables.append(np.vstack([table_4D, np.full((1, table_4D.shape[1]), number, np.uint64)]))
        table_5D = np.concatenate(tables, axis=1)
        self._table_5D = table_5D[:, np.argsort(table_5D[0], kind="stable")]

    def __len__(self) -> int:
        """The number of documents it has read."""
        return int(self._table_5D.shape[1])

    @property
    def head(self) -> Head:
        """What turns its hidden states into logits."""
        return self._head()

    @property
    def head_VH(self) -> Tensor:
        """The head's weight [V, H]."""
        return self.head.weight_VH

    def last_hidden(self, ids_L: Tensor, lengths_D: Tensor) -> Tensor:  # noqa: ARG002
        """Nothing: it has no layers to read with.

        Raises:
            CheckpointError: always.
        """
        raise CheckpointError(
            f"the hidden states in {self.folder} are known by their documents (matched_hidden); to read other text "
            "take a teacher with layers, engine.teacher=auto or separate."
        )

    def matched_hidden(self, batch: Batch) -> Tensor:
        """Last hidden states [N, H] at a batch's matched positions, as they were rounded.

        Raises:
            CheckpointError: a document is not in the cache, or was read as other tokens.
        """
        lengths = batch.teacher_lengths_D.tolist()
        ids = batch.teacher_ids_L.cpu().split(lengths)
        places = [self._place(item, own.numpy()) for item, own in zip(batch.items, ids, strict=True)]
        first_D, shard_D = torch.tensor(places, dtype=torch.int64).reshape(-1, 2).unbind(1)
        starts_D = torch.tensor([0, *lengths]).cumsum(0)[:-1]
        documents_N = batch.documents_N.cpu()
        rows_N = batch.teacher_positions_N.cpu() + (first_D - starts_D)[documents_N]
        shards_N = shard_D[documents_N]
        hidden_NH = torch.empty(len(rows_N), self.head_VH.shape[1], dtype=self.identity.kept)
        for shard in shards_N.unique().tolist():
            own_N = shards_N == shard
            hidden_NH[own_N] = self._hidden_LH[shard][rows_N[own_N]]
        return hidden_NH.to(self.head_VH.device).to(self.head_VH.dtype)

    def fingerprint(self) -> str:
        """SHA-256 over whose hidden states it has and the head they are read with."""
        digest = hashlib.sha256(json.dumps(asdict(self.identity)).encode())
        digest.update(bytes_of(self.head_VH))
        return digest.hexdigest()

    def _place(self, item: str, ids: NDArray[np.int64]) -> tuple[int, int]:
        """(first row, shard) of a document."""
        own, tokens = id_hash(item), ids_hash(ids)
        names = self._table_5D[0]
        first = at = int(names.searchsorted(np.uint64(own)))
        while at < len(names) and names[at] == own:
            if self._table_5D[1, at] == tokens:
                return int(self._table_5D[2, at]), int(self._table_5D[4, at])
            at += 1
        problem = "was read as other tokens" if at > first else "is not in it"
        raise CheckpointError(
            f"the cache of the teacher's hidden states in {self.folder} can't answer: document {item!r} {problem}. "
            "Start the stage again, which reads what is missing; or take engine.teacher=auto."
        )


def training_teacher(
    student: SpeechLM,
    recipe: Recipe,
    stream: Stream,
    steps: int,
    folder: Path,
    tell: Tell | None = None,
    ranks: Ranks = ALONE,
    also: Sequence[Document] = (),
) -> Teacher:
    """The teacher of a stage, as `engine.teacher` has it, on the rank's device. Call it before the student is sharded.

    For `cached`, what the stage's steps (and `also`) read and the cache in `folder` does not hold is read first, each
    rank a share; a student that has to read it is moved to the rank's device.

    Raises:
        CheckpointError: `folder` is another teacher's, or damaged; the student's LLM is not the one it is named after.
        RecipeError: the disk has no room for the cache.
        NonFiniteError: a hidden state is not a number.
    """
    kind = recipe.engine.teacher
    if kind != "cached":
        return teacher_for(student, kind, ranks.device)
    llm, dtype = student.config.llm, dtype_name(student)
    identity = TeacherIdentity.of(llm, dtype, ranks)

    def reader() -> Teacher:
        made = teacher_for(student.to(ranks.device))  # type: ignore[arg-type]  # transformers' wrapper of .to
        if not torch.equal(made.head_VH.cpu(), load_head(llm, dtype).weight_VH):
            raise CheckpointError(f"the LLM in memory is not {llm!r} as its files are now; start the run anew.")
        return made

    documents = DrawnDocuments(stream, steps, also)
    cache_hidden(reader, documents, folder, identity, stream.batch_positions, tell, ranks)
    if student.config.train_llm != "full":  # the student keeps the head as it was
        return CachedTeacher(folder, identity, lambda: head_of(student.language_model).detached(), ranks)
    head = load_head(llm, dtype, ranks.device)
    return CachedTeacher(folder, identity, lambda: head, ranks)


def cache_hidden(
    teacher: Callable[[], Teacher],
    documents: Sequence[Document],
    folder: Path,
    identity: TeacherIdentity,
    positions: int = 2048,
    tell: Tell | None = None,
    ranks: Ranks = ALONE,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Have the hidden states of all `documents` in `folder`: what it does not hold is read, each rank a share.

    Args:
        teacher: makes the one that reads; called if anything is missing.
        documents: asked for twice: to see what is missing, and to read it.
        folder: as teacher_shards.py has it. Other runs that write to it wait.
        identity: the teacher's.
        positions: that a forward pass takes.
        tell: told how many shards of a rank's share are done.
        ranks: each reads a share of the shards.
        shard_bytes: hidden states in a shard.

    Raises:
        CheckpointError: the folder is another teacher's.
        RecipeError: the disk has no room.
        NonFiniteError: a hidden state is not a number.
    """
    if ranks.is_main:
        identity.claim(folder / "teacher.json")
    keys_3D = keys_of(documents, ranks)
    with FileLock(folder / ".lock") if ranks.is_main else nullcontext():
        missing = ranks.from_main(missing_from(folder, keys_3D) if ranks.is_main else np.empty(0, np.int64))
        if not len(missing):
            return
        reader, keys_3D = teacher(), keys_3D[:, missing]
        data = hashlib.sha256(json.dumps([VERSION, shard_bytes]).encode() + keys_3D.tobytes()).hexdigest()
        place, lengths_D = folder / data[:16], keys_3D[2].astype(np.int64)
        token_bytes = identity.kept.itemsize * reader.head_VH.shape[1]
        parts = list(parts_of(lengths_D, shard_bytes // token_bytes))
        todo = ranks.from_main([number for number in range(len(parts)) if not Shard(place, number).there])
        if ranks.is_main:
            refuse_without_room(folder, int(sum(lengths_D[parts[number]].sum() for number in todo)), token_bytes)
            place.mkdir(exist_ok=True)
            sweep(place)
        ranks.barrier()
        own = todo[ranks.rank :: ranks.world]
        for done, number in enumerate(own):
            if tell:
                tell(done, len(own), f"the teacher reads {lengths_D.sum():,} tokens, once")
            texts = [documents[int(i)] for i in missing[parts[number]]]
            hidden_LH = _read(reader, texts, positions, identity.kept)
            Shard(place, number).write(hidden_LH, keys_3D[:, parts[number]])
        ranks.barrier()
        if ranks.is_main:
            held = {"shards": len(parts), "documents": len(missing), "tokens": int(lengths_D.sum()), "data": data}
            write_json(place / "set.json", held)
    ranks.barrier()


def _read(teacher: Teacher, documents: Sequence[Document], positions: int, dtype: torch.dtype) -> Tensor:
    """Last hidden states [L, H] of the documents, as they are kept."""
    lengths_D = np.array([len(document.ids) for document in documents])
    kept: list[Tensor] = []
    for part in parts_of(lengths_D, positions):
        own = documents[part.start : part.stop]
        ids_L = torch.from_numpy(np.fromiter(chain.from_iterable(d.ids for d in own), np.int64))
        hidden_LH = teacher.last_hidden(ids_L, torch.from_numpy(lengths_D[part])).to(dtype)
        if not bool(torch.isfinite(hidden_LH).all()):
            raise NonFiniteError(
                f"the teacher's hidden states of {own[0].id!r}, or of the {len(own) - 1} documents read with it, are "
                f"not finite in {dtype}; set engine.teacher=auto, or model.dtype=bfloat16, and look at the texts."
            )
        kept.append(hidden_LH.cpu())
    return torch.cat(kept)
