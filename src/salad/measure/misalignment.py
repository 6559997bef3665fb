"""Forgetting, misalignment and the hearing guard, as the paper defines them (docs/method.md, section 1).

    forgetting    F = sum_w D_KL( Q_phi(.|w<=i) || P_theta(.|w<=i) )   per text position, on text
    misalignment  M = sum_(w,c) D_KL( P_theta(.|w<=i) || P_theta(.|c<=i) )   per text position of the mixed context
    hearing       M with another utterance's speech in place of the right one, minus M, paired by item: > 0 if it hears

Ratios of sums in nats per token; intervals by bootstrap over documents. M is comparable only within one sequence
policy, corpus and voice, so whoever prints it prints those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from salad.distill.teacher import Teacher
from salad.errors import DataError
from salad.interleave.batch import Batch, Features, collate, swap_speech
from salad.interleave.packing import pack
from salad.interleave.sequence import MixedSequence
from salad.measure.divergence_by_item import (
    ItemDivergence,
    divergence_by_item,
    remembered,
    student_hears,
    student_reads_text,
    teacher_reads_text,
)
from salad.measure.statistics import Estimate, ratio_of_sums
from salad.model.speech_lm import SpeechLM
from salad.randomness import derangement, generator


@dataclass(frozen=True)
class HeardAndSwapped:
    """Item by item: misalignment with the right speech and with another utterance's; same items, same order."""

    heard: list[ItemDivergence]
    swapped: list[ItemDivergence]


def batches_of(
    sequences: Sequence[MixedSequence], features: Features, student: SpeechLM, batch_positions: int
) -> Iterator[Batch]:
    """Items packed into batches on the student's device; a function of the sequences alone, not of the model.

    A sequence longer than a batch (a swap can bring longer speech) makes the batches as long as it is.
    """
    per_position = int(student.config.adapter["frames_per_position"])
    lengths = [len(sequence.student_ids) for sequence in sequences]
    for window in pack(lengths, max([batch_positions, *lengths])):
        batch = collate([sequences[i] for i in window], features, per_position, student.config.speech_token_id)
        yield batch.to(student.device)


def forgetting_by_item(
    teacher: Teacher, student: SpeechLM, texts: Sequence[MixedSequence], batch_positions: int
) -> list[ItemDivergence]:
    """F of each text sequence."""
    batches = batches_of(texts, _no_speech, student, batch_positions)
    return _in_order(divergence_by_item(teacher_reads_text(teacher), student_reads_text(student), batches), texts)


def misalignment_by_item(
    student: SpeechLM, sequences: Sequence[MixedSequence], features: Features, batch_positions: int, seed: int
) -> HeardAndSwapped:
    """M of each sequence with its own speech and with swapped speech (a seeded derangement of those with speech).

    A sequence whose spans were all drawn as text has no speech to swap; both its readings are the same.

    Raises:
        DataError: fewer than two sequences have speech.
    """
    spoken = [sequence for sequence in sequences if sequence.speech]
    if len(spoken) < 2:
        raise DataError(
            f"{len(spoken)} of {len(sequences)} sequences have speech, and swapping it needs 2; give more (of a run: "
            "data.heldout_texts, data.heldout_human), or take another sequence.policy."
        )
    partners = derangement(len(spoken), generator(seed, "swap"))
    by_item = {sequence.item: sequence for sequence in sequences}
    by_item |= {own.item: swap_speech(own, spoken[p]) for own, p in zip(spoken, partners, strict=True)}
    text = remembered(student_reads_text(student))
    hears = student_hears(student)
    heard = divergence_by_item(text, hears, batches_of(sequences, features, student, batch_positions))
    swapped_sequences = [by_item[sequence.item] for sequence in sequences]
    swapped = divergence_by_item(text, hears, batches_of(swapped_sequences, features, student, batch_positions))
    return HeardAndSwapped(_in_order(heard, sequences), _in_order(swapped, sequences))


def per_token(rows: Sequence[ItemDivergence], seed: int, purpose: str, num_bootstrap: int) -> Estimate:
    """Nats per text position over all items."""
    return ratio_of_sums([r.kl_nats for r in rows], [r.count for r in rows], seed, purpose, num_bootstrap)


def hearing(result: HeardAndSwapped, seed: int, purpose: str, num_bootstrap: int) -> Estimate:
    """Swapped - heard, nats per text position, paired by item. An interval that reaches 0: it may not hear at all."""
    differences = [s.kl_nats - h.kl_nats for h, s in zip(result.heard, result.swapped, strict=True)]
    return ratio_of_sums(differences, [row.count for row in result.heard], seed, purpose, num_bootstrap)


def hears(estimate: Estimate) -> bool:
    """The hearing guard: the right speech must help, with 95 % confidence."""
    return estimate.low > 0


def _in_order(rows: Sequence[ItemDivergence], sequences: Sequence[MixedSequence]) -> list[ItemDivergence]:
    by_item = {row.item: row for row in rows}
    return [by_item[sequence.item] for sequence in sequences]


def _no_speech(utterance: str) -> np.ndarray:
    raise AssertionError(f"a text sequence asked for the speech of {utterance!r}")
