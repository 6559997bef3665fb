"""One utterance -> one mixed sequence, with the checked student-teacher position map.

The teacher reads    mark t1 t2 t3 t4 t5 ...                 (the whole text, tokenized once)
the student reads    mark t1 t2 [speech frames of t3 t4] t5  (some words heard)

A student position carries loss when its next element is a text token; its teacher position is the one that has read the
same words. The last frame of a speech span therefore pairs with the teacher's last token of that span's last word.
Speech frames are counted in LLM positions (12.5 Hz by default); a frame belongs to a span by its centre.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as SequenceABC
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from salad.errors import AlignmentError, DataError
from salad.interleave.spans import Span, plan_spans
from salad.interleave.words import encoded, tokenize_words
from salad.recipe import SequenceSettings
from salad.speech.prepared import TimedWord

MAX_CHARACTERS_PER_TOKEN = 32  # in the mean of a whole sequence; English has 4 to 5
SPEECH = -1  # stands in input_ids for one speech position; replaced by the model's placeholder id when batched


@dataclass(frozen=True)
class SpeechSpan:
    """LLM positions `start` up to `stop` of the speech of utterance `utterance`."""

    utterance: str
    start: int
    stop: int


class Pair(NamedTuple):
    """A student position, the teacher position that has read the same words, and the text token both predict."""

    student: int
    teacher: int
    target: int


@dataclass(frozen=True)
class MixedSequence:
    """What student and teacher read of one item, and where their predictions are compared."""

    item: str
    student_ids: tuple[int, ...]
    teacher_ids: tuple[int, ...]
    speech: tuple[SpeechSpan, ...]
    pairs: tuple[Pair, ...]

    def check(self) -> None:
        """Verify the position map and the speech spans.

        Raises:
            AlignmentError: student and teacher do not predict the same token somewhere, or frames are missing.
        """
        for pair in self.pairs:
            student, teacher = _next(self.student_ids, pair.student), _next(self.teacher_ids, pair.teacher)
            if not student == teacher == pair.target:
                raise AlignmentError(
                    f"utterance {self.item!r}: student position {pair.student} predicts token {student}, its teacher "
                    f"position {pair.teacher} predicts {teacher}, the map says {pair.target}."
                )
        frames = sum(span.stop - span.start for span in self.speech)
        if frames != self.student_ids.count(SPEECH):
            raise AlignmentError(f"utterance {self.item!r}: {frames} frames for another number of speech positions.")


def _next(ids: tuple[int, ...], position: int) -> int | None:
    return ids[position + 1] if 0 <= position < len(ids) - 1 else None


def num_positions(num_frames: int, frames_per_position: int) -> int:
    """LLM positions of a clip of `num_frames` encoder frames; the last one may be partly empty."""
    return -(-num_frames // frames_per_position)


def span_positions(
    words: SequenceABC[TimedWord], span: Span, position_hz: float, available: int, item: str
) -> tuple[int, int]:
    """The LLM positions whose centre lies in the time of `span`: half-way to the neighbouring words on both sides.

    The first word's time begins, and the last word's ends, with the clip.

    Raises:
        AlignmentError: no position's centre lies in the span.
    """
    begin_s = 0.0 if span.start == 0 else (words[span.start - 1].end_s + words[span.start].start_s) / 2
    last = span.stop == len(words)
    end_s = math.inf if last else (words[span.stop - 1].end_s + words[span.stop].start_s) / 2
    start = max(0, math.ceil(begin_s * position_hz - 0.5))
    stop = available if last else min(available, math.ceil(end_s * position_hz - 0.5))
    if stop <= start:
        raise AlignmentError(
            f"utterance {item!r}: words {span.start}-{span.stop} are heard between {begin_s:.2f} s and {end_s:.2f} s, "
            f"where the clip of {available / position_hz:.2f} s has no frame."
        )
    return start, stop


def text_sequence(item: str, text: str, tokenizer: PreTrainedTokenizerBase, mark: int, limit: int) -> MixedSequence:
    """A sequence of text alone: student and teacher read the same; every token is predicted.

    Of a text that is far longer than `limit` positions only the beginning is tokenized.
    """
    beginning = text[: limit * MAX_CHARACTERS_PER_TOKEN]
    ids: list[int] = encoded(tokenizer, beginning).ids
    if len(beginning) < len(text) and len(ids) < limit:
        ids = encoded(tokenizer, text).ids
    both = (mark, *ids)[:limit]
    positions = range(len(both) - 1)
    return MixedSequence(item, both, both, (), tuple(map(Pair, positions, positions, both[1:])))


def mixed_sequence(
    item: str,
    words: SequenceABC[TimedWord],
    num_clip_positions: int,
    position_hz: float,
    tokenizer: PreTrainedTokenizerBase,
    mark: int,
    settings: SequenceSettings,
    rng: np.random.Generator,
    continuation: str = "",
) -> MixedSequence:
    """One aligned utterance as an interleaved sequence under a policy.

    Args:
        item: the utterance's id.
        words: its timed words.
        num_clip_positions: LLM positions its speech has.
        position_hz: LLM positions per second of speech.
        tokenizer: the LLM's.
        mark: the token id sequences start with.
        settings: the policy.
        rng: made of (seed, "spans", item, epoch).
        continuation: text that follows the utterance and is never heard; the `utterance` policy needs it.

    Raises:
        DataError: too few words, no continuation where one is needed, or longer than `max_positions`.
        AlignmentError: a speech span without frames, or an inconsistent position map.
    """
    spans = plan_spans(len(words), settings, rng)
    read_after = continuation.split()
    if read_after:
        spans.append(Span("text", len(words), len(words) + len(read_after)))
    elif settings.policy == "utterance":
        raise DataError("no text follows the utterance, which sequence.policy=utterance needs")
    ids, ends = tokenize_words(tokenizer, " ".join([*(word.text for word in words), *read_after]))
    starts = [0, *ends[:-1]]
    student: list[int] = [mark]
    speech: list[SpeechSpan] = []
    pairs: list[Pair] = []
    for span in spans:
        if span.kind == "speech":
            start, stop = span_positions(words, span, position_hz, num_clip_positions, item)
            speech.append(SpeechSpan(item, start, stop))
            student += [SPEECH] * (stop - start)
            continue
        first, end = starts[span.start], ends[span.stop - 1]
        pairs += map(Pair, range(len(student) - 1, len(student) - 1 + end - first), range(first, end), ids[first:end])
        student += ids[first:end]
    sequence = MixedSequence(item, tuple(student), (mark, *ids), tuple(speech), tuple(pairs))
    if not pairs:
        raise DataError("no text to predict: all of its words are heard")
    if len(sequence.student_ids) > settings.max_positions:
        raise DataError(f"{len(sequence.student_ids)} positions, more than max_positions={settings.max_positions}")
    sequence.check()
    return sequence
