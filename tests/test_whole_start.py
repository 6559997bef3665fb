"""A whole run that starts from a saved model, as its user runs it: real speech, texts and voice, a tiny LLM.

Second tier (`slow`): about a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import test_starting
import tiny
from salad import take_home
from salad.card.bill import read_bill
from salad.cli import app
from salad.model.saved import WEIGHTS_NAME
from salad.pushing import export
from salad.speech.corpora import debian_prompts
from salad.speech.prepared import read_cuts, text_of

pytestmark = [pytest.mark.slow, pytest.mark.assets, pytest.mark.timeout(600), pytest.mark.usefixtures("one_thread")]

SMALL: dict[str, Any] = {
    "data": {"text": "wordnet", "heldout_human": 4, "heldout_texts": 6, "mix_texts": 20, "pool_texts": 40},
    "stage_two": {
        "steps": 2,
        "batch_sequences": 4,
        "num_clusters": 2,
        "probe_texts": 2,
        "budget_frac": 0.2,
        "max_cer": 1.0,
        "warm_start": {"steps": 2},
    },
    "measure": {"num_bootstrap": 50, "task_items": 4},
}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that came to Stage I."""
    home = tmp_path_factory.mktemp("earlier")
    return test_starting.train(tiny.save_llm(home / "llm"), home / "run")


@pytest.fixture(scope="module")
def command(earlier: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    home, prompts = (tmp_path_factory.mktemp(name) for name in ("later", "prompts"))
    debian_prompts.prepare(prompts)
    cuts = [cut for cut in read_cuts(prompts) if len(text_of(cut).split()) >= 5 and cut.duration < 6][:16]
    rows = [{"id": cut.id, "audio": cut.recording.sources[0].source, "text": text_of(cut)} for cut in cuts]
    (prompts / "few").mkdir()
    (prompts / "few" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = test_starting.recipe_of(earlier.parent / "llm", earlier).model_dump(mode="json", exclude_unset=True)
    recipe |= SMALL | {"data": SMALL["data"] | {"human": str(prompts / "few")}}
    (home / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return [sys.executable, "-m", "salad", "run", str(home / "recipe.yaml"), "--out", str(home / "run")]


@pytest.fixture(scope="module")
def run(command: list[str]) -> tuple[Path, str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return Path(command[-1]), done.stdout


def test_it_measures_the_model_it_started_from_and_goes_on_from_it(run: tuple[Path, str], earlier: Path) -> None:
    folder, told = run
    assert f"Stage I is not trained here: it is {earlier}" in " ".join(told.split())
    results = json.loads((folder / "results.json").read_text())
    assert [arm["name"] for arm in results["arms"]] == ["stage_one", "stage_two", "stage_two_uniform"]
    assert [arm.get("taken_over_from") for arm in results["arms"]] == [str(earlier), None, None]
    assert results["arms"][0]["curve"] == []
    assert results["arms"][0]["forgetting_nats"]["value"] > 0
    assert 0 <= results["topline"]["value"] <= 1
    assert results["topline"]["n"] == results["cascade"]["n"] == 4
    assert results["conditions"]["warm_start"] is False
    assert [(part["stage"], part.get("taken_over_from")) for part in results["bill"]] == [
        ("stage_one", str(earlier)),
        ("stage_two", None),
        ("stage_two_uniform", None),
    ]
    assert f"it started from {earlier}" in (folder / "report.html").read_text()
    assert (folder / "stage_one" / "model" / WEIGHTS_NAME).read_bytes() == (
        earlier / "stage_one" / "model" / WEIGHTS_NAME
    ).read_bytes()


def test_the_last_models_bill_begins_with_what_it_started_from(run: tuple[Path, str], earlier: Path) -> None:
    first, second = read_bill(run[0] / "stage_two" / "model")["training"]
    assert (first["taken_over_from"], first["steps"]) == (str(earlier), 2)
    assert second["stage"] == "stage_two"
    assert second["steps"] == 2


def test_rounded_weights_are_measured_again_on_what_the_run_held_out(
    run: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salad.pushing._refuse_local_llm", lambda _: None)  # its tiny LLM is nowhere but here
    stage = run[0] / "stage_one"
    export(stage / "model", tmp_path / "out", take_home.NAME, "float16", measure=True)
    again = read_bill(tmp_path / "out")["results"]
    arm = json.loads((run[0] / "results.json").read_text())["arms"][0]
    for name in ("misalignment_nats", "hearing_nats", "misalignment_human_nats", "forgetting_nats"):
        assert again[name]["value"] == pytest.approx(arm[name]["value"], rel=0.05, abs=0.01)
        assert again[name]["n"] == arm[name]["n"]
    assert again["misalignment_nats"]["value"] != arm["misalignment_nats"]["value"], "other weights, other numbers"
    assert again["topline"]["n"] == again["task"]["speech"]["n"] == 4
    card = (tmp_path / "out" / "README.md").read_text()
    assert "topline: accuracy of the text LLM" in card
    assert "Not yet." not in card


def test_another_start_redoes_stage_one_and_what_follows(run: tuple[Path, str], command: list[str]) -> None:
    steps = ["steps", *command[4:], "--json"]
    assert {row["state"] for row in json.loads(CliRunner().invoke(app, steps).stdout)} == {"done"}
    other = CliRunner().invoke(app, [*steps, f"--set=stage_one.start={run[0]}"])
    kept = {row["step"] for row in json.loads(other.stdout) if row["state"] == "done"}
    assert kept == {"prepare", "align", "encode", "embed", "cluster", "speak"}
