"""Model FLOPs of a training step: what the mathematics asks for, whatever the hardware does to answer.

A weight costs 2 FLOPs a position forward (multiply, add), 2 for the gradient of its input, 2 for its own where it is
trained. Causal attention costs, for each pair of a position and one it may look at (itself included), 2 FLOPs per head
width for the score and 2 for the value; its backward twice that. Documents don't read each other, so one of L positions
has L (L + 1) / 2 pairs. Heads are counted at the positions with loss alone: forward, and in the student's backward once
for the hidden state and once more where the head is trained. What gradient checkpointing computes again is kept apart
(`recomputed`): it is no work of the model. Norms, activations, softmaxes and the optimizer are not counted (as in MFU,
Chowdhery et al. 2022, appendix B).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PretrainedConfig, PreTrainedModel

from salad.model.adapter import Adapter
from salad.model.config import SpeechLMConfig
from salad.model.sizes import on_meta
from salad.model.speech_lm import SpeechLM

Lengths = Tensor | Iterable[int]


@dataclass(frozen=True)
class Cost:
    """FLOPs of a position, and of a pair of positions in causal attention."""

    position: float
    pair: float

    def of(self, lengths: Lengths) -> float:
        """FLOPs of documents of these lengths, each read by itself."""
        counts = [int(length) for length in lengths]
        return self.position * sum(counts) + self.pair * sum(n * (n + 1) / 2 for n in counts)


@dataclass(frozen=True)
class StepFlops:
    """What a training step costs, by what it is of.

    Attributes:
        student: the student's layers, forward and backward, a document.
        student_forward: the same, forward alone: once more with gradient checkpointing.
        teacher: the teacher's layers, forward, a document; nothing where its hidden states come from a cache.
        adapter: forward and backward, a speech span in LLM positions.
        scored: both heads at a position with loss.
        frames_per_position: encoder frames of an LLM position.
        adapter_forward: the adapter, forward alone.
        head_forward: the student's head at a position, forward alone.
    """

    student: Cost
    student_forward: Cost
    teacher: Cost
    adapter: Cost
    scored: float
    frames_per_position: int
    adapter_forward: Cost
    head_forward: float

    @classmethod
    def of(cls, config: SpeechLMConfig, cached_teacher: bool = False) -> Self:
        """Of a student of this configuration and the LLM it is made from as its teacher."""
        return cls.of_student(on_meta(config), cached_teacher)

    @classmethod
    def of_student(cls, student: SpeechLM, cached_teacher: bool = False) -> Self:
        """Of a student on the meta device (`salad.model.sizes.on_meta`)."""
        llm, adapter = student.language_model, student.adapter
        config = llm.config
        student_forward, student_both = _layers(llm.get_decoder(), config)
        teacher, _ = _layers(llm.get_decoder(), config, lora=False)
        products = 2 + int(student.head_VH.requires_grad)  # forward, its input's gradient, its own
        adapter_forward, adapter_both = _adapter(adapter, student.config.encoder_dim)
        head = 2.0 * config.vocab_size * config.hidden_size
        return cls(
            student=student_both,
            student_forward=student_forward,
            teacher=Cost(0.0, 0.0) if cached_teacher else teacher,
            adapter=adapter_both,
            scored=(products + 1) * head,
            frames_per_position=adapter.settings.frames_per_position,
            adapter_forward=adapter_forward,
            head_forward=head,
        )

    def step(self, student_lengths: Lengths, teacher_lengths: Lengths, scored: int, speech_frames: Lengths) -> float:
        """FLOPs of a step, or of any part of one.

        Args:
            student_lengths: positions of each of the student's documents.
            teacher_lengths: positions of each of the teacher's.
            scored: positions with loss.
            speech_frames: encoder frames of each speech span; none where nothing is heard.
        """
        spans = [-(-int(frames) // self.frames_per_position) for frames in speech_frames]
        read = self.student.of(student_lengths) + self.teacher.of(teacher_lengths)
        return read + self.adapter.of(spans) + self.scored * scored

    def rollout(self, length: int, tokens: int, heard: Lengths) -> float:
        """FLOPs of a continuation that the student writes with a cache of keys and values.

        Args:
            length: positions it has read in the end; the last of its tokens it does not read.
            tokens: how many it wrote, each by the head.
            heard: LLM positions of each speech span.
        """
        return self.student_forward.of([length]) + self.adapter_forward.of(heard) + self.head_forward * tokens

    def recomputed(self, student_lengths: Lengths) -> float:
        """What gradient checkpointing of the LLM's layers computes a second time; no model FLOPs."""
        return self.student_forward.of(student_lengths)


def forward_cost(llm: PreTrainedModel) -> Cost:
    """What an LLM's layers cost forward, without its head."""
    return _layers(llm.get_decoder(), llm.config.get_text_config())[0]


def _layers(decoder: nn.Module, config: PretrainedConfig, lora: bool = True) -> tuple[Cost, Cost]:
    """A decoder's layers forward, and forward and backward, with gradients for their input."""
    forward = both = 0
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Linear) and (lora or "lora_" not in name):
            forward += 2 * module.weight.numel()
            both += (6 if module.weight.requires_grad else 4) * module.weight.numel()
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    pair = 4.0 * config.num_hidden_layers * config.num_attention_heads * head_dim
    return Cost(forward, pair), Cost(both, 3 * pair)


def _adapter(adapter: Adapter, encoder_dim: int) -> tuple[Cost, Cost]:
    """Any adapter, forward, and forward and backward: its way in by counting its products, a stack as a decoder.

    Its way out is one matrix more.
    """
    positions = 64
    frames = torch.empty(1, positions * adapter.settings.frames_per_position, encoder_dim, device="meta")
    with FlopCounterMode(display=False) as counter:
        made = adapter.project_in(frames.to(adapter.project_out.weight.dtype))
        way_in = counter.get_total_flops()
        made.sum().backward()
    adapter.zero_grad(set_to_none=True)
    way_out = adapter.project_out.weight.numel()
    forward = way_in / positions + 2.0 * way_out
    both = counter.get_total_flops() / positions + 6.0 * way_out
    if adapter.stack is None:
        return Cost(forward, 0.0), Cost(both, 0.0)
    stack_forward, stack = _layers(adapter.stack, adapter.stack.config)
    return (
        Cost(forward + stack_forward.position, stack_forward.pair),
        Cost(both + stack.position, stack.pair),
    )
