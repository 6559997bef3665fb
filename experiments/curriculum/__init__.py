"""Ours: spoken prefixes that grow from a quarter of their length align better than whole ones from the start."""

from __future__ import annotations

from experiments.arms import SEEDS, natural
from experiments.claim import Claim, Found, Verdict, judged
from experiments.effects import difference, human_misalignment, misalignment
from experiments.lab import Arm


def arms(seed: int) -> dict[str, Arm]:
    """Stage I on the human prompts as it is, and with the curriculum: the same utterances, steps and batches."""
    whole = natural(seed)
    return {"whole": whole, "growing": Arm("human-growing", seed, whole.speech, (*whole.overrides, GROWING))}


def judge(found: Found) -> Verdict:
    """M of whole prefixes less M of growing ones."""
    effect = difference(found["whole"], found["growing"], misalignment)
    human = difference(found["whole"], found["growing"], human_misalignment)
    tflop = {label: sum(one.cost["train_tflop"] for one in several) / len(several) for label, several in found.items()}
    told = " and ".join(f"{value:.1f} ({label})" for label, value in tflop.items())
    sentence = f"M is lower by {effect} nats with growing prefixes, on people by {human}. TFLOP an arm: {told}."
    return judged(effect, "nats per token", sentence, {"human": human.as_json(), "tflop": tflop})


GROWING = "stage_one.curriculum={start_frac: 0.25, steps_frac: 0.5}"
CLAIM = Claim(
    "curriculum",
    "Beyond the paper: spoken spans that grow with training align better than spans of one length, at equal steps and "
    "utterances.",
    "M(whole) − M(growing)",
    SEEDS,
    arms,
    judge,
)
