"""The content of files and folders in one hash, remembered for as long as their sizes and times stay what they were.

CACHE/hashes/KEY.json    {relative path: [size, modification time in ns, SHA-256]} of one file or folder
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from salad import take_home
from salad.asset_table import ASSETS
from salad.assets import cache_dir, digest_of
from salad.errors import DataError, MissingFileError
from salad.files import read_json, write_json

SETTLED_S = 2.0  # a file changed later than this before it is read may change again without its time showing it
NOT_CONTENT = (".md", ".lock", ".tmp")


def content_hash(path: Path) -> str:
    """SHA-256 of a file; for a folder, of one line `digest  relative/path` for each of its files, sorted by path.

    What is hidden, locked or Markdown does not count. A file is read again only if its size or time has changed since
    the last time, so asking again is quick.

    Raises:
        MissingFileError: there is no such file or folder.
    """
    if not path.exists():
        raise MissingFileError(f"{path} does not exist.")
    memory = cache_dir() / "hashes" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"
    known: dict[str, list[int | str]] = {}
    with suppress(MissingFileError, DataError):
        known = read_json(memory)
    found = {name: _entry(file, known.get(name)) for name, file in sorted(_files(path))}
    keep = {name: entry for name, entry in found.items() if time.time_ns() - int(entry[1]) > SETTLED_S * 1e9}
    if keep != known:
        with suppress(OSError):  # a cache that can't be written to: it is read again the next time
            write_json(memory, keep)
    if not path.is_dir():
        return str(found[path.name][2])
    return hashlib.sha256("".join(f"{entry[2]}  {name}\n" for name, entry in found.items()).encode()).hexdigest()


def fingerprint_of(name: str) -> str | None:
    """The content that a model's or corpus's name stands for: of a path or an asset; None where that is not known.

    It is not known of a name on the hub, nor of a path that is not there now.
    """
    path = Path(name).expanduser()
    if path.exists():
        return content_hash(path)
    if name in ASSETS:
        return hashlib.sha256(repr(sorted(ASSETS[name].sha256.items())).encode()).hexdigest()
    if name == take_home.NAME and take_home.FOLDER.is_dir():
        return content_hash(take_home.FOLDER)
    return None


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if not path.is_dir():
        yield path.name, path
        return
    for place, folders, names in os.walk(path):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for name in names:
            if not name.startswith(".") and not name.endswith(NOT_CONTENT):
                yield Path(place, name).relative_to(path).as_posix(), Path(place, name)


def _entry(file: Path, known: list[int | str] | None) -> list[int | str]:
    stat = file.stat()
    if known is not None and known[:2] == [stat.st_size, stat.st_mtime_ns]:
        return known
    return [stat.st_size, stat.st_mtime_ns, digest_of(file)]
