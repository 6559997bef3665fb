"""A foreign kernel is used only if it computes what ours does; checked with right and wrong ones."""

import pytest
import torch
from torch.nn import functional

from salad.distill.divergence import Sums, objective_sum
from salad.distill.fused import fastest, liger, reason_against, trl
from salad.distill.head import Head


def head(seed, dtype=torch.float32, **features):
    return Head(torch.randn(40, 8, generator=torch.Generator().manual_seed(seed)).to(dtype), **features)


def right(student, student_head, teacher, teacher_head, targets, alpha, divergence="forward_kl", beta=0.5):
    return objective_sum(student, student_head, teacher, teacher_head, targets, alpha, divergence, beta, chunk=7)


def without_entropy(student, student_head, teacher, teacher_head, targets, alpha, *_):
    """torchtune's mistake: a cross-entropy that is called a KL; its gradient is right."""
    sums = right(student, student_head, teacher, teacher_head, targets, alpha)
    width = min(student_head.rows, teacher_head.rows)
    q = torch.softmax(teacher_head.logits(teacher)[:, :width].float(), -1)
    entropy = -(q * q.log()).sum()
    return Sums(sums.loss + alpha * entropy, sums.divergence + entropy, sums.kl + entropy, sums.nll)


def padded_with_zeros(student, student_head, teacher, teacher_head, targets, alpha, *_):
    """Liger's: a narrower student head gets logits of 0 where it has no rows."""
    missing = teacher_head.rows - student_head.rows
    padded = Head(functional.pad(student_head.weight_VH, (0, 0, 0, missing)), None, student_head.softcap)
    return right(student, padded, teacher, teacher_head, targets, alpha)


def half_a_gradient(student, student_head, teacher, teacher_head, targets, alpha, *_):
    frozen = Head(student_head.weight_VH.detach(), student_head.bias_V)
    return right(student, frozen, teacher, teacher_head, targets, alpha)


def in_bfloat16(student, student_head, teacher, teacher_head, targets, alpha, *_):
    """Softmaxes in the inputs' type."""
    width = min(student_head.rows, teacher_head.rows)
    log_p = torch.log_softmax(student @ student_head.weight_VH[:width].T, -1)
    log_q = torch.log_softmax(teacher @ teacher_head.weight_VH[:width].T, -1)
    kl = functional.kl_div(log_p, log_q, reduction="sum", log_target=True)
    nll = -log_p.gather(1, targets[:, None]).sum()
    return Sums(alpha * kl + (1 - alpha) * nll, kl.detach(), kl.detach(), nll.detach())


def broken(*_):
    raise MemoryError("no shared memory left")


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (without_entropy, "its loss is off"),
        (padded_with_zeros, "its loss is off"),
        (half_a_gradient, "gives no head's gradient"),
        (broken, "MemoryError: no shared memory left"),
    ],
)
def test_a_wrong_one_is_refused_and_ours_taken(objective, said):
    choice = fastest(head(0), head(1), 0.7, candidates={"wrong": objective})
    assert choice.objective is objective_sum
    assert said in choice.refused["wrong"]


def test_softmaxes_in_bfloat16_are_refused_there_and_only_there():
    how = (0.7, "forward_kl", 0.5)
    assert reason_against(in_bfloat16, head(0), head(1), how) is None
    reason = reason_against(in_bfloat16, head(0, torch.bfloat16), head(1, torch.bfloat16), how)
    assert reason is not None
    assert "off by" in reason


@pytest.mark.parametrize("features", [{}, {"softcap": 5.0}, {"scale": 0.25}, {"bias_V": torch.ones(40)}])
@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
def test_a_right_one_passes_with_any_head(kind, features):
    assert reason_against(right, head(0, **features), head(1, **features), (0.3, kind, 0.4)) is None


def test_the_fastest_of_the_right_ones_is_taken_and_the_other_named():
    choice = fastest(head(0), head(1), 1.0, candidates={"theirs": right})
    assert choice.name in ("salad", "theirs")
    (other,) = {"salad", "theirs"} - {choice.name}
    assert choice.refused[other].startswith("slower")


def test_without_a_gpu_it_is_ours_and_nothing_is_asked():
    choice = fastest(head(0), head(1), 1.0)
    assert (choice.name, choice.objective, choice.refused) == ("salad", objective_sum, {})


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
def test_trl_computes_the_same(kind):
    pytest.importorskip("trl", reason="TRL is in the benchmarks' environment (make bench-venv)")
    assert reason_against(trl, head(0, softcap=5.0), head(1, scale=0.5), (1.0, kind, 0.3)) is None


def test_liger_and_trl_say_what_they_lack():
    pytest.importorskip("liger_kernel", reason="Liger is in the benchmarks' environment (make bench-venv)")
    assert "no KL beside" in str(reason_against(liger, head(0), head(1), (1.0, "jsd", 0.3)))
    assert "softcap" in str(reason_against(liger, head(0, softcap=5.0), head(1), (1.0, "forward_kl", 0.3)))
    assert "no NLL" in str(reason_against(trl, head(0), head(1), (0.5, "forward_kl", 0.3)))
