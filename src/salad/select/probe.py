"""The probe: how deaf is the model in each cluster?

M(c) = mean divergence of P_theta hearing the cluster's probe texts from Q_phi reading them, nats per token (paper
section 5: student on speech against teacher on text, not the reported M, which holds the student against itself).
On a nearly deaf model M(c) measures how hard the text is, so the teacher's entropy stands beside it; the standard
error says how far the ranking can be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from salad.measure.divergence_by_item import ItemDivergence


@dataclass(frozen=True)
class ClusterProbe:
    """One cluster's probe. Divergence and entropy in nats per token; `mean_cer` of the ASR on its speech, 0-1.

    `excluded` is why its texts are not selected from, or None.
    """

    cluster: int
    misalignment_nats: float
    standard_error_nats: float
    teacher_entropy_nats: float
    mean_cer: float
    num_probes: int
    excluded: str | None

    def as_json(self) -> dict[str, float | int | str | None]:
        """The fields as a plain dictionary."""
        return asdict(self)


def probe_clusters(
    rows: Sequence[ItemDivergence],
    cluster_of: Mapping[str, int],
    cer_of: Mapping[str, float],
    num_clusters: int,
    max_cer: float,
) -> list[ClusterProbe]:
    """M(c) per cluster from item divergences; a cluster without probes or with bad synthetic speech is excluded.

    Args:
        rows: D_KL(Q_phi on text || P_theta on speech) of each probe text.
        cluster_of: probe id -> cluster.
        cer_of: probe id -> character error rate of the ASR on its speech.
        num_clusters: K.
        max_cer: mean character error rate above which a cluster is left out.
    """
    probes: list[ClusterProbe] = []
    for cluster in range(num_clusters):
        own = [row for row in rows if cluster_of[row.item] == cluster]
        cers = [cer_of[row.item] for row in own if row.item in cer_of]
        mean_cer = float(np.mean(cers)) if cers else 0.0
        excluded = None
        if not own:
            excluded = "no usable probe"
        elif mean_cer > max_cer:
            excluded = f"mean character error rate {mean_cer:.2f} is above {max_cer:.2f}"
        value, error = _ratio_with_error([r.kl_nats for r in own], [r.count for r in own])
        entropy, _ = _ratio_with_error([r.entropy_nats for r in own], [r.count for r in own])
        probes.append(ClusterProbe(cluster, value, error, entropy, mean_cer, len(own), excluded))
    return probes


def _ratio_with_error(totals: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """Ratio of sums and its linearized standard error (Cochran, 1977, section 6.3); zeros when there is nothing."""
    if not counts:
        return 0.0, 0.0
    total, count = np.asarray(totals, np.float64), np.asarray(counts, np.float64)
    ratio = total.sum() / count.sum()
    if len(total) == 1:
        return float(ratio), 0.0
    residual = total - ratio * count
    return float(ratio), float(np.sqrt(len(total) / (len(total) - 1) * (residual**2).sum()) / count.sum())
