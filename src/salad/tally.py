"""Counting a stream in bounded memory: quantiles and histograms of numbers, and reasons by their kind."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

NUM_BINS = 16
"""About so many bars: they fit a terminal and a figure."""

MAX_KINDS = 500
"""More kinds of reasons are none: the rest is counted together."""

_PARTICULAR = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\S*/\S+|(?<![\w.])\d+(?:\.\d+)?(?!\w)")


@dataclass
class Tally:
    """Numbers counted by their value, rounded to whole multiples of `resolution`; exact count, sum, least and most.

    Memory holds one counter for each multiple that occurred, however many numbers there are.
    """

    resolution: float
    count: int = 0
    total: float = 0.0
    least: float = math.inf
    most: float = -math.inf
    _counts: Counter[int] = field(default_factory=Counter)

    def add(self, *values: float) -> None:
        """Count numbers."""
        if values:
            self.count += len(values)
            self.total += sum(values)
            self.least, self.most = min(self.least, *values), max(self.most, *values)
            self._counts.update([math.floor(value / self.resolution + 0.5) for value in values])

    def quantile(self, frac: float) -> float | None:
        """The number that `frac` (0-1) of them lie below, between two by the line; None without numbers.

        NumPy's `quantile` of the rounded numbers.
        """
        if not self.count:
            return None
        rank = frac * (self.count - 1)
        low, high = self._ranked(math.floor(rank)), self._ranked(math.ceil(rank))
        return self._value(low) + (self._value(high) - self._value(low)) * (rank - math.floor(rank))

    def _ranked(self, rank: int) -> int:
        """The multiple with `rank` smaller ones before it."""
        seen = 0
        for multiple in sorted(self._counts):
            seen += self._counts[multiple]
            if seen > rank:
                return multiple
        raise IndexError(rank)

    def summary(self) -> dict[str, float | None]:
        """min, p5, median, mean, p95, max; None each without numbers."""
        if not self.count:
            return dict.fromkeys(("min", "p5", "median", "mean", "p95", "max"))
        quantiles = {name: self.quantile(frac) for name, frac in (("p5", 0.05), ("median", 0.5), ("p95", 0.95))}
        mean = self.total / self.count
        return {"min": self.least, "p5": quantiles["p5"], "median": quantiles["median"], "mean": mean} | {
            "p95": quantiles["p95"],
            "max": self.most,
        }

    def histogram(self) -> dict[str, list[Any]]:
        """`edges` and `counts`: bin i holds edges[i] ≤ rounded value < edges[i + 1], the last one its upper edge too.

        Bins are equally wide, by 1, 2 or 5 times a power of ten; what lies beyond the last of 99.5 % of the numbers is
        in one wide bin, so that a single long item does not flatten all others.
        """
        if not self.count:
            return {"edges": [], "counts": []}
        multiples = sorted(self._counts)
        usual = math.floor(float(self.quantile(0.995) or 0.0) / self.resolution + 0.5)
        width = _round_width(max(1, usual - multiples[0]) / NUM_BINS)
        edges = list(range(multiples[0] // width * width, usual + width + 1, width))
        while len(edges) > 2 and edges[-2] > multiples[-1]:
            edges.pop()
        if multiples[-1] > edges[-1]:
            edges.append(multiples[-1])
        counts = [0] * (len(edges) - 1)
        bin_ = 0
        for multiple in multiples:
            while bin_ < len(counts) - 1 and multiple >= edges[bin_ + 1]:
                bin_ += 1
            counts[bin_] += self._counts[multiple]
        return {"edges": [self._value(edge) for edge in edges], "counts": counts}

    def _value(self, multiple: int) -> float:
        return round(multiple * self.resolution, 10)


def _round_width(at_least: float) -> int:
    """The least of 1, 2, 5, 10, 20, … that is not less."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= at_least:
                return factor * power
        power *= 10


@dataclass
class _Kind:
    """Reasons that differ in quoted words, paths and numbers alone: what these were in all of them."""

    parts: list[str]  # what stands between the particulars
    low: list[str]  # each particular: the one that all share, or for numbers the least and the most
    high: list[str]
    count: int = 0
    example: dict[str, str] = field(default_factory=dict)

    def add(self, particulars: list[str]) -> None:
        self.count += 1
        for slot, value in enumerate(particulars):
            if self.low[slot] == self.high[slot] == value:
                continue
            if _is_number(value) and _is_number(self.low[slot]):
                self.low[slot] = min(self.low[slot], value, key=float)
                self.high[slot] = max(self.high[slot], value, key=float)
            else:
                self.low[slot] = self.high[slot] = "…"

    def name(self) -> str:
        slots = [low if low == high else f"{low}–{high}" for low, high in zip(self.low, self.high, strict=True)]
        return "".join(part + slot for part, slot in zip(self.parts, [*slots, ""], strict=True)).strip()


def _is_number(value: str) -> bool:
    return value[:1].isdigit() and "/" not in value


@dataclass
class Kinds:
    """Rejected items counted by the kind of their reason: what stands before its first colon.

    Quoted words, paths and numbers that all of a kind share are kept ("fewer than 5 words"); numbers that differ become
    a range ("1–4 words, fewer than 5"), other particulars "…".
    """

    count: int = 0
    _kinds: dict[tuple[str, ...], _Kind] = field(default_factory=dict)
    _others: int = 0

    def add(self, reason: str, item: str = "", place: str = "") -> None:
        """Count one item."""
        self.count += 1
        said = (reason.partition(": ")[0] or reason).strip().rstrip(".") or "no reason given"
        parts, particulars = _PARTICULAR.split(said), _PARTICULAR.findall(said)
        kind = self._kinds.get(tuple(parts))
        if kind is None:
            if len(self._kinds) >= MAX_KINDS:
                self._others += 1
                return
            example = {"id": item, "reason": reason, "place": place}
            kind = _Kind(parts, list(particulars), list(particulars), example=example)
            self._kinds[tuple(parts)] = kind
        kind.add(particulars)

    def rows(self) -> list[dict[str, Any]]:
        """{"reason", "count", "example"} for each kind, the most frequent first."""
        kinds = sorted(self._kinds.values(), key=lambda kind: -kind.count)
        rows: list[dict[str, Any]] = [
            {"reason": kind.name(), "count": kind.count, "example": kind.example} for kind in kinds
        ]
        return rows + ([{"reason": "other reasons", "count": self._others, "example": None}] if self._others else [])
