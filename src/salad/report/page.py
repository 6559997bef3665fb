"""A run's results as one HTML page: no requests, light and dark, for the screen, a phone and paper.

    results.json → results.py (types) → table.py (numbers), verdicts.py (words), figures.py (SVG) → page.html (jinja2)

Text from the results is escaped wherever it stands; the SVG alone is put in as it is, and svg.py writes it with an XML
library. One script of our own runs (page.js: colours, tips), by its hash; everything can be read without it.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from salad.files import write_atomic
from salad.report import table
from salad.report.cluster_figures import deafest_first, sounds_of
from salad.report.figures import drawings
from salad.report.measured import Measured, read_measured
from salad.report.measurement import measurement_view
from salad.report.parts import MAX_ROWS, environment, run_tiles, stem
from salad.report.results import Results, StageBill, read_results
from salad.report.verdicts import verdicts, warning_title, warnings

TEMPLATE = "page.html"
# What a reader asks first of a recipe; a key it does not have is left out.
ASKED_FIRST = {
    "LLM": "model.llm",
    "speech encoder": "model.encoder",
    "adapter": "model.adapter.kind",
    "human speech": "data.human",
    "broad text": "data.text",
    "voice": "voice",
    "γ": "stage_two.gamma",
}
BILL_HEADERS = (
    "stage",
    "source",
    "kind",
    "items",
    "sequences",
    "epochs",
    "heard",
    "positions heard",
    "text tokens read",
    "licence",
)
SECTIONS = {
    "gap": "The gap",
    "numbers": "Numbers",
    "conditions": "Where M may be compared",
    "training": "Training",
    "selection": "Selection",
    "data": "Data",
    "run": "The run",
}


def write_report(results: Path, out: Path, measured: Sequence[Path] = ()) -> None:
    """Draw the results.json `results` as the self-contained page `out`, with what `salad measure` wrote into folders.

    Raises:
        MissingFileError: `results` does not exist, or a measured.json.
        DataError: it is not JSON, has another schema, or a key is missing or holds something else.
    """
    found = [read_measured(folder) for folder in measured]
    # A lone surrogate can stand in JSON but not in a file
    write_atomic(out, page(read_results(results), results.parent, found).encode("utf-8", errors="replace"))


def page(results: Results, folder: Path, measured: Sequence[Measured] = ()) -> str:
    """The page's HTML; `folder` is what the speech's paths start from."""
    clusters = deafest_first(results.clusters)
    figures = drawings(results)
    told = warnings(results)
    views = [measurement_view(one, f"m{place}-") for place, one in enumerate(measured, start=1)]
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            results=results,
            stem=stem(results.name),
            sections=_sections(figures, [view.heading for view in views]),
            headline=run_tiles(results),
            measurements=views,
            sounds=sounds_of(clusters, folder),
            what_ran=_what_ran(results),
            figures=figures,
            arms=table.arms_table(results),
            arms_caption=_arms_caption(results),
            verdicts=verdicts(results),
            warnings=told,
            warning_title=warning_title(results),
            clusters=clusters,
            num_selected=sum(cluster.selected for cluster in results.clusters) or 1,
            num_selected_uniform=sum(cluster.selected_uniform for cluster in results.clusters) or 1,
            rejected=sorted(results.rejected, key=lambda row: -row.count)[:MAX_ROWS],
            num_rejected=sum(row.count for row in results.rejected),
            bill=bill_table(results),
            recipe=yaml.safe_dump(results.recipe, sort_keys=False, allow_unicode=True),
            command=results.command if isinstance(results.command, str) else shlex.join(results.command),
        )
    )


def bill_table(results: Results) -> list[list[str]]:
    """What each stage drew of each source, the headers first; what its warm start can have heard stands before it."""
    rows = [list(BILL_HEADERS)]
    for part in results.bill:
        rows += _warm_start_row(results, part)
        for source in part.sources:
            licences = dict.fromkeys(str(origin.get("licence") or "not stated") for origin in source.origins)
            rows.append(
                [
                    table.titled(part.stage, part.taken_over_from),
                    source.name,
                    source.kind,
                    f"{source.num_items:,}",
                    f"{source.num_sequences:,}",
                    table.NOTHING if source.epochs is None else f"{source.epochs:.2f}",
                    table.duration(3600 * source.hours_heard) if source.num_speech_positions else table.NOTHING,
                    f"{source.num_speech_positions:,}",
                    f"{source.num_text_positions:,}",
                    ", ".join(licences) or "not stated",
                ]
            )
    return rows


def _warm_start_row(results: Results, part: StageBill) -> list[list[str]]:
    """The row of a stage's warm start, which is drawn over all the speech of the stage; none where there was none."""
    warm, there_s = part.warm_start, None if part.taken_over_from else results.speech_s(part.stage)
    if warm is None:
        return []
    heard_s = 3600 * warm.hours_at_most
    return [
        [
            table.titled(part.stage, part.taken_over_from),
            "all speech of the stage",
            f"warm start ({warm.kind.replace('_', '-')})",
            table.NOTHING,
            table.NOTHING,
            f"≤ {heard_s / there_s:.1f}" if there_s else table.NOTHING,
            f"≤ {table.duration(heard_s)}",
            f"≤ {heard_s * part.position_hz:,.0f}" if part.position_hz else table.NOTHING,
            table.NOTHING,
            "as that speech",
        ]
    ]


def _sections(figures: Any, headings: Sequence[str]) -> list[tuple[str, str]]:
    found = [("verdicts", "In plain words"), ("gap", SECTIONS["gap"])]
    found += [(f"measured-{place}", heading) for place, heading in enumerate(headings, start=1)]
    trained = "training" in figures or "warm_start" in figures
    return [*found, *((id, t) for id, t in SECTIONS.items() if id != "gap" and (id != "training" or trained))]


def _arms_caption(results: Results) -> str:
    own, task = results.conditions, results.task
    return (
        f"The arms of the run. M, swapped and hearing on held-out broad text ({own.broad.corpus}, {own.broad.voice}), "
        f"M human on {own.human.corpus}; sequence policy {own.policy}. Task: {task.name}, version {task.version}."
    )


def _what_ran(results: Results) -> dict[str, str]:
    found = {}
    for title, path in ASKED_FIRST.items():
        value: Any = results.recipe
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            several = value if isinstance(value, list) else [value]
            names = [str(own.get("name")) if isinstance(own, dict) else str(own) for own in several]
            found[title] = " + ".join(names)
    if results.trained_on:
        found["trained on"] = " and ".join(dict.fromkeys(map(str, results.trained_on.values())))
    return found
