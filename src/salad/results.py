"""results.json: everything a run found, in one documented object (docs/results-schema.md)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salad.card.bill import BILL_NAME, read_bill, versions
from salad.deviations import deviations
from salad.errors import DataError
from salad.files import read_json, read_jsonl
from salad.measure.arm import ArmRows, arm_estimates, compare_misalignment
from salad.measure.law import fit_law
from salad.measure.paired import paired_difference
from salad.measure.statistics import mean
from salad.measure.tasks import definition
from salad.natural_speech import held_out_corpora
from salad.probed import probed_clusters
from salad.recipe import Recipe
from salad.select.probe_files import PROBE_NAME
from salad.student import warm_start_curve
from salad.texts.text import read_texts

SCHEMA = 1
ARMS = ("stage_two", "stage_two_uniform")
NUM_EXAMPLES = 3


def assemble(
    recipe: Recipe,
    folder: Path,
    rows: Mapping[str, ArmRows],
    reports: Mapping[str, Mapping[str, Any]],
    wall_s: Mapping[str, float],
) -> dict[str, Any]:
    """The results of a run folder from the per-item rows of its arms and what its steps reported."""
    seed, num, start = recipe.seed, recipe.measure.num_bootstrap, recipe.stage_one.start
    text_llm = read_json(folder / "measured" / "text_llm.json")
    return {
        "schema": SCHEMA,
        "name": recipe.name,
        "seed": seed,
        "command": " ".join(["salad", *sys.argv[1:]]),
        "versions": versions(),
        "recipe": recipe.model_dump(mode="json"),
        "deviations": deviations(recipe),
        "conditions": {
            "policy": recipe.sequence.policy,
            "broad": {"corpus": recipe.data.text, "voice": " + ".join(recipe.voice_names)},
            "human": {"corpus": " + ".join(held_out_corpora(recipe, folder)), "voice": "human"},
            "warm_start": _warm_start(recipe, folder),
        },
        "arms": [
            {
                "name": name,
                **arm_estimates(own, seed, num),
                "split": _split(text_llm["topline"], own, seed, num),
                **_curves(folder, name),
                **({"taken_over_from": start} if name == "stage_one" and start else {}),
            }
            for name, own in rows.items()
        ],
        "topline": mean(text_llm["topline"], seed, "task", num).as_json(),
        "cascade": mean(text_llm["cascade"], seed, "task", num).as_json(),
        "task": {"name": definition.NAME, "version": definition.VERSION, "chance": 1 / definition.NUM_CHOICES},
        "comparisons": _comparisons(rows, seed, num),
        "clusters": _clusters(folder, reports),
        "speech": _speech(reports),
        "rejected": [row for report in reports.values() for row in report.get("rejected", [])],
        "wall_s": dict(wall_s),
        "bill": _bill(folder, [name for name in rows if name != "untrained"]),
        "trained_on": {name: report["ranks"] for name, report in reports.items() if "ranks" in report},
    }


def _curves(folder: Path, arm: str) -> dict[str, Any]:
    own = folder / arm
    curve = read_json(own / "curve.json") if (own / "curve.json").is_file() else []
    kept = ("step", "kl_nats", "positions", "speech_positions", "seconds")
    return {
        "curve": [{key: row[key] for key in kept if key in row} for row in curve],
        "law": _law(curve, arm),
        "watch": [row["watch"] for row in curve if "watch" in row],
        "warm_start": warm_start_curve(own / "warm_start") if arm != "untrained" else [],
    }


def _split(topline: list[int], own: ArmRows, seed: int, num_bootstrap: int) -> dict[str, Any] | None:
    """The gap on the task and its two parts, paired by item; None where there are no items."""
    if not topline:
        return None
    pairs = {
        "gap": (topline, own.task_speech),
        "forgotten": (topline, own.task_text),
        "heard": (own.task_text, own.task_speech),
    }
    return {
        name: paired_difference(one, other, seed, f"task {name}", num_bootstrap).as_json()
        for name, (one, other) in pairs.items()
    }


def _law(curve: list[dict[str, Any]], arm: str) -> dict[str, Any] | None:
    """The law of the looks in training, or why none can be fitted; None where nothing was watched."""
    tokens, looks = 0, []
    for row in curve:
        tokens += row["positions"]
        if "watch" in row:
            looks.append((float(tokens), float(row["watch"]["misalignment_nats"]["value"])))
    if not looks:
        return None
    try:
        found = fit_law([at for at, _ in looks], [nats for _, nats in looks], arm).as_json()
    except DataError as error:
        return {"unfit": str(error)}
    return {key: found[key] for key in ("E_nats", "B", "beta", "r2", "warnings")}


def _bill(folder: Path, arms: list[str]) -> list[dict[str, Any]]:
    """What each arm's own stage drew, from the bill beside its model; all of what was taken over."""
    found = [part for arm in arms for part in _trained_on(folder / arm / "model")[-1:]]
    taken = [part for part in _trained_on(folder / "stage_one" / "model") if "taken_over_from" in part]
    return [*taken, *(part for part in found if "taken_over_from" not in part)]


def _warm_start(recipe: Recipe, folder: Path) -> bool:
    """Whether the adapter had a warm start before Stage I, here or where that was taken over from."""
    if recipe.stage_one.start is None:
        return recipe.stage_one.warm_start.steps > 0
    return any(part["warm_start"] for part in _trained_on(folder / "stage_one" / "model"))


def _trained_on(model: Path) -> list[dict[str, Any]]:
    return list(read_bill(model)["training"]) if (model / BILL_NAME).is_file() else []


def _comparisons(rows: Mapping[str, ArmRows], seed: int, num_bootstrap: int) -> list[dict[str, Any]]:
    pairs = (
        ("stage_one", "untrained"),
        ("stage_two", "stage_one"),
        ("stage_two", "stage_two_uniform"),
        ("stage_three", "stage_two"),
    )
    return [
        {
            "better": better,
            "than": than,
            "metric": "misalignment_nats",
            "difference": compare_misalignment(rows[better], rows[than], seed, num_bootstrap).as_json(),
        }
        for better, than in pairs
        if better in rows and than in rows
    ]


def _clusters(folder: Path, reports: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    if "select" not in reports or "probe" not in reports:
        return []
    clusters = read_jsonl(folder / "clusters" / "clusters.jsonl")
    texts = {text.id: text.text for text in read_texts(folder / "clusters" / "probes.jsonl")}
    after = {arm: folder / "probe" / arm for arm in ARMS if (folder / "probe" / arm / PROBE_NAME).is_file()}
    chosen, control = (reports["select"][arm]["clusters"] for arm in ARMS)
    return [
        {
            **row,
            **{key: clusters[row["cluster"]][key] for key in ("name", "size", "share", "x", "y")},
            "examples": [example["text"] for example in clusters[row["cluster"]]["examples"][:NUM_EXAMPLES]],
            "target": chosen[row["cluster"]]["target"],
            "selected": chosen[row["cluster"]]["num_texts"],
            "selected_uniform": control[row["cluster"]]["num_texts"],
        }
        for row in probed_clusters(folder / "probe" / "stage_one", after, texts, folder)
    ]


def _speech(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    spoken = dict(reports["speak"]["seconds"])
    later = dict(reports.get("synthesize", {}).get("seconds", {}))
    return {
        "human_s": reports["stage_one"]["human_s"],
        "synthetic_s": later.get("stage_two", 0.0),
        "synthetic_uniform_s": later.get("stage_two_uniform", 0.0),
        "heldout_s": spoken["heldout"],
        "probe_s": spoken["probe"],
    }
