"""One training voice against eight, on a voice that neither has heard and on human speech."""

from __future__ import annotations

from experiments.arms import SEEDS, stage_one_on
from experiments.claim import Claim, Found, Verdict, judged
from experiments.effects import difference, human_misalignment, misalignment, unseen_misalignment
from experiments.lab import Arm


def arms(seed: int) -> dict[str, Arm]:
    """The same texts in one voice and in eight."""
    return {"one voice": stage_one_on(seed, "few"), "eight voices": stage_one_on(seed, "many")}


def judge(found: Found) -> Verdict:
    """M in the unseen voice with one training voice less that with eight."""
    both = found["one voice"], found["eight voices"]
    effect = difference(*both, unseen_misalignment)
    human, own = difference(*both, human_misalignment), difference(*both, misalignment)
    sentence = (
        f"Eight voices lower M in an unseen synthetic voice by {effect} nats, on human prompts by {human}, and in the "
        f"one voice itself by {own}."
    )
    return judged(effect, "nats per token", sentence, {"human": human.as_json(), "own_voice": own.as_json()})


CLAIM = Claim(
    "voices",
    "One synthetic voice is a limitation: more voices generalize better to unseen voices and human speech.",
    "M(one voice) − M(eight voices) in an unseen voice",
    SEEDS,
    arms,
    judge,
    plotted=(unseen_misalignment, "M on held-out definitions in an unseen voice (nats per token)"),
)
