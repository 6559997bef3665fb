"""Stage II, step by step: cluster, probe, select."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salad.cli.options import JsonOption, OutOption, ThreadsOption, app, print_result, quiet
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
    from salad.texts.text import write_texts
    from salad.verbs import hours, select_folder

    chosen = select_folder(texts, clusters, probes, gamma, hours(budget) * 3600, pace, seed)
    write_texts(out / "selected.jsonl", chosen.texts)
    summary = {
        "num_texts": len(chosen.texts),
        "estimated_h": chosen.estimated_s / 3600,
        "target": chosen.target,
        "per_cluster": chosen.per_cluster,
        "exhausted_clusters": chosen.exhausted_clusters,
    }
    print_result(summary, as_json)
