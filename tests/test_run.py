"""The run folder: steps are done once, go on, and are done again only when what they depend on changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from salad.errors import RecipeError
from salad.recipe import Recipe
from salad.run import Progress, Run, Step, StepState, execute, states, wall_s


class Journal:
    """Two real little steps that write files, and a list of what was done."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.break_in: str | None = None

    def steps(self) -> tuple[Step, Step, Step]:
        return (
            Step("words", "", ("name",), (), ("words.txt",), 1, self.words),
            Step("count", "", ("measure.task_items",), ("words",), ("count",), 1, self.count),
            Step("other", "", ("data.mix_texts",), (), ("other.txt",), 1, self.other),
        )

    def words(self, run: Run, progress: Progress) -> dict[str, Any]:
        progress(1, 1)
        run.path("words.txt").write_text(run.recipe.name)
        return self.note("words")

    def count(self, run: Run, progress: Progress) -> dict[str, Any]:
        folder = run.path("count")
        folder.mkdir(exist_ok=True)
        for item in range(run.recipe.measure.task_items):
            if not (folder / str(item)).exists():
                (folder / str(item)).write_text(run.path("words.txt").read_text())
                self.done.append(f"item {item}")
            if self.break_in == f"item {item}":
                raise KeyboardInterrupt
        return self.note("count")

    def other(self, run: Run, progress: Progress) -> dict[str, Any]:
        run.path("other.txt").write_text("x")
        return self.note("other")

    def note(self, name: str) -> dict[str, Any]:
        self.done.append(name)
        return {"step": name}


def announce(step: Step, number: int, of: int, state: StepState, left: float) -> Progress:
    return lambda done, total, note="": None


def go(journal: Journal, recipe: Recipe, folder: Path, only: str | None = None) -> list[str]:
    journal.done.clear()
    execute(Run(recipe, folder), journal.steps(), only, announce, lambda *_: None)
    return list(journal.done)


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({"name": "a", "measure": {"task_items": 3}, **changes})


ALL = ["words", "item 0", "item 1", "item 2", "count", "other"]


def test_each_step_is_done_once(tmp_path: Path) -> None:
    journal = Journal()
    assert go(journal, recipe(), tmp_path) == ALL
    assert go(journal, recipe(), tmp_path) == []
    assert set(wall_s(Run(recipe(), tmp_path), journal.steps())) == {"words", "count", "other"}


def test_an_interrupted_step_goes_on(tmp_path: Path) -> None:
    journal = Journal()
    journal.break_in = "item 1"
    with pytest.raises(KeyboardInterrupt):
        go(journal, recipe(), tmp_path)
    assert [s.state for s in states(Run(recipe(), tmp_path), journal.steps())] == ["done", "begun", "to do"]
    journal.break_in = None
    assert go(journal, recipe(), tmp_path) == ["item 2", "count", "other"]


def test_a_changed_key_redoes_what_depends_on_it_from_nothing(tmp_path: Path) -> None:
    journal = Journal()
    go(journal, recipe(), tmp_path)
    assert go(journal, recipe(name="b"), tmp_path) == ["words", "item 0", "item 1", "item 2", "count"]
    assert tmp_path.joinpath("count", "0").read_text() == "b"
    fewer = recipe(name="b", measure={"task_items": 1})
    assert [s.state for s in states(Run(fewer, tmp_path), journal.steps())] == ["done", "changed", "done"]
    assert go(journal, fewer, tmp_path) == ["item 0", "count"]
    assert sorted(path.name for path in tmp_path.joinpath("count").iterdir()) == ["0"]


def test_an_interrupted_step_whose_settings_changed_starts_from_nothing(tmp_path: Path) -> None:
    journal = Journal()
    journal.break_in = "item 1"
    with pytest.raises(KeyboardInterrupt):
        go(journal, recipe(), tmp_path)
    journal.break_in = None
    assert go(journal, recipe(name="b"), tmp_path) == ["words", "item 0", "item 1", "item 2", "count", "other"]


def test_only_does_one_step_again_and_needs_what_it_needs(tmp_path: Path) -> None:
    journal = Journal()
    with pytest.raises(RecipeError, match="needs 'words'"):
        go(journal, recipe(), tmp_path, only="count")
    go(journal, recipe(), tmp_path)
    assert go(journal, recipe(), tmp_path, only="count") == ["item 0", "item 1", "item 2", "count"]
    with pytest.raises(RecipeError, match="no such step; the steps are words, count, other"):
        go(journal, recipe(), tmp_path, only="cuont")


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    class Nested(Journal):
        def other(self, run: Run, progress: Progress) -> dict[str, Any]:
            with pytest.raises(RecipeError, match="another 'salad run' works in"):
                execute(run, self.steps(), None, announce, lambda *_: None)
            return self.note("refused")

    assert go(Nested(), recipe(), tmp_path)[-1] == "refused"


def test_a_folder_that_no_run_made_is_left_alone(tmp_path: Path) -> None:
    tmp_path.joinpath("words.txt").write_text("the user's own")
    with pytest.raises(RecipeError, match=r"holds words\.txt, and no run has worked there"):
        go(Journal(), recipe(), tmp_path)
    assert tmp_path.joinpath("words.txt").read_text() == "the user's own"
