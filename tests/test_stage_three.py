"""Stage III from its page: it learns from its own words, resumes to the bit, and its control sees the same items."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

import tiny
from processes import together
from salad.card.bill import read_bill
from salad.errors import RecipeError
from salad.files import read_json, read_jsonl
from salad.ranks import Ranks
from salad.recipe import Recipe, parse_recipe
from salad.stage_one import stage_one
from salad.stage_three import stage_three
from salad.steps import STEPS as PAPERS
from salad.steps import steps_of
from salad.texts.text import Text

pytestmark = pytest.mark.usefixtures("one_thread")

SPOKEN, CHOSEN = tiny.utterances(10), [tiny.utterance(f"s{i}", 9 + i % 3) for i in range(5)]
READ = ("the quiet river", "she listens, he speaks; and it was evening")
TEXTS = [Text(f"t{i}", text, "any", "tests", "CC0") for i, text in enumerate(READ)]
STEPS, BATCH, EVERY = 7, 6, 3


def recipe_of(llm: Path, train_llm: str = "lora", engine: dict | None = None, **three) -> Recipe:
    rates = {"adapter_rate": 3e-3, "llm_rate": 3e-3}
    stage = {"batch_sequences": BATCH, "checkpoint_every": 2, "optimizer": rates}
    own = {"steps": STEPS, "refresh_steps": EVERY, "rollouts_at_once": 4, "continuation_tokens": 5, "warmup_steps": 1}
    return parse_recipe(
        {
            "name": "tiny",
            "threads": 1,
            "model": tiny.model_settings(train_llm, str(llm)).model_dump(mode="json"),
            "sequence": {"policy": "speech_prefix"},
            "stage_one": {**stage, "steps": 3, "warmup_steps": 1, "warm_start": {"steps": 0}},
            "stage_three": {**stage, **own, **three},
            "engine": {"tracker": "none", **(engine or {})},
        },
        "tiny.yaml",
    )


def quiet(done: int, total: int, note: str = "") -> None:
    """No progress shown."""


def train_three(recipe: Recipe, before: Path, out: Path, progress=quiet, selected=CHOSEN) -> None:
    assert stage_three(recipe, before, [SPOKEN], selected, TEXTS, SPOKEN[:2], out, progress) == []


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Stage I, and Stage III behind it: on-policy, and its off-policy control."""
    home = tmp_path_factory.mktemp("stages")
    llm = tiny.save_llm(home / "llm")
    stage_one(recipe_of(llm), [SPOKEN], TEXTS, SPOKEN[:2], tiny.ENCODER_DIM, tiny.ENCODER_HZ, home / "stage_one", quiet)
    train_three(recipe_of(llm), home / "stage_one", home / "on")
    train_three(recipe_of(llm, on_policy_frac=0.0), home / "stage_one", home / "off")
    return SimpleNamespace(home=home, llm=llm, before=home / "stage_one", on=home / "on", off=home / "off")


def curve(out: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "data_s")} for row in read_json(out / "curve.json")]


def rounds(out: Path) -> dict[str, bytes]:
    return {f"{p.parent.name}/{p.name}": p.read_bytes() for p in sorted((out / "rollouts").glob("*/*"))}


class CutOffError(Exception):
    """The process ends here."""


# Told of: the parts of each round as they begin, and every step. Steps 1 to 3 read round 0, 4 to 6 round 1, 7 round 2.
CUTS = ["part 1 of round 0", "step 2", "step 3", "part 0 of round 1", "part 2 of round 1", "step 5", "step 7"]


@pytest.mark.parametrize("cut", CUTS)
def test_a_stage_that_was_cut_off_ends_as_one_that_was_not(done, tmp_path, cut):
    seen = {"round": -1}

    def progress(number, total, note=""):
        if note.startswith("the student speaks"):
            seen["round"] += number == 0
            place = f"part {number} of round {seen['round']}"
        else:
            place = f"step {number}"
        if place == cut:
            raise CutOffError

    with pytest.raises(CutOffError):
        train_three(recipe_of(done.llm), done.before, tmp_path, progress)
    assert not (tmp_path / "model").exists()
    train_three(recipe_of(done.llm), done.before, tmp_path)
    assert curve(tmp_path) == curve(done.on)
    assert rounds(tmp_path) == rounds(done.on)
    name = "model/model.safetensors"
    assert (tmp_path / name).read_bytes() == (done.on / name).read_bytes()


def test_it_goes_on_from_the_model_before_and_moves_it(done):
    before, after = (load_file(folder / "model" / "model.safetensors") for folder in (done.before, done.on))
    assert before.keys() == after.keys()
    assert any(not before[name].equal(after[name]) for name in before)
    rates = [row["rate_factor"] for row in curve(done.on)]
    assert rates == pytest.approx([1.0, *((STEPS - step) / (STEPS - 1) for step in range(1, STEPS))])


def test_the_control_has_the_same_items_and_no_rollouts(done):
    assert not (done.off / "rollouts").exists()
    on, off = curve(done.on), curve(done.off)
    assert len(on) == len(off) == STEPS
    for one, other in zip(on, off, strict=True):
        assert [row[:2] for row in one["drawn"]] == [row[:2] for row in other["drawn"]]  # sequences, heard positions
    assert [row["kl_nats"] for row in on] != [row["kl_nats"] for row in off]


def test_the_mix_is_text_and_both_kinds_of_speech_in_equal_parts(done):
    drawn = [sum(row["drawn"][source][0] for row in curve(done.on)) for source in range(3)]
    assert sum(drawn) == STEPS * BATCH
    assert drawn == pytest.approx([STEPS * BATCH / 3] * 3, abs=1)


def test_the_bill_counts_what_the_student_said(done):
    *earlier, own = read_bill(done.on / "model")["training"]
    assert earlier == read_bill(done.before / "model")["training"]
    rows = [row for path in (done.on / "rollouts").glob("*/part-*") for row in read_jsonl(path)]
    spoken = sum(row["drawn"][source][0] for row in curve(done.on) for source in range(2))
    told = own["on_policy"]
    assert told["rounds"] == 3
    assert told["rollouts"] == len(rows) == spoken  # each is read once, and every utterance can be gone on from
    assert told["tokens"] == sum(len(row["ids"]) for row in rows)
    text = sum(row["drawn"][2][3] for row in curve(done.on))
    assert own["num_scored_positions"] == told["tokens"] + text
    assert told["flops"] > 0
    card = (done.on / "model" / "README.md").read_text()
    assert f"In {told['rollouts']:,} of the sequences the student went on from what it heard in its own words" in card
    assert read_bill(done.off / "model")["training"][-1]["on_policy"] is None


def test_what_was_said_stands_there_to_be_read(done):
    (path, *_) = sorted((done.on / "rollouts").glob("*/part-*"))
    row = read_jsonl(path)[0]
    assert row["text"] == tiny.tokenizer().decode(row["ids"])
    assert row["item"] in {utterance.id for utterance in [*SPOKEN, *CHOSEN]}


def test_half_on_policy_without_selected_speech_and_by_the_reverse_kl(done, tmp_path):
    recipe = recipe_of(done.llm, on_policy_frac=0.5, divergence="reverse_kl", text_frac=0.25)
    train_three(recipe, done.before, tmp_path, selected=[])
    own = read_bill(tmp_path / "model")["training"][-1]
    spoken = sum(row["drawn"][0][0] for row in curve(tmp_path))
    assert spoken == pytest.approx(0.75 * STEPS * BATCH, abs=1)
    assert 0 < own["on_policy"]["rollouts"] < spoken
    last = curve(tmp_path)[-1]
    assert last["divergence_nats"] != last["kl_nats"]


def test_workers_and_a_cached_teacher_change_nothing(done, tmp_path):
    recipe = recipe_of(done.llm, engine={"teacher": "cached"})  # what will be said can't be read ahead
    train_three(recipe.model_copy(update={"loader_workers": 1}), done.before, tmp_path)
    assert curve(tmp_path) == curve(done.on)
    assert not (tmp_path.parent / "teacher_cache").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_is_trained_in_full_has_a_teacher_of_its_own(tmp_path, dtype):
    llm = tiny.save_llm(tmp_path / "llm")
    recipe = recipe_of(llm, "full", refresh_steps=1, steps=3)
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"dtype": dtype})})
    stage_one(recipe, [SPOKEN], TEXTS, SPOKEN[:2], tiny.ENCODER_DIM, tiny.ENCODER_HZ, tmp_path / "one", quiet)
    train_three(recipe, tmp_path / "one", tmp_path / "three")
    assert len(list((tmp_path / "three" / "rollouts").glob("*/round.json"))) == 3


def test_a_recipe_without_it_says_so(done, tmp_path):
    recipe = recipe_of(done.llm).model_copy(update={"stage_three": None})
    with pytest.raises(RecipeError, match="stage_three is null"):
        train_three(recipe, done.before, tmp_path)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"alpha": 0.5}, "stage_three: alpha=0.5 would train the student to repeat its own words"),
        ({"warmup_steps": STEPS}, "warmup_steps=7 leaves none of steps=7"),
        ({"refresh": 3}, "nearest valid key is 'stage_three.refresh_steps'"),
        ({"micro_batch_positions": 100}, "stage_three.micro_batch_positions=100 must be at least"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, keys, said):
    with pytest.raises(RecipeError, match=said):
        recipe_of(tmp_path, **keys)


def test_only_a_recipe_with_a_stage_three_has_its_steps(tmp_path):
    recipe = recipe_of(tmp_path)
    with_it, without = steps_of(recipe), steps_of(recipe.model_copy(update={"stage_three": None}))
    assert without == PAPERS
    names = [step.name for step in with_it]
    assert names == [*(step.name for step in PAPERS[:-1]), "stage_three", "measure_three", "report"]
    assert with_it[: len(PAPERS) - 1] == PAPERS[:-1]  # what the paper's steps depend on is the same
    assert "measure_three" in with_it[-1].needs
    assert "measure_three" not in PAPERS[-1].needs


def test_nll_is_for_words_of_others(tmp_path):
    assert recipe_of(tmp_path, alpha=0.5, on_policy_frac=0.0).stage_three.alpha == 0.5


def on_two(ranks: Ranks, home: Path) -> None:
    """What two ranks do: the same stage, of which each says a share; a second time each has half of the student."""
    for parallel in ("ddp", "fsdp"):
        recipe = recipe_of(home / "llm", engine={"parallel": parallel})
        stage_three(recipe, home / "stage_one", [SPOKEN], CHOSEN, TEXTS, [], home / parallel, quiet, ranks)


@pytest.fixture(scope="module")
def two(done) -> Path:
    together(on_two, done.home)
    return done.home


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_say_what_one_says_and_learn_the_same(done, two, parallel):
    ours, theirs = rounds(two / parallel), rounds(done.on)
    first = [name for name in theirs if name.startswith("round-00000000/")]
    assert len(first) > 3
    assert [ours[name] for name in first] == [theirs[name] for name in first]  # later weights are rounded otherwise
    assert ours.keys() == theirs.keys()
    for row, alone in zip(curve(two / parallel)[:EVERY], curve(done.on), strict=False):
        assert row["kl_nats"] == pytest.approx(alone["kl_nats"], rel=1e-5)
        assert row["drawn"] == alone["drawn"]
