"""What clusters are weighed by: each score, and the sentences where there is none."""

import dataclasses
from typing import get_args

import numpy as np
import pytest

from salad.errors import DataError
from salad.recipe import StageTwoSettings
from salad.select.probe import ClusterProbe
from salad.select.scores import SCORES, cluster_scores, controlled_scores


def probe(cluster, m, entropy=2.0, cer=0.1, excluded=None, **more):
    values = {"self_misalignment_nats": None, "jsd_nats": None, "nll_gap_nats": 0.5 * m if m is not None else None}
    return ClusterProbe(
        cluster=cluster,
        num_probes=12,
        num_tokens=100,
        misalignment_nats=m,
        standard_error_nats=0.1,
        teacher_entropy_nats=entropy,
        mean_cer=cer,
        mean_words=10.0,
        mean_seconds=4.0,
        excluded=excluded,
        **(values | more),
    )


def test_the_recipe_knows_the_same_scores():
    assert get_args(StageTwoSettings.model_fields["score"].annotation) == SCORES


def test_a_score_is_the_clusters_value_and_nan_where_it_is_left_out():
    probes = [
        probe(0, 1.0, self_misalignment_nats=0.7, jsd_nats=0.3),
        probe(1, None, excluded="no usable probe"),
        probe(2, 2.0, self_misalignment_nats=0.9, jsd_nats=0.4),
    ]
    wanted = {"misalignment": [1, 2], "self_misalignment": [0.7, 0.9], "jsd": [0.3, 0.4], "nll_gap": [0.5, 1]}
    for name, values in (wanted | {"uniform": [1, 1]}).items():
        scores = cluster_scores(probes, name)
        assert scores[[0, 2]] == pytest.approx(values)
        assert np.isnan(scores[1])
        assert scores.shape == (3,)


def test_equal_and_zero_values_are_scores_too():
    assert cluster_scores([probe(c, 0.0) for c in range(5)], "misalignment").tolist() == [0.0] * 5
    assert cluster_scores([probe(c, 1.5) for c in range(5)], "controlled") == pytest.approx([1.5] * 5)


def random_probes(num, seed=0):
    rng = np.random.default_rng(seed)
    entropy, cer = rng.uniform(2, 4, num), rng.uniform(0.02, 0.3, num)
    own = rng.normal(0, 0.2, num)
    return [probe(c, float(3 + own[c] + 0.8 * entropy[c] + 2 * cer[c]), entropy[c], cer[c]) for c in range(num)], own


def test_controlled_is_the_residual_plus_the_mean():
    probes, _ = random_probes(40)
    m, entropy, cer = (
        np.array([getattr(p, name) for p in probes])
        for name in ("misalignment_nats", "teacher_entropy_nats", "mean_cer")
    )
    design = np.stack([np.ones(40), entropy, cer], 1)
    left = m - design @ np.linalg.solve(design.T @ design, design.T @ m)  # the normal equations
    scores, clipped = controlled_scores(probes)
    assert scores == pytest.approx(left + m.mean(), rel=1e-9)
    assert clipped == 0
    assert scores.mean() == pytest.approx(m.mean())
    for control in (entropy, cer):
        assert np.corrcoef(scores, control)[0, 1] == pytest.approx(0, abs=1e-9)


def test_controlled_finds_what_text_and_voice_hide():
    probes, own = random_probes(200)
    raw = np.corrcoef(cluster_scores(probes, "misalignment"), own)[0, 1]
    assert raw < 0.5
    assert np.corrcoef(cluster_scores(probes, "controlled"), own)[0, 1] > 0.98


def test_controlled_is_not_negative_and_counts_what_it_cuts():
    rng = np.random.default_rng(1)
    probes = [probe(c, 0.01 + (5.0 if c == 0 else 0.0), rng.uniform(2, 4), rng.uniform(0, 0.3)) for c in range(12)]
    scores, clipped = controlled_scores(probes)
    assert scores.min() == 0.0
    assert clipped == (scores == 0).sum() > 0
    assert cluster_scores(probes, "controlled").tolist() == scores.tolist()


def test_a_control_that_is_the_same_everywhere_explains_nothing():
    probes, _ = random_probes(20)
    flat = [dataclasses.replace(p, mean_cer=0.1) for p in probes]
    m, entropy = (np.array([getattr(p, n) for p in flat]) for n in ("misalignment_nats", "teacher_entropy_nats"))
    slope, _ = np.polyfit(entropy, m, 1)
    assert controlled_scores(flat)[0] == pytest.approx(m - slope * (entropy - entropy.mean()), rel=1e-9)


def test_left_out_clusters_don_t_move_the_regression():
    probes, _ = random_probes(20)
    outlier = [*probes, probe(20, 500.0, 9.0, 0.9, excluded="mean character error rate 0.90 is above 0.30")]
    assert controlled_scores(outlier)[0][:20] == pytest.approx(controlled_scores(probes)[0])


@pytest.mark.parametrize(
    ("probes", "name", "said"),
    [
        ([probe(0, 1.0)], "kl", "choose one of misalignment"),
        ([probe(0, 1.0), probe(1, 1.0)], "jsd", "jsd was not measured in clusters 0, 1; probe with --score jsd"),
        ([probe(0, 1.0), probe(1, 1.0, nll_gap_nats=-0.2)], "nll_gap", "nll_gap is negative in cluster 1"),
        ([probe(c, 1.0, nll_gap_nats=-1.0) for c in range(9)], "nll_gap", "clusters 0, 1, 2, 3, 4 and 4 more"),
        ([probe(0, float("nan"))], "misalignment", "not a finite number in cluster 0"),
        ([probe(c, 1.0) for c in range(3)], "controlled", "3 coefficients, and 3 clusters"),
        ([probe(c, 1.0, cer=None) for c in range(9)], "controlled", "character error rate, which clusters 0"),
    ],
)
def test_a_score_that_is_not_there_is_refused_with_a_sentence(probes, name, said):
    with pytest.raises(DataError, match=said):
        cluster_scores(probes, name)
