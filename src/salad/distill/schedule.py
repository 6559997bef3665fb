"""Learning-rate schedules, as factors of the peak rate. Steps count from 0."""

from __future__ import annotations

import math


def decay_start(steps: int, decay_frac: float) -> int:
    """The first step of the decay; the checkpoint before it is the one Stage II starts from."""
    return steps - math.floor(steps * decay_frac + 0.5)


def warmup_stable_decay(step: int, steps: int, warmup_steps: int, decay_frac: float) -> float:
    """Linear warmup, constant, then linear decay to 0 over the last `decay_frac` of the steps (paper: 500 and 0.2)."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    start = decay_start(steps, decay_frac)
    return 1.0 if step < start else (steps - step) / (steps - start)


def linear_to_zero(step: int, steps: int) -> float:
    """Stage II: from the peak rate linearly to 0."""
    return (steps - step) / steps
