"""Interleaved sequences as a person can check them: what is read, what is heard and when, and what is learned where.

What is shown is derived from the sequence and its utterance anew, and fails where the two don't agree: the teacher
reads the whole text, the student every span of it, and a position that carries loss has read and heard exactly the
tokens that its teacher position has read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from transformers import PreTrainedTokenizerBase

from salad.errors import AlignmentError, DataError
from salad.interleave.sequence import SPEECH, MixedSequence, Pair, SpeechSpan, mixed_sequence
from salad.interleave.spans import Span, plan_spans
from salad.interleave.words import tokenize_words
from salad.model.features import FeatureStore
from salad.randomness import generator
from salad.recipe import SequenceSettings
from salad.speech.prepared import TimedWord, words_of

if TYPE_CHECKING:
    from lhotse import MonoCut


@dataclass(frozen=True)
class ShownPosition:
    """One position of the student; if it carries loss, its teacher's position and the token that both predict.

    `reads` is a token, or the word that is said at the middle of the position, empty in a pause; times are seconds of
    the clip.
    """

    student: int
    kind: Literal["mark", "text", "speech"]
    reads: str
    start_s: float | None = None
    end_s: float | None = None
    teacher: int | None = None
    predicts: str | None = None


@dataclass(frozen=True)
class ShownSpan:
    """Words that are read or heard together, span `number` from 1. If heard, they are said from `start_s` to `end_s`.

    The audio of a speech span's positions begins and ends half-way to the neighbouring words, to half a position.
    """

    number: int
    kind: Literal["text", "speech"]
    text: str
    positions: tuple[ShownPosition, ...]
    start_s: float | None = None
    end_s: float | None = None

    @property
    def loss(self) -> tuple[int, int] | None:
        """The first and the last position that carry loss; all between them do."""
        carrying = [position.student for position in self.positions if position.predicts is not None]
        return (carrying[0], carrying[-1]) if carrying else None

    @property
    def audio_s(self) -> tuple[float, float] | None:
        """From where to where in the clip its positions hear, in seconds; None for text."""
        start_s, end_s = self.positions[0].start_s, self.positions[-1].end_s
        return None if start_s is None or end_s is None else (start_s, end_s)


@dataclass(frozen=True)
class ShownSequence:
    """An utterance's sequence: the document mark, then its spans. `note`: why it is not what was asked for."""

    id: str
    speaker: str | None
    duration_s: float
    epoch: int
    note: str | None
    num_teacher_positions: int
    mark: ShownPosition
    spans: tuple[ShownSpan, ...]

    @property
    def positions(self) -> tuple[ShownPosition, ...]:
        """All positions of the student, in order."""
        return (self.mark, *chain.from_iterable(span.positions for span in self.spans))

    @property
    def num_loss(self) -> int:
        """Positions that carry loss."""
        return sum(position.predicts is not None for position in self.positions)

    @property
    def heard_s(self) -> float:
        """Seconds of the clip that are heard."""
        return sum(span.audio_s[1] - span.audio_s[0] for span in self.spans if span.audio_s)


@dataclass(frozen=True)
class SequenceView:
    """Makes sequences to look at as training makes them: policy, seed, tokenizer and frame rate give the same ones.

    `store`: encoded features to take the number of frames from; without, it follows from the clip's duration.
    """

    tokenizer: PreTrainedTokenizerBase
    mark: int
    settings: SequenceSettings
    seed: int = 0
    position_hz: float = 12.5
    store: FeatureStore | None = None

    def of(self, cut: MonoCut, epoch: int = 0, continuation: str = "") -> ShownSequence:
        """The sequence of an aligned cut; a later epoch whose spans can't be used takes those of epoch 0, and says so.

        Raises:
            DataError, AlignmentError: the policy can't use the utterance, or the sequence is not true to it.
            MissingFileError: it has no features in the store.
        """
        words = words_of(cut)
        try:
            return self._drawn(cut, words, epoch, continuation)
        except (DataError, AlignmentError) as error:
            if epoch == 0:
                raise
            note = f"epoch {epoch} draws spans that can't be used ({error}); training takes those of epoch 0"
            return self._drawn(cut, words, 0, continuation, note)

    def _drawn(
        self, cut: MonoCut, words: list[TimedWord], epoch: int, continuation: str, note: str | None = None
    ) -> ShownSequence:
        def rng() -> Any:
            return generator(self.seed, "spans", cut.id, epoch)

        sequence = mixed_sequence(
            cut.id,
            words,
            self.num_clip_positions(cut),
            self.position_hz,
            self.tokenizer,
            self.mark,
            self.settings,
            rng(),
            continuation,
        )
        read_after = continuation.split()
        spans = plan_spans(len(words), self.settings, rng())
        if read_after:
            spans.append(Span("text", len(words), len(words) + len(read_after)))
        walk = _Walk(sequence, words, read_after, self.tokenizer, self.position_hz, cut.duration)
        mark = walk.mark()
        shown = tuple(walk.span(number, span) for number, span in enumerate(spans, start=1))
        walk.finish()
        return ShownSequence(
            id=cut.id,
            speaker=cut.supervisions[0].speaker,
            duration_s=cut.duration,
            epoch=epoch,
            note=note,
            num_teacher_positions=len(sequence.teacher_ids),
            mark=mark,
            spans=shown,
        )

    def num_clip_positions(self, cut: MonoCut) -> int:
        """LLM positions that a cut's speech has; the last one may be partly empty.

        Raises:
            MissingFileError: it has no features in the store.
        """
        if self.store is None:
            return math.ceil(float(cut.duration) * self.position_hz - 1e-6)
        return math.ceil(self.store.num_frames(cut.id) * self.position_hz / self.store.frame_hz - 1e-6)


class _Walk:
    """Goes through a sequence from left to right beside its words, and holds each part of its map against them."""

    def __init__(
        self,
        sequence: MixedSequence,
        words: list[TimedWord],
        read_after: list[str],
        tokenizer: PreTrainedTokenizerBase,
        position_hz: float,
        duration_s: float,
    ) -> None:
        self.sequence, self.words, self.tokenizer = sequence, words, tokenizer
        self.position_hz, self.duration_s = position_hz, duration_s
        self.texts = [*(word.text for word in words), *read_after]
        self.ids, self.ends = tokenize_words(tokenizer, " ".join(self.texts))
        self.speech: Iterator[SpeechSpan] = iter(sequence.speech)
        self.pairs: dict[int, Pair] = {pair.student: pair for pair in sequence.pairs}
        self.student = 0
        if sequence.teacher_ids[1:] != tuple(self.ids):
            raise self._wrong("the teacher does not read its text")

    def mark(self) -> ShownPosition:
        """The position every sequence begins with."""
        return self._position("mark", self._token(self.sequence.student_ids[0]), 0)

    def span(self, number: int, span: Span) -> ShownSpan:
        """The next span, and its positions."""
        text = " ".join(self.texts[span.start : span.stop])
        if span.kind == "text":
            first = self.ends[span.start - 1] if span.start else 0
            tokens = range(first, self.ends[span.stop - 1])
            return ShownSpan(number, "text", text, tuple(self._read(token) for token in tokens))
        speech = next(self.speech)
        frames = range(speech.start, speech.stop)
        heard = tuple(self._hear(frame, span, frame == frames[-1]) for frame in frames)
        times = self.words[span.start].start_s, self.words[span.stop - 1].end_s
        return ShownSpan(number, "speech", text, heard, *times)

    def finish(self) -> None:
        """Make sure that nothing of the sequence is left over, and that every text token is predicted."""
        texts = [at for at, token in enumerate(self.sequence.student_ids[1:]) if token != SPEECH]
        if self.student != len(self.sequence.student_ids) or texts != sorted(self.pairs):
            raise self._wrong("its spans are not the whole of it, or a text token is not predicted")

    def _read(self, token: int) -> ShownPosition:
        if self.sequence.student_ids[self.student] != self.ids[token]:
            raise self._wrong(f"its position {self.student} does not read token {token} of the text")
        return self._position("text", self._token(self.ids[token]), token + 1)

    def _hear(self, frame: int, span: Span, last: bool) -> ShownPosition:
        if self.sequence.student_ids[self.student] != SPEECH:
            raise self._wrong(f"its position {self.student} does not hear")
        word = _word_at((frame + 0.5) / self.position_hz, self.words[span.start : span.stop])
        end_s = min(self.duration_s, (frame + 1) / self.position_hz)
        return self._position(
            "speech", word, self.ends[span.stop - 1] if last else None, frame / self.position_hz, end_s
        )

    def _position(
        self,
        kind: Literal["mark", "text", "speech"],
        reads: str,
        done: int | None,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> ShownPosition:
        """The position, after which `done` tokens have been read or heard; None within heard words."""
        pair = self.pairs.get(self.student)
        at, self.student = self.student, self.student + 1
        if pair is None:
            return ShownPosition(at, kind, reads, start_s, end_s)
        if pair.teacher != done or pair.target != self.ids[done]:
            raise self._wrong(f"its position {at} and the teacher's {pair.teacher} have not read the same")
        return ShownPosition(at, kind, reads, start_s, end_s, pair.teacher, self._token(pair.target))

    def _token(self, token: int) -> str:
        text = str(self.tokenizer.decode([token]))
        # Part of a character: its name in the vocabulary says more than a replacement mark
        return str(self.tokenizer.convert_ids_to_tokens(token)) if "\ufffd" in text else text

    def _wrong(self, what: str) -> AlignmentError:
        return AlignmentError(f"utterance {self.sequence.item!r}: {what}; this sequence must not be trained on.")


def _word_at(time_s: float, words: list[TimedWord]) -> str:
    return next((word.text for word in words if word.start_s <= time_s < word.end_s), "")
