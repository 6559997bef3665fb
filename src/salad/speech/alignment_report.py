"""What a folder's word timings are worth: how many, by whom, how sure, and what they cost."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lhotse import MonoCut

from salad.speech.prepared import text_of

TIMED_BY = "timed_by"
"""In a cut's `custom`: the voice that spoke it, or the aligner's tag; not there when the timings came with the cut."""


@dataclass
class Report:
    """What a folder's timings are worth, gathered cut by cut."""

    aligner: str
    fingerprint: str
    num_aligned: int = 0
    num_kept: int = 0
    num_rejected: int = 0
    num_words: int = 0
    num_placed: int = 0
    confidences: array[float] = field(default_factory=lambda: array("d"))  # of cuts: means over their words
    worst: tuple[float, str] | None = None
    timed_by: Counter[str] = field(default_factory=Counter)
    speech_s: float = 0.0
    seconds: float = 0.0

    @property
    def tag(self) -> str:
        """The aligner as a cut names it."""
        return f"{self.aligner} {self.fingerprint[:8]}"

    def add(self, cut: MonoCut, kept: bool) -> None:
        """Count a cut that has timings."""
        items = cut.supervisions[0].alignment["word"]
        by = (cut.custom or {}).get(TIMED_BY, "came with the cut")
        self.timed_by[by] += 1
        self.num_kept += kept
        self.num_aligned += not kept
        self.num_words += len(items)
        scored = [item.score for item in items if item.score is not None]
        self.num_placed += len(scored) if by == self.tag else len(items)
        if scored:
            mean = float(np.mean(scored))
            self.confidences.append(mean)
            self.worst = min(self.worst or (mean, cut.id), (mean, cut.id))

    def reject(self, cut: MonoCut) -> None:
        """Count a cut that goes."""
        self.num_rejected += 1
        self.num_words += len(text_of(cut).split())

    def as_json(self) -> dict[str, Any]:
        """What alignment.json holds.

        `aligner`, `fingerprint`; `num_cuts`, of them `num_aligned` by this run, `num_kept` and `num_rejected`;
        `num_words` in all and `words_placed_frac` of them (words that the aligner could only put between others, and
        words of rejected cuts, are not placed); `confidence_median`, `_p5` and `_worst` with `worst_cut`, over cuts,
        of the mean over a cut's words; `timed_by`: the number of cuts by who timed them; `speech_s` that this run
        aligned, the `seconds` it took, and `times_real_time`, their ratio.
        """
        median, p5 = np.quantile(self.confidences, [0.5, 0.05]).tolist() if self.confidences else (None, None)
        worst, worst_cut = self.worst or (None, None)
        return {
            "aligner": self.aligner,
            "fingerprint": self.fingerprint,
            "num_cuts": self.num_kept + self.num_aligned + self.num_rejected,
            "num_aligned": self.num_aligned,
            "num_kept": self.num_kept,
            "num_rejected": self.num_rejected,
            "num_words": self.num_words,
            "words_placed_frac": self.num_placed / self.num_words if self.num_words else None,
            "confidence_median": median,
            "confidence_p5": p5,
            "confidence_worst": worst,
            "worst_cut": worst_cut,
            "timed_by": dict(self.timed_by.most_common()),
            "speech_s": self.speech_s,
            "seconds": self.seconds,
            "times_real_time": self.seconds / self.speech_s if self.speech_s else None,
        }
