"""How several runs or measurements differ in what they were given, and what may not be held against each other."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from salad.report.compare_tables import Side
from salad.report.gap_figures import short
from salad.report.measured import Measured
from salad.report.measurement import asked
from salad.report.results import Results
from salad.report.table import ARM_TITLES, NOTHING, duration, titled

OF_RUNS = "recipe, seed, command, versions and amounts of data"
OF_MEASUREMENTS = "models, how they were asked, tasks, voices, conditions, speech, command and versions"
NUM_DIGITS = 16  # of a SHA-256: enough to tell two apart


def unlike(runs: Sequence[Side]) -> list[str]:
    """A sentence where a number of one run stands under other conditions than that of the first."""
    return [*_unlike_runs(runs), *_unlike_speech(runs)]


def _unlike_runs(runs: Sequence[Side]) -> list[str]:
    """Where M was taken under other conditions."""
    held = [(run, run.results.conditions) for run in runs if run.results]
    found = []
    for run, own in held[1:]:
        first = held[0][1]
        differing = [
            name
            for name, a, b in (
                ("sequence policy", first.policy, own.policy),
                ("broad text or its voice", first.broad, own.broad),
                ("human speech", first.human, own.human),
            )
            if a != b
        ]
        if differing:
            found.append(f"M of {run.letter} can't be held against M of {held[0][0].letter}: {', '.join(differing)}.")
    return found


def _unlike_speech(runs: Sequence[Side]) -> list[str]:
    """Where a measurement heard other audio than the first that has the task."""
    heard: dict[str, tuple[Side, str]] = {}
    others: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        for task, digest in run.measured.speech_sha256.items() if run.measured else ():
            first, known = heard.setdefault(task, (run, digest))
            if digest != known:
                others.setdefault((first.letter, run.letter), []).append(task)
    return [
        f"{a} and {b} did not hear the same speech of {', '.join(tasks)} (its SHA-256 differs): what they differ "
        f"by may be the items' or the voices' and not the models'; measure both with the same --spoken."
        for (a, b), tasks in others.items()
    ]


def unlike_table(runs: Sequence[Side]) -> list[list[str]] | None:
    """What was set or given otherwise (`what_was_given`); the headers first.

    Empty: nothing. None: one is a folder of scores, which does not say it.
    """
    told = [_given(run.results) if run.results else _asked(run.measured) for run in runs if run.results or run.measured]
    if len(told) != len(runs):
        return None
    rows = [
        [key, *(own.get(key, NOTHING) for own in told)] for key in dict.fromkeys(key for own in told for key in own)
    ]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    return [["", *(f"{run.letter} {short(run.name, 24)}" for run in runs)], *differing] if differing else []


def what_was_given(runs: Sequence[Side]) -> str:
    """What `unlike_table` goes through."""
    return OF_RUNS if any(run.results for run in runs) else OF_MEASUREMENTS


def _asked(measured: Measured | None) -> dict[str, str]:
    """All that a measurement was given, by a name that a reader can find it under."""
    if measured is None:
        return {}
    found = asked(measured)
    for name, task in measured.tasks.items():
        found[f"{name}: task"] = f"version {task.task_version}, {task.gap.whole.gap.n:,} items"
        found[f"{name}: voices"] = ", ".join(task.gap.voices) or NOTHING
        found[f"{name}: conditions"] = ", ".join(dict.fromkeys(row.condition for row in task.conditions)) or NOTHING
    found |= {f"{name}: free answers, likeness by": own.likeness_by or NOTHING for name, own in measured.open.items()}
    found |= {f"{name}: speech, SHA-256": f"{sha[:NUM_DIGITS]}…" for name, sha in measured.speech_sha256.items()}
    return found | {f"version: {name}": str(version) for name, version in measured.versions.items()}


def _given(results: Results) -> dict[str, str]:
    """All that a run was given, by a name that a reader can find it under."""
    command = results.command if isinstance(results.command, str) else shlex.join(results.command)
    found = {"seed": str(results.seed), "command": command}
    found |= {f"recipe: {key}": value for key, value in _leaves(results.recipe) if key != "seed"}
    found |= {f"version: {key}": str(value) for key, value in results.versions.items()}
    own = results.speech
    amounts = {"natural": own.human_s, "synthetic": own.synthetic_s, "synthetic, uniform": own.synthetic_uniform_s}
    amounts |= {"probe": own.probe_s, "held out": own.heldout_s}
    found |= {f"speech: {key}": duration(seconds) for key, seconds in amounts.items()}
    for part in results.bill:
        for source in part.sources:
            what = f"data: {titled(part.stage, part.taken_over_from)}, {source.name}"
            drawn = f"{source.num_items:,} items, {source.num_sequences:,} sequences"
            found[what] = f"{found[what]}; {drawn}" if what in found else drawn  # two corpora may have one name
    return found | {f"trained on: {ARM_TITLES.get(key, key)}": str(where) for key, where in results.trained_on.items()}


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, own in value.items():
            yield from _leaves(own, f"{path}.{key}" if path else str(key))
    else:
        yield (
            path,
            NOTHING
            if value is None
            else ", ".join(map(str, value)) or NOTHING
            if isinstance(value, list)
            else str(value),
        )
