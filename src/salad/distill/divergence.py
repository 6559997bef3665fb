"""KL and NLL from hidden states and heads, in chunks: full logits are never stored.

For matched positions n with teacher distribution q = softmax(W_q h_q) and student p = softmax(W_p h_p):

    KL_n  = sum_v q_v (log q_v - log p_v)          D_KL(q || p), nats, temperature 1, the teacher's entropy included
    NLL_n = -log p_target
    L     = sum_n alpha KL_n + (1 - alpha) NLL_n    (paper section 3)
    dL/dz_p = p - (alpha q + (1 - alpha) onehot)    the closed form the backward pass uses

Softmaxes are taken in float32 whatever the inputs' type. Sums, never means: who divides knows the global count.
Axes: N positions, V vocabulary, H student width, D teacher width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK = 256  # positions whose logits are in memory at a time; at V = 49,152 a chunk is 50 MB a side


@dataclass(frozen=True)
class Terms:
    """Per-position values, float32 [N]: D_KL(reference || model), -log model[target], entropy of the reference."""

    kl_N: Tensor
    nll_N: Tensor
    entropy_N: Tensor


def _log_softmax(hidden: Tensor, head: Tensor) -> Tensor:
    return torch.log_softmax((hidden.to(head.dtype) @ head.T).float(), dim=-1)


def _common_width(reference: Tensor, model: Tensor) -> tuple[Tensor, Tensor]:
    """Heads padded to different widths (152,064 against 151,936) are compared on the rows both have."""
    width = min(reference.shape[0], model.shape[0])
    return reference[:width], model[:width]


@torch.no_grad()
def divergence_terms(
    reference_ND: Tensor,
    reference_head_VD: Tensor,
    model_NH: Tensor,
    model_head_VH: Tensor,
    targets_N: Tensor,
    chunk: int = CHUNK,
) -> Terms:
    """Exact per-position terms for measuring; no gradient.

    Forgetting takes the text LLM as reference and the adapted model on text as model; misalignment the adapted model on
    text as reference and on speech as model; the selection score the text LLM on text and the adapted model on speech.
    """
    reference_head, model_head = _common_width(reference_head_VD, model_head_VH)
    kl, nll, entropy = [], [], []
    for begin in range(0, len(targets_N), chunk):
        part = slice(begin, begin + chunk)
        log_q = _log_softmax(reference_ND[part], reference_head)
        log_p = _log_softmax(model_NH[part], model_head)
        q = log_q.exp()
        kl.append((q * (log_q - log_p)).sum(-1))
        nll.append(-log_p.gather(1, targets_N[part, None]).squeeze(1))
        entropy.append(-(q * log_q).sum(-1))
    empty = torch.zeros(0)
    return Terms(*(torch.cat(parts) if parts else empty for parts in (kl, nll, entropy)))


class _Objective(torch.autograd.Function):
    """L and the sums of KL and NLL; gradients are computed chunk by chunk in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        student_NH: Tensor,
        student_head_VH: Tensor,
        teacher_ND: Tensor,
        teacher_head_VD: Tensor,
        targets_N: Tensor,
        alpha: float,
        chunk: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        teacher_head, student_head = _common_width(teacher_head_VD, student_head_VH)
        grad_student = torch.zeros_like(student_NH)
        grad_head = torch.zeros_like(student_head_VH) if ctx.needs_input_grad[1] else None
        kl_sum = student_NH.new_zeros((), dtype=torch.float32)
        nll_sum = torch.zeros_like(kl_sum)
        for begin in range(0, len(targets_N), chunk):
            part = slice(begin, begin + chunk)
            target_N1 = targets_N[part, None]
            log_p = _log_softmax(student_NH[part], student_head)
            nll_sum += -log_p.gather(1, target_N1).sum()
            log_q = _log_softmax(teacher_ND[part], teacher_head)
            q = log_q.exp()
            kl_sum += (q * (log_q - log_p)).sum()
            grad_logits = log_p.exp_().sub_(q, alpha=alpha)
            grad_logits.scatter_add_(1, target_N1, grad_logits.new_full(target_N1.shape, alpha - 1.0))
            grad_logits = grad_logits.to(student_head.dtype)
            grad_student[part] = (grad_logits @ student_head).to(grad_student.dtype)
            if grad_head is not None:
                grad_head[: student_head.shape[0]].addmm_(grad_logits.T, student_NH[part].to(student_head.dtype))
        ctx.save_for_backward(grad_student, grad_head)
        ctx.mark_non_differentiable(kl_sum, nll_sum)
        return alpha * kl_sum + (1.0 - alpha) * nll_sum, kl_sum, nll_sum

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _kl: Tensor, _nll: Tensor) -> tuple[Tensor | None, ...]:
        grad_student, grad_head = ctx.saved_tensors
        scaled_head = None if grad_head is None else grad_head * grad_loss.to(grad_head.dtype)
        return grad_student * grad_loss.to(grad_student.dtype), scaled_head, None, None, None, None, None


def objective_sum(
    student_NH: Tensor,
    student_head_VH: Tensor,
    teacher_ND: Tensor,
    teacher_head_VD: Tensor,
    targets_N: Tensor,
    alpha: float,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor, Tensor]:
    """(L, sum of KL, sum of NLL) over N positions; L has gradients for the student's hidden states and head.

    Nothing flows into the teacher. An empty selection gives zeros that still reach the student's graph.
    """
    loss: tuple[Tensor, Tensor, Tensor] = _Objective.apply(
        student_NH, student_head_VH, teacher_ND.detach(), teacher_head_VD.detach(), targets_N, alpha, chunk
    )
    return loss
