"""Utterances and texts -> mixed sequences under one policy, and which utterances the policy can use."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from salad.errors import AlignmentError, DataError
from salad.files import open_atomic
from salad.interleave.sequence import MixedSequence, mixed_sequence, num_positions, text_sequence
from salad.interleave.spans import shortened
from salad.interleave.utterances import SpeechCorpus, Utterance
from salad.model.llm import document_mark
from salad.model.speech_lm import SpeechLM
from salad.randomness import generator
from salad.recipe import SequenceSettings
from salad.speech.prepared import Rejected

USABLE_VERSION = 1


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

    def mixed(self, utterance: Utterance, epoch: int = 0, spoken_frac: float = 1.0) -> MixedSequence:
        """The sequence of an utterance in an epoch; policies that draw spans draw anew each epoch.

        With a `spoken_frac` what is heard is that much shorter (`shortened`). Spans that can't be used (nothing but
        speech, a span without frames) are replaced by the whole ones of epoch 0, which `usable` has tried, so training
        never stops over an unlucky draw.
        """
        try:
            return self._drawn(utterance, epoch, spoken_frac)
        except (DataError, AlignmentError):
            if (epoch, spoken_frac) == (0, 1.0):
                raise
            return self._drawn(utterance, 0, 1.0)

    def _drawn(self, utterance: Utterance, epoch: int, spoken_frac: float) -> MixedSequence:
        settings = shortened(self.settings, spoken_frac)
        return mixed_sequence(
            utterance.id,
            utterance.words,
            num_positions(len(utterance.features_FE), self.frames_per_position),
            self.position_hz,
            self.tokenizer,
            self.mark,
            settings,
            generator(self.seed, "spans", utterance.id, epoch),
            utterance.continuation(settings.continuation_words) if settings.policy == "utterance" else "",
        )

    def usable(self, speech: Sequence[Utterance]) -> tuple[Sequence[Utterance], list[Rejected]]:
        """Split utterances into those the policy can use and those it can't, with reasons.

        Every utterance is tried, its words and its number of frames; features are not read. What is found out about a
        corpus on the disk is kept beside its index, so that a run that goes on doesn't ask again; the cuts that are no
        utterances of it are among the rejected.

        Raises:
            MissingFileError, CheckpointError: features are missing, or of other audio; encode the folder again.
        """
        if not isinstance(speech, SpeechCorpus):
            kept, rejected = self._sort_out(speech)
            return [speech[i] for i in kept], rejected
        path = speech.cuts.place / f"usable-{self._key(speech)}.npz"
        found = _read(path)
        if found is None and os.access(path.parent, os.W_OK):
            with FileLock(path.with_suffix(".lock")):
                found = _read(path) or self._sort_out(speech)  # another process may have been faster
                _write(path, *found)
        kept, rejected = found or self._sort_out(speech)
        return speech.take(kept), rejected

    def _sort_out(self, speech: Sequence[Utterance]) -> Sorted:
        kept: list[int] = []
        rejected: list[Rejected] = []
        for index in range(len(speech)):
            utterance = speech[index]
            try:
                self.mixed(utterance)
                kept.append(index)
            except (DataError, AlignmentError) as error:
                rejected.append(Rejected(utterance.id, str(error), self.settings.policy))
        if isinstance(speech, SpeechCorpus):
            rejected += speech.left_out()
        return np.array(kept, np.int64), rejected

    def _key(self, speech: SpeechCorpus) -> str:
        """A hash of everything that `_sort_out` depends on, but the cuts, which the folder of the index stands for."""
        features = (speech.store.where / "index.npy").stat()
        backend: Any = self.tokenizer.backend_tokenizer
        parts = [
            USABLE_VERSION,
            hashlib.sha256(speech.rows.tobytes()).hexdigest(),
            sorted(speech.hidden),
            [speech.store.encoder_name, features.st_size, features.st_mtime_ns],
            hashlib.sha256(backend.to_str().encode()).hexdigest(),
            self.settings.model_dump(mode="json"),
            [self.mark, self.position_hz, self.frames_per_position, self.seed],
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


Sorted = tuple[NDArray[np.int64], list[Rejected]]


def _write(path: Path, kept: NDArray[np.int64], rejected: list[Rejected]) -> None:
    rows = json.dumps([[row.id, row.reason, row.place] for row in rejected]).encode()
    with open_atomic(path) as file:
        np.savez(file, kept=kept, rejected=np.frombuffer(rows, np.uint8))


def _read(path: Path) -> Sorted | None:
    """What was written; None where nothing was, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as found:
            rows = json.loads(found["rejected"].tobytes())
            return found["kept"], [Rejected(*row) for row in rows]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
        return None
