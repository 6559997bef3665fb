"""What a worker of a test of cores does; nothing heavy is imported, or each worker would pay for it."""

from __future__ import annotations

import os
from collections.abc import Callable

from salad.synthesize.cores import take_core


def the_core() -> Callable[[int], list[int]]:
    take_core()
    return lambda _: sorted(os.sched_getaffinity(0))
