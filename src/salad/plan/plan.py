"""The plan of a recipe: what it will take on so many GPUs, as data. Nothing is loaded, fetched or computed.

Sizes come from the recipe or from a configuration at hand (model/sizes.py), sequences from the policy drawn on typical
items (plan/expected.py), memory from the real modules on fake tensors (plan/activations.py), FLOPs from model/flops.py.
What is assumed stands in the plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from salad.distill.meter import PEAK_BF16
from salad.distill.schedule import decay_start
from salad.model.flops import StepFlops
from salad.model.sizes import encoder_sizes, on_meta, student_config
from salad.model.speech_lm import SpeechLM
from salad.plan.activations import MicroBatch
from salad.plan.expected import (
    Expected,
    Source,
    full_window,
    selected_words,
    spoken,
    stage_one_sources,
    stage_three_sources,
    stage_two_sources,
    utterance_words,
)
from salad.plan.live import bytes_of
from salad.plan.memory import CONTEXT_GIB, GATHERED, GIB, Memory, Parallel, Way, remedies
from salad.recipe import EncoderSizes, Recipe, StageSettings

GPU = "H100"
PEAK_FLOAT32 = 67e12
"""FLOP/s of an H100 SXM in float32 without tensor cores, as PyTorch multiplies by default (NVIDIA's data sheet)."""
MFU = 0.4
UNLIKE_SHARES = 0.1  # between sequences and tokens: what is said


def plan(
    recipe: Recipe,
    gpus: int = 1,
    gpu_memory_gib: float = 80.0,
    peak_tflops: float | None = None,
    mfu: float = MFU,
) -> dict[str, Any]:
    """Parameters, memory by part, each stage's tokens, hours, FLOPs and time, disk, and what all of it assumes.

    Args:
        recipe: whose `engine` says how it is run; with `engine.device: cpu` the memory is the machine's.
        gpus: how many, one process each.
        gpu_memory_gib: memory of each.
        peak_tflops: dense peak of each in the recipe's dtype; None: an H100's.
        mfu: model FLOP/s as a share of that peak.

    Raises:
        RecipeError: sizes are neither in the recipe nor at hand, or no sequence can be expected of its data.
    """
    config, encoder = student_config(recipe.model), encoder_sizes(recipe.model)
    student = on_meta(config)
    sources = {"stage_one": stage_one_sources(recipe, encoder), "stage_two": stage_two_sources(recipe, encoder)}
    if recipe.stage_one.start is not None:
        del sources["stage_one"]
    if recipe.stage_three is not None:
        sources["stage_three"] = stage_three_sources(recipe, encoder)
    flops = StepFlops.of_student(student, cached_teacher=recipe.engine.teacher == "cached")
    peak = peak_tflops * 1e12 if peak_tflops else _default_peak(recipe)
    stages = {
        name: _stage(recipe, getattr(recipe, name), drawn, _of(drawn, student, flops), encoder, gpus, peak * mfu)
        for name, drawn in sources.items()
    }
    if "stage_one" in stages:
        one = recipe.stage_one
        stages["stage_one"]["decay_starts_at_step"] = decay_start(one.steps, one.decay_frac)
    return {
        "parameters": _parameters(student),
        "memory": _memory(recipe, Memory(recipe, config, student, expected_windows(recipe)), gpus, gpu_memory_gib),
        **stages,
        "budget_h": _budget_h(recipe),
        "disk": _disk(recipe, student, stages, config.get_text_config().hidden_size),
        "assumptions": _assumptions(recipe, gpus, peak, peak_tflops is None, mfu),
        "warnings": _warnings(recipe, stages),
    }


def _of(sources: Sequence[Source], student: SpeechLM, flops: StepFlops) -> StepFlops:
    """What a stage's steps cost: a teacher whose states are cached can't know what the student will write."""
    return StepFlops.of_student(student) if any(draw.own for s in sources for draw in s.draws) else flops


def _budget_h(recipe: Recipe) -> float | None:
    """Hours of speech that Stage II selects; None where they are a share of an amount that is not known."""
    two, expected = recipe.stage_two, recipe.expected
    if two.budget_frac is not None:
        return None if expected.natural_h is None else two.budget_frac * expected.natural_h
    if two.budget_tokens is not None:
        return two.budget_tokens / expected.tokens_per_word / expected.words_per_s / 3600
    return two.budget_h


def _parameters(student: SpeechLM) -> dict[str, Any]:
    """Numbers of parameters by part, trained and frozen; tied ones count once."""
    adapter = student.adapter
    lora = [p for name, p in student.language_model.named_parameters() if "lora_" in name]
    stack = _count(adapter.stack)
    parts = {
        "adapter stack": stack,
        "adapter projections": _count(adapter) - stack,
        "llm": _count(student.language_model) - sum(p.numel() for p in lora),
        "lora": sum(p.numel() for p in lora),
    }
    trained = sum(p.numel() for p in student.parameters() if p.requires_grad)
    return {**parts, "total": sum(parts.values()), "trained": trained, "frozen": sum(parts.values()) - trained}


def _count(module: nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def expected_windows(recipe: Recipe) -> Callable[[int], MicroBatch]:
    """Number of positions -> a full micro-batch of natural speech: what takes most memory."""
    draws = spoken(recipe, encoder_sizes(recipe.model), utterance_words(recipe))
    return lambda positions: full_window(draws, positions)


def _stages(recipe: Recipe) -> dict[str, StageSettings]:
    """The stages that a recipe has."""
    found: dict[str, StageSettings] = {"stage_one": recipe.stage_one, "stage_two": recipe.stage_two}
    return found if recipe.stage_three is None else found | {"stage_three": recipe.stage_three}


def _memory(recipe: Recipe, memory: Memory, gpus: int, gpu_memory_gib: float) -> dict[str, Any]:
    kind = "cpu" if recipe.engine.device == "cpu" else "cuda"
    positions = max(stage.micro_batch_positions for stage in _stages(recipe).values())
    checkpointing = recipe.engine.gradient_checkpointing
    names: Sequence[Parallel] = ("ddp", "fsdp") if gpus > 1 else ("alone",)
    ways = {name: Way(name, gpus, checkpointing, positions, kind) for name in names}
    chosen = ways[recipe.engine.parallel if gpus > 1 else "alone"]
    found = {name: _way(memory, way, gpu_memory_gib) for name, way in ways.items()}
    fits = found[chosen.parallel]["fits"]
    return {
        "gpu_memory_gib": gpu_memory_gib,
        "parallel": chosen.parallel,
        "gradient_checkpointing": checkpointing,
        "micro_batch_positions": positions,
        "total_gib": found[chosen.parallel]["total_gib"],
        "fits": fits,
        "ways": found,
        "remedy": None if fits else _remedy(memory, chosen, recipe.sequence.max_positions, gpu_memory_gib),
    }


def _way(memory: Memory, way: Way, gpu_memory_gib: float) -> dict[str, Any]:
    parts = {name: num_bytes / GIB for name, num_bytes in memory.parts(way).items()}
    total = sum(parts.values())
    return {"parts_gib": parts, "total_gib": total, "fits": total <= gpu_memory_gib}


def _remedy(memory: Memory, way: Way, least_positions: int, gpu_memory_gib: float) -> dict[str, Any] | None:
    """The first way of doing the same that fits; None if none does."""
    for other in remedies(way, least_positions):
        total = memory.total(other) / GIB
        if other != way and total <= gpu_memory_gib:
            return {"settings": other.changes(way, tuple(_stages(memory.recipe))), "total_gib": total}
    return None


def _stage(
    recipe: Recipe,
    settings: StageSettings,
    sources: list[Source],
    flops: StepFlops,
    encoder: EncoderSizes,
    gpus: int,
    flops_per_s: float,
) -> dict[str, Any]:
    """A stage's step and its whole, from the mean sequence of its mix."""

    def mean(of: str) -> float:
        return sum(source.share * source.mean(of) for source in sources)

    per_step = settings.batch_sequences
    positions, heard_s = mean("student"), sum(source.share * source.heard_s(encoder.hz) for source in sources)
    model = sum(source.share * _model_flops(source, flops) for source in sources)
    recomputed = sum(source.share * _recomputed(source, flops) for source in sources)
    recomputed *= recipe.engine.gradient_checkpointing
    total = per_step * settings.steps
    natural = [source for source in sources if source.name.startswith("natural speech")]
    natural_s = sum(source.share * source.mean("audio_s") for source in natural)
    written = sum(source.share * _rollout_flops(source, flops) for source in sources)
    natural_h = recipe.expected.natural_h
    return {
        "steps": settings.steps,
        "batch_sequences": per_step,
        "positions_per_sequence": positions,
        "positions_per_step": per_step * positions,
        "positions": total * positions,
        "share_of_positions": {source.name: source.share * source.mean("student") / positions for source in sources},
        "teacher_tokens_per_step": per_step * mean("teacher"),
        "scored_per_step": per_step * mean("scored"),
        "micro_batches_per_gpu": math.ceil(per_step * positions / settings.micro_batch_positions / gpus),
        "speech_heard_h": total * heard_s / 3600,
        "speech_drawn_h": total * mean("audio_s") / 3600,
        "natural_speech_epochs": None if natural_h is None else total * natural_s / 3600 / natural_h,
        "flops_per_step": per_step * model,
        "flops": total * model,
        "flops_recomputed": total * recomputed,
        **({"own_tokens": total * mean("own"), "rollout_flops": total * written} if written else {}),
        "duration_h": total * model / (gpus * flops_per_s) / 3600,
    }


def _model_flops(source: Source, flops: StepFlops) -> float:
    drawn = source.draws
    return sum(flops.step([d.student], [d.teacher], d.scored, d.span_frames) for d in drawn) / len(drawn)


def _recomputed(source: Source, flops: StepFlops) -> float:
    return sum(flops.recomputed([draw.student]) for draw in source.draws) / len(source.draws)


def _rollout_flops(source: Source, flops: StepFlops) -> float:
    """FLOPs of writing what the student adds to a sequence."""

    def of(draw: Expected) -> float:
        heard = [-(-frames // flops.frames_per_position) for frames in draw.span_frames]
        return flops.rollout(draw.student - 1, draw.own, heard) if draw.own else 0.0

    return sum(map(of, source.draws)) / len(source.draws)


def _disk(recipe: Recipe, student: SpeechLM, stages: dict[str, dict[str, Any]], hidden: int) -> dict[str, Any]:
    trained = bytes_of(p for p in student.parameters() if p.requires_grad)
    kept = recipe.engine.keep_checkpoints
    cached = [stage for stage in stages.values() if "own_tokens" not in stage]
    tokens = sum(stage["teacher_tokens_per_step"] * stage["steps"] for stage in cached)
    return {
        "checkpoint_gib": 3 * trained / GIB,
        "checkpoints_kept": {name: kept + (name == "stage_one") for name in stages},
        "model_gib": trained / GIB,
        "teacher_cache_gib": 2 * hidden * tokens / GIB if recipe.engine.teacher == "cached" else None,
    }


def _default_peak(recipe: Recipe) -> float:
    return PEAK_BF16[GPU] if recipe.model.dtype == "bfloat16" else PEAK_FLOAT32


def _assumptions(recipe: Recipe, gpus: int, peak: float, by_default: bool, mfu: float) -> list[str]:
    expected = recipe.expected
    whose = f" (an {GPU}'s)" if by_default else ""
    said = [
        f"An utterance of natural speech has {expected.utterance_s:g} s and {expected.words_per_s:g} words a second, a "
        f"text {expected.text_words:g} words, read or spoken, a word {expected.tokens_per_word:g} tokens (expected.*). "
        "Real ones vary around that.",
        "Tokens are positions of the student: text tokens, and speech as the adapter hands it on.",
        f"A GPU's peak is {peak / 1e12:g} TFLOP/s in {recipe.model.dtype}{whose}; model FLOPs take {mfu:.0%} of it "
        "(MFU). What gradient checkpointing repeats is no model FLOP and lowers the MFU that can be had.",
        "Time is training's: no preparing, encoding, clustering, synthesis, measuring.",
        "Memory is that of a full micro-batch of natural speech, an earlier one's gradients already there. "
        f"{CONTEXT_GIB['cuda']:g} GiB of a GPU go to the CUDA context and libraries; what PyTorch's cache loses to "
        "fragments comes on top.",
        "The objective is salad's own, not a fused kernel of another project (distill/fused.py).",
        "A checkpoint holds what is trained and its two moments in float32.",
    ]
    if recipe.stage_one.start is not None:
        said.append(f"Stage I is {recipe.stage_one.start}, taken over: it takes nothing here.")
    if gpus > 1:
        said.append(
            f"FSDP2 holds {GATHERED} layers in one piece at a time, and what stands outside of layers throughout."
        )
    if recipe.stage_three is not None and recipe.stage_three.on_policy_frac > 0:
        said.append(
            "Stage III's time leaves out the writing of the student's own words, every continuation taken to be as "
            "long as it may be: token by token a GPU does it at a small part of that MFU."
        )
    if recipe.engine.teacher == "cached":
        said.append("The teacher's cache is as large as if no document were drawn twice.")
    return said


def _warnings(recipe: Recipe, stages: dict[str, dict[str, Any]]) -> list[str]:
    warnings: list[str] = []
    limit = recipe.sequence.max_positions
    tokens = 1 + round(recipe.expected.text_words * recipe.expected.tokens_per_word)
    if tokens > limit:
        warnings.append(f"Texts of {tokens} tokens are cut at sequence.max_positions={limit}.")
    words = selected_words(recipe, encoder_sizes(recipe.model))
    if words < round(recipe.expected.text_words):
        warnings.append(
            f"Texts over some {words} words make more than sequence.max_positions={limit} when they are spoken, and "
            "Stage II leaves them out: prepare shorter ones (salad prepare text --max-words)."
        )
    if "stage_one" not in stages:
        return warnings
    text_frac, share = recipe.stage_one.text_frac, stages["stage_one"]["share_of_positions"].get("text", 0.0)
    if 0 < text_frac < 1 and abs(share - text_frac) > UNLIKE_SHARES:
        odds = text_frac / (1 - text_frac) * (1 - share) / share * text_frac / (1 - text_frac)
        warnings.append(
            f"Text is {text_frac:.0%} of Stage I's sequences, {share:.0%} of its tokens: texts and utterances differ "
            f"in length. stage_one.text_frac={odds / (1 + odds):.3f} would make it {text_frac:.0%} of the tokens; so "
            "would texts of the utterances' length."
        )
    return warnings
