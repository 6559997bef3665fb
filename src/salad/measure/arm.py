"""All measurements of one arm, as per-item rows: estimates and paired comparisons are computed from them later.

An arm is a model at one point of its making: untrained, after Stage I, after Stage II, after the uniform control.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from salad.distill.teacher import Teacher
from salad.interleave.builder import SequenceBuilder
from salad.interleave.utterances import Utterance, feature_lookup
from salad.measure.divergence_by_item import ItemDivergence
from salad.measure.misalignment import (
    HeardAndSwapped,
    forgetting_by_item,
    hearing,
    hears,
    misalignment_by_item,
    per_token,
)
from salad.measure.scoring import Prompt, scores_of_all
from salad.measure.statistics import Estimate, mean, ratio_of_sums
from salad.measure.tasks.definition import DefinitionItem, choice_ids, speech_prompt, text_prompt
from salad.model.speech_lm import SpeechLM
from salad.recipe import MeasureSettings


@dataclass(frozen=True)
class HeldOut:
    """What nothing has trained on: spoken broad texts, human speech, and the task's items (spoken among the broad)."""

    broad: Sequence[Utterance]
    human: Sequence[Utterance]
    items: Sequence[DefinitionItem]


@dataclass(frozen=True)
class ArmRows:
    """Per-item results of an arm. Task rows are 1 for right and 0 for wrong, in the items' order."""

    forgetting: list[ItemDivergence]
    broad: HeardAndSwapped
    human: HeardAndSwapped
    task_text: list[int]
    task_speech: list[int]

    def as_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> ArmRows:
        """Back from `as_json`."""

        def rows(values: Sequence[Mapping[str, Any]]) -> list[ItemDivergence]:
            return [ItemDivergence(**value) for value in values]

        def pair(value: Mapping[str, Any]) -> HeardAndSwapped:
            return HeardAndSwapped(rows(value["heard"]), rows(value["swapped"]))

        return cls(
            rows(tree["forgetting"]),
            pair(tree["broad"]),
            pair(tree["human"]),
            list(tree["task_text"]),
            list(tree["task_speech"]),
        )


def measure_arm(
    student: SpeechLM,
    teacher: Teacher,
    builder: SequenceBuilder,
    held_out: HeldOut,
    settings: MeasureSettings,
    seed: int,
    on_progress: Callable[[int, int, str], None] = lambda *_: None,
) -> ArmRows:
    """Forgetting on the broad texts, misalignment and hearing on broad and human speech, the task in both views."""
    features = feature_lookup(held_out.broad, held_out.human)
    texts = [builder.text(utterance.id, utterance.text) for utterance in held_out.broad]
    on_progress(0, 5, "forgetting")
    forgetting = forgetting_by_item(teacher, student, texts, settings.batch_positions)
    pairs = []
    for done, (name, group) in enumerate((("broad", held_out.broad), ("human", held_out.human)), start=1):
        on_progress(done, 5, f"misalignment on {name} speech")
        sequences = [builder.mixed(utterance) for utterance in group]
        pairs.append(misalignment_by_item(student, sequences, features, settings.batch_positions, seed))
    on_progress(3, 5, "the task, read")
    definitions = [item.definition for item in held_out.items]
    task_text = read_task(student, builder, held_out.items, definitions, settings.batch_documents)
    on_progress(4, 5, "the task, heard")
    prompts = [speech_prompt(np.asarray(features(item.id)), builder.tokenizer, builder.mark) for item in held_out.items]
    task_speech = answer_task(student, builder, held_out.items, prompts, settings.batch_documents)
    on_progress(5, 5, "done")
    return ArmRows(forgetting, pairs[0], pairs[1], task_text, task_speech)


def read_task(
    model: SpeechLM,
    builder: SequenceBuilder,
    items: Sequence[DefinitionItem],
    definitions: Sequence[str],
    batch_documents: int,
) -> list[int]:
    """1 or 0 for each item whose definition, or transcript of it, is read as text."""
    prompts = [text_prompt(definition, builder.tokenizer, builder.mark) for definition in definitions]
    return answer_task(model, builder, items, prompts, batch_documents)


def answer_task(
    model: SpeechLM,
    builder: SequenceBuilder,
    items: Sequence[DefinitionItem],
    prompts: Sequence[Prompt],
    batch_documents: int,
) -> list[int]:
    """1 for each item whose right choice scores highest (the first of equals counts), else 0."""
    answers: list[int] = []
    for begin in range(0, len(items), batch_documents):
        own = items[begin : begin + batch_documents]
        choices = [choice_ids(item, builder.tokenizer) for item in own]
        for item, scores in zip(own, scores_of_all(model, prompts[begin : begin + len(own)], choices), strict=True):
            answers.append(int(scores.index(max(scores)) == item.answer))
    return answers


def arm_estimates(rows: ArmRows, seed: int, num_bootstrap: int) -> dict[str, Any]:
    """The numbers of an arm, as docs/results-schema.md has them."""

    def nats(divergences: Sequence[ItemDivergence], purpose: str) -> dict[str, float | int]:
        return per_token(divergences, seed, purpose, num_bootstrap).as_json()

    heard = hearing(rows.broad, seed, "broad", num_bootstrap)
    return {
        "misalignment_nats": nats(rows.broad.heard, "broad"),
        "misalignment_swapped_nats": nats(rows.broad.swapped, "broad"),
        "hearing_nats": heard.as_json(),
        "hears": hears(heard),
        "misalignment_human_nats": nats(rows.human.heard, "human"),
        "hearing_human_nats": hearing(rows.human, seed, "human", num_bootstrap).as_json(),
        "forgetting_nats": nats(rows.forgetting, "forgetting"),
        "task": {
            "text": mean(rows.task_text, seed, "task", num_bootstrap).as_json(),
            "speech": mean(rows.task_speech, seed, "task", num_bootstrap).as_json(),
        },
    }


def compare_misalignment(better: ArmRows, than: ArmRows, seed: int, num_bootstrap: int) -> Estimate:
    """M of `than` minus M of `better` on the broad texts, paired by item; > 0 if `better` is better."""
    pairs = zip(better.broad.heard, than.broad.heard, strict=True)
    differences = [b.kl_nats - a.kl_nats for a, b in pairs]
    return ratio_of_sums(differences, [row.count for row in better.broad.heard], seed, "broad", num_bootstrap)
