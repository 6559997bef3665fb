"""The frozen encoder's features of a prepared folder, computed once and kept beside it in shards.

    features/ENCODER/encoder.json       whose features these are, and how they are kept
    features/ENCODER/shar/              Lhotse Shar: enc.000000.tar with one .npy [num_frames, width] a cut, and
                                        cuts.000000.jsonl.gz, the cuts as they were when encoded
    features/ENCODER/index.npy          where each cut's frames lie (`IndexRow`); the last thing `salad encode` writes
    features/ENCODER/codebooks.npy      float32 [num_codebooks, codebook_size, feature_dim], where codes are kept
    features/ENCODER/rejected.jsonl     the cuts that have no features, with reasons
    features/ENCODER/shards/            what each shard is to hold, and which are done (model/shards.py)

One utterance, wherever it lies, read straight from its shard:

    store = FeatureStore(folder, "kyutai/mimi")
    features_FE = store.load(cut.id)

All of them, shard by shard, in Lhotse's way:

    shar = encoder_folder(folder, "kyutai/mimi") / "shar"
    cuts = CutSet.from_shar(in_dir=shar)        # or fields={"cuts": [...jsonl.gz], "enc": [...tar]}
    for cut in cuts:
        cut.enc.load()        # [num_frames, width]; cut.load_enc() keeps as many frames as the duration rounds to

bfloat16 is not a storage type: NumPy has none, so a .npy of it holds bytes that its readers, Lhotse among them, can't
tell from anything else. float16 takes the same room with three more bits of precision; where features pass its range
(65,504), encoding says so and asks for float32.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from lhotse import MonoCut
from numpy.typing import NDArray

from salad.errors import CheckpointError, MissingFileError
from salad.files import read_json, read_jsonl
from salad.model.encoders.speech_encoder import features_of_codes
from salad.speech.identity import id_hash, sound_hash
from salad.speech.prepared import Rejected

Stored = NDArray[np.float16] | NDArray[np.float32]
"""[num_frames, feature_dim], as they are kept; float32 where codes are."""

_OPEN_SHARDS = 64


class Frames(Protocol):
    """Encoder frames [F, E]: an array, or what reads one when it is sliced."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(F, E)."""

    def __len__(self) -> int: ...

    def __getitem__(self, frames: slice, /) -> NDArray[Any]: ...

    def __array__(self) -> NDArray[Any]: ...


@dataclass(frozen=True, slots=True)
class StoredFrames:
    """The frames [F, E] of an utterance in a feature store; a slice reads what it holds and no more.

    Their number is given only if they are of the sound that the cut has now; else there is a CheckpointError.
    """

    store: FeatureStore
    id: str
    sound: int

    @property
    def shape(self) -> tuple[int, int]:
        """(F, E)."""
        return len(self), self.store.feature_dim

    def __len__(self) -> int:
        return self.store.num_frames(self.id, self.sound)

    def __getitem__(self, frames: slice) -> NDArray[Any]:
        return self.store.load(self.id, frames.start or 0, frames.stop)[:: frames.step]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.store.load(self.id), dtype)


class IndexRow(IntEnum):
    """The rows of `index.npy`, uint64 [4, num_cuts]: a column is a cut, columns are sorted by ID."""

    ID = 0  # hash of the cut's id
    SOUND = 1  # hash of what the cut's audio was read from
    OFFSET = 2  # of the first frame in the shard's tar, in bytes
    PLACE = 3  # shard number << 32 | num_frames


class FeatureStore:
    """The features of a prepared folder by cut id: random access to millions of utterances in flat memory.

    The index is mapped, and a look-up is a binary search in it. A load is one read at a known place of an uncompressed
    tar; nothing is extracted. Shards are read rather than mapped: it adds nothing to resident memory, and a shard cut
    short is an error instead of a crash. Safe to pickle, to fork, and to use from several threads.
    """

    feature_dim: int
    frame_hz: float

    def __init__(self, folder: Path, encoder_name: str) -> None:
        """Opens the features of `folder` that the encoder of that name made.

        Raises:
            MissingFileError: they were not computed, or not to the end.
        """
        self.folder = folder
        self.encoder_name = encoder_name
        self.where = encoder_folder(folder, encoder_name)
        if not (self.where / "index.npy").is_file():
            raise MissingFileError(f"{folder} is not encoded with {encoder_name}; {self._remedy}.")
        mark = read_json(self.where / "encoder.json")
        self.feature_dim = int(mark["feature_dim"])
        self.frame_hz = float(mark["frame_hz"])
        self._dtype = np.dtype(mark["dtype"])
        self._width = int(mark["width"])
        index = np.load(self.where / "index.npy", mmap_mode="r")
        self._ids, self._sounds, self._offsets, self._places = (np.asarray(row) for row in index)
        codebooks = self.where / "codebooks.npy"
        self._codebooks_QCE = np.asarray(np.load(codebooks, mmap_mode="r")) if codebooks.is_file() else None
        self._file = lru_cache(_OPEN_SHARDS)(self._open)

    def __reduce__(self) -> tuple[type[FeatureStore], tuple[Path, str]]:
        return (FeatureStore, (self.folder, self.encoder_name))

    def __len__(self) -> int:
        """The number of cuts that have features."""
        return len(self._ids)

    def __contains__(self, cut_id: str) -> bool:
        return self._find(cut_id) is not None

    def num_frames(self, cut_id: str, sound: int | None = None) -> int:
        """The number of frames of a cut; with its `sound_hash`, only if they are of that sound.

        Raises:
            MissingFileError: it has none.
            CheckpointError: they are of other audio.
        """
        column = self._column(cut_id)
        if sound is not None and int(self._sounds[column]) != sound:
            raise CheckpointError(
                f"{self.where}: the features of {cut_id!r} are of other audio than {self.folder} now names; "
                f"{self._remedy}."
            )
        return int(self._places[column]) & 0xFFFFFFFF

    def load(self, cut_id: str, start: int = 0, stop: int | None = None) -> Stored:
        """The features [num_frames, feature_dim] of a cut, or of its frames from `start` up to `stop`.

        Raises:
            MissingFileError: it has none.
            CheckpointError: its shard was changed or cut short since.
        """
        column = self._column(cut_id)
        place = int(self._places[column])
        shard, num_frames = place >> 32, place & 0xFFFFFFFF
        start, stop, _ = slice(start, stop).indices(num_frames)
        stored = np.empty((max(0, stop - start), self._width), self._dtype)
        frame_bytes = self._width * self._dtype.itemsize
        file = self._file(shard)
        if os.preadv(file.fileno(), [stored.data], int(self._offsets[column]) + start * frame_bytes) != stored.nbytes:
            raise CheckpointError(f"{file.name} ends within the frames of {cut_id!r}; {self._remedy}.")
        if self._codebooks_QCE is not None:
            return features_of_codes(stored, self._codebooks_QCE)
        return stored

    def frames(self, cut_id: str, sound: int) -> StoredFrames:
        """The features of a cut whose `sound_hash` is `sound`, to be read when they are sliced."""
        return StoredFrames(self, cut_id, sound)

    def check(self, cut: MonoCut) -> None:
        """Make sure that the features kept for `cut` are those of its audio.

        Raises:
            MissingFileError: it has none.
            CheckpointError: another file, span or length stood under its id when it was encoded.
        """
        self.num_frames(cut.id, sound_hash(cut, self.folder))

    def rejected(self) -> list[Rejected]:
        """The cuts that could not be encoded, with reasons."""
        return [Rejected(**row) for row in read_jsonl(self.where / "rejected.jsonl")]

    @property
    def _remedy(self) -> str:
        return f"run 'salad encode {self.folder} --encoder {self.encoder_name}'"

    def _find(self, cut_id: str) -> int | None:
        key = np.uint64(id_hash(cut_id))  # of the column's own type: searchsorted would convert the column otherwise
        column = int(np.searchsorted(self._ids, key))
        return column if column < len(self._ids) and self._ids[column] == key else None

    def _column(self, cut_id: str) -> int:
        column = self._find(cut_id)
        if column is None:
            raise MissingFileError(
                f"{self.where} holds no features of {cut_id!r}; see its rejected.jsonl, or {self._remedy}."
            )
        return column

    def _open(self, shard: int) -> FileIO:
        path = self.where / "shar" / f"enc.{shard:06d}.tar"
        try:
            return path.open("rb", buffering=0)
        except FileNotFoundError as error:
            raise CheckpointError(f"{path} is gone; {self._remedy}.") from error


def encoder_folder(folder: Path, encoder_name: str) -> Path:
    """Where the features that an encoder made of a prepared folder lie."""
    return folder / "features" / safe_file_name(encoder_name)


def safe_file_name(name: str) -> str:
    """`name` where it is a harmless file name; else what of it is harmless, and a hash that keeps it apart."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}", name):
        return name
    harmless = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:80].strip("-")
    return f"{harmless}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
