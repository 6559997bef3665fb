"""On narrow speech M rises with data under NLL; under distillation it falls, M = E + B·D^(−β), and E falls with α."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.arms import ALPHAS, SEEDS, stage_one_on
from experiments.claim import Claim, Found, Verdict, judged
from experiments.effects import difference, misalignment
from experiments.lab import Arm, Measured
from salad.errors import DataError
from salad.measure.law import fit_law

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def arms(seed: int) -> dict[str, Arm]:
    """Stage I on narrow speech, α from NLL alone to distillation alone."""
    return {f"alpha {alpha:g}": stage_one_on(seed, "narrow", alpha) for alpha in ALPHAS}


def judge(found: Found) -> Verdict:
    """M of α = 0 less M of α = 1 decides; the looks give each α's path and law."""
    effect = difference(found["alpha 0"], found["alpha 1"], misalignment)
    paths = {label: _path(several) for label, several in found.items()}
    more: dict[str, Any] = {"paths": paths, "laws": {label: _law(path) for label, path in paths.items()}}
    rises = {label: path["misalignment_nats"][-1] - path["misalignment_nats"][0] for label, path in paths.items()}
    more["change_from_first_to_last_look_nats"] = rises
    fitted = [label for label, law in more["laws"].items() if "E_nats" in law]
    sentence = (
        f"After narrow speech M is higher by {effect} nats with NLL than with distillation. From the first look to the "
        f"last M changes by {rises['alpha 0']:+.3f} with NLL and {rises['alpha 1']:+.3f} with distillation; "
        f"{len(fitted)} of {len(paths)} paths have a law that can be fitted."
    )
    return judged(effect, "nats per token", sentence, more)


def draw(axes: Axes, found: Found) -> None:
    """M against training positions, the mean over seeds."""
    for label, several in found.items():
        path = _path(several)
        axes.plot(path["positions"], path["misalignment_nats"], "o-", markersize=3, label=label)
    axes.set_xlabel("training positions")
    axes.set_ylabel("M, held-out definitions (nats)")
    axes.legend(fontsize=7)


def _path(several: list[Measured] | Any) -> dict[str, list[float]]:
    """Positions trained on and M at each look, averaged over seeds."""
    ends = [np.cumsum([row["positions"] for row in one.curve]) for one in several]
    looks = [[row["misalignment_nats"]["value"] for row in one.watch] for one in several]
    steps = [row["step"] for row in several[0].watch]
    positions = np.mean([[end[step - 1] for step in steps] for end in ends], axis=0)
    return {"positions": positions.tolist(), "misalignment_nats": np.mean(looks, axis=0).tolist()}


def _law(path: dict[str, list[float]]) -> dict[str, Any]:
    """The fitted law, or the sentence that says why there is none."""
    try:
        return fit_law(path["positions"], path["misalignment_nats"]).as_json()
    except DataError as error:
        return {"none": str(error)}


CLAIM = Claim(
    "distillation_law",
    "Fine-tuned by NLL on narrow-domain speech, M on broad text grows with data; with distillation (α > 0) it falls as "
    "M = E + B·D^(−β), and E falls with α.",
    "M(α = 0) − M(α = 1) after the same narrow speech",
    SEEDS,
    arms,
    judge,
    draw,
    toy=("alpha 0", "alpha 1"),
)
