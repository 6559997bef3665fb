"""What the numbers say, in plain words, one verdict for each stage; a difference whose interval holds 0 is not told.

Words are drawn from values, intervals and the run's own paired comparisons alone: no thresholds of taste.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from salad.report.results import Arm, Estimate, Results
from salad.report.table import (
    ARM_TITLES,
    gap_points,
    hears,
    nats,
    nats_estimate,
    percent,
    percent_estimate,
)

METRIC = "misalignment_nats"  # what stages are compared by
Tone = Literal["good", "bad", "unsure", "plain"]
_NOT_SHOWN = "can't be shown to hear"
MARKS: dict[Tone, str] = {"good": "✓", "bad": "✗", "unsure": "?", "plain": "·"}


@dataclass(frozen=True)
class Verdict:
    """A stage, what is said of it in a few words, and the sentences with the numbers behind them."""

    stage: str
    tone: Tone
    headline: str
    sentences: list[str]

    @property
    def mark(self) -> str:
        """A sign for the tone, so that colour is not its only bearer."""
        return MARKS[self.tone]


def warnings(results: Results) -> list[str]:
    """A sentence for each trained arm not shown to hear the broad texts, and for each alarm of hearing in training."""
    return [
        f"{ARM_TITLES[arm.name]} {_deafness(arm)} the broad texts' voice: swapping the audio for another item's makes "
        f"it worse by {nats_estimate(arm.hearing_nats)} nats, and that interval "
        f"{'is not above 0' if _is_deaf(arm) else 'holds 0'}. {_human_hearing(arm)}"
        for arm in _unheard(results)
    ] + [f"{ARM_TITLES[arm.name]}, in training: {alarm}" for arm in results.arms if (alarm := _last_alarm(arm))]


def warning_title(results: Results) -> str:
    """What stands above `warnings`; it claims no more than the intervals do."""
    arms = _unheard(results)
    if not arms:
        return "An arm could not be shown to hear at times in training"
    deaf = all(map(_is_deaf, arms))
    if len(arms) == 1:
        return f"An arm {_deafness(arms[0])} the broad texts' voice"
    return f"{len(arms)} arms {'do not hear' if deaf else _NOT_SHOWN} the broad texts' voice"


def _unheard(results: Results) -> list[Arm]:
    return [arm for arm in results.arms if arm.name != "untrained" and not arm.hears]


def _is_deaf(arm: Arm) -> bool:
    """Whether the interval lies at or below 0; one that holds 0 shows nothing."""
    return hears(arm) == "NO"


def _deafness(arm: Arm) -> str:
    return "does not hear" if _is_deaf(arm) else _NOT_SHOWN


def _last_alarm(arm: Arm) -> str | None:
    alarms = [row.alarm for row in arm.watch if row.alarm is not None]
    if not alarms:
        return None
    last = arm.watch[-1]
    return alarms[-1] if last.alarm else f"{alarms[-1]} After step {last.step} it heard again."


def _human_hearing(arm: Arm) -> str:
    human = arm.hearing_human_nats
    if human is None or human.low <= 0:
        return f"Whatever else stands in its row {'is not' if _is_deaf(arm) else 'need not be'} about speech."
    return f"It does hear held-out human speech: {nats_estimate(human)} nats."


def verdicts(results: Results) -> list[Verdict]:
    """One verdict for each arm that was measured, one on the selection, one on the gap."""
    said = [_stage(results, "untrained", None), _stage(results, "stage_one", "untrained")]
    said += [_stage(results, "stage_two", "stage_one"), _selection(results)]
    said += [_stage(results, "stage_three", "stage_two"), _gap(results)]
    return [verdict for verdict in said if verdict]


def _stage(results: Results, name: str, before_name: str | None) -> Verdict | None:
    arm = results.arm(name)
    if arm is None:
        return None
    before = results.arm(before_name) if before_name else None
    deafness = "Does not hear" if _is_deaf(arm) else "Can't be shown to hear"
    sentences = [f"Hearing, M with swapped audio minus M with its own: {nats_estimate(arm.hearing_nats)} nats."]
    if name == "untrained":
        sentences.append(f"M is {nats_estimate(arm.misalignment_nats)} nats; the stages are held against it.")
        if arm.hears:
            return Verdict("Untrained", "unsure", "Hears before any training: look into it", sentences)
        return Verdict("Untrained", "plain", f"{deafness}, as expected before any training", sentences)
    moved: Tone = "plain"
    human_only = not arm.hears and arm.hearing_human_nats is not None and arm.hearing_human_nats.low > 0
    headline = "Hears" if arm.hears else "Hears human speech only" if human_only else deafness
    if before is not None:
        moved, words, sentence = _change(results, arm, before)
        headline += f"; {words}"
        sentences.append(sentence)
    if arm.forgetting_nats:
        sentences.append(f"Forgetting on text: {nats_estimate(arm.forgetting_nats)} nats.")
    tone: Tone = moved if arm.hears else "unsure" if human_only else "bad"
    sentences += _compute(results, name)
    if arm.taken_over_from is not None:
        sentences.insert(0, f"This run trained no Stage I: it started from {arm.taken_over_from}.")
    return Verdict(ARM_TITLES[name], tone, headline, sentences)


def _compute(results: Results, stage: str) -> list[str]:
    """What a stage's training took, where its bill says that, and what the student wrote for it."""
    part = next((part for part in results.bill if part.stage == stage and part.train_flops is not None), None)
    if part is None or part.train_flops is None:
        return []
    trained = f"Training took {part.train_flops / 1e12:,.3g} TFLOP"
    if part.on_policy is None:
        return [f"{trained}, on words of others alone."]
    own = part.on_policy
    return [
        f"{trained}; writing the {own.tokens:,} tokens of {own.rollouts:,} continuations in the student's own words "
        f"{own.flops / 1e12:,.3g} TFLOP more."
    ]


def _change(results: Results, arm: Arm, before: Arm) -> tuple[Tone, str, str]:
    """Whether M fell from `before` to `arm`: by the paired comparison where there is one, else by the two intervals."""
    new, old, title = arm.misalignment_nats, before.misalignment_nats, ARM_TITLES[before.name]
    went = f"M went from {nats(old.value)} to {nats_estimate(new)} nats"
    apart = "apart" if new.high < old.low or old.high < new.low else "overlapping"
    paired = _paired(results, arm.name, before.name)
    if paired:
        side = _side(paired)
        low, high = sorted((abs(paired.low), abs(paired.high)))
        by = f"{went}, intervals {apart}; paired by document, "
        by += {
            1: f"it fell by {nats(low)} to {nats(high)}.",
            -1: f"it rose by {nats(low)} to {nats(high)}.",
            0: f"it fell by {nats_estimate(paired)}, which holds 0.",
        }[side]
    else:
        side = 0 if apart == "overlapping" else 1 if new.high < old.low else -1
        by = f"{went}; the two intervals are {apart}."
    if side > 0:
        return "good", f"M fell from {title}", by
    if side < 0:
        return "bad", f"M rose from {title}", by
    return "unsure", f"can't tell at this size whether M fell from {title}", by


def _selection(results: Results) -> Verdict | None:
    """Is selecting by M(c)^gamma better than uniform? By the paired comparison alone."""
    arms = [arm for arm in results.arms if arm.name in ("stage_two", "stage_two_uniform")]
    if not any(arm.name == "stage_two" for arm in arms):
        return None
    stage = "Selection by M(c)^γ"
    paired = _paired(results, "stage_two", "stage_two_uniform")
    if paired is None:
        return Verdict(stage, "plain", "Not compared with uniform selection yet", [])
    numbers = (
        f"M of the uniform control minus M of Stage II, paired by document: {nats_estimate(paired)} nats "
        f"(n = {paired.n}; above 0: selection is better)."
    )
    unheard = [f"{ARM_TITLES[arm.name]} {_deafness(arm)}" for arm in arms if not arm.hears]
    if unheard:
        return Verdict(stage, "unsure", f"Can't be judged: {' and '.join(unheard)}", [numbers])
    if _side(paired) > 0:
        return Verdict(stage, "good", "Better than uniform selection", [numbers])
    if _side(paired) < 0:
        return Verdict(stage, "bad", "Worse than uniform selection", [numbers])
    return Verdict(
        stage, "unsure", "Can't tell at this size from uniform selection", [numbers, "The interval holds 0."]
    )


def _gap(results: Results) -> Verdict | None:
    """Topline minus speech, for the last stage measured (the uniform control is not a stage)."""
    scored = [arm for arm in results.arms if arm.task and arm.name not in ("untrained", "stage_two_uniform")]
    if not scored or results.topline is None or scored[-1].task is None:
        return None
    speech, topline, chance = scored[-1].task.speech, results.topline, results.task.chance
    gap = gap_points(topline, speech)
    sentences = [
        f"{ARM_TITLES[scored[-1].name]} answers {percent_estimate(speech)} of the spoken items (n = {speech.n}), the "
        f"text LLM {percent_estimate(topline)} of the written ones."
    ]
    tone: Tone = "plain"
    headline = f"{gap} points between reading and hearing"
    if speech.low <= chance <= speech.high:
        tone = "unsure"
        headline += "; hearing can't be told from guessing at this size"
        sentences.append(f"Guessing, {percent(chance)}, lies in the interval of the accuracy on speech.")
    elif speech.low <= topline.high and topline.low <= speech.high:
        tone = "unsure"
        headline += ", and the two intervals overlap"
    return Verdict("The gap", tone, headline, sentences)


def _paired(results: Results, better: str, than: str) -> Estimate | None:
    """The paired difference in M, `than` minus `better`, whichever way round the run wrote it down."""
    for row in results.comparisons:
        if row.metric == METRIC and (row.better, row.than) == (better, than):
            return row.difference
        if row.metric == METRIC and (row.better, row.than) == (than, better):
            turned = row.difference
            return Estimate(value=-turned.value, low=-turned.high, high=-turned.low, n=turned.n)
    return None


def _side(estimate: Estimate) -> int:
    """1: the interval is above 0, −1: below, 0: holds it."""
    return 1 if estimate.low > 0 else -1 if estimate.high < 0 else 0
