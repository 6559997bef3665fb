"""The frozen text LLM: the base LLM to the bit whatever the student has learnt, and whatever training does to it."""

import pytest
import torch

import tiny
from salad.distill.loop import train
from salad.distill.teacher import LoraOffTeacher, SeparateTeacher, bytes_of, teacher_for, unchanging
from salad.errors import CheckpointError
from salad.recipe import OptimizerSettings, StageSettings

pytestmark = pytest.mark.usefixtures("one_thread")

SPOKEN = tiny.utterances(4)
TEXTS = ["the quiet river", "she listens, he speaks; and it was evening"]
STAGE = StageSettings(steps=3, optimizer=OptimizerSettings(adapter_rate=1e-2, llm_rate=1e-2))


def read(teacher, batch):
    return teacher.last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D)


def made(train_llm, **options):
    """A student and a teacher of it; tiny LLMs have no name to be loaded by."""
    student = tiny.student(train_llm, **options)
    return student, SeparateTeacher(tiny.llm()) if train_llm == "full" else teacher_for(student)


@pytest.mark.parametrize("train_llm", ["lora", "frozen"])
def test_without_its_lora_the_student_is_the_text_llm_to_the_bit(train_llm):
    student = tiny.move(tiny.student(train_llm))
    batch = tiny.batch_of(SPOKEN, TEXTS)
    wanted = read(SeparateTeacher(tiny.llm()), batch)
    assert torch.equal(read(LoraOffTeacher(student), batch), wanted)
    own = student.last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D).detach()
    assert torch.equal(own, wanted) == (train_llm == "frozen")  # the LoRA that was switched off says something


def test_a_student_that_is_trained_in_full_is_no_teacher():
    with pytest.raises(CheckpointError, match="load the text LLM separately"):
        LoraOffTeacher(tiny.student("full"))


@pytest.mark.parametrize("train_llm", ["lora", "frozen", "full"])
def test_training_leaves_the_teacher_as_it_is(tmp_path, train_llm):
    student, teacher = made(train_llm)
    batch = tiny.batch_of(SPOKEN, TEXTS)
    before = read(teacher, batch)
    with unchanging(teacher):
        reports = list(train(student, teacher, lambda _: [batch], STAGE, lambda _: 1.0, tmp_path))
    assert reports[-1].kl_nats != reports[0].kl_nats
    assert torch.equal(read(teacher, batch), before)
    assert not any(p.requires_grad for name, p in teacher_weights(teacher) if "lora_" not in name)


def teacher_weights(teacher):
    return (teacher.llm if isinstance(teacher, SeparateTeacher) else teacher.student.language_model).named_parameters()


@pytest.mark.parametrize("train_llm", ["lora", "full"])
def test_the_least_change_of_a_weight_is_found(train_llm):
    _, teacher = made(train_llm)
    _, last = [(name, p) for name, p in teacher_weights(teacher) if "lora_" not in name][-1]

    def nudge():
        with torch.no_grad():
            last.view(-1)[3:4].copy_(torch.nextafter(last.view(-1)[3:4], torch.tensor(9.0)))

    with pytest.raises(CheckpointError, match="teacher's weights changed"), unchanging(teacher):
        nudge()


def test_a_change_of_the_lora_is_none_of_the_teacher():
    student, teacher = made("lora")
    with unchanging(teacher):
        tiny.move(student)


def test_an_error_inside_is_not_covered_up():
    with pytest.raises(KeyError), unchanging(made("lora")[1]):
        raise KeyError("step")


@pytest.mark.parametrize("train_llm", ["lora", "full"])
def test_the_teacher_drops_nothing_out_whatever_mode_its_llm_is_in(train_llm):
    student = tiny.student(train_llm, base=tiny.llm(dropout=0.5))
    teacher = SeparateTeacher(tiny.llm(dropout=0.5)) if train_llm == "full" else teacher_for(student)
    batch = tiny.batch_of([], TEXTS)
    calm = read(teacher, batch)
    student.train()
    if train_llm == "full":
        teacher.llm.train()
    assert torch.equal(read(teacher, batch), calm)
    assert student.training
    own = student.last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D)
    assert not torch.equal(own, calm)  # the student does drop out


@pytest.mark.parametrize("train_llm", ["lora", "full"])
def test_matched_hidden_states_are_those_at_the_matched_positions(train_llm):
    _, teacher = made(train_llm)
    batch = tiny.batch_of(SPOKEN, TEXTS)
    matched = teacher.matched_hidden(batch)
    assert torch.equal(matched, read(teacher, batch)[batch.teacher_positions_N])
    assert not matched.requires_grad
    assert len(matched) == len(batch.targets_N) > 0
    assert torch.equal(teacher.head.weight_VH, teacher.head_VH)
    assert not teacher.head.weight_VH.requires_grad


@pytest.mark.parametrize("train_llm", ["lora", "full"])
def test_a_batch_without_a_matched_position_has_no_hidden_states(train_llm):
    _, teacher = made(train_llm)
    batch = tiny.batch_of([], [""])  # the mark alone: nothing follows it
    assert len(batch.targets_N) == 0
    assert teacher.matched_hidden(batch).shape == (0, 32)


@pytest.mark.parametrize(("train_llm", "kind"), [("lora", "separate"), ("full", "auto"), ("full", "separate")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_separate_teacher_is_a_copy_of_the_named_llm_in_its_dtype(tmp_path, train_llm, kind, dtype):
    name = str(tiny.save_llm(tmp_path / "llm", seed=5))
    student = tiny.student(train_llm, base=tiny.llm(seed=5).to(getattr(torch, dtype)))
    student.config.llm, student.config.dtype = name, getattr(torch, dtype)
    teacher = teacher_for(student, kind)
    assert isinstance(teacher, SeparateTeacher)
    assert {p.dtype for p in teacher.llm.parameters()} == {getattr(torch, dtype)}
    assert torch.equal(teacher.head_VH, student.head_VH)
    assert teacher.head_VH.data_ptr() != student.head_VH.data_ptr()
    batch = tiny.batch_of(SPOKEN, TEXTS)
    assert teacher.matched_hidden(batch).dtype == getattr(torch, dtype)
    if train_llm == "lora" and dtype == "float32":
        assert torch.equal(teacher.matched_hidden(batch), teacher_for(student).matched_hidden(batch))
        assert teacher.fingerprint() == teacher_for(student).fingerprint()


def test_the_bytes_of_a_weight_are_hashed_in_any_type():
    weight = torch.randn(3, 5)
    assert bytes(bytes_of(weight.T)) == weight.T.contiguous().numpy().tobytes()
    assert len(bytes_of(weight.bfloat16())) == 30
    assert len(bytes_of(torch.tensor(2.0))) == 4
