"""Several runs, measurements or folders of scores set against the first of them: `salad compare`.

A run's folder has results.json; two of them are compared by the rows of their arms (measure/compared_runs.py), all else
by the items that were scored (measure/compared.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from salad.errors import MissingFileError, RecipeError
from salad.measure.compared import Compared, compare
from salad.measure.compared_runs import ComparedRuns, compare_runs
from salad.measure.statistics import Estimate
from salad.report.compare_page import write_compare
from salad.report.compare_tables import LETTERS, Difference, Side
from salad.report.measured import NAME, read_measured
from salad.report.results import Estimate as Drawn
from salad.report.results import read_results
from salad.report.table import ARM_TITLES, METRIC_TITLES

RESULTS = "results.json"
TASK_TITLES = {"task_text": "the task, text", "task_speech": "the task, speech"}


@dataclass(frozen=True)
class Sides:
    """The runs as the page draws them, what each later one and the first have in common, and what was not compared."""

    runs: list[Side]
    pairs: list[tuple[Path, Compared | ComparedRuns]]
    notes: list[str]

    def write(self, out: Path) -> None:
        """Draw them as the page `out`."""
        found = [
            one for letter, (_, own) in zip(LETTERS[1:], self.pairs, strict=False) for one in _differences(letter, own)
        ]
        write_compare(self.runs, found, self.notes, out)


def compare_sides(folders: Sequence[Path], seed: int = 0, other_prompts: bool = False) -> Sides:
    """Each of `folders` against the first.

    Raises:
        RecipeError: fewer than two or more than 26, or a run is set against what is none.
        MissingFileError, DataError: as `compare`, `compare_runs`, `read_results` and `read_measured`.
    """
    if not 2 <= len(folders) <= len(LETTERS):
        raise RecipeError(f"compare: {len(folders)} was named; it takes 2 to {len(LETTERS)} runs.")
    for folder in folders:
        if not folder.exists():
            raise MissingFileError(f"{folder} does not exist; name a run, or what 'salad measure' wrote.")
    are_runs = [(folder / RESULTS).is_file() for folder in folders]
    if any(are_runs) and not all(are_runs):
        one, other = (folders[are_runs.index(kind)] for kind in (True, False))
        raise RecipeError(
            f"{one} is a run and {other} is not; compare runs with runs, and what 'salad measure' wrote with the same."
        )
    pairs: list[tuple[Path, Compared | ComparedRuns]] = []
    notes: list[str] = []
    for letter, folder in zip(LETTERS[1:], folders[1:], strict=False):
        if all(are_runs):
            own = compare_runs(folders[0], folder, seed)
            notes += [f"{letter}: {note}" for note in own.notes]
            pairs.append((folder, own))
        else:
            pairs.append((folder, compare(folders[0], folder, seed, other_prompts)))
    named = enumerate(zip(folders, _names(folders), strict=True))
    return Sides([_side(folder, place, name, pairs) for place, (folder, name) in named], pairs, notes)


def _side(folder: Path, place: int, name: str, pairs: Sequence[tuple[Path, Compared | ComparedRuns]]) -> Side:
    letter, path = LETTERS[place], str(folder)
    if (folder / RESULTS).is_file():
        return Side(name, letter, path, results=read_results(folder / RESULTS))
    if (folder / NAME).is_file():
        return Side(name, letter, path, measured=read_measured(folder))
    own = {}
    for other, found in pairs:
        for one in found.comparisons if isinstance(found, Compared) and (place == 0 or other == folder) else ():
            own[one.task, one.view] = _drawn(one.accuracy_b if place else one.accuracy_a)
    return Side(name, letter, path, accuracies=own)


def _names(folders: Sequence[Path]) -> list[str]:
    """What is enough of each path's end to tell it from the others."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-depth:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _differences(letter: str, found: Compared | ComparedRuns) -> list[Difference]:
    if isinstance(found, ComparedRuns):
        titles = [f"{ARM_TITLES[one.arm]}: {_title(one.metric)}" for one in found.differences]
        return [
            Difference(letter, title, one.metric, _drawn(one.difference), one.p_value, one.p_holm, one.same)
            for title, one in zip(titles, found.differences, strict=True)
        ]
    return [
        Difference(
            letter,
            f"{one.task}, {one.view}",
            one.view,
            _drawn(one.difference),
            one.test.p_value,
            one.p_holm,
            not (one.test.first_ahead or one.test.second_ahead),
        )
        for one in found.comparisons
    ]


def _title(metric: str) -> str:
    return METRIC_TITLES.get(metric) or TASK_TITLES.get(metric, metric)


def _drawn(estimate: Estimate) -> Drawn:
    return Drawn(value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n)
