"""Stage II, second: where a model mishears."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salad.cli.options import JsonOption, OutOption, ThreadsOption, app, print_result, quiet


@app.command()
def probe(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder or run.")],
    clusters: Annotated[Path, typer.Option("--clusters", metavar="DIR", help="A folder made by 'salad cluster'.")],
    speech: Annotated[
        Path, typer.Option("--speech", metavar="DIR", help="Spoken probe texts: synthesized and aligned.")
    ],
    out: OutOption,
    max_cer: Annotated[
        float, typer.Option("--max-cer", min=0, help="Leave out clusters spoken worse than this.")
    ] = 0.3,
    threads: ThreadsOption = 2,
    as_json: JsonOption = False,
) -> None:
    """Measure in which clusters a model mishears: OUT/probe.json, M(c) with its standard error."""
    from salad.files import write_json
    from salad.verbs import probe_folder

    quiet()
    rows = probe_folder(model, clusters, speech, max_cer, threads)
    write_json(out / "probe.json", rows)
    print_result(rows, as_json)
