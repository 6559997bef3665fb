"""Two heads' logits over the same positions, a chunk at a time, and the matrix products they come from and go into.

A chunk is what a matrix product needs to be fast; the softmaxes go through it in blocks that stay in the CPU's cache.
Logits, softmaxes and sums are float32 whatever the weights' type (float64 for float64 weights): bfloat16 operands are
multiplied with float32 results, so no logit is rounded to bfloat16.
Axes: N positions, C of them in a chunk, R in a block, V rows that both heads have, H width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from salad.distill.head import Head

CHUNK = {"cpu": 256, "cuda": 2048}  # more: more memory; fewer: the head's gradient is read and written more often
BLOCK_BYTES = {"cpu": 1 << 20, "cuda": 1 << 28}  # of one tensor of a block; the cache holds four of a thread's
TILE = 4096  # rows of a bfloat16 head that are float32 at a time, where the product itself can't widen


@dataclass(frozen=True, eq=False)
class Block:
    """A block's distributions, float32 [R, V]: log p and p of the student, log q and q of the teacher.

    All of it is working memory. `log_p_RV` are the student's rows of the chunk, where the gradient by the raw products
    W h is to be left.
    """

    rows: slice
    targets_R1: Tensor
    log_p_RV: Tensor
    p_RV: Tensor
    log_q_RV: Tensor
    q_RV: Tensor
    slope_RV: Tensor | None
    scale: float

    def nll(self) -> Tensor:
        """−log p of the targets [R]."""
        return -self.log_p_RV.gather(1, self.targets_R1).squeeze(1)

    def teacher_nll(self) -> Tensor:
        """−log q of the targets [R]; to be asked before `kl`."""
        return -self.log_q_RV.gather(1, self.targets_R1).squeeze(1)

    def teacher_entropy(self) -> Tensor:
        """−Σ q log q [R]; to be asked before `kl`."""
        return -rowwise_dot(self.q_RV, self.log_q_RV)

    def kl(self) -> Tensor:
        """KL(q ‖ p) [R]; `log_q_RV` becomes log q − log p."""
        return rowwise_dot(self.q_RV, self.log_q_RV.sub_(self.log_p_RV))

    def jsd(self, beta: float) -> tuple[Tensor, Tensor]:
        """β KL(q ‖ m) + (1−β) KL(p ‖ m) [R] with m = β q + (1−β) p, and KL(p ‖ m) [R]; to be asked after `kl`.

        `log_p_RV` becomes log m − log p, and what `kl` left becomes log q − log m.
        """
        less = self.log_q_RV.new_tensor(math.log1p(-beta))
        mixture_RV = torch.logaddexp(self.log_q_RV + math.log(beta), less, out=self.log_p_RV)
        of_student_R = -rowwise_dot(self.p_RV, mixture_RV)
        of_teacher_R = rowwise_dot(self.q_RV, self.log_q_RV.sub_(mixture_RV))
        return beta * of_teacher_R + (1.0 - beta) * of_student_R, of_student_R

    def gradient_through_head(self) -> None:
        """The gradient by the logits, standing in `log_p_RV`, becomes that by the raw products."""
        if self.slope_RV is not None:
            self.log_p_RV.mul_(self.slope_RV)
        if self.scale != 1.0:
            self.log_p_RV.mul_(self.scale)


class LogitsPair:
    """The student's and the teacher's logits over N positions."""

    def __init__(
        self,
        student_NH: Tensor,
        student_head: Head,
        teacher_ND: Tensor,
        teacher_head: Head,
        targets_N: Tensor,
        chunk: int | None,
    ) -> None:
        """Raises ValueError if the shapes don't fit or a target is no token of both heads."""
        self.num, self.device = len(targets_N), student_NH.device
        self.width = min(student_head.rows, teacher_head.rows)
        _check(student_NH, student_head, teacher_ND, teacher_head, targets_N, self.width)
        self.student = Products(student_NH, student_head, self.width)
        self.teacher = Products(teacher_ND, teacher_head, self.width)
        wide = torch.float64 in (self.student.dtype, self.teacher.dtype)
        self.dtype = torch.float64 if wide else torch.float32
        most = max(1, min(chunk or CHUNK.get(self.device.type, CHUNK["cuda"]), self.num))
        self.chunk = -(-self.num // -(-self.num // most)) if self.num else 1  # equal chunks
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        row_bytes = self.width * self.dtype.itemsize
        block_bytes = threads * BLOCK_BYTES.get(self.device.type, BLOCK_BYTES["cuda"])
        self.block = max(1, threads, min(self.chunk, block_bytes // row_bytes))
        self.student_CV, self.teacher_CV = (self._empty(min(self.chunk, self.num)) for _ in range(2))
        self.p_RV, self.q_RV, self.log_q_RV = (self._empty(min(self.block, self.num)) for _ in range(3))
        self.slope_RV = None if student_head.softcap is None else torch.empty_like(self.p_RV)

    def new_values(self) -> Tensor:
        """Room for one number a position."""
        return torch.zeros(self.num, dtype=self.dtype, device=self.device)

    def chunks(self, targets_N: Tensor) -> Iterator[tuple[slice, Iterator[Block]]]:
        """A chunk's positions and its blocks, in order; the next chunk overwrites it."""
        for begin in range(0, self.num, self.chunk):
            part = slice(begin, min(begin + self.chunk, self.num))
            self.student.logits(part, self.student_CV[: part.stop - begin])
            self.teacher.logits(part, self.teacher_CV[: part.stop - begin])
            yield part, self._blocks(part, targets_N)

    def _blocks(self, part: slice, targets_N: Tensor) -> Iterator[Block]:
        for begin in range(part.start, part.stop, self.block):
            here = slice(begin, min(begin + self.block, part.stop))
            in_chunk, num = slice(begin - part.start, here.stop - part.start), here.stop - begin
            student_RV, teacher_RV = self.student_CV[in_chunk], self.teacher_CV[in_chunk]
            slope_RV = None if self.slope_RV is None else self.slope_RV[:num]
            self.student.finish(student_RV, slope_RV)
            self.teacher.finish(teacher_RV, None)
            p_RV, q_RV, log_q_RV = self.p_RV[:num], self.q_RV[:num], self.log_q_RV[:num]
            _normalize(student_RV, p_RV, student_RV)
            _normalize(teacher_RV, q_RV, log_q_RV)
            scale, targets_R1 = self.student.head.scale, targets_N[here, None]
            yield Block(here, targets_R1, student_RV, p_RV, log_q_RV, q_RV, slope_RV, scale)

    def _empty(self, rows: int) -> Tensor:
        return torch.empty(rows, self.width, dtype=self.dtype, device=self.device)


class Products:
    """One side's matrix products with the first `width` rows of its head, in autocast's type or the weight's."""

    def __init__(self, hidden_NH: Tensor, head: Head, width: int) -> None:
        kind = head.weight_VH.device.type
        autocast = torch.is_autocast_enabled(kind)
        self.dtype = torch.get_autocast_dtype(kind) if autocast else head.weight_VH.dtype
        self.head, self.hidden_NH = head, hidden_NH.detach()
        self.weight_VH = head.weight_VH.detach()[:width].to(self.dtype)
        self.bias_V = None if head.bias_V is None else head.bias_V.detach()[:width].to(self.dtype)

    def logits(self, part: slice, out_CV: Tensor) -> None:
        """W h of a chunk, into `out_CV`."""
        hidden_CH = self.hidden_NH[part].to(self.dtype)
        if self.dtype == out_CV.dtype:
            torch.mm(hidden_CH, self.weight_VH.T, out=out_CV)
        elif out_CV.is_cuda:
            torch.mm(hidden_CH, self.weight_VH.T, out_dtype=out_CV.dtype, out=out_CV)
        else:
            hidden_CH = hidden_CH.to(out_CV.dtype)
            for tile in self._tiles():
                torch.mm(hidden_CH, self.weight_VH[tile].to(out_CV.dtype).T, out=out_CV[:, tile])

    def finish(self, product_RV: Tensor, slope_RV: Tensor | None) -> None:
        """W h becomes logits, in place: bias, scale, softcap; `slope_RV` takes the softcap's derivative."""
        if self.bias_V is not None:
            product_RV.add_(self.bias_V)
        if self.head.scale != 1.0:
            product_RV.mul_(self.head.scale)
        if self.head.softcap is not None:
            product_RV.div_(self.head.softcap).tanh_()
            if slope_RV is not None:
                torch.mul(product_RV, product_RV, out=slope_RV)
                slope_RV.neg_().add_(1.0)
            product_RV.mul_(self.head.softcap)

    def hidden_gradient(self, gradient_CV: Tensor, out_CH: Tensor) -> None:
        """G W into `out_CH`."""
        if self.dtype == out_CH.dtype:
            torch.mm(gradient_CV, self.weight_VH, out=out_CH)
        elif out_CH.is_cuda:
            torch.mm(gradient_CV.to(self.dtype), self.weight_VH, out_dtype=out_CH.dtype, out=out_CH)
        else:
            out_CH.zero_()
            for tile in self._tiles():
                out_CH.addmm_(gradient_CV[:, tile], self.weight_VH[tile].to(out_CH.dtype))

    def add_weight_gradient(self, gradient_CV: Tensor, part: slice, sum_VH: Tensor, first: bool) -> None:
        """Gᵀ h added to `sum_VH`, or written there the first time."""
        hidden_CH = self.hidden_NH[part].to(self.dtype)
        beta = 0.0 if first else 1.0
        if self.dtype != sum_VH.dtype and sum_VH.is_cuda:
            gradient_VC = gradient_CV.to(self.dtype).T
            torch.addmm(sum_VH, gradient_VC, hidden_CH, beta=beta, out_dtype=sum_VH.dtype, out=sum_VH)
        else:
            torch.addmm(sum_VH, gradient_CV.T, hidden_CH.to(sum_VH.dtype), beta=beta, out=sum_VH)

    def _tiles(self) -> Iterator[slice]:
        for begin in range(0, len(self.weight_VH), TILE):
            yield slice(begin, min(begin + TILE, len(self.weight_VH)))


class Gradients:
    """The student's gradients: hidden states, head weight, head bias, as far as they are wanted; sums over chunks."""

    def __init__(self, pair: LogitsPair, wanted: tuple[bool, bool, bool]) -> None:
        shapes = (pair.student.hidden_NH, pair.student.head.weight_VH, pair.student.head.bias_V)
        self.dtypes = [None if like is None else like.dtype for like in shapes]
        self.sums = [
            torch.empty(like.shape, dtype=pair.dtype, device=pair.device) if like is not None and want else None
            for like, want in zip(shapes, wanted, strict=True)
        ]
        for grown in self.sums[1:]:  # what no chunk writes: padding rows, all of it where nothing is selected
            if grown is not None:
                grown[pair.width if pair.num else 0 :].zero_()

    def add(self, pair: LogitsPair, part: slice) -> None:
        """Add a chunk's, whose gradient by the raw products stands in the student's chunk."""
        gradient_CV = pair.student_CV[: part.stop - part.start]
        hidden, weight, bias = self.sums
        first = part.start == 0
        if hidden is not None:
            pair.student.hidden_gradient(gradient_CV, hidden[part])
        if weight is not None:
            pair.student.add_weight_gradient(gradient_CV, part, weight[: pair.width], first)
        if bias is not None:
            own = bias[: pair.width]
            own.copy_(gradient_CV.sum(0)) if first else own.add_(gradient_CV.sum(0))

    def scaled(self, factor: Tensor, copy: bool) -> list[Tensor | None]:
        """All of them times `factor`, in the types of what they are for; without `copy` the sums are overwritten."""
        results: list[Tensor | None] = []
        for grown, dtype in zip(self.sums, self.dtypes, strict=True):
            if grown is None:
                results.append(None)
                continue
            own = factor.to(grown.dtype)
            results.append((grown * own if copy else grown.mul_(own)).to(dtype))
        return results


def rowwise_dot(one_RV: Tensor, other_RV: Tensor) -> Tensor:
    """Σ_v of the products [R]."""
    total_R: Tensor = torch.linalg.vecdot(one_RV, other_RV)
    return total_R


def _normalize(logits_RV: Tensor, probabilities_RV: Tensor, logs_RV: Tensor) -> None:
    """softmax and log_softmax by one exponential; the largest probability is 1 / Σ exp(z − max z).

    torch.softmax adds V exponentials one after another and loses 2.5e-6 of their sum at V = 49,152 (log_softmax too),
    which would be several times that of a small divergence; `sum` adds pairwise, so the result is normalized once more.
    """
    torch.softmax(logits_RV, -1, out=probabilities_RV)
    probabilities_RV.div_(probabilities_RV.sum(-1, keepdim=True))
    normalizer_R1 = logits_RV.amax(-1, keepdim=True) - probabilities_RV.amax(-1, keepdim=True).log()
    torch.sub(logits_RV, normalizer_R1, out=logs_RV)


def _check(
    student_NH: Tensor, student_head: Head, teacher_ND: Tensor, teacher_head: Head, targets_N: Tensor, width: int
) -> None:
    for who, hidden, head in (("student", student_NH, student_head), ("teacher", teacher_ND, teacher_head)):
        wanted = (len(targets_N), head.weight_VH.shape[1])
        if tuple(hidden.shape) != wanted:
            raise ValueError(f"the {who}'s hidden states are {tuple(hidden.shape)}, its head and the targets {wanted}.")
    if targets_N.device.type == "cpu" and len(targets_N):  # on a GPU asking would make the CPU wait for it
        least, most = (int(bound) for bound in targets_N.aminmax())
        if least < 0 or most >= width:
            raise ValueError(
                f"targets run from {least} to {most}, the rows that both heads have from 0 to {width - 1}; leave out "
                "positions without a target, and use one tokenizer."
            )
