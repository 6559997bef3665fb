"""Stage II, seen: the misalignment map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salad.cli.options import app
from salad.errors import MissingFileError, RecipeError


@app.command("map")
def draw_map(
    before: Annotated[Path, typer.Argument(metavar="PROBE", help="A folder made by 'salad probe'.")],
    after: Annotated[
        list[str] | None,
        typer.Option(
            "--after", metavar="NAME=PROBE", help="A probe of the same clusters with a later model. Repeatable."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="OUT", help="The page to write.")] = Path("map.html"),
) -> None:
    """Draw the clusters of texts by their meaning, coloured by M before and after: one self-contained HTML page.

    Beside the map: M(c) with its standard error and the text's own difficulty, and the deafest clusters with a text of
    each that can be listened to.

    salad map probe --after "Stage II=probe-after" --out map.html
    """
    from salad.files import read_jsonl
    from salad.probed import probed_clusters
    from salad.report.map_page import write_map
    from salad.report.results import ProbedCluster
    from salad.select.probe_files import read_probe_info

    later: dict[str, Path] = {}
    for given in after or []:
        name, equals, folder = given.partition("=")
        if not equals or not name or not folder:
            raise RecipeError(f"--after {given}: write it as NAME=PROBE, for instance --after later=probe-2.")
        later[name] = Path(folder)
    if not (before / "info.json").is_file():
        raise MissingFileError(f"{before} is no probe's folder (info.json is not there); make one with 'salad probe'.")
    info = read_probe_info(before)
    for name, probe in later.items():
        if read_probe_info(probe)["clusters"]["sha256"] != info["clusters"]["sha256"]:
            raise RecipeError(
                f"--after {name}={probe} is a probe of other clusters than {before}; probe the same ones."
            )
    texts_file = before / "probes.jsonl"
    texts = {row["id"]: row["text"] for row in read_jsonl(texts_file)} if texts_file.is_file() else {}
    rows = probed_clusters(before, later, texts, before)
    title = f"{info['model']['path']}, policy {info['sequence']['policy']}"
    write_map([ProbedCluster.model_validate(row) for row in rows], title, before, out, info["warnings"])
    print(out)
