"""A run on two ranks: the main one decides and writes, the other joins in what is collective, and no error hangs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from processes import together
from salad.errors import DataError
from salad.ranks import Ranks
from salad.recipe import Recipe
from salad.run import Progress, Run, Step, StepState, execute, states

FAIL = "measure.task_items"  # a recipe key by which a case says which step fails
ALONE_FAILS, ALL_FAIL, ALONE_IS_STOPPED = 5, 6, 7


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({"name": "a", **changes})


def failing(items: int) -> Recipe:
    return recipe(measure={"task_items": items})


def note(run: Run, what: str) -> None:
    with run.path(f"rank-{run.ranks.rank}.txt").open("a") as file:
        file.write(what + "\n")


def alone(run: Run, progress: Progress) -> dict[str, Any]:
    note(run, "alone")
    if run.recipe.measure.task_items == ALONE_FAILS:
        raise DataError("the main rank's own.")
    if run.recipe.measure.task_items == ALONE_IS_STOPPED:
        raise KeyboardInterrupt
    return {}


def all_of_us(run: Run, progress: Progress) -> dict[str, Any]:
    note(run, f"all {int(run.ranks.total(torch.ones(1)).item())}")
    progress(1, 1)
    if run.recipe.measure.task_items == ALL_FAIL:
        raise DataError("everybody's.")
    return {"rank": run.ranks.rank}


STEPS = (
    Step("first", "", (FAIL,), (), ("first",), 1, alone),
    Step("middle", "", (FAIL,), ("first",), ("middle",), 1, all_of_us, collective=True),
    Step("last", "", ("data.mix_texts",), ("middle",), ("last",), 1, alone),
)


def cases(ranks: Ranks, folder: Path) -> None:
    """What became of each case on this rank, as JSON: the error or None, and what was announced."""
    found: dict[str, Any] = {}

    def case(name: str, run: Run, only: str | None = None) -> None:
        told: list[str] = []

        def announce(step: Step, number: int, of: int, state: StepState, left: float) -> Progress:
            told.append(step.name)
            return lambda done, total, note="": told.append(f"{done}/{total}")

        found[name] = {"error": error_of(lambda: execute(run, STEPS, only, announce, lambda *_: None)), "told": told}

    run = Run(recipe(), folder / "run", ranks)
    case("whole", run)
    case("again", run)
    case("only", run, "middle")
    case("unknown", run, "muddle")
    case("alone fails", Run(failing(ALONE_FAILS), folder / "alone", ranks))
    case("alone is stopped", Run(failing(ALONE_IS_STOPPED), folder / "stopped", ranks))
    case("all fail", Run(failing(ALL_FAIL), folder / "all", ranks))
    case("after errors", run, "middle")
    case("two recipes", Run(recipe(seed=ranks.rank), folder / "run", ranks))
    case("own disks", Run(recipe(), folder / f"disk {ranks.rank}", ranks))
    (folder / f"found-{ranks.rank}.json").write_text(json.dumps(found))


def error_of(work: Callable[[], None]) -> str | None:
    try:
        work()
    except BaseException as error:  # noqa: BLE001  (SystemExit and KeyboardInterrupt are what is tested)
        return f"{type(error).__name__}: {error}"
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ranks")
    together(cases, made)
    return made


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(2)]


def test_the_main_rank_does_what_is_not_collective_and_alone_says_so(found: list[dict[str, Any]], folder: Path) -> None:
    main, other = (found[rank]["whole"] for rank in range(2))
    assert main == {"error": None, "told": ["first", "middle", "1/1", "last"]}
    assert other == {"error": None, "told": []}
    did = [(folder / "run" / f"rank-{rank}.txt").read_text().split("\n")[:-1] for rank in range(2)]
    assert did == [["alone", "all 2", "alone", "all 2", "all 2"], ["all 2", "all 2", "all 2"]]


def test_the_mark_says_how_many_worked(found: list[dict[str, Any]], folder: Path) -> None:
    found_states = [s.state for s in states(Run(recipe(), folder / "run"), STEPS)]
    assert found_states == ["done", "done", "changed"]  # `--only middle` has made anew what the last one reads
    report = json.loads((folder / "run" / "steps" / "middle.json").read_text())["report"]
    assert report == {"rank": 0, "ranks": {"ranks": 2, "parallel": "ddp", "device": "CPU"}}
    assert "ranks" not in json.loads((folder / "run" / "steps" / "first.json").read_text())["report"]


def test_done_is_done_for_all(found: list[dict[str, Any]]) -> None:
    assert [found[rank]["again"] for rank in range(2)] == [{"error": None, "told": []}] * 2
    assert [found[rank]["only"]["told"] for rank in range(2)] == [["middle", "1/1"], []]


def test_an_error_of_the_main_rank_ends_the_other(found: list[dict[str, Any]]) -> None:
    assert found[0]["alone fails"]["error"] == "DataError: the main rank's own."
    assert found[1]["alone fails"]["error"] == "SystemExit: 2"
    assert found[0]["alone is stopped"]["error"] == "KeyboardInterrupt: "
    assert found[1]["alone is stopped"]["error"] == "SystemExit: 1"


@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("unknown", "RecipeError: --only muddle: no such step; the steps are first, middle, last."),
        ("all fail", "DataError: everybody's."),
        ("two recipes", "RecipeError: the processes of this run were given different recipes"),
        ("own disks", "RecipeError: not every process of this run sees"),
    ],
)
def test_an_error_of_all_is_met_by_all(found: list[dict[str, Any]], case: str, error: str) -> None:
    for rank in range(2):
        assert found[rank][case]["error"].startswith(error)


def test_they_go_on_together_after_errors(found: list[dict[str, Any]]) -> None:
    assert [found[rank]["after errors"]["error"] for rank in range(2)] == [None, None]
