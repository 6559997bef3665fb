"""Estimates with intervals. A per-token number is a ratio of sums; documents are resampled, never tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from salad.errors import DataError
from salad.randomness import generator

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % bootstrap percentile interval, and the number of documents or items it rests on."""

    value: float
    low: float
    high: float
    n: int

    def as_json(self) -> dict[str, float | int]:
        """{"value", "low", "high", "n"}."""
        return asdict(self)


def ratio_of_sums(
    totals: Sequence[float], counts: Sequence[float], seed: int, purpose: str, num_bootstrap: int = 2000
) -> Estimate:
    """sum(totals) / sum(counts) with an interval by resampling documents (Efron, 1979; percentile method).

    Raises:
        DataError: no documents, or none with a position.
    """
    totals_D, counts_D = np.asarray(totals, np.float64), np.asarray(counts, np.float64)
    if len(totals_D) == 0 or counts_D.sum() <= 0:
        raise DataError(f"{purpose}: there is nothing to measure on (0 documents with text positions).")
    picks = generator(seed, "bootstrap", purpose).integers(len(totals_D), size=(num_bootstrap, len(totals_D)))
    resampled = totals_D[picks].sum(1) / np.maximum(counts_D[picks].sum(1), 1e-12)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(totals_D.sum() / counts_D.sum()), float(low), float(high), len(totals_D))


def mean(values: Sequence[float], seed: int, purpose: str, num_bootstrap: int = 2000) -> Estimate:
    """The mean of per-item values (accuracy: 0 or 1) with a bootstrap interval over items."""
    return ratio_of_sums(values, [1.0] * len(values), seed, purpose, num_bootstrap)
