"""What a run will write to the disk, by part, before anything is loaded: an upper estimate from the recipe alone."""

from __future__ import annotations

from pathlib import Path

from salad.disk import (
    BYTES_PER_UTTERANCE,
    FLAC_BYTES_PER_S,
    Forecast,
    disk_use,
    existing,
    feature_bytes,
    free_bytes,
)
from salad.errors import RecipeError
from salad.model.sizes import encoder_sizes, on_meta, student_config
from salad.plan.live import bytes_of
from salad.recipe import EncoderSizes, Recipe

ARMS = 2  # of Stage II
KEPT_MODELS = 4  # untrained, Stage I, both arms
WARM_STARTS = 3
FEATURE_BYTES = 2  # float16
BYTES_PER_TEXT = 700  # a line of JSON, its index, its embedding


def run_bytes(recipe: Recipe) -> dict[str, float]:
    """Bytes by part. Natural speech's own audio is not in it: where it is prepared already, none is copied.

    Raises:
        RecipeError: the sizes of the LLM or the encoder are neither in the recipe nor at hand.
    """
    student, encoder = on_meta(student_config(recipe.model)), encoder_sizes(recipe.model)
    trained = bytes_of(p for p in student.parameters() if p.requires_grad)
    kept = recipe.engine.keep_checkpoints
    spoken_s, last = synthetic_s(recipe), int(recipe.stage_three is not None)
    found = {
        "checkpoints": 3 * trained * (kept + 1 + (ARMS + last) * kept),  # weights, two moments; one before the decay
        "models": trained * (KEPT_MODELS + WARM_STARTS + last),
        "synthetic speech": spoken_s * FLAC_BYTES_PER_S + _utterances(recipe, spoken_s) * BYTES_PER_UTTERANCE,
        "features": _features((recipe.expected.natural_h or 0.0) * 3600 + spoken_s, recipe, encoder),
        "texts": float(BYTES_PER_TEXT * (recipe.data.mix_texts + recipe.data.pool_texts)),
    }
    if recipe.engine.teacher == "cached":
        steps = ((s.steps * s.batch_sequences) for s in (recipe.stage_one, recipe.stage_two))
        words = max(recipe.expected.text_words, recipe.expected.utterance_s * recipe.expected.words_per_s)
        tokens = sum(steps) * words * recipe.expected.tokens_per_word
        found["teacher's hidden states"] = 2.0 * student.config.get_text_config().hidden_size * tokens
    return found


def synthetic_s(recipe: Recipe) -> float:
    """Seconds of speech that a run synthesizes: both arms of Stage II, the probes, the held-out texts."""
    two, expected = recipe.stage_two, recipe.expected
    if two.budget_frac is not None:
        budget_s = two.budget_frac * (expected.natural_h or 0.0) * 3600
    elif two.budget_tokens is not None:
        budget_s = two.budget_tokens / expected.tokens_per_word / expected.words_per_s
    else:
        budget_s = 3600.0 * (two.budget_h or 0.0)
    aloud = two.num_clusters * two.probe_texts + recipe.data.heldout_texts
    return ARMS * budget_s + aloud * expected.text_words / expected.words_per_s


def run_forecast(recipe: Recipe, folder: Path) -> Forecast | None:
    """What is still to be written of a run in `folder`; None before the models are fetched whose sizes it takes."""
    there, _ = disk_use([folder]) if folder.is_dir() else (0, 0)
    try:
        needed = sum(run_bytes(recipe).values())
    except RecipeError:  # the first step that needs the model says what is wrong with its name
        return None
    return Forecast(f"the run {recipe.name}", max(0.0, needed - there), free_bytes(folder), existing(folder))


def _utterances(recipe: Recipe, seconds: float) -> int:
    return round(seconds * recipe.expected.words_per_s / recipe.expected.text_words)


def _features(seconds: float, recipe: Recipe, encoder: EncoderSizes) -> float:
    utterances = round(seconds / recipe.expected.utterance_s)
    return feature_bytes(seconds, encoder.hz, FEATURE_BYTES * encoder.dim, utterances)
