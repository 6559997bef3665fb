"""The distillation loss against dense PyTorch, torchtune's chunked loss, Liger and TRL: time, memory, error.

    python benchmarks/distill_loss.py [--json] [--quick] [--vocab V] [--precision P] [--rounds 3] [--threads 2]

Forward KL from hidden states and heads, forward and backward, with the gradients of the student's hidden states and
head; a process per variant, rounds interleaved. The ratios are own / dense, so less is better:

    time_ratio_to_dense     median over rounds of own seconds / dense PyTorch's of the same round
    peak_ratio_to_dense     own memory / dense PyTorch's; memory is the peak minus what stands before the call
    share_of_matmul_limit   seconds of the four bare matrix products (in salad's process, the same rounds; the fastest
                            of chunks and the whole, the inputs' type and float32) / own seconds; more is better
    max_rel_error           largest of the relative errors of the value, of the hidden states' and of the head's
                            gradient (norm of the difference / norm) against float64 from the same inputs, 64 positions,
                            at most 49,152 rows; `value_rel_error` and `grad_rel_error` are its parts

torchtune's loss is its algorithm (torchtune bd2a0fc, ForwardKLWithChunkedOutputLoss, eight chunks) in a few lines here;
it leaves the teacher's entropy out, which its value's error shows. Liger and TRL need `make bench-venv`; a peer that
can't be run is a row with its reason. `--quick` has one small size a vocabulary. Every row says `vocab`, `hidden`,
`positions`, `precision`, `threads`, `seed`.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from side_by_side import Result, Round, run_variants, show
from torch import Tensor
from torch.nn import functional

from salad.distill.divergence import objective_sum

CHUNK = 256
ERROR_POSITIONS, ERROR_ROWS = 64, 49_152
DENSE = "dense PyTorch"


@dataclass(frozen=True)
class Case:
    """A size: V rows of the head, H width, N positions, and the type of hidden states and heads."""

    vocab: int
    hidden: int
    positions: int
    precision: str


CASES = (
    Case(49_152, 576, 2048, "float32"),  # SmolLM2-135M
    Case(49_152, 576, 1024, "bfloat16"),
    Case(151_936, 2048, 256, "float32"),  # Qwen2.5-3B
    Case(151_936, 2048, 128, "bfloat16"),
)
QUICK = (Case(49_152, 576, 256, "float32"), Case(151_936, 256, 64, "bfloat16"))


@dataclass(frozen=True)
class Inputs:
    """Student and teacher: hidden states [N, H], heads [V, H], and the target tokens [N]."""

    student_NH: Tensor
    student_head_VH: Tensor
    teacher_NH: Tensor
    teacher_head_VH: Tensor
    targets_N: Tensor

    def part(self, positions: int, rows: int) -> Inputs:
        """The first positions and rows, with fresh leaves."""
        tensors = [self.student_NH[:positions], self.student_head_VH[:rows]]
        student, head = (t.detach().clone().requires_grad_() for t in tensors)
        teacher, targets = self.teacher_NH[:positions], self.targets_N[:positions] % rows
        return Inputs(student, head, teacher, self.teacher_head_VH[:rows], targets)


Loss = Callable[[Inputs], tuple[Tensor, float]]  # -> the loss, and what makes it a sum over positions


def dense(given: Inputs) -> tuple[Tensor, float]:
    """Both logits at once, autograd."""
    log_p = functional.log_softmax((given.student_NH @ given.student_head_VH.T).float(), -1)
    with torch.no_grad():
        log_q = functional.log_softmax((given.teacher_NH @ given.teacher_head_VH.T).float(), -1)
    return functional.kl_div(log_p, log_q, reduction="sum", log_target=True), 1.0


def salad(given: Inputs) -> tuple[Tensor, float]:
    """Ours."""
    return objective_sum(
        given.student_NH, given.student_head_VH, given.teacher_NH, given.teacher_head_VH, given.targets_N, 1.0
    ).loss, 1.0


def torchtune(given: Inputs) -> tuple[Tensor, float]:
    """torchtune's algorithm: logits and loss in eight chunks, all of which wait for the backward pass."""
    total = given.student_NH.new_zeros((), dtype=torch.float32)
    for student_CH, teacher_CH in zip(given.student_NH.chunk(8), given.teacher_NH.chunk(8), strict=True):
        student_CV = student_CH @ given.student_head_VH.T
        with torch.no_grad():
            teacher_CV = teacher_CH @ given.teacher_head_VH.T
        teacher_prob = functional.softmax(teacher_CV, dim=-1, dtype=torch.float32)
        infinite = torch.isinf(student_CV)
        student_logprob = functional.log_softmax(student_CV, dim=-1, dtype=torch.float32)
        total = total - torch.masked_fill(teacher_prob * student_logprob, infinite, 0).sum()
    return total, 1.0


def liger(given: Inputs) -> tuple[Tensor, float]:
    """Liger's chunked distillation, beta 0 (forward KL), uncompiled; its loss is a mean."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0, compiled=False, chunk_size=CHUNK
    )
    value = loss(given.student_NH, given.student_head_VH, given.teacher_NH, given.teacher_head_VH, given.targets_N)
    return value, float(len(given.targets_N))


def trl(given: Inputs) -> tuple[Tensor, float]:
    """TRL's ChunkedDivergence, beta 0 (forward KL)."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    divergence, _ = ChunkedDivergenceFunction.apply(
        given.student_NH, given.student_head_VH, None, given.teacher_NH, given.teacher_head_VH, None, 0.0
    )
    return divergence.sum(), 1.0


LOSSES: dict[str, Loss] = {
    "salad": salad,
    DENSE: dense,
    "torchtune chunked (its algorithm)": torchtune,
    "Liger 0.8.5 chunked": liger,
    "TRL 1.16 ChunkedDivergence": trl,
}


def inputs_of(case: Case, seed: int) -> Inputs:
    """Random states and heads whose divergence is a few tenths of a nat, as between a teacher and its student."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    head = normal(case.vocab, case.hidden).mul_(3.0 / case.hidden**0.5)
    teacher_head = normal(case.vocab, case.hidden).mul_(0.5 / case.hidden**0.5).add_(head)
    student = normal(case.positions, case.hidden)
    teacher = student + 0.2 * normal(case.positions, case.hidden)
    targets = torch.randint(case.vocab, (case.positions,), generator=generator)
    dtype = getattr(torch, case.precision)
    return Inputs(
        student.to(dtype).requires_grad_(),
        head.to(dtype).requires_grad_(),
        teacher.to(dtype),
        teacher_head.to(dtype),
        targets,
    )


def variant(loss: Loss, case: Case, threads: int, seed: int, with_limit: bool) -> Round:
    """One variant, ready in its own process."""
    torch.set_num_threads(threads)
    given = inputs_of(case, seed)
    value_error, grad_error = errors(loss, given.part(ERROR_POSITIONS, ERROR_ROWS))

    def one_round(index: int) -> dict[str, float]:
        limit_s = 0.0
        if index < 0:
            step(loss, given.part(ERROR_POSITIONS, 4096))
        elif with_limit:
            limit_s = limit_seconds(given)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the products' memory is not the loss's
        before_mib = peak_mib()
        taken_s = seconds_of(partial(step, loss, given)) if index >= 0 else 0.0
        own_mib = peak_mib() - before_mib
        measured = {"seconds": taken_s, "limit_s": limit_s, "own_mib": own_mib}
        return measured | {"value_error": value_error, "grad_error": grad_error}

    return one_round


def step(loss: Loss, given: Inputs) -> None:
    """Forward and backward."""
    given.student_NH.grad = given.student_head_VH.grad = None
    loss(given)[0].backward()
    given.student_NH.grad = given.student_head_VH.grad = None


def limit_seconds(given: Inputs) -> float:
    """Seconds of the four products: in chunks or at once, in the inputs' type or in float32, whichever is fastest."""
    sizes = (CHUNK, len(given.targets_N))
    fastest_s = min(seconds_of(partial(products, given, size)) for size in sizes)
    if given.student_NH.dtype == torch.float32:
        return fastest_s
    wide = Inputs(*(t.detach().float() if t.is_floating_point() else t for t in vars(given).values()))
    return min(fastest_s, *(seconds_of(partial(products, wide, size)) for size in sizes))


def peak_mib() -> float:
    """The process's VmHWM since it was last cleared."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


@torch.no_grad()
def products(given: Inputs, chunk: int) -> None:
    """The four matrix products of any exact forward and backward, and nothing else."""
    logits_CV = given.student_NH.new_empty(min(chunk, len(given.targets_N)), len(given.student_head_VH))
    grad_head_VH, grad_NH = torch.empty_like(given.student_head_VH), torch.empty_like(given.student_NH)
    for begin in range(0, len(given.targets_N), chunk):
        student_CH, teacher_CH = given.student_NH[begin : begin + chunk], given.teacher_NH[begin : begin + chunk]
        part_CV = logits_CV[: len(student_CH)]
        torch.mm(teacher_CH, given.teacher_head_VH.T, out=part_CV)
        torch.mm(student_CH, given.student_head_VH.T, out=part_CV)
        torch.mm(part_CV, given.student_head_VH, out=grad_NH[begin : begin + chunk])
        torch.addmm(grad_head_VH, part_CV.T, student_CH, beta=0.0 if begin == 0 else 1.0, out=grad_head_VH)


def errors(loss: Loss, given: Inputs) -> tuple[float, float]:
    """Relative errors of the value, and of the worse of the two gradients, against float64."""
    value, factor = loss(given)
    (value * factor).backward()
    student, head = (t.detach().double().requires_grad_() for t in (given.student_NH, given.student_head_VH))
    log_p = functional.log_softmax(student @ head.T, -1)
    log_q = functional.log_softmax(given.teacher_NH.double() @ given.teacher_head_VH.double().T, -1)
    wanted = functional.kl_div(log_p, log_q, reduction="sum", log_target=True)
    wanted.backward()
    pairs = ((given.student_NH.grad, student.grad), (given.student_head_VH.grad, head.grad))
    grad_error = max(float((got.double() - exact).norm() / exact.norm()) for got, exact in pairs)
    return abs(float(value.detach().double() * factor / wanted.detach()) - 1.0), grad_error


def seconds_of(work: Callable[[], None]) -> float:
    """Seconds it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def reason_against(loss: Loss) -> str | None:
    """Why a peer can't be run here, or None; a tiny problem is tried."""
    try:
        step(loss, inputs_of(Case(64, 8, 16, "float32"), 0))
    except Exception as error:  # noqa: BLE001  # whatever a peer does, it is a row that says so
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def rows_of(case: Case, given: argparse.Namespace, reasons: dict[str, str | None]) -> Iterator[dict[str, Any]]:
    """The rows of one case, ours first."""
    variants = {
        name: partial(variant, loss, case, given.threads, given.seed, name == "salad")
        for name, loss in LOSSES.items()
        if reasons[name] is None
    }
    results = run_variants(variants, given.rounds, given.threads)
    limits = [entry["limit_s"] for entry in results["salad"].rounds]
    shared = {"hidden": case.hidden, "positions": case.positions, "rounds": given.rounds, "threads": given.threads}
    for name in LOSSES:
        measured = numbers(results[name], results[DENSE], limits) if name in results else {"reason": reasons[name]}
        empty = dict.fromkeys(numbers(results[DENSE], results[DENSE], limits))
        case_keys = {"variant": name, "vocab": case.vocab, "precision": case.precision}
        yield case_keys | empty | measured | shared | {"seed": given.seed}


def numbers(result: Result, peer: Result, limits: list[float]) -> dict[str, Any]:
    """What one variant measured."""
    seconds, peers = ([entry["seconds"] for entry in one.rounds] for one in (result, peer))
    errors_of = result.rounds[0]
    value_error, grad_error = errors_of["value_error"], errors_of["grad_error"]
    memory, peer_memory = (max(entry["own_mib"] for entry in one.rounds) for one in (result, peer))
    return {
        "time_ratio_to_dense": round(statistics.median(o / p for o, p in zip(seconds, peers, strict=True)), 3),
        "peak_ratio_to_dense": round(memory / peer_memory, 4) if peer_memory else None,
        "share_of_matmul_limit": round(statistics.median(m / o for m, o in zip(limits, seconds, strict=True)), 3),
        "max_rel_error": float(f"{max(value_error, grad_error):.2e}"),
        "value_rel_error": float(f"{value_error:.2e}"),
        "grad_rel_error": float(f"{grad_error:.2e}"),
        "seconds": round(statistics.median(seconds), 4),
        "own_mib": round(memory, 1),
        "peak_mib": round(result.peak_mib, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    parser.add_argument("--quick", action="store_true", help="small sizes, about a minute; shows that it runs")
    parser.add_argument("--vocab", type=int, choices=(49_152, 151_936), help="this vocabulary alone")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="this precision alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    reasons = {name: reason_against(loss) for name, loss in LOSSES.items()}
    cases = [
        case
        for case in (QUICK if given.quick else CASES)
        if given.vocab in (None, case.vocab) and given.precision in (None, case.precision)
    ]
    rows = [entry for case in cases for entry in rows_of(case, given, reasons)]
    notes = [f"Ratios are own / dense PyTorch: less is better. torch {torch.__version__}; {given.threads} threads."]
    notes += [f"{name} was not run: {reason}" for name, reason in reasons.items() if reason]
    if not given.json:  # three decimals show nothing of an error
        rows = [
            {key: f"{v:.1e}" if key.endswith("error") and v is not None else v for key, v in r.items()} for r in rows
        ]
    show(rows, given.json, notes)


if __name__ == "__main__":
    main()
