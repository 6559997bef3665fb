"""Names of clusters: the equation, what counts as a term, no word twice, and an LLM's answers made fit to show."""

from collections import Counter
from itertools import pairwise
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from salad.select import naming
from salad.select.naming import (
    count_by_cluster,
    count_terms,
    names_from,
    root,
    telling_terms,
    terms_of,
)
from salad.select.naming_by_llm import LONGEST_NAME, TERMS_SHOWN, Namer, prompt, tidy

# --- terms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Wild roses", {"wild", "roses", "wild roses"}),
        ("roses of the garden", {"roses", "garden"}),  # a pair does not reach over a stop word
        ("roses, gardens", {"roses", "gardens"}),  # nor over a comma
        ("red - green", {"red", "green"}),
        ("well-known rose", {"well-known", "rose", "well-known rose"}),
        ("an ox by it", set()),  # short words and stop words
        ("x" * 31, set()),
        ("in 1984 7up", set()),
        ("Déjà vu naïve", {"déjà", "naïve"}),
        ("море волна", {"море", "волна", "море волна"}),
        ("🙂 \x00\x07 …", set()),
        ("the plant's leaf", {"plant's", "leaf", "plant's leaf"}),
    ],
)
def test_terms_of_a_text(text, terms):
    assert terms_of(text) == terms


def test_of_a_long_text_the_beginning_is_read():
    assert terms_of("rose " * 1000 + "tulip") == {"rose", "rose rose"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("plant plants plant's plants’", "plant"),
        ("family families family's", "family"),
        ("box boxes", "box"),
        ("church churches", "church"),
        ("glass glasses", "glass"),
        ("status", "status"),
        ("analysis", "analysis"),
        ("gas", "gas"),
        ("мыс", "мыс"),
    ],
)
def test_a_word_and_its_plural_have_one_root(words, expected):
    assert {root(word) for word in words.split()} == {expected}


# --- class-based tf-idf ---------------------------------------------------------------------------------------------


def reference(counts):
    """The weight of every term in every cluster as the equation has it."""
    total = sum(sum(cluster.values()) for cluster in counts)
    everywhere = {term: sum(cluster[term] for cluster in counts) for cluster in counts for term in cluster}
    mean = total / len(counts)
    return [
        {term: num / sum(cluster.values()) * log(1 + mean / everywhere[term]) for term, num in cluster.items()}
        for cluster in counts
    ]


WORDS = st.sampled_from("ant bee cow dog elk fox gnu hen".split())


@given(st.lists(st.dictionaries(WORDS, st.integers(1, 9), min_size=1), min_size=1, max_size=5))
@settings(deadline=None)
def test_terms_are_ranked_by_class_based_tf_idf(dictionaries):
    counts = [Counter(dictionary) for dictionary in dictionaries]
    for terms, weights in zip(telling_terms(counts, 99), reference(counts), strict=True):
        assert sorted(terms) == sorted(weights)
        ranked = [weights[term] for term in terms]
        assert all(one >= two - 1e-12 for one, two in pairwise(ranked))


def test_a_word_that_is_everywhere_tells_less_than_one_that_is_not():
    counts = [count_terms([f"common, {name}"] * 5) for name in ("rose", "anchor", "verdict")]
    assert telling_terms(counts) == [["rose", "common"], ["anchor", "common"], ["verdict", "common"]]


def test_a_text_counts_a_term_once():
    assert count_terms(["rose rose rose", "rose tulip"])["rose"] == 2


def test_no_word_and_no_plural_stands_twice_in_a_name():
    counts = [count_terms(["plant, plants, plants'", "plants, flower", "plant, flowers", "garden plants, seed"])]
    roots = [root(word) for term in telling_terms(counts)[0] for word in term.split()]
    assert len(roots) == len(set(roots))
    assert {"plant", "flower", "garden", "seed"} >= set(roots)


def test_a_pair_stands_for_its_words_where_they_come_together():
    together = count_terms(["united states law", "united states senate", "united states"])
    apart = count_terms(["united front", "united kingdom", "united people", "states rights"])
    assert telling_terms([together])[0][0] == "united states"
    assert "united" in telling_terms([apart])[0][0].split()
    assert "united states" not in telling_terms([apart])[0]


def test_of_equal_weight_the_first_by_alphabet():
    assert telling_terms([Counter({"bee": 2, "ant": 2, "cow": 2})])[0] == ["ant", "bee", "cow"]


def test_of_very_many_terms_the_most_frequent_are_kept(monkeypatch):
    monkeypatch.setattr(naming, "TERMS_KEPT", 20)
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = (f"{a}{b}{a}x, rose, tulip" for a in letters for b in letters)  # a generator: read once, one at a time
    counts = count_terms(texts)
    assert len(counts) == 20
    assert counts["rose"] == counts["tulip"] == 26 * 26


def test_so_many_texts_of_a_cluster_are_read_spread_over_it(monkeypatch):
    monkeypatch.setattr(naming, "TEXTS_READ", 5)
    asked = []

    def text_at(row):
        asked.append(row)
        return "rose" if row % 2 else "anchor"

    labels = np.arange(100) % 2
    counts = count_by_cluster(text_at, labels, 3)
    assert [dict(count) for count in counts] == [{"anchor": 5}, {"rose": 5}, {}]
    assert asked[:5] == [0, 24, 48, 74, 98]  # of 50 even rows the 1st, 13th, 25th, 38th and 50th


# --- names ----------------------------------------------------------------------------------------------------------


def test_names_are_three_terms_and_no_two_clusters_have_one():
    terms = [["a", "b", "c", "d"], ["a", "b", "c", "e"], [], ["x"], ["x"]]
    assert names_from(terms) == ["a, b, c", "a, b, c, e", "cluster 2", "x", "x (4)"]


def names_of(texts, labels):
    return names_from(telling_terms(count_by_cluster(texts.__getitem__, np.array(labels), max(labels) + 1)))


def test_clusters_are_named_by_what_is_theirs():
    sea, law = ["the ship at anchor in the harbour"] * 3, ["the judge in court with a jury"] * 3
    names = names_of([*sea, *law], [1] * 3 + [0] * 3)
    assert set(names[0].replace(",", "").split()) <= {"judge", "court", "jury"}
    assert set(names[1].replace(",", "").split()) <= {"ship", "anchor", "harbour"}


def test_texts_without_words_get_a_number():
    assert names_of(["…", "42", "the of"], [0, 1, 1]) == ["cluster 0", "cluster 1"]


# --- an LLM's names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (" Ships and the sea\nWords: more", "Ships and the sea"),
        ('\n\n "Sailing."\n', "Sailing"),
        ("**Law**", "Law"),
        ("Law\x00 and\tcourts", "Law and courts"),
        ("42", None),
        ("", None),
        (" \n ", None),
        ("\ufffd\ufffd ship", None),
        ("word " * 40, ("word " * 12).strip()),
        ("море", "море"),
    ],
)
def test_what_an_llm_says_becomes_a_name_or_none(said, name):
    assert tidy(said) == name
    assert name is None or len(name) <= LONGEST_NAME


def test_the_prompt_holds_terms_and_texts_on_lines_of_their_own():
    made = prompt([f"term{i}" for i in range(20)], ["a text\nof lines", "b " * 500, "c", "d"])
    own = made.rsplit("\n\n", 1)[1].splitlines()
    assert own[0] == "Words: " + ", ".join(f"term{i}" for i in range(TERMS_SHOWN))
    assert own[1] == "Text: a text of lines"
    assert own[-1] == "Topic:"
    assert len(own) == 5
    assert len(made) < 1500


@pytest.mark.usefixtures("one_thread")
def test_an_llm_names_a_cluster_the_same_each_time(tmp_path):
    folder = str(tiny.save_llm(tmp_path / "llm"))
    namer, again = Namer(folder, "cpu"), Namer(folder, "cpu")
    asked = (["water", "river"], ["the river and the mountain"])
    names = [namer.name(*asked), again.name(*asked)]
    assert names[0] == names[1]
    assert namer.num_without_name == (names[0] is None)
    long = namer.name(["water"] * 6, ["a quiet evening " * 100] * 3)  # longer than it reads: the end is what it sees
    assert long is None or len(long) <= LONGEST_NAME
