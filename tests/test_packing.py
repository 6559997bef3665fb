"""Packing: every item once, no window too full, hardly a position empty, and equal work for every rank."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from salad.errors import DataError
from salad.interleave.packing import pack

CAPACITY = 2048
HZ = 12.5

LENGTHS = st.lists(st.integers(1, 60), max_size=40)


def loads_of(windows, lengths):
    return [sum(lengths[i] for i in window) for window in windows]


@given(LENGTHS, st.integers(60, 200), st.integers(1, 5))
@settings(deadline=None, max_examples=200)
def test_every_item_is_packed_once_and_no_window_runs_over(lengths, capacity, multiple_of):
    try:
        windows = pack(lengths, capacity, multiple_of)
    except DataError:
        least = -(-sum(lengths) // capacity)
        # Refused only where so many windows could not all be filled, were they packed perfectly or not at all well.
        assert len(lengths) < -(-2 * least // multiple_of) * multiple_of
        assume(False)
    assert sorted(i for window in windows for i in window) == list(range(len(lengths)))
    assert all(window for window in windows)
    assert all(load <= capacity for load in loads_of(windows, lengths))
    assert len(windows) % multiple_of == 0
    assert pack(lengths, capacity, multiple_of) == windows


def fewest_windows(lengths, capacity):
    """By trying every placement: the reference for short lists."""
    best = len(lengths)

    def place(index, rooms):
        nonlocal best
        if len(rooms) >= best:
            return
        if index == len(lengths):
            best = len(rooms)
            return
        for k, room in enumerate(rooms):
            if room >= lengths[index]:
                place(index + 1, [*rooms[:k], room - lengths[index], *rooms[k + 1 :]])
        place(index + 1, [*rooms, capacity - lengths[index]])

    place(0, [])
    return best


@given(st.lists(st.integers(1, 30), min_size=1, max_size=7), st.integers(30, 70))
@settings(deadline=None, max_examples=60)
def test_there_are_hardly_more_windows_than_the_fewest_possible(lengths, capacity):
    windows = pack(lengths, capacity)
    fewest = fewest_windows(lengths, capacity)
    assert fewest <= len(windows) <= fewest * 11 / 9 + 1  # Johnson's bound


@given(st.lists(st.integers(1, 300), min_size=64, max_size=64), st.sampled_from([2, 4, 8]))
@settings(deadline=None, max_examples=50)
def test_ranks_get_equally_many_windows_of_nearly_equal_loads(lengths, ranks):
    windows = pack(lengths, CAPACITY, ranks)
    loads = loads_of(windows, lengths)
    assert len(windows) == -(-len(pack(lengths, CAPACITY)) // ranks) * ranks  # the least multiple
    assert max(loads) - min(loads) <= max(lengths)


def test_nothing_makes_no_window():
    assert pack([], CAPACITY) == pack([], CAPACITY, 4) == []


def test_what_is_packed_does_not_depend_on_the_items_order():
    lengths = [7, 7, 30, 12, 12, 5, 41, 2]
    by_length = sorted(sorted(lengths[i] for i in window) for window in pack(lengths, 48))
    turned = lengths[::-1]
    assert sorted(sorted(turned[i] for i in window) for window in pack(turned, 48)) == by_length


def test_where_equal_loads_would_run_over_the_fullest_window_is_halved():
    lengths = [5] * 8 + [4] * 8 + [3] * 12  # 12 windows of 9; longest into emptiest needs 10 in one, even with 13
    assert loads_of(pack(lengths, 9), lengths) == [9] * 12
    assert sorted(loads_of(pack(lengths, 9, 13), lengths)) == [4, 5] + [9] * 11


@pytest.mark.parametrize(
    ("lengths", "capacity", "multiple_of", "said"),
    [
        ([3, 9], 8, 1, "item 1 has 9 positions, a window takes 1 to 8"),
        ([3, 0], 8, 1, "item 1 has 0 positions"),
        ([3, 4], 8, 3, "2 items can't fill 3 windows"),
        ([8, 8, 8], 8, 2, r"3 items can't fill 4 windows of 8 positions, a multiple of 2 \(3 would hold them\)"),
    ],
)
def test_what_cannot_be_packed_is_refused(lengths, capacity, multiple_of, said):
    with pytest.raises(DataError, match=said):
        pack(lengths, capacity, multiple_of)


# --- how full windows get -------------------------------------------------------------------------------------------


def fill(lengths, buffer, capacity=CAPACITY):
    """Positions / (windows x capacity) over all whole buffers; nothing is carried from one to the next."""
    used = room = 0
    for begin in range(0, len(lengths) - buffer + 1, buffer):
        part = lengths[begin : begin + buffer]
        windows = pack(part, capacity)
        used += sum(part)
        room += capacity * len(windows)
    return used / room


def librispeech_like(num, seed=0):
    """Positions of utterances cut like LibriSpeech's: most near the 14-16 s its makers cut at, a tail of short ones."""
    rng = np.random.default_rng(seed)
    long, short = rng.normal(14.2, 1.5, num), rng.uniform(1.3, 13, num)
    seconds = np.where(rng.random(num) < 0.72, long, short).clip(1.3, 24)
    return np.ceil(seconds * HZ).astype(int).tolist()


@pytest.mark.parametrize(("buffer", "least"), [(256, 0.97), (512, 0.98), (1024, 0.99)])
def test_windows_are_full_on_lengths_like_librispeechs(buffer, least):
    assert fill(librispeech_like(16 * 1024), buffer) >= least


@pytest.mark.parametrize(("buffer", "least"), [(256, 0.98), (1024, 0.99)])
def test_windows_are_full_on_long_documents(buffer, least):
    rng = np.random.default_rng(0)
    sigma = np.sqrt(np.log(1 + (200 / 300) ** 2))  # lognormal of mean 300 and standard deviation 200
    lengths = rng.lognormal(np.log(300) - sigma**2 / 2, sigma, 16 * 1024).clip(8, CAPACITY).astype(int).tolist()
    assert fill(lengths, buffer) >= least


def test_windows_are_full_on_real_utterances(shared_data):
    path = shared_data / "speech" / "ljspeech_word_timings" / "word_timings.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no word timings to pack: {path} does not exist")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line)["words"] for line in lines]
    heard = [int(np.ceil(words[-1][2] * HZ)) for words in rows]
    read = [sum(-(-len(text) // 4) for text, *_ in words if text) for words in rows]  # about four letters a token
    lengths = [h + r for h, r in zip(heard, [*read[1:], read[0]], strict=True)]  # heard, then the next
    assert len(lengths) == 13100
    assert fill(lengths, 1024) >= 0.98
    buffers = [lengths[begin : begin + 256] for begin in range(0, len(lengths), 256)]
    fewest = sum(-(-sum(buffer) // CAPACITY) for buffer in buffers)  # the end of each buffer's last window stays open
    assert sum(len(pack(buffer, CAPACITY)) for buffer in buffers) <= 1.01 * fewest
