"""Selections for many settings, and how much they have in common: does the score matter, and how sharp should it be?

OUT/gamma-5_score-jsd/…    each setting's selection (salad.select.export)
OUT/sweep.json             what each drew, and the Jaccard index of any two: texts in both over texts in either
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

from salad.errors import RecipeError
from salad.files import write_json
from salad.select.budget import Budget
from salad.select.selecting import Opened, Setting, select_one


def parse_sweep(written: Sequence[str], base: Setting) -> dict[str, Setting]:
    """Folder name -> setting, of every combination in ("gamma=0,5", "score=misalignment,jsd").

    Raises:
        RecipeError: a key is not a setting's, stands twice, or a value is not a number where one is needed.
    """
    axes: dict[str, list[tuple[str, Any]]] = {}
    for axis in written:
        key, equals, values = axis.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or key not in Setting.__dataclass_fields__ or key in axes:
            known = ", ".join(name.replace("_", "-") for name in Setting.__dataclass_fields__)
            raise RecipeError(f"--sweep {axis}: write KEY=VALUE,VALUE, each KEY once, of {known}.")
        axes[key] = [(text.strip(), _value(axis, key, text.strip())) for text in values.split(",")]
    settings: dict[str, Setting] = {}
    for chosen in product(*axes.values()):
        name = "_".join(f"{key}-{text}" for key, (text, _) in zip(axes, chosen, strict=True))
        settings[name] = replace(base, **{key: value for key, (_, value) in zip(axes, chosen, strict=True)})
    return settings


def select_sweep(opened: Opened, settings: Mapping[str, Setting], budget: Budget, out: Path) -> dict[str, Any]:
    """Draw by each setting into a folder of its name; returns what OUT/sweep.json holds.

    All draw from the same streams, so what two have in common is what their targets have in common.

    Raises:
        SaladError: see `select_one`; nothing is written if a target can't be made.
    """
    for setting in settings.values():
        setting.target(opened.clusters.shares, opened.probes)
    chosen: dict[str, set[int]] = {}
    rows: list[dict[str, Any]] = []
    for name, setting in settings.items():
        selection, summary = select_one(opened, setting, budget, out / name)
        chosen[name] = set(selection.rows.tolist())
        shown = ("num_texts", "estimated_h", "num_characters", "effective_clusters", "largest_boost")
        rows.append({"name": name, **asdict(setting), **{key: summary[key] for key in shown}})
    jaccard = [[len(a & b) / len(a | b) for b in chosen.values()] for a in chosen.values()]
    sweep = {"budget": summary["budget"]["asked"], "settings": rows, "jaccard": jaccard}
    write_json(out / "sweep.json", sweep)
    return sweep


def _value(axis: str, key: str, text: str) -> Any:
    if key == "score":
        return text
    if key == "max_boost" and text == "none":
        return None
    try:
        return int(text) if key == "seed" else float(text)
    except ValueError as error:
        raise RecipeError(f"--sweep {axis}: {text!r} is no number.") from error
