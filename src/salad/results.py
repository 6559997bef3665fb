"""results.json: everything a run found, in one documented object (docs/results-schema.md)."""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from salad.files import read_json, read_jsonl
from salad.measure.arm import ArmRows, arm_estimates, compare_misalignment
from salad.measure.statistics import mean
from salad.measure.tasks import definition
from salad.natural_speech import corpora
from salad.recipe import Recipe
from salad.student import warm_start_curve
from salad.texts.text import read_texts

SCHEMA = 1
VERSIONS = ("salad-speech", "torch", "transformers", "peft", "lhotse", "faster-whisper", "ctranslate2", "piper-tts")
PAPER_LLM = ("Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-7B")
NUM_EXAMPLES = 3


def assemble(
    recipe: Recipe,
    folder: Path,
    rows: Mapping[str, ArmRows],
    reports: Mapping[str, Mapping[str, Any]],
    wall_s: Mapping[str, float],
) -> dict[str, Any]:
    """The results of a run folder from the per-item rows of its arms and what its steps reported."""
    seed, num = recipe.seed, recipe.measure.num_bootstrap
    text_llm = read_json(folder / "measured" / "text_llm.json")
    return {
        "schema": SCHEMA,
        "name": recipe.name,
        "seed": seed,
        "command": " ".join(["salad", *sys.argv[1:]]),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
        "recipe": recipe.model_dump(mode="json"),
        "deviations": deviations(recipe),
        "conditions": {
            "policy": recipe.sequence.policy,
            "broad": {"corpus": recipe.data.text, "voice": recipe.voice},
            "human": {"corpus": " + ".join(corpora(recipe)), "voice": "human"},
            "warm_start": recipe.stage_one.warm_start.steps > 0,
        },
        "arms": [
            {"name": name, **arm_estimates(own, seed, num), **_curves(folder, name)} for name, own in rows.items()
        ],
        "topline": mean(text_llm["topline"], seed, "task", num).as_json(),
        "cascade": mean(text_llm["cascade"], seed, "task", num).as_json(),
        "task": {"name": definition.NAME, "version": definition.VERSION, "chance": 1 / definition.NUM_CHOICES},
        "comparisons": _comparisons(rows, seed, num),
        "clusters": _clusters(folder, reports),
        "speech": _speech(reports),
        "rejected": [row for report in reports.values() for row in report.get("rejected", [])],
        "wall_s": dict(wall_s),
    }


def deviations(recipe: Recipe) -> list[str]:
    """Where a run of this recipe departs from the paper, as sentences."""
    model, two, sequence = recipe.model, recipe.stage_two, recipe.sequence
    found: list[str] = []
    if model.llm not in PAPER_LLM:
        origin = " (an Instruct model, from 4-bit weights)" if model.llm == "smollm2-135m-instruct" else ""
        found.append(f"The LLM is {model.llm}{origin}; the paper's are Qwen2.5-3B and -7B.")
    if model.train_llm != "full":
        how = f"with LoRA of rank {model.lora.rank}" if model.train_llm == "lora" else "not at all"
        found.append(f"The LLM is trained {how}; the paper trains it fully.")
    if model.encoder != "kyutai/mimi":
        found.append(f"The frozen encoder is {model.encoder}; the paper's is Mimi (causal, 12.5 Hz).")
    if model.adapter.kind != "paper":
        found.append("The adapter is two layers over neighbouring frames; the paper's has 12 Transformer layers.")
    if recipe.stage_one.warm_start.steps:
        found.append("The adapter gets a word-aligned warm start before distillation; the paper has none.")
    if sequence.policy != "interleaved":
        what = f": the first {sequence.prefix_frac:.0%} of the words are spoken, the loss is on the rest"
        tail = what if sequence.policy == "speech_prefix" else ""
        found.append(f"Sequences follow the policy {sequence.policy}{tail}; the paper interleaves spans.")
    if corpora(recipe) == ("debian-prompts",):
        found.append("Natural speech is 25 minutes of telephone prompts by one speaker; the paper has 141,612 hours.")
    if recipe.data.text == "wordnet":
        found.append("Broad text is WordNet's definitions; the paper's is FineWeb-Edu.")
    if two.num_clusters != 128:
        found.append(f"The broad text has {two.num_clusters} clusters; the paper's has 128.")
    if two.budget_frac != 0.01:
        found.append(f"The synthetic speech is {two.budget_frac:.0%} of the natural speech; the paper's is 1%.")
    if recipe.voice not in ("kokoro:af_heart", "af_heart"):
        found.append(f"The voice is {recipe.voice}; the paper's is Kokoro's af_heart.")
    return found


def _curves(folder: Path, arm: str) -> dict[str, Any]:
    own = folder / arm
    curve = read_json(own / "curve.json") if (own / "curve.json").is_file() else []
    kept = ("step", "kl_nats", "positions", "seconds")
    return {
        "curve": [{key: row[key] for key in kept} for row in curve],
        "watch": [row["watch"] for row in curve if "watch" in row],
        "warm_start": warm_start_curve(own / "warm_start") if arm != "untrained" else [],
    }


def _comparisons(rows: Mapping[str, ArmRows], seed: int, num_bootstrap: int) -> list[dict[str, Any]]:
    pairs = (("stage_one", "untrained"), ("stage_two", "stage_one"), ("stage_two", "stage_two_uniform"))
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
    names = read_json(folder / "clusters" / "clusters.json")["names"]
    labels = {row["id"]: row["cluster"] for row in read_jsonl(folder / "clusters" / "labels.jsonl")}
    sizes = Counter(labels.values())
    examples: dict[int, list[str]] = {c: [] for c in range(len(names))}
    for text in read_texts(folder / "texts" / "pool.jsonl"):
        if len(examples[labels[text.id]]) < NUM_EXAMPLES:
            examples[labels[text.id]].append(text.text)
    chosen, control = reports["select"]["stage_two"], reports["select"]["stage_two_uniform"]
    return [
        {
            **row,
            "name": names[row["cluster"]],
            "size": sizes[row["cluster"]],
            "examples": examples[row["cluster"]],
            "target": chosen["target"][row["cluster"]],
            "selected": chosen["per_cluster"][row["cluster"]],
            "selected_uniform": control["per_cluster"][row["cluster"]],
        }
        for row in read_json(folder / "probe.json")
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
