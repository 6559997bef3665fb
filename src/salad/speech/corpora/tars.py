"""Members of a tar archive, one at a time; an archive that is cut short or damaged says so and does not just end."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from salad.errors import DataError

BLOCK = tarfile.BLOCKSIZE


class BrokenTarError(DataError):
    """The archive can't be read to its end; the members before were given."""


@dataclass(frozen=True)
class Member:
    """A file in the archive: its name there and its bytes."""

    name: str
    content: bytes


def read_members(path: Path) -> Iterator[Member]:
    """The files of an uncompressed tar in their order; one file's bytes are held at a time.

    Raises:
        BrokenTarError: it is no tar, a member is cut short, a header is damaged, or the mark of its end is missing.
            `tarfile` takes all but the first two for a regular end.
    """
    last, end = "", 0
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while (info := archive.next()) is not None:
                end = info.offset_data + -(-info.size // BLOCK) * BLOCK
                if not info.isfile():
                    continue
                content = archive.extractfile(info)
                yield Member(info.name, content.read() if content is not None else b"")
                last = info.name
            file.seek(end)
            if file.read(BLOCK) != tarfile.NUL * BLOCK:
                raise BrokenTarError(
                    f"damaged archive: it breaks off or can't be read after {last!r}; download it again"
                )
    except (tarfile.TarError, EOFError) as error:
        after = f" after {last!r}" if last else ""
        raise BrokenTarError(f"damaged archive: it can't be read{after} ({error}); download it again") from error
