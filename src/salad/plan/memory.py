"""Memory of a GPU by part: what stands there all the time, and what a micro-batch or the optimizer's step adds.

Exact but for two things: how many layers FSDP2 has gathered at a time (GATHERED), and what the driver and the libraries
take beside tensors (CONTEXT_GIB). What the caching allocator loses to fragments is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from torch import nn

from salad.model.config import SpeechLMConfig
from salad.model.speech_lm import SpeechLM
from salad.plan.activations import Loss, MicroBatch, Passes, loss_memory, passes
from salad.plan.live import bytes_of
from salad.recipe import Recipe

GIB = 2**30
CONTEXT_GIB = {"cuda": 1.5, "cpu": 0.0}  # CUDA context, cuBLAS and NCCL
GATHERED = 3  # layers: the one computed, the next one gathered ahead, and the buffer it comes through
Parallel = Literal["alone", "ddp", "fsdp"]


@dataclass(frozen=True)
class Way:
    """One way of running a recipe: over how many GPUs and how, checkpointed or not, with what micro-batches."""

    parallel: Parallel
    gpus: int
    checkpointing: bool
    micro_batch_positions: int
    kind: str

    def changes(self, other: Way, stages: Sequence[str]) -> dict[str, object]:
        """The recipe keys that make this of another way, in a recipe of these stages."""
        changed: dict[str, object] = {}
        if self.parallel != other.parallel:
            changed["engine.parallel"] = self.parallel
        if self.checkpointing != other.checkpointing:
            changed["engine.gradient_checkpointing"] = self.checkpointing
        if self.micro_batch_positions != other.micro_batch_positions:
            changed |= {f"{stage}.micro_batch_positions": self.micro_batch_positions for stage in stages}
        return changed


class Memory:
    """Of one recipe's student, by the way it is run; passes that were planned once are not planned again."""

    def __init__(
        self, recipe: Recipe, config: SpeechLMConfig, student: SpeechLM, window: Callable[[int], MicroBatch]
    ) -> None:
        """`window`: micro-batch of so many positions. `student` is on the meta device."""
        self.recipe, self.config, self.student = recipe, config, student
        self.window = cache(window)
        self._passes = cache(self._planned)

    def parts(self, way: Way) -> dict[str, float]:
        """Bytes of each part on each GPU; they add up to the peak."""
        student, shards = self.student, way.gpus if way.parallel == "fsdp" else 1
        trained = [p for p in student.parameters() if p.requires_grad]
        frozen = [p for p in student.parameters() if not p.requires_grad]
        found = {
            "weights, trained": bytes_of(trained) / shards,
            "weights, frozen": (bytes_of(frozen) + bytes_of(student.buffers())) / shards,
            "gradients": bytes_of(trained) / shards,
            "optimizer": 2 * bytes_of(trained) / shards,
            "teacher": self._teacher(shards),
        }
        if way.parallel == "fsdp":
            found["gathered by FSDP2"] = self._gathered()
        run = self._passes(way.parallel == "fsdp", way.checkpointing, way.micro_batch_positions, way.kind)
        found["kept for the backward pass"] = run.kept
        found["passes, beyond what is kept"] = run.peak - run.kept
        found["optimizer's step, beyond the passes"] = max(0.0, self._stepping(way.kind) / shards - run.peak)
        found["context (assumed)"] = CONTEXT_GIB[way.kind] * GIB
        return found

    def total(self, way: Way) -> float:
        """Peak bytes on each GPU."""
        return sum(self.parts(way).values())

    def _planned(self, sharded: bool, checkpointing: bool, positions: int, kind: str) -> Passes:
        batch = self.window(positions)
        llm = self.config.get_text_config()
        narrow = self.config.dtype is not None and "bfloat16" in str(self.config.dtype)
        trains_head = self.student.head_VH.requires_grad
        casts_head = narrow and trains_head and not sharded  # float32 masters; FSDP2 gathers bfloat16
        workspace = loss_memory(batch.num_scored, llm.vocab_size, llm.hidden_size, narrow, casts_head, kind)
        return passes(self.config, batch, kind, checkpointing, sharded, Loss(workspace, trains_head))

    def _teacher(self, shards: int) -> float:
        """A copy of the LLM in the type that is computed in; of a cached one the head alone; nothing of LoRA's."""
        own, how = self.student, self.recipe.engine.teacher
        item = 2 if own.dtype.itemsize == 2 else 4
        head = own.head_VH.numel() * item
        if how == "cached":
            return float(head) if self.config.train_llm == "full" else 0.0
        if how == "auto" and self.config.train_llm != "full":
            return 0.0
        llm = [p for name, p in own.language_model.named_parameters() if "lora_" not in name]
        outside = len({id(own.table_VH), id(own.head_VH)}) * head  # read outside of layers, so not sharded
        return outside + (sum(p.numel() for p in llm) * item - outside) / shards

    def _gathered(self) -> float:
        """What FSDP2 holds in one piece: the root's table and head throughout, some layers, their gradients on the way.

        A layer's gradients stand there in the type computed in and, twice, in float32 on their way to the shards.
        """
        own = self.student
        item = 2 if own.dtype.itemsize == 2 else 4
        trained = own.head_VH.requires_grad
        root = len({id(own.table_VH), id(own.head_VH)}) * own.head_VH.numel() * item * (2 if trained else 1)
        layer = next(iter(own.language_model.get_decoder().layers))
        weights = _count(layer.parameters())
        gradients = _count(p for p in layer.parameters() if p.requires_grad)
        adapter = 4 * _count(own.adapter.parameters())
        layers = GATHERED * item * weights + (item + 8) * gradients
        return float(root + max(layers, 3 * adapter))

    def _stepping(self, kind: str) -> float:
        """What AdamW makes while it steps: on a GPU a square root of every second moment of a group, else of one."""
        groups = [
            [4 * p.numel() for p in part.parameters() if p.requires_grad]
            for part in (self.student.adapter, self.student.language_model)
        ]
        if kind == "cuda":
            return float(max(sum(group) for group in groups))
        return 2.0 * max(max(group, default=0) for group in groups)


def remedies(way: Way, least_positions: int) -> Iterable[Way]:
    """Ways that take less, those that cost least first: sharding, checkpointing, smaller micro-batches."""
    several = way.gpus > 1
    for checkpointing in (False, True) if not way.checkpointing else (True,):
        for parallel in ("ddp", "fsdp") if several and way.parallel == "ddp" else (way.parallel,):
            yield Way(parallel, way.gpus, checkpointing, way.micro_batch_positions, way.kind)
    positions = way.micro_batch_positions
    parallel = "fsdp" if several else way.parallel
    while positions > least_positions:
        positions = max(least_positions, positions // 2)
        yield Way(parallel, way.gpus, True, positions, way.kind)


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
