"""Utterances: timed words and frozen-encoder frames, in memory or read from a prepared folder when they are asked for.

    corpus = SpeechCorpus(folder, "whisper-tiny.en").without(held_out)
    corpus[7].features_FE[:100]      # reads these 100 frames

A corpus of any size takes the memory of an array of row numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from salad.errors import AlignmentError
from salad.model.features import FeatureStore, Frames
from salad.speech.index import IndexedCuts
from salad.speech.prepared import Rejected, TimedWord


def _nothing(num_words: int) -> str:  # noqa: ARG001  # the text that follows where there is none
    return ""


@dataclass(frozen=True)
class Utterance:
    """A spoken text: its timed words and its frozen-encoder frames [F, E].

    `continuation(n)` is the first n words of the text that follows it in its document; "" where nothing does.
    """

    id: str
    words: tuple[TimedWord, ...]
    features_FE: Frames
    continuation: Callable[[int], str] = _nothing

    @property
    def text(self) -> str:
        """The words, joined by single spaces."""
        return " ".join(word.text for word in self.words)


class SpeechCorpus(Sequence[Utterance]):
    """The aligned utterances of a folder, or some of them, by number. Picklable; a worker opens its own files."""

    def __init__(self, folder: Path, encoder_name: str) -> None:
        """All aligned utterances of a prepared and encoded folder, in its order.

        Raises:
            MissingFileError: it was not prepared, or not encoded.
            AlignmentError: none of its cuts has word timings, or some are of another text.
            DataError: its cuts are not what they should be; see `IndexedCuts`.
        """
        self.cuts = IndexedCuts(folder)
        self.store = FeatureStore(folder, encoder_name)
        aligned = self.cuts.num_words > 0
        if len(self.cuts) and not aligned.any():
            raise AlignmentError(f"no cut of {folder} has word timings; run 'salad align' on it first.")
        unencoded = [self.cuts.row(row.id) for row in self.store.rejected()]
        aligned[[row for row in unencoded if row is not None]] = False
        self.rows: NDArray[np.int64] = np.flatnonzero(aligned)
        self.hidden: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Utterance | Self:
        """An utterance, or the corpus of some."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        row = int(self.rows[index])
        record = self.cuts[row]
        frames = self.store.frames(record.id, int(self.cuts.sounds[row]))
        return Utterance(record.id, record.words, frames, partial(self.cuts.continuation, row, self.hidden))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Self:
        """The corpus of these utterances, numbered as in this one, in the order given."""
        taken = object.__new__(type(self))
        taken.__dict__ |= self.__dict__ | {"rows": self.rows[np.asarray(indices, np.int64)]}
        return taken

    def left_out(self) -> Iterator[Rejected]:
        """The cuts of the folder that are no utterances: not aligned, or not encoded."""
        for row in np.flatnonzero(self.cuts.num_words == 0):
            yield Rejected(self.cuts[int(row)].id, "not aligned: the cut has no word timings", str(self.cuts.folder))
        yield from self.store.rejected()

    def without(self, ids: Iterable[str]) -> Self:
        """The corpus without the utterances of these ids, and with no continuation that is read from them.

        Raises:
            DataError: the folder has no cut of one of these ids.
        """
        rows = self.cuts.rows_of(ids)
        left = self.take(np.flatnonzero(~np.isin(self.rows, rows)))
        left.hidden = self.hidden | frozenset(rows.tolist())
        return left

    def only(self, ids: Iterable[str]) -> Self:
        """The corpus of the utterances of these ids, in the folder's order.

        Raises:
            DataError: the folder has no cut of one of these ids.
        """
        return self.take(np.flatnonzero(np.isin(self.rows, self.cuts.rows_of(ids))))


def feature_lookup(*groups: Iterable[Utterance]) -> Callable[[str], Frames]:
    """utterance id -> frames, over several groups of utterances."""
    table = {utterance.id: utterance.features_FE for group in groups for utterance in group}
    return table.__getitem__
