"""On narrow speech M rises with data under NLL; under distillation it falls, M = E + B·D^(−β), and E falls with α."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.arms import ALPHAS, SEEDS, stage_one_on
from experiments.claim import CANT_TELL, NOT, REPRODUCED, Claim, Found, Verdict, weakest, word_for
from experiments.effects import Effect, combine, difference, misalignment
from experiments.lab import Arm, Measured
from salad.errors import DataError
from salad.measure.law import fit_law

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def arms(seed: int) -> dict[str, Arm]:
    """Stage I on narrow speech, α from NLL alone to distillation alone."""
    return {f"alpha {alpha:g}": stage_one_on(seed, "narrow", alpha) for alpha in ALPHAS}


def judge(found: Found) -> Verdict:
    """The claim's parts, each with its effect; the weakest decides. The looks give each α's path and law."""
    nll, distilled = found["alpha 0"], found["alpha 1"]
    effects = {
        "M(last look) − M(first look) under NLL": _change(nll),
        "M(first look) − M(last look) under distillation": _change(distilled, -1.0),
        "M(α = 0) − M(α = 1) after the same narrow speech": difference(nll, distilled, misalignment),
    }
    paths = {label: _path(several) for label, several in found.items()}
    laws = {label: _law(path) for label, path in paths.items()}
    fitted = [label for label, law in laws.items() if "E_nats" in law]
    parts = {name: word_for(effect) for name, effect in effects.items()} | {
        "M = E + B·D^(−β), E falls with α": _told(laws)
    }
    rise, fall, lower = effects.values()
    sentence = (
        f"After narrow speech M is lower by {lower} nats with distillation than with NLL, and falls by {fall} from the "
        f"first look to the last. With NLL it rises from {paths['alpha 0']['misalignment_nats'][0]:.2f} to "
        f"{max(paths['alpha 0']['misalignment_nats']):.2f} on the way, but ends changed by {rise}. "
        f"{len(fitted)} of {len(paths)} paths have a law that can be fitted."
    )
    more = {"effects": {name: one.as_json() for name, one in effects.items()}, "paths": paths, "laws": laws}
    deciding = weakest({name: parts[name] for name in effects})
    return Verdict(parts[weakest(parts)], effects[deciding], "nats per token", sentence, more, parts, deciding)


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


def _change(several: Sequence[Measured], sign: float = 1.0) -> Effect:
    """How M changes from the first look to the last, by the seeds' scatter."""
    looks = [[row["misalignment_nats"]["value"] for row in one.watch] for one in several]
    return combine(np.asarray([[sign * (values[-1] - values[0])] for values in looks]), np.ones(1))


def _told(laws: dict[str, dict[str, Any]]) -> str:
    """Whether the floors of the paths with α > 0 fall with α; where one has none, that can't be told."""
    floors = [law.get("E_nats") for label, law in laws.items() if label != "alpha 0"]
    known = [floor for floor in floors if floor is not None]
    if len(known) < len(floors):
        return CANT_TELL
    return REPRODUCED if all(b < a for a, b in pairwise(known)) else NOT


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
