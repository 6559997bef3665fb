"""Ours: an adapter that learns words first (Stage 0) hears better than one that is distilled from the start.

The three arms have the same speech and, within 6 %, the same FLOPs of matrix products, those of the warm start counted.
"""

from __future__ import annotations

from experiments.arms import SEEDS
from experiments.claim import Claim, Found, Verdict, judged
from experiments.effects import difference, human_misalignment, misalignment
from experiments.lab import Arm

SPEECH = ("human", "ears")
COLD_STEPS = 90  # the lab's 48, and those that cost what the warm start does


def arms(seed: int) -> dict[str, Arm]:
    """Stage I from ears that know words by their times, by their order, or not at all."""
    alpha = "stage_one.alpha=1"
    return {
        "word_aligned": Arm("zero-word_aligned", seed, SPEECH, (alpha,)),
        "ctc": Arm("zero-ctc", seed, SPEECH, (alpha, "stage_one.warm_start.kind=ctc")),
        "none": Arm(
            "zero-none", seed, SPEECH, (alpha, "stage_one.warm_start.steps=0", f"stage_one.steps={COLD_STEPS}")
        ),
    }


def judge(found: Found) -> Verdict:
    """M without Stage 0 less M with word_aligned; ctc beside it."""
    effect = difference(found["none"], found["word_aligned"], misalignment)
    by_ctc = difference(found["none"], found["ctc"], misalignment)
    human = difference(found["none"], found["word_aligned"], human_misalignment)
    tflop = {
        label: sum(one.cost["train_tflop"] + one.cost["ears_tflop"] for one in several) / len(several)
        for label, several in found.items()
    }
    told = ", ".join(f"{label} {value:.1f}" for label, value in tflop.items())
    sentence = (
        f"M is lower by {effect} nats with a word-aligned Stage 0 than without one, by {by_ctc} with CTC; on people, "
        f"word-aligned, by {human}. TFLOP an arm: {told}."
    )
    return judged(
        effect, "nats per token", sentence, {"ctc": by_ctc.as_json(), "human": human.as_json(), "tflop": tflop}
    )


CLAIM = Claim(
    "stage_zero",
    "Beyond the paper: at equal compute and speech, an adapter that is taught words first is aligned better than one "
    "that is distilled from the start.",
    "M(no Stage 0) − M(word_aligned)",
    SEEDS,
    arms,
    judge,
)
