"""What to draw from: P_target(c) ∝ P_web(c) s(c)^γ (paper section 5), and what keeps it from a few clusters taking all.

Axes: K clusters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from salad.errors import DataError, RecipeError

MOST_NAMED = 8
"""So many clusters are named in a sentence."""


def target_distribution(
    web: ArrayLike,
    scores: ArrayLike,
    gamma: float,
    excluded: ArrayLike,
    coverage_frac: float = 0.0,
    max_boost: float | None = None,
) -> NDArray[np.float64]:
    """P_target over clusters [K]; excluded clusters get 0; gamma = 0 is P_web over the clusters that are left.

    With w = P_web over what is left, in this order:

        p ∝ w · s^gamma                                       (in logarithms: nothing overflows, however large gamma)
        p = min(λ p, max_boost · w), λ such that the sum is 1   (water-filling: the rest keeps its proportions)
        p = (1 - coverage_frac) · p + coverage_frac · w

    Coverage comes last, so that it is exactly that share of the draws; the cap still holds, because w itself is below
    it. Where the clusters with a score can't take all under the cap, what is left goes to those with a score of 0 as
    the corpus has it: the limit of scores that go to 0 together.

    Args:
        web: P_web, or sizes of the clusters [K].
        scores: s, 0 or above [K]; not read where excluded.
        gamma: 0 or above.
        excluded: whether a cluster is left out [K].
        coverage_frac: 0-1.
        max_boost: how many times more often than in the corpus a cluster may be drawn, 1 or above; None: no cap.

    Raises:
        RecipeError: gamma, coverage_frac or max_boost is out of its range.
        DataError: all clusters are excluded, all scores are 0 with gamma > 0, or a score is negative or not finite.
    """
    _check_knobs(gamma, coverage_frac, max_boost)
    share_K, score_K = np.asarray(web, np.float64), np.asarray(scores, np.float64)
    kept = np.flatnonzero(~np.asarray(excluded, bool) & (share_K > 0))
    _check_scores(score_K, kept, gamma)
    base = share_K[kept] / share_K[kept].sum()
    with np.errstate(divide="ignore"):  # a score of 0 is never drawn: log weight -inf
        log_boost = gamma * np.log(score_K[kept]) if gamma > 0 else np.zeros(len(kept))
    capped = _softmax(np.log(base) + log_boost) if max_boost is None else _water_fill(base, log_boost, max_boost)
    target = np.zeros(len(share_K))
    target[kept] = (1.0 - coverage_frac) * capped + coverage_frac * base
    return np.asarray(target / target.sum())  # away from 1 by rounding alone


def effective_clusters(target: ArrayLike) -> float:
    """exp of the entropy: how many clusters of equal share would be as spread out; 1 to K."""
    p = np.asarray(target, np.float64)
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def _water_fill(base: NDArray[np.float64], log_boost: NDArray[np.float64], max_boost: float) -> NDArray[np.float64]:
    """min(λ · base · boost, max_boost · base), λ such that the sum is 1.

    The cap is in proportion to `base`, so clusters meet it in the order of their boosts: the first m of that order are
    capped, m the least that leaves no other above.
    """
    order = np.argsort(-log_boost, kind="stable")
    share, boost = base[order], log_boost[order]
    log_weight = np.log(share) + boost
    log_rest = np.logaddexp.accumulate(log_weight[::-1])[::-1]  # of this cluster and those after it
    before = np.concatenate([[0.0], np.cumsum(share)[:-1]])
    left = np.maximum(1.0 - max_boost * before, 0.0)
    with np.errstate(invalid="ignore"):  # -inf less -inf: no score in the rest
        reached = left * np.exp(boost - log_rest)
    over = reached > max_boost * (1 + 1e-12)
    over[-1] = False  # if all others are capped, what is left for the last is at most its cap, but for rounding
    first = int(np.argmin(over))
    filled = max_boost * share
    rest = log_weight[first:] if np.isfinite(log_rest[first]) else np.log(share[first:])
    filled[first:] = left[first] * _softmax(rest)
    result = np.empty_like(filled)
    result[order] = filled
    return result


def _softmax(log_weights: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(log_weights - log_weights.max())
    return np.asarray(weights / weights.sum())


def _check_knobs(gamma: float, coverage_frac: float, max_boost: float | None) -> None:
    if not (np.isfinite(gamma) and gamma >= 0):
        raise RecipeError(f"gamma={gamma}: give 0 (uniform) or above (the paper: 5).")
    if not 0 <= coverage_frac <= 1:
        raise RecipeError(f"coverage_frac={coverage_frac}: give a share of the draws, 0 to 1.")
    if max_boost is not None and not max_boost >= 1:
        raise RecipeError(f"max_boost={max_boost}: give 1 (every cluster as often as in the corpus) or above.")


def _check_scores(scores: NDArray[np.float64], kept: NDArray[np.int64], gamma: float) -> None:
    if not len(kept):
        raise DataError(
            f"all {len(scores)} clusters are excluded or empty, so there is nothing to select from; "
            "raise stage_two.max_cer (--max-cer of 'salad probe')."
        )
    if gamma == 0:  # the scores are not used
        return
    wrong = kept[~np.isfinite(scores[kept]) | (scores[kept] < 0)]
    if len(wrong):
        named = ", ".join(f"{scores[c]:g} in cluster {c}" for c in wrong[:MOST_NAMED])
        more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise DataError(f"scores must be finite and not negative, got {named}{more}; probe again, or exclude them.")
    if scores[kept].max() == 0:
        raise DataError(
            f"the score is 0 in every cluster ({_spread(kept)}): nothing is misheard, so gamma={gamma:g} can't rank "
            "them; use --gamma 0, or another --score."
        )


def _spread(kept: Sequence[int] | NDArray[np.int64]) -> str:
    return f"{len(kept)} of them" if len(kept) > 1 else f"cluster {kept[0]}"
