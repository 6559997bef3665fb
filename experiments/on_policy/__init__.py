"""Ours: after Stage II, steps on the student's own words (Stage III) align better than as many on words of others.

The control has the same steps on the same items in the same order; a second one has the same compute, what writing the
student's words takes included.
"""

from __future__ import annotations

from experiments.arms import SEEDS, stage_three_by, stage_two_by
from experiments.claim import Claim, Found, Verdict, judged
from experiments.effects import accuracy, difference, forgetting, human_misalignment, misalignment
from experiments.lab import Arm

STEPS = 24
SAME_COMPUTE = 43  # off-policy steps: on the lab's speech an on-policy one takes 1.81 times the FLOPs


def arms(seed: int) -> dict[str, Arm]:
    """Stage II, and Stage III behind it: on-policy by both divergences, and off-policy."""
    off = "on_policy_frac=0"
    return {
        "Stage II": stage_two_by(seed),
        "on-policy": stage_three_by(seed, "on-policy", STEPS),
        "on-policy, reverse KL": stage_three_by(seed, "on-policy-reverse", STEPS, "divergence=reverse_kl"),
        "off-policy": stage_three_by(seed, "off-policy", STEPS, off),
        "off-policy, same compute": stage_three_by(seed, "off-policy-long", SAME_COMPUTE, off),
    }


def judge(found: Found) -> Verdict:
    """M off-policy less M on-policy at equal steps; at equal compute, by the reverse KL and on the task beside it."""
    on, off = found["on-policy"], found["off-policy"]
    effect = difference(off, on, misalignment)
    more = {
        "same_compute": difference(found["off-policy, same compute"], on, misalignment),
        "reverse_kl": difference(off, found["on-policy, reverse KL"], misalignment),
        "against_stage_two": difference(found["Stage II"], on, misalignment),
        "human": difference(off, on, human_misalignment),
        "forgetting": difference(off, on, forgetting),
        "task_speech": difference(on, off, accuracy("speech")),
    }
    tflop = {
        label: sum(one.cost["train_tflop"] + one.cost.get("rollout_tflop", 0.0) for one in several) / len(several)
        for label, several in found.items()
        if label != "Stage II"
    }
    told = ", ".join(f"{label} {value:.1f}" for label, value in tflop.items())
    sentence = (
        f"M is lower by {effect} nats after steps on the student's own words than after as many on words of others, by "
        f"{more['same_compute']} at equal compute, by {more['reverse_kl']} with the reverse KL, and by "
        f"{more['against_stage_two']} than after Stage II. TFLOP of Stage III, writing counted: {told}."
    )
    return judged(
        effect, "nats per token", sentence, {name: one.as_json() for name, one in more.items()} | {"tflop": tflop}
    )


CLAIM = Claim(
    "on_policy",
    "Beyond the paper: distillation on the student's own continuations of speech (Stage III) aligns better than as "
    "many steps on words of others.",
    "M(off-policy) − M(on-policy)",
    SEEDS,
    arms,
    judge,
)
