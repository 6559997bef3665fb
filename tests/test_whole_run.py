"""The whole of the method on real small models and real speech, as its user runs it: through the command line.

Second tier (`slow`): a few minutes. A cut of the demo's recipe, with its own human speech, texts, voice, encoder, LLM.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from processes import torchrun
from salad.speech.align import align_folder
from salad.speech.corpora import debian_prompts, folder
from salad.speech.prepared import read_cuts, text_of

REPO = Path(__file__).parents[1]
SMALL = {
    "data.heldout_human": 6,
    "data.heldout_texts": 10,
    "data.mix_texts": 40,
    "data.pool_texts": 120,
    "stage_one.steps": 3,
    "stage_one.batch_sequences": 4,
    "stage_one.checkpoint_every": 1,
    "stage_one.warm_start.steps": 6,
    "stage_one.warmup_steps": 1,
    "stage_two.steps": 2,
    "stage_two.batch_sequences": 4,
    "stage_two.checkpoint_every": 1,
    "stage_two.num_clusters": 3,
    "stage_two.probe_texts": 2,
    "stage_two.budget_frac": 0.2,
    "stage_two.warm_start.steps": 4,
    "measure.num_bootstrap": 200,
    "measure.task_items": 5,
}
NOT_COMPARED = {"wall_s", "command"}

pytestmark = [pytest.mark.slow, pytest.mark.assets, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def human(tmp_path_factory: pytest.TempPathFactory) -> str:
    """60 prompts as a user would bring them: half in a folder with a manifest, half prepared and aligned before."""
    prompts, bare, aligned = (tmp_path_factory.mktemp(name) for name in ("prompts", "bare", "aligned"))
    debian_prompts.prepare(prompts)
    long_enough = [cut for cut in read_cuts(prompts) if len(text_of(cut).split()) >= 5 and cut.duration < 8]
    rows = [{"id": cut.id, "audio": cut.recording.sources[0].source, "text": text_of(cut)} for cut in long_enough[:60]]
    (bare / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:30]))
    (prompts / "second.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[30:]))
    folder.prepare(prompts, aligned, "second.jsonl")
    align_folder(aligned, "whisper:whisper-tiny.en", threads=2)
    return f"[{bare}, {aligned}]"


def command(human: str, out: Path, *more: str) -> list[str]:
    sets = [f"--set={key}={value}" for key, value in {**SMALL, "data.human": human}.items()]
    return [sys.executable, "-m", "salad", "run", str(REPO / "recipes/demo.yaml"), "--out", str(out), *sets, *more]


def environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1"}


def numbers(run: Path) -> dict[str, Any]:
    results = json.loads((run / "results.json").read_text())
    for arm in results["arms"]:
        for point in arm["curve"]:
            del point["seconds"]
    return {key: value for key, value in results.items() if key not in NOT_COMPARED}


@pytest.fixture(scope="module")
def finished(human: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    done = subprocess.run(command(human, out), env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


def test_results_have_what_the_schema_promises(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert [arm["name"] for arm in results["arms"]] == ["untrained", "stage_one", "stage_two", "stage_two_uniform"]
    for arm in results["arms"]:
        for key in (
            "misalignment_nats",
            "misalignment_swapped_nats",
            "hearing_nats",
            "misalignment_human_nats",
            "forgetting_nats",
        ):
            estimate = arm[key]
            assert estimate["low"] <= estimate["value"] <= estimate["high"], (arm["name"], key)
            assert estimate["n"] > 0
        assert set(arm["task"]) == {"text", "speech"}
    untrained = results["arms"][0]
    assert untrained["forgetting_nats"]["value"] == pytest.approx(0.0, abs=1e-6)
    assert untrained["task"]["text"] == results["topline"]
    assert results["arms"][2]["forgetting_nats"]["value"] > 0
    assert results["speech"]["human_s"] > 60
    assert results["speech"]["synthetic_s"] > 10
    assert sum(cluster["selected"] for cluster in results["clusters"]) > 0
    assert set(results["wall_s"]) >= {"prepare", "align", "stage_one", "probe", "stage_two"}
    assert "salad" in (finished / "report.html").read_text()


def test_a_finished_run_has_nothing_to_do(finished: Path, human: str) -> None:
    before = (finished / "results.json").stat().st_mtime_ns
    again = subprocess.run(command(human, finished), env=environment(), capture_output=True, text=True, check=True)
    assert "] prepare" not in again.stdout
    assert (finished / "results.json").stat().st_mtime_ns == before


def test_the_report_step_alone(finished: Path, human: str) -> None:
    (finished / "report.html").unlink()
    subprocess.run(command(human, finished, "--only", "report"), env=environment(), check=True, capture_output=True)
    assert (finished / "report.html").is_file()


def test_measure_and_ask_on_the_run(finished: Path) -> None:
    speech = finished / "spoken" / "heldout"
    subprocess.run([sys.executable, "-m", "salad", "encode", str(speech)], env=environment(), check=True)
    measure = [sys.executable, "-m", "salad", "measure", str(finished), "--speech", str(speech), "--json", "--deaf-ok"]
    result = json.loads(subprocess.run(measure, env=environment(), check=True, capture_output=True).stdout)
    arm = json.loads((finished / "results.json").read_text())["arms"][2]
    assert result["misalignment_nats"]["value"] == pytest.approx(arm["misalignment_nats"]["value"], abs=1e-4)
    assert result["forgetting_nats"]["value"] == pytest.approx(arm["forgetting_nats"]["value"], abs=1e-4)
    audio = read_cuts(speech)[0].recording.sources[0].source
    ask = [sys.executable, "-m", "salad", "ask", str(finished), audio, "--max-tokens", "5", "--json"]
    assert "answer" in json.loads(subprocess.run(ask, env=environment(), check=True, capture_output=True).stdout)


def test_stage_three_goes_on_from_a_finished_run(finished: Path, human: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    three = {"steps": 3, "batch_sequences": 4, "checkpoint_every": 2, "refresh_steps": 2, "warmup_steps": 1}
    three |= {"continuation_tokens": 6, "rollouts_at_once": 4}
    words = command(human, out, *(f"--set=stage_three.{key}={value}" for key, value in three.items()))
    told = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout[-3000:] + told.stderr[-3000:]
    assert re.findall(r"^\[\d+/18\] (\w+)", told.stdout, re.M) == ["stage_three", "measure_three", "report"]
    before, results = (json.loads((run / "results.json").read_text()) for run in (finished, out))
    assert [arm["name"] for arm in results["arms"]] == [*(arm["name"] for arm in before["arms"]), "stage_three"]
    assert [arm["misalignment_nats"] for arm in results["arms"][:-1]] == [
        arm["misalignment_nats"] for arm in before["arms"]
    ]
    assert results["comparisons"][-1]["better"] == "stage_three"
    assert results["bill"][-1]["on_policy"]["tokens"] > 0
    assert "There is a Stage III" in " ".join(results["deviations"])
    assert "Stage III" in (out / "report.html").read_text()
    without = subprocess.run(command(human, out), env=environment(), capture_output=True, text=True, check=True)
    assert re.findall(r"^\[\d+/16\] (\w+)", without.stdout, re.M) == ["report"]
    assert numbers(out) == numbers(finished)


STAGE_ONE = {"stage_one", "measure_one", "report"}


@pytest.mark.parametrize(("parallel", "again"), [("ddp", None), ("fsdp", STAGE_ONE)])
def test_two_processes_come_to_the_misalignment_of_one(
    finished: Path, human: str, tmp_path: Path, parallel: str, again: set[str] | None
) -> None:
    """All from Stage I on, or the steps named, done again by two processes."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    before_training = {"prepare", "align", "encode", "embed", "cluster", "speak"}
    for mark in sorted((out / "steps").glob("*.json")):
        if mark.stem not in before_training if again is None else mark.stem in again:
            mark.unlink()
    words = command(human, out, f"--set=engine.parallel={parallel}")
    process = torchrun(*words[1:])
    told, err = process.communicate()
    assert process.returncode == 0, told[-3000:] + err[-3000:]
    way = {"ddp": "DDP", "fsdp": "FSDP2"}[parallel]
    assert told.count(f"On 2 processes (gloo, CPU), {way}.") == 1
    assert len(re.findall(r"^\[\d+/\d+\] stage_one", told, re.M)) == 1
    assert "] prepare" not in told
    one, two = (json.loads((run / "results.json").read_text()) for run in (finished, out))
    assert two["trained_on"]["stage_one"] == {"ranks": 2, "parallel": parallel, "device": "CPU"}
    assert one["trained_on"]["stage_one"] == {"ranks": 1, "parallel": None, "device": "CPU"}
    for ours, theirs in zip(two["arms"], one["arms"], strict=True):
        for key in ("misalignment_nats", "misalignment_human_nats", "forgetting_nats"):
            # Stage II's few steps here are AdamW's first ones, the signs of gradients, which blow rounding up.
            near = 0.01 if ours["name"] in ("untrained", "stage_one") else 0.1
            assert ours[key]["value"] == pytest.approx(theirs[key]["value"], abs=near), (ours["name"], key)


@pytest.mark.kill
def test_killed_at_random_moments_it_ends_with_the_same_numbers(finished: Path, human: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    moments = random.Random(7)
    kills = 0
    while kills < 6:
        process = subprocess.Popen(
            command(human, out), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + moments.uniform(8, 20)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    last = subprocess.run(command(human, out), env=environment(), capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr[-3000:]
    assert kills > 0
    assert numbers(out) == numbers(finished)
