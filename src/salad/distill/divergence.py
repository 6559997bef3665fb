"""The objective from hidden states and heads, in chunks: full logits are never stored.

For matched positions n with the teacher's distribution q and the student's p over the rows that both heads have, both
softmaxes in float32, nats, temperature 1:

    forward_kl  D = Σ_v q (log q − log p)                    KL(q ‖ p), the teacher's entropy included (the paper's)
    reverse_kl  D = Σ_v p (log p − log q)                    KL(p ‖ q)
    jsd         D = β KL(q ‖ m) + (1−β) KL(p ‖ m)            m = β q + (1−β) p
    L = Σ_n α D_n + (1−α) NLL_n,   NLL_n = −log p_target     (paper, section 3)

Gradients by the student's logits z, in closed form. p moves by ∂p_v/∂z_w = p_v (1[v=w] − p_w), so a loss with
∂D/∂p_v = g_v has ∂D/∂z_v = p_v (g_v − Σ_w p_w g_w):

    forward_kl  ∂D/∂z = p − q
    reverse_kl  ∂D/∂z = p (log p − log q − D)
    jsd         ∂D/∂z = (1−β) p (log p − log m − KL(p ‖ m))
    NLL         ∂/∂z  = p − onehot(target)

They are computed in the forward pass, while a chunk's logits are there: four matrix products with the head's gradient
(two heads, two gradients), three without. There is no temperature: at T ≠ 1 none of these is a KL.
Sums, never means: who divides knows the global count. Axes: N positions, R of them at a time, V vocabulary, H student
width, D teacher width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from salad.distill.head import Head, as_head
from salad.distill.logits import Block, Gradients, LogitsPair, rowwise_dot

Divergence = Literal["forward_kl", "reverse_kl", "jsd"]


class Sums(NamedTuple):
    """Sums over N positions, float32 scalars. `loss` has gradients; `kl` is KL(q ‖ p) whatever the divergence is."""

    loss: Tensor
    divergence: Tensor
    kl: Tensor
    nll: Tensor


@dataclass(frozen=True)
class Terms:
    """Per-position values, float32 [N].

    D_KL(reference || model), -log model[target], entropy of the reference, -log reference[target], and where it was
    asked for the Jensen-Shannon divergence of the two, 0 to log 2.
    """

    kl_N: Tensor
    nll_N: Tensor
    entropy_N: Tensor
    reference_nll_N: Tensor
    jsd_N: Tensor | None = None


@dataclass(frozen=True, eq=False)
class _Setup:
    """What the objective needs besides the student's tensors."""

    student_head: Head
    teacher_ND: Tensor
    teacher_head: Head
    targets_N: Tensor
    alpha: float
    divergence: Divergence
    beta: float
    chunk: int | None


def objective_sum(
    student_NH: Tensor,
    student_head: Head | Tensor,
    teacher_ND: Tensor,
    teacher_head: Head | Tensor,
    targets_N: Tensor,
    alpha: float,
    divergence: Divergence = "forward_kl",
    jsd_beta: float = 0.5,
    chunk: int | None = None,
) -> Sums:
    """The objective and its parts over N positions; `loss` has gradients for the student's hidden states and head.

    Nothing flows into the teacher. An empty selection gives zeros that still reach the student's graph. Under
    torch.autocast the products are taken in its dtype, whatever the weights'. There is no second derivative.

    Args:
        student_NH: last hidden states.
        student_head: the student's; a plain tensor is a weight without bias, softcap or scale.
        teacher_ND: the teacher's last hidden states at the same positions.
        teacher_head: the teacher's; rows that only one of the heads has are left out.
        targets_N: token ids, below the common width.
        alpha: weight of the divergence; the rest is NLL's.
        divergence: forward_kl, reverse_kl or jsd.
        jsd_beta: the teacher's weight in the mixture of jsd, inside (0, 1).
        chunk: positions whose logits are in memory at a time; None: what suits the device.

    Raises:
        ValueError: shapes don't fit, an unknown divergence, a target that is no token of both.
    """
    student_head, teacher_head = as_head(student_head), as_head(teacher_head).detached()
    if divergence not in ("forward_kl", "reverse_kl", "jsd"):
        raise ValueError(f"divergence {divergence!r} is not known; choose forward_kl, reverse_kl or jsd.")
    if divergence == "jsd" and not 0.0 < jsd_beta < 1.0:
        raise ValueError(f"jsd_beta is {jsd_beta}, it must lie between 0 and 1; at the ends use the KL itself.")
    setup = _Setup(student_head, teacher_ND.detach(), teacher_head, targets_N, alpha, divergence, jsd_beta, chunk)
    return Sums(*_Objective.apply(student_NH, student_head.weight_VH, student_head.bias_V, setup))


@torch.no_grad()
def divergence_terms(
    reference_ND: Tensor,
    reference_head: Head | Tensor,
    model_NH: Tensor,
    model_head: Head | Tensor,
    targets_N: Tensor,
    chunk: int | None = None,
    jsd: bool = False,
) -> Terms:
    """Exact per-position terms for measuring; no gradient. `jsd` is asked for because it is not free.

    Forgetting takes the text LLM as reference and the adapted model on text as model; misalignment the adapted model on
    text as reference and on speech as model; the selection score the text LLM on text and the adapted model on speech.
    """
    pair = LogitsPair(model_NH, as_head(model_head), reference_ND, as_head(reference_head), targets_N, chunk)
    kl_N, nll_N, entropy_N, reference_nll_N, jsd_N = (pair.new_values() for _ in range(5))
    with torch.autocast(pair.device.type, enabled=False):
        for _, blocks in pair.chunks(targets_N):
            for block in blocks:
                entropy_N[block.rows], reference_nll_N[block.rows] = block.teacher_entropy(), block.teacher_nll()
                nll_N[block.rows], kl_N[block.rows] = block.nll(), block.kl()
                if jsd:
                    jsd_N[block.rows] = block.jsd(0.5)[0]
    return Terms(
        kl_N.float(), nll_N.float(), entropy_N.float(), reference_nll_N.float(), jsd_N.float() if jsd else None
    )


class _Objective(torch.autograd.Function):
    """The sums; gradients are computed chunk by chunk in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, student_NH: Tensor, _weight_VH: Tensor, _bias_V: Tensor | None, setup: _Setup
    ) -> tuple[Tensor, ...]:
        pair = LogitsPair(
            student_NH, setup.student_head, setup.teacher_ND, setup.teacher_head, setup.targets_N, setup.chunk
        )
        gradients = Gradients(pair, ctx.needs_input_grad[:3])
        divergence_N, kl_N, nll_N = (pair.new_values() for _ in range(3))
        with torch.autocast(pair.device.type, enabled=False):
            for part, blocks in pair.chunks(setup.targets_N):
                for block in blocks:
                    nll_N[block.rows], kl_N[block.rows] = block.nll(), block.kl()
                    divergence_N[block.rows] = _by_logits(block, kl_N[block.rows], setup)
                    block.gradient_through_head()
                gradients.add(pair, part)
        ctx.gradients = gradients
        divergence, kl, nll = (values.sum(dtype=torch.float64) for values in (divergence_N, kl_N, nll_N))
        sums = (setup.alpha * divergence + (1.0 - setup.alpha) * nll, divergence, kl, nll)
        result = tuple(value.to(pair.dtype) for value in sums)
        ctx.mark_non_differentiable(*result[1:])
        return result

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("the distillation objective has no second derivative; leave create_graph=True out.")
        if ctx.gradients is None:
            raise RuntimeError(
                "the gradient of this distillation objective was handed out already; for a second backward pass give "
                "the first one retain_graph=True (it costs a copy of the head's gradient)."
            )
        gradients = ctx.gradients
        if not _graph_is_kept():
            ctx.gradients = None
        return *gradients.scaled(grad_loss, copy=ctx.gradients is not None), None


def _graph_is_kept() -> bool:
    """Whether the running backward pass has retain_graph=True. PyTorch tells itself alone; not known counts as yes."""
    asked = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if asked is None else bool(asked())


def _by_logits(block: Block, kl_R: Tensor, setup: _Setup) -> Tensor:
    """D [R]; the gradient of α D + (1−α) NLL by the student's logits is left in `block.log_p_RV`."""
    alpha, beta = setup.alpha, setup.beta
    p_RV, q_RV, log_ratio_RV, gradient_RV = block.p_RV, block.q_RV, block.log_q_RV, block.log_p_RV
    if setup.divergence == "forward_kl":
        divergence_R = kl_R
        torch.sub(p_RV, q_RV, alpha=alpha, out=gradient_RV)
    elif setup.divergence == "reverse_kl":
        divergence_R = -rowwise_dot(p_RV, log_ratio_RV)
        log_ratio_RV.add_(divergence_R[:, None]).mul_(-alpha).add_(1.0 - alpha)
        torch.mul(p_RV, log_ratio_RV, out=gradient_RV)
    else:
        divergence_R, of_student_R = block.jsd(beta)
        mixture_RV = gradient_RV  # log m − log p
        mixture_RV.add_(of_student_R[:, None]).mul_(-alpha * (1.0 - beta)).add_(1.0 - alpha).mul_(p_RV)
    gradient_RV.scatter_add_(1, block.targets_R1, gradient_RV.new_full(block.targets_R1.shape, alpha - 1.0))
    return divergence_R
