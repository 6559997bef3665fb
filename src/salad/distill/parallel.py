"""One student on many ranks: DDP keeps all of it on each, FSDP2 shards parameters, gradients and optimizer state.

What is wrapped is one forward pass of the objective, `Distillation`; alone it is used as it is. Both ways take the mean
of the gradients over ranks, so the loop multiplies its loss by their number: what the optimizer sees is the gradient of
a sum divided by the global count.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from salad.distill.divergence import Sums, objective_sum
from salad.distill.fused import PEERS, Objective, fastest
from salad.distill.head import check_head, head_of
from salad.distill.teacher import Teacher
from salad.interleave.batch import Batch
from salad.model.speech_lm import SpeechLM
from salad.ranks import Ranks
from salad.recipe import EngineSettings, StageSettings

FORWARDS = ("last_hidden", "original_hidden")  # the student's ways in that are not called forward


def objective(
    student: SpeechLM, teacher: Teacher, batch: Batch, settings: StageSettings, sums: Objective = objective_sum
) -> Sums:
    """alpha x divergence + (1 - alpha) x NLL summed over the matched positions of a batch (paper section 3).

    Matrix products are in the model's dtype; what is trained is kept in float32. `sums` is who computes it.
    """
    with torch.autocast(batch.targets_N.device.type, torch.bfloat16, enabled=student.dtype == torch.bfloat16):
        teacher_NH = teacher.matched_hidden(batch)
        student_TH = student.last_hidden(
            batch.student_ids_T, batch.student_lengths_D, batch.speech_features_SFE, batch.speech_lengths_S
        )
        return sums(
            student_TH[batch.student_positions_N],
            head_of(student.language_model),
            teacher_NH,
            teacher.head,
            batch.targets_N,
            settings.alpha,
            settings.divergence,
            settings.jsd_beta,
        )


class Distillation(nn.Module):
    """The objective as the module that DDP wraps. The teacher is no part of it: nothing of it is trained or synced."""

    def __init__(
        self, student: SpeechLM, teacher: Teacher, settings: StageSettings, sums: Objective = objective_sum
    ) -> None:
        """Of one stage."""
        super().__init__()
        self.sums = sums
        self.student = student
        self._teacher = (teacher,)  # in a tuple, or its weights would become this module's
        self.settings = settings

    def forward(self, batch: Batch) -> Sums:
        """The sums over a batch on this rank's device."""
        return objective(self.student, self._teacher[0], batch, self.settings, self.sums)


def distribute(
    student: SpeechLM,
    teacher: Teacher,
    settings: StageSettings,
    engine: EngineSettings,
    ranks: Ranks,
    tell: Callable[[str], None] = lambda _: None,
) -> nn.Module:
    """The student on its device, checkpointed and spread over the ranks as asked; what gives the sums of a batch.

    Call it before the optimizer is made: under FSDP2 the parameters are replaced by their shards. On GPUs `tell` hears
    which kernel computes the objective, and why others don't.
    """
    check_head(student.language_model)
    if engine.gradient_checkpointing:
        student.checkpoint_activations()
    if ranks.world > 1 and engine.parallel == "fsdp":
        _shard(student, ranks)
        _shard_teacher(teacher, ranks)
        return Distillation(student, teacher, settings)
    student.to(ranks.device)  # type: ignore[arg-type]  # transformers' wrapper of nn.Module.to
    distillation = Distillation(student, teacher, settings, _fastest(student, teacher, settings, ranks, tell))
    if ranks.world == 1:
        return distillation
    # Every trained parameter takes part in every pass (SpeechLM.last_hidden), so none has to be looked for.
    devices = [ranks.device] if ranks.device.type == "cuda" else None
    with warnings.catch_warnings():  # its successor, forward_sync_buffers, is younger than the oldest torch we take
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(
            distillation, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )


def _fastest(
    student: SpeechLM, teacher: Teacher, settings: StageSettings, ranks: Ranks, tell: Callable[[str], None]
) -> Objective:
    """The objective that is fastest where the heads are; all ranks take the main one's choice."""
    heads = head_of(student.language_model).detached(), teacher.head
    choice = fastest(*heads, settings.alpha, settings.divergence, settings.jsd_beta)
    name = ranks.from_main(choice.name)
    if choice.refused:
        others = "; ".join(f"not {other}: {reason}" for other, reason in choice.refused.items())
        tell(f"the objective is computed by {name} ({others})")
    return PEERS.get(name, objective_sum)


def _shard(student: SpeechLM, ranks: Ranks) -> None:
    """FSDP2: a group for each layer of the LLM, one for the adapter, and the root's: table, head, last norm."""
    # What it hands out is a view, as FSDP2 warns; it is only read and indexed.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    # Shards and the sums over gradients stay float32; only what is gathered to be multiplied is narrower.
    narrow = torch.bfloat16 if student.dtype == torch.bfloat16 else None
    policy = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32 if narrow else None)
    for layer in student.language_model.get_decoder().layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(student.adapter, mesh=mesh)
    # Encoder frames go to the adapter as they are, as they do without sharding.
    fully_shard(student, mesh=mesh, mp_policy=replace(policy, cast_forward_inputs=False))
    for name in FORWARDS:
        register_fsdp_forward_method(student, name)


def _shard_teacher(teacher: Teacher, ranks: Ranks) -> None:
    """A separate teacher's layers are sharded; its table and head, which are read outside of them, are not."""
    llm: PreTrainedModel | None = getattr(teacher, "llm", None)
    if llm is None:
        return
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    decoder, table = llm.get_decoder(), llm.get_input_embeddings()
    for layer in decoder.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(decoder, mesh=mesh, ignored_params=set(table.parameters()))
    for part in (table, llm.get_output_embeddings()):
        part.to(ranks.device)


@contextmanager
def accumulating(distillation: nn.Module, last: bool) -> Iterator[None]:
    """A backward pass whose gradients stay on the rank under DDP, unless it is the step's last.

    FSDP2 sends them at once: what is kept is then a shard.
    """
    if isinstance(distillation, DistributedDataParallel) and not last:
        with distillation.no_sync():
            yield
    else:
        yield


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded, in one piece (collective)."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
