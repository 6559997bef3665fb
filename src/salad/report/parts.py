"""What pages are made of: the templates with their filters, the script and what allows it alone, headline tiles."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from salad.report import table
from salad.report.cluster_figures import NUM_DEAFEST, NUM_SAMPLES, m_of
from salad.report.palette import palette_css
from salad.report.results import Arm, Estimate, Results

MAX_ROWS = 200  # of a table in a page; more are counted, and lie in a CSV or beside the page
MAX_EXAMPLES = 64  # clusters whose texts are shown


@dataclass(frozen=True)
class Tile:
    """A number that a reader looks for first, and what it is about."""

    title: str
    value: str
    unit: str
    about: str
    tone: str = "plain"


def environment() -> Environment:
    """The templates of this room, with the filters that write numbers; text is escaped wherever it stands."""
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
        count_of=lambda value: f"{value:,}",
        m_of=m_of,
        nats_or_nothing=lambda value: table.NOTHING if value is None else table.nats(value),
        percent_or_nothing=lambda value: table.NOTHING if value is None else table.percent(value),
    )
    script = script_text()
    jinja.globals.update(
        arm_titles=table.ARM_TITLES,
        metric_titles=table.METRIC_TITLES,
        num_deafest=NUM_DEAFEST,
        num_samples=NUM_SAMPLES,
        max_rows=MAX_ROWS,
        max_examples=MAX_EXAMPLES,
        palette=palette_css(),
        script=script,
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}",
    )
    return jinja


@cache
def script_text() -> str:
    """The page's one script; the page's policy lets this text run and no other."""
    return files("salad.report").joinpath("page.js").read_text(encoding="utf-8")


def stem(name: str) -> str:
    """What saved files begin with."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40] or "salad"


def gap_tile(value: float, estimate: Estimate | None, topline: Estimate, speech: Estimate, who: str) -> Tile:
    """The headline: the gap in points."""
    interval = f"[{table.points(estimate.low)}, {table.points(estimate.high)}] " if estimate else ""
    about = f"{who}: reads {table.percent(topline.value)} as text LLM, hears {table.percent(speech.value)}"
    return Tile("gap", table.points(value), f"{interval}points", f"{about}; n = {speech.n:,}")


def run_tiles(results: Results) -> list[Tile]:
    """The headline of a run: of the last stage it came to."""
    arm = results.last
    if arm is None:
        return []
    title, found = table.ARM_TITLES[arm.name], []
    if results.topline and arm.task:
        own = arm.split.gap if arm.split else None
        found.append(
            gap_tile(results.topline.value - arm.task.speech.value, own, results.topline, arm.task.speech, title)
        )
    found += [_nats_tile("misalignment M", arm.misalignment_nats, f"{title}, {results.conditions.broad.corpus}")]
    found += [_nats_tile("forgetting F", arm.forgetting_nats, title)] if arm.forgetting_nats else []
    return [*found, _hearing_tile(arm), *_speech_tile(results)]


def _nats_tile(title: str, estimate: Estimate, about: str) -> Tile:
    unit = f"[{table.nats(estimate.low)}, {table.nats(estimate.high)}] nats"
    return Tile(title, table.nats(estimate.value), unit, about)


def _hearing_tile(arm: Arm) -> Tile:
    about = f"swapped audio costs {table.nats_estimate(arm.hearing_nats)} nats"
    tone = {"yes": "good", "NO": "bad"}.get(told := table.hears(arm), "unsure")
    return Tile("hears", told.lower(), "", about, "plain" if arm.name == "untrained" and not arm.hears else tone)


def _speech_tile(results: Results) -> list[Tile]:
    own = results.speech
    if own.human_s is None:
        return []
    synthetic = f"and {table.duration(own.synthetic_s)} synthetic" if own.synthetic_s else "natural"
    arm = results.last
    before = ("stage_one", "stage_two") if arm and arm.name == "stage_three" else ("stage_one",)
    went = [part for part in results.bill if arm and part.stage in (*before, arm.name)]
    warm = sum(part.warm_start.hours_at_most for part in went if part.warm_start and not part.taken_over_from)
    often = f"; the adapter's warm starts went over it for at most {table.duration(3600 * warm)}" if warm else ""
    return [Tile("speech it could learn from", table.duration(own.human_s), "", synthetic + often)]


def _whole(cell: str) -> str:
    """A cell that breaks before its interval but not inside a number's unit or the interval."""
    value, bracket, interval = cell.partition(" [")
    if not bracket:
        return cell
    return value.replace(" ", "\u00a0") + bracket + interval.replace(" ", "\u00a0")
