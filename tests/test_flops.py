"""FLOPs by sizes and lengths are what PyTorch's counter finds in a real step, but for attention it need not look at."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tiny
from salad.distill.divergence import objective_sum
from salad.distill.teacher import LoraOffTeacher, SeparateTeacher
from salad.model.flops import Cost, StepFlops

LENGTHS = (7, 1, 12)


def counted_step(student, teacher, batch):
    """FLOPs of one forward and backward pass, every product counted, masked attention scores too."""
    student.train()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        hidden = student.last_hidden(
            batch.student_ids_T, batch.student_lengths_D, batch.speech_features_SFE, batch.speech_lengths_S
        )[batch.student_positions_N]
        read = teacher.last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D)[batch.teacher_positions_N]
        objective_sum(hidden, student.head_VH, read, teacher.head_VH, batch.targets_N, 1.0)[0].backward()
    return counter.get_total_flops()


def square(cost, lengths):
    """As `Cost.of`, if a position looked at all positions of its document."""
    return cost.position * int(sum(lengths)) + cost.pair * int(sum(n * n for n in lengths))


def predicted(flops, batch):
    """Our FLOPs with every pair of positions counted, and the adapter's padding, as the counter sees them."""
    num_spans, num_frames = batch.speech_features_SFE.shape[:2]
    padded = [-(-num_frames // flops.frames_per_position)] * num_spans
    return (
        square(flops.student, batch.student_lengths_D)
        + square(flops.teacher, batch.teacher_lengths_D)
        + square(flops.adapter, padded)
        + flops.scored * len(batch.targets_N)
    )


@pytest.mark.parametrize("kind", ["mlp", "stack"])
@pytest.mark.parametrize("train_llm", ["lora", "frozen", "full"])
def test_a_steps_flops_are_those_the_counter_finds(train_llm, kind):
    student = tiny.student(train_llm, kind=kind)
    teacher = SeparateTeacher(tiny.llm()) if train_llm == "full" else LoraOffTeacher(student)
    batch = tiny.batch_of(tiny.utterances(3), ["a text to read, and no speech in it"])
    flops = StepFlops.of(student.config)
    assert predicted(flops, batch) == counted_step(student, teacher, batch)


@pytest.mark.parametrize("kind", ["mlp", "stack"])
def test_a_continuations_flops_are_those_of_reading_it_once(kind):
    """With a cache each position is read once, as in one pass over all of it; the head reads where a token is drawn."""
    student, tokens = tiny.student("lora", kind=kind), 3
    batch = tiny.batch_of(tiny.utterances(1))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        hidden = student.last_hidden(
            batch.student_ids_T, batch.student_lengths_D, batch.speech_features_SFE, batch.speech_lengths_S
        )
        hidden[-tokens:] @ student.head_VH.T
    flops, length = StepFlops.of(student.config), int(batch.student_lengths_D)
    heard = [-(-int(frames) // flops.frames_per_position) for frames in batch.speech_lengths_S]
    unmasked = flops.student_forward.pair * length * (length - 1) / 2
    unmasked += sum(flops.adapter_forward.pair * n * (n - 1) / 2 for n in heard)
    assert flops.rollout(length, tokens, heard) + unmasked == counter.get_total_flops()


def test_documents_cost_what_they_look_at():
    cost = Cost(position=10.0, pair=3.0)
    assert cost.of(LENGTHS) == 10 * 20 + 3 * (28 + 1 + 78)
    assert cost.of(torch.tensor(LENGTHS)) == cost.of(LENGTHS)
    assert cost.of(()) == 0


def test_a_step_is_the_sum_of_its_parts():
    heads = {"scored": 11.0, "head_forward": 4.0}
    adapters = {"adapter": Cost(7, 0), "adapter_forward": Cost(2, 0), "frames_per_position": 4}
    flops = StepFlops(Cost(5, 2), Cost(2, 1), Cost(3, 1), **adapters, **heads)
    one = flops.step((10, 3), (6, 2), 5, (9,))
    assert one == 5 * 13 + 2 * (55 + 6) + 3 * 8 + (21 + 3) + 7 * 3 + 11 * 5
    assert flops.step((10,), (6,), 5, (9,)) + flops.step((3,), (2,), 0, ()) == one
    assert flops.recomputed((10, 3)) == 2 * 13 + 61
    assert flops.rollout(10, 4, (3, 2)) == 2 * 10 + 55 + 2 * 5 + 4 * 4


def test_a_cached_teacher_reads_nothing_but_still_has_its_head():
    config = tiny.student("full").config
    read, cached = StepFlops.of(config), StepFlops.of(config, cached_teacher=True)
    assert cached.teacher == Cost(0.0, 0.0)
    assert cached.scored == read.scored
    assert read.teacher.position == read.student_forward.position


def test_lora_adds_to_the_student_and_not_to_the_teacher():
    lora, frozen = StepFlops.of(tiny.student("lora").config), StepFlops.of(tiny.student("frozen").config)
    assert lora.student_forward.position > frozen.student_forward.position
    assert lora.teacher == frozen.teacher
