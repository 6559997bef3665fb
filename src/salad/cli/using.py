"""What salad fetches: assets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from salad.cli.options import JsonOption, app, print_json


@app.command()
def assets(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Assets to fetch.")] = None,
    fetch_all: Annotated[bool, typer.Option("--all", help="Fetch all of them.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Hash every file again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the model that comes with salad and the offline models and corpora, or fetch and check some."""
    from dataclasses import asdict

    from salad.assets import cache_dir, fetch, status

    if names or fetch_all:
        for name, folder in fetch(names or [], lambda name, doing: print(f"{name}: {doing}", file=sys.stderr)).items():
            print(f"{name}: {folder}")
        return
    rows = [asdict(row) for row in status(check)]
    if as_json:
        return print_json([{key: _plain(value) for key, value in row.items()} for row in rows])
    print(f"cache: {cache_dir()} (set SALAD_CACHE to move it)")
    for row in rows:
        print(f"{row['name']:<24} {row['kind']:<10} {row['size_mb']:>5.0f} MB  {_state(row):<22} {row['licence']}")


def _state(row: dict[str, Any]) -> str:
    if row["packaged"]:
        damaged = "in the package, DAMAGED"
        return ("in the package" if row["verified"] else damaged) if row["present"] else "not in this build"
    return "verified" if row["verified"] else "present, not verified" if row["present"] else "not fetched"


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
