"""What a micro-batch holds in memory beside weights, gradients and optimizer: the real modules run on unreal data.

The student goes forward and backward on fake tensors (sizes without storage), under autocast as in training, and every
tensor it makes is counted until it goes. Two things are stood in for: where values decide (which positions are speech),
tensors of the expected size; the loss, whose code asks for values too, by the memory it takes (`loss_memory`). Layers
are alike, so models of a few layers say what any number of them needs.
"""

from __future__ import annotations

import copy
from dataclasses import astuple, dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from salad.distill.logits import BLOCK_BYTES, CHUNK, TILE
from salad.model.attention import attend_in_one_kernel, attend_one_by_one
from salad.model.config import SpeechLMConfig
from salad.model.sizes import on_meta
from salad.model.speech_lm import SpeechLM
from salad.plan.live import LiveBytes
from salad.recipe import AdapterSettings

PLANNED = "planned"


@dataclass(frozen=True)
class MicroBatch:
    """A window: its documents' lengths in positions, its speech spans in encoder frames, its positions with loss."""

    lengths: tuple[int, ...]
    span_frames: tuple[int, ...]
    num_scored: int


@dataclass(frozen=True)
class Loss:
    """Bytes the objective takes: `workspace` while it computes; its gradients it keeps until they are handed on."""

    workspace: int
    trains_head: bool


@dataclass(frozen=True)
class Passes:
    """Peak bytes of the phases of a micro-batch, each beside weights, gradients and optimizer.

    `forward` to the last hidden state; `loss`; `layers`, the backward pass through the LLM's layers; `inputs`, that
    through embeddings and adapter. `kept` is what stands between forward and backward.
    """

    kept: float
    forward: float
    loss: float
    layers: float
    inputs: float

    @property
    def peak(self) -> float:
        """The most at any time."""
        return max(self.forward, self.loss, self.layers, self.inputs)


def loss_memory(num_scored: int, width: int, hidden: int, narrow: bool, casts_head: bool, kind: str) -> int:
    """Working memory of `salad.distill.divergence.objective_sum` on a device of type `kind`, in bytes (logits.py).

    Two chunks of float32 logits and three blocks of such; one more block while a block is summed up, or, for products
    in bfloat16 (`narrow`), a chunk's gradient in that type on a GPU, a float32 tile of the head on a CPU. A float32
    head is cast as a whole (`casts_head`).
    """
    most = max(1, min(CHUNK[kind], num_scored))
    chunk = -(-num_scored // -(-num_scored // most))
    threads = torch.get_num_threads() if kind == "cpu" else 1
    block = max(1, threads, min(chunk, threads * BLOCK_BYTES[kind] // (4 * width)))
    product = (4 * TILE * hidden if kind == "cpu" else 2 * chunk * width) if narrow else 0
    taken = 4 * width * (2 * chunk + 3 * block) + max(4 * width * block, product)
    return taken + (2 * width * hidden if casts_head else 0)


def passes(
    config: SpeechLMConfig, batch: MicroBatch, kind: str, checkpointing: bool, sharded: bool, loss: Loss
) -> Passes:
    """Forward and backward of one micro-batch of a student.

    Args:
        config: the student's.
        batch: its window.
        kind: the device's type, cpu or cuda; their attention kernels differ.
        checkpointing: whether activations are computed a second time instead of kept.
        sharded: whether weights are gathered by FSDP2 in the type that is computed in; gathered weights don't count.
        loss: what the objective takes.
    """
    llm, stack = config.get_text_config().num_hidden_layers, _stack_layers(config)

    def few(llm_layers: int, stack_layers: int) -> tuple[float, ...]:
        cut = _cut(config, llm_layers, stack_layers)
        return astuple(_run(cut, batch, kind, checkpointing, sharded, loss))

    one = min(1, stack)
    base = few(1, one)
    per_layer = [more - less for more, less in zip(few(2, one), base, strict=True)]
    per_stack_layer = [0.0] * len(base)
    if stack > 1:
        per_stack_layer = [more - less for more, less in zip(few(1, 2), base, strict=True)]
    found = zip(base, per_layer, per_stack_layer, strict=True)
    return Passes(*(least + (llm - 1) * own + (stack - one) * other for least, own, other in found))


def _stack_layers(config: SpeechLMConfig) -> int:
    settings = AdapterSettings(**config.adapter)
    return 0 if settings.kind == "mlp" else settings.num_layers


def _cut(config: SpeechLMConfig, llm_layers: int, stack_layers: int) -> SpeechLMConfig:
    config = copy.deepcopy(config)
    llm = config.get_text_config()
    llm.num_hidden_layers = llm_layers
    if getattr(llm, "layer_types", None):
        llm.layer_types = llm.layer_types[:llm_layers]
    if stack_layers:  # the paper's stack with fewer layers is a stack
        kind = "conv" if config.adapter["kind"] == "conv" else "stack"
        config.adapter |= {"kind": kind, "num_layers": stack_layers}
    return config


def _run(
    config: SpeechLMConfig, batch: MicroBatch, kind: str, checkpointing: bool, sharded: bool, loss: Loss
) -> Passes:
    student = on_meta(config)
    narrow = student.dtype == torch.bfloat16
    for part in (student.language_model, student.adapter.stack):
        if part is not None:
            part.config._attn_implementation = PLANNED
    if checkpointing:
        student.checkpoint_activations()
    if narrow and sharded:
        student.language_model.to(torch.bfloat16)  # type: ignore[arg-type]  # transformers' wrapper of nn.Module.to
    with FakeTensorMode(allow_non_fake_inputs=True):
        student.to_empty(device="cpu")
        student.language_model.tie_weights()
        student.train()
        there = [*student.parameters(), *student.buffers()]
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
                there.append(parameter.grad)
        live = LiveBytes(there)
        with live, torch.autocast("cpu", torch.bfloat16, enabled=narrow):  # fake tensors are the CPU's
            return _passes(student, batch, _Documents.of(batch.lengths, kind), live, loss)


def _passes(student: SpeechLM, batch: MicroBatch, documents: _Documents, live: LiveBytes, loss: Loss) -> Passes:
    hidden = student.table_VH.shape[1]
    compute = torch.bfloat16 if student.dtype == torch.bfloat16 else student.table_VH.dtype
    teacher_NH = torch.empty(batch.num_scored, hidden, dtype=compute)  # the teacher has read before
    embedded = _embedded(student, batch)
    output = student.language_model.get_decoder()(
        inputs_embeds=embedded,
        position_ids=torch.zeros(1, sum(batch.lengths), dtype=torch.long),
        attention_mask=embedded.new_empty(1, 1, 0, 0),
        use_cache=False,
        cu_seq_lens_q=documents,
    ).last_hidden_state
    student_NH = output[0][torch.zeros(batch.num_scored, dtype=torch.long)]
    del output
    kept, forward = live.live, live.peak
    live.peak = live.live
    between: list[int] = []

    def layers_done(gradient: Tensor) -> Tensor:
        between.append(live.peak)
        live.peak = live.live
        return gradient

    embedded.register_hook(layers_done)
    del embedded
    value = _Loss.apply(student_NH, student.head_VH, teacher_NH, loss)
    in_loss, live.peak = live.peak, live.live
    value.backward()
    return Passes(kept, forward, in_loss, between[0], live.peak)


def _embedded(student: SpeechLM, batch: MicroBatch) -> Tensor:
    """As `SpeechLM.embed` makes it: [1, T, H]."""
    ids = torch.zeros(1, sum(batch.lengths), dtype=torch.long)
    placeholder = ids == -1
    embedded: Tensor = student.get_input_embeddings()(ids.masked_fill(placeholder, 0))
    per_position = student.adapter.settings.frames_per_position
    longest = max(batch.span_frames)
    speech_SFE = torch.empty(len(batch.span_frames), longest, student.config.encoder_dim, dtype=torch.float16)
    heard = student.adapter(speech_SFE)
    num_heard = sum(-(-frames // per_position) for frames in batch.span_frames)
    valid = heard.flatten(0, 1)[torch.zeros(num_heard, dtype=torch.long)]
    return embedded.masked_scatter(placeholder[..., None], valid.to(embedded.dtype))


class _Loss(torch.autograd.Function):
    """The objective's memory: its workspace in the forward pass, its gradients until the backward pass has them."""

    @staticmethod
    def forward(ctx: Any, student_NH: Tensor, head_VH: Tensor, _teacher_NH: Tensor, loss: Loss) -> Tensor:
        wanted = [student_NH, head_VH] if loss.trains_head else [student_NH]
        ctx.dtypes = [like.dtype for like in wanted]
        ctx.gradients = [torch.empty(like.shape, dtype=torch.float32) for like in wanted]
        torch.empty(loss.workspace, dtype=torch.uint8)
        return student_NH.new_empty((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        hidden, *head = (grown.to(dtype) for grown, dtype in zip(gradients, ctx.dtypes, strict=True))
        return hidden, head[0] if head else None, None, None


@dataclass(frozen=True)
class _Documents:
    """Where documents end, as the attention is told; without a tensor, whose values a fake one doesn't have."""

    borders: tuple[int, ...]
    longest: int
    kind: str

    @classmethod
    def of(cls, lengths: tuple[int, ...], kind: str) -> _Documents:
        """Of documents one after another."""
        return cls((0, *accumulate(lengths)), max(lengths), kind)


def _planned_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: _Documents | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """`salad.model.attention.documents_attention`, told by what kind of device it is to act as."""
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    documents = cu_seq_lens_q
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (tensor.to(torch.bfloat16) for tensor in (query, key, value))
    if documents.kind == "cuda" and query.dtype == torch.bfloat16:
        borders = torch.zeros(len(documents.borders), dtype=torch.int32)
        return attend_in_one_kernel(query, key, value, scaling, None, borders, documents.longest), None
    return attend_one_by_one(query, key, value, dropout, scaling, None, list(documents.borders)), None


AttentionInterface.register(PLANNED, _planned_attention)
