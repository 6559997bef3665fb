"""What a probe's numbers say: how stable the ranking is, what else may look like deafness, what to be warned of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from salad.errors import DataError
from salad.measure.misalignment import HeardAndSwapped, hearing, hears
from salad.select.probe import NO_PROBE, ClusterProbe, ProbeItem
from salad.select.scores import MEASURED_ON_REQUEST, cluster_scores, controlled_scores
from salad.select.stability import RankStability, partial_rank_correlation, rank_correlation, stability_of
from salad.speech.prepared import Rejected
from salad.tally import Kinds

LOW_RELIABILITY = 0.7
"""Below it a ranking is usually not relied on (Nunnally, 1978)."""
STRONG = 0.7
"""A rank correlation at which half of the ranking is the other's."""
LEVEL = 0.05
NUM_BOOTSTRAP = 2000
NUM_NAMED = 3
CONTROLS = {"entropy": "teacher_entropy_nats", "cer": "mean_cer"}


@dataclass(frozen=True)
class Reading:
    """What is told of a probe.

    Attributes:
        stability: of the ranking by each score that was measured.
        correlations: of M(c) over clusters with the teacher's entropy and the CER: Spearman's alone, and `partial`, the
            other one controlled for.
        spread_nats: standard deviation of M(c) over clusters.
        noise_nats: root mean square of its standard errors.
        hearing: swapped minus right speech, nats per token, with its interval; None where it was not checked.
        hears: whether the model hears at all.
        scores: the scores that were asked for, for each cluster.
        warnings: sentences.
    """

    stability: Mapping[str, RankStability]
    correlations: Mapping[str, Mapping[str, float | None]]
    spread_nats: float | None
    noise_nats: float | None
    hearing: Mapping[str, float | int] | None
    hears: bool | None
    scores: Mapping[str, list[float | None]]
    warnings: list[str]

    def as_json(self) -> dict[str, Any]:
        """All but the clusters' scores."""
        return {
            "stability": {name: found.as_json() for name, found in self.stability.items()},
            "correlations": {name: dict(found) for name, found in self.correlations.items()},
            "spread_nats": self.spread_nats,
            "noise_nats": self.noise_nats,
            "hearing_nats": None if self.hearing is None else dict(self.hearing),
            "hears": self.hears,
            "warnings": self.warnings,
        }


def read_off(
    probes: Sequence[ClusterProbe],
    items: Sequence[ProbeItem],
    check: HeardAndSwapped | None,
    seed: int,
    asked: Sequence[str] = (),
) -> Reading:
    """What the clusters' probes say.

    Args:
        probes: every cluster's.
        items: the texts they rest on.
        check: the rows of the hearing check.
        seed: of the splits and the intervals.
        asked: names of scores to give for each cluster.
    """
    measured = ["misalignment", "nll_gap"] + [
        name for name in MEASURED_ON_REQUEST if items and getattr(items[0].scores, _ROW[name]) is not None
    ]
    stability = {name: stability_of(items, probes, name, seed) for name in measured}
    used = [probe for probe in probes if probe.excluded is None]
    correlations = _correlations(used)
    spread, noise = _spread_and_noise(used)
    heard = None if check is None else hearing(check, seed, "probe", NUM_BOOTSTRAP)
    scores, warnings = _scores(probes, asked)
    warnings += _warnings(stability["misalignment"], correlations, spread, noise, len(used))
    if heard is not None and not hears(heard):
        warnings.insert(
            0,
            f"The model can't be shown to hear: another text's speech costs it {heard.value:.3f} [{heard.low:.3f}, "
            f"{heard.high:.3f}] nats a token on {heard.n} probes. M(c) then says how hard the text is, not where the "
            "model is deaf; train it on, or select with gamma 0.",
        )
    return Reading(
        stability,
        correlations,
        spread,
        noise,
        None if heard is None else heard.as_json(),
        None if heard is None else hears(heard),
        scores,
        warnings,
    )


def warnings_of_making(
    probes: Sequence[ClusterProbe], lost: Collection[Rejected], num_texts: int, made: Mapping[str, Any]
) -> list[str]:
    """What the making of a probe has to say: clusters left out, texts of `num_texts` lost, clusters too small."""
    warnings = []
    excluded = [probe for probe in probes if probe.excluded is not None]
    if excluded:
        silent = sum(probe.excluded == NO_PROBE for probe in excluded)
        warnings.append(
            f"{len(excluded)} of {len(probes)} clusters are left out, {silent} without a usable probe and "
            f"{len(excluded) - silent} spoken too badly: {_numbers([probe.cluster for probe in excluded])}; "
            "nothing is selected from them."
        )
    if lost:
        warnings.append(
            f"{len(lost)} of {num_texts} probe texts were not measured, most because: "
            f"{kinds(lost)[0]['reason']}; each stands in its cluster's line of probe.jsonl."
        )
    short = made.get("smaller_clusters", [])
    if short:
        warnings.append(
            f"{len(short)} clusters have fewer than {made['per_cluster']} texts, so that all they have is the probe: "
            f"{_numbers(short)}."
        )
    return warnings


def kinds(rejected: Iterable[Rejected]) -> list[dict[str, Any]]:
    """What was rejected, counted by the kind of its reason, with an example of each."""
    counted = Kinds()
    for row in rejected:
        counted.add(row.reason, row.id, row.place)
    return counted.rows()


_ROW = {"self_misalignment": "self_kl_nats", "jsd": "jsd_nats"}


def _correlations(used: Sequence[ClusterProbe]) -> dict[str, dict[str, float | None]]:
    known = [probe for probe in used if probe.mean_cer is not None]
    m = np.array([probe.misalignment_nats for probe in known], np.float64)
    values = {name: np.array([getattr(probe, key) for probe in known], np.float64) for name, key in CONTROLS.items()}
    if len(known) < 3:
        return {name: {"spearman": None, "partial": None} for name in CONTROLS}
    return {
        name: {
            "spearman": rank_correlation(m, own),
            "partial": partial_rank_correlation(m, own, [values[other] for other in CONTROLS if other != name]),
        }
        for name, own in values.items()
    }


def _spread_and_noise(used: Sequence[ClusterProbe]) -> tuple[float | None, float | None]:
    known = [probe for probe in used if probe.standard_error_nats is not None]
    if len(known) < 2:
        return None, None
    values = np.array([(probe.misalignment_nats, probe.standard_error_nats) for probe in known], np.float64)
    spread, noise = np.std(values[:, 0], ddof=1), np.sqrt(np.mean(values[:, 1] ** 2))
    return float(spread), float(noise)


def _scores(probes: Sequence[ClusterProbe], asked: Sequence[str]) -> tuple[dict[str, list[float | None]], list[str]]:
    scores: dict[str, list[float | None]] = {}
    warnings = []
    for name in asked:
        try:
            scores[name] = [None if np.isnan(value) else float(value) for value in cluster_scores(probes, name)]
        except DataError as error:  # the rest of the probe is good
            warnings.append(f"No clusters can be weighed by one of the scores: {error}")
            continue
        clipped = controlled_scores(probes)[1] if name == "controlled" else 0
        if clipped:
            warnings.append(f"The score controlled is below 0 in {clipped} clusters and is taken as 0 there.")
    return scores, warnings


def _warnings(
    stability: RankStability,
    correlations: Mapping[str, Mapping[str, float | None]],
    spread: float | None,
    noise: float | None,
    num_clusters: int,
) -> list[str]:
    warnings = []
    if stability.reliability is None or stability.reliability < LOW_RELIABILITY:
        told = "can't be told" if stability.reliability is None else f"is {stability.reliability:.2f}"
        size = "more" if stability.probes_wanted is None else f"{stability.probes_wanted}"
        warnings.append(
            f"Another probe may rank the clusters otherwise: its reliability {told}; probe with {size} texts a "
            "cluster, or select with a smaller gamma."
        )
    if spread is not None and noise is not None and noise >= spread:
        warnings.append(
            f"The standard errors of M(c) ({noise:.3f}, root mean square) are no smaller than its spread over clusters "
            f"({spread:.3f}): the ranking is mostly noise; probe with more texts."
        )
    for name, what, remedy in (
        ("entropy", "the teacher's entropy: hard text", "weigh by the score 'controlled', or compare the two"),
        (
            "cer",
            "the character error rate: a bad voice",
            "lower --max-cer, take another voice, or weigh by 'controlled'",
        ),
    ):
        partial = correlations[name]["partial"]
        if partial is not None and partial >= STRONG and _is_no_chance(partial, num_clusters):
            warnings.append(
                f"M(c) ranks the clusters much as {what} may pose as deafness (partial rank correlation "
                f"{partial:.2f}); {remedy}."
            )
    return warnings


def _is_no_chance(partial: float, num_clusters: int) -> bool:
    """Whether a partial correlation, one variable controlled for, is above 0 at the level of 5 % (t-test)."""
    freedom = num_clusters - 3
    if freedom < 1 or partial >= 1.0:
        return freedom >= 1
    return bool(student_t.sf(partial * np.sqrt(freedom / (1.0 - partial**2)), freedom) < LEVEL)


def _numbers(clusters: Sequence[int]) -> str:
    more = f" and {len(clusters) - NUM_NAMED} more" if len(clusters) > NUM_NAMED else ""
    return ", ".join(map(str, clusters[:NUM_NAMED])) + more
