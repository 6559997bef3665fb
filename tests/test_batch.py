"""Batches: the best grouping there is, padding that changes nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from salad.interleave.batch import partition_by_length

pytestmark = pytest.mark.usefixtures("one_thread")


def cost(groups, lengths, overhead):
    return sum(len(group) * max(lengths[i] for i in group) + overhead for group in groups)


def all_partitions(items):
    if not items:
        yield []
        return
    first, *rest = items
    for partition in all_partitions(rest):
        yield [[first], *partition]
        for k in range(len(partition)):
            yield [*partition[:k], [first, *partition[k]], *partition[k + 1 :]]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=7), st.integers(0, 60), st.integers(1, 7))
@settings(deadline=None, max_examples=40)
def test_batches_of_like_length_are_the_best_there_are(lengths, overhead, most):
    groups = partition_by_length(lengths, overhead, most)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert max(map(len, groups)) <= most
    best = min(
        cost(partition, lengths, overhead)
        for partition in all_partitions(list(range(len(lengths))))
        if max(map(len, partition)) <= most
    )
    assert cost(groups, lengths, overhead) == best


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=64))
@settings(deadline=None, max_examples=20)
def test_batches_of_like_length_are_no_worse_than_one_batch(lengths):
    groups = partition_by_length(lengths)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert cost(groups, lengths, 48) <= cost([list(range(len(lengths)))], lengths, 48)


@pytest.mark.parametrize(
    "adapter", [{"kind": "mlp"}, {"kind": "paper"}, {"kind": "paper", "output": "linear"}], ids=str
)
def test_padding_does_not_change_a_hidden_state(adapter):
    model = tiny.move(tiny.student(**adapter), by=0.05)
    spoken = [tiny.utterance("a", 6), tiny.utterance("b", 25, partial_frames=3), tiny.utterance("c", 12)]
    build = tiny.builder(policy="interleaved", text_words=(1, 5), speech_words=(1, 5))
    sequences = [*(build.mixed(u) for u in spoken), build.text("t", "the quiet river")]
    together = tiny.collated(sequences, spoken)
    assert together.student_mask_BT.sum(1).tolist() == [len(sequence.student_ids) for sequence in sequences]
    assert together.teacher_mask_BL.sum(1).tolist() == [len(sequence.teacher_ids) for sequence in sequences]

    def hidden(batch):
        speech = batch.speech_features_SFE, batch.speech_lengths_S
        student = model.last_hidden(batch.student_ids_BT, batch.student_mask_BT, *speech)
        teacher = model.last_hidden(batch.teacher_ids_BL, batch.teacher_mask_BL)
        return student[batch.rows_N, batch.student_positions_N], teacher[batch.rows_N, batch.teacher_positions_N]

    with torch.no_grad():
        student, teacher = hidden(together)
        for row, sequence in enumerate(sequences):
            own = together.rows_N == row
            alone = tiny.collated([sequence], spoken)
            assert torch.equal(alone.targets_N, together.targets_N[own])
            student_alone, teacher_alone = hidden(alone)
            assert torch.allclose(student_alone, student[own], atol=1e-4)
            assert torch.allclose(teacher_alone, teacher[own], atol=1e-4)
