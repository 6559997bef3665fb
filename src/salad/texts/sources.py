"""Texts from anywhere become OUT/texts.jsonl: streamed, judged, without duplicates, and going on after a stop.

    hub:OWNER/NAME         a Hugging Face dataset, streamed. The paper's are hub:HuggingFaceTB/smollm-corpus (text of
                           Stage I; --config cosmopedia-v2 or fineweb-edu-dedup) and hub:HuggingFaceFW/fineweb-edu
                           (what Stage II selects from; --config sample-10BT)
    FILE.jsonl, .parquet, .txt, .md, or a folder of one kind of them
    wordnet                definitions, offline

A text is kept as it is; what a voice speaks of it is decided when it is spoken. OUT/rejected.jsonl lists every row that
was not taken with its reason and place, OUT/info.json says what was read. Memory does not grow with the source: which
texts were seen is kept on the disk (SQLite) until the folder is whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from salad.assets import resolve
from salad.errors import DataError, RecipeError
from salad.files import read_json
from salad.randomness import generator
from salad.texts import wordnet
from salad.texts.hub import hub_shards
from salad.texts.ledger import Ledger
from salad.texts.readers import JsonLines, PlainText, Shard, file_kind, parquet_shards, text_files
from salad.texts.rows import Row, TextSettings, row_id, text_of_row
from salad.texts.text import NO_LICENCE, Text

COMMIT_EVERY = 2000
"""Rows between two points from which an interrupted run can go on."""


@dataclass(frozen=True)
class Source:
    """The shards of a source, its licence where it states one, and what its reader has left out already."""

    shards: Sequence[Shard]
    licence: str | None
    left_out: dict[str, int]


def prepare_text(
    settings: TextSettings, out: Path, progress: Callable[[int, int | None], None] | None = None
) -> dict[str, Any]:
    """Write `out`/texts.jsonl, rejected.jsonl and info.json from a source; returns what info.json holds.

    The same call after an interruption goes on where it stopped and writes the same bytes as one that was not
    interrupted; after a finished one it does nothing.

    Args:
        settings: the source and what to take from it. `limit` ends at so many texts. `min_words` and `max_words`
            count whitespace-separated words. With a `seed` the shards (a dataset's or folder's files, Parquet's row
            groups) are read in an order drawn from it. `licence` holds for rows that state none.
        out: the folder to write.
        progress: told (texts taken, limit) now and then.

    Raises:
        RecipeError: settings that no row can meet, or `out` holds texts made with other ones.
        MissingFileError, AssetError: the source is not there.
        DataError: a column is missing, or no row can be used; `out`/rejected.jsonl says why.
    """
    _check(settings)
    made_of = _made_of(settings)
    if (out / "texts.jsonl").is_file():
        return _finished(out, made_of)
    source = open_source(settings)
    order = _order(len(source.shards), settings.seed)
    with Ledger(out, made_of) as ledger:
        _read(source, order, settings, ledger, progress)
        info = {
            "corpus": "text",
            "source": settings.source,
            "licence": "; ".join(sorted(ledger.licences)) or NO_LICENCE,
            "num_texts": ledger.num_texts,
            "num_words": ledger.num_words,
            "num_rejected": ledger.num_rejected,
            "left_out": source.left_out,
            "made_of": made_of,
        }
        if not ledger.num_texts:
            raise DataError(ledger.give_up(settings.source))
        ledger.finish(info)
    return info


def open_source(settings: TextSettings) -> Source:
    """The shards of the source that `settings` name.

    Raises:
        MissingFileError, AssetError: it is not there.
        DataError: it has not the columns, or its kind is not known.
        RecipeError: a dataset has no such configuration or split.
    """
    if settings.source == "wordnet":
        return _wordnet()
    if settings.source.startswith("hub:"):
        name = settings.source.removeprefix("hub:")
        if not name.strip("/"):
            raise RecipeError(f"{settings.source!r} names no dataset; write it hub:OWNER/NAME.")
        shards, licence = hub_shards(name, settings.config, settings.split, settings.columns, settings.required)
        return Source(shards, licence, {})
    root = Path(settings.source)
    files = text_files(root)
    found: list[Shard] = []
    for path in files:
        name = _name(path.relative_to(root) if root.is_dir() else Path(path.name))
        kind = file_kind(path)
        if kind == "Parquet":
            found += parquet_shards(path, name, settings.columns, settings.required)
        elif kind == "JSON lines":
            found.append(JsonLines(path, name))
        else:
            found.append(PlainText(path, name, settings.text_column, settings.per))
    return Source(found, None, {})


def _read(
    source: Source,
    order: Sequence[int],
    settings: TextSettings,
    ledger: Ledger,
    progress: Callable[[int, int | None], None] | None,
) -> None:
    """Read the shards in order, from where the ledger says, until they end or the limit is reached."""

    def full() -> bool:
        return settings.limit is not None and ledger.num_texts >= settings.limit

    since = 0
    begun = len(order) if full() else ledger.shards_done
    for position in range(begun, len(order)):
        shard = source.shards[order[position]]
        for row in shard.rows(ledger.cursor if position == begun else None):
            _enter(ledger, row, shard.name, settings, source.licence)
            since += 1
            if full() or since >= COMMIT_EVERY:
                ledger.commit(position, shard.cursor())
                since = 0
                if progress is not None:
                    progress(ledger.num_texts, settings.limit)
            if full():
                return
    ledger.commit(len(order), None)


def _enter(ledger: Ledger, row: Row, shard: str, settings: TextSettings, licence: str | None) -> None:
    """Enter a row in the ledger as a text, or as rejected with the reason."""
    try:
        ledger.take(text_of_row(row, shard, settings, licence), row.place)
    except UnicodeEncodeError:
        ledger.reject(
            row_id(row, shard), "half a character: a surrogate stands alone, which no file can hold", row.place
        )
    except DataError as error:
        ledger.reject(row_id(row, shard), str(error), row.place)


def _name(path: Path) -> str:
    """What texts of a file are called: its path without suffixes, fit for an id."""
    stem = re.sub(r"(\.(jsonl|ndjson|parquet|txt|md|gz))+$", "", str(path), flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "-", stem).lstrip(".-") or "text"


def _order(num_shards: int, seed: int | None) -> list[int]:
    if seed is None:
        return list(range(num_shards))
    return [int(index) for index in generator(seed, "shards of text").permutation(num_shards)]


def _check(settings: TextSettings) -> None:
    if settings.limit is not None and settings.limit < 1:
        raise RecipeError(f"--limit {settings.limit}: ask for at least one text.")
    if settings.max_words is not None and settings.max_words < max(1, settings.min_words):
        raise RecipeError(f"no text has at least {settings.min_words} and at most {settings.max_words} words.")


@dataclass
class _Definitions:
    """WordNet's definitions as rows."""

    texts: Sequence[Text]
    name: str = "wordnet"
    _at: int = 0

    def rows(self, cursor: Any) -> Iterator[Row]:
        for number, text in enumerate(self.texts, start=1):
            if number > (cursor or 0):
                self._at = number
                yield Row(number, text.id, asdict(text))

    def cursor(self) -> Any:
        return self._at


def _wordnet() -> Source:
    texts, left_out = wordnet.load(resolve("wordnet"))
    return Source([_Definitions(texts)], wordnet.LICENCE, left_out)


def _made_of(settings: TextSettings) -> dict[str, Any]:
    """The settings, and for local files their sizes and times: what a prepared folder must agree with to be gone on."""
    path = Path(settings.source.removeprefix("hub:"))
    files = [path] if path.is_file() else sorted(path.rglob("*")) if path.is_dir() else []
    stamps = [[str(file), (s := file.stat()).st_size, s.st_mtime_ns] for file in files if file.is_file()]
    digest = hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:16] if stamps else None
    return {**asdict(settings), "files": digest}


def _finished(out: Path, made_of: dict[str, Any]) -> dict[str, Any]:
    info: dict[str, Any] = read_json(out / "info.json") if (out / "info.json").is_file() else {}
    if info.get("made_of") != made_of:
        raise RecipeError(
            f"{out} holds texts made with other settings or from files that have changed since; "
            "choose another --out, or delete it."
        )
    (out / ".ledger.sqlite").unlink(missing_ok=True)
    return info
