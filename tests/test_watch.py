"""Looking on while a model is trained: the same numbers as measuring, and training is none the wiser."""

import dataclasses
import json

import pytest
import torch

import tiny
from processes import together
from salad.distill.loop import train
from salad.distill.teacher import SeparateTeacher, teacher_for
from salad.errors import DataError
from salad.interleave.utterances import feature_lookup
from salad.measure.misalignment import forgetting_by_item, hearing, misalignment_by_item, per_token
from salad.measure.statistics import Estimate
from salad.measure.watch import Watch, WatchReport, alarm
from salad.recipe import EngineSettings, MeasureSettings, Recipe, StageSettings

pytestmark = pytest.mark.usefixtures("one_thread")

SPOKEN = tiny.utterances(12)
RECIPE = Recipe(
    name="tiny",
    seed=3,
    engine=EngineSettings(watch_every=2, watch_items=5),
    measure=MeasureSettings(num_bootstrap=200),
)


def student_and_teacher(**options):
    student = tiny.move(tiny.student(**options))
    return student, teacher_for(student)


def watch(held_out=SPOKEN, **sequence):
    return Watch(tiny.builder(**sequence), held_out, RECIPE)


def test_the_numbers_are_those_of_measuring():
    student, teacher = student_and_teacher()
    seen = watch()
    found = seen(20, student, teacher)
    items = [sequence.item for sequence in seen.mixed]
    own = [next(u for u in SPOKEN if u.id == item) for item in items]
    build = tiny.builder()
    heard = misalignment_by_item(student, [build.mixed(u) for u in own], feature_lookup(own), 2048, RECIPE.seed)
    forgotten = forgetting_by_item(teacher, student, [build.text(u.id, u.text) for u in own], 2048)
    assert found.step == 20
    assert found.misalignment_nats == per_token(heard.heard, RECIPE.seed, "watched", 200)
    assert found.forgetting_nats == per_token(forgotten, RECIPE.seed, "watched forgetting", 200)
    assert found.hearing_nats == hearing(heard, RECIPE.seed, "watched", 200)
    assert found.misalignment_nats.value > 0
    assert found.forgetting_nats.value > 0  # its LoRA was moved
    assert found.misalignment_nats.n == 5


def test_the_same_utterances_by_the_seed_alone():
    items = [sequence.item for sequence in watch().mixed]
    assert items == [sequence.item for sequence in watch(list(SPOKEN)).mixed]
    assert len(set(items)) == 5
    other = Watch(tiny.builder(), SPOKEN, RECIPE.model_copy(update={"seed": 4}))
    assert items != [sequence.item for sequence in other.mixed]


def test_without_a_teacher_there_is_no_forgetting():
    student, _ = student_and_teacher()
    found = watch()(2, student)
    assert found.forgetting_nats is None
    assert found.misalignment_nats.value > 0


def test_what_the_policy_cannot_use_is_passed_over():
    short = [tiny.utterance(f"s{i}", 2) for i in range(30)]
    seen = watch([*short, *SPOKEN[:3]], min_words=5)
    assert {sequence.item for sequence in seen.mixed} == {"u0", "u1", "u2"}


def test_too_few_are_refused_in_one_sentence():
    with pytest.raises(DataError, match=r"1 of 1 held-out utterances .*watch_every=0"):
        watch(SPOKEN[:1])


def test_a_report_travels_as_json():
    student, teacher = student_and_teacher()
    for found in (watch()(2, student, teacher), dataclasses.replace(watch()(2, student), alarm="it is deaf")):
        assert WatchReport.from_json(json.loads(json.dumps(found.as_json()))) == found


@pytest.mark.parametrize("train_llm", ["lora", "full"])
def test_watching_changes_no_bit_of_a_training_with_dropout(tmp_path, train_llm):
    """Dropout draws from torch's global generator: had the watch drawn one number, all masks after it would differ."""
    settings = StageSettings(steps=4, checkpoint_every=100)
    batches = [tiny.batch_of(tiny.utterances(3, seed=seed), ["the quiet river"]) for seed in range(4)]
    trained = {}
    for name in ("watched", "alone", "other draws"):
        torch.manual_seed(7)
        student = tiny.student(train_llm, base=tiny.llm(dropout=0.3))
        teacher = tiny_teacher(student, train_llm)
        look = watch()
        for report in train(student, teacher, lambda s: [batches[s]], settings, lambda _: 1.0, tmp_path / name):
            if name == "watched":
                assert look(report.step, student, teacher).misalignment_nats.n == 5
            elif name == "other draws":
                torch.rand(1)
        trained[name] = {key: tensor.clone() for key, tensor in student.trained_state().items()}
    assert all(torch.equal(trained["watched"][key], trained["alone"][key]) for key in trained["alone"])
    assert not all(torch.equal(trained["other draws"][key], trained["alone"][key]) for key in trained["alone"])


def tiny_teacher(student, train_llm):
    return SeparateTeacher(tiny.llm()) if train_llm == "full" else teacher_for(student)


def test_every_part_is_put_back_into_its_mode():
    student, teacher = student_and_teacher(base=tiny.llm(dropout=0.3))
    student.train()
    student.adapter.eval()
    modes = [module.training for module in student.modules()]
    state = torch.random.get_rng_state()
    first = watch()(1, student, teacher)
    assert [module.training for module in student.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)
    assert watch()(1, student, teacher) == first  # no dropout in what is measured


def test_a_student_that_hears_is_told_from_one_that_does_not(tmp_path):
    """Overfitted to the watched items, swapping their audio hurts; untrained, it makes no difference."""
    spoken = SPOKEN[:5]
    student = tiny.student()
    teacher = teacher_for(student)
    seen = watch(spoken)
    assert not seen(0, student, teacher).hears
    settings = StageSettings(
        steps=120, checkpoint_every=1000, optimizer={"adapter_rate": 1e-2, "llm_rate": 1e-2, "weight_decay": 0.0}
    )
    batch = tiny.batch_of(spoken)
    list(train(student, teacher, lambda _: [batch], settings, lambda _: 1.0, tmp_path))
    found = seen(120, student, teacher)
    assert found.hears
    assert found.hearing_nats.low > 0


# --- alarms ---------------------------------------------------------------------------------------------------------


def report(step, low):
    return WatchReport(step, Estimate(1.0, 0.9, 1.1, 8), None, Estimate(0.1, low, 0.2, 8))


@pytest.mark.parametrize(
    ("lows", "last", "end"),
    [
        ([0.1], True, None),
        ([-0.1], False, None),  # not yet
        ([0.0], True, "has not learnt to hear."),
        ([-0.1, 0.1, -0.1], False, None),  # once may be chance
        ([0.1, -0.1, -0.1], False, "heard after step 1 and does not any more."),
        ([0.1, -0.1], True, "heard after step 1 and does not any more."),
        ([0.1, -0.1, 0.1], True, None),
    ],
)
def test_alarm(lows, last, end):
    said = alarm([report(step, low) for step, low in enumerate(lows, start=1)], last)
    assert said is None if end is None else said.endswith(end)


# --- many ranks -----------------------------------------------------------------------------------------------------


def look_on_all_ranks(ranks, folder):
    """Train two steps, looking after each: every rank sees the same, what is sharded stays so."""
    settings = StageSettings(steps=2, checkpoint_every=1)
    for parallel in ("ddp", "fsdp"):
        student = tiny.move(tiny.student("full"))
        teacher = tiny_teacher(student, "full")
        batch = tiny.batch_of(tiny.utterances(2, seed=ranks.rank), ["the quiet river"])
        engine, out = EngineSettings(parallel=parallel), folder / parallel
        look, found = watch(), []
        for step in train(
            student, teacher, lambda _, b=batch: [b], settings, lambda _: 1.0, out, engine=engine, ranks=ranks
        ):
            kinds = [type(parameter) for parameter in student.parameters()]
            found.append(look(step.step, student, teacher).as_json())
            assert [type(parameter) for parameter in student.parameters()] == kinds
        assert all(other == found for other in ranks.gather(found))
        if ranks.is_main:
            (folder / f"{parallel}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_ranks_see_the_same_sharded_or_not(tmp_path):
    together(look_on_all_ranks, tmp_path)
    ddp, fsdp = (json.loads((tmp_path / f"{parallel}.json").read_text()) for parallel in ("ddp", "fsdp"))
    for whole, sharded in zip(ddp, fsdp, strict=True):
        for name in ("misalignment_nats", "forgetting_nats", "hearing_nats"):
            assert sharded[name]["value"] == pytest.approx(whole[name]["value"], rel=1e-3, abs=1e-5)
