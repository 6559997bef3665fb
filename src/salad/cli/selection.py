"""Stage II, third: which texts are worth speaking."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salad.cli.options import JsonOption, OutOption, app, print_result


@app.command()
def select(
    texts: Annotated[Path, typer.Argument(metavar="TEXTS", help="The clustered corpus, JSONL.")],
    clusters: Annotated[Path, typer.Option("--clusters", metavar="DIR", help="A folder made by 'salad cluster'.")],
    probes: Annotated[Path, typer.Option("--probe", metavar="DIR", help="A folder made by 'salad probe'.")],
    out: OutOption,
    budget: Annotated[str, typer.Option("--budget", help="Hours of speech, e.g. 0.5h.")],
    gamma: Annotated[float, typer.Option("--gamma", min=0, help="0: uniform; the paper: 5.")] = 5.0,
    pace: Annotated[
        float, typer.Option("--seconds-per-character", min=0.001, help="How fast the voice speaks.")
    ] = 0.065,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw texts by misalignment^gamma until a budget of speech is reached: OUT/selected.jsonl."""
    from salad.texts.text import read_texts, write_texts
    from salad.verbs import hours, select_folder

    chosen = select_folder(texts, clusters, probes, gamma, hours(budget) * 3600, pace, seed)
    corpus = read_texts(texts)
    write_texts(out / "selected.jsonl", [corpus[row] for row in chosen.rows])
    summary = {
        "num_texts": len(chosen.rows),
        "estimated_h": chosen.spent / 3600,
        "target": chosen.target,
        "per_cluster": chosen.per_cluster,
        "exhausted_clusters": chosen.exhausted,
    }
    print_result(summary, as_json)
