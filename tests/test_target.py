"""P_target over clusters: proportions, the cap, the share that follows the corpus, and what can't be a target."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from salad.errors import DataError, RecipeError
from salad.select.target import effective_clusters, target_distribution

NONE_OF_4 = [False] * 4


@st.composite
def clusters(draw, min_score=0.0):
    num = draw(st.integers(1, 12))
    web = draw(st.lists(st.floats(0.01, 1.0), min_size=num, max_size=num))
    scores = draw(st.lists(st.floats(min_score, 5.0), min_size=num, max_size=num))
    excluded = draw(st.lists(st.booleans(), min_size=num, max_size=num))
    assume(not all(excluded))
    assume(max(s for s, out in zip(scores, excluded, strict=True) if not out) > 1e-3)
    return np.array(web) / np.sum(web), np.array(scores), np.array(excluded)


def test_gamma_0_is_the_base_distribution():
    web = [0.1, 0.2, 0.3, 0.4]
    assert target_distribution(web, [0.5, 3.0, 0.0, 1.0], 0.0, NONE_OF_4) == pytest.approx(web, abs=1e-15)
    kept = target_distribution(web, [0.5, 3.0, 0.0, 1.0], 0.0, [False, True, False, False])
    assert kept == pytest.approx([1 / 8, 0, 3 / 8, 4 / 8])
    assert target_distribution(web, [0.0] * 4, 0.0, NONE_OF_4) == pytest.approx(web)
    assert target_distribution(web, [np.nan] * 4, 0.0, NONE_OF_4) == pytest.approx(web)  # no score is needed
    assert target_distribution([10, 20, 30, 40], [1.0] * 4, 5.0, NONE_OF_4) == pytest.approx(web)  # sizes; all M equal


@pytest.mark.parametrize("gamma", [0.5, 1.0, 5.0])
def test_the_target_is_base_times_score_to_the_gamma(gamma):
    web, scores = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 3.0, 0.0, 1.0])
    target = target_distribution(web, scores, gamma, NONE_OF_4)
    assert target == pytest.approx(web * scores**gamma / (web * scores**gamma).sum())
    assert target.sum() == pytest.approx(1)
    scaled = target_distribution(web, 1000 * scores, gamma, NONE_OF_4)
    assert scaled == pytest.approx(target)  # the unit of the score doesn't matter


def test_a_temperature_is_another_gamma_where_clusters_are_of_one_size():
    scores, temperature = np.array([0.5, 3.0, 2.0, 1.0]), 2.5
    target = target_distribution([0.25] * 4, scores, 5.0, NONE_OF_4)
    tempered = target ** (1 / temperature) / (target ** (1 / temperature)).sum()
    assert target_distribution([0.25] * 4, scores, 5.0 / temperature, NONE_OF_4) == pytest.approx(tempered)


@pytest.mark.parametrize("max_boost", [None, 1e9])
def test_a_large_gamma_does_not_overflow(max_boost):
    for scores in ([1e3, 2e3], [1e-300, 2e-300], [1.0, 2.0]):
        target = target_distribution([0.5, 0.5], scores, 2000.0, [False, False], max_boost=max_boost)
        assert target == pytest.approx([0, 1])


def test_excluded_clusters_get_nothing_whatever_their_score():
    for score in (np.nan, np.inf, -1.0, 1e9):
        for knobs in ({}, {"coverage_frac": 0.5, "max_boost": 1.5}):
            target = target_distribution([1 / 3] * 3, [1.0, score, 1.0], 5.0, [False, True, False], **knobs)
            assert target == pytest.approx([0.5, 0.0, 0.5])


@given(clusters(min_score=0.05), st.floats(0, 8), st.floats(1, 20))
@settings(deadline=None)
def test_the_cap_is_water_filling(case, gamma, max_boost):
    web, scores, excluded = case
    base = np.where(excluded, 0, web) / web[~excluded].sum()
    weights = base * scores**gamma
    cap = max_boost * base
    target = target_distribution(web, scores, gamma, excluded, max_boost=max_boost)
    assert target.sum() == pytest.approx(1)
    assert (target <= cap * (1 + 1e-9)).all()
    if max_boost * 0.999 > 1:  # λ by a root finder that knows nothing of the order in which clusters meet the cap
        most = max_boost * 1.01 / (scores**gamma).min()
        level = brentq(lambda scale: np.minimum(scale * weights, cap).sum() - 1, 0, most, xtol=1e-300, rtol=1e-14)
        assert target == pytest.approx(np.minimum(level * weights, cap), rel=1e-6, abs=1e-12)
    else:
        assert target == pytest.approx(base, rel=1e-2)


@given(clusters(), st.floats(0, 8), st.floats(0, 1), st.floats(1, 20))
@settings(deadline=None)
def test_coverage_and_cap_hold_together(case, gamma, coverage_frac, max_boost):
    web, scores, excluded = case
    base = np.where(excluded, 0, web) / web[~excluded].sum()
    plain = target_distribution(web, scores, gamma, excluded, max_boost=max_boost)
    target = target_distribution(web, scores, gamma, excluded, coverage_frac, max_boost)
    assert target == pytest.approx((1 - coverage_frac) * plain + coverage_frac * base)
    assert (target >= coverage_frac * base - 1e-12).all()
    assert (target <= max_boost * base + 1e-9).all()
    assert 1 - 1e-9 <= effective_clusters(target) <= (~excluded).sum() + 1e-9


def test_by_hand():
    web, scores = [0.25] * 4, [1.0, 2.0, 4.0, 1.0]
    assert target_distribution(web, scores, 1.0, NONE_OF_4) == pytest.approx([1 / 8, 2 / 8, 4 / 8, 1 / 8])
    capped = target_distribution(web, scores, 1.0, NONE_OF_4, max_boost=1.6)  # 0.4 for the third, 1:2:1 of 0.6
    assert capped == pytest.approx([0.15, 0.3, 0.4, 0.15])
    assert target_distribution(web, scores, 1.0, NONE_OF_4, coverage_frac=1.0) == pytest.approx(web)
    assert target_distribution(web, scores, 1.0, NONE_OF_4, max_boost=1.0) == pytest.approx(web)
    # one cluster has a score, and may not take all: the rest is left as the corpus has it
    alone = target_distribution([0.1, 0.2, 0.3, 0.4], [0, 3.0, 0, 0], 5.0, NONE_OF_4, max_boost=2.0)
    assert alone == pytest.approx([0.6 / 8, 0.4, 0.6 * 3 / 8, 0.3])
    nearly = target_distribution([0.1, 0.2, 0.3, 0.4], [1e-9, 3.0, 1e-9, 1e-9], 5.0, NONE_OF_4, max_boost=2.0)
    assert alone == pytest.approx(nearly)


@pytest.mark.parametrize("num", [1, 7, 4096])
def test_a_cap_of_1_is_the_corpus_whatever_rounding_does(num):
    rng = np.random.default_rng(num)
    web = rng.random(num)
    target = target_distribution(web, rng.random(num) + 0.1, 5.0, np.zeros(num, bool), max_boost=1.0)
    assert target == pytest.approx(web / web.sum(), rel=1e-6)


def test_effective_clusters():
    assert effective_clusters([0.25] * 4) == pytest.approx(4)
    assert effective_clusters([0, 1.0, 0]) == pytest.approx(1)
    assert effective_clusters([0.5, 0.25, 0.25]) == pytest.approx(2**1.5)


@pytest.mark.parametrize(
    ("scores", "excluded", "said"),
    [
        ([0.0, 0.0], [False, False], "0 in every cluster"),
        ([0.0, 2.0], [False, True], "0 in every cluster"),
        ([1.0, 1.0], [True, True], "all 2 clusters are excluded"),
        ([1.0, -0.1], [False, False], "not negative, got -0.1 in cluster 1"),
        ([1.0, np.nan], [False, False], "finite and not negative, got nan in cluster 1"),
        ([np.inf, 1.0], [False, False], "inf in cluster 0"),
    ],
)
def test_a_target_that_cannot_be_is_refused(scores, excluded, said):
    with pytest.raises(DataError, match=said):
        target_distribution([0.5, 0.5], scores, 5.0, excluded)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"gamma": -1.0}, "gamma=-1"),
        ({"gamma": np.nan}, "gamma=nan"),
        ({"coverage_frac": 1.1}, "coverage_frac=1.1"),
        ({"max_boost": 0.9}, "max_boost=0.9"),
        ({"max_boost": np.nan}, "max_boost=nan"),
    ],
)
def test_a_knob_out_of_its_range_is_refused(knobs, said):
    with pytest.raises(RecipeError, match=said):
        target_distribution([0.5, 0.5], [1.0, 2.0], **{"gamma": 5.0, "excluded": [False] * 2} | knobs)
