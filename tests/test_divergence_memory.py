"""What the objective has in memory at once: a chunk's logits and the gradients, not [N, V]; and no product too many."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from salad.distill.divergence import divergence_terms, objective_sum

POSITIONS, ROWS, WIDTH, CHUNK = 640, 2003, 16, 32
MATRIX_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::matmul")


class Watch(TorchDispatchMode):
    """The largest storage an operation makes, and how much arithmetic its matrix products do."""

    def __init__(self):
        super().__init__()
        self.largest = self.multiplications = 0
        self.places = set()  # where tensors as large as the head's gradient begin

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else (result,):
            if isinstance(made, torch.Tensor):
                size = made.untyped_storage().nbytes()
                self.largest = max(self.largest, size)
                self.places |= {made.data_ptr()} if size >= ROWS * WIDTH * 4 else set()
        if func._schema.name in MATRIX_PRODUCTS:
            left, right = args[-2:]
            self.multiplications += left.shape[-2] * left.shape[-1] * right.shape[-1]
        return result


def problem(dtype=torch.float32, head_trained=True):
    torch.manual_seed(0)
    student, teacher = torch.randn(POSITIONS, WIDTH, dtype=dtype), torch.randn(POSITIONS, WIDTH, dtype=dtype)
    heads = [torch.randn(ROWS, WIDTH, dtype=dtype) for _ in range(2)]
    heads[0].requires_grad_(head_trained)
    return student.requires_grad_(), heads[0], teacher, heads[1], torch.randint(ROWS, (POSITIONS,))


def watched(work):
    with Watch() as watch:
        work()
    return watch


def test_full_logits_are_never_stored():
    for dtype in (torch.float32, torch.bfloat16):
        for kind in ("forward_kl", "reverse_kl", "jsd"):
            given = problem(dtype)
            watch = watched(
                lambda given=given, kind=kind: objective_sum(*given, 0.5, kind, chunk=CHUNK).loss.backward()
            )
            assert watch.largest == max(CHUNK * ROWS * 4, ROWS * WIDTH * 4)
    student, head, teacher, teacher_head, targets = problem()
    watch = watched(lambda: divergence_terms(teacher, teacher_head, student, head, targets, CHUNK))
    assert watch.largest == CHUNK * ROWS * 4


def test_the_watch_would_see_full_logits():
    student, head, *_ = problem()
    assert watched(lambda: student @ head.T).largest == POSITIONS * ROWS * 4


def test_four_products_with_the_heads_gradient_and_three_without():
    one = POSITIONS * ROWS * WIDTH
    for head_trained, products in ((True, 4), (False, 3)):
        given = problem(head_trained=head_trained)
        watch = watched(lambda given=given: objective_sum(*given, 1.0, chunk=CHUNK).loss.backward())
        assert watch.multiplications == products * one


def test_the_heads_gradient_is_handed_over_and_not_copied():
    given = problem()
    loss = objective_sum(*given, 1.0, chunk=CHUNK).loss / 3.0
    watch = watched(loss.backward)
    assert watch.places == {given[1].grad.data_ptr()}
    loss = objective_sum(*given, 1.0, chunk=CHUNK).loss
    assert len(watched(lambda: torch.autograd.grad(loss, given[1], retain_graph=True)).places) == 1  # a copy, itself
