"""Training checkpoints: trained weights and optimizer state as safetensors, the rest as JSON. docs/checkpoints.md.

    FOLDER/step-00000010/weights.safetensors     what is trained, by name; of a sharded model one file a rank,
                                                 weights-00001-of-00008.safetensors, …
    FOLDER/step-00000010/optimizer.safetensors   the optimizer's state: NAME.exp_avg, NAME.exp_avg_sq, NAME.step
    FOLDER/step-00000010/state.json              sizes and SHA-256 of those and of itself, and what the loop remembers
    FOLDER/NAME/                                 one that is kept, such as the one before the decay

A checkpoint is written beside its place, flushed to the disk and renamed into it, so it is whole or not there; what is
damaged later is found by its checksum before anything is loaded. Loading never executes code.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from salad.distill.checkpoint_folder import (
    DamagedError,
    checkpoints,
    newest_checkpoint,
    prune,
    step_name,
    verified,
    write_state,
)
from salad.distill.tensor_files import num_bytes, own_pieces, read_into, stored_tensors, write_pieces
from salad.errors import CheckpointError
from salad.files import new_folder_beside, put_in_place
from salad.model.speech_lm import SpeechLM
from salad.ranks import ALONE, Ranks

__all__ = [
    "load_checkpoint",
    "load_optimizer",
    "load_weights",
    "newest_checkpoint",
    "prune",
    "save_checkpoint",
    "step_name",
]

WEIGHTS, OPTIMIZER = "weights", "optimizer"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
T = TypeVar("T")


def save_checkpoint(
    folder: Path, student: SpeechLM, optimizer: torch.optim.Optimizer, state: dict[str, Any], ranks: Ranks = ALONE
) -> None:
    """Write a checkpoint; one of the same name is replaced only once the new one is whole. Collective.

    Each rank writes and hashes the shards it holds; what all have alike, the main rank.

    Args:
        folder: its place, on a disk that all ranks see.
        student: its trained tensors are written.
        optimizer: of `student`'s parameters.
        state: what else is to be remembered, as JSON; the main rank's counts.
        ranks: all of them write, and all raise if one can't.

    Raises:
        CheckpointError: the disk is full or can't be written; nothing half-written stays, older ones are untouched.
    """
    tensors = {WEIGHTS: student.trained_state(), OPTIMIZER: _named_state(student, optimizer)}
    parts = {part: own_pieces(of_part, ranks.is_main) for part, of_part in tensors.items()}
    sharded = ranks.world > 1 and any(isinstance(tensor, DTensor) for tensor in tensors[WEIGHTS].values())
    number = f"-{ranks.rank + 1:05d}-of-{ranks.world:05d}" if sharded else ""
    names = {part: f"{part}{number}.safetensors" for part, pieces in parts.items() if pieces or ranks.is_main}
    temporary = folder.parent / f".tmp-{ranks.from_main(os.getpid())}-{folder.name}"

    def write() -> dict[str, dict[str, Any]]:
        return {name: write_pieces(temporary / name, parts[part]) for part, name in names.items()}

    def finish() -> None:
        files = {name: mark for of_rank in written for name, mark in of_rank.items()}
        write_state(temporary, files, state)
        _check_sizes(temporary, files)
        put_in_place(temporary, folder)

    needed = sum(map(num_bytes, parts.values()))
    try:
        _together(ranks, folder, needed, lambda: new_folder_beside(folder) if ranks.is_main else None)
        written = _together(ranks, folder, needed, write)
        _together(ranks, folder, needed, lambda: finish() if ranks.is_main else None)
    finally:
        if ranks.is_main:
            shutil.rmtree(temporary, ignore_errors=True)


def load_checkpoint(
    folder: Path, student: SpeechLM, optimizer: torch.optim.Optimizer, ranks: Ranks = ALONE
) -> dict[str, Any]:
    """Put weights and optimizer state in place, sharded as they are here; returns the state that was saved. Collective.

    Raises:
        CheckpointError: incomplete, damaged, of another format, or another model's.
    """
    state: dict[str, Any] = _whole(folder, ranks)["state"]
    _restore_weights(folder, student, ranks)
    _restore_optimizer(folder, student, optimizer, ranks)
    return state


def load_weights(folder: Path, student: SpeechLM, ranks: Ranks = ALONE) -> None:
    """Put a checkpoint's weights in place, leaving its optimizer state aside; raises like `load_checkpoint`."""
    _whole(folder, ranks)
    _restore_weights(folder, student, ranks)


def load_optimizer(folder: Path, student: SpeechLM, optimizer: torch.optim.Optimizer, ranks: Ranks = ALONE) -> None:
    """Put a checkpoint's optimizer state in place, leaving its weights aside; raises like `load_checkpoint`."""
    _whole(folder, ranks)
    _restore_optimizer(folder, student, optimizer, ranks)


# --- writing ----------------------------------------------------------------------------------------------------------


def _together(ranks: Ranks, folder: Path, needed: int, work: Callable[[], T]) -> list[T]:
    """What `work` gives on each rank; a disk that fails one of them stops all, with the same sentence."""
    done: list[T] = []
    problem = ""
    try:
        done.append(work())
    except OSError as error:
        problem = _why(error, folder, needed, ranks)
    except CheckpointError as error:
        problem = str(error)
    found = ranks.gather((done, problem))
    problems = [said for _, said in found if said]
    if problems:
        raise CheckpointError(problems[0])
    return [result for of_rank, _ in found for result in of_rank]


def _why(error: OSError, folder: Path, needed: int, ranks: Ranks) -> str:
    older = [path for path in checkpoints(folder.parent) if path != folder]
    rest = f"nothing half-written was left, and the last checkpoint before it is {older[-1].name if older else 'none'}"
    if error.errno not in FULL:
        return (
            f"the checkpoint {folder} can't be written ({error.strerror or error}); {rest}. Mend that and run the same "
            "command again."
        )
    of_rank = f"rank {ranks.rank}'s part of it takes" if ranks.world > 1 else "it takes"
    try:
        free = f"{shutil.disk_usage(folder.parent).free / 1e6:,.1f} MB are free"
    except OSError:
        free = "how much is free can't be told"
    return (
        f"no room for the checkpoint {folder} ({error.strerror}): {of_rank} {needed / 1e6:,.1f} MB, {free}; {rest}. "
        "Free space and run the same command again."
    )


def _check_sizes(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    for name, mark in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != mark["bytes"]:
            raise CheckpointError(
                f"{path} was written by another rank and is not seen by the main one; all machines must see the run's "
                "folder (--out) on one shared disk."
            )


# --- loading ----------------------------------------------------------------------------------------------------------


def _whole(folder: Path, ranks: Ranks) -> dict[str, Any]:
    try:
        return verified(folder, ranks)
    except DamagedError as error:
        raise CheckpointError(f"{error} Put back a copy of it, or train again from one before it.") from None


# --- tensors by name --------------------------------------------------------------------------------------------------


def _names(student: SpeechLM) -> dict[Tensor, str]:
    """The name of each parameter."""
    student.state_dict()  # FSDP then gives the parameters their sharded form back, the one that the optimizer knows
    return {parameter: name for name, parameter in student.named_parameters()}


def _named_state(student: SpeechLM, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = _names(student)
    return {f"{names[p]}.{key}": value for p, entry in optimizer.state.items() for key, value in entry.items()}


def _restore_weights(folder: Path, student: SpeechLM, ranks: Ranks) -> None:
    own, stored = student.trained_state(), stored_tensors(folder, WEIGHTS)
    missing, foreign = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
    bent = sorted(name for name in own.keys() & stored.keys() if _kind(own[name]) != stored[name])
    if missing or foreign or bent:
        raise CheckpointError(
            f"{folder} does not belong to this model: {len(missing)} tensors missing, {len(foreign)} unknown, "
            f"{len(bent)} of another shape or dtype (e.g. {', '.join((missing + foreign + bent)[:3])}); give the "
            "recipe it was trained with."
        )
    read_into(own, folder, ranks)


def _restore_optimizer(folder: Path, student: SpeechLM, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
    names = _names(student)
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    index = {names[parameter]: number for number, parameter in enumerate(order)}
    weights = stored_tensors(folder, WEIGHTS)
    targets: dict[str, Tensor] = {}
    foreign = [name for name in index if name not in weights or weights[name][0] != tuple(order[index[name]].shape)]
    for name, (shape, dtype) in stored_tensors(folder, OPTIMIZER).items():
        number = index.get(name.rpartition(".")[0])
        if number is None:
            foreign.append(name)
            continue
        like = torch.empty(()) if shape == () else order[number]
        targets[name] = torch.zeros_like(like, dtype=dtype, requires_grad=False)
    if foreign:
        raise CheckpointError(
            f"{folder}: its optimizer state is for other parameters than this model trains (e.g. {min(foreign)}); "
            "give the recipe it was trained with."
        )
    read_into(targets, folder, ranks)
    # A parameter that has had no gradient yet (the adapter, after steps of text alone) has no state.
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in targets.items():
        parameter, _, key = name.rpartition(".")
        state.setdefault(index[parameter], {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _kind(tensor: Tensor) -> tuple[tuple[int, ...], torch.dtype]:
    return tuple(tensor.shape), tensor.dtype
