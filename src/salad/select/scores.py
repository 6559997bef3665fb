"""What clusters are weighed by: six scores, so that whether the divergence matters is one sweep of `stage_two.score`.

    misalignment       D_KL( Q_phi(text) || P_theta(speech) )          the paper's
    self_misalignment  D_KL( P_theta(text) || P_theta(speech) )        the reported M: no drift on text in it
    jsd                JSD( Q_phi(text), P_theta(speech) )             at most log 2: a few tokens don't decide
    nll_gap            NLL of P_theta(speech) − NLL of Q_phi(text)     of the text itself, not of the distribution
    controlled         misalignment, what entropy and CER explain of it taken away
    uniform            1                                               the control

All per token, a number for each cluster. `controlled` is

    score(c) = max(0, mean M + M(c) − b0 − b1 entropy(c) − b2 CER(c))

with b by ordinary least squares over the clusters that are used. They are not weighed by their standard errors: of a
dozen texts those are known to a fifth at best, and weights of such noise cost more than they bring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from salad.errors import DataError
from salad.select.probe import ClusterProbe

Score = Literal["misalignment", "self_misalignment", "jsd", "nll_gap", "controlled", "uniform"]
SCORES: tuple[Score, ...] = get_args(Score)
MEASURED_ON_REQUEST: tuple[Score, ...] = ("self_misalignment", "jsd")
"""What `salad probe` measures only when asked: the rest is free."""

_VALUES: Mapping[str, Callable[[ClusterProbe], float | None]] = {
    "misalignment": lambda probe: probe.misalignment_nats,
    "self_misalignment": lambda probe: probe.self_misalignment_nats,
    "jsd": lambda probe: probe.jsd_nats,
    "nll_gap": lambda probe: probe.nll_gap_nats,
}
_NUM_NAMED = 5


def cluster_scores(probes: Sequence[ClusterProbe], name: str) -> NDArray[np.float64]:
    """The score of each cluster [K], not negative; NaN where the cluster is excluded.

    Raises:
        DataError: no score of that name; it was not measured; it is negative or not a number somewhere; too few
            clusters for `controlled`.
    """
    if name not in SCORES:
        raise DataError(f"score {name!r} is not known; choose one of {', '.join(SCORES)}.")
    if name == "controlled":
        return controlled_scores(probes)[0]
    used = [probe for probe in probes if probe.excluded is None]
    scores_K = np.full(len(probes), np.nan)
    if name == "uniform":
        scores_K[[probe.excluded is None for probe in probes]] = 1.0
        return scores_K
    _check_measured(used, name)
    for index, probe in enumerate(probes):
        if probe.excluded is None:
            scores_K[index] = _VALUES[name](probe)
    negative = [probe for probe in used if _VALUES[name](probe) < 0]  # type: ignore[operator]  # measured, see above
    if negative:
        remedy = "take the score 'misalignment', which can't be, or probe these with more texts"
        raise DataError(f"the score {name} is negative in {_named(negative)}: no share can be drawn by it; {remedy}.")
    return scores_K


def controlled_scores(probes: Sequence[ClusterProbe]) -> tuple[NDArray[np.float64], int]:
    """M(c) without what the teacher's entropy and the character error rate explain [K], and how many were clipped at 0.

    A control that is the same in every cluster explains nothing, and does no harm.

    Raises:
        DataError: something was not measured, or no more than three clusters are used: as many as coefficients.
    """
    used = np.array([probe.excluded is None for probe in probes])
    chosen = [probe for probe in probes if probe.excluded is None]
    _check_measured(chosen, "misalignment")
    deaf = [probe for probe in chosen if probe.mean_cer is None]
    if deaf:
        raise DataError(f"the score controlled needs the character error rate, which {_named(deaf)} lack; probe again.")
    if len(chosen) <= 3:
        raise DataError(
            f"the score controlled fits 3 coefficients, and {len(chosen)} clusters are used; probe more clusters, or "
            "take the score 'misalignment'."
        )
    m = np.array([probe.misalignment_nats for probe in chosen], np.float64)
    controls = np.array([[probe.teacher_entropy_nats, probe.mean_cer] for probe in chosen], np.float64)
    spread = controls.std(0)
    centred = np.where(spread > 1e-9, controls - controls.mean(0), 0.0) / np.maximum(spread, 1e-9)
    slope = np.linalg.lstsq(centred, m - m.mean(), rcond=1e-9)[0]
    left = m - centred @ slope  # the residual plus the mean
    scores_K = np.full(len(probes), np.nan)
    scores_K[used] = np.maximum(left, 0.0)
    return scores_K, int((left < 0).sum())


def _check_measured(used: Sequence[ClusterProbe], name: str) -> None:
    missing = [probe for probe in used if _VALUES[name](probe) is None]
    if missing:
        raise DataError(f"the score {name} was not measured in {_named(missing)}; probe with --score {name}.")
    broken = [probe for probe in used if not np.isfinite(_VALUES[name](probe))]  # type: ignore[arg-type]
    if broken:
        raise DataError(f"the score {name} is not a finite number in {_named(broken)}; probe these again.")


def _named(probes: Sequence[ClusterProbe]) -> str:
    numbers = ", ".join(str(probe.cluster) for probe in probes[:_NUM_NAMED])
    more = f" and {len(probes) - _NUM_NAMED} more" if len(probes) > _NUM_NAMED else ""
    return f"{'cluster' if len(probes) == 1 else 'clusters'} {numbers}{more}"
