"""Stage II's gain is from its new data, not from more training."""

from __future__ import annotations

from experiments.arms import SEEDS, stage_two_by, stage_two_without_new_data
from experiments.claim import Claim, Found, Verdict, judged
from experiments.effects import difference, misalignment
from experiments.lab import Arm


def arms(seed: int) -> dict[str, Arm]:
    """Stage II as it is, with uniform selection, and as many steps on what Stage I had."""
    return {
        "Stage II, gamma 5": stage_two_by(seed, 5.0),
        "Stage II, gamma 0": stage_two_by(seed, 0.0),
        "no new data": stage_two_without_new_data(seed),
    }


def judge(found: Found) -> Verdict:
    """M without new data less M with what was selected by misalignment; the same for uniform selection beside it."""
    none = found["no new data"]
    effect = difference(none, found["Stage II, gamma 5"], misalignment)
    uniform = difference(none, found["Stage II, gamma 0"], misalignment)
    sentence = (
        f"M is lower by {effect} nats where Stage II's steps see speech selected by misalignment than where they see "
        f"none, and by {uniform} with uniform selection."
    )
    return judged(effect, "nats per token", sentence, {"uniform": uniform.as_json()})


CLAIM = Claim(
    "more_training",
    "The gain of Stage II comes from the selected speech, not from training for longer.",
    "M(same steps, no new data) − M(Stage II)",
    SEEDS,
    arms,
    judge,
)
