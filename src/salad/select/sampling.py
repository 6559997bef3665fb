"""P_target(c) ~ P_web(c) M(c)^gamma, and drawing texts from it until a budget of speech is full (paper section 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from salad.errors import DataError
from salad.randomness import generator
from salad.texts.text import Text


@dataclass(frozen=True)
class Selection:
    """The chosen texts in the order they were drawn, their estimated speech in seconds, and what was drawn from."""

    texts: list[Text]
    estimated_s: float
    target: list[float]
    per_cluster: list[int]
    exhausted_clusters: list[int]


def target_distribution(
    web: Sequence[float], misalignment: Sequence[float], gamma: float, excluded: Sequence[bool]
) -> np.ndarray:
    """P_target over clusters [K]; excluded clusters get 0; gamma = 0 is P_web over the clusters that are left.

    Raises:
        DataError: all clusters are excluded, or all scores are 0 with gamma > 0, or a score is negative or not finite.
    """
    scores = np.asarray(misalignment, np.float64)
    keep = ~np.asarray(excluded, bool)
    if not keep.any():
        raise DataError("all clusters are excluded, so there is nothing to select from; raise stage_two.max_cer.")
    if not np.isfinite(scores[keep]).all() or (scores[keep] < 0).any():
        raise DataError(f"misalignment scores must be finite and not negative, got {scores.tolist()}.")
    if gamma > 0 and scores[keep].max() == 0:
        raise DataError("the misalignment is 0 in every cluster: nothing is misheard, so gamma can't rank them; use 0.")
    scale = scores[keep].max() if gamma > 0 else 1.0  # scaled first: M^gamma may overflow, ratios don't change
    weights = np.asarray(web, np.float64) * np.where(keep, (scores / scale) ** gamma, 0.0)
    return np.asarray(weights / weights.sum())


def select_texts(
    texts: Sequence[Text],
    cluster_of: Mapping[str, int],
    target: Sequence[float],
    budget_s: float,
    seconds_per_character: float,
    seed: int,
    purpose: str,
) -> Selection:
    """Draw a cluster from the target, then a text uniformly within it, without repetition, until the budget is full.

    The speech of a text is estimated from its length. A cluster that runs out is closed and the rest renormalized;
    the selection says which. `target` and texts of one seed and purpose give one selection.

    Raises:
        DataError: the texts are used up before the budget is reached.
    """
    rng = generator(seed, "select", purpose)
    weights = np.asarray(target, np.float64).copy()
    queues: list[list[Text]] = [[] for _ in weights]
    unknown = [text.id for text in texts if text.id not in cluster_of]
    if unknown:
        raise DataError(f"{len(unknown)} texts are in no cluster (e.g. {unknown[0]!r}); cluster this corpus first.")
    for text in texts:
        queues[cluster_of[text.id]].append(text)
    for queue in queues:
        rng.shuffle(queue)
    chosen: list[Text] = []
    per_cluster = [0] * len(weights)
    exhausted = [c for c, queue in enumerate(queues) if not queue and weights[c] > 0]
    weights[exhausted] = 0.0
    seconds = 0.0
    while seconds < budget_s:
        if weights.sum() == 0:
            raise DataError(
                f"the budget of {budget_s / 3600:.2f} h is larger than the corpus: its {len(chosen)} texts with weight "
                f"are about {seconds / 3600:.2f} h of speech. Lower stage_two.budget_frac or raise data.pool_texts."
            )
        cluster = int(rng.choice(len(weights), p=weights / weights.sum()))
        text = queues[cluster].pop()
        chosen.append(text)
        per_cluster[cluster] += 1
        seconds += len(text.text) * seconds_per_character
        if not queues[cluster]:
            weights[cluster] = 0.0
            exhausted.append(cluster)
    return Selection(chosen, seconds, [float(p) for p in target], per_cluster, sorted(exhausted))
