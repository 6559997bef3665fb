"""A selection in files that any trainer reads.

    OUT/selected.jsonl       a text a line, in the order drawn: id, text, domain, source, licence, title where it has
                             one, cluster, cluster_name, draw (from 0), weight
    OUT/hf/train.parquet     the same rows: `datasets.load_dataset("OUT/hf")`, pandas, polars, DuckDB (format "hf")
    OUT/selection.json       what was drawn from, clusters with their shares before and after, what was left out, hashes
                             of all that went in; written last: a folder without it is not finished

`weight` is P_target(c) / P_web(c) of the text's cluster, how many times more often it was drawn than the corpus has it:
a mean over the selection with weights 1 / weight is one over the corpus. Nothing in the files depends on when, where or
how fast they were written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from salad.errors import RecipeError
from salad.files import open_atomic, read_json, write_json, write_jsonl
from salad.fingerprint import content_hash
from salad.select.sampling import Selection
from salad.texts.text import Text

Format = Literal["jsonl", "hf"]
FORMATS: tuple[Format, ...] = get_args(Format)
SELECTED_NAME, SUMMARY_NAME, PARQUET_NAME = "selected.jsonl", "selection.json", "hf/train.parquet"
ROWS_AT_ONCE = 4096


def parse_formats(written: str) -> tuple[Format, ...]:
    """The formats in "jsonl,hf"; jsonl is always written.

    Raises:
        RecipeError: another format.
    """
    named = [name.strip() for name in written.split(",")]
    for name in named:
        if name == "lhotse":
            raise RecipeError(
                "--format lhotse: a selection is text, and Lhotse's cuts are speech; 'salad synthesize "
                "OUT/selected.jsonl' makes a folder of Lhotse cuts of it."
            )
        if name not in FORMATS:
            raise RecipeError(f"--format {name}: choose among {', '.join(FORMATS)}.")
    return tuple(name for name in FORMATS if name in named or name == "jsonl")


def write_selection(
    out: Path,
    selection: Selection,
    texts: Sequence[Text],
    names: Sequence[str],
    web: NDArray[np.float64],
    formats: Sequence[Format],
    summary: dict[str, Any],
) -> dict[str, Any]:
    """Write a selection's files, each atomically, selection.json last; returns what that holds.

    Args:
        out: the folder; a selection that is there already stops being valid at once.
        selection: what was drawn.
        texts: the corpus, read row by row.
        names: of the clusters [K].
        web: P_web [K].
        formats: which files.
        summary: what selection.json shall hold, beside the files' hashes.
    """
    (out / SUMMARY_NAME).unlink(missing_ok=True)
    weights = np.divide(selection.target, web, out=np.zeros(len(web)), where=np.asarray(web) > 0)
    write_jsonl(out / SELECTED_NAME, _rows(selection, texts, names, weights))
    written = [SELECTED_NAME]
    if "hf" in formats:
        _write_parquet(out / PARQUET_NAME, _rows(selection, texts, names, weights))
        written.append(PARQUET_NAME)
    else:
        (out / PARQUET_NAME).unlink(missing_ok=True)
    whole = summary | {"files": {name: content_hash(out / name) for name in written}}
    write_json(out / SUMMARY_NAME, whole)
    return dict(read_json(out / SUMMARY_NAME))


def _rows(
    selection: Selection, texts: Sequence[Text], names: Sequence[str], weights: NDArray[np.float64]
) -> Iterator[dict[str, Any]]:
    pairs = zip(selection.rows.tolist(), selection.clusters.tolist(), strict=True)
    for draw, (row, cluster) in enumerate(pairs):
        own = {key: value for key, value in asdict(texts[row]).items() if value is not None}
        drawn = {"cluster": cluster, "cluster_name": names[cluster], "draw": draw, "weight": float(weights[cluster])}
        yield own | drawn


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    strings = ("id", "text", "domain", "source", "licence", "title", "cluster_name")
    numbers = [("cluster", pa.int32()), ("draw", pa.int64()), ("weight", pa.float64())]
    schema = pa.schema([*((name, pa.string()) for name in strings), *numbers])
    with open_atomic(path) as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while some := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(some, schema))
