"""What was found on one task, and F and M of it in nats per token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from salad.measure.gap import Arms, Gap
from salad.measure.listening import Listening
from salad.measure.models.written import WrittenCounts
from salad.measure.statistics import Estimate, ratio_of_sums
from salad.measure.task_divergence import Apart
from salad.measure.tasks.task import Task

NATS = {"forgetting": "forgetting_nats", "misalignment": "misalignment_nats", "base_to_speech": "base_nats"}


@dataclass(frozen=True)
class Nats:
    """F, M and the divergence from the reading base LLM to the hearing model, in nats per token of the task's text.

    Attributes:
        forgetting, misalignment, base_to_speech: over all items; the last two of clean speech, all voices.
        by_group: grouping → label → the same three.
        tokens_per_item: matched tokens, a mean over items.
        num_unmatched: tokens after the speech that are cut in another way in one of the views, over all items.
        why_not: what is None, and why.
    """

    forgetting: Estimate | None = None
    misalignment: Estimate | None = None
    base_to_speech: Estimate | None = None
    by_group: dict[str, dict[str, dict[str, Estimate | None]]] = field(default_factory=dict)
    tokens_per_item: float | None = None
    num_unmatched: int | None = None
    why_not: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Condition:
    """Speech accuracy of one voice under one condition, its gap to the topline on the same items, and M.

    `misalignment` and `base_to_speech` are in nats per token, None where the model gives no distributions.
    """

    voice: str
    condition: str
    speech: Estimate
    gap: Estimate
    misalignment: Estimate | None = None
    base_to_speech: Estimate | None = None


@dataclass(frozen=True)
class TaskResult:
    """What was found on one task.

    Attributes:
        listening: the guards' verdict; numbers of a model that does not listen are not about its hearing.
        gap: the split over all, by voice and by category, of clean speech.
        cascade: the base LLM's accuracy on the ASR's transcripts, over voices.
        cascade_gap: topline - cascade.
        nats: F and M.
        conditions: every voice and condition.
        p_value: of topline against speech, exact, over voices.
        resolved: what difference these items would resolve, as a sentence.
        chance: the accuracy of guessing.
        unscorable: arm -> item -> why it has no score.
        written: arm -> how its answers were read, where they were written.
    """

    task: Task
    arms: Arms
    listening: Listening
    gap: Gap
    cascade: Estimate
    cascade_gap: Estimate
    nats: Nats
    conditions: list[Condition]
    p_value: float
    resolved: str
    chance: float
    unscorable: dict[str, dict[str, str]]
    written: dict[str, WrittenCounts] = field(default_factory=dict)

    @property
    def caution(self) -> str | None:
        """Why the gap says little, if it does: the text LLM itself may be guessing."""
        topline = self.gap.whole.topline
        if topline.low > self.chance:
            return None
        return (
            f"the text LLM itself can't be told from guessing here ({topline.value:.1%} [{topline.low:.1%}, "
            f"{topline.high:.1%}], chance {self.chance:.1%}): this task's gap says nothing about hearing."
        )

    def as_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        return {
            "task": self.task.name,
            "task_version": self.task.version,
            "listening": self.listening.as_json(),
            "gap": self.gap.as_json(),
            "cascade": self.cascade.as_json(),
            "cascade_gap": self.cascade_gap.as_json(),
            "nats_per_token": asdict(self.nats),
            "conditions": [asdict(row) for row in self.conditions],
            "p_value": self.p_value,
            "resolved": self.resolved,
            "chance": self.chance,
            "caution": self.caution,
            "unscorable": self.unscorable,
            "written": {arm: asdict(own) for arm, own in self.written.items()},
        }


def per_token(voices: Sequence[Sequence[Apart]], of: str, seed: int, what: str, num_bootstrap: int) -> Estimate | None:
    """Σ nats / Σ tokens over the items that all voices have; an item with all its voices is drawn or not.

    Args:
        voices: rows by voice; F has one list.
        of: a name in `NATS`.
        seed, what, num_bootstrap: of the interval.
    """
    own = [{row.item_id: row for row in rows if getattr(row, NATS[of]) is not None} for rows in voices]
    ids = [name for name in own[0] if all(name in rows for rows in own)] if own else []
    if not ids:
        return None
    totals = [sum(getattr(rows[name], NATS[of]) for rows in own) for name in ids]
    counts = [sum(rows[name].num_tokens for rows in own) for name in ids]
    return ratio_of_sums(totals, counts, seed, f"{what} {of}", num_bootstrap)


def nats_of(
    text: Sequence[Apart],
    clean: Sequence[Sequence[Apart]],
    groupings: Mapping[str, Mapping[str, str]],
    seed: int,
    what: str,
    num_bootstrap: int,
    why_not: dict[str, str],
) -> Nats:
    """All of a task's numbers from its rows: F's, and those of clean speech by voice."""

    def three(keep: Mapping[str, str] | None = None, label: str = "") -> dict[str, Estimate | None]:
        def own(rows: Sequence[Apart]) -> list[Apart]:
            return [row for row in rows if keep is None or (keep.get(row.item_id) or "(none)") == label]

        where = f"{what} {label}".strip()
        read, heard = [own(text)], [own(rows) for rows in clean]
        return {
            name: per_token(read if name == "forgetting" else heard, name, seed, where, num_bootstrap) for name in NATS
        }

    rows = [row for voice in clean for row in voice] or list(text)
    by_group = {
        grouping: {
            label: three(labels, label) for label in sorted({labels.get(row.item_id) or "(none)" for row in rows})
        }
        for grouping, labels in groupings.items()
    }
    per_item = sum(row.num_tokens for row in rows) / len(rows) if rows else None
    unmatched = sum(row.num_unmatched for row in (clean[0] if clean else text)) if rows else None
    return Nats(**three(), by_group=by_group, tokens_per_item=per_item, num_unmatched=unmatched, why_not=why_not)
