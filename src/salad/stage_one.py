"""Stage I on one page: natural speech -> interleave -> distill (paper section 4).

The text LLM reads each utterance; the student, the same LLM with ears, hears part of it; the student learns to predict
what the text LLM predicts. A third of the sequences is text alone, against forgetting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from salad.distill.loop import StepReport, train
from salad.distill.schedule import decay_start, warmup_stable_decay
from salad.distill.teacher import teacher_for
from salad.files import read_json, read_jsonl, write_json, write_jsonl
from salad.interleave.builder import SequenceBuilder
from salad.interleave.stream import Stream, step_batches
from salad.interleave.utterances import Utterance
from salad.model.llm import load_tokenizer
from salad.model.processor import SpeechFeatureExtractor, SpeechLMProcessor
from salad.model.saved import WEIGHTS_NAME
from salad.model.speech_lm import SpeechLM
from salad.model.warm_start import WarmStartReport, not_taught, warm_start
from salad.model.warm_starts.words import Clip
from salad.randomness import generator, torch_seed
from salad.recipe import Recipe, WarmStartSettings
from salad.run import Progress
from salad.speech.prepared import Rejected
from salad.texts.text import Text

PRE_DECAY = "pre_decay"
WARM_START_UTTERANCES = 20_000  # some 60 hours; far more than its steps come to


def new_student(recipe: Recipe, encoder_dim: int, encoder_hz: float) -> SpeechLM:
    """The text LLM with a random adapter and a LoRA that does nothing yet."""
    seed = torch_seed(recipe.seed, "student")
    mark = new_processor(recipe).speech_token_id
    return SpeechLM.from_llm(recipe.model, encoder_dim, encoder_hz, mark, seed)


def stage_one(
    recipe: Recipe,
    speech: Sequence[Sequence[Utterance]],
    texts: Sequence[Text],
    encoder_dim: int,
    encoder_hz: float,
    out: Path,
    progress: Progress,
) -> list[Rejected]:
    """Train Stage I and write `out`/model, `out`/untrained and the checkpoint before the decay.

    The corpora of `speech` are mixed by their numbers of utterances. Returns the utterances that no sequence could be
    made of, and those that the warm start could make nothing of.
    """
    settings = recipe.stage_one
    torch.set_num_threads(recipe.threads)
    student = new_student(recipe, encoder_dim, encoder_hz)
    save_model(student, recipe, "untrained", out / "untrained")
    left_out = warm_start_once(student, recipe, speech, settings.warm_start, "stage_one", out / "warm_start", progress)
    builder = SequenceBuilder.of(student, load_tokenizer(recipe.model.llm), recipe.sequence, recipe.seed)
    usable, rejected = usable_speech(builder, speech)
    weights = [*by_size(usable, 1 - settings.text_frac), settings.text_frac]
    stream = Stream.of(builder, usable, texts, weights, settings, student.config.speech_token_id, "stage_one")
    steps = settings.steps
    reports: list[StepReport] = []
    for report in train(
        student,
        teacher_for(student),
        step_batches(stream, settings.steps, num_workers=recipe.loader_workers),
        settings,
        lambda step: warmup_stable_decay(step, steps, settings.warmup_steps, settings.decay_frac),
        out / "checkpoints",
        keep={decay_start(steps, settings.decay_frac): PRE_DECAY},
    ):
        reports.append(report)
        progress(report.step, steps, f"distilling: KL {report.kl_nats:.3f} nats/token")
    write_json(out / "curve.json", [asdict(report) for report in reports])
    save_model(student, recipe, "stage_one", out / "model")
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


def warm_start_once(
    student: SpeechLM,
    recipe: Recipe,
    speech: Sequence[Sequence[Utterance]],
    settings: WarmStartSettings,
    purpose: str,
    out: Path,
    progress: Progress,
) -> list[Rejected]:
    """Stage 0 (ours): the warm start of the adapter; a finished one is loaded from `out` instead of done again.

    A source with more than `WARM_START_UTTERANCES` lends that many, drawn at random. Returns the utterances among them
    that the warm start could make nothing of.
    """
    if settings.steps == 0:
        return []
    if not (out / "reports.json").is_file():
        clips: list[Clip] = []
        for number, source in enumerate(speech):
            rng = generator(recipe.seed, "warm_start utterances", purpose, number)
            drawn = sorted(rng.permutation(len(source))[:WARM_START_UTTERANCES])
            clips += [Clip(spoken.id, spoken.words, spoken.features_FE) for spoken in map(source.__getitem__, drawn)]

        def tell(report: WarmStartReport) -> None:
            progress(report.step, settings.steps, f"warm start ({settings.kind}): {report.right_frac:.0%} right")

        tokenizer = load_tokenizer(recipe.model.llm)
        reports = warm_start(student, tokenizer, clips, settings, recipe.seed, purpose, tell)
        left_out = not_taught(clips, settings, recipe.model.adapter.frames_per_position)
        student.save_pretrained(out)
        write_jsonl(out / "left_out.jsonl", [asdict(row) for row in left_out])
        write_json(out / "reports.json", [asdict(report) for report in reports])
    student.load_trained_state(load_file(out / WEIGHTS_NAME), str(out))
    return [Rejected(**row) for row in read_jsonl(out / "left_out.jsonl")]


def warm_start_curve(out: Path) -> list[dict[str, float]]:
    """The reports of a warm start, every tenth; empty where there was none."""
    path = out / "reports.json"
    return list(read_json(path))[9::10] if path.is_file() else []


def save_model(student: SpeechLM, recipe: Recipe, stage: str, out: Path) -> None:
    """A folder that AutoModel and AutoProcessor load, with the recipe that made it in `salad.json`."""
    student.save_pretrained(out)
    new_processor(recipe).save_pretrained(out)
    write_json(out / "salad.json", {"stage": stage, "recipe": recipe.model_dump(mode="json")})


def new_processor(recipe: Recipe) -> SpeechLMProcessor:
    """The processor of the recipe's encoder and LLM."""
    tokenizer: PreTrainedTokenizerBase = load_tokenizer(recipe.model.llm)
    extractor = SpeechFeatureExtractor(recipe.model.encoder, recipe.model.adapter.frames_per_position, recipe.threads)
    return SpeechLMProcessor(extractor, tokenizer)
