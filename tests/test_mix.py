"""The mix: a stream that is a pure function of the position, exact shares, every item once an epoch, little memory."""

import itertools
import pickle
import time
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salad.errors import RecipeError
from salad.interleave import mix as mix_module
from salad.interleave.mix import BUFFER, CHUNK, Draw, Mix

weights_of = st.lists(st.one_of(st.floats(1e-3, 10), st.integers(0, 5).map(float)), min_size=1, max_size=5)


def by_replay(sizes, weights, num):
    """The reference: every position after the other, each source counted, nothing computed at once."""
    exact = [Fraction(weight).limit_denominator(10**12) for weight in weights]
    num_asked, num_taken, found = [0] * len(sizes), [0] * len(sizes), []
    for _ in range(num):
        for source, weight in enumerate(exact):
            if weight == 0:
                continue
            num_asked[source] += 1
            share = weight / sum(exact[source:])
            if num_taken[source] < int(share * num_asked[source] + Fraction(1, 2)):
                break
        found.append((source, *divmod(num_taken[source], sizes[source])))
        num_taken[source] += 1
    return found


def test_the_mix_is_a_pure_function_of_the_position():
    mix = Mix([7, 11], [2, 1], 0, "stage_one")
    stream = [mix.draw(p) for p in range(400)]
    again = pickle.loads(pickle.dumps(Mix([7, 11], [2, 1], 0, "stage_one")))
    assert [again.draw(p) for p in reversed(range(400))] == stream[::-1]
    assert [Mix([7, 11], [2, 1], 1, "stage_one").draw(p) for p in range(400)] != stream
    assert [Mix([7, 11], [2, 1], 0, "stage_two").draw(p) for p in range(400)] != stream


@given(weights_of.filter(any), st.integers(1, 40))
@settings(deadline=None, max_examples=60)
def test_a_position_at_once_is_what_counting_from_the_start_gives(weights, size):
    sizes = [size + k for k in range(len(weights))]
    mix = Mix(sizes, weights, 0, "mix")
    for position, (source, epoch, place) in enumerate(by_replay(sizes, weights, 120)):
        draw = mix.draw(position)
        assert (draw.source, draw.epoch) == (source, epoch)
        assert draw.index == mix._item(source, epoch, place)


@given(weights_of.filter(any), st.integers(0, 10**12))
@settings(deadline=None, max_examples=60)
def test_every_share_is_exact_in_the_long_run_anywhere_in_the_stream(weights, start):
    mix = Mix([10**6] * len(weights), weights, 0, "mix")
    shares = np.array(weights) / sum(weights)
    drawn = np.cumsum(np.eye(len(weights))[[mix.draw(p).source for p in range(start, start + 300)]], axis=0)
    expected = np.outer(np.arange(1, 301), shares)
    assert np.abs(drawn - expected).max() <= 2 * len(weights)


@pytest.mark.parametrize(
    ("weights", "of_sixty"),
    [
        ([2, 1], [40, 20]),
        ([1 - 1 / 3, 1 / 3], [40, 20]),
        ([1, 1, 1], [20, 20, 20]),
        ([1 / 3] * 3, [20] * 3),
        ([1, 0], [60, 0]),
        ([0, 1], [0, 60]),
    ],
)
def test_the_papers_shares_are_exact_every_few_positions(weights, of_sixty):
    mix = Mix([5] * len(weights), weights, 0, "mix")
    for start in (0, 60, 6 * 10**12):
        drawn = [mix.draw(start + i).source for i in range(60)]
        assert [drawn.count(source) for source in range(len(weights))] == of_sixty


def test_a_small_weight_is_kept_and_not_rounded_away():
    mix = Mix([9, 9], [1999, 1], 0, "mix")
    assert [sum(mix.draw(start + i).source for i in range(2000)) for start in (0, 2000, 10**9)] == [1, 1, 1]


def epoch_of(mix, size, epoch):
    return [mix.draw(epoch * size + place) for place in range(size)]


@given(
    st.one_of(st.integers(1, 3 * CHUNK), st.integers(BUFFER * CHUNK - 300, 2 * BUFFER * CHUNK + 300)),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=8)
def test_every_item_comes_once_an_epoch(size, seed):
    mix = Mix([size], [1], seed, "mix")
    for epoch in (0, 3):
        drawn = epoch_of(mix, size, epoch)
        assert {(draw.source, draw.epoch) for draw in drawn} == {(0, epoch)}
        assert sorted(draw.index for draw in drawn) == list(range(size))


def test_every_item_comes_once_an_epoch_in_a_mix():
    mix = Mix([7, 90], [1, 2], 0, "mix")
    seen = {0: [], 1: []}
    for position in range(1000):
        draw = mix.draw(position)
        seen[draw.source].append((draw.epoch, draw.index))
    for source, size in enumerate([7, 90]):
        for epoch in range(len(seen[source]) // size):
            part = seen[source][epoch * size : (epoch + 1) * size]
            assert {e for e, _ in part} == {epoch}
            assert sorted(i for _, i in part) == list(range(size))


def test_epochs_and_sources_of_one_size_come_in_other_orders():
    size = 500
    mix = Mix([size, size], [1, 1], 0, "mix")
    drawn = [mix.draw(p) for p in range(6 * size)]
    orders = {
        tuple(d.index for d in drawn if (d.source, d.epoch) == (source, epoch))
        for source in (0, 1)
        for epoch in range(3)
    }
    assert len(orders) == 6


def test_a_source_that_fits_a_buffer_is_shuffled_uniformly():
    """Chi-square of (place, item), 3,000 epochs of 6 items in chunks of 2; the 99.99 % point for 25 degrees is 63."""
    counts = np.zeros((6, 6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mix_module, "CHUNK", 2)
        mix = Mix([6], [1], 0, "uniform")
        for epoch in range(3000):
            for place, draw in enumerate(epoch_of(mix, 6, epoch)):
                counts[place, draw.index] += 1
    expected = 3000 / 6
    assert ((counts - expected) ** 2 / expected).sum() < 63


def test_a_large_source_is_mixed_within_its_buffer_and_read_from_few_places():
    size = 40 * BUFFER * CHUNK + 77
    mix = Mix([size], [1], 0, "mix")
    drawn = np.array([mix.draw(p).index for p in range(BUFFER * CHUNK // 2)])
    assert len(np.unique(drawn)) == len(drawn)
    assert len(np.unique(drawn // CHUNK)) <= 2 * (BUFFER + 1)  # a chunk reaches over at most one such border
    assert np.mean(np.abs(np.diff(drawn)) < CHUNK) < 3 / BUFFER  # neighbours seldom come after one another
    assert drawn.mean() == pytest.approx(size / 2, rel=0.25)  # chunks come from all over
    assert abs(np.corrcoef(drawn, np.arange(len(drawn)))[0, 1]) < 0.05


def test_36_million_items_take_little_memory_and_any_position_comes_at_once():
    size = 36_000_001
    mix = Mix([size, 1000], [2, 1], 0, "big")
    mix.draw(0)
    tracemalloc.start()
    started = time.perf_counter()
    positions = [int(p) for p in np.random.default_rng(0).integers(0, 3 * size, 40)]
    far = [mix.draw(p) for p in positions]
    seconds = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [mix.draw(p) for p in positions] == far
    assert seconds / len(positions) < 0.5  # about 5 ms; the limit leaves room for a busy machine
    assert peak < 60 << 20


def test_a_stream_can_be_read_on_from_the_middle_of_an_epoch_of_many_buffers():
    size = 3 * BUFFER * CHUNK + 5
    mix = Mix([size], [1], 4, "mix")
    whole = [d.index for d in itertools.chain(epoch_of(mix, size, 0), epoch_of(mix, size, 1))]
    mix_module._chunks.cache_clear()
    mix_module._buffer.cache_clear()
    for start in (1, size // 2, size - 1, size, 2 * size - 3):
        assert mix.draw(start) == Draw(0, whole[start], start // size)


@pytest.mark.parametrize(
    ("sizes", "weights", "said"),
    [([0, 3], [1, 1], "no items"), ([3, 3], [0, 0], "give one source some"), ([3, 3], [2, -1], "none < 0")],
)
def test_a_mix_that_cannot_be_kept_is_refused(sizes, weights, said):
    with pytest.raises(RecipeError, match=said):
        Mix(sizes, weights, 0, "stage_one")
    assert Mix([0, 3], [0, 1], 0, "stage_one").draw(0).source == 1
