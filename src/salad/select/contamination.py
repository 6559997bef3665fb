"""Which words in a row a text shares with evaluation items (n-gram overlap, n = 13: Brown et al. 2020, appendix C).

A text is contaminated if, by its words (salad.select.words),

- n words in a row stand in an item;
- it has fewer than n, at least 8, and stands whole in an item;
- an item of fewer than n, at least 8, stands whole in it;
- or both have fewer than 8 and are the same.

An item is its stem, and its stem followed by each alternative (salad.select.evaluation_text).

Every word of the items has a number, and a run of words a 64-bit hash that moves on with the window; a run with a word
that no item has is none. Whatever the hashes find is compared word by word, so nothing is found by chance.

Axes: W words of all items, B words of a batch of texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salad.errors import RecipeError
from salad.select.evaluation_text import EvaluationItem, evaluation_items
from salad.select.words import words_of

SHORT = 8
"""Fewer words in a row than this are common language."""

BATCH_WORDS = 1 << 17
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)
_SIEVE_SIZE = 4  # entries of the sieve for each hash, at least: of the runs in no item, one in 4 to 8 is looked up


@dataclass(frozen=True)
class Overlap:
    """What a text shares with a file of evaluation items: the first such run of words, in one of the items with it."""

    text: int
    file: int
    item: int
    words: str
    num_runs: int


@dataclass(frozen=True)
class _Runs:
    """Hashes of runs of words, sorted, and where each begins; a sieve by their highest bits."""

    hashes: NDArray[np.uint64]
    begins: NDArray[np.int64]
    sieve: NDArray[np.bool_]
    shift: np.uint64

    @classmethod
    def of(cls, hashes: NDArray[np.uint64], begins: NDArray[np.int64], files: NDArray[np.int64]) -> _Runs:
        """Of equal hashes the first in each file is kept."""
        order = np.lexsort((begins, files, hashes))
        hashes, begins, files = hashes[order], begins[order], files[order]
        first = np.ones(len(hashes), bool)
        first[1:] = (hashes[1:] != hashes[:-1]) | (files[1:] != files[:-1])
        bits = max(1, (_SIEVE_SIZE * len(hashes)).bit_length())
        shift = np.uint64(64 - bits)
        sieve = np.zeros(1 << bits, bool)
        sieve[hashes >> shift] = True
        return cls(hashes[first], begins[first], sieve, shift)

    def found(self, hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The numbers of those hashes that are here, and where their runs begin; one entry for each file."""
        maybe = np.flatnonzero(self.sieve[hashes >> self.shift])
        low = np.searchsorted(self.hashes, hashes[maybe], "left")
        count = np.searchsorted(self.hashes, hashes[maybe], "right") - low
        nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return np.repeat(maybe, count), self.begins[np.repeat(low, count) + nth]


class EvaluationIndex:
    """The runs of words of evaluation items; `overlaps` finds them in texts.

    `places` and `ids` are those of the items; `num_items` counts them for each file.
    """

    def __init__(self, files: Sequence[Path], num_words: int = 13) -> None:
        """Read the files; memory holds about 150 bytes for each of their words.

        Raises:
            RecipeError: fewer than 3 words in a row, which any two texts share.
            MissingFileError, DataError: see `evaluation_items`.
        """
        if num_words < 3:
            raise RecipeError(f"{num_words} words in a row are shared by any two texts; give 3 or more, usually 13.")
        self.files, self.num_words, self.short = list(files), num_words, min(SHORT, num_words)
        self.places: list[str] = []
        self.ids: list[str | None] = []
        self.num_items: list[int] = []
        self._numbers: dict[str, int] = {}
        passages: list[list[int]] = []
        owners: list[tuple[int, int, bool]] = []
        for number, file in enumerate(self.files):
            before = len(self.places)
            for item in evaluation_items(file):
                for words, is_whole in self._passages(item):
                    passages.append([self._numbers.setdefault(word, len(self._numbers) + 1) for word in words])
                    owners.append((number, len(self.places), is_whole))
                self.places.append(item.place)
                self.ids.append(item.id)
            self.num_items.append(len(self.places) - before)
        self._words = ["", *self._numbers]
        self._file, self._item, whole = (np.array(part) for part in zip(*owners, strict=True))
        self._codes, self._begins, lengths = _joined(passages)
        self._index(lengths, whole.astype(bool))

    def _passages(self, item: EvaluationItem) -> Iterator[tuple[list[str], bool]]:
        """The stem, and of each alternative what is not in the stem alone; whether that is all there is."""
        stem = words_of(item.stem)
        if stem:
            yield stem, True
        tail = stem[-(self.num_words - 1) :]
        for alternative in item.alternatives:
            if words := words_of(alternative):
                yield tail + words, len(tail) == len(stem)

    def _index(self, lengths: NDArray[np.int64], whole: NDArray[np.bool_]) -> None:
        """Runs of 8 to n words, and passages of fewer than n that are all of an item."""
        sums = _hash_sums(self._codes)
        self._runs: dict[int, _Runs] = {}
        self._wholes: dict[int, _Runs] = {}
        for length in range(1, self.num_words + 1):
            if length >= self.short:
                begins = _runs_without_gap(self._codes, length)
                self._runs[length] = self._runs_at(sums, begins, length)
            if length < self.num_words:
                begins = self._begins[whole & (lengths == length)]
                self._wholes[length] = self._runs_at(sums, begins, length)

    def _runs_at(self, sums: NDArray[np.uint64], begins: NDArray[np.int64], length: int) -> _Runs:
        files = self._file[np.searchsorted(self._begins, begins, "right") - 1]
        return _Runs.of(_hashes(sums, begins, length), begins, files)

    def overlaps(self, texts: Iterable[str]) -> Iterator[Overlap]:
        """For every text and file with words in common, one overlap; texts are numbered from 0."""
        first, codes, begins = 0, list[int](), list[int]()
        for text in texts:
            begins.append(len(codes))
            codes.extend(map(self._numbers.get, words_of(text), repeat(0)))
            codes.append(0)
            if len(codes) >= BATCH_WORDS:
                yield from self._overlaps(np.array(codes, np.int32), np.array(begins), first)
                first += len(begins)
                codes, begins = [], []
        if begins:
            yield from self._overlaps(np.array(codes, np.int32), np.array(begins), first)

    def _overlaps(self, codes: NDArray[np.int32], begins: NDArray[np.int64], first: int) -> Iterator[Overlap]:
        sums = _hash_sums(codes)
        lengths = np.diff(begins, append=len(codes)) - 1
        found: list[NDArray[np.int64]] = []  # text, file, minus the length, where it begins, item
        for length in range(1, self.num_words + 1):
            for runs, at in self._asked(codes, begins, lengths, length):
                which, theirs = runs.found(_hashes(sums, at, length))
                ours, steps = at[which], np.arange(length)
                same = (codes[ours[:, None] + steps] == self._codes[theirs[:, None] + steps]).all(1)
                ours, theirs = ours[same], theirs[same]
                texts = np.searchsorted(begins, ours, "right") - 1
                passages = np.searchsorted(self._begins, theirs, "right") - 1
                shared = (texts, self._file[passages], np.full(len(ours), -length), ours, self._item[passages])
                found.append(np.stack(shared, 1))
        yield from self._first_of_each(np.concatenate(found), codes, first)

    def _first_of_each(self, found: NDArray[np.int64], codes: NDArray[np.int32], first: int) -> Iterator[Overlap]:
        """Of each text and file the longest run, of equal ones the first; how many runs there are."""
        found = found[np.lexsort(found.T[::-1])]
        _, firsts, counts = np.unique(found[:, :2], axis=0, return_index=True, return_counts=True)
        for (text, file, length, begin, item), num_runs in zip(found[firsts].tolist(), counts.tolist(), strict=True):
            words = " ".join(self._words[code] for code in codes[begin : begin - length])
            yield Overlap(first + text, file, item, words, num_runs)

    def _asked(
        self, codes: NDArray[np.int32], begins: NDArray[np.int64], lengths: NDArray[np.int64], length: int
    ) -> Iterator[tuple[_Runs, NDArray[np.int64]]]:
        """Where runs of this length must be looked for, and among which."""
        of_this = begins[lengths == length]
        of_this = of_this[_has_no_gap(codes, of_this, length)]
        if length == self.num_words:
            yield self._runs[length], _runs_without_gap(codes, length)
        elif length < self.short:
            yield self._wholes[length], of_this
        else:
            yield self._runs[length], of_this
            if len(self._wholes[length].hashes):
                yield self._wholes[length], _runs_without_gap(codes, length)


def _joined(passages: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """All words, a 0 after each passage; where each begins; its length."""
    lengths = np.array([len(passage) for passage in passages], np.int64)
    begins = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]]).astype(np.int64)
    codes = np.zeros(int((lengths + 1).sum()), np.int32)
    for begin, passage in zip(begins, passages, strict=True):
        codes[begin : begin + len(passage)] = passage
    return codes, begins, lengths


def _runs_without_gap(codes: NDArray[np.int32], length: int) -> NDArray[np.int64]:
    """Where runs of `length` words begin that hold no 0."""
    return np.flatnonzero(_has_no_gap(codes, np.arange(max(0, len(codes) - length + 1)), length))


def _has_no_gap(codes: NDArray[np.int32], begins: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    gaps = np.concatenate([[0], np.cumsum(codes == 0)])
    return np.asarray(gaps[begins + length] == gaps[begins])


def _hash_sums(codes: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Σ_{j<i} v_j B^j modulo 2^64 [W + 1], v a scrambled word number (SplitMix64's finalizer)."""
    v = codes.astype(np.uint64) * np.uint64(_BASE)
    v = (v ^ (v >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    v = (v ^ (v >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    v ^= v >> np.uint64(31)
    return np.concatenate([np.zeros(1, np.uint64), np.cumsum(v * _powers(_BASE, len(codes)), dtype=np.uint64)])


def _hashes(sums: NDArray[np.uint64], begins: NDArray[np.int64], length: int) -> NDArray[np.uint64]:
    """Of the runs of `length` words that begin there: Σ_j v_{begin+j} B^j, wherever they stand."""
    return np.asarray((sums[begins + length] - sums[begins]) * _powers(_INVERSE, len(sums))[begins])


_KNOWN_POWERS: dict[int, NDArray[np.uint64]] = {}


def _powers(base: int, num: int) -> NDArray[np.uint64]:
    known = _KNOWN_POWERS.get(base)
    if known is None or len(known) < num:
        steps = np.full(num, base, np.uint64)
        steps[:1] = 1
        known = _KNOWN_POWERS[base] = np.cumprod(steps, dtype=np.uint64)
    return known[:num]
