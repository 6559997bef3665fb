"""The training loop: it learns, leaves the teacher alone, resumes to the bit, and stops before a bad step."""

import dataclasses
import itertools
import json
import math
import signal

import numpy as np
import pytest
import torch

import tiny
from salad.distill.checkpoint import load_optimizer, load_weights
from salad.distill.loop import make_optimizer, train
from salad.distill.parallel import objective
from salad.distill.schedule import decay_start, linear_to_zero, warmup_stable_decay
from salad.distill.teacher import SeparateTeacher, teacher_for
from salad.errors import CheckpointError, InterruptedRunError, NonFiniteError
from salad.recipe import OptimizerSettings, StageSettings

pytestmark = pytest.mark.usefixtures("one_thread")

SPOKEN = tiny.utterances(6)
TEXTS = ["the quiet river", "she listens, he speaks; and it was evening"]
FAST = OptimizerSettings(adapter_rate=3e-3, llm_rate=3e-3)


def stage(steps=6, alpha=1.0, checkpoint_every=1, **optimizer):
    rates = OptimizerSettings(**FAST.model_dump() | optimizer)
    return StageSettings(alpha=alpha, steps=steps, checkpoint_every=checkpoint_every, optimizer=rates)


def always(batch):
    return lambda step: [batch]


def constant(step):
    return 1.0


def cycle(step):
    """Batches that differ from step to step; the first is text alone."""
    if step == 0:
        return [tiny.batch_of([], TEXTS)]
    return [tiny.batch_of(SPOKEN[step % 3 : step % 3 + 3], TEXTS[: step % 2])]


def student_and_teacher(train_llm="lora", **options):
    student = tiny.student(train_llm, **options)
    return student, SeparateTeacher(tiny.llm()) if train_llm == "full" else teacher_for(student)


def weights(student):
    return {name: tensor.clone() for name, tensor in student.trained_state().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_seconds(reports):
    return [dataclasses.replace(report, seconds=0.0, data_s=0.0) for report in reports]


# --- learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train_llm", "alpha"), [("lora", 1.0), ("frozen", 1.0), ("full", 1.0), ("lora", 0.0), ("lora", 0.5)]
)
def test_the_loss_falls_and_the_teacher_stays_the_same(tmp_path, train_llm, alpha):
    student, teacher = student_and_teacher(train_llm)
    batch = tiny.batch_of(SPOKEN, TEXTS)
    before = teacher.fingerprint(), teacher.last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D)
    start = weights(student)
    reports = list(train(student, teacher, always(batch), stage(25, alpha, checkpoint_every=100), constant, tmp_path))
    assert reports[-1].loss_nats < 0.85 * reports[0].loss_nats
    for report in reports:
        assert report.loss_nats == pytest.approx(alpha * report.kl_nats + (1 - alpha) * report.nll_nats, rel=1e-5)
        assert report.count == len(batch.targets_N)
        assert report.positions == len(batch.student_ids_T)
    after = teacher.fingerprint(), teacher.last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D)
    assert after[0] == before[0]
    assert torch.equal(after[1], before[1])
    moved = {name for name, tensor in weights(student).items() if not torch.equal(tensor, start[name])}
    assert any(name.startswith("adapter.") for name in moved)
    assert any("lora_A" in name for name in moved) == (train_llm == "lora")
    assert any("mlp.up_proj" in name for name in moved) == (train_llm == "full")
    assert not student.training


def test_the_report_is_what_an_own_measurement_gives(tmp_path):
    student, teacher = student_and_teacher()
    tiny.move(student)
    batch = tiny.batch_of(SPOKEN, TEXTS)
    with torch.no_grad():
        _, _, kl, nll = objective(student, teacher, batch, StageSettings())
    report = next(train(student, teacher, always(batch), stage(1), constant, tmp_path))
    assert report.kl_nats == pytest.approx(float(kl) / len(batch.targets_N), rel=1e-5)
    assert report.nll_nats == pytest.approx(float(nll) / len(batch.targets_N), rel=1e-5)


def test_the_teacher_reads_in_evaluation_mode_while_the_student_trains():
    student = tiny.student("lora", base=tiny.llm(dropout=0.5))
    teacher = teacher_for(student)
    batch = tiny.batch_of([], TEXTS)
    calm = teacher.last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D)
    student.train()
    assert torch.equal(teacher.last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D), calm)
    assert all(module.training for module in student.modules())  # and the student goes on training
    own = student.last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D)
    assert not torch.equal(own, calm)  # the student does drop out


@pytest.mark.parametrize("train_llm", ["lora", "full"])
def test_micro_batches_add_up_to_one_batch(tmp_path, train_llm):
    whole = tiny.batch_of(SPOKEN, TEXTS)
    parts = [tiny.batch_of(SPOKEN[:1]), tiny.batch_of(SPOKEN[1:4]), tiny.batch_of(SPOKEN[4:], TEXTS)]
    assert len({len(part.targets_N) for part in parts}) > 1  # a mean of means would differ
    results = []
    for name, batches in (("whole", [whole]), ("parts", parts)):
        student, teacher = student_and_teacher(train_llm)
        tiny.move(student, by=0.05)
        settings = stage(3, clip_norm=1e9)
        results.append(list(train(student, teacher, lambda _, b=batches: b, settings, constant, tmp_path / name)))
    for one, many in zip(*results, strict=True):
        assert (one.count, one.step) == (many.count, many.step)
        assert many.loss_nats == pytest.approx(one.loss_nats, rel=1e-4)
        assert many.grad_norm == pytest.approx(one.grad_norm, rel=1e-3)


def test_micro_batches_have_the_gradient_of_one_batch():
    gradients = []
    for batches in ([tiny.batch_of(SPOKEN)], [tiny.batch_of(SPOKEN[:2]), tiny.batch_of(SPOKEN[2:])]):
        student, teacher = student_and_teacher()
        tiny.move(student, by=0.05)
        for batch in batches:
            objective(student, teacher, batch, StageSettings(alpha=0.7)).loss.backward()
        gradients.append({n: p.grad for n, p in student.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradients[1][name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())), name


def test_text_alone_teaches_a_frozen_llm_nothing_but_is_counted(tmp_path):
    student, teacher = student_and_teacher("frozen")
    batches = [tiny.batch_of([], TEXTS), tiny.batch_of(SPOKEN)]
    report = next(train(student, teacher, lambda _: batches, stage(1), constant, tmp_path))
    assert report.count == sum(len(batch.targets_N) for batch in batches)


def test_each_part_has_its_own_rate_and_nothing_is_trained_twice():
    student = tiny.student("lora")
    settings = OptimizerSettings(adapter_rate=0.5, llm_rate=0.25, weight_decay=0.3)
    optimizer = make_optimizer(student, settings)
    assert [group["peak"] for group in optimizer.param_groups] == [0.5, 0.25]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.3}
    inside = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(inside) == len(set(inside))
    assert set(inside) == {id(p) for p in student.parameters() if p.requires_grad}
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in student.adapter.parameters()}
    assert len(make_optimizer(tiny.student("frozen"), settings).param_groups) == 1


def test_a_steps_rate_is_its_own(tmp_path):
    student, teacher = student_and_teacher()
    before = weights(student)
    run = train(student, teacher, always(tiny.batch_of(SPOKEN)), stage(2), float, tmp_path)  # 0, then 1
    next(run)
    assert same(weights(student), before)
    next(run)
    assert not same(weights(student), before)


def test_the_schedule_reaches_the_weights(tmp_path):
    student, teacher = student_and_teacher()
    before = weights(student)
    batch = tiny.batch_of(SPOKEN)
    reports = list(train(student, teacher, always(batch), stage(3), lambda _: 0.0, tmp_path))
    assert [report.rate_factor for report in reports] == [0.0] * 3
    assert same(weights(student), before)


# --- resuming -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train_llm", "checkpoint_every", "stop_after"), [("lora", 1, 1), ("lora", 1, 3), ("lora", 2, 3), ("full", 2, 5)]
)
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path, train_llm, checkpoint_every, stop_after):
    settings = stage(6, checkpoint_every=checkpoint_every)

    def run(folder, stop=None):
        student, teacher = student_and_teacher(train_llm, seed=3)
        reports = []
        for report in train(student, teacher, cycle, settings, lambda s: linear_to_zero(s, 6), folder):
            reports.append(report)
            if len(reports) == stop:
                break
        return student, reports

    whole, whole_reports = run(tmp_path / "whole")
    run(tmp_path / "parts", stop_after)
    resumed, reports = run(tmp_path / "parts")
    assert without_seconds(reports) == without_seconds(whole_reports)
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6]
    assert same(weights(resumed), weights(whole))
    name = "step-00000006/optimizer.safetensors"
    assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_finished_run_is_not_trained_again(tmp_path):
    student, teacher = student_and_teacher()
    first = list(train(student, teacher, cycle, stage(3), constant, tmp_path))
    fresh, teacher = student_and_teacher()

    def never(step):
        raise AssertionError("a finished run asked for a batch")

    assert list(train(fresh, teacher, never, stage(3), constant, tmp_path)) == first
    assert same(weights(fresh), weights(student))


def test_kept_checkpoints_are_the_weights_of_their_step(tmp_path):
    student, teacher = student_and_teacher()
    run = train(student, teacher, cycle, stage(4, checkpoint_every=10), constant, tmp_path, keep={2: "pre_decay"})
    next(run), next(run)
    wanted = weights(student)
    list(run)
    assert not same(weights(student), wanted)
    fresh = tiny.student("lora", seed=9)
    load_weights(tmp_path / "pre_decay", fresh)
    assert same(weights(fresh), wanted)


def test_stage_two_takes_over_the_optimizers_state_but_not_the_weights(tmp_path):
    student, teacher = student_and_teacher()
    list(train(student, teacher, cycle, stage(3), constant, tmp_path / "one"))
    other, teacher = student_and_teacher(seed=5)
    before = weights(other)
    optimizer = make_optimizer(other, FAST)
    load_optimizer(tmp_path / "one" / "step-00000003", other, optimizer)
    assert {int(state["step"]) for state in optimizer.state.values()} == {3}  # the adapter took part in every step
    assert same(weights(other), before)
    batch = always(tiny.batch_of(SPOKEN))
    carried = train(
        other, teacher, batch, stage(1), constant, tmp_path / "two", optimizer_from=tmp_path / "one" / "step-00000003"
    )
    next(carried)
    bare, teacher = student_and_teacher(seed=5)
    next(train(bare, teacher, batch, stage(1), constant, tmp_path / "three"))
    assert not same(weights(other), weights(bare))


# --- stopping -------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_before_anything_moves(tmp_path):
    student, teacher = student_and_teacher()
    good = tiny.batch_of(SPOKEN)
    bad = dataclasses.replace(good, speech_features_SFE=good.speech_features_SFE * np.nan)
    run = train(student, teacher, lambda step: [good, bad if step == 2 else good], stage(5), constant, tmp_path)
    next(run), next(run)
    before = weights(student)
    with pytest.raises(NonFiniteError, match=r"step 3: .*nothing was changed.*u0, u1"):
        next(run)
    assert same(weights(student), before)
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000001", "step-00000002"]
    noted = json.loads((tmp_path / "not_finite.json").read_text())
    assert noted["step"] == 3
    assert noted["items"] == [*good.items, *bad.items]


def test_gradients_are_clipped_by_their_norm(tmp_path):
    batch = tiny.batch_of(SPOKEN)
    norms = []
    for clip_norm in (1e-3, 1e3):
        student, teacher = student_and_teacher()
        norms.append(
            next(
                train(
                    student, teacher, always(batch), stage(1, clip_norm=clip_norm), constant, tmp_path / str(clip_norm)
                )
            ).grad_norm
        )
        clipped = math.sqrt(sum(float((p.grad**2).sum()) for p in student.parameters() if p.grad is not None))
        assert clipped == pytest.approx(min(norms[-1], clip_norm), rel=1e-3)
    assert norms[0] == norms[1]  # the report has the norm before clipping


# --- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path):
    """A run of 4 steps that was stopped after 2."""
    student, teacher = student_and_teacher()
    run = train(student, teacher, cycle, stage(4), constant, tmp_path)
    next(run), next(run)
    run.close()
    return tmp_path


def gone_on(folder, settings=None, warn=lambda _: None):
    """The run goes on; which steps were asked for."""
    student, teacher = student_and_teacher(seed=7)
    asked = []

    def batches(step):
        asked.append(step)
        return cycle(step)

    reports = list(train(student, teacher, batches, settings or stage(4), constant, folder, warn=warn))
    assert [report.step for report in reports] == [1, 2, 3, 4]
    return asked, student


def test_what_was_half_written_is_ignored(stopped):
    half = stopped / ".tmp-1-step-00000003"
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half")
    assert gone_on(stopped)[0] == [2, 3]


def test_a_damaged_checkpoint_is_passed_over_aloud(stopped, tmp_path_factory):
    whole, teacher = student_and_teacher()
    list(train(whole, teacher, cycle, stage(4), constant, tmp_path_factory.mktemp("whole")))
    weights_file = stopped / "step-00000002" / "weights.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-1])
    told = []
    asked, student = gone_on(stopped, warn=told.append)
    assert asked == [1, 2, 3]
    assert len(told) == 1
    assert "step-00000002" in told[0]
    assert same(weights(student), weights(whole))


def test_other_settings_are_refused(stopped):
    for settings in (stage(5), stage(4, alpha=0.5), stage(4, weight_decay=0.0)):
        with pytest.raises(CheckpointError, match=r"was trained with another .* than is asked for now"):
            gone_on(stopped, settings)
    assert gone_on(stopped, stage(4, checkpoint_every=3))[0] == [2, 3]


def test_the_last_checkpoints_are_kept_and_no_more(tmp_path):
    student, teacher = student_and_teacher()
    list(train(student, teacher, cycle, stage(5), constant, tmp_path, keep={2: "pre_decay"}))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pre_decay", "step-00000004", "step-00000005"]


def test_a_signal_stops_after_a_step_that_is_saved(tmp_path):
    student, teacher = student_and_teacher()

    def batches(step):
        if step == 1:
            signal.raise_signal(signal.SIGTERM)
        return cycle(step)

    run = train(student, teacher, batches, stage(4, checkpoint_every=100), constant, tmp_path)
    next(run)
    with pytest.raises(InterruptedRunError, match="stopped by SIGTERM after step 2 of 4"):
        next(run)
    assert gone_on(tmp_path, stage(4, checkpoint_every=100))[0] == [2, 3]


# --- schedules ------------------------------------------------------------------------------------------------------


def test_warmup_stable_decay_is_the_papers_shape():
    rates = [warmup_stable_decay(step, 100, 5, 0.2) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert set(rates[5:80]) == {1.0}
    assert rates[80:] == pytest.approx([1 - k / 20 for k in range(20)])
    assert decay_start(100, 0.2) == 80
    assert [warmup_stable_decay(step, 4, 0, 0.0) for step in range(4)] == [1.0] * 4
    assert decay_start(4, 0.0) == 4


@pytest.mark.parametrize(("steps", "decay_frac"), [(1, 1.0), (3, 0.2), (7, 0.5), (30, 0.2), (40, 1.0)])
def test_the_decay_never_rises_and_never_reaches_zero_early(steps, decay_frac):
    rates = [warmup_stable_decay(step, steps, 0, decay_frac) for step in range(steps)]
    assert all(0 < b <= a <= 1 for a, b in itertools.pairwise(rates))
    assert rates[0] == 1.0


def test_stage_two_falls_linearly_to_zero():
    assert [linear_to_zero(step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
