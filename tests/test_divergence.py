"""The chunked divergence against the dense one in float64, in value and in gradient."""

import pytest
import torch

from salad.distill.divergence import divergence_terms, objective_sum

ALPHAS = (0.0, 0.3, 1.0)
SHAPES = [  # positions, rows of the student's head, of the teacher's head, student width, teacher width, chunk
    (1, 17, 17, 4, 4, 256),
    (5, 33, 33, 8, 6, 1),
    (7, 65, 50, 8, 6, 3),
    (13, 50, 65, 5, 9, 4),
    (256, 31, 31, 8, 8, 256),
    (257, 31, 31, 8, 8, 256),
    (64, 301, 301, 16, 16, 7),
]


def problem(shape, seed=0, spread=3.0):
    num, student_rows, teacher_rows, width, teacher_width, chunk = shape
    torch.manual_seed(seed)
    student = torch.randn(num, width)
    student_head = spread * torch.randn(student_rows, width) / width**0.5
    teacher = torch.randn(num, teacher_width)
    teacher_head = spread * torch.randn(teacher_rows, teacher_width) / teacher_width**0.5
    targets = torch.randint(min(student_rows, teacher_rows), (num,))
    return student, student_head, teacher, teacher_head, targets, chunk


def dense(student, student_head, teacher, teacher_head, targets):
    """KL, NLL and the teacher's entropy of every position, as the paper writes them, in float64."""
    rows = min(len(student_head), len(teacher_head))
    q = torch.softmax(teacher.double() @ teacher_head[:rows].double().T, -1)
    p = torch.softmax(student.double() @ student_head[:rows].double().T, -1)
    kl = (q * (q / p).log()).sum(-1)
    nll = -p[torch.arange(len(targets)), targets].log()
    return kl, nll, -(q * q.log()).sum(-1)


def dense_gradients(student, student_head, teacher, teacher_head, targets, alpha):
    student, student_head = student.double().requires_grad_(), student_head.double().requires_grad_()
    kl, nll, _ = dense(student, student_head, teacher, teacher_head, targets)
    (alpha * kl.sum() + (1 - alpha) * nll.sum()).backward()
    return student.grad, student_head.grad


def relative_error(got, wanted):
    return float((got.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_the_dense_reference(shape, alpha):
    *inputs, targets, chunk = problem(shape)
    student, student_head, teacher, teacher_head = inputs
    student.requires_grad_()
    student_head.requires_grad_()
    loss, _, kl, nll = objective_sum(student, student_head, teacher, teacher_head, targets, alpha, chunk=chunk)
    loss.backward()
    kl_N, nll_N, _ = dense(*(t.detach() for t in inputs), targets)
    assert float(kl) == pytest.approx(float(kl_N.sum()), rel=1e-6)
    assert float(nll) == pytest.approx(float(nll_N.sum()), rel=1e-6)
    assert loss.item() == pytest.approx(float(alpha * kl_N.sum() + (1 - alpha) * nll_N.sum()), rel=1e-6)
    wanted, wanted_head = dense_gradients(*(t.detach() for t in inputs), targets, alpha)
    assert relative_error(student.grad, wanted) < 1e-5
    assert relative_error(student_head.grad, wanted_head) < 1e-5


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_measured_terms_are_those_of_the_dense_reference(shape):
    student, student_head, teacher, teacher_head, targets, chunk = problem(shape)
    terms = divergence_terms(teacher, teacher_head, student, student_head, targets, chunk)
    for got, wanted in zip(
        (terms.kl_N, terms.nll_N, terms.entropy_N),
        dense(student, student_head, teacher, teacher_head, targets),
        strict=True,
    ):
        assert got.shape == (len(targets),)
        assert torch.allclose(got.double(), wanted, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_training_and_measuring_agree(shape):
    student, student_head, teacher, teacher_head, targets, chunk = problem(shape)
    _, _, kl, nll = objective_sum(student, student_head, teacher, teacher_head, targets, 1.0, chunk=chunk)
    terms = divergence_terms(teacher, teacher_head, student, student_head, targets, chunk=2 * chunk + 1)
    assert float(terms.kl_N.sum()) == pytest.approx(float(kl), rel=1e-6)
    assert float(terms.nll_N.sum()) == pytest.approx(float(nll), rel=1e-6)


def test_the_chunk_changes_no_number():
    *inputs, targets, _ = problem((50, 40, 40, 8, 8, 0))
    results = [float(objective_sum(*inputs, targets, 0.5, chunk=chunk)[0]) for chunk in (1, 7, 49, 50, 51)]
    assert results == pytest.approx([results[0]] * 5, rel=1e-6)


def test_kl_includes_the_teachers_entropy():
    student, head, _, _, targets, _ = problem((9, 21, 21, 6, 6, 4))
    terms = divergence_terms(student, head, student, head, targets, 4)
    assert float(terms.kl_N.abs().max()) == 0.0
    assert float(objective_sum(student, head, student, head, targets, 1.0, chunk=4)[1]) == 0.0
    assert float(terms.entropy_N.min()) > 0.1  # a cross-entropy would have been this, not 0


def test_kl_is_from_the_reference_to_the_model():
    one, head, other, other_head, targets, _ = problem((9, 21, 21, 6, 6, 4))
    there = divergence_terms(other, other_head, one, head, targets).kl_N
    back = divergence_terms(one, head, other, other_head, targets).kl_N
    assert (there >= 0).all()
    assert not torch.allclose(there, back, rtol=0.05)


def test_kl_of_a_hand_made_pair():
    # q = (3/4, 1/4), p = (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2), and the entropy of q
    head = torch.eye(2)
    q, p = torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2)
    terms = divergence_terms(q, head, p, head, torch.tensor([1]))
    assert float(terms.kl_N) == pytest.approx(0.130812, abs=1e-6)
    assert float(terms.nll_N) == pytest.approx(0.693147, abs=1e-6)
    assert float(terms.entropy_N) == pytest.approx(0.562335, abs=1e-6)


def test_nothing_selected_gives_zeros_that_reach_the_graph():
    _, head, _, teacher_head, _, chunk = problem((3, 17, 17, 4, 4, 2))
    student, targets = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, dtype=torch.long)
    head.requires_grad_()
    loss, _, kl, nll = objective_sum(student, head, torch.zeros(0, 4), teacher_head, targets, 0.5, chunk=chunk)
    loss.backward()
    assert loss.item() == float(kl) == float(nll) == 0.0
    assert student.grad.shape == (0, 4)
    assert float(head.grad.abs().sum()) == 0.0
    terms = divergence_terms(torch.zeros(0, 4), teacher_head, student, head, targets)
    assert len(terms.kl_N) == len(terms.nll_N) == len(terms.entropy_N) == 0


def test_rows_beyond_the_common_width_change_nothing_and_get_no_gradient():
    student, head, teacher, teacher_head, targets, _ = problem((11, 40, 33, 6, 6, 4))
    student.requires_grad_()
    head.requires_grad_()
    loss, _, _, _ = objective_sum(student, head, teacher, teacher_head, targets, 0.7, chunk=4)
    loss.backward()
    cut = objective_sum(student.detach(), head.detach()[:33], teacher, teacher_head, targets, 0.7, chunk=4)[0]
    assert loss.item() == float(cut)
    assert float(head.grad[33:].abs().max()) == 0.0
    assert float(head.grad[:33].abs().max()) > 0.0


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_tied_head_gets_its_gradient_from_both_ends(alpha):
    *_, teacher, teacher_head, targets, _ = problem((12, 29, 29, 6, 6, 5))
    table = torch.randn(29, 6)
    ids = torch.randint(29, (12,))

    def gradient(table, objective):
        table = table.clone().requires_grad_()
        objective(torch.tanh(table[ids]), table).backward()
        return table.grad

    def reference(hidden, head):
        kl, nll, _ = dense(hidden, head, teacher, teacher_head, targets)
        return alpha * kl.sum() + (1 - alpha) * nll.sum()

    def chunked(hidden, head):
        return objective_sum(hidden, head, teacher, teacher_head, targets, alpha, chunk=5)[0]

    assert relative_error(gradient(table, chunked), gradient(table.double(), reference)) < 1e-5


def test_the_gradient_is_the_slope():
    # torch.autograd.gradcheck in spirit; the softmax is float32 by design, so the steps are wide and along directions
    *inputs, targets, _ = problem((6, 13, 13, 5, 5, 4), spread=1.0)
    student, head, teacher, teacher_head = (t.double() for t in inputs)
    student.requires_grad_()
    head.requires_grad_()
    objective_sum(student, head, teacher, teacher_head, targets, 0.4, chunk=4)[0].backward()
    for seed in range(5):
        torch.manual_seed(seed)
        along, along_head = torch.randn_like(student), torch.randn_like(head)
        step = 1e-2
        ends = [
            objective_sum(student + s * along, head + s * along_head, teacher, teacher_head, targets, 0.4, chunk=4)[
                0
            ].item()
            for s in (step, -step)
        ]
        wanted = float((student.grad * along).sum() + (head.grad * along_head).sum())
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(wanted, rel=2e-3)


def test_the_gradient_follows_what_is_done_with_the_loss():
    student, head, teacher, teacher_head, targets, _ = problem((6, 13, 13, 5, 5, 4))
    student.requires_grad_()
    head.requires_grad_()
    loss = objective_sum(student, head, teacher, teacher_head, targets, 0.4, chunk=4).loss
    plain = torch.autograd.grad(loss, (student, head), retain_graph=True)
    scaled = torch.autograd.grad(loss * 0.125, (student, head), retain_graph=True)
    last = torch.autograd.grad(loss * 2.0, (student, head))
    for one, eighth, double in zip(plain, scaled, last, strict=True):
        assert torch.equal(eighth, one * 0.125)
        assert torch.equal(double, one * 2.0)


def test_a_second_derivative_and_a_graph_that_is_gone_are_refused_with_a_sentence():
    student, head, teacher, teacher_head, targets, _ = problem((6, 13, 13, 5, 5, 4))
    student.requires_grad_()
    loss = objective_sum(student, head, teacher, teacher_head, targets, 0.4).loss
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, student, create_graph=True)
    loss.backward()
    with pytest.raises(RuntimeError, match="retain_graph"):
        loss.backward()


def test_nothing_flows_into_the_teacher_or_out_of_the_sums():
    student, head, teacher, teacher_head, targets, _ = problem((6, 13, 13, 5, 5, 4))
    for tensor in (student, head, teacher, teacher_head):
        tensor.requires_grad_()
    loss, _, kl, nll = objective_sum(student, head, teacher, teacher_head, targets, 0.4, chunk=4)
    loss.backward()
    assert teacher.grad is None
    assert teacher_head.grad is None
    assert not kl.requires_grad
    assert not nll.requires_grad


def test_a_head_that_is_not_trained_costs_no_gradient():
    student, head, teacher, teacher_head, targets, _ = problem((6, 13, 13, 5, 5, 4))
    student.requires_grad_()
    objective_sum(student, head, teacher, teacher_head, targets, 1.0, chunk=4)[0].backward()
    assert head.grad is None
    assert float(student.grad.abs().max()) > 0


def test_bfloat16_weights_still_have_float32_softmaxes():
    student, head, teacher, teacher_head, targets, _ = problem((40, 64, 64, 16, 16, 16))
    halves = [t.bfloat16() for t in (student, head, teacher, teacher_head)]
    terms = divergence_terms(halves[2], halves[3], halves[0], halves[1], targets)
    assert terms.kl_N.dtype == torch.float32
    wanted, _, _ = dense(*halves, targets)
    assert float(terms.kl_N.sum()) == pytest.approx(float(wanted.sum()), rel=2e-2)
    halves[0].requires_grad_()
    objective_sum(*halves, targets, 1.0)[0].backward()
    assert halves[0].grad.dtype == torch.bfloat16
    wanted_grad, _ = dense_gradients(*(t.detach() for t in halves), targets, 1.0)
    assert relative_error(halves[0].grad, wanted_grad) < 2e-2


def test_extreme_logits_stay_finite():
    head = torch.eye(3)
    student, teacher = torch.tensor([[80.0, 0.0, -80.0]]), torch.tensor([[-80.0, 0.0, 80.0]])
    loss, _, kl, nll = objective_sum(student.requires_grad_(), head, teacher, head, torch.tensor([2]), 0.5)
    loss.backward()
    assert float(kl) == pytest.approx(160.0, rel=1e-5)
    assert float(nll) == pytest.approx(160.0, rel=1e-5)
    assert torch.isfinite(student.grad).all()
