"""Stage II from its page: where it begins, what it hears and reads, and how its rate falls."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny
from salad.distill.checkpoint import load_optimizer
from salad.distill.loop import make_optimizer
from salad.files import read_json
from salad.model.speech_lm import SpeechLM
from salad.recipe import Recipe, parse_recipe
from salad.stage_one import PRE_DECAY, stage_one
from salad.stage_two import stage_two
from salad.texts.text import Text

pytestmark = pytest.mark.usefixtures("one_thread")

SPOKEN, CHOSEN = tiny.utterances(10), [tiny.utterance(f"s{i}", 9 + i % 3) for i in range(5)]
READ = ("the quiet river", "she listens, he speaks; and it was evening")
TEXTS = [Text(f"t{i}", text, "any", "tests", "CC0") for i, text in enumerate(READ)]
STEPS_ONE, DECAY, STEPS_TWO, BATCH = 5, 3, 4, 6  # of Stage I, of them before the decay; of Stage II
STILL = {"adapter_rate": 1e-14, "llm_rate": 1e-14}  # less than float32 can tell


def recipe_of(llm: Path, **two: Any) -> Recipe:
    stage = {"batch_sequences": BATCH, "checkpoint_every": 2, "warm_start": {"steps": 0}}
    rates = {"optimizer": {"adapter_rate": 3e-3, "llm_rate": 3e-3}}
    return parse_recipe(
        {
            "name": "tiny",
            "threads": 1,
            "model": tiny.model_settings("lora", str(llm)).model_dump(mode="json"),
            "sequence": {"policy": "speech_prefix"},
            "stage_one": {**stage, **rates, "steps": STEPS_ONE, "warmup_steps": 1, "decay_frac": 0.4},
            "stage_two": {**stage, "steps": STEPS_TWO, "optimizer": STILL, **two},
            "engine": {"tracker": "none"},
        },
        "tiny.yaml",
    )


def quiet(done: int, total: int, note: str = "") -> None:
    """No progress shown."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Stage I, and a Stage II that moves nothing."""
    home = tmp_path_factory.mktemp("stages")
    llm, one, two = tiny.save_llm(home / "llm"), home / "stage_one", home / "stage_two"
    recipe = recipe_of(llm)
    assert stage_one(recipe, [SPOKEN], TEXTS, SPOKEN[:2], tiny.ENCODER_DIM, tiny.ENCODER_HZ, one, quiet) == []
    assert stage_two(recipe, one, [SPOKEN[:7], SPOKEN[7:]], CHOSEN, TEXTS, SPOKEN[:2], two, quiet) == []
    return SimpleNamespace(llm=llm, one=one, two=two, recipe=recipe)


def weights(folder: Path, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(folder / name)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.allclose(weight, other[name], rtol=1e-6, atol=1e-9) for name, weight in one.items()
    )


def test_what_is_kept_of_stage_one_is_its_last_step_before_the_decay(done: SimpleNamespace) -> None:
    kept = read_json(done.one / "checkpoints" / PRE_DECAY / "state.json")["state"]
    rates = [row["rate_factor"] for row in read_json(done.one / "curve.json")]
    assert rates == pytest.approx([1.0] * DECAY + [1.0, 0.5])  # the decay's first step is still at the peak
    assert len(kept["reports"]) == DECAY


def test_it_goes_on_from_the_weights_before_the_decay(done: SimpleNamespace) -> None:
    before = weights(done.one / "checkpoints" / PRE_DECAY, "weights.safetensors")
    assert same(weights(done.two / "model"), before)
    assert not same(weights(done.two / "model"), weights(done.one / "model"))


def test_it_goes_on_with_the_optimizers_state_of_then(done: SimpleNamespace) -> None:
    student = SpeechLM.from_pretrained(done.two / "model")
    optimizer = make_optimizer(student, done.recipe.stage_two.optimizer)
    load_optimizer(done.two / "checkpoints" / f"step-{STEPS_TWO:08d}", student, optimizer)
    assert {int(state["step"]) for state in optimizer.state.values()} == {DECAY + STEPS_TWO}


def test_natural_speech_selected_speech_and_text_are_in_equal_parts(done: SimpleNamespace) -> None:
    rows = read_json(done.two / "curve.json")
    seven, three, selected, texts = (sum(row["drawn"][source][0] for row in rows) for source in range(4))
    assert [seven + three, selected, texts] == [STEPS_TWO * BATCH / 3] * 3
    assert seven > three > 0  # corpora by their numbers of utterances


def test_the_rate_falls_linearly_from_its_peak(done: SimpleNamespace) -> None:
    rates = [row["rate_factor"] for row in read_json(done.two / "curve.json")]
    assert rates == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_its_warm_start_moves_the_adapter_alone(done: SimpleNamespace, tmp_path: Path) -> None:
    recipe = recipe_of(done.llm, warm_start={"steps": 3, "batch_positions": 64})
    assert stage_two(recipe, done.one, [SPOKEN], CHOSEN, TEXTS, SPOKEN[:2], tmp_path, quiet) == []
    before, after = weights(done.two / "model"), weights(tmp_path / "model")
    moved = {name for name, weight in after.items() if not same({name: weight}, {name: before[name]})}
    assert moved
    assert all(name.startswith("adapter.") for name in moved)
