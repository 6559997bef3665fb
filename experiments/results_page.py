"""docs/results.md's table and pictures from every results.json there is.

python -m experiments.results_page
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from experiments import CLAIMS
from salad.files import read_json, write_atomic

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def page(text: str, results: dict[str, dict[str, Any]]) -> str:
    """A page whose part between the marks is made of these results, by the name of their experiment."""
    rows = ["| claim | verdict | effect [95 %] | seeds | arms, CPU hours |", "|---|---|---|---|---|"]
    parts = []
    for name, found in results.items():
        effect = f"{found['effect']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}] {found['unit']}"
        seeds, cost = ", ".join(map(str, found["seeds"])), found["cost"]
        rows.append(
            f"| [{name}](#{name}) | **{found['verdict']}** | {found['effect_is']}: {effect} | {seeds} | "
            f"{cost['arms']}, {cost['cpu_h']:.1f} |"
        )
        parts += [
            "",
            f"### {name}",
            "",
            found["claim"],
            "",
            f"**{found['verdict'].capitalize()}.** {found['sentence']}",
        ]
        if found.get("parts"):
            parts += ["", *(f"- {part}: {_effect(found, part)}{word}" for part, word in found["parts"].items())]
        parts += ["", f"![{name}: {found['effect_is']}](results/{name}.svg)", "", *_arms(found)]
        parts += ["", f"`{found['command']}`"]
    left = [name for name in CLAIMS if name not in results]
    if left:
        parts += ["", f"Not run yet: {', '.join(left)}."]
    made = "\n".join([*rows, *parts])
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{made}\n{END}", text, flags=re.DOTALL)


def _effect(found: dict[str, Any], part: str) -> str:
    """The effect of a part of a claim, where it has one."""
    own = found["more"].get("effects", {}).get(part)
    return f"{own['value']:+.3f} [{own['low']:+.3f}, {own['high']:+.3f}], " if own else ""


def _arms(found: dict[str, Any]) -> list[str]:
    """The arms as a table, each the mean over its seeds."""
    columns = {
        "misalignment_nats": "M",
        "misalignment_human_nats": "M, people",
        "misalignment_unseen_voice_nats": "M, unseen voice",
        "hearing_nats": "hearing",
        "forgetting_nats": "F",
        "task_text": "task, text",
        "task_speech": "task, speech",
    }
    table = [f"| arm | {' | '.join(columns.values())} |", "|---" * (len(columns) + 1) + "|"]
    labels = list(dict.fromkeys(arm["label"] for arm in found["arms"]))
    for label in labels:
        same = [arm for arm in found["arms"] if arm["label"] == label]
        means = [sum(arm[column] for arm in same) / len(same) for column in columns]
        table.append(f"| {label} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return table


def results() -> dict[str, dict[str, Any]]:
    """What there is, by experiment."""
    return {
        name: read_json(HERE / name / "results.json") for name in CLAIMS if (HERE / name / "results.json").is_file()
    }


def main() -> None:
    """Write the page, and the pictures beside it."""
    found = results()
    (DOCS / "results").mkdir(exist_ok=True)
    for name in found:
        shutil.copyfile(HERE / name / "plot.svg", DOCS / "results" / f"{name}.svg")
    path = DOCS / "results.md"
    write_atomic(path, page(path.read_text(), found))
    print(f"{path}: {len(found)} of {len(CLAIMS)} experiments")


if __name__ == "__main__":
    main()
