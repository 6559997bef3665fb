"""A measurement (`salad measure`) as a page shows it: sentences, tables and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from salad.report.drawing import Drawing
from salad.report.gap_figures import (
    Bar,
    Group,
    accuracy_bars,
    by_condition,
    by_group,
    fall_of_split,
    misalignment_rows,
    named,
    short,
    waterfall,
)
from salad.report.measured import Measured, MeasuredTask, Open, Split
from salad.report.palette import stand_in
from salad.report.parts import MAX_ROWS, Tile, gap_tile
from salad.report.results import Estimate
from salad.report.svg import drawing_style
from salad.report.table import NOTHING, nats_estimate, percent, percent_estimate, points_estimate

MAX_WATERFALLS = 12
OPEN_HEADERS = ("arm", "answers", "hold a reference", "token F1", "nats per token", "like base's", "empty", "none")
RULES = {
    "declared": "right",
    "voicebench": "by VoiceBench's rule",
    "lmms_eval": "by lmms-eval's",
    "guessing": "guessing",
}
WRITTEN = """Answers in writing, without solved examples, as one declared rule reads them. Unread: it finds no choice \
there, which counts as wrong. None: items without an answer, in no number. Then the share of right answers, by two \
other rules, and by the declared one with a guess at what is unread."""
WRITTEN_HEADERS = ("task", "arm", "answers", "read", "unread", "none", *RULES.values())
HEADERS = ("task", "n", "topline", "cascade", "own text", "own transcript", "speech", "gap", "forgotten")


@dataclass(frozen=True)
class TaskView:
    """One task: what the guard and the power analysis say, and its figures."""

    name: str
    listening: str
    resolved: str
    figures: Sequence[Drawing]


@dataclass(frozen=True)
class Extra:
    """A table of its own."""

    title: str
    caption: str
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class MeasurementView:
    """All that a template draws of one measurement; `num_rejected` counts the rejected before their table was cut."""

    title: str
    heading: str
    sentence: str
    tiles: Sequence[Tile]
    warnings: Sequence[str]
    figures: Sequence[Drawing]
    table: Sequence[Sequence[str]]
    tasks: Sequence[TaskView]
    rejected: Sequence[Sequence[str]]
    num_rejected: int
    facts: Sequence[tuple[str, str]]
    extras: Sequence[Extra] = field(default_factory=list)


def measurement_view(measured: Measured, prefix: str = "") -> MeasurementView:
    """The view of a measurement; `prefix` keeps its figures' names apart from another's in the same page."""
    title = PurePath(measured.model).name or measured.model
    whole = measured.mean or next((task.gap.whole for task in measured.tasks.values()), None)
    with drawing_style():
        figures = _figures(measured, whole, prefix)
        tasks = [
            _task(name, task, f"{prefix}task-{place}") for place, (name, task) in enumerate(measured.tasks.items())
        ]
    rejected = _rejected(measured)
    return MeasurementView(
        title,
        f"Spoken benchmarks: {title}",
        _sentence(measured, whole),
        _tiles(measured, whole),
        _warnings(measured),
        figures,
        _table(measured),
        tasks,
        [("task", "arm", "reason", "items"), *rejected[:MAX_ROWS]] if rejected else [],
        len(rejected),
        facts(measured),
        _extras(measured),
    )


def _warnings(measured: Measured) -> list[str]:
    deaf = [f"{name}: {task.listening.sentence}" for name, task in measured.tasks.items() if not task.listening.listens]
    deaf += [f"{name}: {task.caution}" for name, task in measured.tasks.items() if task.caution]
    return deaf + [f"{name}, free answers: {own.guard}" for name, own in measured.open.items() if not own.listens]


def _by_value(row: tuple[str, Estimate]) -> float:
    return -row[1].value


def _extras(measured: Measured) -> list[Extra]:
    """Tables of what not every measurement has: written answers, F and M by task, free answers, F and M on a corpus."""
    found = []
    if written := _written_rows(measured):
        more = f" Shown: {MAX_ROWS} of {len(written):,} rows." if len(written) > MAX_ROWS else ""
        found.append(Extra("Written answers", WRITTEN + more, [WRITTEN_HEADERS, *written[:MAX_ROWS]]))
    rows = [
        [name, nats_estimate(own.misalignment), nats_estimate(own.forgetting), "; ".join(own.why_not.values())]
        for name, task in measured.tasks.items()
        if (own := task.nats_per_token)
    ]
    if rows:
        caption = "Misalignment M of clean speech and forgetting F on the tasks' text, nats per token, 95 % intervals."
        found.append(Extra("M and F on the tasks", caption, [["task", "M", "F", "not measured because"], *rows]))
    for name, free in measured.open.items():
        caption = f"{free.guard} Nats per token: by the text LLM after the question in text; likeness by "
        table = [list(OPEN_HEADERS), *_open_rows(free)]
        found.append(Extra(f"{name}, answered in free words", f"{caption}{free.likeness_by}.", table))
    if measured.corpus:
        rows = [[key.replace("_", " "), _cell(value)] for key, value in measured.corpus.items()]
        found.append(Extra("F, M and hearing on a corpus", "Nats per token.", [["", "value"], *rows]))
    return found


def _written_rows(measured: Measured) -> list[list[str]]:
    """How each arm's written answers were read."""
    return [
        [
            name,
            arm,
            f"{own.num_answers:,}",
            f"{own.num_answers - own.num_unread:,}",
            f"{own.num_unread:,}",
            f"{len(task.unscorable.get(arm, ())):,}",
            *(percent(own.accuracy_by_rule[rule]) if rule in own.accuracy_by_rule else NOTHING for rule in RULES),
        ]
        for name, task in measured.tasks.items()
        for arm, own in task.written.items()
    ]


def _open_rows(own: Open) -> list[list[str]]:
    return [
        [
            " ".join(filter(None, (arm.arm, arm.voice, arm.condition))),
            f"{arm.num_answered:,}",
            percent_estimate(arm.contains),
            *(nats_estimate(one) for one in (arm.f1, arm.nll_nats, arm.likeness)),
            f"{arm.num_empty:,}",
            f"{len(arm.unanswered):,}",
        ]
        for arm in own.arms
    ]


def _cell(value: Any) -> str:
    """A value of a corpus' measurement, most of which are estimates."""
    if isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
        return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]".replace("-", "−")
    return "yes" if value is True else "NO" if value is False else str(value)


def _figures(measured: Measured, whole: Split | None, prefix: str) -> list[Drawing]:
    found: list[Drawing | None] = []
    if whole:
        over = f"the mean over {len(measured.tasks)} tasks" if len(measured.tasks) > 1 else next(iter(measured.tasks))
        found.append(waterfall(fall_of_split(whole), f"{prefix}gap-mean", f"{over}, n = {whole.gap.n:,}"))
    caption = "Accuracies by task: text (outlined), transcripts and speech (filled), with 95 % intervals."
    groups = [_group(name, task) for name, task in measured.tasks.items()]
    found.append(accuracy_bars(groups, f"{prefix}tasks", caption))
    caption = "Free answers: the share that holds a reference, with 95 % intervals."
    free = [_open_group(*one) for one in measured.open.items()]
    found.append(accuracy_bars(free, f"{prefix}open", caption, "answers that hold a reference"))
    if len(measured.tasks) > 1:
        for place, (name, task) in enumerate(list(measured.tasks.items())[:MAX_WATERFALLS]):
            fall = fall_of_split(task.gap.whole)
            found.append(waterfall(fall, f"{prefix}gap-{place}", f"{short(name)}, n = {task.gap.whole.gap.n:,}"))
    return [figure for figure in found if figure]


def _group(name: str, task: MeasuredTask) -> Group:
    own = task.gap.whole
    bars = [Bar("text LLM, text", own.topline, stand_in("topline"), filled=False)]
    bars += [Bar("cascade (ASR + LLM)", task.cascade, stand_in("cascade"))] if task.cascade else []
    bars.append(Bar("model, text", own.own_text, stand_in("stage-two"), filled=False))
    bars.append(Bar("model, transcript", own.own_transcript, stand_in("forgotten"), filled=False))
    bars.append(Bar("model, speech", own.speech, stand_in("stage-two")))
    return Group(name, bars, task.chance)


def _open_group(name: str, own: Open) -> Group:
    bars = [
        Bar(short(" ".join(filter(None, (arm.arm, arm.voice, arm.condition)))), arm.contains, stand_in("heard-wrong"))
        for arm in own.arms
        if arm.contains
    ]
    return Group(f"{name}, free answers", bars, None)


def _task(name: str, task: MeasuredTask, prefix: str) -> TaskView:
    figures: list[Drawing | None] = [
        by_group(splits, f"{prefix}-{place}", f"{name} by {grouping}")
        for place, (grouping, splits) in enumerate(task.gap.by_group.items())
    ]
    figures.append(by_condition(task.conditions, f"{prefix}-conditions", name))
    spread = [(named(row), row.misalignment) for row in task.conditions]
    figures.append(misalignment_rows(spread, f"{prefix}-conditions-m", f"{name}, every voice and condition"))
    groups = task.nats_per_token.by_group if task.nats_per_token else {}
    for place, (grouping, labels) in enumerate(groups.items()):
        own = sorted(((label, m) for label, by in labels.items() if (m := by.get("misalignment"))), key=_by_value)
        figures.append(misalignment_rows(own, f"{prefix}-m-{place}", f"{name} by {grouping}"))
    return TaskView(name, task.listening.sentence, task.resolved, [figure for figure in figures if figure])


def _table(measured: Measured) -> list[list[str]]:
    rows = [[*HEADERS, "heard wrong", "misaligned", "p", "Holm"]]
    if measured.mean and len(measured.tasks) > 1:
        rows.append(_row("mean", measured.mean, None, None, None))
    for name, task in measured.tasks.items():
        rows.append(_row(name, task.gap.whole, task, task.p_value, measured.p_value_holm.get(name)))
        if len(task.gap.by_voice) > 1:
            rows += [_row(f"– {voice}", split, None, None, None) for voice, split in task.gap.by_voice.items()]
    return rows[: MAX_ROWS + 1]


def _row(name: str, split: Split, task: MeasuredTask | None, p: float | None, holm: float | None) -> list[str]:
    cells = [f"{split.gap.n:,}", percent_estimate(split.topline), percent_estimate(task.cascade if task else None)]
    cells += [percent_estimate(e) for e in (split.own_text, split.own_transcript, split.speech)]
    cells += [points_estimate(e) for e in (split.gap, split.forgotten, split.heard_wrong, split.misaligned)]
    return [name, *cells, *(NOTHING if value is None else f"{value:.3g}" for value in (p, holm))]


def _rejected(measured: Measured) -> list[tuple[str, str, str, str]]:
    """How many items of each arm have no number, and why; most first."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for name, task in measured.tasks.items():
        for arm, own in task.unscorable.items():
            counts.update((name, arm, reason) for reason in own.values())
        for arm, lacking in task.gap.num_missing.items():
            counts[name, arm, "other arms have it, so that it is in no number"] += lacking
    return [(*key, f"{count:,}") for key, count in counts.most_common()]


def _sentence(measured: Measured, whole: Split | None) -> str:
    if whole is None:
        return "No multiple-choice task was measured."
    tasks = f"{len(measured.tasks)} tasks" if len(measured.tasks) > 1 else next(iter(measured.tasks))
    text = f"On {tasks} the gap is {points_estimate(whole.gap)} points: {points_estimate(whole.forgotten)} forgotten, "
    return f"{text}{points_estimate(whole.heard_wrong)} heard wrong, {points_estimate(whole.misaligned)} misaligned."


def _tiles(measured: Measured, whole: Split | None) -> list[Tile]:
    if whole is None:
        return []
    over = f"{len(measured.tasks)} tasks" if len(measured.tasks) > 1 else next(iter(measured.tasks))
    found = [gap_tile(whole.gap.value, whole.gap, whole.topline, whole.speech, over)]
    for part, what, other in (
        ("forgotten", "it reads", "the text LLM does"),
        ("heard_wrong", "it reads a transcript", "the text"),
        ("misaligned", "it hears", "it reads the transcript"),
    ):
        own: Estimate = getattr(whole, part)
        value, interval = points_estimate(own).split(" ", 1)
        than = "as well as" if own.value == 0 else "worse than" if own.value > 0 else "better than"
        found.append(Tile(part.replace("_", " "), value, f"{interval} points", f"{what} {than} {other}"))
    return found


def facts(measured: Measured) -> list[tuple[str, str]]:
    """How it was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in measured.versions.items())
    speech = ", ".join(f"{name} {digest}" for name, digest in measured.speech_sha256.items())
    more = {"versions": versions, "speech, SHA-256": speech}
    return [*asked(measured).items(), *((title, value) for title, value in more.items() if value)]


def asked(measured: Measured) -> dict[str, str]:
    """Who was measured, against whom, and how it was asked for."""
    command = measured.command if isinstance(measured.command, str | None) else " ".join(measured.command)
    stated: dict[str, Any] = {
        "model": measured.model,
        "text LLM": measured.base,
        "ASR of the cascade": measured.asr,
        "rule": measured.rule,
        "solved examples": measured.shots,
        "seed": measured.seed,
        "command": command,
    }
    return {title: str(value) for title, value in stated.items() if value is not None}
