"""Giving a model to others: push."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from salad.cli.options import JsonOption, app, print_json


@app.command()
def push(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder or run.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Where on the Hugging Face hub: org/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, if it is made.")] = False,
    dry_run: Annotated[
        Path | None, typer.Option("--dry-run", metavar="DIR", help="Write what would be pushed to DIR, push nothing.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Store the weights in float16 or bfloat16 [as they are].")
    ] = None,
    pre_decay: Annotated[
        bool, typer.Option("--pre-decay", help="With the weights from before Stage I's decay, where Stage II starts.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure what --dtype rounds, on what the run held out (minutes).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Push a trained model with its full card to the Hugging Face hub.

    The card has the data bill, the numbers with their intervals, limits and intended use; of weights that --dtype
    rounds it has no numbers, for others were measured, unless --measure takes them again. Look at it first:
    salad push runs/demo me/model --dry-run pushed
    """
    from salad.pushing import export
    from salad.pushing import push as pushed

    if dry_run is not None:
        files = export(model, dry_run, repo, dtype, pre_decay, measure)
        if as_json:
            return print_json({"repo": repo, "pushed": False, "folder": str(dry_run), "files": files})
        return print(f"{dry_run}: {', '.join(files)}\nNothing was pushed to {repo}; read {dry_run / 'README.md'}.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        files = export(model, folder, repo, dtype, pre_decay, measure)
        address = pushed(folder, repo, private)
    if as_json:
        return print_json({"repo": repo, "pushed": True, "address": address, "files": files})
    print(f"{address}: {', '.join(files)}")
