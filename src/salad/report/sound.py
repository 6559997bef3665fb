"""Speech in a page: a file as a data URI, so that the page needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

TYPES = {".flac": "audio/flac", ".wav": "audio/wav", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".opus": "audio/ogg"}
LARGEST_BYTES = 1_500_000  # of one file; about a minute of FLAC


def data_uris(names: Iterable[str | None], folder: Path) -> dict[str, str]:
    """Each name's file, relative to `folder`, as a data URI; those not there, too large, or no audio are left out."""
    found = {}
    for name in filter(None, names):
        path = folder / name
        kind = TYPES.get(path.suffix.lower())
        if kind is not None and path.is_file() and path.stat().st_size <= LARGEST_BYTES:
            found[name] = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    return found
