"""Stage I on one page: natural speech -> interleave -> distill (paper section 4).

The text LLM reads each utterance; the student, the same LLM with ears, hears part of it; the student learns to predict
what the text LLM predicts. A third of the sequences is text alone, against forgetting.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from salad.card.bill import Bill, data_bill, stage_bill
from salad.card.page import write_card
from salad.distill.schedule import decay_start, warmup_stable_decay
from salad.interleave.builder import SequenceBuilder
from salad.interleave.stream import Stream
from salad.interleave.utterances import Utterance
from salad.model.llm import load_tokenizer
from salad.ranks import ALONE, Ranks
from salad.recipe import Recipe
from salad.run import Progress
from salad.speech.prepared import Rejected
from salad.student import new_student, save_model, warm_start_once
from salad.texts.text import Text
from salad.training import distill

PRE_DECAY = "pre_decay"


def stage_one(
    recipe: Recipe,
    speech: Sequence[Sequence[Utterance]],
    texts: Sequence[Text],
    held_out: Sequence[Utterance],
    encoder_dim: int,
    encoder_hz: float,
    out: Path,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> list[Rejected]:
    """Train Stage I and write `out`/model, `out`/untrained and the checkpoint before the decay. On all ranks.

    The corpora of `speech` are mixed by their numbers of utterances; `held_out` is what the training is watched on.
    Returns the utterances that no sequence could be made of, and those that the warm start could make nothing of.
    """
    settings, steps = recipe.stage_one, recipe.stage_one.steps
    torch.set_num_threads(recipe.threads)
    student = new_student(recipe, encoder_dim, encoder_hz)
    save_model(student, recipe, "untrained", out / "untrained", ranks)
    left_out = warm_start_once(
        student, recipe, speech, settings.warm_start, "stage_one", out / "warm_start", progress, ranks
    )
    builder = SequenceBuilder.of(student, load_tokenizer(recipe.model.llm), recipe.sequence, recipe.seed)
    usable, rejected = usable_speech(builder, speech)
    weights = [*by_size(usable, 1 - settings.text_frac), settings.text_frac]
    stream = Stream.of(builder, usable, texts, weights, settings, student.config.speech_token_id, "stage_one")

    def bills(rows: list[dict[str, Any]]) -> list[Bill]:
        return [stage_bill("stage_one", stream, settings, settings.warm_start, rows)] if ranks.is_main else []

    checkpoints, decay = out / "checkpoints", decay_start(steps, settings.decay_frac)
    if ranks.is_main:
        write_card(checkpoints, data_bill(recipe, "stage_one", bills([])))
    rows = distill(
        "Stage I",
        student,
        stream,
        settings,
        lambda step: warmup_stable_decay(step, steps, settings.warmup_steps, settings.decay_frac),
        held_out,
        recipe,
        out,
        progress,
        ranks,
        keep={decay: PRE_DECAY},
    )
    if ranks.is_main:
        write_card(checkpoints / PRE_DECAY, data_bill(recipe, "stage_one_before_decay", bills(rows[:decay])))
    save_model(student, recipe, "stage_one", out / "model", ranks, bills(rows))
    return [*left_out, *rejected]


def usable_speech(
    builder: SequenceBuilder, speech: Sequence[Sequence[Utterance]]
) -> tuple[list[Sequence[Utterance]], list[Rejected]]:
    """What the policy can use of each corpus, and the rest with reasons."""
    sorted_out = [builder.usable(corpus) for corpus in speech]
    return [kept for kept, _ in sorted_out], [row for _, rejected in sorted_out for row in rejected]


def by_size(speech: Sequence[Sequence[Utterance]], share: float) -> list[float]:
    """`share` of the mix, dealt out to corpora by their numbers of utterances."""
    total = max(1, sum(map(len, speech)))
    return [share * len(corpus) / total for corpus in speech]
