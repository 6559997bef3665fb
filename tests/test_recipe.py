"""The recipe refuses what it doesn't know, says all that is wrong at once, and comes back as it was saved."""

import math

import pytest
from pydantic import ValidationError

from salad.distill.schedule import decay_start
from salad.errors import MissingFileError, RecipeError
from salad.recipe import Recipe, load_recipe, parse_recipe, save_recipe


def written(tmp_path, content, name="demo.yaml"):
    path = tmp_path / name
    path.write_text(content)
    return path


def refusal(tree):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(tree, "demo.yaml")
    return str(caught.value)


def test_the_defaults_are_the_papers():
    recipe = parse_recipe({"name": "demo"}, "here")
    assert recipe.stage_one.alpha == recipe.stage_two.alpha == 1.0
    assert recipe.sequence.text_words == (10, 30)
    assert recipe.sequence.speech_words == (5, 15)
    assert recipe.stage_one.text_frac == 1 / 3
    assert recipe.stage_two.gamma == 5.0
    assert recipe.stage_two.budget_frac == 0.01
    assert recipe.stage_one.decay_frac == 0.2


@pytest.mark.parametrize(
    ("tree", "wrong", "nearest"),
    [
        ({"stage_on": {}}, "stage_on", "stage_one"),
        ({"stage_one": {"alhpa": 1.0}}, "stage_one.alhpa", "stage_one.alpha"),
        (
            {"stage_one": {"optimizer": {"adaptor_rate": 1}}},
            "stage_one.optimizer.adaptor_rate",
            "stage_one.optimizer.adapter_rate",
        ),
        ({"model": {"lora": {"ranks": 4}}}, "model.lora.ranks", "model.lora.rank"),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one(tree, wrong, nearest):
    message = refusal({"name": "demo", **tree})
    assert f"unknown key '{wrong}'" in message
    assert f"'{nearest}'" in message


def test_the_nearest_key_is_one_of_its_own_group():
    assert "'stage_two.gamma'" in refusal({"name": "demo", "stage_two": {"gama": 1}})
    assert "'stage_one.gamma'" not in refusal({"name": "demo", "stage_one": {"gama": 1}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stage_one.alpha", 1.5),
        ("stage_one.alpha", -0.1),
        ("stage_one.steps", 0),
        ("stage_two.gamma", -1),
        ("stage_two.budget_frac", 0),
        ("sequence.prefix_frac", 2),
        ("sequence.min_words", 1),
        ("model.adapter.kind", "big"),
        ("seed", -1),
        ("seed", "zero"),
        ("threads", None),
        ("sequence.text_words", [10]),
    ],
)
def test_out_of_range_is_refused_with_key_and_value(key, value):
    tree = {"name": "demo"}
    node = tree
    *groups, last = key.split(".")
    for group in groups:
        node = node.setdefault(group, {})
    node[last] = value
    message = refusal(tree)
    assert key in message
    assert "got" in message


@pytest.mark.parametrize("key", ["text_words", "speech_words"])
def test_a_range_of_words_goes_upwards(key):
    assert f"sequence.{key}" in refusal({"name": "demo", "sequence": {key: [15, 5]}})


def test_the_value_and_what_was_allowed_stand_in_the_message_as_they_are():
    message = refusal({"name": "My Run"})
    assert "'My Run'" in message
    assert "A-Za-z0-9" in message  # the pattern is quoted, not lower-cased


def test_all_problems_come_in_one_message():
    message = refusal({"sed": 1, "stage_one": {"alpha": 2, "stepps": 3}, "stage_two": {"num_clusters": 0}})
    for part in ("demo.yaml", "name", "'sed'", "stage_one.alpha", "'stage_one.stepps'", "stage_two.num_clusters"):
        assert part in message


def test_a_sequence_must_fit_into_a_micro_batch():
    tree = {"name": "demo", "sequence": {"max_positions": 512}, "stage_one": {"micro_batch_positions": 512}}
    assert parse_recipe(tree, "here").stage_one.micro_batch_positions == 512
    tree |= {"stage_one": {"micro_batch_positions": 511}, "stage_two": {"micro_batch_positions": 96}}
    message = refusal(tree)
    assert message == (
        "demo.yaml: stage_one.micro_batch_positions=511 and stage_two.micro_batch_positions=96 must be at least "
        "sequence.max_positions=512, the longest sequence."
    )


def test_a_curriculum_needs_spans_to_shorten():
    tree = {"name": "demo", "stage_two": {"curriculum": {"start_frac": 0.5}}}
    assert parse_recipe(tree, "here").stage_two.curriculum.steps_frac == 0.5
    message = refusal(tree | {"sequence": {"policy": "utterance"}})
    assert message == (
        "demo.yaml: stage_two.curriculum: the policy utterance hears everything at once and has no span to shorten; "
        "set it to null, or take another sequence.policy."
    )


def test_a_recipe_is_frozen():
    recipe = parse_recipe({"name": "demo"}, "here")
    with pytest.raises(ValidationError):
        recipe.stage_one.alpha = 0.0


def test_overrides_reach_any_depth_and_are_read_as_yaml(tmp_path):
    path = written(tmp_path, "name: demo\nstage_one: {alpha: 0.5}\n")
    overrides = (
        "stage_one.alpha=0.25",
        "stage_two.optimizer.llm_rate=1e-4",
        "sequence.text_words=[2, 3]",
        "seed=7",
        "data.text=a=b.jsonl",
    )
    recipe = load_recipe(path, overrides)
    assert recipe.stage_one.alpha == 0.25
    assert recipe.stage_two.optimizer.llm_rate == 1e-4
    assert recipe.sequence.text_words == (2, 3)
    assert recipe.seed == 7
    assert recipe.data.text == "a=b.jsonl"
    assert load_recipe(path).stage_one.alpha == 0.5


def test_a_later_override_wins(tmp_path):
    path = written(tmp_path, "name: demo\n")
    assert load_recipe(path, ("seed=1", "seed=2")).seed == 2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed", "key=value"),
        ("=3", "key=value"),
        ("stage_one..alpha=1", "key=value"),
        ("seed=[1", "YAML"),
        ("name.first=x", "'name' is a value"),
        ("stage_one.alpah=1", "'stage_one.alpha'"),
        ("stage_one.alpha=2", "stage_one.alpha"),
    ],
)
def test_a_bad_override_is_named(tmp_path, override, said):
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, "name: demo\n"), (override,))
    assert said in str(caught.value)


def test_unreadable_yaml_says_where(tmp_path):
    path = written(tmp_path, "name: demo\nstage_one: {alpha: 1\n")
    with pytest.raises(RecipeError, match=r"demo\.yaml is not readable as YAML.*line \d") as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00n", b"name: \x00"])
def test_a_file_that_is_no_text_is_no_recipe(tmp_path, content):
    path = tmp_path / "demo.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match="readable"):
        load_recipe(path)


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "just words"])
def test_yaml_that_is_no_mapping_is_no_recipe(tmp_path, content):
    with pytest.raises(RecipeError, match="holds no recipe"):
        load_recipe(written(tmp_path, content))


def test_a_missing_file_lists_its_neighbours(tmp_path):
    written(tmp_path, "name: a", "mini.yaml")
    written(tmp_path, "name: b", "paper.yaml")
    with pytest.raises(MissingFileError, match=r"mini\.yaml, paper\.yaml"):
        load_recipe(tmp_path / "min.yaml")
    with pytest.raises(MissingFileError, match="no recipe at"):
        load_recipe(tmp_path / "nowhere" / "min.yaml")


def test_a_saved_recipe_is_the_same_recipe(tmp_path):
    tree = {
        "name": "demo",
        "seed": 3,
        "sequence": {"policy": "poisson", "text_words": [1, 2]},
        "model": {"lora": {"targets": ["q_proj"]}},
    }
    recipe = parse_recipe(tree, "here")
    again = load_recipe(written(tmp_path, save_recipe(recipe)))
    assert again == recipe
    assert math.isclose(again.stage_one.text_frac, 1 / 3, rel_tol=0, abs_tol=0)


def test_every_recipe_of_the_house_loads(repo):
    for path in sorted((repo / "recipes").glob("**/*.yaml")):
        assert isinstance(load_recipe(path), Recipe)


@pytest.mark.parametrize(("steps", "decay_frac"), [(16, 1.0), (1, 0.5), (4, 0.9)])
def test_a_decay_that_leaves_nothing_before_it_is_refused(steps, decay_frac):
    stage = {"steps": steps, "decay_frac": decay_frac}
    assert decay_start(steps, decay_frac) == 0
    with pytest.raises(RecipeError, match=rf"stage_one: decay_frac={decay_frac:g} of steps={steps} leaves no step"):
        parse_recipe({"name": "x", "stage_one": stage}, "r.yaml")


@pytest.mark.parametrize(("steps", "decay_frac"), [(1, 0.2), (16, 0.9), (4, 0.8), (3, 0.0)])
def test_a_decay_with_a_step_before_it_is_taken(steps, decay_frac):
    assert decay_start(steps, decay_frac) > 0
    parse_recipe({"name": "x", "stage_one": {"steps": steps, "decay_frac": decay_frac}}, "r.yaml")
