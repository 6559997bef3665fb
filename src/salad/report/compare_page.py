"""Several runs or measurements side by side, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from salad.files import write_atomic
from salad.report.compare_figures import curves_of, fall_of, nats_rows, paired, task_bars
from salad.report.compare_given import unlike, unlike_table, what_was_given
from salad.report.compare_tables import (
    METRICS,
    Difference,
    Side,
    difference_caption,
    difference_table,
    side_caption,
    side_table,
)
from salad.report.parts import MAX_ROWS, environment
from salad.report.svg import drawing_style

TEMPLATE = "compare.html"


def write_compare(runs: Sequence[Side], differences: Sequence[Difference], notes: Sequence[str], out: Path) -> None:
    """Draw the runs as the self-contained page `out`."""
    write_atomic(out, compare_page(runs, differences, notes).encode("utf-8", errors="replace"))


def compare_page(runs: Sequence[Side], differences: Sequence[Difference], notes: Sequence[str]) -> str:
    """The page's HTML; `notes`: what was not compared, and why."""
    with drawing_style():
        numbers = [task_bars(runs), *(nats_rows(runs, title, key) for title, key in METRICS.items())]
        falls = [fall_of(run) for run in runs]
        curves = curves_of(runs)
        pairs = [paired(differences, nats=False), paired(differences, nats=True)]
    differing = unlike_table(runs)
    sections = [("numbers", "Numbers"), ("gap", "The gap of each"), ("training", "Training")]
    shown = {"numbers": True, "gap": any(falls), "training": bool(curves)}
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            runs=runs,
            notes=[*notes, *unlike(runs)],
            sections=[
                *(s for s in sections if shown[s[0]]),
                ("differences", "Differences"),
                *((("unlike", "How they differ"),) if differing is not None else ()),
            ],
            table=side_table(runs),
            table_caption=side_caption(runs),
            number_figures=[figure for figure in numbers if figure],
            falls=[figure for figure in falls if figure],
            curves=curves,
            difference_figures=[figure for figure in pairs if figure],
            differences=difference_table(differences),
            difference_caption=difference_caption(differences),
            given=what_was_given(runs),
            unlike=differing[:MAX_ROWS] if differing else differing,
            title=" and ".join(run.name for run in runs) if len(runs) == 2 else f"{len(runs)} runs",
        )
    )
