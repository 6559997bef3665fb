"""The frozen text LLM Q_phi. It reads text alone, in eval mode, and its weights never change.

Two forms: the student's own LLM with its LoRA switched off (no second copy), or a separate frozen copy (needed when the
whole LLM is trained). Both read a flat row of documents and give last hidden states; the head turns them into
distributions, chunk by chunk.

Axes: L positions of the row, D its documents, H width, V vocabulary.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from salad.model.attention import attend_per_document, read_documents
from salad.model.llm import load_llm
from salad.model.speech_lm import SpeechLM


class Teacher(Protocol):
    """What the objective and the measurements need of the text LLM."""

    @property
    def head_VH(self) -> Tensor:
        """The head's weight [V, D]."""

    def last_hidden(self, ids_L: Tensor, lengths_D: Tensor) -> Tensor:
        """Last hidden states [L, H] of documents in a flat row, without gradient."""

    def fingerprint(self) -> str:
        """SHA-256 over the weights it reads with."""


class SeparateTeacher:
    """A frozen text LLM of its own."""

    def __init__(self, llm: PreTrainedModel) -> None:
        """The LLM is put in eval mode and frozen."""
        self.llm = llm.eval().requires_grad_(False)
        attend_per_document(self.llm)

    @property
    def head_VH(self) -> Tensor:
        """The head's weight [V, D]."""
        head: Tensor = self.llm.get_output_embeddings().weight
        return head

    @torch.no_grad()
    def last_hidden(self, ids_L: Tensor, lengths_D: Tensor) -> Tensor:
        """Last hidden states [L, H] of documents in a flat row, without gradient."""
        return _read(self.llm, ids_L, lengths_D)

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
    def head_VH(self) -> Tensor:
        """The head's weight [V, D]."""
        return self.student.head_VH.detach()

    @torch.no_grad()
    def last_hidden(self, ids_L: Tensor, lengths_D: Tensor) -> Tensor:
        """Last hidden states [L, H] of documents in a flat row, without gradient."""
        with self.student.as_text_llm() as llm:
            training = llm.training  # the student's mode, with whatever dropout its LLM has
            llm.eval()
            try:
                return _read(llm, ids_L, lengths_D)
            finally:
                llm.train(training)

    def fingerprint(self) -> str:
        """SHA-256 over the base LLM's weights, LoRA left out."""
        return _fingerprint(self.student.language_model)


def teacher_for(student: SpeechLM) -> Teacher:
    """LoRA-off where the student keeps its base weights; otherwise a second, frozen copy of the named LLM."""
    if student.config.train_llm != "full":
        return LoraOffTeacher(student)
    return SeparateTeacher(load_llm(student.config.llm, str(student.dtype).removeprefix("torch.")))


def _read(llm: PreTrainedModel, ids_L: Tensor, lengths_D: Tensor) -> Tensor:
    embedded_LH: Tensor = llm.get_input_embeddings()(ids_L)
    return read_documents(llm, embedded_LH, lengths_D)


def _fingerprint(llm: PreTrainedModel) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(llm.state_dict().items()):
        if "lora_" not in name:
            digest.update(name.replace(".base_layer", "").encode())
            digest.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy())
    return digest.hexdigest()
