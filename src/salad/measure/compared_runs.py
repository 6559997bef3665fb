"""Two runs' arms on the same held-out items: M, F and the task, B − A, from the rows that each run keeps.

RUN/measured/ARM.json has a row an item; rows are matched by item id, and M is only compared within one sequence policy,
corpus and voice (RUN/results.json says them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from salad.errors import DataError
from salad.files import read_json
from salad.measure.paired import NUM_BOOTSTRAP, paired_difference
from salad.measure.significance import holm, paired_test
from salad.measure.statistics import Estimate, ratio_of_sums

ARMS = ("untrained", "stage_one", "stage_two", "stage_two_uniform", "stage_three")
METRICS = {"misalignment_nats": "broad", "misalignment_human_nats": "human", "forgetting_nats": ""}  # F is of text
TITLES = {"misalignment_nats": "M", "misalignment_human_nats": "M on human speech", "forgetting_nats": "F"}
NOTHING_NATS = 1e-4  # what float32 takes for 0


@dataclass(frozen=True)
class RunDifference:
    """B − A of one metric of one arm, paired by item: nats per text position, or accuracy in 0–1 with a test's p.

    `p_holm` is corrected for all the tests of the two runs; `same`: no item differs, or in nats by float32's
    rounding alone.
    """

    arm: str
    metric: str
    difference: Estimate
    p_value: float | None = None
    p_holm: float | None = None
    same: bool = False


@dataclass(frozen=True)
class ComparedRuns:
    """All that two runs' arms have in common, and sentences on what was not compared."""

    differences: list[RunDifference]
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        return asdict(self)


def compare_runs(a: Path, b: Path, seed: int = 0, num_bootstrap: int = NUM_BOOTSTRAP) -> ComparedRuns:
    """Compare the arms that two run folders both have.

    Raises:
        MissingFileError: one has no results.json.
        DataError: a file holds something else.
    """
    told = {folder: read_json(folder / "results.json") for folder in (a, b)}
    found: list[RunDifference] = []
    notes: list[str] = []
    for arm in ARMS:
        files = [folder / "measured" / f"{arm}.json" for folder in (a, b)]
        if not all(file.is_file() for file in files):
            continue
        try:
            rows = [read_json(file) for file in files]
            own, said = _arm(arm, rows[0], rows[1], (told[a], told[b]), seed, num_bootstrap)
        except (KeyError, TypeError) as error:
            raise DataError(f"{files[0]} or {files[1]} holds no arm's rows ({error!r}); measure again.") from error
        found += own
        notes += [note for note in said if note not in notes]
    return ComparedRuns(_corrected(found), notes)


def _corrected(found: Sequence[RunDifference]) -> list[RunDifference]:
    """With Holm's p-values over the tests; the intervals of M and F are of no test and stay as they are."""
    adjusted = holm({str(place): one.p_value for place, one in enumerate(found) if one.p_value is not None})
    return [replace(one, p_holm=adjusted.get(str(place))) for place, one in enumerate(found)]


def _arm(
    arm: str, one: Mapping[str, Any], other: Mapping[str, Any], told: Sequence[Any], seed: int, draws: int
) -> tuple[list[RunDifference], list[str]]:
    found: list[RunDifference] = []
    notes: list[str] = []
    for metric, where in METRICS.items():
        first, second = (rows[where]["heard"] if where else rows["forgetting"] for rows in (one, other))
        differing = [key for key in ("policy", where) if where and _condition(told[0], key) != _condition(told[1], key)]
        if differing:
            notes.append(
                f"M on {where} speech has no paired differences: the runs differ in {' and '.join(differing)}. What is "
                "drawn of it is of each run alone."
            )
            continue
        estimate = _paired_nats(first, second, seed, f"{arm} {metric}", draws)
        if estimate is None:
            notes.append(
                f"{TITLES[metric]} has no paired differences: fewer than two held-out items are the same in both runs. "
                "What is drawn of it is of each run alone."
            )
        else:
            same = max(abs(estimate.low), abs(estimate.high)) <= NOTHING_NATS
            found.append(RunDifference(arm, metric, estimate, same=same))
    if not _same_items(one, other, told):
        notes.append(
            "the task has no paired differences: it was asked on other items, or drawn with another seed. Accuracies "
            "and gaps are of each run alone, on its own items."
        )
        return found, notes
    for metric in ("task_text", "task_speech"):
        if one[metric]:
            difference = paired_difference(other[metric], one[metric], seed, f"{arm} {metric}", draws)
            test = paired_test(other[metric], one[metric])
            found.append(RunDifference(arm, metric, difference, test.p_value, same=other[metric] == one[metric]))
    return found, notes


def _paired_nats(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], seed: int, purpose: str, draws: int
) -> Estimate | None:
    """Second − first over the items that both have at the same number of positions; None of fewer than two."""
    there = {row["item"]: row for row in first}
    pairs = [(there[row["item"]], row) for row in second if row["item"] in there]
    pairs = [(a, b) for a, b in pairs if a["count"] == b["count"]]
    if len(pairs) < 2:
        return None
    differences = [b["kl_nats"] - a["kl_nats"] for a, b in pairs]
    return ratio_of_sums(differences, [a["count"] for a, _ in pairs], seed, purpose, draws)


def _condition(results: Mapping[str, Any], key: str) -> Any:
    return results["conditions"][key]


def _same_items(one: Mapping[str, Any], other: Mapping[str, Any], told: Sequence[Any]) -> bool:
    """Whether the two drew the same task items: they come from the held-out texts by the seed."""
    ids = [[row["item"] for row in rows["forgetting"]] for rows in (one, other)]
    drawn = [(results["seed"], results["task"]) for results in told]
    return ids[0] == ids[1] and drawn[0] == drawn[1] and len(one["task_speech"]) == len(other["task_speech"])
