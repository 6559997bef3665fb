"""One reader held against another, item by item: the shape of forgetting, misalignment and the selection score.

A reader looks at a batch and gives hidden states at its matched positions together with the head that turns them into
distributions. Axes: N matched positions of a batch's documents, H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from salad.distill.divergence import divergence_terms
from salad.distill.head import Head, head_of
from salad.distill.teacher import Teacher
from salad.interleave.batch import Batch
from salad.model.speech_lm import SpeechLM

Reader = Callable[[Batch], tuple[Tensor, Head]]  # batch -> (hidden states [N, H], what turns them into logits)


@dataclass(frozen=True)
class ItemDivergence:
    """Sums over one item's text positions, in nats: D_KL(reference || model), reference's entropy, model's NLL."""

    item: str
    kl_nats: float
    entropy_nats: float
    nll_nats: float
    count: int


def teacher_reads_text(teacher: Teacher) -> Reader:
    """Q_phi on the text."""

    def read(batch: Batch) -> tuple[Tensor, Head]:
        return teacher.matched_hidden(batch), teacher.head

    return read


def student_reads_text(student: SpeechLM) -> Reader:
    """P_theta on the text."""

    @torch.no_grad()
    def read(batch: Batch) -> tuple[Tensor, Head]:
        hidden_LH = student.last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D)
        return hidden_LH[batch.teacher_positions_N], head_of(student.language_model)

    return read


def student_hears(student: SpeechLM) -> Reader:
    """P_theta on the mixed sequence."""

    @torch.no_grad()
    def read(batch: Batch) -> tuple[Tensor, Head]:
        hidden_TH = student.last_hidden(
            batch.student_ids_T, batch.student_lengths_D, batch.speech_features_SFE, batch.speech_lengths_S
        )
        return hidden_TH[batch.student_positions_N], head_of(student.language_model)

    return read


def remembered(reader: Reader) -> Reader:
    """The same reader, keeping what it read of each item: heard and swapped speech share one reading of the text."""
    memory: dict[str, Tensor] = {}
    heads: list[Head] = []

    def read(batch: Batch) -> tuple[Tensor, Head]:
        if not all(item in memory for item in batch.items):
            hidden, head = reader(batch)
            memory.update({item: hidden[batch.documents_N == i] for i, item in enumerate(batch.items)})
            heads.append(head)
        return torch.cat([memory[item] for item in batch.items]), heads[-1]

    return read


def divergence_by_item(reference: Reader, model: Reader, batches: Iterable[Batch]) -> list[ItemDivergence]:
    """D_KL(reference || model) of every item of the batches, in their order."""
    rows: list[ItemDivergence] = []
    for batch in batches:
        reference_NH, reference_head = reference(batch)
        model_NH, model_head = model(batch)
        terms = divergence_terms(reference_NH, reference_head, model_NH, model_head, batch.targets_N)
        for document, item in enumerate(batch.items):
            own = batch.documents_N == document
            kl, entropy, nll = (float(v[own].double().sum()) for v in (terms.kl_N, terms.entropy_N, terms.nll_N))
            rows.append(ItemDivergence(item, kl, entropy, nll, int(own.sum())))
    return rows
