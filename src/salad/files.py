"""Writing files and folders so that a power cut leaves either the old one or the new one, never half of one.

What is being written has a name that begins with `.tmp-` and the writer's process id; a folder that is about to be
replaced is called `.old-NAME` for the moment between two renames.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from salad.errors import DataError, MissingFileError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` beside `path`, flush it to the disk, and rename it into place."""
    with open_atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """A file to write beside `path`; flushed to the disk and renamed into place when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".tmp-{os.getpid()}-{path.name}"
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush(path.parent)  # the rename itself
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_atomic(path: Path) -> Iterator[Path]:
    """An empty folder to fill beside `path`; flushed to the disk and renamed into place when the block ends well.

    An older folder of that name is replaced as a whole, once the new one is; after an error it stays as it is.
    """
    temporary = new_folder_beside(path)
    try:
        yield temporary
        put_in_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def new_folder_beside(path: Path) -> Path:
    """An empty folder to fill for `put_in_place`, on the same disk as `path`."""
    temporary = path.parent / f".tmp-{os.getpid()}-{path.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def put_in_place(temporary: Path, path: Path) -> None:
    """Flush all that is in `temporary` to the disk and give it the name `path`; an older folder there is deleted."""
    for place, _, names in os.walk(temporary):
        for name in names:
            flush(Path(place, name))
        flush(Path(place))
    settle(path)
    old = _old(path)
    if path.exists():
        path.rename(old)
    temporary.rename(path)
    flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def settle(path: Path) -> None:
    """Put back a folder whose replacement was cut off between the two renames of `put_in_place`."""
    old = _old(path)
    if old.is_dir() and not path.exists():
        old.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def flush(path: Path) -> None:
    """Have what was written to a file, or which names a folder holds, reach the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that flushes no folders (CIFS, some of FUSE)
            raise
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Delete what processes that are gone left half-written in `folder`.

    Call it where one run at a time works, and while this process writes nothing there: a process of another machine
    can't be seen from here.
    """
    for left in folder.glob(".tmp-*"):
        number = left.name.removeprefix(".tmp-").partition("-")[0]
        if number.isdecimal() and (int(number) == os.getpid() or not lives(int(number))):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def lives(process: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(process, 0)  # asks only
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _old(path: Path) -> Path:
    return path.parent / f".old-{path.name}"


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of `value` as indented JSON; NaN is refused."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        MissingFileError: no such file.
        DataError: it is not JSON.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not readable as JSON ({error}).") from error


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, written atomically, each as it comes."""
    with open_atomic(path) as file:
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; lines end at "\\n" alone (some texts hold other Unicode separators).

    Raises:
        MissingFileError: no such file.
        DataError: a line is not a JSON object, or not UTF-8; says which.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist.")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}:{number} is not UTF-8 ({error.reason} at byte {error.start} of the line); convert it first."
            ) from error
        except ValueError as error:
            raise DataError(f"{path}:{number} is not readable as JSON ({error}).") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number} is not a JSON object.")
        rows.append(row)
    return rows


def check_items_file(path: Path) -> None:
    """The sentence for a file of items that is not there; here, so that a command has it before it loads anything.

    Raises:
        MissingFileError: it is no file.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; name a JSONL file of items.")
