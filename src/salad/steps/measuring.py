"""The steps that measure models and write what was found."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from salad.card.page import add_results
from salad.distill.teacher import teacher_for
from salad.files import read_json, write_json
from salad.interleave.builder import SequenceBuilder
from salad.interleave.utterances import Utterance
from salad.measure.arm import ArmRows, HeldOut, arm_estimates, measure_arm, read_task
from salad.measure.cascade import transcripts
from salad.measure.tasks.definition import DefinitionItem, definition_items
from salad.model.llm import load_tokenizer
from salad.model.speech_lm import SpeechLM
from salad.natural_speech import held_out_speech
from salad.report.page import write_report
from salad.results import assemble
from salad.run import Progress, Run, Step, reports, wall_s
from salad.speech.prepared import Rejected, read_cuts, reasons
from salad.steps.data import ARMS, recognizer, speech_in, texts_file
from salad.student import new_student
from salad.texts.text import read_texts


def measure_step(*arms: str) -> Any:
    """The work of measuring some arms; an arm that is measured is not measured again after an interruption.

    A run that starts from a model has no untrained one.
    """

    def work(run: Run, progress: Progress) -> dict[str, Any]:
        torch.set_num_threads(run.recipe.threads)
        left_out: list[dict[str, Any]] = []
        own = [arm for arm in arms if arm != "untrained" or run.recipe.stage_one.start is None]
        for arm in own:
            left_out = _measure(run, arm, progress, beside="untrained" in arms and arm == own[0])
        return {"rejected": left_out if "untrained" in arms else []}

    return work


def _measure(run: Run, arm: str, progress: Progress, beside: bool) -> list[dict[str, Any]]:
    """Measure an arm that is not measured yet, `beside` it the text LLM; what the policy can't use of the held-out.

    Its models are gone when this ends: with the next arm's they might not fit on a GPU.
    """
    path = run.path("measured", f"{arm}.json")
    student = SpeechLM.from_pretrained(_model_of(run, arm), device_map=run.ranks.device)
    builder = _builder(run, student)
    held_out, left_out = _held_out(run, builder)
    if path.is_file():
        return left_out

    def tell(done: int, total: int, note: str) -> None:
        progress(done, total, f"{arm}: {note}")

    rows = measure_arm(student, teacher_for(student), builder, held_out, run.recipe.measure, run.recipe.seed, tell)
    if beside:
        _measure_text_llm(run, student, builder, held_out.items)
    write_json(path, rows.as_json())
    return left_out


def measure_again(run: Run, model: Path) -> dict[str, Any]:
    """An arm of results.json for weights that were changed since, on all that the run's own were measured on."""
    torch.set_num_threads(run.recipe.threads)
    student = SpeechLM.from_pretrained(model, device_map=run.ranks.device)
    builder = _builder(run, student)
    held_out, _ = _held_out(run, builder)
    measure, seed = run.recipe.measure, run.recipe.seed
    rows = measure_arm(student, teacher_for(student), builder, held_out, measure, seed)
    return arm_estimates(rows, seed, measure.num_bootstrap)


def _measure_text_llm(run: Run, student: SpeechLM, builder: SequenceBuilder, items: Sequence[DefinitionItem]) -> None:
    """The topline (the text LLM reads) and the cascade (it reads what the ASR heard)."""
    asked = {item.id for item in items}
    cuts = [cut for cut in read_cuts(run.path("spoken", "heldout")) if cut.id in asked]
    heard = transcripts(cuts, recognizer(run.recipe))
    # A model to be trained in full is the text LLM while it is untrained; others have their LoRA switched off.
    full = student.config.train_llm == "full"
    if full and run.recipe.stage_one.start is not None:
        student = new_student(run.recipe, student.config.encoder_dim, student.config.encoder_hz).eval()
        nn.Module.to(student, run.ranks.device)
    with nullcontext() if full else student.as_text_llm():
        batch = run.recipe.measure.batch_documents
        topline = read_task(student, builder, items, [item.definition for item in items], batch)
        cascade = read_task(student, builder, items, [heard[item.id] for item in items], batch)
    write_json(run.path("measured", "text_llm.json"), {"topline": topline, "cascade": cascade, "transcripts": heard})


def results_step(steps: Sequence[Step]) -> Any:
    """The work of writing results.json and report.html from what was measured; `steps` are those before it."""

    def write_results(run: Run, progress: Progress) -> dict[str, Any]:
        progress(0, 2, "results.json")
        last = () if run.recipe.stage_three is None else ("stage_three",)
        order = ("untrained", "stage_one", *ARMS, *last)
        rows = {
            arm: ArmRows.from_json(read_json(run.path("measured", f"{arm}.json")))
            for arm in order
            if run.path("measured", f"{arm}.json").is_file()
        }
        results = assemble(run.recipe, run.folder, rows, reports(run, steps), wall_s(run, steps))
        write_json(run.path("results.json"), results)
        for arm in results["arms"]:
            beside = (results["topline"], results["cascade"], results["task"])
            add_results(_model_of(run, arm["name"]), arm, results["conditions"], *beside)
        progress(1, 2, "report.html")
        write_report(run.path("results.json"), run.path("report.html"))
        progress(2, 2)
        return {}

    return write_results


def _builder(run: Run, student: SpeechLM) -> SequenceBuilder:
    return SequenceBuilder.of(student, load_tokenizer(run.recipe.model.llm), run.recipe.sequence, run.recipe.seed)


def _held_out(run: Run, builder: SequenceBuilder) -> tuple[HeldOut, list[dict[str, Any]]]:
    """What every arm is measured on, the same for all, and what the policy can't use of it."""
    broad, bad_broad = builder.usable(speech_in(run, "spoken/heldout"))
    human: list[Utterance] = []
    bad_human: list[Rejected] = []
    for corpus in held_out_speech(run):
        usable, rejected = builder.usable(corpus)
        human += usable
        bad_human += rejected
    spoken = {utterance.id for utterance in broad}
    texts = [text for text in read_texts(texts_file(run, "heldout")) if text.id in spoken]
    items = definition_items(texts, run.recipe.measure.task_items, run.recipe.seed)
    left_out = reasons("held-out broad sequences", bad_broad) + reasons("held-out human sequences", bad_human)
    return HeldOut(broad, human, items), left_out


def _model_of(run: Run, arm: str) -> Path:
    return run.path("stage_one", "untrained") if arm == "untrained" else run.path(arm, "model")
