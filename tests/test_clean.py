"""salad clean: it lists and frees what is salad's, and touches nothing that is in use, linked, or somebody else's."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from salad.clean.places import CACHE_PARTS, RUN_ITSELF, RUN_PARTS, cache_place, run_place
from salad.clean.removal import chosen, remove
from salad.disk import disk_use
from salad.errors import DataError, RecipeError
from salad.files import write_json
from salad.steps import STAGE_THREE, STEPS

SOURCE = Path(__file__).resolve().parents[1] / "src" / "salad"


def fill(*paths: Path, size: int = 5000) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "small"
    for name in (
        "aligned/0/cuts.jsonl.gz",
        "aligned/0/features/w/a.tar",
        "human/0/info.json",
        "spoken/x/features/b.tar",
    ):
        fill(folder / name)
    for name in (
        "texts/mix.jsonl",
        "clusters/info.json",
        "probe/stage_one/p.json",
        "selected/s.json",
        "human_split.json",
    ):
        fill(folder / name)
    for stage in ("stage_one", "stage_two"):
        fill(folder / stage / "model" / "model.safetensors", folder / stage / "curve.json")
        fill(folder / stage / "checkpoints" / "step-00000010" / "state.json")
        fill(folder / stage / "checkpoints" / "pre_decay" / "state.json")
    fill(folder / "measured" / "stage_one.json", folder / "results.json", folder / "report.html")
    fill(folder / "recipe.yaml", folder / ".lock", size=1)
    for step in STEPS:
        write_json(folder / "steps" / f"{step.name}.json", {"key": "k", "for": {}, "wall_s": 1.0, "report": {}})
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SALAD_CACHE", str(tmp_path / "cache"))
    fill(tmp_path / "cache" / "assets" / "wordnet" / "data.noun", tmp_path / "cache" / "assets" / "mine" / "x")
    fill(tmp_path / "cache" / "transcripts" / ("a" * 32) / "t.json", tmp_path / "cache" / "hashes" / f"{'b' * 32}.json")
    fill(tmp_path / "cache" / "diary.txt", tmp_path / "cache" / "derived" / "holiday.jpg")
    return tmp_path / "cache"


def salad(*words: str, cwd: Path, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("salad")
    return subprocess.run(
        [program, *words], capture_output=True, text=True, cwd=cwd, input=stdin, env={**os.environ, **env}, check=False
    )


def gone(place, only=None, keep=("model", "results")):
    freed = []
    left = remove(place, chosen(place, only, keep), lambda _, num_bytes: freed.append(num_bytes))
    return sum(freed), left


def test_every_output_of_a_step_and_its_marks_are_in_the_table(run):
    for step in (*STEPS, *STAGE_THREE):
        for output in step.outputs:
            parts = [p for p in RUN_PARTS if output.split("/")[0] in p.patterns]
            assert len(parts) == 1, f"{output} of {step.name} lies in {[p.name for p in parts]}"
            assert step.name in parts[0].steps
    features = next(p for p in RUN_PARTS if p.name == "features")
    speech = next(p for p in RUN_PARTS if p.name == "speech")
    assert set(features.steps) <= set(speech.steps)
    assert {"recipe.yaml", "steps", ".lock"} == set(RUN_ITSELF)


def test_every_place_in_the_cache_that_the_code_writes_is_listed():
    used = {
        name
        for path in SOURCE.rglob("*.py")
        for name in re.findall(r'cache_dir\(\) / "(\w+)"', path.read_text(encoding="utf-8"))
    }
    assert used == {part.name for part in CACHE_PARTS} - {"leftovers"}


def test_what_can_be_made_again_goes_and_its_steps_are_to_do(run):
    before, _ = disk_use([run])
    place = run_place(run)
    assert not place.foreign
    assert place.num_bytes == pytest.approx(sum(disk_use(one.paths)[0] for one in place.found if not one.part.inside))
    freed, left = gone(place)
    assert not left
    assert freed == pytest.approx(before - disk_use([run])[0], abs=len(STEPS) * 8192)  # marks and folders
    assert not (run / "aligned").exists()
    assert not (run / "stage_one/checkpoints/step-00000010").exists()
    assert (run / "stage_one/checkpoints/pre_decay/state.json").is_file(), "Stage II begins there"
    assert (run / "stage_two/model/model.safetensors").is_file()
    assert (run / "results.json").is_file()
    done = {path.stem for path in (run / "steps").glob("*.json")}
    assert done == {"stage_one", "stage_two", "stage_two_uniform", "measure_one", "measure_two", "report"}


def test_only_the_named_part_goes_and_the_whole_run_can(run):
    gone(run_place(run), only=["features"])
    assert not list(run.glob("*/*/features"))
    assert (run / "aligned/0/cuts.jsonl.gz").is_file()
    assert {path.stem for path in (run / "steps").glob("*.json")} == {s.name for s in STEPS} - {
        "encode",
        "speak",
        "synthesize",
    }
    gone(run_place(run), keep=())
    assert not run.exists()


def test_what_is_inside_of_what_goes_cannot_stay(run):
    with pytest.raises(RecipeError, match="features lie inside of speech"):
        chosen(run_place(run), None, ["features"])


def test_a_stage_that_is_not_done_keeps_its_checkpoints(run):
    (run / "steps" / "stage_two.json").unlink()
    place = run_place(run)
    assert any("stage_two is not done" in note for note in place.notes)
    gone(place)
    assert (run / "stage_two/checkpoints/step-00000010/state.json").is_file()
    assert not (run / "stage_one/checkpoints/step-00000010").exists()


def test_a_run_in_progress_is_not_touched(run):
    with (run / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RecipeError, match="another process works in"):
            gone(run_place(run))
    assert (run / "aligned/0/features/w/a.tar").is_file()
    assert (run / "steps/encode.json").is_file()


def test_what_another_process_holds_is_left_and_said(cache):
    lock = cache / "transcripts" / ("a" * 32) / ".lock"
    fill(lock, size=0)
    beside = cache / "assets" / ".wordnet.lock"
    fill(beside, size=0)
    with lock.open() as one, beside.open() as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        fcntl.flock(two, fcntl.LOCK_EX)
        _, left = gone(cache_place(), keep=())
    assert len(left) == 2
    assert all("in use" in said for said in left)
    assert (cache / "assets/wordnet/data.noun").is_file()
    gone(cache_place(), keep=())
    assert not (cache / "assets/wordnet").exists()


def test_what_a_living_process_writes_is_left(cache):
    fill(cache / "assets" / f".tmp-{os.getppid()}-x" / "half", cache / "hashes" / ".tmp-999999999-y")
    _, left = gone(cache_place(), keep=())
    assert len(left) == 1
    assert f"process {os.getppid()}" in left[0]
    assert not (cache / "hashes" / ".tmp-999999999-y").exists()


def test_links_are_not_followed(run, cache, tmp_path):
    treasure = tmp_path / "treasure"
    before = run_place(run).num_bytes
    fill(treasure / "a", treasure / "features" / "b", size=100_000)
    (run / "spoken" / "linked").symlink_to(treasure)
    (run / "selected" / "far").symlink_to(treasure)
    (cache / "converted").symlink_to(treasure)
    (treasure / "x-float32").mkdir()
    assert run_place(run).num_bytes < before + 100_000
    gone(run_place(run), keep=())
    gone(cache_place(), keep=())
    assert (treasure / "a").is_file()
    assert (treasure / "features/b").is_file()
    assert (treasure / "x-float32").is_dir()
    (tmp_path / "other").symlink_to(treasure)
    with pytest.raises(DataError, match="is a link"):
        run_place(tmp_path / "other")


def test_what_is_not_salads_stays(run, cache):
    fill(run / "notes.txt")
    gone(run_place(run), keep=())
    assert [path.name for path in run.iterdir() if path.name not in RUN_ITSELF] == ["notes.txt"]
    assert (run / "recipe.yaml").is_file(), "the folder is still a run's"
    gone(cache_place(), keep=())
    assert sorted(p.relative_to(cache).as_posix() for p in cache.rglob("*") if p.is_file()) == [
        "assets/mine/x",
        "derived/holiday.jpg",
        "diary.txt",
    ]
    (run / "recipe.yaml").unlink()
    with pytest.raises(DataError, match="no run of salad"):
        run_place(run)


def test_a_deletion_that_was_killed_is_finished_by_the_next(run):
    fill(run / "aligned" / ".tmp-999999999-0" / "cuts.jsonl.gz", run / ".tmp-999999999-spoken" / "a.flac")
    (leftovers,) = [one for one in run_place(run).found if one.part.name == "leftovers"]
    assert len(leftovers.paths) == 2
    gone(run_place(run), only=["leftovers"])
    assert not list(run.rglob(".tmp-*"))


def test_the_verb_lists_asks_and_deletes(run, cache):
    home = run.parents[1]
    listed = salad("clean", cwd=home)
    assert listed.returncode == 0
    assert "Nothing was deleted" in listed.stdout
    assert "run runs/small" in listed.stdout
    refused = salad("clean", "runs/small", cwd=home)
    assert refused.returncode == 2
    assert "add --yes" in refused.stderr
    dry = json.loads(salad("clean", "runs/small", "cache", "--dry-run", "--json", cwd=home).stdout)
    assert (dry["deleted"], dry["freed_bytes"], [p["kind"] for p in dry["places"]]) == (False, 0, ["run", "cache"])
    assert (run / "aligned").is_dir()
    wrong = salad("clean", "runs/small", "--only", "feature", "--yes", cwd=home)
    assert (wrong.returncode, "no part 'feature'" in wrong.stderr) == (2, True)
    elsewhere = salad("clean", str(home), "--yes", cwd=home)
    assert (elsewhere.returncode, "no run of salad" in elsewhere.stderr) == (2, True)
    done = salad("clean", "runs/small", "--yes", cwd=home)
    assert done.returncode == 0
    assert "freed" in done.stdout
    assert not (run / "aligned").exists()
