"""Accuracies, paired differences and their intervals, against formulas and against simulations with a known truth."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t

from salad.errors import DataError
from salad.measure.paired import NUM_BOOTSTRAP, accuracy, expanded_levels, mean_over_items, paired_difference
from salad.measure.statistics import all_alike, mean, ratio_of_sums

Z2 = 1.959963984540054**2


def spoken(rng, num_trials, num_items, num_voices, plus, minus, same_frac):
    """Differences text − speech by item, [trials, items], in −1..1; voices do the same with probability `same_frac`."""
    probabilities = [plus, minus, 1 - plus - minus]
    item = rng.choice([1, -1, 0], p=probabilities, size=(num_trials, 1, num_items))
    own = rng.choice([1, -1, 0], p=probabilities, size=(num_trials, num_voices, num_items))
    same = rng.random((num_trials, num_voices, num_items)) < same_frac
    return np.where(same, item, own).mean(1)


def arms(difference_VI):
    """Two arms of 0 and 1 whose difference is the given one."""
    return (difference_VI > 0).astype(int), (difference_VI < 0).astype(int)


# --- accuracy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (0, 500), (493, 500), (1, 1)])
def test_one_voice_gives_wilsons_interval(right, n):
    found = accuracy([1] * right + [0] * (n - right))
    wanted = binomtest(right, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert found.value == right / n
    assert found.n == n


def test_voices_that_always_agree_say_no_more_than_one():
    one = np.random.default_rng(0).integers(0, 2, 60)
    assert accuracy(np.stack([one] * 4)) == accuracy(one)


def test_voices_that_have_nothing_in_common_say_as_much_as_as_many_items():
    """n_eff is at most V n: then it is Wilson's interval of V n answers."""
    correct_VI = np.array([[1, 0] * 30, [0, 1] * 30])  # no item's mean differs from 1/2 at all: its variance is 0
    assert accuracy(correct_VI).low == pytest.approx(accuracy([1, 0] * 30).low)  # nothing is made of that
    independent = np.array([[1, 1, 0, 0] * 25, [1, 0, 1, 0] * 25])
    pooled = accuracy(independent.ravel())
    found = accuracy(independent)
    assert (found.low, found.high) == pytest.approx((pooled.low, pooled.high))
    assert found.n == 100


@pytest.mark.parametrize(("num_items", "num_voices"), [(50, 1), (200, 3), (500, 1)])
@pytest.mark.parametrize("p", [0.3, 0.85])
def test_the_interval_of_an_accuracy_covers_95_times_in_100(num_items, num_voices, p):
    """Items differ in difficulty: right with probability q, drawn anew for each item, mean p; voices share it."""
    rng = np.random.default_rng([num_items, num_voices])
    covered = 0
    for _ in range(2000):
        q_I = rng.beta(4 * p, 4 * (1 - p), num_items)
        found = accuracy(rng.random((num_voices, num_items)) < q_I)
        covered += found.low <= p <= found.high
    assert 0.93 <= covered / 2000 <= 0.97


# --- ratio of sums, means -------------------------------------------------------------------------------------------


def test_a_ratio_of_sums_covers_95_times_in_100():
    rng = np.random.default_rng(5)
    sizes = np.arange(3, 30)
    truth = (sizes * (0.5 + 0.03 * sizes)).sum() / sizes.sum()
    covered = 0
    for trial in range(1000):
        counts = rng.choice(sizes, size=150)
        totals = counts * (0.5 + 0.03 * counts) * rng.gamma(2, 0.5, 150)
        estimate = ratio_of_sums(totals, counts, trial, "coverage", num_bootstrap=500)
        covered += estimate.low <= truth <= estimate.high
    assert 0.93 <= covered / 1000 <= 0.97


@pytest.mark.parametrize("right", [0, 1])
def test_all_right_or_all_wrong_is_not_certain(right):
    found = mean([right] * 40, 0, "task")
    wanted = binomtest(40 * right, 40).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_a_mean_of_other_values_is_resampled_as_before():
    assert mean([0.5] * 9, 0, "M") == ratio_of_sums([0.5] * 9, [1] * 9, 0, "M")
    values = [0, 1, 1, 0, 1, 1, 1]
    assert mean(values, 3, "task") == ratio_of_sums(values, [1] * 7, 3, "task")


# --- paired differences ---------------------------------------------------------------------------------------------


def test_a_paired_difference_is_that_of_the_accuracies_over_voices():
    text = [1, 1, 0, 1, 1]
    speech = [[1, 0, 0, 1, 0], [0, 0, 1, 1, 1]]
    found = paired_difference(text, speech, 0, "gap")
    assert found.value == pytest.approx(0.8 - (0.4 + 0.6) / 2)
    assert found.n == 5
    assert found.low < found.value < found.high
    other = paired_difference(speech, text, 0, "gap")
    assert other.value == pytest.approx(-found.value)


def test_the_same_seed_gives_the_same_interval_whatever_the_order_of_the_items():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 2, 80), rng.integers(0, 2, (3, 80))
    found = paired_difference(first, second, 0, "gap")
    order = rng.permutation(80)
    assert paired_difference(first[order], second[:, order], 0, "gap") == found
    assert paired_difference(first, second, 1, "gap") != found
    assert paired_difference(first, second, 0, "other") != found


def test_pairing_is_used():
    """Two arms that fail on the same items differ by a narrower interval than two that fail on different ones."""
    first = np.array([1] * 60 + [0] * 40)
    same = np.array([1] * 50 + [0] * 50)
    rng = np.random.default_rng(1)
    close = paired_difference(first, same, 0, "gap")
    far = paired_difference(first, rng.permutation(same), 0, "gap")
    assert close.high - close.low < (far.high - far.low) / 1.5


def test_ten_copies_of_a_voice_make_no_interval_narrower():
    rng = np.random.default_rng(2)
    first, second = rng.integers(0, 2, 80), rng.integers(0, 2, (1, 80))
    one, ten = paired_difference(first, second, 0, "gap"), paired_difference(first, np.repeat(second, 10, 0), 0, "gap")
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=1e-9)


@pytest.mark.parametrize(
    ("num_items", "num_voices", "plus", "minus"),
    [(50, 1, 0.3, 0.2), (100, 1, 0.1, 0.02), (500, 1, 0.03, 0.03), (100, 3, 0.1, 0.1), (300, 3, 0.05, 0.01)],
)
def test_the_interval_of_a_paired_gap_covers_95_times_in_100(num_items, num_voices, plus, minus):
    trials = spoken(np.random.default_rng([num_items, num_voices]), 1000, num_items, num_voices, plus, minus, 0.6)
    covered = 0
    for trial, difference_I in enumerate(trials):
        found = mean_over_items({"gap": difference_I}, -1, 1, trial, num_bootstrap=600)
        covered += found.low <= plus - minus <= found.high
    assert 0.93 <= covered / 1000 <= 0.97


@pytest.mark.parametrize(("num_items", "num_voices"), [(50, 3), (100, 1), (25, 1), (100, 3)])
@pytest.mark.parametrize(("plus", "minus"), [(0.03, 0.0), (0.03, 0.03), (0.01, 0.01)])
def test_where_hardly_an_item_differs_the_interval_errs_on_the_wide_side(num_items, num_voices, plus, minus):
    trials = spoken(np.random.default_rng(num_items), 800, num_items, num_voices, plus, minus, 0.6)
    covered = 0
    for trial, difference_I in enumerate(trials):
        found = mean_over_items({"gap": difference_I}, -1, 1, trial, num_bootstrap=600)
        covered += found.low <= plus - minus <= found.high
    assert covered / 800 >= 0.93


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 0.5])
def test_items_that_all_differ_alike_leave_a_width(value):
    low, high = all_alike(value, 100, -1, 1)
    assert -1 <= low <= value <= high <= 1
    assert high - low == pytest.approx(2 * Z2 / (100 + Z2))
    found = mean_over_items({"gap": [value] * 100}, -1, 1, 0)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_no_item_that_differs_gives_tangos_interval():
    """Tango (1998) with b = c = 0: the score test of a difference δ ends at n δ² = z² δ (1 − δ)."""
    found = paired_difference([1] * 200, [1] * 200, 0, "gap")
    delta = found.high
    assert 200 * delta**2 == pytest.approx(Z2 * delta * (1 - delta))
    assert found.low == -delta


def test_tasks_count_alike_and_items_are_drawn_within_them():
    small, large = np.array([1.0, 0, 0, 0] * 5), np.array([0.0, 0, 0, 1] * 200)
    found = mean_over_items({"b": large, "a": small}, -1, 1, 0)
    assert found == mean_over_items({"a": small, "b": large}, -1, 1, 0)
    assert found.value == pytest.approx(0.25)
    assert found.n == 820
    alone = mean_over_items({"a": small}, -1, 1, 0)
    assert (found.high - found.low) == pytest.approx((alone.high - alone.low) / 2, rel=0.2)  # the large one is certain


def test_the_mean_over_tasks_covers_95_times_in_100():
    rng = np.random.default_rng(9)
    first, second = spoken(rng, 1000, 60, 1, 0.3, 0.1, 1), spoken(rng, 1000, 200, 2, 0.1, 0.05, 0.5)
    covered = 0
    for trial in range(1000):
        found = mean_over_items({"a": first[trial], "b": second[trial]}, -1, 1, trial, num_bootstrap=600)
        covered += found.low <= (0.2 + 0.05) / 2 <= found.high
    assert 0.93 <= covered / 1000 <= 0.97


def test_the_levels_are_students():
    low, high = expanded_levels([10**7])
    assert (low, high) == pytest.approx((0.025, 0.975), abs=1e-5)
    for n in (2, 10, 40):  # resampled means scatter by s √((n − 1)/n) / √n, and are to reach Student's t · s / √n
        low, high = expanded_levels([n, 900])
        assert norm.ppf(low) * np.sqrt((n - 1) / n) == pytest.approx(t.ppf(0.025, n - 1), rel=1e-9)
        assert high == 1 - low


def test_values_that_are_all_different_are_resampled_too():
    values = np.random.default_rng(3).uniform(-1, 1, 400)
    found = mean_over_items({"x": values}, -1, 1, 0)
    half = 1.96 * values.std() / 20
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert found.value - found.low == pytest.approx(half, rel=0.1)
    assert NUM_BOOTSTRAP >= 2000


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ([], [], "no answers"),
        ([1, 0], [1, 0, 1], "2 items are set against 3"),
        ([[1, 0], [1, 1]], [[1, 0], [1, 1], [0, 0]], "2 voices are set against 3"),
        ([1, 2], [1, 0], "2 is neither 0"),
        ([1, float("nan")], [1, 0], "nan is neither 0"),
    ],
)
def test_what_is_no_pair_of_answers_is_refused(first, second, said):
    with pytest.raises(DataError, match=said):
        paired_difference(first, second, 0, "gap")


@pytest.mark.parametrize("values", [{}, {"a": [0.0], "b": []}])
def test_no_items_are_refused(values):
    with pytest.raises(DataError, match="nothing to measure"):
        mean_over_items(values, -1, 1, 0)
