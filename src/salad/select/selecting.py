"""A selection, from clusters and their probes to files that any trainer reads.

OUT/selected.jsonl      the texts in the order they were drawn: id, text, domain, source, licence, title, and cluster,
                        cluster_name
OUT/selected.parquet    the same, where asked for: load_dataset("parquet", data_files=...)
OUT/contaminated.jsonl  texts that were drawn and not taken, because they share words with an evaluation set
OUT/selection.json      what was drawn from, how much, and what was left out; written last
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from salad.files import open_atomic, write_json, write_jsonl
from salad.fingerprint import content_hash
from salad.select.budget import Budget
from salad.select.clusters import Clusters
from salad.select.contamination import EvaluationIndex
from salad.select.drawn_check import DrawnCheck
from salad.select.probe import ClusterProbe
from salad.select.sampling import Pool, Selection, select_texts
from salad.select.scores import cluster_scores
from salad.select.target import effective_clusters, target_distribution
from salad.texts.text import Text

SELECTED_NAME, SELECTION_NAME = "selected.jsonl", "selection.json"


@dataclass(frozen=True)
class Weighing:
    """How clusters are weighed: P(c) ∝ P_web(c) score(c)^gamma, capped and mixed as `target_distribution` says."""

    gamma: float = 5.0
    score: str = "misalignment"
    coverage_frac: float = 0.0
    max_boost: float | None = None

    def target(self, clusters: Clusters, probes: Sequence[ClusterProbe] | None) -> tuple[np.ndarray, np.ndarray]:
        """P_target and the scores [K]; without probes every cluster counts the same, which gamma = 0 alone can use."""
        if probes is None:
            scores, excluded = np.ones(clusters.num_clusters), np.zeros(clusters.num_clusters, bool)
        else:
            scores = cluster_scores(probes, self.score if self.gamma else "uniform")
            excluded = np.array([probe.excluded is not None for probe in probes])
        target = target_distribution(clusters.shares, scores, self.gamma, excluded, self.coverage_frac, self.max_boost)
        return target, scores


@dataclass(frozen=True)
class Bounds:
    """Which texts may be drawn at all.

    Args:
        refused: reason -> rows of the corpus.
        against: the evaluation sets that no text may share words with; None: none.
        min_words, max_words: of a text, both allowed; None: no bound.
    """

    refused: Mapping[str, np.ndarray] = field(default_factory=dict)
    against: EvaluationIndex | None = None
    min_words: int | None = None
    max_words: int | None = None


def select_into(
    out: Path,
    corpus: Sequence[Text],
    clusters: Clusters,
    probes: Sequence[ClusterProbe] | None,
    weighing: Weighing,
    budget: Budget,
    bounds: Bounds,
    seed: int,
    parquet: bool = False,
    hint: str = "",
) -> dict[str, Any]:
    """Draw texts and write the folder; what selection.json holds. The same input gives the same bytes.

    Args:
        out: the folder.
        corpus: the texts that were clustered, in their order.
        clusters: theirs.
        probes: what `salad probe` found in them; None: all clusters count the same.
        weighing: how.
        budget: how much.
        bounds: what may be drawn.
        seed: of the draws. Selections with one seed share the order within each cluster.
        parquet: write selected.parquet, too.
        hint: how to ask for less, where it is not `--budget`.

    Raises:
        DataError: nothing can be drawn, or less than the budget.
    """
    target, scores = weighing.target(clusters, probes)
    check = None if bounds.against is None else DrawnCheck(bounds.against)
    pool = Pool(
        corpus,
        clusters.labels_N,
        clusters.num_chars_N,
        bounds.refused,
        min_words=bounds.min_words,
        max_words=bounds.max_words,
        check=check,
    )
    chosen = select_texts(pool, target, budget, seed, hint=hint)
    rows = [
        {**asdict(corpus[int(row)]), "cluster": int(number), "cluster_name": clusters.names[number]}
        for row, number in zip(chosen.rows, chosen.clusters, strict=True)
    ]
    write_jsonl(out / SELECTED_NAME, rows)
    if parquet:
        _write_parquet(out / "selected.parquet", rows)
    if check is not None:
        write_jsonl(out / "contaminated.jsonl", check.rows)
    summary = {
        **asdict(weighing),
        "seed": seed,
        "num_texts": len(chosen.rows),
        "budget": {"asked": budget.asked, "amount": budget.amount, "unit": budget.unit, "reached": chosen.spent},
        "effective_clusters": effective_clusters(target),
        "num_clusters": clusters.num_clusters,
        "exhausted_clusters": chosen.exhausted,
        "refused": chosen.refused,
        "passed_over": chosen.passed_over,
        "decontamination": None if check is None else check.as_json(),
        "min_words": bounds.min_words,
        "max_words": bounds.max_words,
        "corpus_sha256": clusters.info["corpus_sha256"],
        "labels_sha256": content_hash(clusters.folder / "labels.parquet"),
        "clusters": _by_cluster(clusters, probes, scores, chosen),
    }
    write_json(out / SELECTION_NAME, summary)
    return summary


def _by_cluster(
    clusters: Clusters, probes: Sequence[ClusterProbe] | None, scores: np.ndarray, chosen: Selection
) -> list[dict[str, Any]]:
    spent = np.bincount(chosen.clusters, weights=chosen.costs, minlength=clusters.num_clusters)
    return [
        {
            "cluster": number,
            "name": clusters.names[number],
            "share": float(clusters.shares[number]),
            "score": None if np.isnan(scores[number]) else float(scores[number]),
            "target": chosen.target[number],
            "num_texts": chosen.per_cluster[number],
            "spent": float(spent[number]),
            "excluded": None if probes is None else probes[number].excluded,
        }
        for number in range(clusters.num_clusters)
    ]


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    strings = ("id", "text", "domain", "source", "licence", "title")
    schema = pa.schema(
        [*((name, pa.string()) for name in strings), ("cluster", pa.int32()), ("cluster_name", pa.string())]
    )
    with open_atomic(path) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema), file)
