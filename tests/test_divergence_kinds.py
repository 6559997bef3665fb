"""Every divergence through every kind of head, against autograd through the dense formulas in float64."""

from dataclasses import replace

import pytest
import torch

from salad.distill.divergence import divergence_terms, objective_sum
from salad.distill.head import Head

KINDS = ("forward_kl", "reverse_kl", "jsd")
HEADS = {  # what the student's and the teacher's head have besides their weights
    "plain": ({}, {}),
    "bias": ({"bias": True}, {"bias": True}),
    "softcap": ({"softcap": 4.0}, {"softcap": 7.0}),
    "scale": ({"scale": 0.25}, {"scale": 3.0}),
    "padded": ({"width": 37}, {"width": 41}),
    "all of it": ({"bias": True, "softcap": 5.0, "scale": 0.5, "width": 40}, {"scale": 2.0, "bias": True}),
}
BETA = 0.3


def head_of(rows, hidden, seed, bias=False, **rest):
    generator = torch.Generator().manual_seed(seed)
    weight = 3.0 * torch.randn(rows, hidden, generator=generator) / hidden**0.5
    return Head(weight, torch.randn(rows, generator=generator) if bias else None, **rest)


def problem(kind="plain", positions=23, rows=(47, 43), widths=(8, 6)):
    generator = torch.Generator().manual_seed(positions)
    heads = [head_of(r, w, s, **kw) for r, w, s, kw in zip(rows, widths, (1, 2), HEADS[kind], strict=True)]
    student, teacher = (torch.randn(positions, w, generator=generator) for w in widths)
    targets = torch.randint(min(head.rows for head in heads), (positions,), generator=generator)
    return student, heads[0], teacher, heads[1], targets


def to(dtype, student, student_head, teacher, teacher_head, targets):
    """The problem in another type, its student's tensors as leaves."""

    def head(given, leaf):
        bias = None if given.bias_V is None else given.bias_V.to(dtype).requires_grad_(leaf)
        return replace(given, weight_VH=given.weight_VH.detach().to(dtype).requires_grad_(leaf), bias_V=bias)

    student = student.detach().to(dtype).requires_grad_()
    return student, head(student_head, True), teacher.to(dtype), head(teacher_head, False), targets


def dense(student, student_head, teacher, teacher_head, targets, alpha, kind, beta=BETA, work=torch.float64):
    """loss, divergence, kl and nll as the formulas say, from full logits; autograd does the rest."""

    def log_probabilities(hidden, head):
        weight = head.weight_VH[: head.rows]
        logits = hidden @ weight.T if head.bias_V is None else hidden @ weight.T + head.bias_V[: head.rows]
        logits = logits.to(work) * head.scale
        if head.softcap is not None:
            logits = head.softcap * torch.tanh(logits / head.softcap)
        common = min(student_head.rows, teacher_head.rows)
        beyond = torch.arange(logits.shape[1]) >= common
        return torch.log_softmax(logits.masked_fill(beyond, -torch.inf), -1)[:, :common]

    log_p, log_q = log_probabilities(student, student_head), log_probabilities(teacher, teacher_head).detach()
    p, q = log_p.exp(), log_q.exp()
    log_m = (beta * q + (1 - beta) * p).log()
    kl = (q * (log_q - log_p)).sum()
    value = {
        "forward_kl": kl,
        "reverse_kl": (p * (log_p - log_q)).sum(),
        "jsd": beta * (q * (log_q - log_m)).sum() + (1 - beta) * (p * (log_p - log_m)).sum(),
    }[kind]
    nll = -log_p.gather(1, targets[:, None]).sum()
    return alpha * value + (1 - alpha) * nll, value, kl, nll


def gradients(given):
    student, head, *_ = given
    return [t.grad for t in (student, head.weight_VH, head.bias_V) if t is not None]


def error(got, wanted):
    return float((got.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", KINDS)
def test_sums_and_gradients_are_those_of_the_formulas(kind, head, alpha):
    exact, given = to(torch.float64, *problem(head)), to(torch.float32, *problem(head))
    wanted = dense(*exact, alpha, kind)
    wanted[0].backward()
    sums = objective_sum(*given, alpha, kind, BETA, chunk=5)
    sums.loss.backward()
    assert [float(got) for got in sums] == pytest.approx([float(value) for value in wanted], rel=1e-6)
    for got, exactly in zip(gradients(given), gradients(exact), strict=True):
        assert error(got, exactly) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_vocabulary_is_as_exact(kind):
    # torch's softmax alone is 5e-6 off here: its sum over the vocabulary loses what is small
    student, head, *_, targets = problem(positions=48, rows=(100_000, 100_000), widths=(16, 16))
    generator = torch.Generator().manual_seed(3)
    teacher = student + 0.2 * torch.randn(student.shape, generator=generator)
    exact, given = (to(t, student, head, teacher, head, targets) for t in (torch.float64, torch.float32))
    wanted = dense(*exact, 1.0, kind)
    wanted[0].backward()
    sums = objective_sum(*given, 1.0, kind, BETA)
    sums.loss.backward()
    assert [float(got) for got in sums] == pytest.approx([float(value) for value in wanted], rel=1e-6)
    for got, exactly in zip(gradients(given), gradients(exact), strict=True):
        assert error(got, exactly) < 1e-5


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_slope(kind, head):
    student, student_head, teacher, teacher_head, targets = to(torch.float64, *problem(head, 5, (11, 9), (3, 4)))
    student_head = replace(student_head, width=None)

    def loss(student, weight):
        changed = replace(student_head, weight_VH=weight)
        return objective_sum(student, changed, teacher, teacher_head, targets % 9, 0.6, kind, BETA, chunk=2).loss

    assert torch.autograd.gradcheck(loss, (student, student_head.weight_VH))


@pytest.mark.parametrize("kind", KINDS)
def test_measuring_uses_the_same_definition(kind):
    given = problem("all of it")
    student, student_head, teacher, teacher_head, targets = given
    terms = divergence_terms(teacher, teacher_head, student, student_head, targets, chunk=7)
    sums = objective_sum(*given, 0.5, kind, BETA)
    assert float(terms.kl_N.sum()) == pytest.approx(float(sums.kl), rel=1e-6)
    assert float(terms.nll_N.sum()) == pytest.approx(float(sums.nll), rel=1e-6)


def test_values_of_a_hand_made_pair():
    # q = (3/4, 1/4), p = (1/2, 1/2), m = (5/8, 3/8)
    q, p, eye, target = torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2), torch.eye(2), torch.tensor([0])
    value = {kind: float(objective_sum(p, eye, q, eye, target, 1.0, kind).divergence) for kind in KINDS}
    assert value["forward_kl"] == pytest.approx(0.130812, abs=1e-6)  # 3/4 ln 3/2 + 1/4 ln 1/2
    assert value["reverse_kl"] == pytest.approx(0.143841, abs=1e-6)  # 1/2 ln 2/3 + 1/2 ln 2
    assert value["jsd"] == pytest.approx(0.033822, abs=1e-6)  # half of KL(q‖m) = 0.035373 and KL(p‖m) = 0.032269
    assert float(objective_sum(p, eye, q, eye, target, 1.0, "jsd").kl) == pytest.approx(0.130812, abs=1e-6)


def test_jsd_beta_is_the_teachers_weight():
    given = to(torch.float64, *problem())
    forward, reverse = (float(objective_sum(*given, 1.0, kind).divergence) for kind in ("forward_kl", "reverse_kl"))
    low, high = (float(objective_sum(*given, 1.0, "jsd", beta).divergence) for beta in (1e-10, 1.0 - 1e-10))
    assert low / 1e-10 == pytest.approx(forward, rel=1e-3)  # β → 0: m → p, and D/β → KL(q ‖ p)
    assert high / 1e-10 == pytest.approx(reverse, rel=1e-3)  # β → 1: m → q, and D/(1−β) → KL(p ‖ q)


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_that_is_the_student_teaches_nothing(kind):
    student, head, *_, targets = problem("all of it")
    student.requires_grad_()
    sums = objective_sum(student, head, student, head, targets, 1.0, kind, chunk=4)
    sums.loss.backward()
    assert float(sums.divergence) == pytest.approx(0.0, abs=1e-6)
    assert float(student.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_logits_stay_finite(kind):
    eye = torch.eye(3)
    student = torch.tensor([[300.0, 0.0, -300.0]], requires_grad=True)
    sums = objective_sum(student, eye, torch.tensor([[-300.0, 0.0, 300.0]]), eye, torch.tensor([2]), 0.5, kind)
    sums.loss.backward()
    assert all(bool(torch.isfinite(value)) for value in sums)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_on_all_logits_changes_no_value(kind):
    # values are small against the logits: what cancels must do so before it is weighted
    student, head, teacher, teacher_head, targets = problem("bias")
    moved = replace(head, bias_V=head.bias_V + 200.0)
    values = [float(objective_sum(student, h, teacher, teacher_head, targets, 1.0, kind).loss) for h in (head, moved)]
    assert values[1] == pytest.approx(values[0], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_no_worse_than_dense_bfloat16(kind, autocast):
    shape = {"positions": 96, "rows": (700, 700), "widths": (64, 64)}
    halves = to(torch.bfloat16, *problem("plain", **shape))
    exact = to(torch.float64, *halves)
    wanted = dense(*exact, 1.0, kind)
    wanted[0].backward()

    def errors(objective):
        given = to(torch.float32 if autocast else torch.bfloat16, *halves)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = objective(given)
        loss.backward()
        assert all(got.dtype == given[0].dtype for got in gradients(given))
        pairs = zip(gradients(given), gradients(exact), strict=True)
        return [abs(float(loss.detach() / wanted[0].detach()) - 1.0), *(error(got, exactly) for got, exactly in pairs)]

    ours = errors(lambda given: objective_sum(*given, 1.0, kind, BETA, chunk=7).loss)
    theirs = errors(lambda given: dense(*given, 1.0, kind, work=torch.float32)[0])
    assert all(own <= other for own, other in zip(ours, theirs, strict=True)), (ours, theirs)
    assert ours[0] < 1e-5  # no logit is rounded


def test_autocast_takes_its_products_in_its_type():
    student, head, teacher, teacher_head, targets = problem()
    rounded = [
        replace(h, weight_VH=h.weight_VH.bfloat16().float()) if isinstance(h, Head) else h.bfloat16().float()
        for h in (student, head, teacher, teacher_head)
    ]
    plain = objective_sum(student, head, teacher, teacher_head, targets, 1.0).loss
    with torch.autocast("cpu", torch.bfloat16):
        cast = objective_sum(student, head, teacher, teacher_head, targets, 1.0).loss
    assert float(cast) == pytest.approx(float(objective_sum(*rounded, targets, 1.0).loss), rel=1e-6)
    assert float(cast) != pytest.approx(float(plain), rel=1e-5)


@pytest.mark.parametrize("empty", [True, False])
def test_nothing_and_one_position(empty):
    *given, targets = to(torch.float32, *problem("all of it", positions=1))
    student, head, teacher, teacher_head = given
    chosen = slice(0, 0 if empty else 1)
    hidden = student[chosen]
    sums = objective_sum(hidden, head, teacher[chosen], teacher_head, targets[chosen], 0.5, "jsd")
    sums.loss.backward()
    assert (float(sums.loss) == 0.0) is empty
    for got in (student.grad, head.weight_VH.grad, head.bias_V.grad):
        assert (float(got.abs().max()) == 0.0) is empty


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets_N": torch.tensor([-100] * 23)}, "leave out positions"),
        ({"targets_N": torch.tensor([43] * 23)}, "one tokenizer"),
        ({"teacher_ND": torch.zeros(22, 6)}, "the teacher's hidden states are"),
        ({"divergence": "kl"}, "choose forward_kl"),
        ({"divergence": "jsd", "jsd_beta": 1.0}, "between 0 and 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(changes, said):
    names = ("student_NH", "student_head", "teacher_ND", "teacher_head", "targets_N")
    given = dict(zip(names, problem(), strict=True)) | {"alpha": 1.0} | changes
    with pytest.raises(ValueError, match=said):
        objective_sum(**given)
