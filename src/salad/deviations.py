"""Where a run departs from the paper, as sentences: said when it starts, in its results and in its models' cards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from salad.errors import AssetError, CheckpointError
from salad.model.saved import before_decay_place, model_folder
from salad.natural_speech import corpora
from salad.recipe import AdapterSettings, Recipe, StageSettings, StageTwoSettings

PAPER_EMBEDDER = "BAAI/bge-large-en-v1.5"
PAPER_VOICE = "kokoro-af_heart"
PAPER_LLM = ("Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-7B")
TEXT_FRAC = 1 / 3
SPANS = {"text": (10, 30), "speech": (5, 15)}  # words
WARM_STARTS = {"word_aligned": "a word-aligned", "ctc": "a CTC"}
DIVERGENCES = {"reverse_kl": "the reverse KL", "jsd": "the generalized Jensen-Shannon divergence"}


def deviations(recipe: Recipe) -> list[str]:
    """Where a run of this recipe departs from the paper, as sentences."""
    return [*_model(recipe), *_objective(recipe), *_data(recipe), *_stage_three(recipe)]


def _model(recipe: Recipe) -> list[str]:
    model, found = recipe.model, []
    if model.llm not in PAPER_LLM:
        origin = " (an Instruct model, from 4-bit weights)" if model.llm == "smollm2-135m-instruct" else ""
        found.append(f"The LLM is {model.llm}{origin}; the paper's are Qwen2.5-3B and -7B.")
    if model.train_llm != "full":
        how = f"with LoRA of rank {model.lora.rank}" if model.train_llm == "lora" else "not at all"
        found.append(f"The LLM is trained {how}; the paper trains it fully.")
    if model.encoder != "kyutai/mimi":
        found.append(f"The frozen encoder is {model.encoder}; the paper's is Mimi (causal, 12.5 Hz).")
    if model.adapter.kind != "paper":
        found.append(f"The adapter is {_described(model.adapter)}; the paper's has 12 Transformer layers.")
    if recipe.stage_one.start is not None:
        found.append(_taken_over(recipe.stage_one.start))
    return [*found, *_warm_starts(recipe)]


def _warm_starts(recipe: Recipe) -> list[str]:
    starts = {"Stage II": recipe.stage_two.warm_start}
    if recipe.stage_one.start is None:
        starts = {"Stage I": recipe.stage_one.warm_start, **starts}
    kinds = {name: WARM_STARTS[start.kind] for name, start in starts.items() if start.steps}
    if len(kinds) == 2 and len(set(kinds.values())) == 1:
        kinds = {"each stage": kinds["Stage I"]}
    return [f"The adapter gets {how} warm start before {when}; the paper has none." for when, how in kinds.items()]


def _taken_over(name: str) -> str:
    told = f"Stage I is not trained here: it is {name}, taken over"
    with suppress(CheckpointError, AssetError):  # it may be gone by the time its results are written
        if before_decay_place(model_folder(Path(name))) is not None:
            return f"{told}; Stage II goes on from its weights before the decay."
        return f"{told}; Stage II goes on from its final weights, after the decay: none from before it are there."
    return f"{told}."


def _described(adapter: AdapterSettings) -> str:
    if adapter.kind == "mlp":
        return "two layers over neighbouring frames"
    stack = f"{adapter.num_layers} Transformer layers, {adapter.hidden_size} wide"
    if adapter.kind == "stack":
        return f"a stack of {stack}"
    return f"strided convolutions and {stack}" if adapter.num_layers else "strided convolutions"


def _objective(recipe: Recipe) -> list[str]:
    stages: dict[str, StageSettings] = {"Stage I": recipe.stage_one, "Stage II": recipe.stage_two}
    if recipe.stage_one.start is not None:
        del stages["Stage I"]
    found = [*_of_both(stages, _divergence), *_of_both(stages, _alpha)]
    if "Stage I" in stages and abs(recipe.stage_one.text_frac - TEXT_FRAC) > 1e-3:
        found.append(f"Of Stage I's sequences {recipe.stage_one.text_frac:.0%} are text; the paper's share is a third.")
    found += _of_both(stages, _curriculum)
    if recipe.sequence.policy == "interleaved":
        own = {name: getattr(recipe.sequence, f"{name}_words") for name in SPANS}
        found += [
            f"Spans of {name} are of {low} to {high} words; the paper's of {SPANS[name][0]} to {SPANS[name][1]}."
            for name, (low, high) in own.items()
            if (low, high) != SPANS[name]
        ]
    else:
        what = f": the first {recipe.sequence.prefix_frac:.0%} of the words are spoken, the loss is on the rest"
        tail = what if recipe.sequence.policy == "speech_prefix" else ""
        found.append(f"Sequences follow the policy {recipe.sequence.policy}{tail}; the paper interleaves spans.")
    return found


def _divergence(stage: StageSettings) -> str:
    if stage.divergence == "forward_kl":
        return ""
    weight = f" (teacher's weight {stage.jsd_beta:g})" if stage.divergence == "jsd" else ""
    return f"trains {DIVERGENCES[stage.divergence]} from the teacher{weight}; the paper trains the forward KL."


def _alpha(stage: StageSettings) -> str:
    if stage.alpha == 1:
        return ""
    return f"gives distillation the weight {stage.alpha:g} and NLL the rest; SALAD's is 1."


def _curriculum(stage: StageSettings) -> str:
    return "" if stage.curriculum is None else "begins with shorter speech, which grows; the paper has no curriculum."


def _of_both(stages: dict[str, StageSettings], told: Callable[[StageSettings], str]) -> list[str]:
    """A sentence for each stage that departs, one for both where they depart alike."""
    said = {name: sentence for name, stage in stages.items() if (sentence := told(stage))}
    if len(set(said.values())) == 1 and len(said) == len(stages):
        return [f"Each stage {next(iter(said.values()))}"]
    return [f"{name} {sentence}" for name, sentence in said.items()]


def _data(recipe: Recipe) -> list[str]:
    two, found = recipe.stage_two, []
    if corpora(recipe) == ("debian-prompts",):
        found.append("Natural speech is 24 minutes of telephone prompts by one speaker; the paper has 141,612 hours.")
    if recipe.data.text == "wordnet":
        found.append("Broad text is WordNet's definitions; the paper's is FineWeb-Edu.")
    if recipe.embedder != PAPER_EMBEDDER:
        found.append(f"Texts are embedded by {recipe.embedder}; the paper's embedder is {PAPER_EMBEDDER}.")
    if two.num_clusters != 128:
        found.append(f"The broad text has {two.num_clusters} clusters; the paper's has 128.")
    return [*found, *_selection(two), *_synthesis(recipe)]


def _selection(two: StageTwoSettings) -> list[str]:
    found = []
    if two.score != "misalignment":
        found.append(
            f"Clusters are weighed by {two.score}; the paper weighs them by student on speech against teacher."
        )
    if two.gamma != 5:
        found.append(f"γ is {two.gamma:g}; the paper's is 5.")
    if two.coverage_frac or two.max_boost is not None:
        found.append("What is drawn is kept from a few clusters by coverage_frac or max_boost; the paper has neither.")
    if two.budget_frac is None:
        own = f"{two.budget_h:g} h" if two.budget_h is not None else f"{two.budget_tokens} tokens"
        found.append(f"The synthetic speech is {own}; the paper's is 1% of the natural speech.")
    elif two.budget_frac != 0.01:
        found.append(f"The synthetic speech is {100 * two.budget_frac:.3g}% of the natural speech; the paper's is 1%.")
    return found


def _synthesis(recipe: Recipe) -> list[str]:
    found, augment = [], recipe.augment
    if recipe.voice_names != (PAPER_VOICE,):
        many = len(recipe.voice_names) > 1
        own = f"voices are {', '.join(recipe.voice_names)}" if many else f"voice is {recipe.voice_names[0]}"
        found.append(f"The {own}; the paper's is Kokoro's af_heart.")
    if any((augment.noise_frac, augment.reverb_frac, augment.codec_frac, augment.telephone_frac)):
        found.append("Synthetic speech is augmented; the paper does not say that its is.")
    return found


def _stage_three(recipe: Recipe) -> list[str]:
    three = recipe.stage_three
    if three is None:
        return []
    if three.on_policy_frac == 0:
        return ["There is a Stage III, off-policy: as many steps more; the paper has none."]
    by = "" if three.divergence == "forward_kl" else f", by {DIVERGENCES[three.divergence]}"
    return [
        f"There is a Stage III: of its speech sequences {three.on_policy_frac:.0%} are continued by the student itself "
        f"and scored by the text LLM{by}; the paper has none."
    ]
