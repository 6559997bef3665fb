"""Ours: selection by misalignment less what hard text and bad speech explain of it beats selection by misalignment."""

from __future__ import annotations

from experiments.arms import SEEDS, stage_two_by
from experiments.claim import Claim, Found, Verdict, judged
from experiments.effects import difference, human_misalignment, misalignment
from experiments.lab import Arm


def arms(seed: int) -> dict[str, Arm]:
    """The two scores at γ = 5, and uniform selection, from the same Stage I."""
    return {
        "misalignment": stage_two_by(seed),
        "controlled": stage_two_by(seed, score="controlled"),
        "uniform": stage_two_by(seed, 0.0),
    }


def judge(found: Found) -> Verdict:
    """M by misalignment less M by the controlled score; against uniform selection beside it."""
    effect = difference(found["misalignment"], found["controlled"], misalignment)
    uniform = difference(found["uniform"], found["controlled"], misalignment)
    human = difference(found["misalignment"], found["controlled"], human_misalignment)
    sentence = (
        f"M is lower by {effect} nats where entropy and CER are controlled for than with misalignment as it is, on "
        f"people by {human}; than with uniform selection by {uniform}."
    )
    return judged(effect, "nats per token", sentence, {"uniform": uniform.as_json(), "human": human.as_json()})


CLAIM = Claim(
    "controlled_selection",
    "Beyond the paper: selection by what entropy and CER don't explain of M(c) beats selection by M(c), at the same "
    "budget and steps.",
    "M(misalignment) − M(controlled)",
    SEEDS,
    arms,
    judge,
)
