"""Readable names for clusters: their most telling words, by class-based tf-idf (Grootendorst, 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer


def cluster_names(texts: Sequence[str], labels: np.ndarray, num_clusters: int, num_terms: int = 3) -> list[str]:
    """Per cluster its `num_terms` words with the highest tf-idf over clusters, joined by commas."""
    documents = [" ".join(t for t, c in zip(texts, labels, strict=True) if c == k) for k in range(num_clusters)]
    vectorizer = CountVectorizer(stop_words="english", token_pattern=r"[A-Za-z][A-Za-z-]{2,}")
    try:
        counts_KT = vectorizer.fit_transform(documents).toarray().astype(np.float64)
    except ValueError:  # no word is left after the stop words
        return [f"cluster {k}" for k in range(num_clusters)]
    terms = vectorizer.get_feature_names_out()
    frequency_KT = counts_KT / np.maximum(counts_KT.sum(1, keepdims=True), 1)
    rarity_T = np.log1p(counts_KT.sum(1).mean() / counts_KT.sum(0))
    best = (-frequency_KT * rarity_T).argsort(1, kind="stable")[:, :num_terms]
    return [", ".join(str(terms[i]) for i in row) for row in best]
