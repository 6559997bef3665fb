"""From arms to an effect: paired by item, over seeds, with an interval that knows of both.

For arms a and b, seeds s and items i with divergences k and position counts n, the effect of a seed and of all is

    e_s = Σ_i (k_asi − k_bsi) / Σ_i n_i           e = mean_s e_s

Its variance is the items' and the seeds' together,

    var = var_items(e) + var_seeds(e_s) / S

the first by bootstrap over items (their differences averaged over seeds), the second the sample variance. The interval
is e ± t·√var, t at Satterthwaite's (1946) degrees of freedom of the two. It takes the seeds' scatter on these items for
what it would be on all, and with one seed it speaks of that training alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from experiments.lab import Measured
from salad.errors import DataError
from salad.measure.arm import ArmRows
from salad.measure.divergence_by_item import ItemDivergence
from salad.randomness import generator

NUM_BOOTSTRAP = 2000
LEVEL = 0.95
Rows = Callable[[Measured], Sequence[ItemDivergence]]


@dataclass(frozen=True)
class Effect:
    """A difference with its 95 % interval, over `items` items and the seeds whose own differences are `by_seed`."""

    value: float
    low: float
    high: float
    items: int
    by_seed: tuple[float, ...]

    @property
    def above(self) -> bool:
        """Whether the interval lies above 0."""
        return self.low > 0

    @property
    def below(self) -> bool:
        """Whether it lies below."""
        return self.high < 0

    def as_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def misalignment(found: Measured) -> list[ItemDivergence]:
    """M on the held-out definitions in the voice of the training."""
    return found.rows.broad.heard


def human_misalignment(found: Measured) -> list[ItemDivergence]:
    """M on held-out human prompts."""
    return found.rows.human.heard


def unseen_misalignment(found: Measured) -> list[ItemDivergence]:
    """M on the held-out definitions in a voice that no arm has heard."""
    return found.unseen.heard


def forgetting(found: Measured) -> list[ItemDivergence]:
    """F on the held-out definitions."""
    return found.rows.forgetting


def accuracy(view: str) -> Rows:
    """The definition task, `text` or `speech`, as rows of 1 or 0 with a count of 1."""

    def rows(found: Measured) -> list[ItemDivergence]:
        own: ArmRows = found.rows
        right = own.task_text if view == "text" else own.task_speech
        return [ItemDivergence(str(number), float(one), 0.0, 0.0, 1) for number, one in enumerate(right)]

    return rows


def difference(more: Sequence[Measured], less: Sequence[Measured], rows: Rows) -> Effect:
    """`more` minus `less`: one arm of each for every seed, in the same order."""
    return contrast([(1.0, more), (-1.0, less)], rows)


def contrast(weighted: Sequence[tuple[float, Sequence[Measured]]], rows: Rows) -> Effect:
    """Σ weight · arm: of every arm one for each seed, in the same order.

    Raises:
        DataError: the arms were not measured on the same items.
    """
    first = rows(weighted[0][1][0])
    counts_I = np.asarray([row.count for row in first], np.float64)
    totals_SI = np.zeros((len(weighted[0][1]), len(first)))
    for weight, several in weighted:
        for seed, one in enumerate(several):
            own = rows(one)
            if [row.item for row in own] != [row.item for row in first]:
                raise DataError(f"{one.arm.folder} was not measured on the same items as the other arms.")
            totals_SI[seed] += weight * np.asarray([row.kl_nats for row in own], np.float64)
    return combine(totals_SI, counts_I)


def combine(totals_SI: np.ndarray, counts_I: np.ndarray) -> Effect:
    """The effect of differences [seeds, items] over the items' counts, as the module says."""
    num_seeds, num_items = totals_SI.shape
    by_seed_S = totals_SI.sum(1) / counts_I.sum()
    picks = generator(0, "effect bootstrap").integers(num_items, size=(NUM_BOOTSTRAP, num_items))
    resampled = totals_SI.mean(0)[picks].sum(1) / np.maximum(counts_I[picks].sum(1), 1e-12)
    parts = [(float(resampled.var(ddof=1)), num_items - 1)]
    if num_seeds > 1:
        parts.append((float(by_seed_S.var(ddof=1)) / num_seeds, num_seeds - 1))
    variance = sum(part for part, _ in parts)
    value = float(by_seed_S.mean())
    half = 0.0
    if variance > 0:
        freedom = variance**2 / sum(part**2 / df for part, df in parts if df > 0)
        half = float(student_t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(variance)
    return Effect(value, value - half, value + half, num_items, tuple(map(float, by_seed_S)))


def per_token(found: Measured, rows: Rows) -> float:
    """The arm's own number: Σ nats / Σ positions, or the share of right answers."""
    own = rows(found)
    return sum(row.kl_nats for row in own) / sum(row.count for row in own)
