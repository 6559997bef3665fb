"""`salad select`: from a clustered corpus and its probe to texts worth speaking.

OUT/selected.jsonl, selection.json, hf/    see salad.select.export
OUT/contaminated.jsonl, contaminated.json  see salad.select.decontaminate
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salad.errors import RecipeError
from salad.files import read_jsonl
from salad.fingerprint import content_hash
from salad.select.budget import SECONDS_PER_CHARACTER, Budget
from salad.select.clusters import Clusters
from salad.select.decontaminate import Contamination, decontaminate
from salad.select.export import Format, write_selection
from salad.select.probe import ClusterProbe
from salad.select.probe_files import (
    INFO_NAME,
    ITEMS_NAME,
    PROBE_NAME,
    check_clusters,
    labels_sha256,
    read_items,
    read_probe_info,
    read_probes,
)
from salad.select.sampling import Pool, Selection, select_texts
from salad.select.scores import cluster_scores
from salad.select.target import effective_clusters, target_distribution
from salad.texts.corpus import TextCorpus
from salad.workers import FanOut, answer_all

FORMAT, VERSION = "salad selection", 1
PROBE_REASON, CONTAMINATED_REASON = "it is a probe", "words of an evaluation item"
MAX_SECONDS = 30.0
"""What speech encoders such as Whisper's hear at once."""


@dataclass(frozen=True)
class Setting:
    """What clusters are weighed by; see `target_distribution` and `cluster_scores`."""

    gamma: float = 5.0
    score: str = "misalignment"
    coverage: float = 0.0
    max_boost: float | None = None
    seed: int = 0

    def target(self, web: NDArray[np.float64], probes: Sequence[ClusterProbe]) -> NDArray[np.float64]:
        """P_target [K]. With gamma 0 no score is needed, and without probes no cluster is excluded.

        Raises:
            RecipeError: gamma above 0 without probes, or a knob out of its range.
            DataError: see `cluster_scores` and `target_distribution`.
        """
        if self.gamma > 0 and self.score != "uniform" and not probes:
            raise RecipeError(
                f"--gamma {self.gamma:g} weighs clusters by what 'salad probe' found: give --probe DIR, or --gamma 0."
            )
        excluded = [probe.excluded is not None for probe in probes] or [False] * len(web)
        scores = cluster_scores(probes, self.score) if self.gamma > 0 and probes else np.ones(len(web))
        return target_distribution(web, scores, self.gamma, excluded, self.coverage, self.max_boost)


@dataclass(frozen=True)
class Selecting:
    """What is selected from, and how much.

    Attributes:
        texts: the corpus that was clustered, JSON lines.
        clusters: a folder made by `salad cluster`.
        out: the folder to write.
        probe: a folder made by `salad probe`; None: only gamma 0 can be drawn.
        exclude: JSON lines whose ids are not drawn: an earlier selection, texts that are spoken already.
        against: evaluation files, or folders of them.
        contamination_words: how many words in a row a text may not share with them.
        min_words, max_words: bounds on a text, None: none.
        max_seconds: a text that is estimated to take longer to speak is refused; 0: none is.
        seconds_per_character: of the voice; None: that of the probe's speech, or the default.
        formats: which files.
        processes, fan_out: who compares the corpus with evaluation files.
        progress: told (done, total) of that.
    """

    texts: Path
    clusters: Path
    out: Path
    probe: Path | None = None
    exclude: tuple[Path, ...] = ()
    against: tuple[Path, ...] = ()
    contamination_words: int = 13
    min_words: int | None = None
    max_words: int | None = None
    max_seconds: float = MAX_SECONDS
    seconds_per_character: float | None = None
    formats: tuple[Format, ...] = ("jsonl",)
    processes: int = 1
    fan_out: FanOut = answer_all
    progress: Callable[[int, int], None] = lambda *_: None


@dataclass(frozen=True)
class Opened:
    """A corpus that can be drawn from, with what is known of it."""

    selecting: Selecting
    clusters: Clusters
    pool: Pool
    probes: list[ClusterProbe]
    contamination: Contamination | None
    pace: float
    pace_from: str


def open_pool(selecting: Selecting) -> Opened:
    """Read clusters and probe, and find out which texts may not be drawn.

    Raises:
        MissingFileError: something is not there.
        DataError: corpus, clusters and probe don't belong together, or an evaluation item can't be read.
    """
    clusters = Clusters.read(selecting.clusters, selecting.texts)
    texts = TextCorpus(selecting.texts)
    probes: list[ClusterProbe] = []
    probed = np.empty(0, np.int64)
    if selecting.probe is not None:
        check_clusters(selecting.probe, selecting.clusters)
        probes = read_probes(selecting.probe)
        probed = clusters.rows_of(_probe_ids(selecting.probe))
    pace, pace_from = _pace(selecting, clusters)
    refused = {PROBE_REASON: probed}
    for path in selecting.exclude:
        refused[f"it is in {path}"] = clusters.rows_of(str(row.get("id")) for row in read_jsonl(path))
    known = [texts[int(row)].text for row in np.unique(np.concatenate([*refused.values()]))]
    if selecting.max_seconds:
        too_long = np.flatnonzero(clusters.num_chars_N * pace > selecting.max_seconds)
        refused[f"more than {selecting.max_seconds:g} s to speak"] = too_long
    contamination = None
    if selecting.against:
        contamination = decontaminate(
            selecting.texts,
            selecting.against,
            selecting.contamination_words,
            selecting.out,
            selecting.processes,
            selecting.fan_out,
            selecting.progress,
        )
        refused[CONTAMINATED_REASON] = contamination.rows
    bounds = (selecting.min_words, selecting.max_words)
    pool = Pool(texts, clusters.labels_N, clusters.num_chars_N, refused, *bounds, known)
    return Opened(selecting, clusters, pool, probes, contamination, pace, pace_from)


def select_one(
    opened: Opened, setting: Setting, budget: Budget, out: Path, hint: str = ""
) -> tuple[Selection, dict[str, Any]]:
    """Draw by one setting and write the folder `out`. Returns the selection and what selection.json holds.

    `hint` says how to ask for less, where it is not `--budget`.

    Raises:
        SaladError: see `Setting.target`.
        DataError: there are too few texts.
    """
    web = opened.clusters.shares
    target = setting.target(web, opened.probes)
    selection = select_texts(opened.pool, target, budget, setting.seed, hint=hint)
    summary = _summary(opened, setting, budget, selection)
    names = opened.clusters.names
    return selection, write_selection(out, selection, opened.pool.texts, names, web, opened.selecting.formats, summary)


def _probe_ids(probe: Path) -> list[str]:
    """The texts of a probe: those that were drawn, where the probe drew them, and those that were measured."""
    drawn = probe / "probes.jsonl"
    ids = [str(row["id"]) for row in read_jsonl(drawn)] if drawn.is_file() else []
    return list(dict.fromkeys([*ids, *(item.scores.item for item in read_items(probe))]))


def _probe_warnings(probe: Path | None) -> list[str]:
    """What the probe says against trusting its ranking."""
    info = read_probe_info(probe) if probe is not None and (probe / INFO_NAME).is_file() else {}
    return [str(sentence) for sentence in info.get("warnings", [])]


def _pace(selecting: Selecting, clusters: Clusters) -> tuple[float, str]:
    """Seconds per character of written text, and where that is from."""
    if selecting.seconds_per_character is not None:
        return selecting.seconds_per_character, "given"
    if selecting.probe is not None:
        spoken = {item.scores.item: item.seconds for item in read_items(selecting.probe)}
        drawn = selecting.probe / "probes.jsonl"  # as they were spoken, of a long text its beginning
        said = {str(row["id"]): len(str(row["text"])) for row in read_jsonl(drawn)} if drawn.is_file() else {}
        others = [name for name in spoken if name not in said]
        rows = clusters.rows_of(others)
        characters = sum(said.get(name, 0) for name in spoken) + int(clusters.num_chars_N[rows].sum())
        if characters and len(rows) == len(others):
            pace = sum(spoken.values()) / characters
            return pace, f"the speech of {len(spoken)} probes in {selecting.probe / ITEMS_NAME}"
    return SECONDS_PER_CHARACTER, "the default, a human reader's; a voice's own: --probe or --seconds-per-character"


def _counted_by(budget: Budget) -> str:
    return budget.counted_by or f"{1 / budget.per_character:g} characters a token"


def _summary(opened: Opened, setting: Setting, budget: Budget, selection: Selection) -> dict[str, Any]:
    selecting, clusters = opened.selecting, opened.clusters
    characters = clusters.num_chars_N[selection.rows]
    seconds = characters * opened.pace
    per_cluster = np.bincount(selection.clusters, seconds, clusters.num_clusters)
    web, target = clusters.shares, np.array(selection.target)
    boosts = np.divide(target, web, out=np.zeros(len(web)), where=web > 0)
    scored = bool(opened.probes) and setting.gamma > 0
    scores = cluster_scores(opened.probes, setting.score) if scored else None
    rows = [
        {
            "cluster": number,
            "name": name,
            "score": None if scores is None or np.isnan(scores[number]) else float(scores[number]),
            "share": float(web[number]),
            "target": float(target[number]),
            "boost": float(boosts[number]),
            "num_texts": selection.per_cluster[number],
            "estimated_h": float(per_cluster[number]) / 3600,
            "exhausted": number in selection.exhausted,
            "excluded": opened.probes[number].excluded if opened.probes else None,
        }
        for number, name in enumerate(clusters.names)
    ]
    probe = selecting.probe
    return {
        "format": FORMAT,
        "version": VERSION,
        "made_of": {
            "texts": {"file": str(selecting.texts), "sha256": clusters.info["corpus_sha256"], "num": len(clusters)},
            "clusters": {"folder": str(selecting.clusters), "sha256": labels_sha256(selecting.clusters)},
            "probe": None if probe is None else {"folder": str(probe), "sha256": content_hash(probe / PROBE_NAME)},
        },
        **asdict(setting),
        "budget": {
            "asked": budget.asked,
            "unit": budget.unit,
            "amount": budget.amount,
            "reached": selection.spent,
            "natural_s": budget.of_natural_s,
            "tokens_counted_by": _counted_by(budget) if budget.unit == "tokens" else None,
        },
        "seconds_per_character": opened.pace,
        "seconds_per_character_from": opened.pace_from,
        "num_texts": len(selection.rows),
        "num_characters": int(characters.sum()),
        "estimated_h": float(seconds.sum()) / 3600,
        "effective_clusters": effective_clusters(target),
        "largest_boost": float(boosts.max()),
        "exhausted": selection.exhausted,
        "excluded": [row["cluster"] for row in rows if row["excluded"]],
        "probe_warnings": _probe_warnings(selecting.probe) if setting.gamma > 0 else [],
        "refused": selection.refused,
        "passed_over": selection.passed_over,
        "decontamination": None if opened.contamination is None else opened.contamination.as_json(),
        "clusters": rows,
    }
