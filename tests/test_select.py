"""Selection: balanced clusters, the probe and its error, and sampling by misalignment to the gamma."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.stats import chi2

import tiny
from salad.errors import DataError, RecipeError
from salad.measure.divergence_by_item import ItemDivergence
from salad.measure.statistics import ratio_of_sums
from salad.select.balanced_kmeans import balanced_assignment, balanced_kmeans
from salad.select.probe import probe_clusters
from salad.select.sampling import select_texts, target_distribution
from salad.texts.text import Text

# --- balanced clusters ----------------------------------------------------------------------------------------------


def cheapest(cost_NK):
    """The least cost of sizes floor or ceil of N / K: an assignment to places, some of which may stay empty."""
    num_points, num_clusters = cost_NK.shape
    low, high = num_points // num_clusters, -(-num_points // num_clusters)
    places = [(k, place < low) for k in range(num_clusters) for place in range(high)]
    empty = len(places) - num_points
    forbidden = 1e9
    cost = np.zeros((len(places), len(places)))
    for column, (k, required) in enumerate(places):
        cost[:num_points, column] = cost_NK[:, k]
        cost[num_points:, column] = forbidden if required else 0.0
    rows, columns = linear_sum_assignment(cost)
    assert len(rows) == num_points + empty
    return cost[rows, columns].sum()


def assert_balanced(labels, num_clusters):
    sizes = np.bincount(labels, minlength=num_clusters)
    assert len(sizes) == num_clusters
    assert sizes.max() - sizes.min() <= 1


@given(st.integers(1, 24), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from(["uniform", "ties", "skewed"]))
@settings(deadline=None, max_examples=150)
def test_the_balanced_assignment_is_the_cheapest(num_points, num_clusters, seed, kind):
    num_clusters = min(num_clusters, num_points)
    cost = np.random.default_rng(seed).random((num_points, num_clusters))
    if kind == "ties":
        cost = np.floor(cost * 3)
    elif kind == "skewed":  # everyone wants the first cluster
        cost = cost + 10.0 * np.arange(num_clusters)
    labels = balanced_assignment(cost)
    assert_balanced(labels, num_clusters)
    assert cost[np.arange(num_points), labels].sum() == pytest.approx(cheapest(cost), abs=1e-6)


def test_the_balanced_assignment_is_the_cheapest_of_all():
    # one case by hand: without sizes all four points would go to cluster 0
    cost = np.array([[0.0, 1.0], [0.0, 5.0], [0.0, 2.0], [0.0, 9.0]])
    assert balanced_assignment(cost).tolist() == [1, 0, 1, 0]
    totals = [
        sum(cost[i, k] for i, k in enumerate(labels))
        for labels in itertools.product(range(2), repeat=4)
        if sum(labels) == 2
    ]
    assert min(totals) == 3.0


@pytest.mark.parametrize(("num_points", "num_clusters"), [(200, 8), (203, 8), (64, 64), (10, 1)])
def test_clusters_have_the_same_size_and_are_the_same_each_time(num_points, num_clusters):
    points = np.random.default_rng(0).standard_normal((num_points, 5)).astype(np.float32)
    points[: num_points // 2] *= 0.1  # half of them huddle, so plain k-means is far from balanced
    one, again = (balanced_kmeans(points, num_clusters, seed=0) for _ in range(2))
    assert (one.labels == again.labels).all()
    assert (one.centres == again.centres).all()
    assert one.inertia == again.inertia == pytest.approx(((points - one.centres[one.labels]) ** 2).sum(), rel=1e-5)
    assert_balanced(one.labels, num_clusters)
    for k in range(num_clusters):
        assert one.centres[k] == pytest.approx(points[one.labels == k].mean(0), abs=1e-5)


def test_clusters_find_what_belongs_together():
    rng = np.random.default_rng(0)
    centres = 20 * np.eye(4)
    order = rng.permutation(80) % 4
    clustering = balanced_kmeans(centres[order] + rng.standard_normal((80, 4)), 4, seed=1)
    groups = [set(order[clustering.labels == k]) for k in range(4)]
    assert sorted(map(sorted, groups)) == [[0], [1], [2], [3]]


def test_clusters_that_cannot_be_are_refused():
    with pytest.raises(RecipeError, match="5 clusters of 4 points"):
        balanced_kmeans(np.zeros((4, 2)), 5, 0)
    with pytest.raises(RecipeError, match="not finite"):
        balanced_kmeans(np.array([[0.0], [np.nan]]), 2, 0)


# --- the target -----------------------------------------------------------------------------------------------------


def test_gamma_0_is_the_base_distribution():
    web = [0.1, 0.2, 0.3, 0.4]
    assert target_distribution(web, [0.5, 3.0, 0.0, 1.0], 0.0, [False] * 4) == pytest.approx(web, abs=1e-15)
    kept = target_distribution(web, [0.5, 3.0, 0.0, 1.0], 0.0, [False, True, False, False])
    assert kept == pytest.approx([1 / 8, 0, 3 / 8, 4 / 8])
    assert target_distribution(web, [0.0] * 4, 0.0, [False] * 4) == pytest.approx(web)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 5.0])
def test_the_target_is_base_times_misalignment_to_the_gamma(gamma):
    web, scores = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 3.0, 0.0, 1.0])
    target = target_distribution(web, scores, gamma, [False] * 4)
    assert target == pytest.approx(web * scores**gamma / (web * scores**gamma).sum())
    assert target.sum() == pytest.approx(1)
    scaled = target_distribution(web, 1000 * scores, gamma, [False] * 4)
    assert scaled == pytest.approx(target)  # the unit of the score doesn't matter


def test_a_large_gamma_does_not_overflow():
    target = target_distribution([0.5, 0.5], [1e3, 2e3], 2000.0, [False, False])
    assert target == pytest.approx([0, 1])


def test_excluded_clusters_get_nothing_whatever_their_score():
    for score in (np.nan, np.inf, -1.0, 1e9):
        target = target_distribution([1 / 3] * 3, [1.0, score, 1.0], 5.0, [False, True, False])
        assert target == pytest.approx([0.5, 0.0, 0.5])


@pytest.mark.parametrize(
    ("scores", "excluded", "said"),
    [
        ([0.0, 0.0], [False, False], "0 in every cluster"),
        ([0.0, 2.0], [False, True], "0 in every cluster"),
        ([1.0, 1.0], [True, True], "all clusters are excluded"),
        ([1.0, -0.1], [False, False], "not negative"),
        ([1.0, np.nan], [False, False], "finite"),
    ],
)
def test_a_target_that_cannot_be_is_refused(scores, excluded, said):
    with pytest.raises(DataError, match=said):
        target_distribution([0.5, 0.5], scores, 5.0, excluded)


# --- drawing texts --------------------------------------------------------------------------------------------------


def corpus(sizes, length=20):
    texts = [Text(f"{c}-{i}", "x" * length, "d", "s", "free") for c, size in enumerate(sizes) for i in range(size)]
    return texts, {text.id: int(text.id.split("-")[0]) for text in texts}


def draw(sizes, target, budget_s, seed=0, purpose="gamma 5"):
    texts, cluster_of = corpus(sizes)
    return select_texts(texts, cluster_of, target, budget_s, 0.05, seed, purpose)  # 1 s a text


def test_no_text_comes_twice_and_the_budget_is_just_reached():
    selection = draw([50, 50, 50], [0.2, 0.3, 0.5], 60.0)
    ids = [text.id for text in selection.texts]
    assert len(ids) == len(set(ids)) == 60
    assert selection.estimated_s == pytest.approx(60.0)
    assert selection.per_cluster == [sum(i.startswith(f"{c}-") for i in ids) for c in range(3)]
    assert selection.target == [0.2, 0.3, 0.5]
    assert selection.exhausted_clusters == []
    assert len(draw([90], [1.0], 59.5).texts) == 60  # the text that reaches the budget is the last
    assert len(draw([50], [1.0], 50.0).texts) == 50  # a budget of the whole corpus
    assert draw([50], [1.0], 0.0).texts == []


def test_the_selection_is_a_function_of_seed_and_purpose():
    one = draw([50, 50], [0.5, 0.5], 40.0)
    assert draw([50, 50], [0.5, 0.5], 40.0) == one
    assert draw([50, 50], [0.5, 0.5], 40.0, seed=1).texts != one.texts
    assert draw([50, 50], [0.5, 0.5], 40.0, purpose="gamma 0").texts != one.texts


def test_draws_follow_the_target():
    target = np.array([0.05, 0.15, 0.3, 0.5])
    selection = draw([3000] * 4, list(target), 2000.0)
    expected = 2000 * target
    statistic = ((np.array(selection.per_cluster) - expected) ** 2 / expected).sum()
    assert statistic < chi2.ppf(0.999, 3)


def test_texts_of_a_cluster_are_drawn_uniformly():
    counts = np.zeros(20)
    for seed in range(400):
        for text in draw([20], [1.0], 5.0, seed=seed).texts:
            counts[int(text.id.split("-")[1])] += 1
    assert ((counts - 100) ** 2 / 100).sum() < chi2.ppf(0.999, 19)


def test_a_cluster_without_weight_is_never_drawn_from():
    assert draw([30, 30], [1.0, 0.0], 30.0).per_cluster == [30, 0]


def test_a_used_up_cluster_is_closed_and_named():
    selection = draw([5, 100, 0], [0.8, 0.1, 0.1], 60.0)
    assert selection.per_cluster == [5, 55, 0]
    assert selection.exhausted_clusters == [0, 2]
    assert selection.target == [0.8, 0.1, 0.1]


@pytest.mark.parametrize(("sizes", "target"), [([10, 10], [0.5, 0.5]), ([10, 1000], [1.0, 0.0])])
def test_a_budget_larger_than_the_corpus_is_refused(sizes, target):
    with pytest.raises(DataError, match="larger than the corpus"):
        draw(sizes, target, 25.0)


# --- the probe ------------------------------------------------------------------------------------------------------


def rows_of(rng, num, first=0, level=1.0):
    rows = []
    for i in range(num):
        count = int(rng.integers(4, 20))
        kl = max(0.0, count * (level + rng.normal(0, 0.5)))
        rows.append(ItemDivergence(f"p{first + i}", kl, count * 2.0, count * 3.0, count))
    return rows


def test_the_score_is_a_ratio_of_sums_per_cluster():
    rows = [
        ItemDivergence("a", 2.0, 8.0, 0, 4),
        ItemDivergence("b", 6.0, 4.0, 0, 4),
        ItemDivergence("c", 9.0, 3.0, 0, 3),
    ]
    probes = probe_clusters(rows, {"a": 0, "b": 0, "c": 1}, {"a": 0.1, "b": 0.3}, 2, max_cer=0.3)
    assert [p.cluster for p in probes] == [0, 1]
    assert [p.misalignment_nats for p in probes] == [1.0, 3.0]
    assert [p.teacher_entropy_nats for p in probes] == [1.5, 1.0]
    assert [p.mean_cer for p in probes] == pytest.approx([0.2, 0.0])
    assert [p.num_probes for p in probes] == [2, 1]
    assert [p.excluded for p in probes] == [None, None]
    # Cochran by hand: residuals 2 - 4 and 6 - 4, n / (n - 1) = 2, over 8 positions: sqrt(2 * 8) / 8
    assert probes[0].standard_error_nats == pytest.approx(0.5)
    assert probes[0].as_json()["misalignment_nats"] == 1.0


def test_the_standard_error_is_that_of_the_bootstrap():
    rng = np.random.default_rng(0)
    for num in (30, 80):
        rows = rows_of(rng, num)
        probe = probe_clusters(rows, {row.item: 0 for row in rows}, {}, 1, 1.0)[0]
        estimate = ratio_of_sums([r.kl_nats for r in rows], [r.count for r in rows], 0, "probe", 4000)
        assert probe.misalignment_nats == pytest.approx(estimate.value)
        assert (estimate.high - estimate.low) / (2 * 1.96) == pytest.approx(probe.standard_error_nats, rel=0.12)


def test_the_standard_error_is_that_of_repetition():
    rng = np.random.default_rng(1)
    values, errors = [], []
    for _ in range(400):
        rows = rows_of(rng, 12, level=3.0)
        probe = probe_clusters(rows, {row.item: 0 for row in rows}, {}, 1, 1.0)[0]
        values.append(probe.misalignment_nats)
        errors.append(probe.standard_error_nats)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


def test_a_cluster_is_left_out_with_its_reason():
    rng = np.random.default_rng(0)
    rows = rows_of(rng, 4) + rows_of(rng, 4, first=4)
    cluster_of = {row.item: int(row.item[1:]) // 4 for row in rows}
    cers = {row.item: 0.1 if cluster_of[row.item] == 0 else 0.4 for row in rows}
    probes = probe_clusters(rows, cluster_of, cers, 3, max_cer=0.3)
    assert probes[0].excluded is None
    assert "0.40 is above 0.30" in probes[1].excluded
    assert probes[2].excluded == "no usable probe"
    assert probes[2].num_probes == 0
    web = [1 / 3] * 3
    target = target_distribution(web, [p.misalignment_nats for p in probes], 5.0, [bool(p.excluded) for p in probes])
    assert target.tolist() == [1.0, 0.0, 0.0]


# --- embeddings -----------------------------------------------------------------------------------------------------


@pytest.mark.assets
def test_embeddings_are_unit_vectors_in_the_order_of_the_texts():
    from salad.select.embed import embed

    texts = [" ".join(tiny.WORDS[i : i + 1 + i % 7]) for i in range(30)] * 3  # more than a batch, of mixed lengths
    told = []
    vectors = embed(texts, "minilm-l6", lambda done, total: told.append((done, total)))
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(90), abs=1e-5)
    assert vectors[:30] == pytest.approx(vectors[30:60], abs=1e-5)
    assert vectors[4] == pytest.approx(embed([texts[4]], "minilm-l6")[0], abs=1e-5)
    assert told[-1] == (90, 90)
