"""A folder of training checkpoints: which are whole, which is the newest, which may go.

What is written last in a checkpoint is `state.json`: sizes and SHA-256 of its files and of itself. Whole is what agrees
with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salad.assets import digest_of
from salad.errors import CheckpointError
from salad.files import settle, sweep, write_json
from salad.ranks import ALONE, Ranks

FORMAT = 2
STATE = "state.json"
STEP = re.compile(r"step-(\d{8,})")


class DamagedError(CheckpointError):
    """A checkpoint that was whole once: a file is missing, cut short or changed."""


def step_name(step: int) -> str:
    """The folder of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def checkpoints(folder: Path) -> list[Path]:
    """The `step-*` of a folder, the oldest first, damaged or not."""
    found = [path for path in folder.glob("step-*") if STEP.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def newest_checkpoint(folder: Path, ranks: Ranks = ALONE) -> tuple[Path | None, list[str]]:
    """The newest whole `step-*` in `folder` (None: there is none yet), and a sentence for each newer, damaged one.

    Those are renamed `damaged-step-*`, so that nothing counts them. What killed runs left half-written is deleted, and
    a replacement that was cut off is undone. Collective; one run at a time works in a folder.

    Raises:
        CheckpointError: there are checkpoints and none is whole, or one is of another format.
    """
    if ranks.is_main and folder.is_dir():
        sweep(folder)
        for old in list(folder.glob(".old-*")):
            settle(folder / old.name.removeprefix(".old-"))
    newest: Path | None = None
    damaged: list[tuple[Path, str]] = []
    for path in reversed(ranks.from_main(checkpoints(folder))):
        try:
            verified(path, ranks)
        except DamagedError as error:
            damaged.append((path, str(error)))
            continue
        newest = path
        break
    if newest is None:
        _refuse_the_rest(folder, damaged)
        return None, []
    if ranks.is_main:
        for path, _ in damaged:
            aside = folder / f"damaged-{path.name}"
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
    ranks.barrier()
    return newest, [
        f"{said} Going on from {newest.name}; the damaged one is now called damaged-{path.name}."
        for path, said in damaged
    ]


def _refuse_the_rest(folder: Path, damaged: list[tuple[Path, str]]) -> None:
    if damaged:
        raise CheckpointError(
            f"none of the {len(damaged)} checkpoints in {folder} is whole ({damaged[0][1].rstrip('.')}); put back a "
            f"copy, or delete {folder} to begin that part again."
        )
    if (folder / "latest" / STATE).is_file():
        raise CheckpointError(
            f"{folder / 'latest'} has checkpoint format 1, this version reads {FORMAT}; go on with the version that "
            f"wrote it, or delete {folder} to begin that part again."
        )


def prune(folder: Path, keep: int) -> None:
    """Delete all but the `keep` newest `step-*` of `folder`, and what dead runs left half-written; main rank only.

    Kept ones, which have names of their own, stay.
    """
    for path in checkpoints(folder)[:-keep]:
        # Under this name first: one that is half deleted must not look like one that is damaged.
        shutil.rmtree(path.rename(folder / f".tmp-{os.getpid()}-{path.name}"))
    sweep(folder)


def write_state(folder: Path, files: Mapping[str, Mapping[str, Any]], state: Mapping[str, Any]) -> None:
    """Write `state.json`: sizes and checksums of a checkpoint's files, what the loop remembers, its own checksum."""
    content = json.loads(json.dumps({"format": FORMAT, "files": files, "state": state}))
    write_json(folder / STATE, content | {"sha256": _digest(content)})


def verified(folder: Path, ranks: Ranks = ALONE) -> dict[str, Any]:
    """What `state.json` holds, after every file of the checkpoint was checked, each by one of the ranks.

    Raises:
        DamagedError: incomplete or damaged.
        CheckpointError: of another format, or with files that don't belong to it.
    """
    content, problem, kind = ranks.from_main(_read_state(folder) if ranks.is_main else ({}, "", None))
    if kind is not None:
        raise kind(problem)
    names = sorted(content["files"])[ranks.rank :: ranks.world]
    found = ranks.gather([_damage(folder / name, content["files"][name]) for name in names])
    problems = [said for of_rank in found for said in of_rank if said]
    if problems:
        raise DamagedError(problems[0])
    return content


def _read_state(folder: Path) -> tuple[dict[str, Any], str, type[CheckpointError] | None]:
    """(What `state.json` holds, "", None), or what is wrong with it and the error that it is."""
    path = folder / STATE
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}, f"{folder} is no whole checkpoint: {STATE} is missing.", DamagedError
    except (OSError, ValueError) as error:
        return {}, f"{path} is damaged ({error}).", DamagedError
    if not isinstance(content, dict):
        return {}, f"{path} is damaged (it is no JSON object).", DamagedError
    checksum, written = content.pop("sha256", None), content.get("format")
    whole = checksum == _digest(content)
    if written != FORMAT and (whole or not isinstance(checksum, str)):
        return {}, f"{folder} has checkpoint format {written}, this version reads {FORMAT}; {_OTHER}", CheckpointError
    if not whole:
        return {}, f"{path} is damaged (SHA-256 differs).", DamagedError
    foreign = sorted(path.name for path in folder.glob("*.safetensors") if path.name not in content["files"])
    if foreign:  # it would be read with the others
        return {}, f"{folder} holds {', '.join(foreign)}, which it was not saved with; move that away.", CheckpointError
    return content, "", None


_OTHER = "go on with the version that wrote it, or delete it to begin that part again."


def _damage(path: Path, mark: Mapping[str, Any]) -> str:
    """What is wrong with a file; "" when it is as it was written."""
    try:
        size = path.stat().st_size
        if size != mark["bytes"]:
            return f"{path} is damaged ({size} bytes instead of {mark['bytes']})."
        return "" if digest_of(path) == mark["sha256"] else f"{path} is damaged (SHA-256 differs)."
    except FileNotFoundError:
        return f"{path.parent} is no whole checkpoint: {path.name} is missing."
    except OSError as error:
        return f"{path} can't be read ({error.strerror or error})."


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
