"""Training checkpoints: trained weights and optimizer state as safetensors, the rest as JSON.

A checkpoint is written beside its place and renamed into it, so it is whole or not there; its files are named with
their SHA-256 in `state.json` and checked before anything is loaded. Loading never executes code.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from salad.errors import CheckpointError, DataError, MissingFileError
from salad.files import read_json, write_atomic, write_json
from salad.model.speech_lm import SpeechLM

FORMAT = 1
WEIGHTS, OPTIMIZER = "weights.safetensors", "optimizer.safetensors"


def save_checkpoint(
    folder: Path, student: SpeechLM, optimizer: torch.optim.Optimizer, reports: list[dict[str, Any]]
) -> None:
    """Write a checkpoint; an older one of the same name is replaced only once the new one is whole."""
    temporary = folder.parent / f".tmp-{os.getpid()}-{folder.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    weights = {name: tensor.detach().contiguous() for name, tensor in student.trained_state().items()}
    blobs = {WEIGHTS: save(weights), OPTIMIZER: save(_optimizer_tensors(optimizer))}
    for name, blob in blobs.items():
        write_atomic(temporary / name, blob)
    digests = {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()}
    write_json(temporary / "state.json", {"format": FORMAT, "sha256": digests, "reports": reports})
    old = folder.parent / f".old-{folder.name}"
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path, student: SpeechLM, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Put weights and optimizer state in place; returns the reports of the steps so far.

    Raises:
        CheckpointError: incomplete, damaged, of another format, or another model's.
    """
    state, blobs = _read(folder)
    student.load_trained_state(load(blobs[WEIGHTS]), str(folder))
    _restore_optimizer(optimizer, load(blobs[OPTIMIZER]), folder)
    reports: list[dict[str, Any]] = state["reports"]
    return reports


def load_weights(folder: Path, student: SpeechLM) -> None:
    """Put a checkpoint's weights in place, leaving its optimizer state aside; raises like `load_checkpoint`."""
    student.load_trained_state(load(_read(folder)[1][WEIGHTS]), str(folder))


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's optimizer state in place, leaving its weights aside; raises like `load_checkpoint`."""
    _restore_optimizer(optimizer, load(_read(folder)[1][OPTIMIZER]), folder)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    try:
        state = read_json(folder / "state.json")
        blobs = {name: (folder / name).read_bytes() for name in (WEIGHTS, OPTIMIZER)}
    except (MissingFileError, DataError, OSError) as error:
        raise CheckpointError(
            f"{folder} is no whole checkpoint ({error}); delete it to start that part again."
        ) from None
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{folder} has checkpoint format {state.get('format')}, this version reads {FORMAT}.")
    for name, blob in blobs.items():
        if hashlib.sha256(blob).hexdigest() != state["sha256"][name]:
            raise CheckpointError(f"{folder / name} is damaged (SHA-256 differs); delete {folder} to start again.")
    return state, blobs


def settle(folder: Path) -> None:
    """Put back a checkpoint whose replacement was cut off between the two renames."""
    old = folder.parent / f".old-{folder.name}"
    if old.is_dir() and not folder.exists():
        old.rename(folder)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": value.contiguous() for i, entry in state.items() for key, value in entry.items()}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    # A parameter that has had no gradient yet (the adapter, after steps of text alone) has no state.
    shapes = dict(enumerate(p.shape for group in optimizer.param_groups for p in group["params"]))
    if any(entry["exp_avg"].shape != shapes.get(i) for i, entry in state.items()):
        raise CheckpointError(f"{folder}: its optimizer state is for other parameters than this model trains.")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
