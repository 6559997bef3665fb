"""M predicts accuracy on speech, F accuracy on text, over the runs of the two experiments before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments import broad_domain, distillation_law
from experiments.arms import SEEDS
from experiments.claim import CANT_TELL, NOT, REPRODUCED, Claim, Found, Verdict
from experiments.effects import Effect, accuracy, forgetting, misalignment, per_token
from experiments.lab import Arm
from salad.errors import DataError
from salad.measure.explained import explained

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def arms(seed: int) -> dict[str, Arm]:
    """Every arm of the two experiments, each once."""
    every = distillation_law.arms(seed) | broad_domain.arms(seed)
    return {arm.name: arm for arm in every.values()}


def judge(found: Found) -> Verdict:
    """Partial R² of M for accuracy on speech decides, if more M goes with less accuracy."""
    every = [one for several in found.values() for one in several]
    predictors = {
        "misalignment": [per_token(one, misalignment) for one in every],
        "forgetting": [per_token(one, forgetting) for one in every],
    }
    more: dict[str, Any] = {"runs": len(every)}
    for view in ("speech", "text"):
        try:
            more[view] = explained([per_token(one, accuracy(view)) for one in every], predictors, view).as_json()
        except DataError as error:
            more[view] = {"none": str(error)}
    own = more["speech"]
    if "none" in own:
        nothing = Effect(0.0, 0.0, 1.0, len(every), ())
        return Verdict(CANT_TELL, nothing, "partial R²", own["none"], more)
    partial, slope = own["predictors"]["misalignment"]["partial_r2"], own["predictors"]["misalignment"]["slope"]
    effect = Effect(partial["value"], partial["low"], partial["high"], len(every), ())
    text = more["text"].get("predictors", {}).get("forgetting", {}).get("partial_r2", {}).get("value")
    told = "can't be fitted" if text is None else f"{text:.2f}"
    sentence = (
        f"Over {len(every)} runs M explains {partial['value']:.2f} [{partial['low']:.2f}, {partial['high']:.2f}] of "
        f"what F leaves of accuracy on speech (slope {slope:+.3f} a nat; leave-one-out R² "
        f"{own['leave_one_out_r2']:.2f}); F of what M leaves of accuracy on text: {told}."
    )
    verdict = CANT_TELL if partial["low"] <= 0 else REPRODUCED if slope < 0 else NOT
    return Verdict(verdict, effect, "partial R²", sentence, more)


def draw(axes: Axes, found: Found) -> None:
    """Accuracy on speech against M, a point a run."""
    for label, several in found.items():
        x = [per_token(one, misalignment) for one in several]
        axes.plot(x, [100 * per_token(one, accuracy("speech")) for one in several], "o", label=label, markersize=5)
    axes.set_xlabel("M, held-out definitions (nats per token)")
    axes.set_ylabel("definition task, heard (%)")
    axes.legend(fontsize=6, ncols=2)


CLAIM = Claim(
    "explained_accuracy",
    "Over training runs M predicts accuracy on speech and F accuracy on text.",
    "partial R² of M for accuracy on speech, F held",
    SEEDS,
    arms,
    judge,
    draw,
    toy=("narrow-alpha0", "narrow-alpha1", "broad-alpha0", "broad-alpha1"),
)
