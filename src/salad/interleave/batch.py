"""Mixed sequences + their speech features -> the tensors one step reads.

Axes: B sequences, T student positions, L teacher positions, S speech spans, F encoder frames, E encoder width, N pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from salad.errors import AlignmentError
from salad.interleave.sequence import SPEECH, MixedSequence, SpeechSpan
from salad.model.processor import pad_features

Features = Callable[[str], np.ndarray]  # utterance id -> encoder frames [F, E]


@dataclass(frozen=True)
class Batch:
    """One forward pass of student and teacher. Right padding; causal attention makes it harmless.

    `rows_N` with `student_positions_N` or `teacher_positions_N` index the matched positions, `targets_N` is their next
    token.
    """

    items: tuple[str, ...]
    student_ids_BT: Tensor
    student_mask_BT: Tensor
    teacher_ids_BL: Tensor
    teacher_mask_BL: Tensor
    speech_features_SFE: Tensor | None
    speech_lengths_S: Tensor | None
    rows_N: Tensor
    student_positions_N: Tensor
    teacher_positions_N: Tensor
    targets_N: Tensor


def collate(
    sequences: Sequence[MixedSequence], features: Features, frames_per_position: int, speech_token_id: int
) -> Batch:
    """A batch of mixed sequences; `features` gives an utterance's encoder frames."""
    spans = [span for sequence in sequences for span in sequence.speech]
    clips = [features(s.utterance)[s.start * frames_per_position : s.stop * frames_per_position] for s in spans]
    student, student_mask = _pad([[speech_token_id if i == SPEECH else i for i in s.student_ids] for s in sequences])
    teacher, teacher_mask = _pad([s.teacher_ids for s in sequences])
    speech_features, speech_lengths = pad_features(clips) if clips else (None, None)
    pairs = [(row, p.student, p.teacher, p.target) for row, s in enumerate(sequences) for p in s.pairs]
    rows, students, teachers, targets = torch.tensor(pairs, dtype=torch.long).reshape(-1, 4).unbind(1)
    return Batch(
        tuple(s.item for s in sequences),
        student,
        student_mask,
        teacher,
        teacher_mask,
        speech_features,
        speech_lengths,
        rows,
        students,
        teachers,
        targets,
    )


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


def _pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask


def partition_by_length(lengths: Sequence[int], overhead: int = 48, most: int = 64) -> list[list[int]]:
    """Group items into batches so that padded positions + `overhead` a batch are fewest. Index lists, shortest first.

    Exact by dynamic programming over the sorted lengths, with at most `most` items a batch. `overhead` is what one more
    forward pass costs, in positions.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    best = [0.0] + [float("inf")] * len(order)
    cut = [0] * (len(order) + 1)
    for stop in range(1, len(order) + 1):
        longest = lengths[order[stop - 1]]
        for start in range(max(0, stop - most), stop):
            cost = best[start] + (stop - start) * longest + overhead
            if cost < best[stop]:
                best[stop], cut[stop] = cost, start
    groups: list[list[int]] = []
    stop = len(order)
    while stop:
        groups.append(order[cut[stop] : stop])
        stop = cut[stop]
    return groups[::-1]
