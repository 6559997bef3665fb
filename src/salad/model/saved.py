"""A saved model's folder: how it is written whole, how its weights are known, and what loading it can be asked for.

model.safetensors              what was trained
pre_decay.safetensors          the same before Stage I's learning rate decayed, where it was exported with it; Stage II
pre_decay_data_bill.json       starts there (docs/take-home.md)
hashes.json                    {"model.safetensors": SHA-256}, written last; a folder without it was saved by other
                               means and is loaded as it is
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from salad import take_home
from salad.assets import digest_of
from salad.errors import CheckpointError
from salad.files import flush, new_folder_beside, put_in_place, read_json, write_json
from salad.model.llm import DTYPES

WEIGHTS_NAME = "model.safetensors"
PRE_DECAY_NAME = "pre_decay.safetensors"
PRE_DECAY_BILL_NAME = "pre_decay_data_bill.json"
HASHES_NAME = "hashes.json"
ONE_FILE = 2**60  # bytes: weights are never cut into shards, which their hash and their loading would have to follow
# What transformers' Auto classes and pipelines hand over besides what the user asked for.
_WITHOUT_MEANING = {"_commit_hash", "_from_auto", "adapter_kwargs", "local_files_only", "low_cpu_mem_usage", "token"}
_WITHOUT_MEANING |= {"trust_remote_code", "use_safetensors", "weights_only"}


@contextmanager
def saving(folder: Path) -> Iterator[Path]:
    """A folder to fill beside `folder`; its files are moved there, with their hash, once they are all on the disk.

    What else lies in `folder` stays. One that is there already is without a hash for the moment in which its weights
    are replaced, never with a wrong one.

    Raises:
        CheckpointError: the disk takes no more; what was there is as it was.
    """
    fresh = new_folder_beside(folder)
    try:
        yield fresh
        write_json(fresh / HASHES_NAME, {WEIGHTS_NAME: digest_of(fresh / WEIGHTS_NAME)})
        if folder.is_dir():
            _move_into(folder, fresh)
        else:
            put_in_place(fresh, folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} could not be written ({error}); free space and save again.") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _move_into(folder: Path, fresh: Path) -> None:
    files = sorted(fresh.iterdir(), key=lambda path: path.name == HASHES_NAME)
    for path in files:
        flush(path)
    (folder / HASHES_NAME).unlink(missing_ok=True)
    flush(folder)
    for path in files:
        path.replace(folder / path.name)
    flush(folder)


def model_folder(path: Path) -> Path:
    """A model folder, the last model of a run folder (Stage III, II, I), or the model that comes with salad.

    Raises:
        CheckpointError: none of these.
        AssetError: this build comes without a model, and it is named.
    """
    if str(path) == take_home.NAME and not path.exists():
        return take_home.folder()
    for candidate in (path, *(path / stage / "model" for stage in ("stage_three", "stage_two", "stage_one"))):
        if (candidate / "salad.json").is_file():
            return candidate
    if not path.exists():
        raise CheckpointError(f"there is no model at {path}; name a model's folder, a run, or {take_home.NAME}.")
    raise CheckpointError(f"{path} is neither a speech LLM's folder nor a run that has come to a model.")


def before_decay_place(model: Path) -> Path | None:
    """Where a model's weights from before Stage I's learning rate decayed lie; None where there are none.

    A file beside an exported model, or the folder of the checkpoint that its run has kept.
    """
    if (model / PRE_DECAY_NAME).is_file():
        return model / PRE_DECAY_NAME
    home = model.resolve().parent
    for stage in (home, home.parent / "stage_one"):
        checkpoint = stage / "checkpoints" / Path(PRE_DECAY_NAME).stem
        if (checkpoint / "state.json").is_file():
            return checkpoint
    return None


def hashes_of(folder: Path) -> dict[str, str]:
    """File -> SHA-256 of the weights that lie in a folder."""
    return {name: digest_of(folder / name) for name in (WEIGHTS_NAME, PRE_DECAY_NAME) if (folder / name).is_file()}


def check_weights(folder: Path, name: str = WEIGHTS_NAME) -> None:
    """Hold the weights in a folder against the hash that was saved with them, if one was.

    Raises:
        CheckpointError: they are not what was saved.
    """
    if not (folder / HASHES_NAME).is_file():
        return
    expected = str(read_json(folder / HASHES_NAME).get(name))
    found = digest_of(folder / name)
    if found != expected:
        raise CheckpointError(
            f"{folder / name} is damaged: its SHA-256 is {found[:12]}…, that of what was saved "
            f"{expected[:12]}…; copy or train it again (or delete {HASHES_NAME} if you changed the weights yourself)."
        )


def dtype_of(asked: str | torch.dtype | None) -> torch.dtype | None:
    """The type that `from_pretrained` was asked for; None, and "auto", for that of the saved weights.

    Raises:
        CheckpointError: not one of `DTYPES`.
    """
    if asked is None or asked == "auto":
        return None
    name = str(asked).removeprefix("torch.")
    if name not in DTYPES:
        raise CheckpointError(f"dtype={asked}: it is loaded in {', '.join(DTYPES)}, or auto (as it is saved).")
    return DTYPES[name]


def device_of(device_map: Any) -> torch.device:
    """The one device that transformers' `device_map` names: "auto", "cpu", "cuda", "cuda:1", a number, or {"": one}.

    Raises:
        CheckpointError: it names several, or one that is not there.
    """
    asked = device_map[""] if isinstance(device_map, Mapping) and list(device_map) == [""] else device_map
    if asked is None:
        return torch.device("cpu")
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except (RuntimeError, TypeError):
        raise CheckpointError(
            f"device_map={device_map}: a speech LLM is put on one device: auto, cpu, cuda, or cuda:NUMBER."
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(f"device_map={device_map}: torch finds {torch.cuda.device_count()} GPUs here; give cpu.")
    return device


def refuse_others(options: Mapping[str, Any], folder: Path, revision: str | None) -> None:
    """Refuse what `from_pretrained` was asked for and would not do.

    Raises:
        CheckpointError: an option is not known, or `folder` is of another revision.
    """
    unknown = sorted(name for name, value in options.items() if value and name not in _WITHOUT_MEANING)
    if unknown:
        raise CheckpointError(
            f"a speech LLM is not loaded with {', '.join(unknown)}; it takes config, dtype, device_map, and keys of "
            "its configuration."
        )
    if revision not in (None, "main") and folder.parent.name == "snapshots" and folder.name != str(revision):
        raise CheckpointError(
            f"revision={revision}: the hub's cache gave {folder.name}; download that revision and give its folder."
        )
