"""Scoring a multiple-choice task: score."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from salad.cli.options import JsonOption, ThreadsOption, app, print_json, quiet
from salad.errors import RecipeError
from salad.files import check_items_file

if TYPE_CHECKING:
    from salad.measure.spoken_clips import SpokenClips
    from salad.measure.tasks.item import Item
    from salad.measure.tasks.task import Task
    from salad.speech.prepared import Rejected

ITEMS_HELP = 'JSONL: {"id", "question", "choices", "answer"} a line [the task\'s own, from the hub].'
MODEL_HELP = "A model folder or run; an LLM's folder, hub name or asset; or KIND:… (docs/models.md)."
NUM_SHOWN = 10
SPOKEN_HELP = "The spoken items, made and checked by 'salad speak' [OUT/spoken, spoken here by --voice, unchecked]."


@app.command()
def score(
    task: Annotated[str, typer.Argument(metavar="TASK", help="hellaswag, arc_challenge, piqa, mmlu, ...")],
    model: Annotated[str, typer.Option("--model", help=MODEL_HELP)],
    items: Annotated[Path | None, typer.Option("--items", metavar="FILE", help=ITEMS_HELP)] = None,
    view: Annotated[Literal["text", "speech"], typer.Option("--view", help="How items are asked.")] = "text",
    spoken: Annotated[Path | None, typer.Option("--spoken", metavar="DIR", help=SPOKEN_HELP)] = None,
    voice: Annotated[
        str | None, typer.Option("--voice", help="Who speaks (docs/voices.md) [the first of --spoken].")
    ] = None,
    condition: Annotated[str, typer.Option("--condition", help="Of the speech, as --spoken names it.")] = "clean",
    shots: Annotated[int, typer.Option("--shots", min=0, help="Solved examples; as many as fit 2048 positions.")] = 5,
    shots_from: Annotated[
        Path | None, typer.Option("--shots-from", metavar="FILE", help="Items to take them from [--items].")
    ] = None,
    rule: Annotated[str, typer.Option("--rule", help="token, raw, character, byte, unconditional.")] = "token",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many items, the first.")] = None,
    mark: Annotated[
        bool | None, typer.Option("--mark/--no-mark", help="Begin with the document mark [speech LLMs: yes].")
    ] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16 or float16 [as it is saved].")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the examples' order.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where results go [scores/TASK-VIEW-MODEL].")
    ] = None,
    threads: ThreadsOption = 2,
    as_json: JsonOption = False,
) -> None:
    """Score a task's choices by their log-probability: accuracy with its 95 % interval, and a row for each item.

    The same command goes on where it was cut off; scores of another model, prompt or task version are never mixed in.
    """
    for file in (items, shots_from):
        if file is not None:
            check_items_file(file)
    from salad.measure.choices import check_rule
    from salad.measure.tasks import task as task_named

    check_rule(rule)
    asked = task_named(task)
    if view == "text" and (spoken or voice or condition != "clean"):
        raise RecipeError("--spoken, --voice and --condition belong to --view speech; add it.")
    if view == "speech" and spoken is None and voice is None:
        raise RecipeError("--view speech needs --voice NAME, or --spoken DIR, made by 'salad speak'.")
    import torch

    from salad.files import write_json
    from salad.measure.choice_scorers import scorer_of
    from salad.measure.models.load import load_listener
    from salad.measure.score_task import ScoreSettings, score_task, summary

    quiet()
    torch.set_num_threads(threads)
    out = out or Path("scores") / f"{task}-{view}-{Path(model).name}"
    rejected: list[Rejected] = []
    every = _items(asked, items, spoken, rejected)
    if view == "speech" and spoken is None and voice is not None:
        spoken = _spoken(asked, every[:limit], voice, out / "spoken", threads)
    clips = None if spoken is None else _clips(asked, spoken, voice, condition)
    pool = every if shots == 0 else _pool(asked, items or spoken, shots_from, every)
    settings = ScoreSettings(rule, shots, seed)
    scorer = scorer_of(load_listener(model, dtype=dtype), mark)
    result = score_task(scorer, asked, every, out, settings, pool, clips, limit, _progress)
    numbers = summary(result, asked, every, settings)
    numbers["rejected"] = {"count": len(rejected), "items": {one.id: f"{one.place}: {one.reason}" for one in rejected}}
    numbers |= {"model_name": model, "voice": clips and clips.voice, "folder": str(out)}
    write_json(out / "result.json", numbers)
    if as_json:
        return print_json(numbers)
    _show(numbers)


def _items(task: Task, file: Path | None, spoken: Path | None, rejected: list[Rejected]) -> list[Item]:
    """The items to score: of a file, of the spoken folder, or of the task's own dataset; faulty ones are added."""
    from salad.measure.tasks.item import Item, read_items
    from salad.measure.tasks.spoken import read_spoken_items

    if file is not None:
        return read_items(file, rejected)
    if spoken is not None:
        return [item for item in read_spoken_items(spoken) if isinstance(item, Item)]
    from salad.measure.tasks.hub import load_task_items

    loaded = load_task_items(task.name)
    rejected += loaded.rejected
    return loaded.items


def _pool(task: Task, local: Path | None, file: Path | None, every: list[Item]) -> list[Item]:
    """What solved examples are taken from."""
    from salad.measure.tasks.item import read_items

    if file is not None:
        return read_items(file, [])
    if local is not None or task.source is None or task.source.few_shot_split is None:
        return every
    from salad.measure.tasks.hub import load_task_items

    return load_task_items(task.name, part="few_shot").items


def _spoken(task: Task, items: list[Item], voice: str, out: Path, processes: int) -> Path:
    """The folder that the items are spoken into, unchecked; what is there already is not spoken again."""
    from salad.display import bar
    from salad.measure.tasks.speaking import speak_task

    with bar(f"{task.name}, {voice}") as progress:

        def tell(done: int, total: int, what: str) -> None:
            progress.note(what)
            progress(done, total)

        speak_task(task, items, [voice], out, processes=processes, tell=tell)
    return out


def _clips(task: Task, spoken: Path, voice: str | None, condition: str) -> SpokenClips:
    from salad.measure.spoken_clips import SpokenClips
    from salad.measure.tasks.spoken import SpokenTask

    read = SpokenTask.read(spoken)
    if read.name != task.name:
        raise RecipeError(f"{spoken} holds task {read.name}, not {task.name}.")
    return SpokenClips(read, voice, condition)


def _progress(done: int, num: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{num} items", end="" if done < num else "\n", file=sys.stderr, flush=True)


def _show(numbers: dict[str, Any]) -> None:
    accuracy = numbers["accuracy"]
    shots = ", ".join(f"{n} with {k}" for k, n in numbers["shots"]["items_by_shots_that_fit"].items())
    print(
        f"{numbers['task']} v{numbers['task_version']}, {numbers['view']} view, rule {numbers['rule']}: "
        f"{accuracy['value']:.1%} [{accuracy['low']:.1%}, {accuracy['high']:.1%}] of {accuracy['n']} items "
        f"(chance {numbers['chance']:.1%})"
    )
    for rule, other in numbers["accuracy_by_rule"].items():
        ties = numbers["ties"][rule]
        print(f"  {rule:<14} {other['value']:.1%} [{other['low']:.1%}, {other['high']:.1%}], {len(ties)} ties")
    print(f"  examples before the question: {shots}")
    for key, what in (("rejected", "items are faulty"), ("unscorable", "items could not be scored")):
        lost = numbers[key]
        if lost["count"]:
            print(f"  {lost['count']} {what}, and are in no number above:")
            for name, reason in list(lost["items"].items())[:NUM_SHOWN]:
                print(f"    {name}: {reason}")
    print(f"  {numbers['folder']}: items.parquet, unscorable.jsonl, result.json")
