"""A run's results as one HTML page: no scripts, no requests, light and dark, for the screen, a phone and paper.

    results.json → results.py (types) → table.py (numbers), verdicts.py (words), figures.py (SVG) → page.html (jinja2)

Text from the results is escaped wherever it stands; the SVG alone is put in as it is, and svg.py writes it with an XML
library.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from salad.files import write_atomic
from salad.report import table
from salad.report.cluster_figures import NUM_DEAFEST, deafest_first, m_of, sounds_of
from salad.report.figures import drawings
from salad.report.results import Results, read_results
from salad.report.verdicts import verdicts, warnings

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


def write_report(results: Path, out: Path) -> None:
    """Draw the results.json `results` as the self-contained page `out`.

    Raises:
        MissingFileError: `results` does not exist.
        DataError: it is not JSON, has another schema, or a key is missing or holds something else.
    """
    # A lone surrogate can stand in JSON but not in a file
    write_atomic(out, page(read_results(results), results.parent).encode("utf-8", errors="replace"))


def page(results: Results, folder: Path) -> str:
    """The page's HTML; `folder` is what the speech's paths start from."""
    clusters = deafest_first(results.clusters)
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            results=results,
            sounds=sounds_of(clusters, folder),
            what_ran=_what_ran(results),
            figures=drawings(results),
            arms=table.arms_table(results),
            verdicts=verdicts(results),
            warnings=warnings(results),
            clusters=clusters,
            num_selected=sum(cluster.selected for cluster in results.clusters) or 1,
            num_selected_uniform=sum(cluster.selected_uniform for cluster in results.clusters) or 1,
            recipe=yaml.safe_dump(results.recipe, sort_keys=False, allow_unicode=True),
            command=results.command if isinstance(results.command, str) else shlex.join(results.command),
        )
    )


def _what_ran(results: Results) -> dict[str, str]:
    found = {}
    for title, path in ASKED_FIRST.items():
        value: Any = results.recipe
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            found[title] = str(value)
    if results.trained_on:
        found["trained on"] = " and ".join(dict.fromkeys(map(str, results.trained_on.values())))
    return found


def environment() -> Environment:
    """The templates of this room, with the filters that write numbers."""
    jinja = Environment(
        loader=PackageLoader("salad", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters.update(
        nats=table.nats,
        percent=table.percent,
        duration=table.duration,
        difference=table.difference,
        whole=_whole,
        m_of=m_of,
        nats_or_nothing=lambda value: table.NOTHING if value is None else table.nats(value),
        percent_or_nothing=lambda value: table.NOTHING if value is None else table.percent(value),
    )
    jinja.globals.update(arm_titles=table.ARM_TITLES, metric_titles=table.METRIC_TITLES, num_deafest=NUM_DEAFEST)
    return jinja


def _whole(cell: str) -> str:
    """A cell that breaks before its interval but not inside a number's unit or the interval."""
    value, bracket, interval = cell.partition(" [")
    if not bracket:
        return cell
    return value.replace(" ", "\u00a0") + bracket + interval.replace(" ", "\u00a0")
