"""The one training loop: cross-modal distillation, resumable at any step.

It yields after each step and calls nobody: the stage's page decides what to log, measure and keep. A step is a pure
function of (weights, optimizer state, step number), so a run that was killed goes on from its last checkpoint and ends
with the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from salad.distill.checkpoint import load_checkpoint, load_optimizer, save_checkpoint, settle
from salad.distill.divergence import objective_sum
from salad.distill.teacher import Teacher
from salad.errors import NonFiniteError
from salad.interleave.batch import Batch
from salad.model.speech_lm import SpeechLM
from salad.recipe import OptimizerSettings, StageSettings


@dataclass(frozen=True)
class StepReport:
    """One optimizer step. Divergences are nats per text position (sums divided by the global count).

    `seconds` go from asking for the batches to the moved weights, `data_s` of them are spent waiting for the batches;
    `flops` are the model's (model/flops.py), of all ranks, 0 where they were not counted. A report that was read from a
    checkpoint says after which step that one was saved: `restored`.
    """

    step: int
    loss_nats: float
    kl_nats: float
    nll_nats: float
    count: int
    positions: int
    grad_norm: float
    rate_factor: float
    seconds: float
    data_s: float = 0.0
    flops: float = 0.0
    restored: int = field(default=0, compare=False)


def make_optimizer(student: SpeechLM, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW with the adapter and the LLM as two groups, each with its own peak rate."""
    adapter = [p for p in student.adapter.parameters() if p.requires_grad]
    llm = [p for p in student.language_model.parameters() if p.requires_grad]
    groups = [{"params": adapter, "peak": settings.adapter_rate}, {"params": llm, "peak": settings.llm_rate}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
    )


def objective(student: SpeechLM, teacher: Teacher, batch: Batch, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """(L, sum of KL, sum of NLL) over the matched positions of a batch."""
    student_TH = student.last_hidden(
        batch.student_ids_T, batch.student_lengths_D, batch.speech_features_SFE, batch.speech_lengths_S
    )
    teacher_LH = teacher.last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D)
    student_NH, teacher_NH = student_TH[batch.student_positions_N], teacher_LH[batch.teacher_positions_N]
    sums = objective_sum(student_NH, student.head_VH, teacher_NH, teacher.head_VH, batch.targets_N, alpha)
    return sums.loss, sums.kl, sums.nll


def train(
    student: SpeechLM,
    teacher: Teacher,
    micro_batches: Callable[[int], Sequence[Batch]],
    settings: StageSettings,
    rate_factor: Callable[[int], float],
    folder: Path,
    keep: dict[int, str] | None = None,
    optimizer_from: Path | None = None,
) -> Iterator[StepReport]:
    """Train to `settings.steps`, from the last whole checkpoint in `folder` if there is one.

    Args:
        student: trained in place.
        teacher: read only.
        micro_batches: the batches of a step; a pure function of the step.
        settings: objective, length, optimizer.
        rate_factor: the schedule, a factor of the peak rates.
        folder: checkpoints go here; the last one is kept as `folder/latest`.
        keep: {number of steps done: name} of checkpoints to keep as `folder/NAME`.
        optimizer_from: a checkpoint whose optimizer state the first step starts with (its weights are not taken).

    Yields:
        A report a step, those of the steps before a resume included, in order.

    Raises:
        NonFiniteError: loss or gradient is not finite; the optimizer has not moved.
    """
    keep = keep or {}
    optimizer = make_optimizer(student, settings.optimizer)
    reports: list[StepReport] = []
    settle(folder / "latest")
    if (folder / "latest").is_dir():
        reports = [StepReport(**row) for row in load_checkpoint(folder / "latest", student, optimizer)]
    elif optimizer_from is not None:
        load_optimizer(optimizer_from, optimizer)
    yield from [replace(report, restored=len(reports)) for report in reports]
    for step in range(len(reports), settings.steps):
        started = time.perf_counter()
        # ---------------------------------------------------------------- one step
        batches = micro_batches(step)
        count = sum(len(batch.targets_N) for batch in batches)
        student.train()
        optimizer.zero_grad()
        sums = torch.zeros(3, dtype=torch.float64)
        for batch in batches:
            loss, kl, nll = objective(student, teacher, batch, settings.alpha)
            (loss / count).backward()
            sums += torch.stack([loss.detach(), kl, nll]).double()
        norm = torch.nn.utils.clip_grad_norm_(_trained(student), settings.optimizer.clip_norm)
        _stop_if_not_finite(sums[0], norm, step, batches)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate_factor(step)
        optimizer.step()
        # -------------------------------------------------------------------------
        student.eval()
        loss_nats, kl_nats, nll_nats = (sums / count).tolist()
        positions = sum(len(batch.student_ids_T) for batch in batches)
        elapsed = time.perf_counter() - started
        reports.append(
            StepReport(
                step + 1, loss_nats, kl_nats, nll_nats, count, positions, float(norm), rate_factor(step), elapsed
            )
        )
        rows = [asdict(report) for report in reports]
        if step + 1 in keep:
            save_checkpoint(folder / keep[step + 1], student, optimizer, rows)
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
            save_checkpoint(folder / "latest", student, optimizer, rows)
        yield reports[-1]


def _trained(student: SpeechLM) -> list[Tensor]:
    return [p for p in student.parameters() if p.requires_grad]


def _stop_if_not_finite(loss: Tensor, norm: Tensor, step: int, batches: Sequence[Batch]) -> None:
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        items = ", ".join(item for batch in batches for item in batch.items)
        raise NonFiniteError(
            f"step {step + 1}: the loss ({float(loss)}) or its gradient norm ({float(norm)}) is not finite; nothing "
            f"was changed. Lower the learning rates, or look at the batch's items: {items}."
        )
