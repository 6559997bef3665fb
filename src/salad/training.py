"""What a person sees of a stage's training: the line, the curves, what was watched. The loop yields; this looks on.

    OUT/watch.jsonl   M, F and hearing after the steps they were taken at, kept for a run that is resumed
    OUT/tracker/      the curves, where the tracker keeps them in files

A resumed run tells of its earlier steps again, at once (`report.restored`). They have no pace, are watched and logged
already, and stand in the rows as they did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from salad.distill.loop import StepReport, train
from salad.distill.meter import Meter, Speed, peak_flops, peak_memory_gib, speed_of
from salad.distill.teacher import Teacher, unchanging
from salad.distill.teacher_cache import training_teacher
from salad.distill.teacher_shards import Document
from salad.distill.tracker import Tracker, open_tracker
from salad.files import read_jsonl, write_json, write_jsonl
from salad.interleave.batch import Batch
from salad.interleave.stream import Stream, step_batches
from salad.interleave.utterances import Utterance
from salad.measure.watch import Watch, WatchReport, alarm
from salad.model.config import SpeechLMConfig
from salad.model.flops import StepFlops
from salad.model.speech_lm import SpeechLM
from salad.ranks import ALONE, Ranks
from salad.recipe import Recipe, StageSettings
from salad.run import Progress

Look = Callable[[int], WatchReport]


def distill(
    stage: str,
    student: SpeechLM,
    stream: Stream,
    settings: StageSettings,
    rate_factor: Callable[[int], float],
    held_out: Sequence[Utterance],
    recipe: Recipe,
    out: Path,
    progress: Progress,
    ranks: Ranks = ALONE,
    keep: dict[int, str] | None = None,
    optimizer_from: Path | None = None,
    batches: Callable[[int], Sequence[Batch]] | None = None,
) -> list[dict[str, Any]]:
    """Distill the text LLM into the student over a stream, watched and logged; the curve goes to OUT/curve.json.

    Gives the curve's rows.

    All ranks call it; under FSDP2 the student's parameters are shards afterwards.

    Args:
        stage: what a person calls it.
        student: trained in place.
        stream: what it reads and hears.
        settings: objective, length, optimizer.
        rate_factor: the schedule.
        held_out: what it is looked at on, every `engine.watch_every` steps.
        recipe: the whole of it; its `engine` says how.
        out: the stage's folder.
        progress: told of every step.
        ranks: this process among the others.
        keep: {number of steps done: name} of checkpoints to keep.
        optimizer_from: a checkpoint whose optimizer state is taken over.
        batches: a step -> what this rank reads in it; None: the stream's.
    """
    cached = recipe.engine.teacher == "cached"
    watch = Watch(stream.builder, held_out, recipe) if recipe.engine.watch_every else None
    watched = [Document(text.item, text.teacher_ids) for text in watch.texts] if watch else []
    cache = out.parent / "teacher_cache"  # of all stages of a run
    teacher = training_teacher(student, recipe, stream, settings.steps, cache, progress, ranks, watched)
    look = partial(_look, watch, student, teacher) if watch else None
    flops = StepFlops.of(cast("SpeechLMConfig", student.config), cached_teacher=cached)
    steps = train(
        student,
        teacher,
        batches or step_batches(stream, settings.steps, ranks.rank, ranks.world, recipe.loader_workers),
        settings,
        rate_factor,
        out / "checkpoints",
        keep,
        optimizer_from,
        recipe.engine,
        ranks,
        partial(_flops_of, flops),
        lambda sentence: progress(0, settings.steps, f"WARNING: {sentence}"),
    )
    with unchanging(teacher, ranks):
        rows = follow(steps, stage, settings.steps, look, recipe, out, progress, ranks)
    if ranks.is_main:
        write_json(out / "curve.json", rows)
    return rows


def _look(watch: Watch, student: SpeechLM, teacher: Teacher, step: int) -> WatchReport:
    return watch(step, student, teacher)


def _flops_of(flops: StepFlops, batch: Batch) -> float:
    frames: list[int] = [] if batch.speech_lengths_S is None else batch.speech_lengths_S.tolist()
    return flops.step(batch.student_lengths_D, batch.teacher_lengths_D, len(batch.targets_N), frames)


def follow(
    reports: Iterable[StepReport],
    stage: str,
    steps: int,
    look: Look | None,
    recipe: Recipe,
    out: Path,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> list[dict[str, Any]]:
    """Let the training run to its end; a row for each step, with `watch` in the rows of those it was looked at after.

    Args:
        reports: the training loop; each report is asked for when all is done with the one before.
        stage: what a person calls it.
        steps: its length.
        look: a step -> M, F and hearing of the student as it is then (all ranks look); None: never.
        recipe: its `engine` says which tracker, and how often to look.
        out: the stage's folder.
        progress: told of every step, and of alarms.
        ranks: the main one shows, logs and writes.
    """
    peak = peak_flops(ranks.device, getattr(torch, recipe.model.dtype)) * ranks.world if ranks.is_main else None
    meter = Meter(steps, peak)
    watched = Watched(out / "watch.jsonl", look, recipe.engine.watch_every, steps, ranks)
    tracker: Tracker | None = None
    rows: list[dict[str, Any]] = []
    try:
        for report in reports:
            seen = watched.after(report)
            rows.append(_row(report, seen))
            if not ranks.is_main or report.restored > report.step:
                continue
            if tracker is None:
                name, config = f"{recipe.name}-{out.name}", recipe.model_dump(mode="json")
                tracker = open_tracker(recipe.engine.tracker, out / "tracker", name, config, report.step)
            memory_gib = peak_memory_gib(ranks.device)
            tracker.log(report.step, curves(report, peak, memory_gib, seen))
            if seen is not None and seen.alarm is not None:
                progress(report.step, steps, f"WARNING: {seen.alarm}")
            if report.restored:
                progress(report.step, steps, stage)
            else:
                progress(report.step, steps, line(stage, report, meter.read(report), memory_gib, watched.newest))
    finally:
        if tracker is not None:
            tracker.close()
    return rows


class Watched:
    """What was seen of a training, on the disk as soon as it is seen: a kill loses none of it, and doubles none."""

    def __init__(self, path: Path, look: Look | None, every: int, steps: int, ranks: Ranks = ALONE) -> None:
        """Looks every `every` steps (0: never) and after the last; the main rank keeps it in the file."""
        self.path = path
        self.look = look if every else None
        self.every = every
        self.steps = steps
        self.ranks = ranks
        self.seen: list[WatchReport] = []
        self._earlier: dict[int, WatchReport] | None = None

    @property
    def newest(self) -> WatchReport | None:
        """What was seen last."""
        return self.seen[-1] if self.seen else None

    def after(self, report: StepReport) -> WatchReport | None:
        """What was seen after this step, by an earlier process or now. On all ranks, for every step in order."""
        if self._earlier is None:
            self._earlier = self._read(report.restored)
        step, last = report.step, report.step == self.steps
        if step in self._earlier:
            self.seen.append(self._earlier[step])
            return self.seen[-1]
        if self.look is None or not (last or step % self.every == 0) or report.restored > step:
            return None  # the weights of a step before the checkpoint's are gone
        found = self.look(step)
        self.seen.append(replace(found, alarm=alarm([*self.seen, found], last)))
        if self.ranks.is_main:
            write_jsonl(self.path, [row.as_json() for row in self.seen])
        return self.seen[-1]

    def _read(self, restored: int) -> dict[int, WatchReport]:
        """What was seen of the steps that are not done again; of the others it is seen anew."""
        found = read_jsonl(self.path) if self.ranks.is_main and self.path.is_file() else []
        reports = map(WatchReport.from_json, self.ranks.from_main(found))
        return {report.step: report for report in reports if report.step <= restored}


def curves(
    report: StepReport, peak: float | None, memory_gib: float | None, seen: WatchReport | None
) -> dict[str, float]:
    """A step's numbers under the names that trackers show."""
    positions_per_s, _, mfu_frac, data_wait_frac = speed_of([report], peak)
    values: dict[str, float | None] = {
        "train/loss_nats": report.loss_nats,
        "train/divergence_nats": report.divergence_nats,
        "train/kl_nats": report.kl_nats,
        "train/nll_nats": report.nll_nats,
        "train/grad_norm": report.grad_norm,
        "train/rate_factor": report.rate_factor,
        "speed/positions_per_s": positions_per_s,
        "speed/mfu_frac": mfu_frac,
        "speed/data_wait_frac": data_wait_frac,
        "memory/peak_gib": memory_gib,
    }
    if seen is not None:
        values["watch/misalignment_nats"] = seen.misalignment_nats.value
        values["watch/forgetting_nats"] = seen.forgetting_nats.value if seen.forgetting_nats else None
        values["watch/hearing_nats"] = seen.hearing_nats.value
    return {name: value for name, value in values.items() if value is not None}


def line(stage: str, report: StepReport, speed: Speed, memory_gib: float | None, seen: WatchReport | None) -> str:
    """A step in one line: parts with two spaces between them, those that matter most first."""
    parts = [
        stage,
        f"KL {report.kl_nats:.3f}",
        f"NLL {report.nll_nats:.2f}",
        f"ETA {clock_time(speed.eta_s)}",
        f"{short_number(speed.positions_per_s)} tok/s",
        *([f"MFU {speed.mfu_frac:.0%}"] if speed.mfu_frac is not None else []),
        f"lr {report.rate_factor:.2g}",
        f"|g| {report.grad_norm:.2g}",
        f"data {speed.data_wait_frac:.1%}",
        *([f"mem {memory_gib:.1f} GiB"] if memory_gib is not None else []),
    ]
    if seen is not None:
        heard = seen.hearing_nats
        parts.append(f"M {seen.misalignment_nats.value:.3f}")
        parts += [f"F {seen.forgetting_nats.value:.3f}"] if seen.forgetting_nats else []
        parts.append(f"{'hears' if seen.hears else 'deaf'} {heard.value:+.3f} [{heard.low:.3f}, {heard.high:.3f}]")
    return "  ".join(parts)


def short_number(value: float) -> str:
    """412, 3.1k, 1.2M."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.1f}{unit}"
    return f"{value:.0f}"


def clock_time(seconds: float) -> str:
    """02:07, 1:02:07, 3d 04:00 (days, hours and minutes)."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24}d {hours % 24:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def _row(report: StepReport, seen: WatchReport | None) -> dict[str, Any]:
    row = {name: value for name, value in asdict(report).items() if name != "restored"}
    return row if seen is None else row | {"watch": seen.as_json()}
