"""A spoken prefix that the student goes on from in its own words (Stage III), and what the teacher reads of it.

The student    mark t1 t2 [speech frames of t3 t4] | y1 y2 y3 ...    (y: its own tokens)
the teacher    mark t1 t2  t3 t4                   | y1 y2 y3 ...    (it reads the transcript in place of the speech)

A prefix is one of the stage's own sequences, cut after one of its speech spans. So on-policy and off-policy sequences
differ in who wrote what follows the speech, and in nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Self

from salad.interleave.sequence import MixedSequence, Pair, SpeechSpan
from salad.interleave.stream import Drawn, Stream
from salad.interleave.utterances import Utterance
from salad.randomness import generator


@dataclass(frozen=True)
class Prefix:
    """What student and teacher have read, of the same words, when the student begins to speak for itself."""

    item: str
    student_ids: tuple[int, ...]
    teacher_ids: tuple[int, ...]
    speech: tuple[SpeechSpan, ...]


def prefixes(sequence: MixedSequence) -> list[Prefix]:
    """A prefix for each speech span of a sequence, in order; it ends with the span's last frame."""
    read = {pair.student: pair.teacher for pair in sequence.pairs}
    found: list[Prefix] = []
    position = 0
    for number, span in enumerate(sequence.speech, start=1):
        while sequence.student_ids[position] >= 0:  # a token
            position += 1
        position += span.stop - span.start
        # Behind a span that nothing follows, the teacher has read everything.
        num_read = read.get(position - 1, len(sequence.teacher_ids) - 1) + 1
        heard, transcript = sequence.student_ids[:position], sequence.teacher_ids[:num_read]
        found.append(Prefix(sequence.item, heard, transcript, sequence.speech[:number]))
    return found


def continued(prefix: Prefix, own_ids: Sequence[int]) -> MixedSequence:
    """The sequence of a prefix and the student's own tokens behind it; each of these is predicted, and nothing else.

    Raises:
        AlignmentError: the prefix lacks speech frames.
    """
    own = tuple(own_ids)
    student, teacher = len(prefix.student_ids) - 1, len(prefix.teacher_ids) - 1
    pairs = tuple(Pair(student + k, teacher + k, token) for k, token in enumerate(own))
    sequence = MixedSequence(prefix.item, prefix.student_ids + own, prefix.teacher_ids + own, prefix.speech, pairs)
    sequence.check()
    return sequence


@dataclass(frozen=True)
class OnPolicyStream(Stream):
    """A stream in which the student goes on from some of its speech; all else is as it was, in the same order.

    `on_policy_frac` of the speech sequences, drawn by (seed, position), end in at most `max_tokens` tokens of the
    student's. `own` has them by position of the mix; what is not in it stays as it was.
    """

    on_policy_frac: float
    max_tokens: int
    own: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def over(cls, stream: Stream, on_policy_frac: float, max_tokens: int) -> Self:
        """A stream with nothing said yet."""
        kept = {part.name: getattr(stream, part.name) for part in fields(Stream)}
        return cls(**kept, on_policy_frac=on_policy_frac, max_tokens=max_tokens)

    def prefix(self, position: int) -> tuple[Prefix, Utterance] | None:
        """What the student goes on from at a position of the mix, and whose speech it is; None where it does not.

        It does not where there is no speech in the sequence, or no room behind it.
        """
        _, sequence, utterance = super()._drawn(position)
        prefix = self._chosen(position, sequence)
        return None if prefix is None or utterance is None else (prefix, utterance)

    def room(self, prefix: Prefix) -> int:
        """How many tokens may follow: as many as are asked for, or as fit into a sequence."""
        longest = max(len(prefix.student_ids), len(prefix.teacher_ids))
        return min(self.max_tokens, self.builder.settings.max_positions - longest)

    def _chosen(self, position: int, sequence: MixedSequence) -> Prefix | None:
        rng = generator(self.builder.seed, self.mix.purpose, "on-policy", position)
        found = [prefix for prefix in prefixes(sequence) if self.room(prefix) > 0]
        if not found or rng.random() >= self.on_policy_frac:
            return None
        return found[int(rng.integers(len(found)))]

    def _drawn(self, position: int) -> Drawn:
        source, sequence, utterance = super()._drawn(position)
        own = self.own.get(position)
        if own is not None and (prefix := self._chosen(position, sequence)) is not None:
            sequence = continued(prefix, own)
        return source, sequence, utterance
