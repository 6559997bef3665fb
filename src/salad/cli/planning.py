"""What a recipe will take: plan."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from salad.cli.options import JsonOption, RecipeArgument, SetOption, app, print_json

WIDTH = 80


@app.command()
def plan(
    recipe: RecipeArgument,
    settings: SetOption = [],  # noqa: B006  (typer reads the default, nobody changes it)
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="How many GPUs.")] = 1,
    gpu_memory: Annotated[float, typer.Option("--gpu-memory", min=0.1, help="GiB of each.")] = 80.0,
    peak_tflops: Annotated[
        float | None, typer.Option("--peak-tflops", min=0.001, help="Dense peak of each in the recipe's dtype [H100].")
    ] = None,
    mfu: Annotated[float, typer.Option("--mfu", min=0.001, max=1.0, help="Model FLOP/s as a share of the peak.")] = 0.4,
    as_json: JsonOption = False,
) -> None:
    """Say what a recipe will take, before it is run."""
    from salad.plan.plan import plan as planned
    from salad.recipe import load_recipe

    loaded = load_recipe(recipe, tuple(settings))
    found = planned(loaded, gpus, gpu_memory, peak_tflops, mfu)
    if as_json:
        return print_json({"recipe": loaded.model_dump(mode="json"), "plan": found})
    print(f"{loaded.name} on {gpus} GPU{'s' if gpus > 1 else ''} of {gpu_memory:g} GiB")
    for line in _lines(found):
        print(line)


def _lines(plan: dict[str, Any]) -> list[str]:
    from salad.plan.table import lines

    return lines(plan, WIDTH)
