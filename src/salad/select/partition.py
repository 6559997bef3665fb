"""A corpus partitioned by meaning into a folder: embedded, clustered, named, laid out on a map.

Each part goes on where it stopped: embeddings that are there are kept, and clusters that were made of the same texts
with the same settings are not made again. Memory holds a few numbers for each text, never the texts or the embeddings.

Axes: N texts, K clusters, d dimensions.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from sklearn.cluster import KMeans

from salad.errors import DataError, RecipeError
from salad.files import sweep
from salad.fingerprint import content_hash
from salad.randomness import generator, torch_seed
from salad.select.agreement import agreement, numbered
from salad.select.balanced_kmeans import Clustering, balanced_kmeans
from salad.select.clusters import blocks, is_sound, read_info, write_clusters
from salad.select.embed import embedder_folder
from salad.select.embed_corpus import EmbedSettings, embed_corpus
from salad.select.embeddings import EmbeddingIndex, Embeddings, refuse_others, summary
from salad.select.layout import layout
from salad.select.naming import count_by_cluster, names_from, telling_terms
from salad.select.naming_by_llm import Namer
from salad.texts.corpus import TextCorpus
from salad.workers import FanOut, answer_all

NUM_EXAMPLES = 5
EXAMPLE_CHARACTERS = 300
PLAIN_ROWS = 50_000  # texts that plain k-means is compared on
Bar = Callable[[str], AbstractContextManager[Callable[[int, int | None], None]]]


@dataclass(frozen=True)
class PartitionSettings:
    """How a corpus is partitioned; see `salad.select.balanced_kmeans` for steps and tolerance.

    Attributes:
        num_clusters: K.
        seed: of the first centres and the map.
        max_steps: balanced assignments at most.
        tolerance: how far sizes may be from N / K, as a share; 0: by less than one text.
        namer: an LLM that names clusters, by name or path; None: their telling terms are the name.
        embedding: the embedder and how it runs.
    """

    num_clusters: int = 128
    seed: int = 0
    max_steps: int = 30
    tolerance: float = 0.0
    namer: str | None = None
    embedding: EmbedSettings = field(default_factory=EmbedSettings)

    def made_of(self, corpus_sha256: str, embedder_sha256: str) -> dict[str, Any]:
        """What the clusters depend on; how many threads and workers embed changes rounding alone."""
        return {
            "corpus_sha256": corpus_sha256,
            "embedder_sha256": embedder_sha256,
            "dtype": self.embedding.dtype,
            "num_clusters": self.num_clusters,
            "seed": self.seed,
            "max_steps": self.max_steps,
            "tolerance": self.tolerance,
            "namer": self.namer,
        }


@contextmanager
def no_bar(_what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Shows nothing."""
    yield lambda _done, _total: None


def partition(
    texts: Path,
    out: Path,
    settings: PartitionSettings,
    processes: int = 1,
    bar: Bar = no_bar,
    fan_out: FanOut = answer_all,
) -> dict[str, Any]:
    """Cluster a corpus into `out` (see `salad.select.clusters`); returns what `out`/info.json holds.

    Args:
        texts: JSONL with id and text on each line.
        out: the folder; clusters of the same corpus with other settings are replaced, their embeddings kept.
        settings: K, the embedder and so on.
        processes: workers that embed.
        bar: gives a progress bar for a part of the work.
        fan_out: who has the shards embedded.

    Raises:
        RecipeError: more clusters than texts, or another process works on `out`.
        AssetError: there is no such embedder, or no such LLM.
        MissingFileError, DataError: the texts are not there or not what they should be, or `out` holds embeddings of
            another corpus or by another embedder, or is a folder of something else.
    """
    embedder_sha256 = content_hash(embedder_folder(settings.embedding.embedder))  # first: it may not be there
    with bar("reading texts"):
        corpus = TextCorpus(texts)
        corpus_sha256 = content_hash(texts)
    if not len(corpus):
        raise DataError(f"{texts} holds no text.")
    if settings.num_clusters > len(corpus):
        raise RecipeError(
            f"{settings.num_clusters} clusters of {len(corpus)} texts ({texts}): ask for at most as many clusters."
        )
    made_of = settings.made_of(corpus_sha256, embedder_sha256)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            return _finished(out, made_of) or _made(corpus, out, settings, made_of, processes, bar, fan_out)
    except Timeout as error:
        raise RecipeError(
            f"another process is clustering into {out}; wait for it, or choose another folder."
        ) from error


def _finished(out: Path, made_of: dict[str, Any]) -> dict[str, Any] | None:
    """What info.json holds of whole clusters that were made of this."""
    if (out / "info.json").is_file():
        info = read_info(out)  # of anything else it is not replaced
        if info["made_of"] == made_of and is_sound(out, info):
            return info
    if (out / "embeddings" / "index.json").is_file():  # before anything of another corpus is replaced
        index = EmbeddingIndex.read(out / "embeddings")
        refuse_others(out / "embeddings", index, made_of["corpus_sha256"], made_of["embedder_sha256"])
    return None


def _made(
    corpus: TextCorpus,
    out: Path,
    settings: PartitionSettings,
    made_of: dict[str, Any],
    processes: int,
    bar: Bar,
    fan_out: FanOut,
) -> dict[str, Any]:
    sweep(out)
    namer = (
        Namer(settings.namer, settings.embedding.device) if settings.namer is not None else None
    )  # first: it may not be there
    with bar("embedding") as progress:
        embeddings = embed_corpus(corpus, out / "embeddings", settings.embedding, processes, progress, fan_out)
    with bar("clustering") as progress:
        clustering = balanced_kmeans(
            embeddings, settings.num_clusters, settings.seed, settings.max_steps, settings.tolerance, progress
        )
    with bar("against plain k-means"):
        plain = _against_plain(embeddings, clustering, settings.seed)
    distances_N = np.concatenate(
        [np.sqrt(_squares(block, clustering, slice(begin, begin + len(block)))) for begin, block in embeddings.blocks()]
    ).astype(np.float32)
    with bar("naming") as progress:
        rows = _rows(corpus, clustering, distances_N, settings.seed, namer, progress)
    with bar("writing"):
        duplicates, agreed = _about(corpus, clustering.labels)
        sizes = np.bincount(clustering.labels, minlength=settings.num_clusters)
        info = {
            "made_of": made_of,
            "corpus": str(corpus.path),
            "corpus_sha256": made_of["corpus_sha256"],
            "num_texts": len(corpus),
            "embedder": settings.embedding.embedder,
            "dim": embeddings.shape[1],
            "num_clusters": settings.num_clusters,
            "seed": settings.seed,
            "tolerance": settings.tolerance,
            "steps": clustering.steps,
            "sizes": [int(sizes.min()), int(sizes.max())],
            "inertia": clustering.inertia,
            "gap": clustering.gap,
            "plain_kmeans": plain,
            "domains": agreed,
            **summary(embeddings.index),
            "num_duplicates": duplicates,
            "names_by": settings.namer or "terms",
            "num_named_by_terms": len(rows) if namer is None else namer.num_without_name,
        }
        return write_clusters(out, corpus, clustering.labels, distances_N, clustering.centres, rows, info)


def _squares(block: np.ndarray, clustering: Clustering, rows: slice) -> np.ndarray:
    """The squared distance of each point of a block to its cluster's centre, float64."""
    apart = block.astype(np.float64) - clustering.centres[clustering.labels[rows]]
    return np.asarray((apart**2).sum(1))


def _against_plain(embeddings: Embeddings, clustering: Clustering, seed: int) -> dict[str, Any]:
    """What the balance costs: the inertia over that of plain k-means, both on the same texts.

    Of a large corpus a sample, on which plain k-means also learns its centres, which favours it a little.
    """
    num = min(len(embeddings), PLAIN_ROWS)
    rows = np.sort(generator(seed, "plain k-means").choice(len(embeddings), num, replace=False))
    points = embeddings[rows]
    ours = float(((points.astype(np.float64) - clustering.centres[clustering.labels[rows]]) ** 2).sum())
    distinct = len(np.unique(points, axis=0)) if num <= 2 * len(clustering.centres) else num
    model = KMeans(
        min(len(clustering.centres), distinct), n_init=1, random_state=torch_seed(seed, "plain") % 2**32
    ).fit(points)
    theirs = float(model.inertia_)
    sizes = np.bincount(model.labels_)
    return {
        "inertia_ratio": ours / theirs if theirs > 0 else None,
        "num_texts": num,
        "sizes": [int(sizes.min()), int(sizes.max())],
    }


def _rows(
    corpus: TextCorpus,
    clustering: Clustering,
    distances_N: np.ndarray,
    seed: int,
    namer: Namer | None,
    progress: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    """What clusters.jsonl holds."""
    num = len(clustering.centres)
    counts = count_by_cluster(lambda row: corpus[row].text, clustering.labels, num, progress)
    terms = telling_terms(counts)
    names = names_from(terms)
    places = layout(clustering.centres, seed)
    order = np.lexsort((distances_N, clustering.labels))
    ends = np.cumsum(np.bincount(clustering.labels, minlength=num))
    rows: list[dict[str, Any]] = []
    for cluster in range(num):
        begin = int(ends[cluster - 1]) if cluster else 0
        examples = _examples(corpus, order[begin : ends[cluster]], distances_N)
        name = names[cluster]
        if namer is not None:
            said = namer.name(terms[cluster], [example["text"] for example in examples])
            taken = said in [row["name"] for row in rows]
            name = f"{said} ({name})" if said and taken else said or name
        rows.append(
            {
                "cluster": cluster,
                "name": name,
                "size": int(ends[cluster]) - begin,
                "share": (int(ends[cluster]) - begin) / len(corpus),
                "terms": terms[cluster],
                "examples": examples,
                "x": float(places[cluster, 0]),
                "y": float(places[cluster, 1]),
            }
        )
    return rows


def _examples(corpus: TextCorpus, nearest_first: np.ndarray, distances_N: np.ndarray) -> list[dict[str, Any]]:
    """The first different texts, with their ids and distances; of a long text the beginning."""
    examples: dict[str, dict[str, Any]] = {}
    for row in nearest_first[: 4 * NUM_EXAMPLES]:
        text = corpus[int(row)]
        shown = text.text
        if len(shown) > EXAMPLE_CHARACTERS:
            shown = shown[: EXAMPLE_CHARACTERS - 1].rstrip() + "…"
        examples.setdefault(shown, {"id": text.id, "text": shown, "distance": round(float(distances_N[row]), 4)})
        if len(examples) == NUM_EXAMPLES:
            break
    return list(examples.values())


def _about(corpus: TextCorpus, labels_N: np.ndarray) -> tuple[int, dict[str, float | int] | None]:
    """How many texts stand in the corpus before already, and how clusters agree with domains, if there are several."""
    hashes = array("Q")

    def domains() -> Iterator[str]:
        for _, block in blocks(corpus):
            for text in block:
                digest = hashlib.blake2b(text.text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                hashes.append(int.from_bytes(digest, "little"))
                yield text.domain

    coded = numbered(domains())
    duplicates = len(hashes) - len(np.unique(np.frombuffer(hashes, np.uint64)))
    return duplicates, None if coded is None else agreement(labels_N, coded).as_json()
