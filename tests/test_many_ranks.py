"""One training on several processes, by DDP and FSDP2, is the training of one process: gradients, curves, resuming.

All that two processes do is done in one go, and so is all that three do: most of such a test is starting them.
"""

import itertools
import json
import shutil
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

import tiny
from processes import together
from salad.distill.loop import train
from salad.distill.parallel import distribute, whole
from salad.distill.teacher import SeparateTeacher, teacher_for
from salad.interleave.stream import Stream
from salad.ranks import ALONE
from salad.recipe import EngineSettings, OptimizerSettings, StageSettings
from salad.texts.text import Text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("one_thread")]

WAYS = [("lora", "ddp"), ("lora", "fsdp"), ("full", "ddp"), ("full", "fsdp"), ("frozen", "ddp"), ("frozen", "fsdp")]
STEPS, CUT = 6, 3
CLOSE = 1e-5  # relative, between numbers of ranks, in float32; 3e-7 was measured
CURVES = ("loss_nats", "divergence_nats", "kl_nats", "nll_nats", "grad_norm")
SAME = ("step", "count", "positions", "speech_positions")


def student_and_teacher(train_llm):
    student = tiny.move(tiny.student(train_llm), by=0.05)
    return student, SeparateTeacher(tiny.llm()) if train_llm == "full" else teacher_for(student)


# --- curves -----------------------------------------------------------------------------------------------------------


def settings():
    rates = OptimizerSettings(adapter_rate=1e-3, llm_rate=1e-3)
    return StageSettings(
        alpha=0.7, steps=STEPS, checkpoint_every=1, batch_sequences=8, micro_batch_positions=60, optimizer=rates
    )


def stream():
    """What every number of ranks reads: four windows a step or more, of speech, of text, and mixed."""
    rng = torch.Generator().manual_seed(0)
    words = [[tiny.WORDS[i] for i in torch.randint(len(tiny.WORDS), (5 + n,), generator=rng)] for n in range(9)]
    texts = [Text(f"t{n}", " ".join(some), "d", "s", "l") for n, some in enumerate(words)]
    return Stream.of(
        tiny.builder(), [tiny.utterances(12)], texts, [1, 3], settings(), tiny.SPEECH_TOKEN_ID, "many ranks"
    )


def begin(train_llm, parallel, folder, ranks):
    """The student, the teacher, and the reports of a training as it goes on."""
    student, teacher = student_and_teacher(train_llm)
    own = stream()
    reports = train(
        student,
        teacher,
        lambda step: own.batches(step, ranks.rank, ranks.world),
        settings(),
        lambda step: 1 - step / STEPS,
        folder,
        engine=EngineSettings(parallel=parallel, keep_checkpoints=9),
        ranks=ranks,
    )
    return student, teacher, map(asdict, reports)


def training(train_llm, parallel, folder, ranks, until=STEPS):
    """Train up to and including step `until`, whose checkpoint is written; the student, the teacher, the reports."""
    student, teacher, reports = begin(train_llm, parallel, folder, ranks)
    return student, teacher, list(itertools.islice(reports, until))


def alike(curve, expected):
    """Equal but for rounding, step by step."""
    assert len(curve) == len(expected)
    for found, wanted in zip(curve, expected, strict=True):
        assert [found[key] for key in SAME] == [wanted[key] for key in SAME]
        for key in CURVES:
            assert found[key] == pytest.approx(wanted[key], rel=CLOSE), (key, wanted["step"])


def sizes(module):
    """(elements in all, elements here) of the sharded parameters, and of those that are whole here."""
    sharded = [p for p in module.parameters() if isinstance(p, DTensor)]
    whole_here = sum(p.numel() for p in module.parameters() if not isinstance(p, DTensor))
    return {"all": sum(p.numel() for p in sharded), "here": sum(p.to_local().numel() for p in sharded)} | {
        "whole": whole_here
    }


def on_two(ranks, folder):
    """What two ranks do: train in every way, and stop one halfway for others to go on from."""
    assert ranks.world == 2
    found = {}
    for train_llm, parallel in WAYS:
        name = f"{train_llm}-{parallel}"
        student, teacher, reports = training(train_llm, parallel, folder / name, ranks)
        found[name] = {"curve": reports, "student": sizes(student), "teacher": sizes(getattr(teacher, "llm", student))}
        assert not student.training
    for parallel in ("ddp", "fsdp"):
        training("full", parallel, folder / f"cut-{parallel}", ranks, CUT)
    ranks.barrier()
    for before, after in (("ddp", "fsdp"), ("fsdp", "ddp"), ("fsdp", "fsdp")):
        there = copied(folder, before, f"2-{after}", ranks)
        found[f"{before}-{after}"] = {"curve": training("full", after, there, ranks)[2]}
    both_steps(ranks, folder)
    (folder / f"two-{ranks.rank}.json").write_text(json.dumps(found))


def on_three(ranks, folder):
    """Three go on with what two began."""
    assert ranks.world == 3
    found = {"curve": training("full", "fsdp", copied(folder, "fsdp", "3", ranks), ranks)[2]}
    (folder / f"three-{ranks.rank}.json").write_text(json.dumps(found))


def copied(folder, parallel, name, ranks=ALONE):
    """A copy of what was cut off, to go on in."""
    there = folder / f"cut-{parallel}-{name}"
    if ranks.is_main:
        shutil.copytree(folder / f"cut-{parallel}", there)
    ranks.barrier()
    return there


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("many-ranks")
    together(on_two, made)
    return made


@pytest.fixture(scope="module")
def two(folder):
    return [json.loads((folder / f"two-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The curves of one process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    there = tmp_path_factory.mktemp("alone")
    found = {train_llm: training(train_llm, "ddp", there / train_llm, ALONE)[2] for train_llm in dict(WAYS)}
    torch.set_num_threads(before)
    return found


@pytest.mark.parametrize(("train_llm", "parallel"), WAYS)
def test_two_processes_have_the_curve_of_one(two, alone, train_llm, parallel):
    curves = [found[f"{train_llm}-{parallel}"]["curve"] for found in two]
    alike(curves[0], alone[train_llm])
    for ours, theirs in zip(*curves, strict=True):  # and all ranks report the same to the bit
        assert {key: ours[key] for key in (*CURVES, *SAME)} == {key: theirs[key] for key in (*CURVES, *SAME)}
    assert curves[0][-1]["kl_nats"] != pytest.approx(curves[0][0]["kl_nats"], rel=0.01)  # it is a curve


@pytest.mark.parametrize("world", [2, 3])
def test_these_curves_have_steps_in_which_a_rank_has_text_alone(world):
    steps = [[stream().batches(step, rank, world) for rank in range(world)] for step in range(STEPS)]
    deaf = [[all(batch.speech_features_SFE is None for batch in own) for own in step] for step in steps]
    assert any(any(step) and not all(step) for step in deaf)
    assert max(len(own) for step in steps for own in step) > 1  # gradients are accumulated, too


@pytest.mark.parametrize("train_llm", ["lora", "full", "frozen"])
def test_fsdp_shards_all_that_is_the_students(two, train_llm):
    for found in two:
        held = found[f"{train_llm}-fsdp"]["student"]
        assert held["whole"] == 0
        assert held["here"] == pytest.approx(held["all"] / 2, rel=0.05)
        assert found[f"{train_llm}-ddp"]["student"] == {"all": 0, "here": 0, "whole": held["all"]}
    assert sum(found[f"{train_llm}-fsdp"]["student"]["here"] for found in two) == held["all"]


def test_a_separate_teachers_layers_are_sharded(two):
    layers = sum(p.numel() for p in tiny.llm().model.layers.parameters())
    for found in two:
        held = found["full-fsdp"]["teacher"]
        assert held["all"] >= layers
        assert held["here"] == pytest.approx(held["all"] / 2, rel=0.05)
        table = tiny.llm().lm_head.weight.numel()  # read outside of any layer
        assert table <= held["whole"] < 1.1 * table


# --- resuming on another number, in another way -----------------------------------------------------------------------


@pytest.mark.parametrize("change", ["ddp-fsdp", "fsdp-ddp", "fsdp-fsdp"])
def test_two_go_on_in_another_way(two, alone, change):
    alike(two[0][change]["curve"], alone["full"])
    assert [row["restored"] for row in two[0][change]["curve"]] == [CUT] * CUT + [0] * (STEPS - CUT)


def test_one_goes_on_with_what_two_began(folder, alone):
    curve = training("full", "ddp", copied(folder, "fsdp", "1"), ALONE)[2]
    alike(curve, alone["full"])
    assert curve[0]["restored"] == CUT


def test_three_go_on_with_what_two_began(folder, alone):
    together(on_three, folder, world=3)
    curve = json.loads((folder / "three-0.json").read_text())["curve"]
    alike(curve, alone["full"])
    assert curve[0]["restored"] == CUT


def test_each_rank_writes_its_own_part(folder):
    newest = max((folder / "full-fsdp").glob("step-*"))
    for part in ("weights", "optimizer"):
        files = sorted(newest.glob(f"{part}-*.safetensors"))
        assert [path.name for path in files] == [f"{part}-0000{n}-of-00002.safetensors" for n in (1, 2)]
        small, large = sorted(path.stat().st_size for path in files)
        assert small > 0.8 * large


# --- gradients --------------------------------------------------------------------------------------------------------


def distillation(train_llm, parallel, ranks):
    student, teacher = student_and_teacher(train_llm)
    wrapped = distribute(student, teacher, StageSettings(alpha=0.7), EngineSettings(parallel=parallel), ranks)
    return student.train(), wrapped


def batches():
    """What the ranks read: in the first step the second has text alone, in the second step the first."""
    spoken, read = tiny.batch_of(tiny.utterances(3)), tiny.batch_of([], ["the quiet river", "she listens, he speaks;"])
    assert read.speech_features_SFE is None
    return [[spoken, read], [read, spoken]]


def gradients(student):
    return {name: whole(p.grad).clone() for name, p in student.named_parameters() if p.requires_grad}


def both_steps(ranks, folder):
    """One process: both steps in every way, its gradients of each to a file."""
    for train_llm, parallel in WAYS:
        student, wrapped = distillation(train_llm, parallel, ranks)
        for step, read in enumerate(batches()):
            student.zero_grad()
            wrapped(read[ranks.rank]).loss.backward()
            save_file(gradients(student), folder / f"{train_llm}-{parallel}-{step}-{ranks.rank}.safetensors")


@pytest.mark.parametrize(("train_llm", "parallel"), WAYS)
def test_a_rank_that_reads_text_alone_neither_hangs_nor_changes_the_gradient(two, folder, train_llm, parallel):
    for step, read in enumerate(batches()):
        student, alone = distillation(train_llm, parallel, ALONE)
        torch.stack([alone(batch).loss for batch in read]).sum().backward()
        expected = gradients(student)
        for rank in range(2):
            found = load_file(folder / f"{train_llm}-{parallel}-{step}-{rank}.safetensors")
            assert found.keys() == expected.keys()
            assert any(name.startswith("adapter.") for name in found)
            for name, gradient in expected.items():
                # both ways take the mean over the ranks
                assert torch.allclose(2 * found[name], gradient, rtol=1e-4, atol=1e-5), name
