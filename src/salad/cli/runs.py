"""A whole run: run, steps, report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from salad.cli.options import (
    JsonOption,
    RecipeArgument,
    RunOutOption,
    SetOption,
    app,
    is_main_process,
    print_json,
    quiet,
    run_folder,
)
from salad.errors import MissingFileError, RecipeError


@app.command()
def run(
    recipe: RecipeArgument,
    settings: SetOption = [],  # noqa: B006  (typer reads the default, nobody changes it)
    out: RunOutOption = None,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="STEP", help="Do this step alone, again; what reads it is then out of date."),
    ] = None,
) -> None:
    """Do all steps of a recipe in order; goes on where an interrupted run stopped.

    Started by torchrun, the stages train on all its processes (docs/multi-gpu.md).
    """
    from salad.display import RunDisplay
    from salad.recipe import load_recipe

    loaded = load_recipe(recipe, tuple(settings))
    display = RunDisplay(loaded.name)
    if is_main_process():
        display.introduce(recipe)
    quiet()
    from salad.deviations import deviations
    from salad.distill.tracker import require_tracker
    from salad.plan.disk import run_forecast
    from salad.ranks import started_ranks
    from salad.run import Run, execute
    from salad.steps import steps_of
    from salad.taking_over import start_model

    require_tracker(loaded.engine.tracker)
    folder = run_folder(loaded.name, out)
    if loaded.stage_one.start is not None and Run(loaded, folder).mark("stage_one").done() is None:
        start_model(loaded)  # refused now, and not after all that comes before Stage I
    steps = steps_of(loaded)
    with started_ranks(loaded.engine.device) as ranks:
        run = Run(loaded, folder, ranks)
        if not ranks.is_main:  # it works, and shows nothing
            return execute(run, steps, only, display.announce, display.finished)
        alone = lonely(loaded.engine.parallel) if ranks.world == 1 else None
        display.engine(ranks.sentence(loaded.engine.parallel), alone or crowded(loaded.threads))
        display.deviations(deviations(loaded))
        if (room := run_forecast(loaded, folder)) is not None:
            room.require("give another disk with --out")
            display.room(room.sentence())
        with display:
            execute(run, steps, only, display.announce, display.finished)
    if (folder / "results.json").is_file():
        display.conclude(folder)


def lonely(parallel: str) -> str | None:
    """A sentence, if the recipe shards over processes and there is one."""
    if parallel != "fsdp":
        return None
    return (
        "engine.parallel=fsdp shards over processes, and this is one: start it with torchrun, or all of it is on "
        "one device (docs/multi-gpu.md)."
    )


def crowded(threads: int) -> str | None:
    """A sentence, if the processes of this machine have more threads than it has cores."""
    processes, cores = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), len(os.sched_getaffinity(0))
    if processes == 1 or threads * processes <= cores:
        return None
    return (
        f"{processes} processes of {threads} threads each hold each other up on {cores} cores; "
        f"--set threads={max(1, cores // processes)} would not."
    )


@app.command()
def steps(
    recipe: RecipeArgument,
    settings: SetOption = [],  # noqa: B006
    out: RunOutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the steps of a recipe, what each is for, and how far its run is."""
    from salad.recipe import load_recipe
    from salad.run import Run, states
    from salad.steps import steps_of

    loaded = load_recipe(recipe, tuple(settings))
    found = states(Run(loaded, run_folder(loaded.name, out)), steps_of(loaded))
    rows = [
        {"step": s.step.name, "state": s.state, "wall_s": s.wall_s, "purpose": s.step.purpose, "reason": s.reason}
        for s in found
    ]
    if as_json:
        return print_json(rows)
    for row in rows:
        seconds = "" if row["wall_s"] is None else f"{row['wall_s']:.0f} s"
        print(f"{row['step']:<18} {row['state']:<8} {seconds:>6}  {row['purpose']}")
        if row["reason"]:
            print(f"{'':<35} {row['reason']}")


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, e.g. runs/demo, or what 'salad measure' wrote.")
    ],
    measured: Annotated[
        list[Path] | None,
        typer.Option("--measured", metavar="DIR", help="With a run: also what 'salad measure' wrote. Repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The page [RUN/report.html].")] = None,
) -> None:
    """Draw a run's results, or a measurement, as one self-contained page. docs/report.md.

    salad report runs/demo --measured measured/demo

    salad report measured/demo --out gap.html
    """
    from salad.report.measured import NAME
    from salad.report.measured_page import write_measured
    from salad.report.page import write_report

    page = out or folder / "report.html"
    if not (folder / "results.json").is_file() and not (folder / NAME).is_file():
        raise MissingFileError(
            f"{folder} holds neither results.json, which 'salad run' writes at its end, nor {NAME} of 'salad measure'; "
            "name a folder with one of them."
        )
    if (folder / NAME).is_file() and not (folder / "results.json").is_file():
        if measured:
            raise RecipeError(f"{folder} is itself a measurement; --measured goes with a run's folder.")
        write_measured(folder, page)
    else:
        write_report(folder / "results.json", page, measured or [])
    print(page)
