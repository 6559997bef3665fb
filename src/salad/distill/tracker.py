"""Where the curves go, by name: tensorboard (the default), wandb, trackio, none.

A run that was killed goes on from its last checkpoint and does some steps again. What was logged of them must not stand
beside what is logged now: TensorBoard is told from which step on to forget, W&B keeps what it got first (the steps done
again have the same numbers), trackio keeps both. Names carry their unit, as everywhere: `train/kl_nats`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from salad.errors import RecipeError
from salad.files import write_atomic

PROJECT = "salad"  # what W&B and trackio file runs under


class Tracker(Protocol):
    """Where numbers are logged."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write down some numbers of a step."""

    def close(self) -> None:
        """Write what is left, and let go."""


class Nowhere:
    """Logs nothing."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class TensorBoard:
    """Event files in `folder`, for `tensorboard --logdir RUN`. The config is not kept: it is the run's recipe.yaml."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """What other event files of the folder tell of steps from `first_step` on is forgotten."""
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=first_step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """On the disk when it returns, so that a kill loses nothing that a checkpoint has."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


class WandB:
    """A run on Weights & Biases (key and mode by its environment: WANDB_API_KEY, WANDB_MODE=offline)."""

    def __init__(self, folder: Path, run_name: str, config: Mapping[str, Any]) -> None:
        """Goes on with the run whose id is kept in `folder`; W&B itself refuses steps that it already has."""
        wandb = _library("wandb")
        folder.mkdir(parents=True, exist_ok=True)
        run_id = _kept_id(folder / "wandb_id")
        self.run = wandb.init(
            project=PROJECT, id=run_id, resume="allow", name=run_name, config=dict(config), dir=str(folder)
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Under the training's own step."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """Send what is left."""
        self.run.finish()


class Trackio:
    """A run in trackio's local database, or its Space (TRACKIO_DIR, TRACKIO_SPACE_ID, HF_TOKEN)."""

    def __init__(self, folder: Path, run_name: str, config: Mapping[str, Any]) -> None:
        """Goes on with the run of the name and id kept in `folder`."""
        trackio = _library("trackio")
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{run_name}-{_kept_id(folder / 'trackio_id')}"
        self.run = trackio.init(project=PROJECT, name=name, resume="allow", config=dict(config))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Under the training's own step."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """Send what is left."""
        self.run.finish()


def open_tracker(name: str, folder: Path, run_name: str, config: Mapping[str, Any], first_step: int = 1) -> Tracker:
    """The tracker of that name, keeping its files in `folder`; of a run that is resumed, from `first_step` on.

    Raises:
        RecipeError: no such tracker, or its package is not installed.
    """
    if name == "tensorboard":
        return TensorBoard(folder, first_step)
    if name == "wandb":
        return WandB(folder, run_name, config)
    if name == "trackio":
        return Trackio(folder, run_name, config)
    if name == "none":
        return Nowhere()
    raise RecipeError(f"engine.tracker={name}: no such tracker; there are tensorboard, wandb, trackio and none.")


def require_tracker(name: str) -> None:
    """Make sure, before hours of other work, that a tracker's package is there.

    Raises:
        RecipeError: it is not installed.
    """
    if name in ("wandb", "trackio") and find_spec(name) is None:
        _library(name)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise RecipeError(
            f"engine.tracker={name} needs a package that can't be imported ({error}); "
            f"run 'pip install {name}', or set engine.tracker=tensorboard."
        ) from error


def _kept_id(path: Path) -> str:
    """The id in the file; a new one is written there first."""
    if not path.is_file():
        write_atomic(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8").strip()
