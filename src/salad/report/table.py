"""How numbers are written, and the table of arms: one place for the page and the terminal."""

from __future__ import annotations

from salad.report.results import Arm, Estimate, Results

ARM_TITLES = {
    "untrained": "untrained",
    "stage_one": "Stage I",
    "stage_two": "Stage II",
    "stage_two_uniform": "Stage II, uniform",
    "stage_three": "Stage III",
}
METRIC_TITLES = {
    "misalignment_nats": "misalignment M",
    "misalignment_human_nats": "misalignment M, human speech",
    "hearing_nats": "hearing",
    "forgetting_nats": "forgetting F",
}
NOTHING = "–"
HEADERS = (
    "arm",
    "M (nats)",
    "M swapped (nats)",
    "hearing (nats)",
    "hears",
    "M human (nats)",
    "hearing human (nats)",
    "F (nats)",
    "task, text",
    "task, speech",
    "gap (points)",
)


def arms_table(results: Results) -> list[list[str]]:
    """The headers, then a row for each arm, the topline, the cascade and chance; all cells are strings.

    The topline is the text LLM reading, the cascade the same LLM reading what a recognizer heard; the gap is the
    topline minus the accuracy on speech.
    """
    rows = [list(HEADERS)]
    rows += [_arm_row(arm, results.topline) for arm in results.arms]
    if results.topline:
        rows.append(_row("topline (text LLM)", text=percent_estimate(results.topline)))
    if results.cascade:
        gap = gap_points(results.topline, results.cascade)
        rows.append(_row("cascade (ASR + LLM)", speech=percent_estimate(results.cascade), gap=gap))
    rows.append(_row("chance", text=percent(results.task.chance), speech=percent(results.task.chance)))
    return rows


def _arm_row(arm: Arm, topline: Estimate | None) -> list[str]:
    return [
        titled(arm.name, arm.taken_over_from),
        nats_estimate(arm.misalignment_nats),
        nats_estimate(arm.misalignment_swapped_nats),
        nats_estimate(arm.hearing_nats),
        hears(arm),
        nats_estimate(arm.misalignment_human_nats),
        nats_estimate(arm.hearing_human_nats),
        nats_estimate(arm.forgetting_nats),
        percent_estimate(arm.task.text if arm.task else None),
        percent_estimate(arm.task.speech if arm.task else None),
        gap_points(topline, arm.task.speech if arm.task else None),
    ]


def titled(stage: str, taken_over_from: str | None) -> str:
    """A stage's title, with the model that it was taken over from instead of trained."""
    title = ARM_TITLES.get(stage, stage)
    return title if taken_over_from is None else f"{title}, taken over from {taken_over_from}"


def hears(arm: Arm) -> str:
    """Whether an arm hears: "yes", "NO" where its interval lies at or below 0, "not shown" where that holds 0."""
    return "yes" if arm.hears else "NO" if arm.hearing_nats.high <= 0 else "not shown"


def _row(title: str, text: str = NOTHING, speech: str = NOTHING, gap: str = NOTHING) -> list[str]:
    return [title, *[NOTHING] * (len(HEADERS) - 4), text, speech, gap]


def nats(value: float) -> str:
    """A divergence in nats: three decimals."""
    return _fixed(value, 3)


def percent(frac: float) -> str:
    """A fraction as per cent: one decimal."""
    return f"{_fixed(100 * frac, 1)} %"


def points(frac: float) -> str:
    """A difference of two fractions, in percentage points: one decimal."""
    return _fixed(100 * frac, 1)


def nats_estimate(estimate: Estimate | None) -> str:
    """Value and interval in nats: "1.234 [1.100, 1.370]"."""
    return NOTHING if estimate is None else f"{nats(estimate.value)} [{nats(estimate.low)}, {nats(estimate.high)}]"


def percent_estimate(estimate: Estimate | None) -> str:
    """Value and interval in per cent: "47.5 % [32.5, 62.5]"."""
    if estimate is None:
        return NOTHING
    return f"{percent(estimate.value)} [{points(estimate.low)}, {points(estimate.high)}]"


def difference(estimate: Estimate, metric: str) -> str:
    """A paired difference in the unit of its metric: nats, or else percentage points."""
    return nats_estimate(estimate) if metric.endswith("_nats") else f"{points_estimate(estimate)} points"


def points_estimate(estimate: Estimate | None) -> str:
    """A difference of fractions and its interval in percentage points: "4.2 [0.0, 8.3]"."""
    if estimate is None:
        return NOTHING
    return f"{points(estimate.value)} [{points(estimate.low)}, {points(estimate.high)}]"


def gap_points(topline: Estimate | None, speech: Estimate | None) -> str:
    """Topline minus accuracy on speech, in percentage points."""
    return NOTHING if topline is None or speech is None else points(topline.value - speech.value)


def duration(seconds: float | None) -> str:
    """Seconds as "42.0 s", "3 min 20 s" or "141 h 05 min"."""
    if seconds is None:
        return NOTHING
    if round(seconds, 1) < 60:
        return f"{_fixed(seconds, 1)} s"
    if round(seconds) < 3600:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")
