"""Looking on while a model is trained: forgetting, misalignment and hearing on a few held-out utterances.

The numbers are those of measure/misalignment.py, on fewer items, always the same. Looking changes nothing: the student
is put back into the mode it was in, and no global random numbers are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from torch.distributed.fsdp import FSDPModule

from salad.distill.teacher import Teacher
from salad.errors import AlignmentError, DataError
from salad.interleave.builder import SequenceBuilder
from salad.interleave.sequence import MixedSequence
from salad.interleave.utterances import Utterance, feature_lookup
from salad.measure.misalignment import forgetting_by_item, hearing, hears, misalignment_by_item, per_token
from salad.measure.statistics import Estimate
from salad.model.speech_lm import SpeechLM
from salad.randomness import generator
from salad.recipe import Recipe


@dataclass(frozen=True)
class WatchReport:
    """What was seen after a step; nats per text position.

    Forgetting is None where there was no teacher to ask; `alarm` is the sentence of `alarm`, where there was one.
    """

    step: int
    misalignment_nats: Estimate
    forgetting_nats: Estimate | None
    hearing_nats: Estimate
    alarm: str | None = None

    @property
    def hears(self) -> bool:
        """Whether swapped audio is worse than true audio, with 95 % confidence."""
        return hears(self.hearing_nats)

    def as_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        forgetting = self.forgetting_nats
        return {
            "step": self.step,
            "misalignment_nats": self.misalignment_nats.as_json(),
            "forgetting_nats": None if forgetting is None else forgetting.as_json(),
            "hearing_nats": self.hearing_nats.as_json(),
            "alarm": self.alarm,
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """Back from `as_json`."""
        forgetting = tree["forgetting_nats"]
        return cls(
            tree["step"],
            Estimate(**tree["misalignment_nats"]),
            None if forgetting is None else Estimate(**forgetting),
            Estimate(**tree["hearing_nats"]),
            tree["alarm"],
        )


class Watch:
    """`engine.watch_items` utterances, drawn once, and how they are looked at.

    Several ranks look at the same ones, all together: a sharded model can be read in no other way.
    """

    def __init__(self, builder: SequenceBuilder, held_out: Sequence[Utterance], recipe: Recipe) -> None:
        """Draws the utterances by the recipe's seed, among those that the policy makes a sequence with speech of.

        Raises:
            DataError: fewer than two are fit.
        """
        self.batch_positions = recipe.measure.batch_positions
        self.num_bootstrap = recipe.measure.num_bootstrap
        self.seed = recipe.seed
        chosen = _chosen(builder, held_out, recipe.engine.watch_items, recipe.seed)
        self.mixed = [sequence for _, sequence in chosen]
        self.texts = [builder.text(utterance.id, utterance.text) for utterance, _ in chosen]
        self.features = feature_lookup([utterance for utterance, _ in chosen])

    def __call__(self, step: int, student: SpeechLM, teacher: Teacher | None = None) -> WatchReport:
        """M and hearing of the student as it is after `step`; F as well if the text LLM is at hand."""

        def nats(rows: Sequence[Any], purpose: str) -> Estimate:
            return per_token(rows, self.seed, purpose, self.num_bootstrap)

        with _evaluating(student):
            heard = misalignment_by_item(student, self.mixed, self.features, self.batch_positions, self.seed)
            forgetting = None
            if teacher is not None:
                rows = forgetting_by_item(teacher, student, self.texts, self.batch_positions)
                forgetting = nats(rows, "watched forgetting")
        return WatchReport(
            step,
            nats(heard.heard, "watched"),
            forgetting,
            hearing(heard, self.seed, "watched", self.num_bootstrap),
        )


def alarm(seen: Sequence[WatchReport], last: bool) -> str | None:
    """A sentence if the newest of `seen` tells that the student is deaf when it should not be; `last`: no step follows.

    Not hearing yet is no alarm: early in training every model is deaf. Neither is one look alone: on a few utterances
    the interval is wide, so that a loss of hearing is told at the second look in a row, or at the last.
    """
    now = seen[-1]
    if now.hears:
        return None
    value = now.hearing_nats
    found = (
        f"after step {now.step}, swapped audio can't be shown to be worse than true audio: hearing {value.value:.3f} "
        f"[{value.low:.3f}, {value.high:.3f}] nats per token on {value.n} utterances."
    )
    heard = [report.step for report in seen if report.hears]
    if heard and (last or not seen[-2].hears):
        return f"{found} The model heard after step {heard[-1]} and does not any more."
    return f"{found} The model has not learnt to hear." if last else None


def _chosen(
    builder: SequenceBuilder, held_out: Sequence[Utterance], wanted: int, seed: int
) -> list[tuple[Utterance, MixedSequence]]:
    found: list[tuple[Utterance, MixedSequence]] = []
    for index in generator(seed, "watch").permutation(len(held_out)):
        utterance = held_out[int(index)]
        try:
            sequence = builder.mixed(utterance)
        except (DataError, AlignmentError):  # the policy can't use it; the steps that measure list it
            continue
        if sequence.speech and len(found) < wanted:
            found.append((utterance, sequence))
        if len(found) == wanted:
            break
    if len(found) < 2:
        raise DataError(
            f"engine.watch_every: {len(found)} of {len(held_out)} held-out utterances are fit to be watched, and "
            "swapping needs 2; raise data.heldout_human, or set engine.watch_every=0."
        )
    return found


@contextmanager
def _evaluating(student: SpeechLM) -> Iterator[None]:
    """The student in evaluation mode; afterwards every part in the mode it was in, and in shards if it is sharded."""
    training = [module for module in student.modules() if module.training]
    student.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for module in student.modules():
            if isinstance(module, FSDPModule):  # reading gathered it
                module.reshard()
