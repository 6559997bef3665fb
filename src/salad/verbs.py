"""What the verbs that take folders do, over the same functions as the steps of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from salad.distill.teacher import teacher_for
from salad.errors import DataError
from salad.interleave.builder import SequenceBuilder
from salad.interleave.utterances import SpeechCorpus, feature_lookup
from salad.measure.misalignment import forgetting_by_item, hearing, hears, misalignment_by_item, per_token
from salad.model.llm import load_tokenizer
from salad.model.saved import model_folder
from salad.model.speech_lm import SpeechLM
from salad.recipe import parse_recipe
from salad.speech.prepared import read_info
from salad.student import recipe_of

BOOTSTRAP = 2000


def measure_folder(
    model: Path, speech: Path, policy: str | None, limit: int | None, seed: int, threads: int
) -> dict[str, Any]:
    """F, M and hearing of a model on a prepared, aligned and encoded folder, with what M may be compared within.

    Raises:
        DataError: no utterance the policy can use.
    """
    torch.set_num_threads(threads)
    model = model_folder(model)
    recipe = recipe_of(model)
    settings = recipe.sequence
    if policy is not None:
        tree = recipe.model_dump(mode="json")
        tree["sequence"]["policy"] = policy
        settings = parse_recipe(tree, f"--policy {policy}").sequence
    student = SpeechLM.from_pretrained(model, device_map="auto")
    teacher = teacher_for(student)
    builder = SequenceBuilder.of(student, load_tokenizer(student.config.llm), settings, seed)
    usable, rejected = builder.usable(SpeechCorpus(speech, student.config.encoder))
    usable = usable[:limit]
    if len(usable) < 2:
        raise DataError(f"{speech}: {len(usable)} utterances can be measured under {settings.policy}; 2 are needed.")
    sequences = [builder.mixed(utterance) for utterance in usable]
    texts = [builder.text(utterance.id, utterance.text) for utterance in usable]
    batch = recipe.measure.batch_positions
    rows = misalignment_by_item(student, sequences, feature_lookup(usable), batch, seed)
    heard = hearing(rows, seed, "verb", BOOTSTRAP)
    forgotten = forgetting_by_item(teacher, student, texts, batch)
    return {
        "model": str(model),
        "speech": str(speech),
        "corpus": read_info(speech).get("corpus", "unknown"),
        "policy": settings.policy,
        "seed": seed,
        "misalignment_nats": per_token(rows.heard, seed, "verb", BOOTSTRAP).as_json(),
        "misalignment_swapped_nats": per_token(rows.swapped, seed, "verb", BOOTSTRAP).as_json(),
        "hearing_nats": heard.as_json(),
        "forgetting_nats": per_token(forgotten, seed, "verb", BOOTSTRAP).as_json(),
        "hears": hears(heard),
        "not_measured": len(rejected),
    }
