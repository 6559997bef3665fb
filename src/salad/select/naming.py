"""Readable names for clusters: their most telling words and word pairs, by class-based tf-idf (Grootendorst, 2022).

The weight of term t in cluster c is f(t, c) log(1 + A / f(t)): f(t, c) is the share of the cluster's terms that are t,
f(t) how often t stands in all clusters, A the mean number of terms of a cluster. A text counts a term once, so that no
single text names a cluster. Texts are read one at a time, of each the beginning; of a cluster so many texts, evenly
spread, and the terms it has most often are kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import log1p

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

NUM_TERMS = 8
TERMS_IN_NAME = 3
TEXTS_READ = 2000  # of each cluster
CHARACTERS_READ = 2000  # of each text: about as much as an embedder reads
TERMS_KEPT = 20_000  # of each cluster
PAIR_INSTEAD = 0.5  # a pair that stands in such a share of the texts that have its word is the better term
LONGEST_WORD = 30

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_STOPS = re.compile(r"[.,;:!?()\[\]{}\"“”|/]|\s[-–—]+\s")


def terms_of(text: str) -> set[str]:
    """The words of a text and its pairs of neighbouring words, in lower case; none is a stop word or a single letter.

    A pair does not reach over a stop word or a punctuation mark, so it can be read as it stands.
    """
    found: set[str] = set()
    for clause in _STOPS.split(text[:CHARACTERS_READ].lower()):
        before = ""
        for match in _WORD.finditer(clause):
            word = match[0]
            if _says_nothing(word):
                before = ""
                continue
            found.add(word)
            if before:
                found.add(f"{before} {word}")
            before = word
    return found


def _says_nothing(word: str) -> bool:
    short = len(word) < 3 and word.isascii()
    return short or len(word) > LONGEST_WORD or word in ENGLISH_STOP_WORDS or root(word) in ENGLISH_STOP_WORDS


def root(word: str) -> str:
    """What a word shares with its plural and possessive: plants, plant's → plant; families → family."""
    word = re.sub(r"['’]s?$", "", word)
    if not word.isascii() or len(word) < 4:
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if re.search(r"(?:[sxz]|[cs]h)es$", word) and len(word) > 4:
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def count_terms(texts: Iterable[str]) -> Counter[str]:
    """In how many of the texts each term stands; of very many terms the most frequent."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(terms_of(text))
        if len(counts) > 10 * TERMS_KEPT:
            counts = _most_frequent(counts, 5 * TERMS_KEPT)
    return _most_frequent(counts, TERMS_KEPT)


def _most_frequent(counts: Counter[str], num: int) -> Counter[str]:
    if len(counts) <= num:
        return counts
    return Counter(dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:num]))


def telling_terms(counts: Sequence[Counter[str]], num_terms: int = NUM_TERMS) -> list[list[str]]:
    """Per cluster the terms with the highest class-based tf-idf, best first; of equal weight the first by alphabet.

    No two share a word or its plural. Where half of the texts with a word have it in one pair, the pair stands for it.
    """
    everywhere: Counter[str] = Counter()
    for cluster in counts:
        everywhere.update(cluster)
    mean_terms = sum(cluster.total() for cluster in counts) / max(1, len(counts))
    chosen: list[list[str]] = []
    for cluster in counts:
        total = max(1, cluster.total())
        weights = {term: num / total * log1p(mean_terms / everywhere[term]) for term, num in cluster.items()}
        ranked = sorted(weights, key=lambda term: (-weights[term], term))
        chosen.append(_without_repetition(ranked, cluster, num_terms))
    return chosen


def _without_repetition(ranked: Sequence[str], counts: Counter[str], num_terms: int) -> list[str]:
    pair_of: dict[str, str] = {}
    for term in ranked:
        for word in term.split(" ") if " " in term else ():
            if counts[term] >= PAIR_INSTEAD * counts[word] and counts[term] > 1:
                pair_of.setdefault(word, term)
    chosen: list[str] = []
    used: set[str] = set()
    for ranked_term in ranked:
        term = pair_of.get(ranked_term, ranked_term)
        roots = {root(word) for word in term.split(" ")}
        if len(chosen) < num_terms and not roots & used:
            chosen.append(term)
            used |= roots
    return chosen


def names_from(terms: Sequence[Sequence[str]], num_terms: int = TERMS_IN_NAME) -> list[str]:
    """A name for each cluster: its first terms, and more of them where an earlier cluster has that name already."""
    names: list[str] = []
    for number, own in enumerate(terms):
        candidates = [", ".join(own[:num]) for num in range(min(num_terms, len(own)), len(own) + 1)] if own else []
        name = next((candidate for candidate in candidates if candidate not in names), None)
        names.append(name or (f"{candidates[-1]} ({number})" if candidates else f"cluster {number}"))
    return names


def count_by_cluster(
    text_at: Callable[[int], str],
    labels: np.ndarray,
    num_clusters: int,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Counter[str]]:
    """The terms of every cluster, from at most `TEXTS_READ` of its texts, evenly spread over the corpus.

    Args:
        text_at: the text of a row.
        labels: the cluster of every row, int [N].
        num_clusters: K.
        progress: told (clusters done, clusters).
    """
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=num_clusters))
    counts: list[Counter[str]] = []
    for cluster in range(num_clusters):
        rows = order[ends[cluster - 1] if cluster else 0 : ends[cluster]]
        if len(rows) > TEXTS_READ:
            rows = rows[np.linspace(0, len(rows) - 1, TEXTS_READ).round().astype(int)]
        counts.append(count_terms(text_at(int(row)) for row in rows))
        progress(cluster + 1, num_clusters)
    return counts
