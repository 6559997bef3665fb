"""Broad-domain speech helps with distillation, and not with NLL."""

from __future__ import annotations

from experiments.arms import SEEDS, stage_one_on
from experiments.claim import Claim, Found, Verdict, judged
from experiments.effects import contrast, difference, forgetting, misalignment
from experiments.lab import Arm


def arms(seed: int) -> dict[str, Arm]:
    """Narrow and broad speech of the same amount, with NLL and with distillation."""
    return {
        f"{speech}, {name}": stage_one_on(seed, speech, alpha)
        for speech in ("narrow", "broad")
        for name, alpha in (("NLL", 0.0), ("distillation", 1.0))
    }


def judge(found: Found) -> Verdict:
    """What broad speech gains with distillation, less what it gains with NLL."""
    gains = {name: difference(found[f"narrow, {name}"], found[f"broad, {name}"], misalignment) for name in KINDS}
    effect = contrast([(weight, found[label]) for label, weight in WEIGHTS.items()], misalignment)
    forgot = difference(found["broad, NLL"], found["broad, distillation"], forgetting)
    sentence = (
        f"Broad instead of narrow speech lowers M by {gains['distillation']} nats with distillation and by "
        f"{gains['NLL']} with NLL, which on broad speech has F higher by {forgot} nats than distillation."
    )
    more = {name: gain.as_json() for name, gain in gains.items()} | {"forgetting_by_nll": forgot.as_json()}
    return judged(effect, "nats per token", sentence, more)


KINDS = ("distillation", "NLL")
WEIGHTS = {"narrow, distillation": 1.0, "broad, distillation": -1.0, "narrow, NLL": -1.0, "broad, NLL": 1.0}
CLAIM = Claim(
    "broad_domain",
    "Broad-domain speech lowers M when the model is trained by distillation, and does not when it is trained by NLL.",
    "[M(narrow) − M(broad)] with distillation less the same with NLL",
    SEEDS,
    arms,
    judge,
)
