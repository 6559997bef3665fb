"""What has been taken from a stream of texts so far, on the disk, so that an interrupted run goes on exactly there.

    OUT/.texts.jsonl, OUT/.rejected.jsonl   what is written so far
    OUT/.ledger.sqlite                      hashes of the texts and ids taken, counts, the cursor, and how long the two
                                            files were when all of that was true

A commit first flushes the two files to the disk and then the database; going on cuts the files back to the lengths that
the database knows. When all is read the files get their names, texts.jsonl last, and the database goes.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from salad.errors import DataError, RecipeError
from salad.files import write_json
from salad.texts.split import comparable
from salad.texts.text import Text

MAX_LICENCES = 1000
"""More different licences are some other column; the rest is not listed in info.json."""


class Ledger:
    """Takes and rejects texts, refuses what it has seen, and commits with a cursor; a context manager."""

    def __init__(self, out: Path, made_of: dict[str, Any]) -> None:
        """Begin in `out`, or go on with what was begun there.

        Raises:
            RecipeError: `out` holds a run that was begun with other settings.
        """
        self.out = out
        out.mkdir(parents=True, exist_ok=True)
        self._path = out / ".ledger.sqlite"
        self._database = sqlite3.connect(self._path)
        self._database.execute("create table if not exists seen (hash integer primary key, number integer)")
        self._database.execute("create table if not exists state (value text)")
        found = self._database.execute("select value from state").fetchone()
        state: dict[str, Any] = json.loads(found[0]) if found else {"made_of": made_of}
        if state["made_of"] != made_of:
            self._database.close()
            raise RecipeError(
                f"{out} holds an unfinished run with other settings, or its source has changed since; "
                "choose another --out, or delete it."
            )
        self.made_of = made_of
        self.shards_done: int = state.get("shards_done", 0)
        self.cursor: Any = state.get("cursor")
        self.num_texts: int = state.get("num_texts", 0)
        self.num_words: int = state.get("num_words", 0)
        self.num_rejected: int = state.get("num_rejected", 0)
        self.licences: set[str] = set(state.get("licences", []))
        if found and not (out / ".rejected.jsonl").is_file() and (out / "rejected.jsonl").is_file():
            (out / "rejected.jsonl").replace(out / ".rejected.jsonl")  # stopped while the files got their names
        self._texts = _cut_to(out / ".texts.jsonl", state.get("texts_bytes", 0))
        self._rejected = _cut_to(out / ".rejected.jsonl", state.get("rejected_bytes", 0))

    def __enter__(self) -> Self:
        """The ledger itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files; what was not committed is not counted on."""
        self._texts.close()
        self._rejected.close()
        self._database.close()

    def take(self, text: Text, place: str) -> None:
        """Write a text, or reject it as one that was taken before.

        Raises:
            UnicodeEncodeError: it holds half of a surrogate pair, which no file can hold.
        """
        line = (json.dumps(asdict(text), ensure_ascii=False) + "\n").encode()
        keys = {"text": _hash("text", comparable(text.text)), "id": _hash("id", text.id)}
        for what, key in keys.items():
            found = self._database.execute("select number from seen where hash = ?", (key,)).fetchone()
            if found:
                return self.reject(text.id, f"duplicate {what}: the same as line {found[0]} of texts.jsonl", place)
        number = self.num_texts + 1
        self._database.executemany("insert into seen values (?, ?)", [(key, number) for key in keys.values()])
        self._texts.write(line)
        self.num_texts = number
        self.num_words += len(text.text.split())
        if len(self.licences) < MAX_LICENCES:
            self.licences.add(text.licence)

    def reject(self, identifier: str, reason: str, place: str) -> None:
        """Write down that a row was not taken."""
        row = {"id": identifier, "reason": reason, "place": place}
        self._rejected.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", errors="replace"))
        self.num_rejected += 1

    def commit(self, shards_done: int, cursor: Any) -> None:
        """Make all so far last: a run that stops after this goes on at `cursor` of the shard after `shards_done`."""
        self.shards_done, self.cursor = shards_done, cursor
        for file in (self._texts, self._rejected):
            file.flush()
            os.fsync(file.fileno())
        state = {
            "made_of": self.made_of,
            "shards_done": shards_done,
            "cursor": cursor,
            "num_texts": self.num_texts,
            "num_words": self.num_words,
            "num_rejected": self.num_rejected,
            "licences": sorted(self.licences),
            "texts_bytes": self._texts.tell(),
            "rejected_bytes": self._rejected.tell(),
        }
        self._database.execute("delete from state")
        self._database.execute("insert into state values (?)", [json.dumps(state)])
        self._database.commit()

    def finish(self, info: dict[str, Any]) -> None:
        """Give the files their names, and `info` to info.json."""
        write_json(self.out / "info.json", info)
        self._close(self.out / "rejected.jsonl")
        (self.out / ".texts.jsonl").replace(self.out / "texts.jsonl")
        self._path.unlink()

    def give_up(self, source: str) -> str:
        """Keep the list of what was rejected and forget the rest; returns the sentence that says so."""
        self._close(self.out / "rejected.jsonl")
        (self.out / ".texts.jsonl").unlink()
        self._path.unlink()
        with (self.out / "rejected.jsonl").open("rb") as file:
            first = json.loads(file.readline() or b"null")
        if first is None:
            return f"{source} holds no text."
        return (
            f"{source}: none of {self.num_rejected} rows can be used as a text; the first, at {first['place']}: "
            f"{first['reason']}. All are in {self.out / 'rejected.jsonl'}."
        )

    def _close(self, rejected: Path) -> None:
        self.__exit__(None, None, None)
        (self.out / ".rejected.jsonl").replace(rejected)


def _hash(what: str, value: str) -> int:
    """64 bits: among ten million texts two that are not the same meet with a chance of 1 in 90,000."""
    digest = hashlib.blake2b(f"{what}:{value}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _cut_to(path: Path, num_bytes: int) -> Any:
    if num_bytes and (not path.is_file() or path.stat().st_size < num_bytes):
        raise DataError(f"{path} has lost what an unfinished run wrote there; delete {path.parent} and start again.")
    file = path.open("r+b" if path.is_file() else "w+b")
    file.truncate(num_bytes)
    file.seek(num_bytes)
    return file
