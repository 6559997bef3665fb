"""Stage I taken over from a finished model (`stage_one.start`): it is not trained, and Stage II goes on from there.

`out`/model holds the weights as the model has them; `out`/checkpoints/pre_decay those from before its learning rate
decayed, where they are with it, and else the same ones again, with an optimizer that remembers nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from salad.card.bill import Bill, data_bill, read_bill
from salad.card.page import write_card
from salad.distill.checkpoint import save_checkpoint
from salad.distill.loop import make_optimizer
from salad.errors import RecipeError
from salad.files import read_json
from salad.model.saved import WEIGHTS_NAME, check_weights, model_folder
from salad.ranks import ALONE, Ranks
from salad.recipe import Recipe
from salad.stage_one import PRE_DECAY
from salad.student import before_decay, new_student, save_model

READ = ("llm", "encoder", "train_llm", "lora", "adapter")
"""Keys of `model` that a start model must share."""


def take_over(recipe: Recipe, encoder_dim: int, encoder_hz: float, out: Path, ranks: Ranks = ALONE) -> None:
    """Write `out`/model and the checkpoint that Stage II goes on from, of the recipe's start model. On all ranks.

    Raises:
        RecipeError: the recipe's `model` is not the start model's.
        CheckpointError: there is no such model, or its weights are damaged.
        AssetError: it is the package's own, and this build comes without.
    """
    name, folder = str(recipe.stage_one.start), start_model(recipe)
    check_weights(folder)
    final = load_file(folder / WEIGHTS_NAME), read_bill(folder)
    student = new_student(recipe, encoder_dim, encoder_hz)
    student.load_trained_state(final[0], str(folder))
    save_model(student, recipe, "stage_one", out / "model", ranks, taken_over(name, final[1]))
    weights, bill = before_decay(folder) or final
    student.load_trained_state(weights, str(folder))
    checkpoint = out / "checkpoints" / PRE_DECAY
    optimizer = make_optimizer(student, recipe.stage_one.optimizer)
    save_checkpoint(checkpoint, student, optimizer, {"taken_over_from": name}, ranks)
    if ranks.is_main:
        write_card(checkpoint, data_bill(recipe, "stage_one_before_decay", taken_over(name, bill)))


def start_model(recipe: Recipe) -> Path:
    """The folder of the recipe's start model, which its `model` fits.

    Raises:
        RecipeError, CheckpointError, AssetError: see `take_over`.
    """
    name = str(recipe.stage_one.start)
    folder = model_folder(Path(name))
    there, here = read_json(folder / "config.json"), recipe.model.model_dump(mode="json")
    keys = [key for key in READ if key != "lora" or there.get("train_llm") == here["train_llm"] == "lora"]
    unlike = [line for key in keys for line in _unlike(f"model.{key}", there.get(key), here[key])]
    if unlike:
        raise RecipeError(
            f"stage_one.start={name} does not fit this recipe: {', '.join(unlike)}; give the recipe the model's own "
            "settings, or start from another model."
        )
    return folder


def taken_over(name: str, bill: Bill) -> list[Bill]:
    """What a start model was trained on, each part with where it comes from and each voice with its own name."""
    voice = bill["recipe"]["voice"]
    asked = voice if isinstance(voice, str) else voice[0]["name"]
    return [
        {"taken_over_from": name}
        | part
        | {"sources": [({"asked": asked} if "voice" in source else {}) | source for source in part["sources"]]}
        for part in bill["training"]
    ]


def _unlike(key: str, there: Any, here: Any) -> Iterator[str]:
    """Where the two differ, key by key; keys that the model's config does not have are not compared."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for name in (name for name in here if name in there):
            yield from _unlike(f"{key}.{name}", there[name], here[name])
    elif there != here:
        yield f"{key} is {there!r} there and {here!r} here"
