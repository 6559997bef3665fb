"""A run that starts from a finished model: how the model is found and refused, and what Stage II goes on from."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import tiny
from salad import take_home
from salad.card.bill import read_bill
from salad.cli import app
from salad.deviations import deviations
from salad.distill.checkpoint import load_weights
from salad.errors import AssetError, CheckpointError, RecipeError
from salad.model.speech_lm import SpeechLM
from salad.pushing import export
from salad.recipe import Recipe, load_recipe, parse_recipe, save_recipe
from salad.stage_one import PRE_DECAY, stage_one
from salad.steps.inputs import llm_and_start
from salad.taking_over import start_model, take_over
from salad.texts.text import Text

pytestmark = pytest.mark.usefixtures("one_thread")

REPO = Path(__file__).parents[1]
ENCODER_DIM, ENCODER_HZ = 80, 100.0  # log-mel
TEXTS = [Text("t0", "the quiet river of the evening", "any", "tests", "CC0")]


def heard(utterance: Any) -> Any:
    frames_FE = np.tile(np.repeat(utterance.features_FE, 2, axis=0), (1, ENCODER_DIM // tiny.ENCODER_DIM))
    return dataclasses.replace(utterance, features_FE=frames_FE)


def recipe_of(folder: Path, start: Path | str | None = None, name: str = "tiny", **model: Any) -> Recipe:
    settings = tiny.model_settings("lora", str(folder)).model_dump(mode="json") | {"encoder": "log-mel"}
    one: dict[str, Any] = {"steps": 4, "batch_sequences": 2, "warmup_steps": 0, "warm_start": {"steps": 0}}
    one |= {"decay_frac": 0.5, "checkpoint_every": 9, "optimizer": {"adapter_rate": 0.05, "llm_rate": 0.05}}
    one |= {} if start is None else {"start": str(start)}
    sequence = {"policy": "speech_prefix", "max_positions": 600}
    engine = {"tracker": "none", "device": "cpu"}
    tree = {"name": name, "threads": 1, "model": settings | model, "sequence": sequence, "engine": engine}
    return parse_recipe(tree | {"stage_one": one}, "tiny.yaml")


def train(llm: Path, out: Path) -> Path:
    """A run folder with a Stage I of four steps, two of them decay."""
    speech = [heard(utterance) for utterance in tiny.utterances(6)]
    stage_one(recipe_of(llm), [speech], TEXTS, [], ENCODER_DIM, ENCODER_HZ, out / "stage_one", lambda *_: None)
    return out


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def earlier(llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(llm, tmp_path_factory.mktemp("earlier"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(weight, other[name]) for name, weight in one.items())


def taken(recipe: Recipe, out: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The weights of the model that is written, and those that Stage II goes on from, loaded as it loads them."""
    take_over(recipe, ENCODER_DIM, ENCODER_HZ, out)
    student = SpeechLM.from_pretrained(out / "model")
    final = {name: weight.clone() for name, weight in student.trained_state().items()}
    load_weights(out / "checkpoints" / PRE_DECAY, student)
    return final, student.trained_state()


def test_a_run_lends_its_model_and_its_weights_before_the_decay(llm: Path, earlier: Path, tmp_path: Path) -> None:
    recipe = recipe_of(llm, earlier)
    final, before = taken(recipe, tmp_path / "out")
    assert same(final, load_file(earlier / "stage_one/model/model.safetensors"))
    assert same(before, load_file(earlier / f"stage_one/checkpoints/{PRE_DECAY}/weights.safetensors"))
    assert not same(final, before)
    assert f"it is {earlier}, taken over; Stage II goes on from its weights before the decay." in " ".join(
        deviations(recipe)
    )
    assert not any("Of Stage I's" in sentence or "start before Stage I;" in sentence for sentence in deviations(recipe))
    assert any("warm start before Stage II;" in sentence for sentence in deviations(recipe))


def test_a_model_alone_lends_its_final_weights_twice(llm: Path, earlier: Path, tmp_path: Path) -> None:
    shutil.copytree(earlier / "stage_one" / "model", tmp_path / "alone" / "deep" / "model")
    recipe = recipe_of(llm, tmp_path / "alone" / "deep" / "model")
    final, before = taken(recipe, tmp_path / "out")
    assert same(final, before)
    assert "from its final weights" in " ".join(deviations(recipe))


def test_the_bill_has_what_the_model_was_trained_on_and_says_it_was_taken_over(
    llm: Path, earlier: Path, tmp_path: Path
) -> None:
    take_over(recipe_of(llm, earlier, "later"), ENCODER_DIM, ENCODER_HZ, tmp_path)
    (own,) = read_bill(earlier / "stage_one" / "model")["training"]
    bill = read_bill(tmp_path / "model")
    assert bill["name"] == "later"
    (part,) = bill["training"]
    assert part["taken_over_from"] == str(earlier)
    assert {key: part[key] for key in own} == own
    assert own["steps"] == 4
    assert read_bill(tmp_path / "checkpoints" / PRE_DECAY)["training"][0]["steps"] == 2
    assert f"## Data of stage one, taken over from {earlier}" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": "whisper-tiny.en"}, "model.encoder is 'log-mel' there and 'whisper-tiny.en' here"),
        ({"train_llm": "full"}, "model.train_llm is 'lora' there and 'full' here"),
        ({"lora": {"rank": 8}}, "model.lora.rank is 4 there and 8 here, model.lora.alpha is 8.0 there and 32.0 here"),
        ({"adapter": {"frames_per_position": 2}}, "model.adapter.frames_per_position is 4 there and 2 here"),
        ({"llm": "smollm2-135m-instruct"}, "there and 'smollm2-135m-instruct' here"),
    ],
)
def test_another_model_is_refused_by_the_keys_that_differ(
    llm: Path, earlier: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=r"stage_one\.start=.* does not fit this recipe") as refused:
        start_model(recipe_of(llm, earlier, **changes))
    assert said in str(refused.value)
    assert str(refused.value).count("\n") == 0


def test_a_damaged_model_and_none_are_refused(llm: Path, earlier: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no model at"):
        start_model(recipe_of(llm, tmp_path / "none"))
    shutil.copytree(earlier / "stage_one" / "model", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="is damaged"):
        take_over(recipe_of(llm, tmp_path / "model"), ENCODER_DIM, ENCODER_HZ, tmp_path / "out")


def test_the_packages_own_model_by_its_name(llm: Path, earlier: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("SALAD_CACHE", str(tmp_path / "cache"))
    recipe = recipe_of(llm, take_home.NAME)
    monkeypatch.setattr(take_home, "FOLDER", tmp_path / "shipped")
    with pytest.raises(AssetError, match="this build of salad comes without its model"):
        start_model(recipe)
    key = f"stage_one.start ({take_home.NAME})"
    assert llm_and_start(recipe)[key] is None
    monkeypatch.setattr("salad.pushing._refuse_local_llm", lambda _: None)  # the tiny LLM is a folder
    export(earlier, tmp_path / "shipped", take_home.NAME, "float16", pre_decay=True)
    config = tmp_path / "shipped" / "config.json"  # whose path the export has cut down to its last part
    config.write_text(json.dumps(json.loads(config.read_text()) | {"llm": str(llm)}))
    final, before = taken(recipe, tmp_path / "out")
    trained = load_file(earlier / f"stage_one/checkpoints/{PRE_DECAY}/weights.safetensors")
    assert same(before, {name: weight.half().float() for name, weight in trained.items()})
    assert not same(final, before)
    known = llm_and_start(recipe)[key]
    (tmp_path / "shipped" / "data_bill.json").write_text("{}")  # as when it is measured
    assert llm_and_start(recipe)[key] == known
    (tmp_path / "shipped" / "pre_decay.safetensors").write_bytes(b"other")
    assert llm_and_start(recipe)[key] not in (None, known)


def test_a_run_is_refused_before_its_first_step(llm: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(save_recipe(recipe_of(llm, tmp_path / "none")))
    done = CliRunner().invoke(app, ["run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")])
    assert isinstance(done.exception, CheckpointError)
    assert not (tmp_path / "run").exists()


def test_the_shipped_recipe_is_the_demos_from_stage_two_on() -> None:
    """But for the split, which is the model's own: what is held out it has never heard; and it needs no warm start."""
    demo, shipped, made = (load_recipe(REPO / "recipes" / f"{n}.yaml") for n in ("demo", "demo-shipped", "take-home"))
    assert shipped.stage_one.start == take_home.NAME
    assert shipped.stage_two.warm_start.steps == 0
    assert (shipped.seed, shipped.data) == (made.seed, made.data.model_copy(update={"human": "debian-prompts"}))
    two = shipped.stage_two.model_copy(update={"warm_start": demo.stage_two.warm_start})
    like = {"name": "demo", "stage_one": demo.stage_one, "stage_two": two, "data": demo.data}
    assert shipped.model_copy(update=like) == demo
