"""A run folder and its steps.

Each step is done once, can be interrupted at any moment, and is done again only if its recipe keys, or a step it needs,
changed. On several ranks the main one decides what is to be done, does it, and writes it down; the others wait, and
join it in the steps that are collective.

    RUN/recipe.yaml         the resolved recipe
    RUN/steps/NAME.json     a step that is done: its key, its seconds of work, what it reported
    RUN/steps/NAME.started  a step that was begun, with its key: going on is allowed while the key is the same
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast

from salad.errors import RecipeError, SaladError
from salad.files import read_json, write_atomic, write_json
from salad.ranks import ALONE, Ranks
from salad.recipe import Recipe, save_recipe

LAYOUT = 1  # raised when the files of a run folder change their meaning: older steps are then done again


class Progress(Protocol):
    """Who is told how far a step has come."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of work; `note` is shown beside the bar."""


@dataclass(frozen=True)
class Run:
    """A recipe, the folder its steps work in, and which of the processes that work on it this is."""

    recipe: Recipe
    folder: Path
    ranks: Ranks = ALONE

    def path(self, *parts: str) -> Path:
        """A place in the run folder."""
        return self.folder.joinpath(*parts)


@dataclass(frozen=True)
class Step:
    """One step: what it is for, what it depends on, what it writes, and the work.

    `settings` are recipe keys (dotted) it reads; `needs` are steps whose results it reads; `outputs` are the files
    and folders in the run folder that it owns; `share` is the seconds it takes in the demo on two CPU cores, for the
    estimate of what is left. The work returns what it has to report, as JSON. A `collective` step is done by all ranks
    at once, any other by the main one alone.
    """

    name: str
    purpose: str
    settings: tuple[str, ...]
    needs: tuple[str, ...]
    outputs: tuple[str, ...]
    share: float
    work: Callable[[Run, Progress], dict[str, Any]]
    collective: bool = False


@dataclass(frozen=True)
class StepState:
    """A step as it stands in a run folder: `done`, `begun`, `changed` (its recipe keys or needs changed) or `to do`."""

    step: Step
    state: str
    wall_s: float | None


def keys(recipe: Recipe, steps: Sequence[Step]) -> dict[str, str]:
    """Step -> hash of all it depends on: the layout, its recipe keys, and the keys of the steps it needs."""
    found: dict[str, str] = {}
    tree = recipe.model_dump(mode="json")
    for step in steps:
        content = {
            "layout": LAYOUT,
            "step": step.name,
            "settings": {key: _at(tree, key) for key in ("seed", "threads", *step.settings)},
            "needs": {name: found[name] for name in step.needs},
        }
        found[step.name] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return found


def states(run: Run, steps: Sequence[Step]) -> list[StepState]:
    """Every step as it stands."""
    expected = keys(run.recipe, steps)
    found: list[StepState] = []
    for step in steps:
        mark, begun = _mark(run, step), _begun(run, step)
        if mark is not None and mark["key"] == expected[step.name]:
            found.append(StepState(step, "done", mark["wall_s"]))
        elif mark is not None or (begun is not None and begun != expected[step.name]):
            found.append(StepState(step, "changed", None))
        else:
            found.append(StepState(step, "to do" if begun is None else "begun", None))
    return found


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
        only: the name of one step, done again even if it is done.
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
        write_atomic(run.path("recipe.yaml"), save_recipe(run.recipe))
        expected = keys(run.recipe, steps)
        found = states(run, steps)
        wanted = [s for s in found if (s.state != "done" if only is None else s.step.name == only)]
        left = sum(state.step.share for state in wanted)
        for state in wanted:
            step = state.step
            _check_needs(run, step, expected)
            progress = announce(step, found.index(state) + 1, len(steps), state, left)
            report, seconds = _work(run, step, expected[step.name], progress, others)
            finished(step, report, seconds)
            left -= step.share


def wall_s(run: Run, steps: Sequence[Step]) -> dict[str, float]:
    """Seconds of work of every step that is done."""
    marks = {step.name: _mark(run, step) for step in steps}
    return {name: round(mark["wall_s"], 2) for name, mark in marks.items() if mark is not None}


def reports(run: Run, steps: Sequence[Step]) -> dict[str, dict[str, Any]]:
    """What every step that is done reported."""
    marks = {step.name: _mark(run, step) for step in steps}
    return {name: mark["report"] for name, mark in marks.items() if mark is not None}


def report_of(run: Run, name: str) -> dict[str, Any]:
    """What the step of that name, which is done, reported."""
    return dict(read_json(run.path("steps", f"{name}.json"))["report"])


def _work(run: Run, step: Step, key: str, progress: Progress, others: _Others) -> tuple[dict[str, Any], float]:
    mark, started = _mark_path(run, step), _started_path(run, step)
    fresh = _begun(run, step) != key or mark.is_file()
    if fresh:
        _refuse_foreign(run, step)
        for output in step.outputs:
            path = run.path(output)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        mark.unlink(missing_ok=True)
        write_atomic(started, key)
    began = time.perf_counter()
    with others.at_work(run, step, key) if step.collective else nullcontext():
        report = step.work(run, progress)
    seconds = time.perf_counter() - began
    if step.collective:
        report |= {"ranks": run.ranks.as_json(run.recipe.engine.parallel)}
    write_json(mark, {"key": key, "wall_s": seconds, "report": report})
    started.unlink(missing_ok=True)
    return report, seconds


class _Others:
    """The ranks that follow the main one, waiting for its word: a step to do with it, an exit status, or None."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.waiting = True

    def __enter__(self) -> Self:
        return self

    @contextmanager
    def at_work(self, run: Run, step: Step, key: str) -> Iterator[None]:
        """While all do a collective step."""
        self.ranks.from_main(step.name)
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
    named, expected = {step.name: step for step in steps}, keys(run.recipe, steps)
    while (word := run.ranks.from_main(cast("str | int | None", None))) is not None:
        if isinstance(word, int):
            raise SystemExit(word)
        _check_storage(run, named[word], expected[word])
        named[word].work(run, _unseen)


def _unseen(done: int, total: int, note: str = "") -> None:
    """The progress of a rank that isn't the main one."""


def _check_storage(run: Run, step: Step, key: str) -> None:
    """All ranks see what the main one has written (collective)."""
    if run.ranks.any(_begun(run, step) != key):
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


def _check_needs(run: Run, step: Step, expected: dict[str, str]) -> None:
    for name in step.needs:
        path = run.path("steps", f"{name}.json")
        if not path.is_file() or read_json(path)["key"] != expected[name]:
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


def _mark_path(run: Run, step: Step) -> Path:
    return run.path("steps", f"{step.name}.json")


def _started_path(run: Run, step: Step) -> Path:
    return run.path("steps", f"{step.name}.started")


def _mark(run: Run, step: Step) -> dict[str, Any] | None:
    path = _mark_path(run, step)
    return dict(read_json(path)) if path.is_file() else None


def _begun(run: Run, step: Step) -> str | None:
    path = _started_path(run, step)
    return path.read_text() if path.is_file() else None


def _at(tree: dict[str, Any], key: str) -> Any:
    node: Any = tree
    for part in key.split("."):
        node = node[part]
    return node
