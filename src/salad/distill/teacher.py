"""The frozen text LLM Q_phi. It reads text alone, in eval mode, and its weights never change.

Three forms, by name in the recipe's `engine.teacher`: the student's own LLM with its LoRA switched off (no second
copy), a separate frozen copy (needed when the whole LLM is trained), and its last hidden states, read once and kept on
the disk (distill/teacher_cache.py). The head turns hidden states into distributions, chunk by chunk.

Axes: L positions of the row, D its documents, N matched positions of a batch, H width, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from salad.distill.head import Head, head_of
from salad.errors import CheckpointError
from salad.interleave.batch import Batch
from salad.model.attention import attend_per_document, read_documents
from salad.model.llm import load_llm
from salad.model.speech_lm import SpeechLM
from salad.ranks import ALONE, Ranks


class Teacher(Protocol):
    """What the objective and the measurements need of the text LLM."""

    @property
    def head(self) -> Head:
        """What turns its hidden states into logits."""

    @property
    def head_VH(self) -> Tensor:
        """The head's weight [V, H]."""

    def last_hidden(self, ids_L: Tensor, lengths_D: Tensor) -> Tensor:
        """Last hidden states [L, H] of documents in a flat row, without gradient, on the teacher's device."""

    def matched_hidden(self, batch: Batch) -> Tensor:
        """Last hidden states [N, H] at a batch's matched positions, without gradient, on the teacher's device."""

    def fingerprint(self) -> str:
        """SHA-256 over the weights it reads with. Collective where they are sharded: all ranks call it."""


class SeparateTeacher:
    """A frozen text LLM of its own."""

    def __init__(self, llm: PreTrainedModel) -> None:
        """The LLM is put in eval mode and frozen."""
        self.llm = llm.eval().requires_grad_(False)
        attend_per_document(self.llm)

    @property
    def head(self) -> Head:
        """What turns its hidden states into logits."""
        return head_of(self.llm)

    @property
    def head_VH(self) -> Tensor:
        """The head's weight [V, H]."""
        head: Tensor = self.llm.get_output_embeddings().weight
        return head

    @torch.no_grad()
    def last_hidden(self, ids_L: Tensor, lengths_D: Tensor) -> Tensor:
        """Last hidden states [L, H] of documents in a flat row, without gradient, on the teacher's device."""
        self.llm.eval()  # whoever holds it may have switched its dropout on
        table = self.llm.get_input_embeddings()
        return read_documents(self.llm, table(ids_L.to(self.head_VH.device)), lengths_D)

    def matched_hidden(self, batch: Batch) -> Tensor:
        """Last hidden states [N, H] at a batch's matched positions."""
        return _matched(self, batch)

    def fingerprint(self) -> str:
        """SHA-256 over the weights it reads with."""
        return _fingerprint(self.llm)


class LoraOffTeacher:
    """The student's LLM with its LoRA switched off (or a frozen LLM as it is)."""

    def __init__(self, student: SpeechLM) -> None:
        """Raises CheckpointError if the student's LLM is trained in full."""
        self.student = student
        with student.as_text_llm():
            pass

    @property
    def head(self) -> Head:
        """What turns its hidden states into logits."""
        return head_of(self.student.language_model).detached()

    @property
    def head_VH(self) -> Tensor:
        """The head's weight [V, H]."""
        return self.student.head_VH.detach()

    def last_hidden(self, ids_L: Tensor, lengths_D: Tensor) -> Tensor:
        """Last hidden states [L, H] of documents in a flat row, without gradient, on the student's device."""
        return self.student.original_hidden(ids_L.to(self.student.table_VH.device), lengths_D)

    def matched_hidden(self, batch: Batch) -> Tensor:
        """Last hidden states [N, H] at a batch's matched positions."""
        return _matched(self, batch)

    def fingerprint(self) -> str:
        """SHA-256 over the base LLM's weights, LoRA left out."""
        return _fingerprint(self.student.language_model)


def teacher_for(
    student: SpeechLM, kind: Literal["auto", "separate"] = "auto", device: torch.device | None = None
) -> Teacher:
    """A teacher that reads any text, for training and measuring; `kind` as in the recipe's `engine.teacher`.

    `auto` is LoRA-off where the student keeps its base weights. Otherwise, and always for `separate`, it is a second,
    frozen copy of the LLM that the student's configuration names, in the dtype of the recipe, on `device` (None: the
    student's).
    """
    if kind == "auto" and student.config.train_llm != "full":
        return LoraOffTeacher(student)
    llm = load_llm(student.config.llm, dtype_name(student))
    return SeparateTeacher(llm.to(device or student.table_VH.device))  # type: ignore[arg-type]  # a decorated method


def dtype_name(student: SpeechLM) -> str:
    """The type that the student's LLM computes in, as recipes name it (`model.dtype`)."""
    return str(student.config.dtype or "float32").removeprefix("torch.")


@contextmanager
def unchanging(teacher: Teacher, ranks: Ranks = ALONE) -> Iterator[None]:
    """Make sure that what happens inside leaves the teacher's weights as they are, to the bit.

    They are hashed in full before and after; that is a few seconds for each billion of parameters.

    Raises:
        CheckpointError: a weight of the teacher changed.
    """
    before = teacher.fingerprint()
    yield
    if ranks.any(teacher.fingerprint() != before):
        raise CheckpointError(
            "the teacher's weights changed while the student trained, so what it was taught is not the text LLM; train "
            "again from the last checkpoint with engine.teacher=separate, and report how this came about."
        )


def _matched(teacher: Teacher, batch: Batch) -> Tensor:
    hidden_LH = teacher.last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D)
    return hidden_LH[batch.teacher_positions_N.to(hidden_LH.device)]


def _fingerprint(llm: PreTrainedModel) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(llm.state_dict().items()):
        if "lora_" not in name:
            digest.update(name.replace(".base_layer", "").encode())
            digest.update(bytes_of(tensor))
    return digest.hexdigest()


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, for a hash; one that is sharded is gathered, which all ranks do together."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    array: Any = whole.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)
