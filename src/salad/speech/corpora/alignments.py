"""Word timings in a file of their own, JSON lines: {"id": "LJ001-0001", "words": [["printing", 0.0, 0.68], …]}."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from salad.errors import AlignmentError, DataError, MissingFileError
from salad.speech.candidate import Candidate
from salad.speech.corpora.rows import word_timings
from salad.speech.prepared import Rejected
from salad.speech.transcript import match_words


class Alignments:
    """The word timings of a file by utterance; memory holds where each stands.

    `report` counts, as utterances come by: "used"; "of_other_words", which are not the transcript's, so that the
    utterance goes without; and "unreadable".
    """

    def __init__(self, path: Path) -> None:
        """Find the lines of `path`.

        Raises:
            MissingFileError: no such file.
            DataError: it is gzipped, or no line has an id.
        """
        if not path.is_file():
            raise MissingFileError(f"{path} does not exist; it must have a JSON object with id and words a line.")
        if path.suffix == ".gz":
            raise DataError(f"{path} is compressed, so its lines can't be looked up; unpack it (gunzip) and name that.")
        self.path = path
        self.report = {"used": 0, "of_other_words": 0, "unreadable": 0}
        self._offsets: dict[str, int] = {}
        with path.open("rb") as file:
            while line := file.readline():
                try:
                    self._offsets.setdefault(str(json.loads(line)["id"]), file.tell() - len(line))
                except (ValueError, LookupError, TypeError, RecursionError):
                    self.report["unreadable"] += bool(line.strip())
        if not self._offsets:
            raise DataError(f"{path} has no line with an id; a JSON object with id and words a line is needed.")

    def put_on(self, candidates: Iterable[Candidate | Rejected]) -> Iterator[Candidate | Rejected]:
        """The candidates, with timings where the file has theirs."""
        with self.path.open("rb") as file:
            for item in candidates:
                if isinstance(item, Rejected) or item.id not in self._offsets:
                    yield item
                    continue
                file.seek(self._offsets[item.id])
                try:
                    words = word_timings(json.loads(file.readline()).get("words"))
                    match_words(item.text, [word for word, _, _ in words])
                except AlignmentError:
                    self.report["of_other_words"] += 1
                    yield item
                except DataError:
                    self.report["unreadable"] += 1
                    yield item
                else:
                    self.report["used"] += 1
                    yield replace(item, words=words)
