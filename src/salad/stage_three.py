"""Stage III on one page, and beyond the paper: on-policy distillation from text to speech.

In Stages I and II the student predicts words that somebody else wrote. Here it goes on from what it hears in its own
words; the text LLM reads the transcript in place of the speech, and then the same words; and at each of them the
student learns to predict what the text LLM predicts. So it is corrected where its own mistakes lead it (on-policy
distillation: Agarwal et al., 2024, "GKD"; Gu et al., 2024, "MiniLLM"). With y drawn from the student after the spoken
context c, whose text is w,

    L = Σ_i D( Q(· | w, y<i) ‖ P(· | c, y<i) )      no gradient through the drawing of y

over the full vocabulary, in the divergence that the recipe names: forward_kl as in Stages I and II, or reverse_kl.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from salad.card.bill import Bill, data_bill, read_bill, stage_bill
from salad.card.page import write_card
from salad.distill.schedule import warmup_stable_decay
from salad.errors import RecipeError
from salad.interleave.builder import SequenceBuilder
from salad.interleave.continuation import OnPolicyStream
from salad.interleave.stream import Stream
from salad.interleave.utterances import Utterance
from salad.model.llm import load_tokenizer
from salad.model.speech_lm import SpeechLM
from salad.ranks import ALONE, Ranks
from salad.recipe import Recipe, WarmStartSettings
from salad.rollouts import Rollouts
from salad.run import Progress
from salad.speech.prepared import Rejected
from salad.stage_one import by_size, usable_speech
from salad.student import save_model
from salad.texts.text import Text
from salad.training import distill


def stage_three(
    recipe: Recipe,
    before: Path,
    natural: Sequence[Sequence[Utterance]],
    selected: Sequence[Utterance],
    texts: Sequence[Text],
    held_out: Sequence[Utterance],
    out: Path,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> list[Rejected]:
    """Go on from the finished model of the stage in `before`, with an optimizer of its own; write `out`/model.

    Speech is natural and selected in equal parts, or natural alone where `selected` is empty. Returns the selected
    utterances that no sequence could be made of. On all ranks.

    Raises:
        RecipeError: the recipe has no Stage III.
    """
    settings = recipe.stage_three
    if settings is None:
        raise RecipeError("the recipe has no Stage III: stage_three is null; give it keys, such as steps.")
    torch.set_num_threads(recipe.threads)
    student = SpeechLM.from_pretrained(before / "model")
    tokenizer = load_tokenizer(recipe.model.llm)
    builder = SequenceBuilder.of(student, tokenizer, recipe.sequence, recipe.seed)
    usable_natural, _ = usable_speech(builder, natural)
    usable, rejected = builder.usable(selected)
    spoken = 1 - settings.text_frac
    of_selected = spoken / 2 if len(usable) else 0.0
    weights = [*by_size(usable_natural, spoken - of_selected), of_selected, settings.text_frac]
    sources = [*usable_natural, usable]
    stream = Stream.of(builder, sources, texts, weights, settings, student.config.speech_token_id, "stage_three")
    rollouts: Rollouts | None = None
    if settings.on_policy_frac > 0:
        own = OnPolicyStream.over(stream, settings.on_policy_frac, settings.continuation_tokens)
        workers = recipe.loader_workers
        rollouts = Rollouts(student, tokenizer, own, settings, out / "rollouts", ranks, workers, progress)
        # What the student will say is not known before, so its teacher can't have read it.
        recipe_here = _with_layers(recipe)
    else:
        recipe_here = recipe
    taught = read_bill(before / "model")["training"] if ranks.is_main else []

    def bills(rows: list[dict[str, Any]]) -> list[Bill]:
        if not ranks.is_main:
            return []
        own = stage_bill(out.name, stream, settings, WarmStartSettings(steps=0), rows)
        own["train_flops"] = sum(row["flops"] for row in rows)
        return [*taught, own | {"on_policy": rollouts.summary() if rollouts else None}]

    if ranks.is_main:
        write_card(out / "checkpoints", data_bill(recipe, out.name, bills([])))
    rows = distill(
        "Stage III",
        student,
        stream,
        settings,
        lambda step: warmup_stable_decay(
            step, settings.steps, settings.warmup_steps, 1 - settings.warmup_steps / settings.steps
        ),
        held_out,
        recipe_here,
        out,
        progress,
        ranks,
        batches=rollouts,
    )
    save_model(student, recipe, out.name, out / "model", ranks, bills(rows))
    return rejected


def _with_layers(recipe: Recipe) -> Recipe:
    """The recipe with a teacher that reads any text."""
    if recipe.engine.teacher != "cached":
        return recipe
    return recipe.model_copy(update={"engine": recipe.engine.model_copy(update={"teacher": "auto"})})
