"""Stage II, first: what a text corpus is about."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from salad.cli.options import JsonOption, OutOption, ThreadsOption, app, print_json

NUM_NAMED = 8
PREPARED = "texts"  # where in OUT texts are brought that are not JSONL


@app.command()
def cluster(
    texts: Annotated[
        str,
        typer.Argument(
            metavar="TEXTS",
            help="JSONL with id and text, or a folder made by 'salad prepare text'; else what that verb reads with its "
            "defaults: wordnet, hub:OWNER/NAME, Parquet, plain text.",
        ),
    ],
    out: OutOption,
    k: Annotated[int, typer.Option("--k", min=1, help="Number of clusters.")] = 128,
    embedder: Annotated[
        str,
        typer.Option(
            "--embedder",
            help="A sentence-transformers model: minilm-l6 (offline), BAAI/bge-large-en-v1.5 (the paper's), a folder.",
        ),
    ] = "minilm-l6",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the first centres and the map.")] = 0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of k-means at most.")] = 30,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance", min=0, max=0.99, help="How far sizes may be from N/K, as a share; 0: exact balance."
        ),
    ] = 0.0,
    name_with: Annotated[
        str | None, typer.Option("--name-with", metavar="LLM", help="A causal LLM that names clusters [their terms].")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="What embeds.")] = "auto",
    dtype: Annotated[
        Literal["float16", "float32"], typer.Option("--dtype", help="Of the embeddings on the disk.")
    ] = "float16",
    threads: ThreadsOption = 2,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Workers that embed; each has --threads.")] = 1,
    on: Annotated[
        Literal["processes", "ray"], typer.Option("--on", help="Workers of this machine, or of a Ray cluster.")
    ] = "processes",
    as_json: JsonOption = False,
) -> None:
    """Partition a text corpus by meaning into clusters of equal size, with names and typical texts.

    Texts are embedded into OUT/embeddings and clustered by balanced k-means. OUT/labels.parquet has the cluster of
    every text, OUT/clusters.jsonl what each cluster is about, OUT/info.json how good it is. The same command goes on
    after a stop and does nothing once all is done; with another --k, --seed or --tolerance it keeps the embeddings.
    """
    from salad.display import bar
    from salad.select.embed_corpus import EmbedSettings
    from salad.select.partition import PartitionSettings, partition
    from salad.workers import answer_all

    began = time.monotonic()
    fan_out = answer_all
    if on == "ray":
        from salad.ray_workers import fan_out as fan_out_on

        fan_out = fan_out_on("ray", out, 1.0 if device == "cuda" else 0.0)
    path, num_rejected = _texts(texts, out)
    settings = PartitionSettings(k, seed, steps, tolerance, name_with, EmbedSettings(embedder, device, threads, dtype))
    before = _made_of(out)
    info = partition(path, out, settings, jobs, bar, fan_out)
    if before is not None and before != info["made_of"]:
        _say(f"{out}: the clusters that were there (k {before['num_clusters']}, seed {before['seed']}) were replaced.")
    result = {**info, "num_rejected": num_rejected, "out": str(out), "seconds": round(time.monotonic() - began, 1)}
    if as_json:
        return print_json(result)
    for line in _told(result, out):
        print(line)


def _texts(source: str, out: Path) -> tuple[Path, int]:
    """The JSONL file of a source of texts, brought to OUT/texts where it is none; and how many texts were rejected."""
    from salad.display import bar
    from salad.texts.rows import TextSettings
    from salad.texts.sources import prepare_text

    path = Path(source)
    if path.is_file() and path.suffix in (".jsonl", ".ndjson"):
        return path, 0
    if (path / "texts.jsonl").is_file():
        return path / "texts.jsonl", 0
    with bar("reading texts") as progress:
        info = prepare_text(TextSettings(source), out / PREPARED, progress)
    if info["num_rejected"]:
        _say(f"{info['num_rejected']} texts can't be used; see {out / PREPARED / 'rejected.jsonl'}.")
    return out / PREPARED / "texts.jsonl", int(info["num_rejected"])


def _made_of(out: Path) -> dict[str, Any] | None:
    from salad.select.clusters import read_info

    made_of: dict[str, Any] | None = read_info(out)["made_of"] if (out / "info.json").is_file() else None
    return made_of


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def _told(result: dict[str, Any], out: Path) -> list[str]:
    """The result in sentences."""
    low, high = result["sizes"]
    sizes = f"{low} texts" if low == high else f"{low} to {high} texts"
    lines = [f"{result['num_texts']} texts in {result['num_clusters']} clusters of {sizes}, {result['steps']} steps."]
    plain = result["plain_kmeans"]
    against = ""
    if plain["inertia_ratio"] is not None:
        sizes = f"{plain['sizes'][0]} to {plain['sizes'][1]}"
        against = (
            f", {plain['inertia_ratio']:.3f} × plain k-means', whose clusters have {sizes} of {plain['num_texts']}"
        )
    lines.append(
        f"Squared distance to the centre: {result['inertia'] / result['num_texts']:.4f} on average{against}; no "
        f"assignment of such sizes is cheaper by more than {result['gap']:.3%}."
    )
    if result["tolerance"] == 0:
        lines.append(
            "The balance is exact, so every cluster has the same share of the corpus: P_web is constant, and gamma "
            "alone decides what is selected."
        )
    agreed = result["domains"]
    if agreed is not None:
        lines.append(
            f"Against the texts' {agreed['num_domains']} domains: purity {agreed['purity']:.3f} (all in one cluster: "
            f"{agreed['purity_of_one']:.3f}), NMI {agreed['nmi']:.3f}."
        )
    lines += _not_read(result)
    from salad.select.clusters import Clusters

    rows = Clusters.read(out).rows
    shown = rows[:: max(1, len(rows) // NUM_NAMED)][:NUM_NAMED]
    lines += ["Some of them:", *(f"  {row['cluster']:>4}  {row['name']}" for row in shown)]
    files = ", ".join(f"{out / name}" for name in ("labels.parquet", "clusters.jsonl", "info.json"))
    lines.append(f"Files: {files}; {result['seconds']:.0f} s.")
    return lines


def _not_read(result: dict[str, Any]) -> list[str]:
    """What the embedder did not see, and what stands twice."""
    lines = []
    if result["num_truncated"]:
        num, frac = result["num_truncated"], result["num_truncated"] / result["num_texts"]
        lines.append(f"Of {num} texts ({frac:.1%}) the embedder read the first {result['max_tokens']} tokens alone.")
    if result["num_unread"]:
        lines.append(
            f"Of {result['num_unread']} texts the embedder knows no part (e.g. {', '.join(result['unread'][:3])}): "
            "where they are is chance."
        )
    if result["num_duplicates"]:
        lines.append(f"{result['num_duplicates']} texts stand in the corpus more than once; each has its own label.")
    return lines
