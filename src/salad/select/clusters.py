"""A clustered corpus in a folder that other tools read too.

    OUT/labels.parquet   id, cluster, distance (to the cluster's centre), num_chars of every text, in the corpus's order
    OUT/clusters.jsonl   a cluster a line: cluster, name, size, share, terms, examples [{id, text, distance}], x, y
    OUT/centres.npy      float32 [K, d]
    OUT/info.json        what it was made of, and how good it is; written last: a folder without it is not finished
    OUT/embeddings/      see salad.select.embeddings

Axes: N texts, K clusters, d dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from salad.errors import DataError, MissingFileError
from salad.files import open_atomic, read_json, read_jsonl, write_json, write_jsonl
from salad.fingerprint import content_hash
from salad.select.embeddings import checksum
from salad.texts.text import Text

FORMAT = "salad clusters"
VERSION = 1
BLOCK_ROWS = 8192
FILES = ("labels.parquet", "clusters.jsonl", "centres.npy")


@dataclass(frozen=True)
class Clusters:
    """A clustered corpus, read from its folder; the columns of labels.parquet are read when they are asked for.

    Attributes:
        folder: where it is.
        info: what info.json holds.
        rows: the clusters as clusters.jsonl has them, by number.
    """

    folder: Path
    info: dict[str, Any]
    rows: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path, corpus: Path | None = None) -> Clusters:
        """The clusters in a folder; with `corpus`, they must be those of that file of texts.

        Raises:
            MissingFileError: the folder holds no finished clusters, or a file of them is gone.
            DataError: they are damaged, or of another corpus.
        """
        info = read_info(folder)
        for name, (size, _) in info["files"].items():
            path = folder / name
            if not path.is_file():
                raise MissingFileError(f"{path} does not exist; 'salad cluster' with the same options makes it again.")
            if path.stat().st_size != size:
                raise DataError(f"{path} is damaged: it has {path.stat().st_size} bytes, not {size}; cluster again.")
        if corpus is not None and content_hash(corpus) != info["corpus_sha256"]:
            raise DataError(
                f"{folder} holds the clusters of another corpus than {corpus} (of {info['corpus']}, "
                f"{info['num_texts']} texts), or the corpus has changed since; cluster it again."
            )
        rows = read_jsonl(folder / "clusters.jsonl")
        if [row.get("cluster") for row in rows] != list(range(info["num_clusters"])):
            raise DataError(f"{folder / 'clusters.jsonl'} does not hold clusters 0 to {info['num_clusters'] - 1}.")
        return cls(folder, info, rows)

    def __len__(self) -> int:
        """The number of texts."""
        return int(self.info["num_texts"])

    @property
    def num_clusters(self) -> int:
        """K."""
        return len(self.rows)

    @property
    def names(self) -> list[str]:
        """The name of every cluster."""
        return [str(row["name"]) for row in self.rows]

    @property
    def shares(self) -> np.ndarray:
        """P_web(c): the share of the corpus's texts in every cluster, float64 [K]."""
        return np.array([row["size"] for row in self.rows], np.float64) / len(self)

    @cached_property
    def ids(self) -> list[str]:
        """The id of every text, in the corpus's order."""
        ids: list[str] = self._column("id").to_pylist()
        return ids

    @cached_property
    def labels_N(self) -> np.ndarray:
        """The cluster of every text, int32 [N]."""
        return np.asarray(self._column("cluster").to_numpy())

    @cached_property
    def distances_N(self) -> np.ndarray:
        """The distance of every text from its cluster's centre, float32 [N]."""
        return np.asarray(self._column("distance").to_numpy())

    @cached_property
    def num_chars_N(self) -> np.ndarray:
        """The characters of every text, int32 [N]."""
        return np.asarray(self._column("num_chars").to_numpy())

    @cached_property
    def cluster_of(self) -> dict[str, int]:
        """The cluster of every text by its id; for corpora that fit in memory as Python strings."""
        return dict(zip(self.ids, self.labels_N.tolist(), strict=True))

    def rows_of(self, ids: Iterable[str]) -> np.ndarray:
        """The numbers of the texts with these ids, in the corpus's order, int64; ids of no text are left out."""
        import pyarrow as pa
        import pyarrow.compute as compute

        there = compute.is_in(self._column("id"), value_set=pa.array(list(ids), pa.string()))
        return np.flatnonzero(there.to_numpy())

    @cached_property
    def centres_Kd(self) -> np.ndarray:
        """The centres, float32 [K, d]."""
        return np.asarray(np.load(self.folder / "centres.npy", allow_pickle=False))

    def nearest(self, vectors_Nd: np.ndarray) -> np.ndarray:
        """The cluster whose centre is nearest to each of these embeddings [N, d], int [N]."""
        centres = self.centres_Kd.astype(np.float64)
        return np.asarray(((centres**2).sum(1) - 2 * vectors_Nd.astype(np.float64) @ centres.T).argmin(1))

    def _column(self, name: str) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        path = self.folder / "labels.parquet"
        try:
            column = parquet.read_table(path, columns=[name], memory_map=True)[name]
        except (pa.ArrowException, KeyError) as error:
            raise DataError(f"{path} is not readable ({str(error).splitlines()[0]}); cluster again.") from error
        if len(column) != len(self):
            raise DataError(f"{path} holds {len(column)} texts, not {len(self)}; cluster again.")
        return column


def read_info(folder: Path) -> dict[str, Any]:
    """What info.json of a folder of clusters holds.

    Raises:
        MissingFileError: there is none.
        DataError: it is of something else, or of another version.
    """
    path = folder / "info.json"
    if not path.is_file():
        begun = (folder / "embeddings" / "index.json").is_file()
        what = "its clusters are not finished" if begun else "it is no folder of clusters"
        raise MissingFileError(f"{folder}: {what} ({path.name} is not there); make it with 'salad cluster'.")
    info = read_json(path)
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise DataError(f"{path} is not of a folder of clusters; name one made by 'salad cluster'.")
    if info.get("version") != VERSION:
        raise DataError(f"{path} is of version {info.get('version')}, not {VERSION}; cluster the corpus again.")
    return info


def is_sound(folder: Path, info: dict[str, Any]) -> bool:
    """Whether every file of the clusters has the bytes it was written with; reads all of them."""
    return all(
        (folder / name).is_file() and [(folder / name).stat().st_size, checksum(folder / name)] == mark
        for name, mark in info["files"].items()
    )


def write_clusters(
    out: Path,
    texts: Sequence[Text],
    labels_N: np.ndarray,
    distances_N: np.ndarray,
    centres_Kd: np.ndarray,
    rows: list[dict[str, Any]],
    info: dict[str, Any],
) -> dict[str, Any]:
    """Write the files of a clustered corpus into `out`, each atomically, info.json last; returns what that holds.

    Args:
        out: the folder; clusters that are there already stop being valid at once.
        texts: the corpus, read in order, a block at a time.
        labels_N: the cluster of every text.
        distances_N: its distance from the cluster's centre.
        centres_Kd: the centres.
        rows: what clusters.jsonl shall hold, in the order of the clusters.
        info: what info.json shall hold, beside the format and the files' checksums.
    """
    (out / "info.json").unlink(missing_ok=True)
    _write_labels(out / "labels.parquet", texts, labels_N, distances_N)
    write_jsonl(out / "clusters.jsonl", rows)
    with open_atomic(out / "centres.npy") as file:
        np.save(file, np.asarray(centres_Kd, np.float32))
    files = {name: [(out / name).stat().st_size, checksum(out / name)] for name in FILES}
    whole = {"format": FORMAT, "version": VERSION, **info, "files": files}
    write_json(out / "info.json", whole)
    return json.loads(json.dumps(whole))  # type: ignore[no-any-return]  # as it will be read


def _write_labels(path: Path, texts: Sequence[Text], labels_N: np.ndarray, distances_N: np.ndarray) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema = pa.schema(
        [("id", pa.string()), ("cluster", pa.int32()), ("distance", pa.float32()), ("num_chars", pa.int32())]
    )
    with open_atomic(path) as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for begin, block in blocks(texts):
            rows = slice(begin, begin + len(block))
            columns = [
                pa.array([text.id for text in block], pa.string()),
                pa.array(labels_N[rows].astype(np.int32)),
                pa.array(distances_N[rows].astype(np.float32)),
                pa.array([len(text.text) for text in block], pa.int32()),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def blocks(texts: Sequence[Text]) -> Iterator[tuple[int, Sequence[Text]]]:
    """The number of the first text of every block of the corpus, and the block."""
    for begin in range(0, len(texts), BLOCK_ROWS):
        yield begin, texts[begin : begin + BLOCK_ROWS]
