"""Drawing texts: from the target, uniformly within clusters, none twice, the same for the same seed."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from salad.errors import DataError, RecipeError
from salad.select.budget import parse_budget, seconds_budget
from salad.select.sampling import NO_WORDS, SAME_WORDS, Pool, select_texts
from salad.texts.text import Text


class Corpus:
    """Texts of 20 characters, cluster by cluster, that count how often they are read."""

    def __init__(self, sizes):
        self.names = [f"c{c} t{i}" for c, size in enumerate(sizes) for i in range(size)]
        self.labels = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self.num_reads = 0

    def __len__(self):
        return len(self.names)

    def __getitem__(self, row):
        self.num_reads += 1
        return Text(str(row), f"{self.names[row]:.<20}", "d", "s", "free")


def pool_of(sizes, **more):
    corpus = Corpus(sizes)
    return Pool(corpus, corpus.labels, np.full(len(corpus), 20, np.int32), **more)


def draw(sizes, target, budget_s, seed=0, purpose="select", **more):
    return select_texts(pool_of(sizes, **more), target, seconds_budget(budget_s, 0.05), seed, purpose)  # 1 s a text


def test_no_text_comes_twice_and_the_budget_is_just_reached():
    selection = draw([50, 50, 50], [0.2, 0.3, 0.5], 60.0)
    assert len(selection.rows) == len(set(selection.rows.tolist())) == 60
    assert selection.spent == pytest.approx(60.0)
    assert selection.costs == pytest.approx(np.ones(60))
    assert (selection.clusters == selection.rows // 50).all()
    assert selection.per_cluster == np.bincount(selection.rows // 50).tolist()
    assert selection.target == [0.2, 0.3, 0.5]
    assert selection.exhausted == []
    assert len(draw([90], [1.0], 59.5).rows) == 60  # the text that reaches the budget is the last
    assert len(draw([50], [1.0], 50.0).rows) == 50  # a budget of the whole corpus
    assert len(draw([50], [1.0], 0.0).rows) == 0


def test_texts_are_read_when_they_are_drawn():
    pool = pool_of([500, 500])
    select_texts(pool, [0.5, 0.5], seconds_budget(30.0, 0.05), 0)
    assert pool.texts.num_reads == 30


def same(one, other):
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))


def test_the_selection_is_a_function_of_seed_and_purpose():
    one = draw([50, 50], [0.5, 0.5], 40.0)
    assert same(draw([50, 50], [0.5, 0.5], 40.0), one)
    assert not same(draw([50, 50], [0.5, 0.5], 40.0, seed=1), one)
    assert not same(draw([50, 50], [0.5, 0.5], 40.0, purpose="another"), one)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 1000), st.data())
@settings(deadline=None, max_examples=60)
def test_a_larger_budget_begins_with_the_same_texts(sizes, seed, data):
    target = np.random.default_rng(seed).dirichlet(np.ones(len(sizes)))
    more = data.draw(st.integers(0, sum(sizes)))
    less = data.draw(st.integers(0, more))
    long, short = draw(sizes, target, more, seed), draw(sizes, target, less, seed)
    assert long.rows[: len(short.rows)].tolist() == short.rows.tolist()
    assert len(long.rows) == more


def in_cluster(selection, cluster):
    return selection.rows[selection.clusters == cluster].tolist()


def test_another_score_of_one_cluster_leaves_the_order_within_all_of_them():
    one = draw([80, 80, 80], [0.4, 0.3, 0.3], 60.0)
    other = draw([80, 80, 80], [0.9, 0.05, 0.05], 60.0)
    assert not np.array_equal(one.rows, other.rows)
    for cluster in range(3):
        first, second = in_cluster(one, cluster), in_cluster(other, cluster)
        num = min(len(first), len(second))
        assert num > 0
        assert first[:num] == second[:num]
    assert in_cluster(one, 0)[:10] != sorted(in_cluster(one, 0)[:10])  # and they are shuffled
    assert [row - 80 for row in in_cluster(one, 1)[:10]] != in_cluster(one, 0)[:10]  # each in its own way


def test_a_refused_text_moves_no_other():
    one = draw([80], [1.0], 40.0)
    gone = one.rows[[0, 5]]
    other = draw([80], [1.0], 38.0, refused={"contaminated": gone})
    assert other.rows.tolist() == [row for row in one.rows.tolist() if row not in gone]


def test_draws_follow_the_target():
    target = np.array([0.05, 0.15, 0.3, 0.5])
    selection = draw([3000] * 4, target, 2000.0)
    expected = 2000 * target
    assert ((np.array(selection.per_cluster) - expected) ** 2 / expected).sum() < chi2.ppf(0.999, 3)


def test_draws_are_independent_of_each_other():
    clusters = draw([3000] * 2, [0.5, 0.5], 2000.0).clusters
    pairs = np.bincount(2 * clusters[:-1] + clusters[1:], minlength=4)
    assert ((pairs - 1999 / 4) ** 2 / (1999 / 4)).sum() < chi2.ppf(0.999, 3)


def test_texts_of_a_cluster_are_drawn_uniformly():
    counts = np.zeros(40)
    for seed in range(400):
        counts += np.bincount(draw([20, 20], [0.5, 0.5], 10.0, seed=seed).rows, minlength=40)
    expected = 400 * 10 / 40
    assert ((counts - expected) ** 2 / expected).sum() < chi2.ppf(0.999, 39)


def test_a_cluster_without_weight_is_never_drawn_from():
    assert draw([30, 30], [1.0, 0.0], 30.0).per_cluster == [30, 0]
    assert draw([30, 30, 5], [0.0, 1.0, 0.0], 30.0).per_cluster == [0, 30, 0]


def test_a_used_up_cluster_is_closed_and_named():
    selection = draw([5, 100, 0], [0.8, 0.1, 0.1], 60.0)
    assert selection.per_cluster == [5, 55, 0]
    assert selection.exhausted == [0, 2]
    assert selection.target == [0.8, 0.1, 0.1]
    refused = draw([5, 100], [0.8, 0.2], 60.0, refused={"a probe": np.arange(5)})
    assert refused.per_cluster == [0, 60]
    assert refused.exhausted == [0]


def test_after_a_cluster_is_closed_the_rest_is_renormalized():
    selection = draw([10, 3000, 3000], [0.6, 0.1, 0.3], 1500.0)
    assert selection.exhausted == [0]
    rest = np.array(selection.per_cluster[1:])
    expected = rest.sum() * np.array([0.25, 0.75])
    assert ((rest - expected) ** 2 / expected).sum() < chi2.ppf(0.999, 1)


# --- texts that are not taken ---------------------------------------------------------------------------------------


def pool_with(texts, labels=None, **more):
    made = [Text(str(i), text, "d", "s", "free") for i, text in enumerate(texts)]
    labels = np.zeros(len(texts), np.int32) if labels is None else np.array(labels, np.int32)
    return Pool(made, labels, np.array([len(text) for text in texts], np.int32), **more)


def taken(pool, num_chars, target=(1.0,)):
    return select_texts(pool, target, seconds_budget(num_chars, 1.0), 0)


def test_texts_with_the_same_words_are_taken_once_and_counted():
    texts = ["A red fish.", "a RED fish", "(a) red, fish", "two red fish", "ａ red fish"]  # the last is full-width
    pool = pool_with(texts, [0, 0, 1, 1, 1])
    selection = select_texts(pool, [0.5, 0.5], seconds_budget(20, 1.0), 0)
    assert len(selection.rows) == 2
    assert 3 in selection.rows
    with pytest.raises(DataError, match="the 2 texts"):
        select_texts(pool, [0.5, 0.5], seconds_budget(26, 1.0), 0)


def test_words_that_are_known_already_are_not_taken():
    pool = pool_with(["a red fish", "a blue fish"], known=["A red fish!", "..."])
    selection = taken(pool, 5)
    assert selection.rows.tolist() == [1]
    assert set(selection.passed_over) <= {SAME_WORDS}


def test_what_is_drawn_and_not_taken_is_counted_by_reason():
    texts = ["…!?", "one two", "one two three", "one two three four", "ONE two three", "\u0007 \U0001f41f"]
    pool = pool_with([*texts, "a b c"], [0] * 6 + [1], min_words=3, max_words=3)
    with pytest.raises(DataError, match="the 2 texts"):
        taken(pool, 1000, (0.5, 0.5))
    selection = taken(pool, 18, (0.9, 0.1))
    assert selection.rows.tolist().count(6) == 1
    assert len(selection.rows) == 2
    # all of cluster 0 but one text was read in vain
    assert selection.exhausted == [0, 1]
    assert selection.passed_over == {"fewer than 3 words": 3, "more than 3 words": 1, SAME_WORDS: 1}
    plain = pool_with(["!!", "?", "word"])
    assert taken(plain, 4).passed_over in ({NO_WORDS: 1}, {NO_WORDS: 2}, {})
    assert taken(plain, 4).rows.tolist() == [2]


def test_refused_rows_are_counted_once_for_the_first_reason():
    refused = {
        "a probe text": np.array([0, 1, 1]),
        "too long": np.array([1, 2]),
        "contaminated": np.array([], np.int64),
    }
    pool = pool_with(["aa", "bb", "cc", "dd"], refused=refused)
    selection = taken(pool, 2)
    assert selection.rows.tolist() == [3]
    assert selection.refused == {"a probe text": 2, "too long": 1, "contaminated": 0}


# --- what can't be drawn --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sizes", "target"), [([10, 10], [0.5, 0.5]), ([20, 1000], [1.0, 0.0])])
def test_a_budget_larger_than_the_corpus_is_refused_with_what_there_is(sizes, target):
    with pytest.raises(DataError, match="the 20 texts") as raised:
        draw(sizes, target, 25.0)
    assert "larger than the corpus" in str(raised.value)
    assert "--budget '0.00555h'" in str(raised.value)  # 20 s, rounded down
    budget = parse_budget("0.00555h", 0.05)
    assert len(select_texts(pool_of(sizes), target, budget, 0).rows) == 20


def test_a_hint_says_where_else_the_budget_stands():
    with pytest.raises(DataError, match="lower stage_two"):
        select_texts(pool_of([3]), [1.0], seconds_budget(9, 0.05), 0, hint="lower stage_two.budget_frac")


def test_nothing_left_to_draw_is_said():
    with pytest.raises(DataError, match="no text left"):
        draw([5], [1.0], 1.0, refused={"contaminated": np.arange(5)})
    with pytest.raises(DataError, match="no text left"):
        taken(pool_with(["!!"]), 1)


def test_arrays_of_another_corpus_are_refused():
    texts = Corpus([5])
    with pytest.raises(DataError, match="5 texts, but 4 cluster labels"):
        Pool(texts, np.zeros(4, np.int32), np.zeros(5, np.int32))
    with pytest.raises(RecipeError, match="labels go to 2"):
        select_texts(pool_of([1, 1, 1]), [0.5, 0.5], seconds_budget(1), 0)


def test_a_corpus_of_millions_costs_arrays_and_no_objects():
    num = 2_000_000
    labels = (np.arange(num) % 128).astype(np.int32)

    class Far:
        def __len__(self):
            return num

        def __getitem__(self, row):
            return Text(str(row), f"text {row}", "d", "s", "l")

    pool = Pool(Far(), labels, np.full(num, 20, np.int32), {"too long": np.arange(0, num, 7)})
    selection = select_texts(pool, np.full(128, 1 / 128), seconds_budget(500, 0.05), 0)
    assert len(selection.rows) == 500
    assert (selection.rows % 7 > 0).all()
    assert selection.refused == {"too long": -(-num // 7)}
