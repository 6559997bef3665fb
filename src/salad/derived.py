"""What is derived from a file and kept beside it, such as an index: made once, and made anew when the file changes.

    HOME/KEY/              the derived files; KEY holds the source's size and time and the version of what makes them
    HOME/KEY/whole.json    size and checksum of every file: a folder that does not match it is made again
    HOME/.lock             held while one process makes it; the others wait and then read

The folder is filled under another name and renamed, so a process that is stopped leaves nothing that looks whole. What
was derived from an older source is deleted; processes that have its files open keep them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from salad.assets import cache_dir
from salad.errors import DataError, MissingFileError
from salad.files import read_json, write_json

WHOLE_NAME = "whole.json"


def derived(source: Path, home: Path, version: int, make: Callable[[Path], None], unchecked: str = "") -> Path:
    """The folder that `make` fills from `source`, filled now if there is none that is whole.

    Args:
        source: the file it is derived from.
        home: where it is kept; where that can't be written, salad's cache holds it instead.
        version: of the format; another version is made anew.
        make: told an empty folder to fill.
        unchecked: a file of which only the size is checked, because its reader checks every record.

    Raises:
        MissingFileError: there is no source.
        DataError: the source kept changing.
    """
    for _ in range(3):
        key = _key(source, version)
        for place in (home, _in_cache(home)):
            if _is_whole(place / key, unchecked):
                return place / key
        home = home if _can_write(home) else _in_cache(home)
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / ".lock"):
            if _is_whole(home / key, unchecked):  # another process was faster
                return home / key
            temporary = home / f".tmp-{os.getpid()}"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            try:
                make(temporary)
                if _key(source, version) != key:
                    continue
                write_json(temporary / WHOLE_NAME, {p.name: _mark(p, unchecked) for p in sorted(temporary.iterdir())})
                for older in [entry for entry in home.iterdir() if entry.is_dir() and entry != temporary]:
                    shutil.rmtree(older, ignore_errors=True)
                temporary.replace(home / key)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            return home / key
    raise DataError(f"{source} changes while it is read; wait until whatever writes it has ended.")


def discard(folder: Path) -> None:
    """Have a derived folder that turned out to be damaged made again by whoever asks next."""
    (folder / WHOLE_NAME).unlink(missing_ok=True)


def _key(source: Path, version: int) -> str:
    if not source.is_file():
        raise MissingFileError(f"{source} does not exist.")
    stat = source.stat()
    return f"v{version}-{stat.st_size}-{stat.st_mtime_ns}"


def _is_whole(folder: Path, unchecked: str) -> bool:
    try:
        marks = dict(read_json(folder / WHOLE_NAME))
        return all(_mark(folder / name, unchecked) == mark for name, mark in marks.items())
    except (OSError, DataError):  # MissingFileError is an OSError
        return False


def _mark(path: Path, unchecked: str) -> list[int]:
    if path.name == unchecked:
        return [path.stat().st_size]
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return [path.stat().st_size, checksum]


def _can_write(home: Path) -> bool:
    there = next(parent for parent in (home, *home.parents) if parent.exists())
    return os.access(there, os.W_OK | os.X_OK)


def _in_cache(home: Path) -> Path:
    return cache_dir() / "derived" / hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:24]
