"""One reader held against another, item by item: the shape of forgetting, misalignment and the selection score.

A reader looks at a batch and gives hidden states at its matched positions together with the head that turns them into
distributions. Axes: N matched positions of a batch's documents, H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salad.distill.divergence import divergence_terms
from salad.distill.head import Head, head_of
from salad.distill.teacher import Teacher
from salad.errors import NonFiniteError
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


@dataclass(frozen=True)
class ItemScores(ItemDivergence):
    """What clusters are probed by: sums over one item's text positions, in nats.

    The reference is the teacher on the text, the model the student on the speech. `teacher_nll_nats` is the teacher's
    own. `jsd_nats`, the Jensen-Shannon divergence of the two, and `self_kl_nats`, D_KL(student on text || student on
    speech), are None unless asked for.
    """

    teacher_nll_nats: float
    jsd_nats: float | None = None
    self_kl_nats: float | None = None


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
    """D_KL(reference || model) of every item of the batches, in their order.

    Raises:
        NonFiniteError: it is not a number for some item; says which.
    """
    rows: list[ItemDivergence] = []
    for batch in batches:
        reference_NH, reference_head = reference(batch)
        model_NH, model_head = model(batch)
        terms = divergence_terms(reference_NH, reference_head, model_NH, model_head, batch.targets_N)
        sums = _by_document(batch, {"kl_nats": terms.kl_N, "entropy_nats": terms.entropy_N, "nll_nats": terms.nll_N})
        rows += [ItemDivergence(item=item, **values) for item, values in sums]
    return rows


def scores_by_item(
    teacher: Teacher, student: SpeechLM, batches: Iterable[Batch], jsd: bool = False, self_misalignment: bool = False
) -> list[ItemScores]:
    """What every item of the batches says of how deaf the student is, in their order.

    One pass of the teacher over the text and one of the student over the speech give everything but the two scores
    that are asked for: `jsd` costs more arithmetic on the same logits, `self_misalignment` one more pass of the student
    over the text, and its head.

    Raises:
        NonFiniteError: a value is not a number for some item; says which.
    """
    reads_text, hears = student_reads_text(student), student_hears(student)
    rows: list[ItemScores] = []
    for batch in batches:
        heard_NH, head = hears(batch)
        terms = divergence_terms(teacher.matched_hidden(batch), teacher.head, heard_NH, head, batch.targets_N, jsd=jsd)
        values = {
            "kl_nats": terms.kl_N,
            "entropy_nats": terms.entropy_N,
            "nll_nats": terms.nll_N,
            "teacher_nll_nats": terms.reference_nll_N,
        }
        if terms.jsd_N is not None:
            values["jsd_nats"] = terms.jsd_N
        if self_misalignment:
            values["self_kl_nats"] = divergence_terms(*reads_text(batch), heard_NH, head, batch.targets_N).kl_N
        rows += [ItemScores(item=item, **sums) for item, sums in _by_document(batch, values)]
    return rows


def _by_document(batch: Batch, values: Mapping[str, Tensor]) -> Iterable[tuple[str, Any]]:
    """Each document's id with the sums of the values [N] over its positions, in float64, and their `count`."""
    documents_N, num = batch.documents_N.cpu().numpy(), len(batch.items)
    stacked_N = torch.stack(list(values.values())).double().cpu().numpy()  # one transfer for all
    counts = np.bincount(documents_N, minlength=num).tolist()
    totals = [np.bincount(documents_N, value_N, num).tolist() for value_N in stacked_N]
    for item, count, *own in zip(batch.items, counts, *totals, strict=True):
        if not np.isfinite(own).all():
            raise NonFiniteError(
                f"the divergence of item {item!r} is not a number; its features or the model's weights are not finite "
                "or overflow: look at them, or let the model compute in float32."
            )
        yield item, dict(zip(values, own, strict=True)) | {"count": count}
