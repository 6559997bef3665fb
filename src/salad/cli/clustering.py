"""Stage II, first: what a text corpus is about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salad.cli.options import JsonOption, OutOption, app, print_result, quiet
from salad.errors import RecipeError


@app.command()
def cluster(
    texts: Annotated[Path, typer.Argument(metavar="TEXTS", help="JSONL with id and text.")],
    out: OutOption,
    k: Annotated[int, typer.Option("--k", min=1, help="Number of clusters.")] = 128,
    embedder: Annotated[str, typer.Option("--embedder", help="A sentence-transformers model.")] = "minilm-l6",
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Partition a text corpus by meaning into clusters of equal size: OUT/labels.jsonl, OUT/clusters.json."""
    from salad.display import bar
    from salad.files import write_json, write_jsonl
    from salad.select.balanced_kmeans import balanced_kmeans
    from salad.select.embed import embed
    from salad.select.naming import cluster_names
    from salad.texts.text import read_texts

    quiet()
    corpus = read_texts(texts)
    if k > len(corpus):
        raise RecipeError(f"--k {k}: {texts} holds {len(corpus)} texts; ask for at most as many clusters.")
    with bar("embedding") as progress:
        embeddings = embed([text.text for text in corpus], embedder, progress)
    clustering = balanced_kmeans(embeddings, k, seed)
    names = cluster_names([text.text for text in corpus], clustering.labels, k)
    labels = [{"id": t.id, "cluster": int(c)} for t, c in zip(corpus, clustering.labels, strict=True)]
    write_jsonl(out / "labels.jsonl", labels)
    sizes = [int((clustering.labels == c).sum()) for c in range(k)]
    summary = {"names": names, "sizes": sizes, "inertia": clustering.inertia, "seed": seed, "embedder": embedder}
    write_json(out / "clusters.json", summary)
    print_result(summary, as_json)
