"""Aligned utterances with cached features: what sequences are built from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from transformers import PreTrainedTokenizerBase

from salad.errors import AlignmentError, DataError
from salad.interleave.sequence import MixedSequence, mixed_sequence, num_positions, text_sequence
from salad.model.features import FeatureStore
from salad.model.llm import document_mark
from salad.model.speech_lm import SpeechLM
from salad.randomness import generator
from salad.recipe import SequenceSettings
from salad.speech.prepared import Rejected, TimedWord, aligned, read_cuts, words_of


@dataclass(frozen=True)
class Utterance:
    """A spoken text: its timed words and its frozen-encoder frames [F, E], as they are kept."""

    id: str
    words: tuple[TimedWord, ...]
    features_FE: np.ndarray

    @property
    def text(self) -> str:
        """The words, joined by single spaces."""
        return " ".join(word.text for word in self.words)


def load_utterances(folder: Path, encoder_name: str) -> list[Utterance]:
    """The aligned utterances of a prepared and encoded folder, without those that could not be encoded."""
    store = FeatureStore(folder, encoder_name)
    rejected = {row.id for row in store.rejected()}
    utterances: list[Utterance] = []
    for cut in aligned(read_cuts(folder)):
        if cut.id not in rejected:
            store.check(cut)
            utterances.append(Utterance(cut.id, tuple(words_of(cut)), store.load(cut.id)))
    return utterances


@dataclass(frozen=True)
class SequenceBuilder:
    """Turns utterances into mixed sequences under one policy; knows the tokenizer and the frame rate.

    `position_hz` is LLM positions per second, `frames_per_position` encoder frames per LLM position.
    """

    tokenizer: PreTrainedTokenizerBase
    mark: int
    settings: SequenceSettings
    position_hz: float
    frames_per_position: int
    seed: int

    @classmethod
    def of(cls, model: SpeechLM, tokenizer: PreTrainedTokenizerBase, settings: SequenceSettings, seed: int) -> Self:
        """The builder for a model's frame rate; `tokenizer` is the LLM's own, without the speech mark."""
        return cls(
            tokenizer,
            document_mark(tokenizer),
            settings,
            model.config.position_hz,
            int(model.config.adapter["frames_per_position"]),
            seed,
        )

    def text(self, item: str, text: str) -> MixedSequence:
        """A text as a sequence without speech, cut at `max_positions`."""
        return text_sequence(item, text, self.tokenizer, self.mark, self.settings.max_positions)

    def mixed(self, utterance: Utterance, epoch: int = 0) -> MixedSequence:
        """The sequence of an utterance in an epoch; policies that draw spans draw anew each epoch.

        A later epoch whose spans can't be used (nothing but speech, a span without frames) takes those of epoch 0,
        which `usable` has tried, so training never stops over an unlucky draw.
        """
        try:
            return self._drawn(utterance, epoch)
        except (DataError, AlignmentError):
            if epoch == 0:
                raise
            return self._drawn(utterance, 0)

    def _drawn(self, utterance: Utterance, epoch: int) -> MixedSequence:
        return mixed_sequence(
            utterance.id,
            utterance.words,
            num_positions(len(utterance.features_FE), self.frames_per_position),
            self.position_hz,
            self.tokenizer,
            self.mark,
            self.settings,
            generator(self.seed, "spans", utterance.id, epoch),
        )

    def usable(self, utterances: Iterable[Utterance]) -> tuple[list[Utterance], list[Rejected]]:
        """Split utterances into those the policy can use and those it can't, with reasons."""
        taken: list[Utterance] = []
        rejected: list[Rejected] = []
        for utterance in utterances:
            try:
                self.mixed(utterance)
                taken.append(utterance)
            except (DataError, AlignmentError) as error:
                rejected.append(Rejected(utterance.id, str(error), self.settings.policy))
        return taken, rejected


def feature_lookup(*groups: Sequence[Utterance]) -> Callable[[str], np.ndarray]:
    """utterance id -> frames, over several groups of utterances."""
    table = {utterance.id: utterance.features_FE for group in groups for utterance in group}
    return table.__getitem__
