"""How stable a ranking is: correlations by their definitions, and predictions that simulated probes bear out."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from salad.measure.divergence_by_item import ItemScores
from salad.select.probe import ProbeItem, probe_clusters
from salad.select.stability import (
    _halves,
    lengthening,
    partial_rank_correlation,
    rank_correlation,
    rank_stability,
    spearman_brown,
    stability_of,
)


def simulated(rng, true_C, per_cluster, noise):
    """Totals, counts and clusters of probe texts whose M is the cluster's own plus noise."""
    clusters = np.repeat(np.arange(len(true_C)), per_cluster)
    counts = rng.integers(5, 25, len(clusters)).astype(float)
    return counts * (true_C[clusters] + rng.normal(0, noise, len(clusters))), counts, clusters


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = rng.integers(0, 6, 15).astype(float), rng.normal(size=15)  # with ties
        assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert rank_correlation(np.ones(5), np.arange(5.0)) is None


def test_partial_correlation_is_the_formula_of_pairs():
    rng = np.random.default_rng(1)
    z = rng.normal(size=60)
    x, y = z + rng.normal(size=60), z + rng.normal(size=60)
    xy, xz, yz = (spearmanr(*pair).statistic for pair in ((x, y), (x, z), (y, z)))
    wanted = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert partial_rank_correlation(x, y, [z]) == pytest.approx(wanted)
    assert partial_rank_correlation(x, y, []) == pytest.approx(xy)
    assert partial_rank_correlation(x, z, [z]) is None  # nothing of it is left
    assert partial_rank_correlation(x[:3], y[:3], [z[:3]]) is None


def test_spearman_brown_and_its_inverse():
    assert spearman_brown(0.5, 2) == pytest.approx(2 / 3)
    assert spearman_brown(0.5, 1) == pytest.approx(0.5)
    assert spearman_brown(-0.4, 2) == 0.0  # halves that disagree are no reliable measurement, however long
    for r in (0.1, 0.5, 0.89, 0.95):
        assert spearman_brown(r, lengthening(r, 0.9)) == pytest.approx(0.9)
    assert lengthening(0.0, 0.9) is None
    assert lengthening(-0.3, 0.9) is None


def test_the_reliability_is_that_of_two_whole_probes():
    rng = np.random.default_rng(2)
    true = rng.normal(3.0, 0.5, 100)
    told, found = [], []
    for _ in range(20):
        one, other = (simulated(rng, true, 12, 1.0) for _ in range(2))
        told.append(rank_stability(*one, seed=0, num_splits=20).reliability)
        ratios = [np.bincount(c, t) / np.bincount(c, n) for t, n, c in (one, other)]
        found.append(spearmanr(*ratios).statistic)
    assert np.mean(told) == pytest.approx(np.mean(found), abs=0.03)


def test_as_many_probes_as_it_says_give_what_was_wanted():
    rng = np.random.default_rng(3)
    true = rng.normal(3.0, 0.5, 100)
    asked = [rank_stability(*simulated(rng, true, 12, 1.0), seed=0, num_splits=20) for _ in range(15)]
    wanted = round(np.median([one.probes_wanted for one in asked]))
    assert 12 < wanted < 60
    longer = [rank_stability(*simulated(rng, true, wanted, 1.0), seed=0, num_splits=10) for _ in range(6)]
    assert np.mean([one.reliability for one in longer]) == pytest.approx(0.9, abs=0.02)
    assert all(one.reliability < 0.9 for one in asked)
    assert f"{asked[0].probes_wanted} texts a cluster would give 0.9." in asked[0].sentence
    assert "rank 100 clusters" in asked[0].sentence


@pytest.mark.parametrize("per_cluster", [2, 3, 5])
def test_small_and_odd_probes_are_dealt_into_halves(per_cluster):
    rng = np.random.default_rng(4)
    true = np.arange(20.0)
    exact = rank_stability(*simulated(rng, true, per_cluster, 0.0), seed=0)
    assert exact.half_correlation == pytest.approx(1.0)
    assert exact.reliability == pytest.approx(1.0)
    assert exact.probes_wanted == 2
    assert exact.probes == per_cluster


def test_halves_share_no_text_and_are_of_one_size():
    counts, clusters = np.array([2.0, 1, 4, 3, 1, 2, 2]), np.array([1, 0, 1, 0, 0, 1, 1])  # three texts and four
    values = np.array([8.0, 1, 16, 2, 4, 32, 64])
    seen = set()
    for seed in range(50):
        own = np.random.default_rng(seed)
        halves = _halves(values * counts, counts, clusters, np.array([3, 4]), own)
        seen.add(tuple(half[0] for half in halves))
        pairs = [
            {(counts[list(two)] * values[list(two)]).sum() / counts[list(two)].sum() for two in (a, b)}
            for a, b in (((0, 2), (5, 6)), ((0, 5), (2, 6)), ((0, 6), (2, 5)))
        ]
        assert any(sorted(half[1] for half in halves) == pytest.approx(sorted(pair)) for pair in pairs)
    assert seen == {(a, b) for a in (1.0, 2.0, 4.0) for b in (1.0, 2.0, 4.0) if a != b}  # one text each, one in neither


def test_clusters_of_one_probe_are_not_ranked():
    rng = np.random.default_rng(5)
    totals, counts, clusters = simulated(rng, np.arange(10.0), 4, 0.1)
    keep = (clusters < 8) | (np.arange(40) % 4 == 0)
    stability = rank_stability(totals[keep], counts[keep], clusters[keep], seed=0)
    assert (stability.num_clusters, stability.probes) == (8, 4.0)


@pytest.mark.parametrize(("num_clusters", "noise"), [(2, 1.0), (0, 1.0), (6, None)])
def test_what_can_t_be_ranked_has_no_stability(num_clusters, noise):
    true = np.full(num_clusters, 2.0)
    stability = rank_stability(*simulated(np.random.default_rng(0), true, 4, noise or 0.0), seed=0)
    if noise is None:  # all equal but for rounding, which ranks nothing that could be repeated
        assert stability.reliability is None or abs(stability.reliability) < 1
    else:
        assert stability.reliability is stability.half_correlation is stability.probes_wanted is None
        assert "can't be told" in stability.sentence


def test_noise_alone_asks_for_more_without_a_number():
    rng = np.random.default_rng(6)
    found = [rank_stability(*simulated(rng, np.zeros(40), 6, 1.0), seed=s, num_splits=50) for s in range(12)]
    assert abs(np.mean([one.half_correlation for one in found])) < 0.12
    worst = min(found, key=lambda one: one.half_correlation)
    assert worst.probes_wanted is None
    assert "don't agree" in worst.sentence


def test_the_same_seed_gives_the_same_number():
    data = simulated(np.random.default_rng(7), np.arange(8.0) / 8, 6, 1.0)
    assert rank_stability(*data, seed=0) == rank_stability(*data, seed=0)
    assert rank_stability(*data, seed=0) != rank_stability(*data, seed=1)


def test_left_out_clusters_are_not_ranked():
    rng = np.random.default_rng(8)
    totals, counts, clusters = simulated(rng, np.arange(6.0), 6, 0.3)
    items = [
        ProbeItem(ItemScores(f"t{i}", t, 1.0, 3 * t, int(n), t), int(c), 0.9 if c == 5 else 0.1, 9, 4.0)
        for i, (t, n, c) in enumerate(zip(totals, counts, clusters, strict=True))
    ]
    probes = probe_clusters(items, 6, max_cer=0.3)
    stability = stability_of(items, probes, "misalignment", 0)
    assert stability.num_clusters == 5
    used = clusters < 5
    assert stability == rank_stability(totals[used], counts[used], clusters[used], 0)
    assert stability_of(items, probes, "nll_gap", 0).half_correlation == pytest.approx(stability.half_correlation)
