"""Tensors, whole or sharded over ranks, in safetensors files that any number of ranks can read.

Each rank writes one file of the pieces it holds; the header says where in its tensor each piece begins. That is the
layout of torch.distributed.checkpoint's `HuggingFaceStorageWriter(save_distributed=True)`, and its reader reads them.
They are written here because that writer builds a whole file in memory, twice, and leaves no checksum; here it is
one tensor at a time, hashed as it goes to the disk. Nothing is pickled or unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import DTensor

from salad.errors import CheckpointError
from salad.ranks import ALONE, Ranks

SHARDING = "DCP_SHARDING_INFO"  # {name: {"saved_offsets": [where the piece begins, for each axis]}}
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
Pieces = Mapping[str, tuple[Tensor, tuple[int, ...]]]  # name -> (this rank's part, where in the tensor it begins)


def own_pieces(tensors: Mapping[str, Tensor], is_main: bool) -> Pieces:
    """What this rank writes.

    A tensor that every rank has whole is the main rank's to write; of a sharded one each rank writes its shard, and of
    shards that several hold (replicated groups of shards) the first of them.
    """
    found: dict[str, tuple[Tensor, tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            if is_main:
                found[name] = tensor.detach(), (0,) * tensor.dim()
        elif _is_first_holder(tensor) and (local := tensor.to_local().detach()).numel():
            (chunk,) = tensor.__create_chunk_list__()  # what torch.distributed.checkpoint asks it for
            found[name] = local, tuple(chunk.offsets)
    return found


def _is_first_holder(tensor: DTensor) -> bool:
    where = tensor.device_mesh.get_coordinate()
    return where is not None and all(
        place == 0 for place, placement in zip(where, tensor.placements, strict=True) if placement.is_replicate()
    )


def num_bytes(pieces: Pieces) -> int:
    """Bytes that `write_pieces` will write, but for the header."""
    return sum(local.numel() * local.element_size() for local, _ in pieces.values())


def write_pieces(path: Path, pieces: Pieces) -> dict[str, Any]:
    """Write a safetensors file, one tensor in host memory at a time, and flush it to the disk.

    Returns {"bytes": its size, "sha256": of what was meant to be written}.

    Raises:
        OSError: the disk takes no more.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for block in _blocks(pieces):
            digest.update(block)
            size += file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def _blocks(pieces: Pieces) -> Iterator[Any]:
    """A safetensors file: the header's length in 8 bytes, the header as JSON, then the numbers without gaps."""
    # The widest first, so that each begins at a multiple of its element's size.
    order = sorted(pieces, key=lambda name: (-pieces[name][0].element_size(), name))
    sharding = {name: {"saved_offsets": list(pieces[name][1])} for name in order}
    header: dict[str, Any] = {"__metadata__": {"format": "pt", SHARDING: json.dumps(sharding)}}
    end = 0
    for name in order:
        local, _ = pieces[name]
        begin, end = end, end + local.numel() * local.element_size()
        header[name] = {"dtype": DTYPES[local.dtype], "shape": list(local.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        yield pieces[name][0].cpu().contiguous().flatten().view(torch.uint8).numpy().data


def stored_tensors(folder: Path, part: str) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype, by name, of what is in the files `part`*.safetensors of a folder; only headers are read.

    Raises:
        CheckpointError: the pieces of a tensor are not the whole of it.
    """
    found = HuggingFaceStorageReader(str(folder)).read_metadata()
    names = {index.fqn for index, at in found.storage_data.items() if Path(at.relative_path).name.startswith(part)}
    kinds: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    for name, entry in found.state_dict_metadata.items():
        if name not in names or not isinstance(entry, TensorStorageMetadata):
            continue
        there, whole = sum(chunk.sizes.numel() for chunk in entry.chunks), entry.size.numel()
        if there != whole:
            raise CheckpointError(f"{name} is not whole in {folder}: {there} of {whole} numbers; use another one.")
        kinds[name] = tuple(entry.size), entry.properties.dtype
    return kinds


def read_into(tensors: dict[str, Tensor], folder: Path, ranks: Ranks = ALONE) -> None:
    """Fill tensors, or this rank's shards of them, from the stored ones of the same names and shapes. Collective."""
    reader = HuggingFaceStorageReader(str(folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # one process is meant
        load(tensors, storage_reader=reader, process_group=ranks.control, no_dist=ranks.world == 1)
