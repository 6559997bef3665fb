"""Text ability is kept, and the text in the mix is what keeps it."""

from __future__ import annotations

from experiments.arms import SEEDS, stage_one_on
from experiments.claim import Claim, Found, Verdict, judged
from experiments.effects import accuracy, difference, forgetting, per_token
from experiments.lab import Arm


def arms(seed: int) -> dict[str, Arm]:
    """With a third of text and without any, by distillation and by NLL."""
    return {
        f"{name}, {told}": stage_one_on(seed, "narrow", alpha, share)
        for name, alpha in (("distillation", 1.0), ("NLL", 0.0))
        for told, share in (("a third text", None), ("no text", 0.0))
    }


def judge(found: Found) -> Verdict:
    """F without text less F with it, under distillation; the same under NLL beside it."""
    effect = difference(found["distillation, no text"], found["distillation, a third text"], forgetting)
    under_nll = difference(found["NLL, no text"], found["NLL, a third text"], forgetting)
    task = difference(found["distillation, a third text"], found["distillation, no text"], accuracy("text"))
    kept = [per_token(one, forgetting) for one in found["distillation, a third text"]]
    sentence = (
        f"With a third of text F is {sum(kept) / len(kept):.4f} nats; without, it is higher by {effect} nats under "
        f"distillation and by {under_nll} under NLL. The read task is better by {task} with text."
    )
    return judged(effect, "nats per token", sentence, {"nll": under_nll.as_json(), "task_text": task.as_json()})


CLAIM = Claim(
    "text_mix",
    "Text ability is kept (F stays near 0), and the text in the mix is what keeps it.",
    "F(no text in the mix) − F(a third)",
    SEEDS,
    arms,
    judge,
    plotted=(forgetting, "F on held-out definitions (nats per token)"),
)
