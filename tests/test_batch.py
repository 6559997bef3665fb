"""Batches and the mix: the best grouping there is, padding that changes nothing, a stream that is a pure function."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from salad.errors import RecipeError
from salad.interleave.batch import partition_by_length
from salad.interleave.mix import BLOCK, Mix

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


# --- the mix --------------------------------------------------------------------------------------------------------


def test_the_mix_is_a_pure_function_of_the_position():
    mix = Mix([7, 11], [2, 1], 0, "stage_one")
    stream = [mix.draw(p) for p in range(400)]
    again = Mix([7, 11], [2, 1], 0, "stage_one")
    assert [again.draw(p) for p in reversed(range(400))] == stream[::-1]
    assert [Mix([7, 11], [2, 1], 1, "stage_one").draw(p) for p in range(400)] != stream
    assert [Mix([7, 11], [2, 1], 0, "stage_two").draw(p) for p in range(400)] != stream


@pytest.mark.parametrize(
    ("weights", "of_a_block"),
    [([2, 1], [40, 20]), ([1, 1, 1], [20, 20, 20]), ([2 / 3, 1 / 3], [40, 20]), ([1, 0], [60, 0])],
)
def test_every_block_has_the_exact_weights(weights, of_a_block):
    mix = Mix([5] * len(weights), weights, 0, "mix")
    for block in range(3):
        drawn = [mix.draw(block * BLOCK + i).source for i in range(BLOCK)]
        assert [drawn.count(source) for source in range(len(weights))] == of_a_block


def test_every_item_comes_once_an_epoch():
    mix = Mix([7, 90], [1, 1], 0, "mix")
    seen = {0: [], 1: []}
    for position in range(30 * BLOCK):
        draw = mix.draw(position)
        seen[draw.source].append((draw.epoch, draw.index))
    for source, size in enumerate([7, 90]):
        for epoch in range(len(seen[source]) // size):
            part = seen[source][epoch * size : (epoch + 1) * size]
            assert {e for e, _ in part} == {epoch}
            assert sorted(i for _, i in part) == list(range(size))
    orders = {tuple(i for e, i in seen[1] if e == epoch) for epoch in range(5)}
    assert len(orders) == 5


@pytest.mark.parametrize(
    ("sizes", "weights", "said"),
    [([0, 3], [1, 1], "no items"), ([3, 3], [0, 0], "no source"), ([3, 3], [1000, 1], "1 in 60")],
)
def test_a_mix_that_cannot_be_kept_is_refused(sizes, weights, said):
    with pytest.raises(RecipeError, match=said):
        Mix(sizes, weights, 0, "stage_one")
    assert Mix([0, 3], [0, 1], 0, "stage_one").draw(0).source == 1
