"""Stage II's gain is from its new data, not from more training."""

from __future__ import annotations

from experiments.arms import SEEDS, stage_two_by, stage_two_without_new_data
from experiments.claim import Claim, Found, Verdict, judged
from experiments.effects import difference, misalignment
from experiments.lab import Arm


def arms(seed: int) -> dict[str, Arm]:
    """Stage II as it is, and as many steps on what Stage I had."""
    return {"Stage II, gamma 5": stage_two_by(seed, 5.0), "no new data": stage_two_without_new_data(seed)}


def judge(found: Found) -> Verdict:
    """M without new data less M with it."""
    effect = difference(found["no new data"], found["Stage II, gamma 5"], misalignment)
    sentence = f"M is lower by {effect} nats where Stage II's steps see selected speech than where they see none."
    return judged(effect, "nats per token", sentence)


CLAIM = Claim(
    "more_training",
    "The gain of Stage II comes from the selected speech, not from training for longer.",
    "M(same steps, no new data) − M(Stage II)",
    SEEDS,
    arms,
    judge,
)
