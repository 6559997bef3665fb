"""Texts of a Hugging Face dataset, streamed through `datasets`: from the hub, or from a local folder in its layout.

A shard is one file of the dataset. Nothing is downloaded but what is read, and reading goes on from a cursor after a
stop (within a Parquet file the rows before it are passed over).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salad.errors import AssetError, RecipeError
from salad.texts.readers import check_columns
from salad.texts.rows import Row

LICENCES = {"HuggingFaceTB/smollm-corpus": "ODC-By-1.0", "HuggingFaceFW/fineweb-edu": "ODC-By-1.0"}
"""Licences of the datasets the paper uses, from their cards."""


@dataclass
class HubShard:
    """One file of a dataset; `dataset` is a `datasets.IterableDataset` of one shard."""

    dataset: Any
    name: str
    source: str
    number: int
    _rows: int = 0

    def rows(self, cursor: Any) -> Iterator[Row]:
        """See `salad.texts.readers.Shard`.

        Raises:
            AssetError: the dataset can't be read further.
        """
        self._rows = 0
        if cursor is not None:
            self._rows = cursor["rows"]
            self.dataset.load_state_dict(cursor["state"])
        examples = iter(self.dataset)
        while (columns := self._next(examples)) is not None:
            self._rows += 1
            yield Row(self._rows, f"{self.source}, file {self.number}, row {self._rows}", columns)

    def _next(self, examples: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
        import pyarrow as pa
        from datasets.exceptions import DatasetsError
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its HTTP client, whichever it is

        try:
            return next(examples, None)
        except (DatasetsError, OSError, HTTPError, pa.ArrowException, UnicodeDecodeError) as error:
            raise AssetError(
                f"{self.source}, file {self.number}: reading stopped after row {self._rows} ({_brief(error)}); "
                "the same command goes on from there."
            ) from error

    def cursor(self) -> Any:
        """See `salad.texts.readers.Shard`."""
        return {"rows": self._rows, "state": self.dataset.state_dict()}


def hub_shards(
    name: str, config: str | None, split: str, wanted: Sequence[str], required: Sequence[str]
) -> tuple[list[HubShard], str | None]:
    """The shards of one split of a dataset, in the dataset's order, and its licence where that is known.

    Args:
        name: OWNER/NAME on the hub, or a local folder of data files or one written by `save_to_disk`.
        config: the dataset's configuration, where it has several.
        split: e.g. `train`.
        wanted: the columns to read, where they are there.
        required: columns that must be there.

    Raises:
        AssetError: the dataset can't be reached.
        RecipeError: it has no such configuration or split, or wants one.
        DataError: a required column is missing.
    """
    dataset = open_stream(name, config, split)
    if dataset.column_names is not None:
        check_columns(f"hub:{name}", dataset.column_names, required)
        dataset = dataset.select_columns([column for column in dict.fromkeys(wanted) if column in dataset.column_names])
    source, stem = f"hub:{name}", Path(name).name
    total = dataset.num_shards
    width = len(str(total - 1))
    shards = [
        HubShard(dataset.shard(total, index), f"{stem}-{index:0{width}}" if total > 1 else stem, source, index)
        for index in range(total)
    ]
    return shards, LICENCES.get(name) or dataset.info.license or None


def open_stream(name: str, config: str | None, split: str, **options: Any) -> Any:
    """One split of a dataset as a stream of rows (`datasets.IterableDataset`); `options` are `load_dataset`'s.

    Raises:
        AssetError: the dataset can't be reached.
        RecipeError: it has no such configuration or split, or wants one.
    """
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its HTTP client, whichever it is

    try:
        if Path(name).is_dir() and any((Path(name) / mark).is_file() for mark in ("state.json", "dataset_dict.json")):
            return _of_split(datasets.load_from_disk(name), split, name).to_iterable_dataset()
        return datasets.load_dataset(name, config, split=split, streaming=True, **options)
    except RecipeError:
        raise
    except (DatasetsError, OSError, HTTPError) as error:
        raise AssetError(
            f"the dataset {name!r} can't be opened ({_brief(error)}); check its name and the network, log in with "
            "'hf auth login' if it is gated, or name a local folder."
        ) from error
    except ValueError as error:  # a configuration or split that is missing or unknown; datasets names those there are
        raise RecipeError(f"hub:{name}: {_brief(error)} (--config, --split).") from error


def _of_split(saved: Any, split: str, name: str) -> Any:
    if not isinstance(saved, dict):
        return saved
    if split not in saved:
        raise RecipeError(f"hub:{name} has no split {split!r}; choose {', '.join(saved)} (--split).")
    return saved[split]


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
