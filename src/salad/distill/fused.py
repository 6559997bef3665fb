"""The fastest objective on a device: other projects' fused GPU kernels, each held against ours before it is used.

What a candidate must give is `objective_sum`'s whole answer: α D + (1−α) NLL with gradients, D, KL and NLL. None of the
peers gives all of it in one pass, so each is completed here by what it lacks:

    liger  LigerFusedLinearJSDLoss, compiled. D and NLL in four products. Its divergence's softmax is in the inputs'
           type, so in bfloat16 the comparison with float64 refuses it; no softcap, no scale; KL beside another
           divergence is not there.
    trl    ChunkedDivergenceFunction (Triton). Softmaxes in float32, softcap, scale and bias on both sides; six
           products, because logits are made again in the backward pass, and two more for KL and NLL, which it does
           not report; α = 1 alone.

On a CPU nothing is asked: ours. On a GPU each candidate answers a small problem with the features of the real heads;
one that is refused is named with its reason, and the fastest of the others on the real heads is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from salad.distill.divergence import Divergence, Sums, divergence_terms, objective_sum
from salad.distill.head import Head

Objective = Callable[..., Sums]  # objective_sum's arguments
TOLERANCE = 1e-5  # relative error that nobody is refused for
NO_WORSE = 2.0  # times our own error against float64, in bfloat16 most of it is the inputs' rounding
POSITIONS, TIMED_POSITIONS = 48, 1024


@dataclass(frozen=True)
class Choice:
    """The objective to train with, its name, and why the others were not taken."""

    name: str
    objective: Objective
    refused: Mapping[str, str]


def fastest(
    student_head: Head,
    teacher_head: Head,
    alpha: float,
    divergence: Divergence = "forward_kl",
    jsd_beta: float = 0.5,
    candidates: Mapping[str, Objective] | None = None,
) -> Choice:
    """The fastest objective that is right on the heads' device, in their type; ours where there is no GPU.

    Args:
        student_head: the real one; its values are read for timing alone, its bias, softcap and scale for the check.
        teacher_head: likewise.
        alpha: weight of the divergence.
        divergence: which one.
        jsd_beta: the teacher's weight in the mixture of jsd.
        candidates: by name; None: those for the device.
    """
    if candidates is None:
        candidates = PEERS if student_head.weight_VH.is_cuda else {}
    how = (alpha, divergence, jsd_beta)
    reasons = {name: reason_against(one, student_head, teacher_head, how) for name, one in candidates.items()}
    refused = {name: reason for name, reason in reasons.items() if reason is not None}
    right = {"salad": objective_sum} | {name: one for name, one in candidates.items() if name not in refused}
    if len(right) == 1:
        return Choice("salad", objective_sum, refused)
    seconds = {name: _seconds(one, student_head, teacher_head, how) for name, one in right.items()}
    name = min(seconds, key=lambda one: seconds[one])
    slower = {one: f"slower: {s / seconds[name]:.2f} times {name}" for one, s in seconds.items() if one != name}
    return Choice(name, right[name], refused | slower)


def reason_against(
    objective: Objective, student_head: Head, teacher_head: Head, how: tuple[float, Divergence, float]
) -> str | None:
    """Why an objective must not be used with such heads, or None: a small problem, against ours in float64."""
    student, teacher = _small(student_head, 0), _small(teacher_head, 1)
    wide = [replace(h, weight_VH=h.weight_VH.double(), bias_V=_double(h.bias_V)) for h in (student, teacher)]
    exact = _answer(objective_sum, wide[0], wide[1], how)
    ours = _errors(_answer(objective_sum, student, teacher, how), exact)
    try:
        theirs = _errors(_answer(objective, student, teacher, how), exact)
    except Exception as error:  # noqa: BLE001  # a foreign kernel: whatever it does, it is not used, and the run says so
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    for what, off in theirs.items():
        if not off <= max(TOLERANCE, NO_WORSE * ours[what]):
            return f"its {what} is off by {off:.1e} of float64's, ours by {ours[what]:.1e}"
    return None


def liger(
    student_NH: Tensor,
    student_head: Head,
    teacher_ND: Tensor,
    teacher_head: Head,
    targets_N: Tensor,
    alpha: float,
    divergence: Divergence = "forward_kl",
    jsd_beta: float = 0.5,  # noqa: ARG001  # the arguments are objective_sum's
    chunk: int | None = None,
) -> Sums:
    """Liger's chunked distillation; its means are made sums again."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    if divergence != "forward_kl":
        raise NotImplementedError("it reports no KL beside another divergence")
    if any(head.softcap is not None or head.scale != 1.0 for head in (student_head, teacher_head)):
        raise NotImplementedError("it knows neither softcap nor scale")
    student_weight, student_bias, teacher_weight, teacher_bias = _common(student_head, teacher_head)
    loss = LigerFusedLinearJSDLoss(1.0 - alpha, alpha, 0.0, chunk_size=chunk or 1024, return_soft_hard_loss=True)
    means = loss(student_NH, student_weight, teacher_ND, teacher_weight, targets_N, student_bias, teacher_bias)
    total, kl, nll = (mean * len(targets_N) for mean in means)
    return Sums(total, kl.detach(), kl.detach(), nll.detach())


def trl(
    student_NH: Tensor,
    student_head: Head,
    teacher_ND: Tensor,
    teacher_head: Head,
    targets_N: Tensor,
    alpha: float,
    divergence: Divergence = "forward_kl",
    jsd_beta: float = 0.5,
    chunk: int | None = None,
) -> Sums:
    """TRL's divergence, and ours for the numbers it doesn't report."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    if alpha != 1.0:
        raise NotImplementedError("it has no NLL")
    student_weight, student_bias, teacher_weight, teacher_bias = _common(student_head, teacher_head)
    beta = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": jsd_beta}[divergence]
    values_N, _ = ChunkedDivergenceFunction.apply(
        student_NH, student_weight, student_bias, teacher_ND, teacher_weight, teacher_bias, beta, 1.0,
        student_head.scale, student_head.softcap, teacher_head.scale, teacher_head.softcap,
    )  # fmt: skip
    terms = divergence_terms(teacher_ND, teacher_head, student_NH, student_head, targets_N, chunk)
    return Sums(values_N.sum(), values_N.detach().sum(), terms.kl_N.sum(), terms.nll_N.sum())


PEERS: Mapping[str, Objective] = {"liger": liger, "trl": trl}


def _common(student_head: Head, teacher_head: Head) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Weights and biases, cut to the rows that both heads have."""
    width = min(student_head.rows, teacher_head.rows)
    biases = [None if head.bias_V is None else head.bias_V[:width] for head in (student_head, teacher_head)]
    return student_head.weight_VH[:width], biases[0], teacher_head.weight_VH[:width].detach(), biases[1]


def _small(head: Head, seed: int) -> Head:
    """A head of random weights with the features of the real one: device, type, bias, softcap, scale, padding."""
    like, generator = head.weight_VH, torch.Generator().manual_seed(seed)
    weight = torch.randn(1003 + 64 * seed, 64, generator=generator).to(like.device, like.dtype).div_(4.0 * head.scale)
    bias = None
    if head.bias_V is not None:
        bias = torch.randn(len(weight), generator=generator).to(like.device, like.dtype).div_(head.scale)
    return Head(weight, bias, head.softcap, head.scale)


def _double(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.double()


def _answer(
    objective: Objective, student_head: Head, teacher_head: Head, how: tuple[float, Divergence, float]
) -> dict[str, Tensor]:
    """Sums and gradients on a small problem."""
    weight = student_head.weight_VH.detach().requires_grad_()
    bias = None if student_head.bias_V is None else student_head.bias_V.detach().requires_grad_()
    student_head = replace(student_head, weight_VH=weight, bias_V=bias)
    student_NH, teacher_ND, targets_N = _states(student_head, teacher_head, POSITIONS)
    sums = objective(student_NH, student_head, teacher_ND, teacher_head, targets_N, *how)
    (sums.loss * 0.25).backward()  # a factor, as a division by the count is
    gradients = {"hidden states' gradient": student_NH.grad, "head's gradient": weight.grad}
    if bias is not None:
        gradients["bias's gradient"] = bias.grad
    wanting = [what for what, gradient in gradients.items() if gradient is None]
    if wanting:
        raise NotImplementedError(f"it gives no {wanting[0]}")
    given = {what: gradient for what, gradient in gradients.items() if gradient is not None}
    return {what: value.detach() for what, value in (sums._asdict() | given).items()}


def _errors(answer: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> dict[str, float]:
    """Relative errors by what they are of."""
    return {what: float((answer[what].double() - t).norm() / t.norm().clamp_min(1e-30)) for what, t in exact.items()}


def _states(student_head: Head, teacher_head: Head, positions: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random hidden states and targets for two heads; the same for every type of weights."""
    generator = torch.Generator().manual_seed(positions)
    student, teacher = (
        torch.randn(positions, head.weight_VH.shape[1], generator=generator).bfloat16().to(head.weight_VH)
        for head in (student_head, teacher_head)
    )
    targets = torch.randint(min(student_head.rows, teacher_head.rows), (positions,), generator=generator)
    return student.requires_grad_(), teacher, targets.to(student.device)


def _seconds(
    objective: Objective, student_head: Head, teacher_head: Head, how: tuple[float, Divergence, float]
) -> float:
    """Median of three forward and backward passes with the real heads, after a first one that compiles."""
    head = replace(student_head, weight_VH=student_head.weight_VH.detach().requires_grad_())
    student_NH, teacher_ND, targets_N = _states(head, teacher_head, TIMED_POSITIONS)
    seconds = []
    for _ in range(4):
        _settled(student_NH)
        started = time.perf_counter()
        objective(student_NH, head, teacher_ND, teacher_head.detached(), targets_N, *how).loss.backward()
        _settled(student_NH)
        seconds.append(time.perf_counter() - started)
        head.weight_VH.grad = student_NH.grad = None
    return sorted(seconds[1:])[1]


def _settled(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
