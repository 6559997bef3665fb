"""A run folder and its steps.

Each step is done once, can be interrupted at any moment, and is done again only if its recipe keys, what it reads from
outside the run folder, or a step it needs, changed. On several ranks the main one decides what is to be done, does it,
and writes it down; the others wait, and join it in the steps that are collective.

    RUN/recipe.yaml         the resolved recipe
    RUN/steps/              what is done, and what is begun (salad/marks.py)
"""

from __future__ import annotations

import fcntl
import gc
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast

import torch

from salad.errors import RecipeError, SaladError
from salad.files import sweep, write_atomic
from salad.marks import Clock, Dependences, Mark, difference, key_of
from salad.ranks import ALONE, Ranks
from salad.recipe import MAY_CHANGE, Recipe, save_recipe

LAYOUT = 1  # raised when the files of a run folder change their meaning: older steps are then done again


class Progress(Protocol):
    """Who is told how far a step has come."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of work; `note` is shown beside the bar, and beneath it what follows two spaces.

        A note that begins with "WARNING: " stays on the screen.
        """


@dataclass(frozen=True)
class Run:
    """A recipe, the folder its steps work in, and which of the processes that work on it this is."""

    recipe: Recipe
    folder: Path
    ranks: Ranks = ALONE

    def path(self, *parts: str) -> Path:
        """A place in the run folder."""
        return self.folder.joinpath(*parts)

    def mark(self, step: str) -> Mark:
        """What is remembered of the step of that name."""
        return Mark(self.path("steps"), step)


def nothing(recipe: Recipe) -> dict[str, str | None]:  # noqa: ARG001  (the type of `Step.inputs`)
    """The inputs of a step that reads nothing from outside the run folder."""
    return {}


@dataclass(frozen=True)
class Step:
    """One step: what it is for, what it depends on, what it writes, and the work.

    `settings` are recipe keys (dotted) it reads; `needs` are steps whose results it reads; `outputs` are the files
    and folders in the run folder that it owns; `share` is the seconds it takes in the demo on two CPU cores, for the
    estimate of what is left. The work returns what it has to report, as JSON. A `collective` step is done by all ranks
    at once, any other by the main one alone. `inputs` gives what it reads from outside the run folder, by the name a
    person knows it by, and a hash of its content; None where that can't be told now.
    """

    name: str
    purpose: str
    settings: tuple[str, ...]
    needs: tuple[str, ...]
    outputs: tuple[str, ...]
    share: float
    work: Callable[[Run, Progress], dict[str, Any]]
    collective: bool = False
    inputs: Callable[[Recipe], Mapping[str, str | None]] = nothing


@dataclass(frozen=True)
class StepState:
    """A step as it stands in a run folder: `done`, `begun`, `to do`, or `changed`: what it depends on has.

    `wall_s` is its seconds of work so far, `reason` what has changed.
    """

    step: Step
    state: str
    wall_s: float | None
    reason: str = ""


def dependences(run: Run, steps: Sequence[Step]) -> dict[str, Dependences]:
    """Step -> all it depends on: the layout, its recipe keys, its inputs' hashes, and the keys of the steps it needs.

    An input whose content can't be told now (a disk that is not mounted, data that was deleted since) is taken to be
    what it was when the step began; a key that is null, and was not there then, to change nothing. `redone` counts how
    often a step that was done was done again because it was asked for: what read its results is then out of date.
    """
    found: dict[str, Dependences] = {}
    tree = run.recipe.model_dump(mode="json")
    for step in steps:
        mark = run.mark(step.name)
        before = (mark.done() or mark.begun() or {}).get("for") or {}
        known = before.get("inputs", {})
        settings = {key: _at(tree, key) for key in ("seed", *step.settings)}
        found[step.name] = {
            "layout": LAYOUT,
            "step": step.name,
            "settings": _less_new_nulls(settings, before.get("settings")),
            "inputs": {name: now or known.get(name) for name, now in step.inputs(run.recipe).items()},
            "needs": {name: key_of(found[name]) for name in step.needs},
        }
        if "redone" in before:
            found[step.name]["redone"] = before["redone"]
    return found


def states(run: Run, steps: Sequence[Step]) -> list[StepState]:
    """Every step as it stands."""
    return [
        _state(run.mark(step.name), step, now)
        for step, now in zip(steps, dependences(run, steps).values(), strict=True)
    ]


def _state(mark: Mark, step: Step, now: Dependences) -> StepState:
    done, begun = mark.done(), mark.begun()
    if done is not None and done["key"] == key_of(now):
        return StepState(step, "done", done["wall_s"])
    earlier = done or begun
    if earlier is None:
        return StepState(step, "to do", None)
    if done is None and earlier["key"] == key_of(now):
        return StepState(step, "begun", earlier["wall_s"])
    return StepState(step, "changed", None, difference(earlier.get("for", {}), now))


def execute(
    run: Run,
    steps: Sequence[Step],
    only: str | None,
    announce: Callable[[Step, int, int, StepState, float], Progress],
    finished: Callable[[Step, dict[str, Any], float], None],
) -> None:
    """Do what is to be done, in order; with `only` that one step, whose needs must be done.

    Args:
        run: where.
        steps: all steps, in order.
        only: the name of one step, done again even if it is done; the steps that need it are then out of date.
        announce: told (step, number, of, its state, shares of all that is still to do) when work begins; gives the
            progress.
        finished: told (step, what it reported, its seconds) after each.

    On several ranks all call it; `announce` and `finished` are called on the main one.

    Raises:
        RecipeError: `only` names no step, or a step it needs is not done; the ranks were given different recipes.
        SystemExit: on another rank, when the main one has failed, which says why.
    """
    if only is not None and only not in {step.name for step in steps}:
        raise RecipeError(f"--only {only}: no such step; the steps are {', '.join(step.name for step in steps)}.")
    if len(set(run.ranks.gather((save_recipe(run.recipe), only)))) > 1:
        raise RecipeError("the processes of this run were given different recipes or options; start them all alike.")
    if not run.ranks.is_main:
        return _follow(run, steps)
    with _Others(run.ranks) as others, _locked(run):
        for name in ("", "steps", *(output for step in steps for output in step.outputs)):
            sweep(run.path(name))  # nobody else writes here now
        write_atomic(run.path("recipe.yaml"), save_recipe(run.recipe))
        expected = dependences(run, steps)
        found = [_state(run.mark(step.name), step, expected[step.name]) for step in steps]
        wanted = [s for s in found if (s.state != "done" if only is None else s.step.name == only)]
        if only is not None and wanted[0].state == "done":
            expected[only] |= {"redone": expected[only].get("redone", 0) + 1}
        left = sum(state.step.share for state in wanted)
        for state in wanted:
            step = state.step
            _check_needs(run, step, expected)
            progress = announce(step, found.index(state) + 1, len(steps), state, left)
            report, seconds = _work(run, step, expected[step.name], progress, others)
            finished(step, report, seconds)
            left -= step.share


def wall_s(run: Run, steps: Sequence[Step]) -> dict[str, float]:
    """Seconds of work of every step that is done, all its attempts together."""
    return {step.name: round(mark["wall_s"], 2) for step in steps if (mark := run.mark(step.name).done()) is not None}


def reports(run: Run, steps: Sequence[Step]) -> dict[str, dict[str, Any]]:
    """What every step that is done reported."""
    return {step.name: mark["report"] for step in steps if (mark := run.mark(step.name).done()) is not None}


def report_of(run: Run, name: str) -> dict[str, Any]:
    """What the step of that name, which is done, reported."""
    mark = run.mark(name).done()
    if mark is None:
        raise RecipeError(f"step {name!r} is not done in {run.folder}; run it first.")
    return dict(mark["report"])


def _work(run: Run, step: Step, now: Dependences, progress: Progress, others: _Others) -> tuple[dict[str, Any], float]:
    mark = run.mark(step.name)
    begun = mark.begun()
    if mark.done() is not None or begun is None or begun["key"] != key_of(now):
        _refuse_foreign(run, step)
        mark.forget()  # first: what is half deleted is not done
        for output in step.outputs:
            path = run.path(output)
            if step.collective and path.exists():
                aside = _set_aside(run, output)
                progress(
                    0, 1, f"WARNING: what {step.name} had trained before is kept in {aside}; delete it if you can."
                )
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        mark.begin(now)
    clock = Clock(mark)

    def beating(done: int, total: int, note: str = "") -> None:
        clock.beat()
        progress(done, total, note)

    try:
        with others.at_work(run, step, key_of(now)) if step.collective else nullcontext():
            report = step.work(run, beating)
    except BaseException:
        with suppress(OSError):  # what stopped the work says more
            clock.stop()
        raise
    if step.collective:
        _let_go()
        report |= {"ranks": run.ranks.as_json(run.recipe.engine.parallel)}
    mark.finish(clock.seconds, report)
    return report, clock.seconds


def _set_aside(run: Run, output: str) -> Path:
    """Give what was trained another name: hours of training are not deleted because a key changed."""
    number = 1
    while (aside := run.path("set_aside", f"{output}-{number}")).exists():
        number += 1
    aside.parent.mkdir(exist_ok=True)
    return run.path(output).rename(aside)


class _Others:
    """The ranks that follow the main one, waiting for its word: a step to do with it, an exit status, or None.

    With a step comes its key: they don't hash its inputs again.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.waiting = True

    def __enter__(self) -> Self:
        return self

    @contextmanager
    def at_work(self, run: Run, step: Step, key: str) -> Iterator[None]:
        """While all do a collective step."""
        self.ranks.from_main((step.name, key))
        self.waiting = False
        _check_storage(run, step, key)
        yield
        self.waiting = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.ranks.from_main(None)
        elif self.waiting:  # else they are at work, and meet the same error, or a connection that is closed
            with suppress(RuntimeError):  # they may be gone, and the error that is under way says more
                self.ranks.from_main(2 if isinstance(error, SaladError) else 1)


def _follow(run: Run, steps: Sequence[Step]) -> None:
    """What the main rank says, until all is done."""
    named = {step.name: step for step in steps}
    while (word := run.ranks.from_main(cast("tuple[str, str] | int | None", None))) is not None:
        if isinstance(word, int):
            raise SystemExit(word)
        name, key = word
        _check_storage(run, named[name], key)
        named[name].work(run, _unseen)
        _let_go()


def _let_go() -> None:
    """Free what a training leaves: FSDP2's modules hold each other, and torch the GPU's memory, which others need, too.

    The next stage has a model and an optimizer of its own; a recognizer in CTranslate2 gets nothing of torch's cache.
    """
    gc.collect()
    torch.cuda.empty_cache()  # nothing where there is no GPU


def _unseen(done: int, total: int, note: str = "") -> None:
    """The progress of a rank that isn't the main one."""


def _check_storage(run: Run, step: Step, key: str) -> None:
    """All ranks see what the main one has written (collective)."""
    if run.ranks.any((run.mark(step.name).begun() or {}).get("key") != key):
        raise RecipeError(f"not every process of this run sees {run.folder}; give --out on storage that all share.")


def _refuse_foreign(run: Run, step: Step) -> None:
    """What lies where a step writes is deleted only in a folder that runs have worked in."""
    if run.path("steps").is_dir() and any(run.path("steps").iterdir()):
        return
    foreign = [output for output in step.outputs if run.path(output).exists()]
    if foreign:
        raise RecipeError(
            f"{run.folder} holds {', '.join(foreign)}, and no run has worked there; give an empty folder with --out."
        )


def _check_needs(run: Run, step: Step, expected: dict[str, Dependences]) -> None:
    for name in step.needs:
        if (run.mark(name).done() or {}).get("key") != key_of(expected[name]):
            raise RecipeError(f"step {step.name!r} needs {name!r}, which is not done for this recipe; run that first.")


@contextmanager
def _locked(run: Run) -> Iterator[None]:
    """One process at a time works in a run folder; the lock goes with the process, however it ends."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with run.path(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecipeError(f"another 'salad run' works in {run.folder}; wait for it, or give --out.") from None
        yield


def _at(tree: dict[str, Any], key: str) -> Any:
    """A recipe key's value, less what may change while a step is begun."""
    node: Any = tree
    for part in key.split("."):
        node = node[part]
    return {k: v for k, v in node.items() if k not in MAY_CHANGE} if isinstance(node, dict) else node


def _less_new_nulls(now: Any, before: Any) -> Any:
    """`now` less the keys that are null and that `before` does not know: a key that salad got since, and not used."""
    if not isinstance(now, dict) or not isinstance(before, dict):
        return now
    known = {key: value for key, value in now.items() if value is not None or key in before}
    return {key: _less_new_nulls(value, before.get(key)) for key, value in known.items()}
