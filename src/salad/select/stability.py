"""Would another probe rank the clusters the same? And do they differ in deafness, or in text and voice?

The texts of every cluster are dealt into two random halves, and M(c) is taken on both. With r the Spearman correlation
of the two rankings over clusters (the mean over seeded splits), a probe of k times a half's size ranks with reliability

    R(k) = k r / (1 + (k − 1) r)                      (Spearman, 1910; Brown, 1910)

of which the whole probe is k = 2, and turned round the size for a wanted reliability R is k = R (1 − r) / (r (1 − R)).
The formula is exact for product-moment correlations of equally noisy halves; for ranks it is the usual approximation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from salad.randomness import generator
from salad.select.probe import ClusterProbe, ProbeItem

NUM_SPLITS = 200
WANTED = 0.9
MIN_CLUSTERS = 3
"""Fewer can't be ranked in any way that is worth a number."""


@dataclass(frozen=True)
class RankStability:
    """How far the ranking of clusters can be trusted; None where it can't be told.

    Attributes:
        half_correlation: mean Spearman correlation of two halves' rankings.
        reliability: of the whole probe's ranking, by Spearman-Brown.
        wanted: the reliability that `probes_wanted` would give.
        probes_wanted: probe texts for each cluster.
        probes: probe texts of a cluster now, the mean.
        num_clusters: clusters that were ranked: used ones with two probes or more.
        num_splits: random splits.
    """

    half_correlation: float | None
    reliability: float | None
    wanted: float
    probes_wanted: int | None
    probes: float
    num_clusters: int
    num_splits: int

    def as_json(self) -> dict[str, Any]:
        """The fields as a plain dictionary."""
        return asdict(self)

    @property
    def sentence(self) -> str:
        """What was found, and how many texts to probe with and why."""
        if self.half_correlation is None or self.reliability is None:
            return (
                f"The ranking's stability can't be told from {self.num_clusters} clusters with two probes or more: it "
                f"takes {MIN_CLUSTERS} that differ."
            )
        said = (
            f"Two halves of the probes rank {self.num_clusters} clusters with a Spearman correlation of "
            f"{self.half_correlation:.2f} (mean of {self.num_splits} splits): the whole probe, {self.probes:.3g} texts "
            f"a cluster, with a reliability of {self.reliability:.2f}."
        )
        if self.probes_wanted is None:
            return f"{said} The halves don't agree, so no size for {self.wanted:g} can be told; probe with more texts."
        return f"{said} {self.probes_wanted} texts a cluster would give {self.wanted:g}."


def rank_stability(
    totals_I: NDArray[np.float64],
    counts_I: NDArray[np.float64],
    clusters_I: NDArray[np.int64],
    seed: int,
    wanted: float = WANTED,
    num_splits: int = NUM_SPLITS,
) -> RankStability:
    """The stability of the ranking by a ratio of sums.

    Args:
        totals_I: each probe text's sum of a divergence.
        counts_I: its text positions.
        clusters_I: its cluster; those left out are not among them.
        seed: of the splits.
        wanted: the reliability to say a probe size for, between 0 and 1.
        num_splits: how many random splits.
    """
    _, dense_I, sizes_C = np.unique(clusters_I, return_inverse=True, return_counts=True)
    enough_I = sizes_C[dense_I] >= 2
    clusters, clusters_I = np.unique(dense_I[enough_I], return_inverse=True)
    totals_I, counts_I, sizes_C = totals_I[enough_I], counts_I[enough_I], sizes_C[clusters]
    probes = float(sizes_C.mean()) if len(sizes_C) else 0.0
    if len(sizes_C) < MIN_CLUSTERS:
        return RankStability(None, None, wanted, None, probes, len(sizes_C), num_splits)
    found = [
        rank_correlation(*_halves(totals_I, counts_I, clusters_I, sizes_C, generator(seed, "halves", split)))
        for split in range(num_splits)
    ]
    known = [value for value in found if value is not None]
    if not known:
        return RankStability(None, None, wanted, None, probes, len(sizes_C), num_splits)
    r, half = float(np.mean(known)), float((sizes_C // 2).mean())
    reliability, factor = spearman_brown(r, probes / half), lengthening(r, wanted)
    probes_wanted = None if factor is None else max(2, math.ceil(factor * half - 1e-9))
    return RankStability(r, reliability, wanted, probes_wanted, probes, len(sizes_C), num_splits)


def stability_of(items: Sequence[ProbeItem], probes: Sequence[ClusterProbe], score: str, seed: int) -> RankStability:
    """The stability of the ranking by misalignment, self_misalignment, jsd or nll_gap, over clusters that are used."""
    used = [item for item in items if probes[item.cluster].excluded is None]
    totals = {
        "misalignment": lambda row: row.kl_nats,
        "self_misalignment": lambda row: row.self_kl_nats,
        "jsd": lambda row: row.jsd_nats,
        "nll_gap": lambda row: row.nll_nats - row.teacher_nll_nats,
    }[score]
    return rank_stability(
        np.array([totals(item.scores) for item in used], np.float64),
        np.array([item.scores.count for item in used], np.float64),
        np.array([item.cluster for item in used], np.int64),
        seed,
    )


def spearman_brown(r: float, factor: float) -> float:
    """The reliability of a measurement `factor` times as long as one of reliability `r`; 0 where halves disagree."""
    return factor * r / (1.0 + (factor - 1.0) * r) if r > 0 else 0.0


def lengthening(r: float, wanted: float) -> float | None:
    """How many times as long a measurement of reliability `r` must be for `wanted`; None if no length helps."""
    return wanted * (1.0 - r) / (r * (1.0 - wanted)) if r > 0 else None


def rank_correlation(one_C: NDArray[np.float64], other_C: NDArray[np.float64]) -> float | None:
    """Spearman's: the correlation of the ranks, ties at their mean; None where one of the two is constant."""
    return _correlation(rankdata(one_C), rankdata(other_C))


def partial_rank_correlation(
    one_C: NDArray[np.float64], other_C: NDArray[np.float64], controls_C: Sequence[NDArray[np.float64]]
) -> float | None:
    """Spearman's between two when what both owe to the controls is taken away.

    The correlation of what is left of the ranks after a linear regression on the controls' ranks; None where nothing is
    left, or there are no more clusters than coefficients.
    """
    given = np.stack([np.ones(len(one_C)), *map(rankdata, controls_C)], 1)
    if len(one_C) <= given.shape[1] + 1:
        return None

    def left(values_C: NDArray[np.float64]) -> NDArray[np.float64]:
        ranks_C = rankdata(values_C)
        rest: NDArray[np.float64] = ranks_C - given @ np.linalg.lstsq(given, ranks_C, rcond=None)[0]
        return np.where(np.abs(rest) < 1e-9 * len(rest), 0.0, rest)

    return _correlation(left(one_C), left(other_C))


def _halves(
    totals_I: NDArray[np.float64],
    counts_I: NDArray[np.float64],
    clusters_I: NDArray[np.int64],
    sizes_C: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ratios of two random halves of each cluster; of an odd number one is in neither."""
    order = np.lexsort((rng.random(len(clusters_I)), clusters_I))
    sorted_I = clusters_I[order]
    place_I = np.arange(len(order)) - (np.cumsum(sizes_C) - sizes_C)[sorted_I]  # within its cluster
    half_I = place_I // (sizes_C // 2)[sorted_I]
    ratios = []
    for half in (0, 1):
        own = half_I == half
        total, count = (np.bincount(sorted_I[own], values[order][own], len(sizes_C)) for values in (totals_I, counts_I))
        ratios.append(total / count)
    return ratios[0], ratios[1]


def _correlation(one_C: NDArray[np.float64], other_C: NDArray[np.float64]) -> float | None:
    one, other = one_C - one_C.mean(), other_C - other_C.mean()
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum() / scale) if scale > 0 else None
