"""The training stream: step -> the batches that a rank reads in it, at once for any step.

Step s takes positions s*N up to (s+1)*N of the mix, makes each item's sequence, packs them all into windows, whose
number is a multiple of the ranks, and collates the windows of one rank. So a step is a pure function of (seed, s): the
items are the same in the same order on any number of ranks and workers, every rank has as many windows as the others
and one at least, and resuming at any step costs nothing.

Every rank makes the sequences of all, because where a step is cut into windows follows from their lengths. Features are
read for its own windows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from torch.utils.data import DataLoader, Dataset

from salad.errors import DataError, SaladError
from salad.interleave.batch import Batch, collate
from salad.interleave.builder import SequenceBuilder
from salad.interleave.mix import Mix
from salad.interleave.packing import pack
from salad.interleave.parcel import Parcel
from salad.interleave.sequence import MixedSequence
from salad.interleave.utterances import SpeechCorpus, Utterance, feature_lookup
from salad.interrupts import leave_signals_to_parent
from salad.recipe import CurriculumSettings, StageSettings
from salad.speech.identity import id_hash, shared_ids
from salad.texts.text import Text

DRAWN = ("sequences", "speech_positions", "text_positions", "scored_positions")
"""What is counted of each source of the mix: the student's positions that hear, that read, and that carry loss."""
Drawn = tuple[int, MixedSequence, Utterance | None]
STEPS_AHEAD = 2  # that each worker makes before they are asked for


@dataclass(frozen=True)
class Stream:
    """Sources of speech and one of text, how they are mixed, and how a step is cut into batches. Picklable."""

    builder: SequenceBuilder
    speech: tuple[Sequence[Utterance], ...]
    texts: Sequence[Text]
    mix: Mix
    batch_sequences: int
    batch_positions: int
    speech_token_id: int
    steps: int
    curriculum: CurriculumSettings | None

    @classmethod
    def of(
        cls,
        builder: SequenceBuilder,
        speech: Sequence[Sequence[Utterance]],
        texts: Sequence[Text],
        weights: Sequence[float],
        settings: StageSettings,
        speech_token_id: int,
        purpose: str,
    ) -> Self:
        """The stream of a stage; `weights` are those of the sources of speech and then of the texts.

        Raises:
            RecipeError: a source with weight is empty; see `Mix`.
            DataError: two sources of speech hold the same utterance id.
        """
        _refuse_shared_ids(speech)
        mix = Mix([*map(len, speech), len(texts)], weights, builder.seed, purpose)
        return cls(
            builder,
            tuple(speech),
            texts,
            mix,
            settings.batch_sequences,
            settings.micro_batch_positions,
            speech_token_id,
            settings.steps,
            settings.curriculum,
        )

    def batches(self, step: int, rank: int = 0, world: int = 1) -> list[Batch]:
        """The batches of `step` (from 0) that rank `rank` of `world` reads.

        Raises:
            DataError: the step has too few sequences for so many ranks, or a text's line was changed.
            CheckpointError: features can't be read, or are of other audio.
        """
        drawn = self._step(step)
        sequences = [sequence for _, sequence, _ in drawn]
        features = feature_lookup([utterance for _, _, utterance in drawn if utterance is not None])
        windows = pack([len(s.student_ids) for s in sequences], self.batch_positions, multiple_of=world)
        made = []
        for window in windows[rank::world]:
            own = [sequences[i] for i in window]
            batch = collate(own, features, self.builder.frames_per_position, self.speech_token_id)
            made.append(replace(batch, drawn=self._counted([drawn[i] for i in window])))
        return made

    def drawn(self, step: int) -> tuple[tuple[int, ...], ...]:
        """What all ranks together read in `step`: a row of counts for each source of speech, and the texts' row last.

        A row's counts are `DRAWN`. Added up over the batches of all ranks, their `drawn` is this.
        """
        return self._counted(self._step(step))

    def _step(self, step: int) -> list[Drawn]:
        first = step * self.batch_sequences
        return [self._drawn(position) for position in range(first, first + self.batch_sequences)]

    def sequence(self, position: int) -> MixedSequence:
        """The sequence that stands at a position of the mix; step s reads those from s * `batch_sequences` on."""
        return self._drawn(position)[1]

    def _drawn(self, position: int) -> Drawn:
        """The source of what is at a position of the mix, its sequence, and the utterance it is of."""
        draw = self.mix.draw(position)
        if draw.source == len(self.speech):
            text = self.texts[draw.index]
            return draw.source, self.builder.text(text.id, text.text), None
        utterance = self.speech[draw.source][draw.index]
        spoken_frac = self.spoken_frac(position // self.batch_sequences)
        return draw.source, self.builder.mixed(utterance, draw.epoch, spoken_frac), utterance

    def spoken_frac(self, step: int) -> float:
        """How much of its full length what is heard has in a step; 1 but for a curriculum."""
        if self.curriculum is None:
            return 1.0
        start, grown = self.curriculum.start_frac, step / (self.curriculum.steps_frac * self.steps)
        return start + (1.0 - start) * min(1.0, grown)

    def _counted(self, drawn: Sequence[Drawn]) -> tuple[tuple[int, ...], ...]:
        rows = [[0] * len(DRAWN) for _ in range(len(self.speech) + 1)]
        for source, sequence, _ in drawn:
            heard = sum(span.stop - span.start for span in sequence.speech)
            counts = (1, heard, len(sequence.student_ids) - heard, len(sequence.pairs))
            rows[source] = [total + count for total, count in zip(rows[source], counts, strict=True)]
        return tuple(map(tuple, rows))


def _refuse_shared_ids(speech: Sequence[Sequence[Utterance]]) -> None:
    hashes = (
        group.cuts.hashes(group.rows)
        if isinstance(group, SpeechCorpus)
        else np.array([id_hash(utterance.id) for utterance in group], np.uint64)
        for group in speech
    )
    for first, second, found in shared_ids(hashes):
        raise DataError(
            f"{len(found)} utterances stand in two sources of the mix ({first + 1} and {second + 1}), the first is "
            f"{speech[first][int(found[0])].id!r}; prepare one of them with other ids."
        )


@dataclass(frozen=True)
class _Steps(Dataset["list[Batch] | SaladError"]):
    """The steps of a rank as a map-style dataset. What the user can mend travels as a value: torch would wrap it."""

    stream: Stream
    rank: int
    world: int

    def __getitem__(self, step: int) -> list[Batch] | SaladError:
        try:
            return self.stream.batches(step, self.rank, self.world)
        except SaladError as error:
            return error


def _as_it_is(batches: list[Batch] | SaladError) -> list[Batch] | SaladError:
    return batches


def _to_send(batches: list[Batch] | SaladError) -> Parcel | SaladError:
    return batches if isinstance(batches, SaladError) else Parcel.of(batches)


def loader(
    stream: Stream, first_step: int, last_step: int, rank: int = 0, world: int = 1, num_workers: int = 0
) -> Iterator[list[Batch]]:
    """The batches of steps `first_step` up to but not including `last_step`, in order.

    With workers, as many processes make steps before they are asked for; they end with this generator, whichever way it
    ends.

    Raises:
        SaladError: what `Stream.batches` raises, as it stands, from whichever process.
    """
    made = iter(
        DataLoader(
            _Steps(stream, rank, world),
            batch_size=None,
            sampler=range(first_step, last_step),
            num_workers=num_workers,
            collate_fn=_to_send if num_workers else _as_it_is,
            worker_init_fn=leave_signals_to_parent,
            prefetch_factor=STEPS_AHEAD if num_workers else None,
        )
    )
    try:
        for batches in made:
            if isinstance(batches, SaladError):
                raise batches
            yield batches.opened() if isinstance(batches, Parcel) else batches
    finally:
        del made  # ends the workers


def step_batches(
    stream: Stream, last_step: int, rank: int = 0, world: int = 1, num_workers: int = 0
) -> Callable[[int], list[Batch]]:
    """step -> its batches, for a training loop: asked for in order they are made ahead, any other step begins anew."""
    following: dict[int, Iterator[list[Batch]]] = {}

    def batches(step: int) -> list[Batch]:
        steps = following.pop(step, None) or loader(stream, step, last_step, rank, world, num_workers)
        following.clear()
        made = next(steps)
        following[step + 1] = steps
        return made

    return batches
