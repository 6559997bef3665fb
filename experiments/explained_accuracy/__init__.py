"""M predicts accuracy on speech, F accuracy on text, over the runs of the two experiments before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments import broad_domain, distillation_law
from experiments.arms import SEEDS
from experiments.claim import CANT_TELL, NOT, REPRODUCED, Claim, Found, Verdict, weakest
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
    """Partial R², where more nats go with less accuracy; that of M for accuracy on speech is the effect shown."""
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
    text = more["text"].get("predictors", {}).get("forgetting")
    of_text = f"{_interval(text['partial_r2'])} (slope {text['slope']:+.3f})" if text else "can't be fitted"
    sentence = (
        f"Over {len(every)} runs M explains {_interval(partial)} of what F leaves of accuracy on speech (slope "
        f"{slope:+.3f} a nat; leave-one-out R² {own['leave_one_out_r2']:.2f}); F, of what M leaves of accuracy on "
        f"text: {of_text}."
    )
    parts = {
        "M predicts accuracy on speech": _word(own["predictors"]["misalignment"]),
        "F predicts accuracy on text": _word(text) if text else CANT_TELL,
    }
    return Verdict(parts[weakest(parts)], effect, "partial R²", sentence, more, parts)


def _word(predictor: dict[str, Any]) -> str:
    """A predictor that explains something, and in the direction that is claimed: more nats, less accuracy."""
    if predictor["partial_r2"]["low"] <= 0:
        return CANT_TELL
    return REPRODUCED if predictor["slope"] < 0 else NOT


def _interval(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"


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
