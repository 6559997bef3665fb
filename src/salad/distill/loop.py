"""The one training loop: cross-modal distillation, resumable at any step, on one rank or many.

It yields after each step and calls nobody: the stage's page decides what to log, measure and keep. A step is a pure
function of (weights, optimizer state, step number), so a run that was killed goes on from its last checkpoint and ends
with the same bits.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salad.distill.checkpoint import (
    load_checkpoint,
    load_optimizer,
    newest_checkpoint,
    prune,
    save_checkpoint,
    step_name,
)
from salad.distill.divergence import Sums
from salad.distill.parallel import accumulating, distribute, whole
from salad.distill.teacher import Teacher
from salad.errors import CheckpointError, NonFiniteError
from salad.files import write_json
from salad.interleave.batch import Batch
from salad.interleave.stream import DRAWN
from salad.interrupts import Interruptible, stopped_by
from salad.model.speech_lm import SpeechLM
from salad.ranks import ALONE, Ranks
from salad.recipe import MAY_CHANGE, EngineSettings, OptimizerSettings, StageSettings

NAMED_ITEMS = 12  # of a batch that was not finite, in the message; all are in the file it names
DEFAULT_ENGINE = EngineSettings()


@dataclass(frozen=True)
class StepReport:
    """One optimizer step over all ranks. Divergences are nats per text position: sums divided by the global count.

    `divergence_nats` is the one that is trained, `kl_nats` always D_KL(teacher || student). The student reads
    `positions`, of which it hears `speech_positions`; `flops` is the model's own arithmetic (0: not counted). `seconds`
    go from asking for the batches to the moved weights, `data_s` of them are spent waiting for batches. `drawn` is what
    the step read of each source of the stream (`Stream.drawn`): a row of counts each, the texts' last. `restored` is 0
    for a step done now; for one that a resumed run tells again, the number of steps that it goes on from.
    """

    step: int
    loss_nats: float
    divergence_nats: float
    kl_nats: float
    nll_nats: float
    count: int
    positions: int
    speech_positions: int
    flops: float
    grad_norm: float
    rate_factor: float
    seconds: float
    data_s: float
    drawn: list[list[int]] = field(default_factory=list)
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


def train(
    student: SpeechLM,
    teacher: Teacher,
    micro_batches: Callable[[int], Sequence[Batch]],
    settings: StageSettings,
    rate_factor: Callable[[int], float],
    folder: Path,
    keep: dict[int, str] | None = None,
    optimizer_from: Path | None = None,
    engine: EngineSettings = DEFAULT_ENGINE,
    ranks: Ranks = ALONE,
    flops_of: Callable[[Batch], float] = lambda _: 0.0,
    warn: Callable[[str], None] = lambda _: None,
) -> Iterator[StepReport]:
    """Train to `settings.steps`, from the last whole checkpoint in `folder` if there is one.

    Args:
        student: trained in place (under FSDP2 its parameters become shards).
        teacher: read only.
        micro_batches: this rank's batches of a step; a pure function of the step. As many on every rank.
        settings: objective, length, optimizer.
        rate_factor: the schedule, a factor of the peak rates.
        folder: checkpoints go here, `folder/step-00000010`; the last `engine.keep_checkpoints` are kept.
        keep: {number of steps done: name} of checkpoints to keep as `folder/NAME`.
        optimizer_from: a checkpoint whose optimizer state the first step starts with (its weights are not taken).
        engine: how it is spread over the ranks and what is recomputed.
        ranks: this process among the others.
        flops_of: the model's arithmetic of a batch, for the reports.
        warn: told a sentence when a damaged checkpoint is passed over, or on which kernel the objective is computed.

    Yields:
        A report a step, those of the steps before a resume included, in order.

    Raises:
        NonFiniteError: loss or gradient is not finite; the optimizer has not moved.
        InterruptedRunError: SIGTERM or SIGINT came to one of the ranks; all up to there is in a checkpoint.
        CheckpointError: a checkpoint is of another model or other settings, or can't be written.
    """
    keep = keep or {}
    distillation = distribute(student, teacher, settings, engine, ranks, warn)
    optimizer = make_optimizer(student, settings.optimizer)
    reports = _resume(folder, student, optimizer, settings, optimizer_from, ranks, warn)
    for report in list(reports):
        yield replace(report, restored=len(reports))
    with Interruptible(quiet=not ranks.is_main) as interrupted:
        for step in range(len(reports), settings.steps):
            started = time.perf_counter()
            made = micro_batches(step)
            data_s = time.perf_counter() - started
            # ------------------------------------------------------------ one step
            count, positions, heard, flops, *drawn = ranks.total(_sizes(made, student, flops_of)).tolist()
            batches = [batch.to(ranks.device) for batch in made]
            student.train()
            optimizer.zero_grad()
            sums = torch.zeros(len(Sums._fields), dtype=torch.float64, device=ranks.device)
            for number, batch in enumerate(batches, start=1):
                with accumulating(distillation, last=number == len(batches)):
                    found: Sums = distillation(batch)
                    (found.loss * ranks.world / count).backward()  # the mean over ranks is taken
                sums += torch.stack([value.detach() for value in found]).double()
            sums = ranks.total(sums) / count
            norm = float(whole(torch.nn.utils.clip_grad_norm_(_trained(student), settings.optimizer.clip_norm)))
            _stop_if_not_finite(sums[0], norm, step, batches, folder, ranks)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate_factor(step)
            optimizer.step()
            # ---------------------------------------------------------------------
            student.eval()
            reports.append(
                StepReport(
                    step=step + 1,
                    loss_nats=float(sums[0]),
                    divergence_nats=float(sums[1]),
                    kl_nats=float(sums[2]),
                    nll_nats=float(sums[3]),
                    count=int(count),
                    positions=int(positions),
                    speech_positions=int(heard),
                    flops=flops,
                    grad_norm=norm,
                    rate_factor=rate_factor(step),
                    seconds=time.perf_counter() - started,
                    data_s=data_s,
                    drawn=np.array(drawn, np.int64).reshape(-1, len(DRAWN)).tolist(),
                )
            )
            stop = ranks.any(interrupted() is not None)
            names = [keep[step + 1]] if step + 1 in keep else []
            if stop or (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
                names.append(step_name(step + 1))
            if names:
                state = {"settings": _fixed(settings), "reports": [asdict(report) for report in reports]}
            for name in names:  # the kept one first: a run that goes on does not come by its step again
                save_checkpoint(folder / name, student, optimizer, state, ranks)
            if names and ranks.is_main:
                prune(folder, engine.keep_checkpoints)
            if stop:
                raise stopped_by(interrupted() or signal.SIGTERM, step + 1, settings.steps)
            yield reports[-1]


def _resume(
    folder: Path,
    student: SpeechLM,
    optimizer: torch.optim.Optimizer,
    settings: StageSettings,
    optimizer_from: Path | None,
    ranks: Ranks,
    warn: Callable[[str], None],
) -> list[StepReport]:
    """Weights, optimizer state and reports of the newest whole checkpoint; of none, a fresh start."""
    newest, passed_over = newest_checkpoint(folder, ranks)
    for sentence in passed_over:
        warn(sentence)
    if newest is None:
        if optimizer_from is not None:
            load_optimizer(optimizer_from, student, optimizer, ranks)
        return []
    state = load_checkpoint(newest, student, optimizer, ranks)
    changed = sorted(key for key, value in _fixed(settings).items() if state["settings"].get(key) != value)
    if changed:
        raise CheckpointError(
            f"{newest} was trained with another {', '.join(changed)} than is asked for now; set it back, or delete "
            f"{folder} to start again."
        )
    return [StepReport(**row) for row in state["reports"]]


def _fixed(settings: StageSettings) -> dict[str, Any]:
    """The settings that make a run what it is, as they stand in its checkpoints."""
    return {key: value for key, value in settings.model_dump(mode="json").items() if key not in MAY_CHANGE}


def _sizes(batches: Sequence[Batch], student: SpeechLM, flops_of: Callable[[Batch], float]) -> Tensor:
    """Of this rank's batches: matched positions, student positions, heard ones among them, FLOPs; what they drew."""
    rows = [
        (
            len(batch.targets_N),
            len(batch.student_ids_T),
            int((batch.student_ids_T == student.config.speech_token_id).sum()),
            flops_of(batch),
        )
        for batch in batches
    ]
    drawn = torch.tensor([batch.drawn for batch in batches], dtype=torch.float64)
    return torch.cat([torch.tensor(rows, dtype=torch.float64).sum(0), drawn.sum(0).flatten()])


def _trained(student: SpeechLM) -> list[Tensor]:
    return [p for p in student.parameters() if p.requires_grad]


def _stop_if_not_finite(
    loss: Tensor, norm: float, step: int, batches: Sequence[Batch], folder: Path, ranks: Ranks
) -> None:
    if math.isfinite(float(loss)) and math.isfinite(norm):
        return
    items = [item for own in ranks.gather([item for batch in batches for item in batch.items]) for item in own]
    note = folder / "not_finite.json"
    if ranks.is_main:
        write_json(note, {"step": step + 1, "loss_nats": str(float(loss)), "grad_norm": str(norm), "items": items})
    raise NonFiniteError(
        f"step {step + 1}: the loss ({float(loss)}) or its gradient norm ({norm}) is not finite; nothing was changed. "
        f"Lower the learning rates, or look at the {len(items)} items of its batches, listed in {note}: "
        f"{', '.join(items[:NAMED_ITEMS])}{' ...' if len(items) > NAMED_ITEMS else ''}."
    )
