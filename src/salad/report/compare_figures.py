"""Figures of several runs: accuracies, M and F, the gap of each, trainings over each other, paired differences."""

from __future__ import annotations

from collections.abc import Sequence

from salad.report.compare_tables import LETTERS, Difference, Side, nats_of_task
from salad.report.downloads import Row
from salad.report.drawing import ESTIMATE, Drawing, cells, drawing, interval, rows, run_look
from salad.report.gap_figures import Bar, Group, accuracy_bars, fall_of_arm, fall_of_split, short, waterfall
from salad.report.results import Estimate
from salad.report.svg import INK
from salad.report.table import ARM_TITLES, difference, nats_estimate
from salad.report.training_figures import course, training

MAX_SHOWN = 40  # of a figure; its CSV has more


def task_bars(runs: Sequence[Side]) -> Drawing | None:
    """Each task's accuracies in all runs; the topline stands once, where it is the same."""
    caption = "Accuracies: text (outlined) and speech (filled), with 95 % intervals."
    return accuracy_bars(_groups(runs), "tasks", caption)


def _groups(runs: Sequence[Side]) -> list[Group]:
    found: dict[str, list[Bar]] = {}
    chance: dict[str, float | None] = {}
    toplines: dict[str, set[Estimate]] = {}

    def add(task: str, place: int, topline: Estimate | None, text: Estimate | None, speech: Estimate) -> None:
        run, bars, colour = runs[place], found.setdefault(task, []), run_look(place).colour
        if topline and topline not in toplines.setdefault(task, set()):
            toplines[task].add(topline)
            bars.append(Bar(f"{run.letter}: text LLM", topline, INK, filled=False))
        if text:
            bars.append(Bar(f"{run.letter}: text", text, colour, filled=False))
        bars.append(Bar(f"{run.letter}: speech", speech, colour))

    for place, run in enumerate(runs):
        arm = run.results.last if run.results else None
        if run.results and arm and arm.task:
            chance[run.results.task.name] = run.results.task.chance
            add(run.results.task.name, place, run.results.topline, arm.task.text, arm.task.speech)
        for name, task in run.measured.tasks.items() if run.measured else ():
            chance[name] = task.chance
            add(name, place, task.gap.whole.topline, task.gap.whole.own_text, task.gap.whole.speech)
        for (name, view), own in run.accuracies.items():
            bar = Bar(f"{run.letter}: {view}", own, run_look(place).colour, filled=view != "text")
            found.setdefault(name, []).append(bar)
    return [Group(task, bars, chance.get(task)) for task, bars in found.items()]


def nats_rows(runs: Sequence[Side], title: str, key: str) -> Drawing | None:
    """M or F of every run's last stage, or of every measurement on every task."""
    every = [(place, *one) for place, run in enumerate(runs) for one in _nats_of(run, title, key)]
    if not every:
        return None
    tasks = list(dict.fromkeys(task for _, task, _ in every))
    found = sorted(every, key=lambda one: tasks.index(one[1]))  # task by task, each in the order of the runs
    shown = found[:MAX_SHOWN]
    figure, axes = rows([f"{runs[place].letter} {short(task or runs[place].name, 20)}" for place, task, _ in shown])
    for y, (place, _, estimate) in enumerate(shown):
        look = run_look(place)
        interval(axes, y, estimate, look.colour, look.marker, filled=True)
    measured = bool(tasks[0])
    axes.set_xlabel(f"{title}, nats per {'token' if measured else 'text position'}")
    axes.set_xlim(left=0)
    of = "on each task, nats per token of the text after the speech" if measured else "of each run at its last stage"
    caption = f"{title[0].upper()}{title[1:]} {of}, with 95 % intervals."
    caption += f" Shown: {MAX_SHOWN} of {len(found)}." if len(found) > MAX_SHOWN else ""
    having: dict[tuple[str, ...], list[str]] = {}
    for task in tasks:
        having.setdefault(tuple(runs[place].letter for place, own, _ in found if own == task), []).append(short(task))
    for letters, own in having.items():
        what = f"{title} on {', '.join(own)}" if measured else title
        caption += _without(runs, [run for run in runs if run.letter in letters], what)
    told = "; ".join(
        f"{runs[place].letter}{f', {task}' if task else ''} {nats_estimate(estimate)}"
        for place, task, estimate in shown
    )
    written: list[Row] = [("run", "name", "task", *ESTIMATE)]
    written += [(runs[place].letter, runs[place].name, task, *cells(e)) for place, task, e in found]
    return drawing(figure, key.replace("_", "-"), f"{caption} {told}.", caption, written)


def _nats_of(run: Side, title: str, key: str) -> list[tuple[str, Estimate]]:
    """M or F of a run's last stage, under no task's name; those of a measurement by task."""
    if run.measured:
        own = [(name, nats_of_task(task).get(title)) for name, task in run.measured.tasks.items()]
        return [(name, estimate) for name, estimate in own if estimate]
    arm = run.results.last if run.results else None
    return [("", estimate)] if arm and (estimate := getattr(arm, key)) else []


def _without(runs: Sequence[Side], drawn: Sequence[Side], what: str) -> str:
    """Which runs a figure does not show, for they have none of what it draws."""
    letters = [run.letter for run in runs if run not in drawn]
    return f" {', '.join(letters)} {'has' if len(letters) == 1 else 'have'} no {what}." if letters else ""


def fall_of(run: Side) -> Drawing | None:
    """The gap of a run, split."""
    name = f"gap-{run.letter}"
    if run.measured:
        whole = run.measured.mean or next((t.gap.whole for t in run.measured.tasks.values()), None)
        return None if whole is None else waterfall(fall_of_split(whole), name, f"{run.letter}, {short(run.name)}")
    arm = run.results.last if run.results else None
    fall = fall_of_arm(run.results, arm) if run.results and arm else None
    return waterfall(fall, name, f"{run.letter}, {short(run.name)}, {ARM_TITLES[arm.name]}") if fall and arm else None


def curves_of(runs: Sequence[Side]) -> list[Drawing]:
    """Each stage's trainings over each other."""
    found: list[Drawing | None] = []
    for name in ARM_TITLES:
        sides = [(place, run, run.results.arm(name)) for place, run in enumerate(runs) if run.results]
        courses = {
            run.letter: course(run.results, arm, f"{run.letter}, {ARM_TITLES[name]}", run_look(place))
            for place, run, arm in sides
            if run.results and arm and arm.curve
        }
        for unit, what in (("tokens", f"training of {ARM_TITLES[name]}"), ("hours", "hours of speech heard in it")):
            own = [run for run in runs if run.letter in courses and courses[run.letter].places(unit)]
            file = f"training-{name.replace('_', '-')}-{unit}"
            found.append(training(list(courses.values()), unit, file, _without(runs, own, what)))
    return [figure for figure in found if figure]


def paired(differences: Sequence[Difference], nats: bool) -> Drawing | None:
    """Every paired difference with its interval, in nats or in points."""
    own = [one for one in differences if one.metric.endswith("_nats") == nats]
    if not own:
        return None
    figure, axes = rows([f"{one.letter} − A, {short(one.what, 28)}" for one in own[:MAX_SHOWN]])
    by = 1 if nats else 100
    for y, one in enumerate(own[:MAX_SHOWN]):
        look, e = run_look(LETTERS.index(one.letter)), one.estimate
        scaled = Estimate(value=by * e.value, low=by * e.low, high=by * e.high, n=e.n)
        interval(axes, y, scaled, look.colour, look.marker, filled=one.side != 0)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xlabel("nats per text position (below 0: less than A)" if nats else "points (above 0: more right than A)")
    more = f" Shown: {MAX_SHOWN} of {len(own)}." if len(own) > MAX_SHOWN else ""
    caption = f"Paired differences with 95 % intervals; hollow: the interval holds 0 (or is 0).{more}"
    told = "; ".join(f"{one.letter} − A, {one.what} {difference(one.estimate, one.metric)}" for one in own)
    written: list[Row] = [("run", "what", "metric", *ESTIMATE, "p", "p_holm")]
    written += [(d.letter, d.what, d.metric, *cells(d.estimate), d.p_value, d.p_holm) for d in own]
    return drawing(figure, f"differences-{'nats' if nats else 'points'}", f"{caption} {told}.", caption, written)
