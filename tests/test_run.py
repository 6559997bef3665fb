"""The run folder: steps are done once, go on, and are done again only when what they depend on changed."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from salad import marks
from salad.assets import digest_of
from salad.errors import RecipeError
from salad.fingerprint import content_hash, fingerprint_of
from salad.recipe import Recipe
from salad.run import Progress, Run, Step, StepState, execute, states, wall_s


@pytest.fixture(autouse=True)
def _own_memory_of_hashes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALAD_CACHE", str(tmp_path_factory.mktemp("cache")))


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


def test_what_a_killed_run_left_half_written_is_deleted_by_the_next(tmp_path: Path) -> None:
    go(Journal(), recipe(), tmp_path)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    left = [tmp_path / place / f".tmp-{child.pid}-a" for place in ("", "steps", "count")]
    for path in left:
        path.write_text("half")
    go(Journal(), recipe(), tmp_path)
    assert not any(path.exists() for path in left)


def test_an_interrupted_step_whose_settings_changed_starts_from_nothing(tmp_path: Path) -> None:
    journal = Journal()
    journal.break_in = "item 1"
    with pytest.raises(KeyboardInterrupt):
        go(journal, recipe(), tmp_path)
    journal.break_in = None
    assert go(journal, recipe(name="b"), tmp_path) == ["words", "item 0", "item 1", "item 2", "count", "other"]


def test_how_a_stage_is_cut_up_and_saved_may_change_and_what_it_learns_may_not(tmp_path: Path) -> None:
    stage = Step("stage", "", ("stage_one",), (), ("stage",), 1, lambda run, progress: {})

    def state(**changes: Any) -> str:
        changed = recipe(stage_one=changes) if changes else recipe()
        return states(Run(changed, tmp_path), [stage])[0].state

    execute(Run(recipe(), tmp_path), [stage], None, announce, lambda *_: None)
    assert state() == "done"
    assert state(checkpoint_every=3, micro_batch_positions=4096) == "done"
    assert state(alpha=0.5) == "changed"


def older(mark: Path) -> None:
    """Write a step's mark as a salad without any key that is null in the recipe would have."""
    known = json.loads(mark.read_text())
    known["for"]["settings"] = without_nulls(known["for"]["settings"])
    for name in known["for"]["needs"]:
        known["for"]["needs"][name] = json.loads((mark.parent / f"{name}.json").read_text())["key"]
    mark.write_text(json.dumps(known | {"key": marks.key_of(known["for"])}))


def without_nulls(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    return {key: without_nulls(value) for key, value in tree.items() if value is not None}


def test_a_key_that_salad_got_since_changes_nothing_while_it_is_null(tmp_path: Path) -> None:
    read = ("stage_one", "stage_two", "stage_two.max_boost", "data")
    first = Step("first", "", read, (), ("first",), 1, lambda run, progress: {})
    steps = [first, replace(first, name="second", needs=("first",))]
    before = recipe(stage_two={"budget_frac": None, "budget_h": 2.0})

    def found(**changes: Any) -> list[StepState]:
        return states(Run(recipe(**changes) if changes else before, tmp_path), steps)

    execute(Run(before, tmp_path), steps, None, announce, lambda *_: None)
    for step in steps:
        older(tmp_path / "steps" / f"{step.name}.json")
    assert [state.state for state in found()] == ["done", "done"]
    same: dict[str, Any] = {"budget_frac": None, "budget_h": 2.0}
    for changes in ({"max_boost": 2.0}, {"warm_start": {"learning_rate": 0.1}}):
        assert [state.state for state in found(stage_two=same | changes)] == ["changed", "changed"]
    (one, two) = found(stage_one={"start": "salad-smollm2-135m"}, stage_two=same)
    assert one.reason == 'stage_one.start was not there, is "salad-smollm2-135m"'
    assert two.state == "changed"
    execute(Run(recipe(stage_one={"start": "a"}, stage_two=same), tmp_path), steps, None, announce, lambda *_: None)
    assert found()[0].reason == 'stage_one.start was "a", is null', "what is known counts, null too"


def trained(run: Run, progress: Progress) -> dict[str, Any]:
    run.path("stage").mkdir(exist_ok=True)
    run.path("stage", "model").write_text(str(run.recipe.stage_one.alpha))
    return {}


def test_what_was_trained_is_set_aside_and_not_deleted(tmp_path: Path) -> None:
    stage = Step("stage", "", ("stage_one",), (), ("stage",), 1, trained, collective=True)
    told: list[str] = []

    def tell(step: Step, number: int, of: int, state: StepState, left: float) -> Progress:
        return lambda done, total, note="": told.append(note)

    for alpha in (1.0, 0.5, 0.25):
        execute(Run(recipe(stage_one={"alpha": alpha}), tmp_path), [stage], None, tell, lambda *_: None)
    assert tmp_path.joinpath("stage", "model").read_text() == "0.25"
    assert [(tmp_path / "set_aside" / f"stage-{n}" / "model").read_text() for n in (1, 2)] == ["1.0", "0.5"]
    assert [note for note in told if "set_aside" in note] == [
        f"WARNING: what stage had trained before is kept in {tmp_path}/set_aside/stage-{n}; delete it if you can."
        for n in (1, 2)
    ]


class Part:
    """Of a sharded model: it knows the others, so that only a garbage collection frees it."""

    def __init__(self) -> None:
        self.whole = self


def test_memory_of_a_training_is_let_go_before_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[weakref.ref[Part]] = []
    given_back: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(parts[-1]() is None))

    def train(run: Run, progress: Progress) -> dict[str, Any]:
        parts.append(weakref.ref(Part()))
        return {}

    stage = Step("stage", "", ("stage_one",), (), ("stage",), 1, train, collective=True)
    gc.disable()
    try:
        execute(Run(recipe(), tmp_path), (stage,), None, announce, lambda *_: None)
    finally:
        gc.enable()
    assert given_back == [True]  # freed first, or the cache would keep it


def test_a_step_that_is_cut_off_while_its_outputs_are_deleted_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal()
    go(journal, recipe(), tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("salad.run.shutil.rmtree", lambda *_, **__: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            go(journal, recipe(measure={"task_items": 2}), tmp_path)
    assert [s.state for s in states(Run(recipe(), tmp_path), journal.steps())] == ["done", "to do", "done"]
    assert go(journal, recipe(), tmp_path) == ["item 0", "item 1", "item 2", "count"]


def test_only_does_one_step_again_and_needs_what_it_needs(tmp_path: Path) -> None:
    journal = Journal()
    with pytest.raises(RecipeError, match="needs 'words'"):
        go(journal, recipe(), tmp_path, only="count")
    go(journal, recipe(), tmp_path)
    assert go(journal, recipe(), tmp_path, only="count") == ["item 0", "item 1", "item 2", "count"]
    assert go(journal, recipe(), tmp_path) == []
    with pytest.raises(RecipeError, match="no such step; the steps are words, count, other"):
        go(journal, recipe(), tmp_path, only="cuont")


def test_what_needs_a_step_that_only_has_done_again_is_out_of_date(tmp_path: Path) -> None:
    journal = Journal()
    go(journal, recipe(), tmp_path)
    for _ in range(2):
        assert go(journal, recipe(), tmp_path, only="words") == ["words"]
        found = states(Run(recipe(), tmp_path), journal.steps())
        assert [(s.state, s.reason) for s in found] == [("done", ""), ("changed", "words is made anew"), ("done", "")]
        assert go(journal, recipe(), tmp_path) == ["item 0", "item 1", "item 2", "count"]
    assert go(journal, recipe(), tmp_path) == []


def test_only_that_is_cut_off_goes_on(tmp_path: Path) -> None:
    journal = Journal()
    go(journal, recipe(), tmp_path)
    journal.break_in = "item 1"
    with pytest.raises(KeyboardInterrupt):
        go(journal, recipe(), tmp_path, only="count")
    journal.break_in = None
    assert go(journal, recipe(), tmp_path, only="count") == ["item 2", "count"]


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


class Outside(Journal):
    """The same, and the words are read from a file beside the run folder."""

    def __init__(self, source: Path) -> None:
        super().__init__()
        self.source = source

    def steps(self) -> tuple[Step, Step, Step]:
        first, *others = super().steps()
        name = f"words ({self.source.name})"
        return (replace(first, inputs=lambda _: {name: fingerprint_of(str(self.source))}), *others)


def test_what_changes_outside_the_run_folder_is_seen_and_named(tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_text("the river")
    journal, run = Outside(source), Run(recipe(), tmp_path / "run")
    assert go(journal, recipe(), run.folder) == ALL
    source.touch()  # another time, the same content
    assert go(journal, recipe(), run.folder) == []
    source.write_text("the lake!")  # the same length
    first, second, third = states(run, journal.steps())
    assert [first.state, second.state, third.state] == ["changed", "changed", "done"]
    assert first.reason == "words (source.txt) has other content"
    assert second.reason == "words is made anew"
    assert go(journal, recipe(), run.folder) == ["words", "item 0", "item 1", "item 2", "count"]


def test_an_input_that_is_not_there_now_is_taken_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_text("the river")
    journal = Outside(source)
    go(journal, recipe(), tmp_path / "run")
    source.rename(tmp_path / "unmounted")
    assert go(journal, recipe(), tmp_path / "run") == []


def test_a_changed_step_says_which_settings_changed(tmp_path: Path) -> None:
    journal = Journal()
    go(journal, recipe(), tmp_path)
    found = states(Run(recipe(name="b", measure={"task_items": 1}), tmp_path), journal.steps())
    assert [state.reason for state in found] == [
        'name was "a", is "b"',
        "measure.task_items was 3, is 1",
        "",
    ]


def test_the_seconds_of_all_attempts_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Journal):
        def count(self, run: Run, progress: Progress) -> dict[str, Any]:
            time.sleep(0.2)
            progress(1, 2)
            return super().count(run, progress)

    journal, run = Slow(), Run(recipe(), tmp_path)
    journal.break_in = "item 1"
    with pytest.raises(KeyboardInterrupt):
        go(journal, recipe(), tmp_path)
    seconds = states(run, journal.steps())[1].wall_s
    assert seconds is not None
    assert seconds >= 0.2
    monkeypatch.setattr(marks, "BEAT_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        go(journal, recipe(), tmp_path)
    journal.break_in = None
    go(journal, recipe(), tmp_path)
    assert 0.6 <= wall_s(run, journal.steps())["count"] < 5


def test_the_seconds_before_a_kill_are_known_up_to_its_last_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "BEAT_S", 0.0)

    class Killed(Journal):
        def words(self, run: Run, progress: Progress) -> dict[str, Any]:
            time.sleep(0.1)
            progress(1, 2)
            self.left = run.mark("words").begun()  # what a kill -9 here would leave
            return super().words(run, progress)

    journal = Killed()
    go(journal, recipe(), tmp_path)
    assert journal.left is not None
    assert journal.left["wall_s"] >= 0.1


def test_a_folders_content_is_its_files_and_not_their_times(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    (folder / "audio").mkdir(parents=True)
    for name in ("manifest.jsonl", "audio/a.wav", "audio/b.wav"):
        folder.joinpath(name).write_text(name)
    first = content_hash(folder)
    assert first == digest_of(folder)
    (folder / "README.md").write_text("about it")
    os.utime(folder / "audio" / "a.wav", ns=(1, 1))
    assert content_hash(folder) == first
    assert content_hash(folder) == first  # from memory
    (folder / "audio" / "a.wav").write_text("audio/c.wav")  # as long as before
    changed = content_hash(folder)
    assert changed != first
    (folder / "audio" / "a.wav").rename(folder / "audio" / "c.wav")
    assert content_hash(folder) not in (first, changed)


def test_a_file_that_keeps_its_size_and_time_is_not_read_again(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text("one")
    os.utime(file, ns=(1, 1))
    first = content_hash(file)
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    assert content_hash(file) == first
    file.write_text("two")
    assert content_hash(file) == digest_of(file) != first
