"""Sequences into windows of a fixed number of positions: as few windows as best-fit decreasing finds, of equal loads.

Best-fit decreasing (Johnson, 1973: at most 11/9 of the fewest windows, far nearer where items are short) takes the
longest item first and puts each into the window it leaves least room in. A window is not padded, so the room it leaves
costs nothing; what costs is a rank that waits for another's longer windows, and the memory of the longest.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Sequence

from salad.errors import DataError

Windows = list[list[int]]


def pack(lengths: Sequence[int], capacity: int, multiple_of: int = 1) -> Windows:
    """Group items into windows of at most `capacity` positions: every item once, no window empty; deterministic.

    Args:
        lengths: positions of each item.
        capacity: positions a window takes.
        multiple_of: the number of windows is a multiple of it: of the ranks of a run, so that each has equally many.

    Returns:
        The items' indices, window by window, their loads as equal as a greedy assignment makes them.

    Raises:
        DataError: an item is empty or longer than a window, or there are too few items for so many windows.
    """
    for index, length in enumerate(lengths):
        if not 0 < length <= capacity:
            raise DataError(
                f"item {index} has {length} positions, a window takes 1 to {capacity}; raise the window's size or "
                "leave the item out."
            )
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    windows = _best_fit(lengths, order, capacity)
    wanted = -(-len(windows) // multiple_of) * multiple_of
    if len(lengths) < wanted:
        raise DataError(
            f"{len(lengths)} items can't fill {wanted} windows of {capacity} positions, a multiple of {multiple_of} "
            f"({len(windows)} would hold them); draw more items a step (batch_sequences) or use fewer ranks."
        )
    return _balanced(lengths, order, capacity, wanted) or _split(lengths, windows, wanted)


def _best_fit(lengths: Sequence[int], order: Sequence[int], capacity: int) -> Windows:
    windows: Windows = []
    room: list[tuple[int, int]] = []  # (positions left, window), ascending
    for item in order:
        best = bisect_left(room, (lengths[item], -1))
        if best == len(room):
            left, window = capacity, len(windows)
            windows.append([])
        else:
            left, window = room.pop(best)
        windows[window].append(item)
        insort(room, (left - lengths[item], window))
    return windows


def _balanced(lengths: Sequence[int], order: Sequence[int], capacity: int, num_windows: int) -> Windows | None:
    """The longest item first, each into the emptiest window (Graham, 1969); None if one runs over."""
    windows: Windows = [[] for _ in range(num_windows)]
    loads = [(0, window) for window in range(num_windows)]  # a heap
    for item in order:
        load, window = loads[0]
        if load + lengths[item] > capacity:
            return None
        windows[window].append(item)
        heapq.heapreplace(loads, (load + lengths[item], window))
    return windows


def _split(lengths: Sequence[int], windows: Windows, num_windows: int) -> Windows:
    """Halve the fullest window that holds two items or more, until there are `num_windows`."""
    windows = list(windows)
    while len(windows) < num_windows:
        loads = [sum(lengths[i] for i in window) if len(window) > 1 else 0 for window in windows]
        fullest = loads.index(max(loads))
        halves = _balanced(lengths, windows[fullest], loads[fullest], 2)
        assert halves is not None, "each half holds less than the whole"
        windows[fullest : fullest + 1] = halves
    return windows
