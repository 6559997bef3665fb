"""Lines of a manifest, one at a time, each with its place; a line that can't be read is a rejection."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from salad.speech.prepared import Rejected


def read_lines(path: Path) -> Iterator[tuple[str, str] | Rejected]:
    """Place ("path:number") and text of every line that is not blank, of a plain or gzipped UTF-8 file.

    Lines end at a line feed alone (transcripts hold other Unicode separators). A line that is not UTF-8 is a rejection;
    so is the point where a gzipped file breaks off, after which nothing more can be read of it.
    """
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                place = f"{path}:{number}"
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if not line.strip():
                    continue
                try:
                    yield place, line.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    yield Rejected(f"line {number}", f"not text: the line is not UTF-8 ({error})", place)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        reason = f"damaged manifest: {path.name} breaks off after line {number} ({error}); download it again"
        yield Rejected(path.name, reason, f"{path}:{number + 1}")
