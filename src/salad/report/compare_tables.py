"""Several runs beside each other in numbers: what is compared, and the tables of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from salad.report.gap_figures import short
from salad.report.measured import Measured, MeasuredTask
from salad.report.parts import MAX_ROWS
from salad.report.results import Estimate, Results
from salad.report.table import (
    ARM_TITLES,
    NOTHING,
    difference,
    duration,
    hears,
    nats_estimate,
    percent_estimate,
    points,
    points_estimate,
)

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
METRICS = {
    "misalignment M": "misalignment_nats",
    "M, human speech": "misalignment_human_nats",
    "forgetting F": "forgetting_nats",
}


@dataclass(frozen=True)
class Side:
    """One run, measurement or folder of scores; `accuracies`: (task, view) → accuracy, where that is all there is."""

    name: str
    letter: str
    path: str
    results: Results | None = None
    measured: Measured | None = None
    accuracies: dict[tuple[str, str], Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """One run minus A on the same items; `metric` ends in _nats where the unit is nats, else it is a fraction."""

    letter: str
    what: str
    metric: str
    estimate: Estimate
    p_value: float | None = None
    p_holm: float | None = None
    same: bool = False  # on every item

    @property
    def reading(self) -> str:
        """What the difference says, in words."""
        if self.same:
            return "the same"
        return {1: "more than A", -1: "less than A"}.get(self.side, "can't tell at this size")

    @property
    def side(self) -> int:
        """1: more than A, −1: less, 0: the interval holds 0, or what float32 takes for it."""
        nothing = 1e-4 if self.metric.endswith("_nats") else 0.0
        return 1 if self.estimate.low > nothing else -1 if self.estimate.high < -nothing else 0


def side_table(runs: Sequence[Side]) -> list[list[str]]:
    """A row for each number, a column for each run."""
    told = [_numbers(run) for run in runs]
    titles = dict.fromkeys(title for own in told for title in own)
    return [["", *(f"{run.letter} {short(run.name, 24)}" for run in runs)]] + [
        [title, *(own.get(title, NOTHING) for own in told)] for title in titles
    ]


def side_caption(runs: Sequence[Side]) -> str:
    """What the table of runs says, and which run's gap has no interval."""
    if not any(run.results for run in runs):
        return (
            "Each one's own numbers. M and F in nats per token of the text after the speech; M only of the same speech."
        )
    said = "Each run at the last stage that it came to. M only with the same sequence policy, corpus and voice."
    arms = [(run, run.results.last) for run in runs if run.results]
    bare = [run.letter for run, arm in arms if arm and arm.task and not arm.split]
    if bare:
        said += f" The gap of {', '.join(bare)} has no interval: 'salad run RECIPE --only report' writes one."
    return said


def _numbers(run: Side) -> dict[str, str]:
    found: dict[str, str] = {}
    if run.results:
        found |= _run_numbers(run.results)
    if run.measured:
        for name, task in run.measured.tasks.items():
            whole = task.gap.whole
            found |= {f"{name}: gap (points)": points_estimate(whole.gap), f"{name}: n": f"{whole.gap.n:,}"}
            found |= {f"{name}: topline": percent_estimate(whole.topline)}
            found |= {f"{name}: speech": percent_estimate(whole.speech)}
            found |= {f"{name}: cascade": percent_estimate(task.cascade)}
            found |= {f"{name}: {title} (nats)": nats_estimate(own) for title, own in nats_of_task(task).items()}
        if run.measured.mean and len(run.measured.tasks) > 1:
            found |= {"mean gap (points)": points_estimate(run.measured.mean.gap)}
        found |= {"listens": "yes" if all(t.listening.listens for t in run.measured.tasks.values()) else "NO"}
        found |= {"text LLM": run.measured.base or NOTHING, "ASR": run.measured.asr or NOTHING}
    found |= {f"{task}, {view}": percent_estimate(own) for (task, view), own in run.accuracies.items()}
    return found


def nats_of_task(task: MeasuredTask) -> dict[str, Estimate]:
    """M and F of a task, nats per token, as far as they were measured, by their titles in `METRICS`."""
    own = task.nats_per_token
    found = {"misalignment M": own.misalignment, "forgetting F": own.forgetting} if own else {}
    return {title: estimate for title, estimate in found.items() if estimate}


def _run_numbers(results: Results) -> dict[str, str]:
    arm, own = results.last, results.conditions
    found = {"stage": ARM_TITLES[arm.name]} if arm else {}
    if arm and arm.task and results.topline:
        gap = arm.split.gap if arm.split else None
        value = results.topline.value - arm.task.speech.value
        found |= {"gap (points)": points_estimate(gap) if gap else points(value)}
    found |= {"topline (text LLM)": percent_estimate(results.topline), "cascade": percent_estimate(results.cascade)}
    if arm:
        found |= {"task, text": percent_estimate(arm.task.text if arm.task else None)}
        found |= {"task, speech": percent_estimate(arm.task.speech if arm.task else None)}
        found |= {f"{title} (nats)": nats_estimate(getattr(arm, key)) for title, key in METRICS.items()}
        found |= {"hearing (nats)": nats_estimate(arm.hearing_nats), "hears": hears(arm)}
    model = results.recipe.get("model")
    llm = model.get("llm") if isinstance(model, dict) else None
    return found | {
        "natural speech": duration(results.speech.human_s),
        "synthetic speech": duration(results.speech.synthetic_s),
        "text LLM": str(llm or NOTHING),
        "sequence policy": own.policy,
        "broad text": f"{own.broad.corpus}, {own.broad.voice}",
        "human speech": f"{own.human.corpus}, {own.human.voice}",
        "seed": str(results.seed),
    }


def difference_table(differences: Sequence[Difference]) -> list[list[str]]:
    """A row for each paired difference, the headers first; p-values where there are any; none without a difference."""
    if not differences:
        return []
    tested = any(one.p_value is not None for one in differences)
    found = [["what", "is", "difference", "n", *(["p", "Holm"] if tested else []), "reading"]]
    for one in differences[:MAX_ROWS]:
        e = one.estimate
        numbers = [NOTHING if value is None else f"{value:.3g}" for value in (one.p_value, one.p_holm)]
        cells = [one.what, f"{one.letter} − A", difference(e, one.metric), f"{e.n:,}"]
        found.append([*cells, *(numbers if tested else []), one.reading])
    return found


def difference_caption(differences: Sequence[Difference]) -> str:
    """What the table of differences says, and for how many comparisons its numbers are not corrected."""
    said = "On the items that both runs have, the later run minus A. An interval that holds 0 can't tell."
    if any(one.p_value is not None for one in differences):
        said += " p: exact; Holm: corrected for the number of tests with that run."
    if len(differences) > 1:
        said += (
            f" The intervals are not corrected for {len(differences):,} comparisons: about one in 20 errs by chance."
        )
    return said
