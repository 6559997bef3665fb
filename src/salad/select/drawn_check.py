"""Drawn texts held against evaluation sets: one that shares words with them is not taken, and is listed.

A text is checked when it is drawn, not before: what that costs goes with what is selected, not with the corpus.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from salad.select.contamination import EvaluationIndex


class DrawnCheck:
    """Says of drawn texts why they are not taken, and remembers: `rows` are those of contaminated.jsonl."""

    def __init__(self, index: EvaluationIndex) -> None:
        """`index`: of the evaluation sets."""
        self._index = index
        self.rows: list[dict[str, Any]] = []
        self.num_checked = 0

    def __call__(self, name: str, text: str) -> str | None:
        """Why the text `name` is not taken; None: it shares nothing."""
        self.num_checked += 1
        overlaps = list(self._index.overlaps([text]))
        for overlap in overlaps:
            place = self._index.places[overlap.item]
            file = str(self._index.files[overlap.file])
            row = {"id": name, "file": file, "item": place, "words": overlap.words, "num_runs": overlap.num_runs}
            self.rows.append(row)
        return f"shares words with {self._index.files[overlaps[0].file].name}" if overlaps else None

    def as_json(self) -> dict[str, Any]:
        """What was looked for and found: each file, its items, and how many drawn texts were refused for it."""
        refused = Counter(row["file"] for row in self.rows)
        counts = zip(map(str, self._index.files), self._index.num_items, strict=True)
        return {
            "num_words": self._index.num_words,
            "num_checked": self.num_checked,
            "num_refused": len({row["id"] for row in self.rows}),
            "files": [{"file": file, "num_items": num, "num_refused": refused[file]} for file, num in counts],
        }
