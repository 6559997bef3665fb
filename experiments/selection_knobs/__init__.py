"""K, γ and the score that clusters are weighed by: which of them matter."""

from __future__ import annotations

from typing import Any

from experiments.arms import stage_two_by
from experiments.claim import Claim, Found, Verdict, judged
from experiments.effects import contrast, difference, misalignment
from experiments.lab import Arm

GAMMAS = (0.0, 1.0, 3.0, 5.0, 8.0)
CLUSTERS = (16, 64, 128, 256)
SCORES = ("self_misalignment", "jsd", "nll_gap", "controlled")


def arms(seed: int) -> dict[str, Arm]:
    """One knob at a time, from the lab's 32 clusters, γ = 5 and misalignment."""
    by_gamma = {f"gamma {gamma:g}": stage_two_by(seed, gamma) for gamma in GAMMAS}
    by_k = {f"K {num}": stage_two_by(seed, 5.0, num) for num in CLUSTERS}
    by_score = {name.replace("_", " "): stage_two_by(seed, 5.0, None, name) for name in SCORES}
    return by_gamma | by_k | by_score


def judge(found: Found) -> Verdict:
    """M of γ = 0 less the mean M of all other arms decides; each knob's arms against γ = 0 stand beside it."""
    uniform = found["gamma 0"]
    others = {label: several for label, several in found.items() if label != "gamma 0"}
    gains = {label: difference(uniform, several, misalignment) for label, several in others.items()}
    mean = [(-1.0 / len(others), several) for several in others.values()]
    effect = contrast([(1.0, uniform), *mean], misalignment)
    best = max(gains, key=lambda label: gains[label].value)
    sure = [label for label, gain in gains.items() if gain.above]
    sentence = (
        f"M is lower by {effect} nats than with uniform selection over {len(gains)} settings; the lowest is {best} "
        f"({gains[best]}, not corrected for having been picked), and {len(sure)} intervals lie above 0."
    )
    more: dict[str, Any] = {label: gain.as_json() for label, gain in gains.items()}
    return judged(effect, "nats per token", sentence, more)


CLAIM = Claim(
    "selection_knobs",
    "Selection by misalignment is better than uniform selection whatever K, and best at γ = 5; which divergence "
    "selects is the authors' open question.",
    "M(γ = 0) − mean M of all other settings",
    (0,),
    arms,
    judge,
    toy=("gamma 0", "gamma 5", "K 16", "jsd"),
)
