"""Mixed sequences + their speech features -> the tensors one forward pass reads: a flat row of documents, no padding.

The student reads all its sequences (documents) one after another in one row, the teacher its own in another; their
lengths say where a document ends, and no document is read from another (model/attention.py). Only the frames of speech
spans are padded: the adapter hears each span by itself.

Axes: D documents, T student positions of them all, L teacher positions of them all, S speech spans in reading order,
F encoder frames, E encoder width, N matched positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salad.errors import AlignmentError
from salad.interleave.sequence import SPEECH, MixedSequence, SpeechSpan
from salad.model.features import Frames
from salad.model.processor import pad_features

Features = Callable[[str], Frames]  # utterance id -> encoder frames [F, E]


@dataclass(frozen=True)
class Batch:
    """One forward pass of student and teacher. int64 but for the features, which are as they are kept.

    Attributes:
        items: the documents' ids, D of them.
        student_ids_T: token ids, the model's placeholder where speech is heard.
        student_lengths_D: positions of each document; they add up to T.
        teacher_ids_L: token ids of the documents' whole texts.
        teacher_lengths_D: they add up to L.
        speech_features_SFE: encoder frames, zero-padded to the longest span; None without speech.
        speech_lengths_S: frames of each span; None without speech.
        documents_N: which document (0 to D - 1) a matched position is of.
        student_positions_N: where in the student's row the next token is predicted.
        teacher_positions_N: where in the teacher's row it is, with the same words read.
        targets_N: that token.
        drawn: for each source of the mix, what these documents are of it, as `Stream.drawn` counts it; empty outside a
            stream.
    """

    items: tuple[str, ...]
    student_ids_T: Tensor
    student_lengths_D: Tensor
    teacher_ids_L: Tensor
    teacher_lengths_D: Tensor
    speech_features_SFE: Tensor | None
    speech_lengths_S: Tensor | None
    documents_N: Tensor
    student_positions_N: Tensor
    teacher_positions_N: Tensor
    targets_N: Tensor
    drawn: tuple[tuple[int, ...], ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; documents' lengths stay on the CPU, where they are read."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if not f.name.endswith("_lengths_D")}
        moved: dict[str, Any] = {name: t.to(device) for name, t in tensors.items() if isinstance(t, Tensor)}
        return replace(self, **moved)


def collate(
    sequences: Sequence[MixedSequence], features: Features, frames_per_position: int, speech_token_id: int
) -> Batch:
    """A batch of mixed sequences; `features` gives an utterance's encoder frames."""
    spans = [span for sequence in sequences for span in sequence.speech]
    clips = [features(s.utterance)[s.start * frames_per_position : s.stop * frames_per_position] for s in spans]
    speech_features, speech_lengths = pad_features(clips) if clips else (None, None)
    student_ids, student_lengths = _row([sequence.student_ids for sequence in sequences])
    teacher_ids, teacher_lengths = _row([sequence.teacher_ids for sequence in sequences])
    counts = torch.tensor([len(sequence.pairs) for sequence in sequences])
    documents = torch.arange(len(sequences)).repeat_interleave(counts)
    pairs_N3 = _numbers(chain.from_iterable(chain.from_iterable(s.pairs for s in sequences))).reshape(-1, 3)
    students, teachers, targets = pairs_N3.unbind(1)
    return Batch(
        items=tuple(sequence.item for sequence in sequences),
        student_ids_T=torch.where(student_ids == SPEECH, speech_token_id, student_ids),
        student_lengths_D=student_lengths,
        teacher_ids_L=teacher_ids,
        teacher_lengths_D=teacher_lengths,
        speech_features_SFE=speech_features,
        speech_lengths_S=speech_lengths,
        documents_N=documents,
        student_positions_N=students + _starts(student_lengths)[documents],
        teacher_positions_N=teachers + _starts(teacher_lengths)[documents],
        targets_N=targets.contiguous(),
    )


def _row(documents: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """One flat row of ids and the documents' lengths."""
    return _numbers(chain.from_iterable(documents)), torch.tensor([len(document) for document in documents])


def _numbers(values: Iterable[int]) -> Tensor:
    return torch.from_numpy(np.fromiter(values, np.int64))  # several times as fast as torch.tensor of a list


def _starts(lengths: Tensor) -> Tensor:
    return lengths.cumsum(0) - lengths


def swap_speech(sequence: MixedSequence, donor: MixedSequence) -> MixedSequence:
    """`sequence` with another utterance's speech in place of its own: same text, same targets.

    Each speech span takes the donor's span of the same number; a donor with fewer begins again from its first.

    Raises:
        AlignmentError: the donor has no speech.
    """
    if sequence.speech and not donor.speech:
        raise AlignmentError(f"utterance {sequence.item!r} can't be swapped with {donor.item!r}, which has no speech.")
    student: list[int] = []
    moved: dict[int, int] = {}
    taken: list[SpeechSpan] = []
    position = 0
    while position < len(sequence.student_ids):
        moved[position] = len(student)
        if sequence.student_ids[position] != SPEECH:
            student.append(sequence.student_ids[position])
            position += 1
            continue
        own, other = sequence.speech[len(taken)], donor.speech[len(taken) % len(donor.speech)]
        taken.append(other)
        student += [SPEECH] * (other.stop - other.start)
        position += own.stop - own.start
        moved[position - 1] = len(student) - 1
    pairs = tuple(type(p)(moved[p.student], p.teacher, p.target) for p in sequence.pairs)
    swapped = MixedSequence(sequence.item, tuple(student), sequence.teacher_ids, tuple(taken), pairs)
    swapped.check()
    return swapped
