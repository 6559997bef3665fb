"""Every recipe in recipes/ loads and is planned; the paper's have the paper's numbers, those that follow included."""

from functools import cache
from pathlib import Path

import pytest

from salad.errors import RecipeError
from salad.plan.plan import plan
from salad.recipe import load_recipe

RECIPES = {path.stem: path for path in sorted((Path(__file__).resolve().parents[1] / "recipes").glob("*.yaml"))}
GPUS = {"qwen2.5-3b": (8, 80.0), "qwen2.5-7b": (8, 80.0), "smollm2-135m": (1, 12.0), "smollm2-1.7b": (1, 24.0)}
PAPER = {  # sections 2 to 5 of the paper
    "model.encoder": "kyutai/mimi",
    "model.train_llm": "full",
    "model.encoder_sizes.dim": 512,
    "model.encoder_sizes.hz": 12.5,
    "model.adapter.kind": "paper",
    "model.adapter.num_layers": 12,
    "model.adapter.hidden_size": 960,
    "model.adapter.intermediate_size": 2560,
    "model.adapter.num_heads": 15,
    "model.adapter.num_key_value_heads": 5,
    "model.adapter.frames_per_position": 1,
    "sequence.policy": "interleaved",
    "sequence.text_words": (10, 30),
    "sequence.speech_words": (5, 15),
    "sequence.max_positions": 2048,
    "stage_one.alpha": 1.0,
    "stage_one.divergence": "forward_kl",
    "stage_one.text_frac": pytest.approx(1 / 3),
    "stage_one.warmup_steps": 500,
    "stage_one.decay_frac": 0.2,
    "stage_one.optimizer.weight_decay": 0.1,
    "stage_one.warm_start.steps": 0,
    "stage_two.alpha": 1.0,
    "stage_two.divergence": "forward_kl",
    "stage_two.optimizer.weight_decay": 0.1,
    "stage_two.warm_start.steps": 0,
    "stage_two.num_clusters": 128,
    "stage_two.gamma": 5.0,
    "stage_two.budget_frac": 0.01,
    "voice": "kokoro-af_heart",
    "embedder": "BAAI/bge-large-en-v1.5",
    "expected.natural_h": 141_612,
}
BY_SIZE = {
    "qwen2.5-3b": {"model.llm": "Qwen/Qwen2.5-3B", "adapter_rate": 1e-3, "llm_rate": 5e-5, "with_projections": 120.5e6},
    "qwen2.5-7b": {"model.llm": "Qwen/Qwen2.5-7B", "adapter_rate": 1e-4, "llm_rate": 5e-6, "with_projections": 121.9e6},
}


def at(recipe, key):
    for part in key.split("."):
        recipe = getattr(recipe, part)
    return recipe


@cache
def planned(name):
    return plan(load_recipe(RECIPES[name]), *GPUS[name])


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_loads(name):
    assert load_recipe(RECIPES[name]).name == name


@pytest.mark.parametrize("name", BY_SIZE)
def test_the_papers_recipes_have_its_numbers(name):
    recipe, own = load_recipe(RECIPES[name]), BY_SIZE[name]
    assert {key: at(recipe, key) for key in PAPER} == PAPER
    assert recipe.model.llm == own["model.llm"]
    for stage in (recipe.stage_one, recipe.stage_two):
        assert (stage.optimizer.adapter_rate, stage.optimizer.llm_rate) == (own["adapter_rate"], own["llm_rate"])


@pytest.mark.parametrize("name", BY_SIZE)
def test_what_follows_from_them_is_the_papers_too(name):
    found, own = planned(name), BY_SIZE[name]
    parameters = found["parameters"]
    assert parameters["adapter stack"] == pytest.approx(118.0e6, rel=1e-3)
    both = parameters["adapter stack"] + parameters["adapter projections"]
    assert both == pytest.approx(own["with_projections"], rel=1e-3)
    for stage, tokens in (("stage_one", 24e9), ("stage_two", 1.9e9)):
        assert found[stage]["positions_per_step"] == pytest.approx(2**20, rel=0.03)
        assert found[stage]["positions"] == pytest.approx(tokens, rel=0.03)
    assert found["budget_h"] == pytest.approx(1416, abs=1)


@pytest.mark.parametrize("name", GPUS)
def test_each_fits_where_it_says(name):
    found = planned(name)["memory"]
    assert found["fits"], found["remedy"]


def test_the_demo_is_planned_where_its_models_are_at_hand():
    try:
        found = plan(load_recipe(RECIPES["demo"]))
    except RecipeError as error:
        pytest.skip(str(error))
    assert found["memory"]["total_gib"] < 8
