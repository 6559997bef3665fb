"""Active selection (γ = 5) beats uniform selection (γ = 0) at the same budget of speech and the same steps."""

from __future__ import annotations

from experiments.arms import SEEDS, stage_two_by
from experiments.claim import Claim, Found, Verdict, judged
from experiments.effects import accuracy, difference, misalignment
from experiments.lab import Arm


def arms(seed: int) -> dict[str, Arm]:
    """The two selections, from the same Stage I."""
    return {"active, gamma 5": stage_two_by(seed, 5.0), "uniform, gamma 0": stage_two_by(seed, 0.0)}


def judge(found: Found) -> Verdict:
    """M of uniform less M of active."""
    both = found["uniform, gamma 0"], found["active, gamma 5"]
    effect = difference(*both, misalignment)
    task = difference(found["active, gamma 5"], found["uniform, gamma 0"], accuracy("speech"))
    drawn = [one.made["selection"] for one in found["active, gamma 5"]]
    sure = ["unknown" if one["reliability"] is None else f"{one['reliability']:.2f}" for one in drawn]
    spread = ", ".join(f"{one['effective_clusters']:.0f}" for one in drawn)
    sentence = (
        f"M is lower by {effect} nats with active selection, the heard task better by {task} (share of items). The "
        f"clusters' scores that it went by have a reliability of {', '.join(sure)} (by seed); its texts spread over "
        f"{spread} clusters (effective number)."
    )
    return judged(effect, "nats per token", sentence, {"task_speech": task.as_json(), "selection": drawn})


CLAIM = Claim(
    "active_selection",
    "Active selection by misalignment (γ = 5) beats uniform selection (γ = 0) at the same budget and steps.",
    "M(γ = 0) − M(γ = 5)",
    SEEDS,
    arms,
    judge,
)
