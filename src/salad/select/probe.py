"""The probe: how deaf is the model in each cluster, and is it deafness?

    M(c) = Σ D_KL( Q_phi(.|text) || P_theta(.|speech) ) / number of text positions,   over the cluster's probe texts

(paper, section 5): the student on speech against the teacher on text, a ratio of sums in nats per token. The reported M
holds the student against itself; beside it stand other scores of the same kind, and what can pose as deafness: how hard
the text is (the teacher's entropy), how badly it is spoken (character error rate), how long it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from salad.errors import DataError
from salad.measure.divergence_by_item import ItemScores
from salad.randomness import generator

NO_PROBE = "no usable probe"


@dataclass(frozen=True)
class ProbeItem:
    """One spoken probe text: its scores, its cluster, and its speech.

    `cer`: character error rate of the ASR on it, 0-1 or more; None where no ASR has heard it. `audio`: the file.
    """

    scores: ItemScores
    cluster: int
    cer: float | None
    num_words: int
    seconds: float
    audio: str | None = None


@dataclass(frozen=True)
class ClusterProbe:
    """One cluster's probe: nats per text position, over `num_probes` texts with `num_tokens` positions.

    Attributes:
        cluster: its number.
        num_probes: texts that were measured.
        num_tokens: their text positions.
        misalignment_nats: M(c), student on speech against teacher on text; None without a probe, as all that follow.
        standard_error_nats: of M(c), over texts; None with fewer than two probes.
        self_misalignment_nats: student on speech against student on text; None unless measured.
        jsd_nats: Jensen-Shannon divergence of teacher on text and student on speech, 0 to log 2; None unless measured.
        nll_gap_nats: NLL of the student on speech minus that of the teacher on text; may be negative.
        teacher_entropy_nats: how hard the text is.
        mean_cer: character error rate of the ASR, the mean over texts; None where no ASR has heard them.
        mean_words: length of the texts.
        mean_seconds: length of their speech.
        excluded: why its texts are not selected from, or None.
    """

    cluster: int
    num_probes: int
    num_tokens: int
    misalignment_nats: float | None
    standard_error_nats: float | None
    self_misalignment_nats: float | None
    jsd_nats: float | None
    nll_gap_nats: float | None
    teacher_entropy_nats: float | None
    mean_cer: float | None
    mean_words: float | None
    mean_seconds: float | None
    excluded: str | None

    def as_json(self) -> dict[str, float | int | str | None]:
        """The fields as a plain dictionary."""
        return asdict(self)


def draw_probes(
    labels_N: NDArray[np.integer], per_cluster: int, seed: int, num_clusters: int | None = None
) -> list[NDArray[np.int64]]:
    """Rows of the corpus for each cluster's probe, drawn uniformly without replacement; all of a smaller cluster.

    A cluster's rows are the first of an order that depends on the seed, the cluster and its rows alone: a larger probe
    keeps the texts of a smaller one.

    Args:
        labels_N: each text's cluster, 0 to K - 1.
        per_cluster: probe texts of each.
        seed: of the orders.
        num_clusters: K; None: the largest label, plus one.

    Raises:
        DataError: fewer than one text a cluster is asked for, or a label is none of K.
    """
    if per_cluster < 1:
        raise DataError(f"{per_cluster} probe texts per cluster can't measure anything; ask for 1 or more.")
    count = int(labels_N.max(initial=-1)) + 1 if num_clusters is None else num_clusters
    if len(labels_N) and not 0 <= int(labels_N.min()) <= int(labels_N.max()) < count:
        raise DataError(f"labels run from {labels_N.min()} to {labels_N.max()}, but there are {count} clusters.")
    by_cluster = np.argsort(labels_N, kind="stable")
    borders = np.searchsorted(labels_N[by_cluster], np.arange(count + 1))
    drawn = []
    for cluster in range(count):
        rows = by_cluster[borders[cluster] : borders[cluster + 1]]
        order = generator(seed, "probe", cluster).permutation(len(rows))
        drawn.append(rows[order[:per_cluster]].astype(np.int64))
    return drawn


def probe_clusters(items: Iterable[ProbeItem], num_clusters: int, max_cer: float) -> list[ClusterProbe]:
    """Every cluster's probe; one without texts, or spoken too badly, is excluded with its reason.

    Args:
        items: the probe texts that were measured.
        num_clusters: K.
        max_cer: mean character error rate above which a cluster is left out.

    Raises:
        DataError: an item's cluster is none of K.
    """
    own: list[list[ProbeItem]] = [[] for _ in range(num_clusters)]
    for item in items:
        if not 0 <= item.cluster < num_clusters:
            raise DataError(f"probe {item.scores.item!r} is of cluster {item.cluster}, but there are {num_clusters}.")
        own[item.cluster].append(item)
    return [_probe(cluster, group, max_cer) for cluster, group in enumerate(own)]


def ratio_with_error(totals: Sequence[float], counts: Sequence[int]) -> tuple[float, float | None]:
    """Ratio of sums and its linearized standard error (Cochran, 1977, section 6.3), None with one text.

    R = Σ t / Σ n,   SE² = m/(m−1) · Σ (t − R n)² / (Σ n)²,   m texts with totals t and positions n
    """
    total, count = np.asarray(totals, np.float64), np.asarray(counts, np.float64)
    ratio, num = float(total.sum() / count.sum()), len(total)
    if num < 2:
        return ratio, None
    residual = total - ratio * count
    return ratio, float(np.sqrt(num / (num - 1) * (residual**2).sum()) / count.sum())


def _probe(cluster: int, items: Sequence[ProbeItem], max_cer: float) -> ClusterProbe:
    if not items:
        return ClusterProbe(cluster, 0, 0, None, None, None, None, None, None, None, None, None, NO_PROBE)
    scores = [item.scores for item in items]
    counts = [row.count for row in scores]
    value, error = ratio_with_error([row.kl_nats for row in scores], counts)
    cers = [item.cer for item in items if item.cer is not None]
    mean_cer = float(np.mean(cers)) if cers else None
    excluded = None
    if mean_cer is not None and mean_cer > max_cer:
        excluded = f"mean character error rate {mean_cer:.2f} is above {max_cer:.2f}"
    return ClusterProbe(
        cluster=cluster,
        num_probes=len(items),
        num_tokens=sum(counts),
        misalignment_nats=value,
        standard_error_nats=error,
        self_misalignment_nats=_per_token([row.self_kl_nats for row in scores], counts),
        jsd_nats=_per_token([row.jsd_nats for row in scores], counts),
        nll_gap_nats=_per_token([row.nll_nats - row.teacher_nll_nats for row in scores], counts),
        teacher_entropy_nats=_per_token([row.entropy_nats for row in scores], counts),
        mean_cer=mean_cer,
        mean_words=float(np.mean([item.num_words for item in items])),
        mean_seconds=float(np.mean([item.seconds for item in items])),
        excluded=excluded,
    )


def _per_token(totals: Sequence[float | None], counts: Sequence[int]) -> float | None:
    """A ratio of sums; None where some total was not measured."""
    known = [total for total in totals if total is not None]
    return None if len(known) < len(totals) else ratio_with_error(known, counts)[0]
