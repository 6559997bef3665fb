"""Do clusters follow labels that somebody gave the texts? Purity and normalized mutual information.

Axes: N texts, K clusters, D domains.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from scipy.sparse import coo_array
from sklearn.metrics import normalized_mutual_info_score

MOST_DOMAINS = 10_000  # more are no domains: addresses, titles


@dataclass(frozen=True)
class Agreement:
    """How far clusters and domains agree.

    Attributes:
        num_domains: different domains in the corpus.
        purity: share of the texts that are of their cluster's most frequent domain.
        purity_of_one: the same were all texts in one cluster: the share of the largest domain.
        nmi: mutual information over the mean of the two entropies (Strehl & Ghosh, 2002, with the arithmetic mean).
    """

    num_domains: int
    purity: float
    purity_of_one: float
    nmi: float

    def as_json(self) -> dict[str, float | int]:
        """The fields as a plain dictionary."""
        return asdict(self)


def agreement(labels_N: np.ndarray, domains_N: np.ndarray) -> Agreement:
    """Of clusters and domains, both numbered from 0, int [N]."""
    counts_KD = coo_array((np.ones(len(labels_N)), (labels_N, domains_N))).tocsr()
    return Agreement(
        num_domains=len(np.unique(domains_N)),
        purity=float(counts_KD.max(axis=1).toarray().sum() / len(labels_N)),
        purity_of_one=float(np.bincount(domains_N).max() / len(domains_N)),
        nmi=float(normalized_mutual_info_score(domains_N, labels_N)),
    )


def numbered(domains: Iterable[str]) -> np.ndarray | None:
    """Domains by number in the order they appear, int32 [N]; None where there is one alone, or far too many."""
    numbers: dict[str, int] = {}
    coded = array("l")
    for domain in domains:
        if len(numbers) <= MOST_DOMAINS:
            coded.append(numbers.setdefault(domain, len(numbers)))
    return np.asarray(coded, np.int32) if 1 < len(numbers) <= MOST_DOMAINS else None
