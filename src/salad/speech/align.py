"""Word timings for a whole prepared folder, however large, resumable at any point.

The cuts are streamed in groups of neighbours. What the aligner made of a group is kept until all are done:

    OUT/.align/FINGERPRINT.jsonl   one row a cut that had to be aligned: its words' times, or why it has none

FINGERPRINT is made of the aligner and of the group's cuts. Once every group has its file, the cuts are written anew
with their timings, in one go.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from lhotse import MonoCut

from salad.assets import resolve
from salad.errors import AlignmentError, AudioError, DataError, MissingFileError, RecipeError
from salad.files import open_atomic, read_jsonl, write_atomic, write_json, write_jsonl
from salad.speech.aligner import RATE_HZ, Aligner, check_language
from salad.speech.alignment_report import TIMED_BY, Report
from salad.speech.audio import audio_place, load_cut
from salad.speech.prepared import (
    ALIGNMENT_NAME,
    CUTS_NAME,
    Rejected,
    cut_line,
    gzip_writer,
    read_info,
    stream_cuts,
    text_of,
    with_words,
    words_of,
)
from salad.workers import Died, answer_all

Progress = Callable[[int, int], None]
"""Told (done, total) in cuts."""
Row = dict[str, Any]
"""What became of a cut: {"id", "words": [[start_s, end_s, confidence], ...]} or {"id", "reason", "place"}."""

GROUP = 64
"""Neighbouring cuts whose timings are kept in one file: a killed run loses less than so many a worker."""
PARTS_NAME = ".align"


def load_aligner(name: str, threads: int) -> Aligner:
    """The aligner of that name: "whisper" or "whisper:MODEL", "pocketsphinx", "ctc:MODEL".

    Raises:
        RecipeError: no such aligner.
        AssetError: its model can't be had, or its package is not installed.
    """
    kind, _, model = name.partition(":")
    if kind == "whisper":
        from salad.speech.recognize import Recognizer

        return Recognizer(resolve(model or "whisper-tiny.en"), threads)
    if name == "pocketsphinx":
        from salad.speech.sphinx import SphinxAligner

        return SphinxAligner()
    if kind == "ctc" and model:
        from salad.speech.ctc import CtcAligner

        return CtcAligner(resolve(model), threads, model)
    raise RecipeError(
        f"there is no aligner {name!r}; name 'whisper' or 'whisper:MODEL', 'pocketsphinx', or 'ctc:MODEL' with a "
        "Wav2Vec2, HuBERT or WavLM model for CTC."
    )


def align_folder(
    folder: Path,
    aligner: str,
    threads: int,
    out: Path | None = None,
    jobs: int = 1,
    min_confidence: float = 0.0,
    strict: bool = False,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], list[Rejected]]:
    """Give the cuts of a prepared folder word timings; writes OUT's cuts, rejected.jsonl and alignment.json.

    Timings of exactly a cut's words are kept when they came with the cut, from the voice that spoke it, or from this
    aligner before; all others are made anew.

    Args:
        folder: a prepared folder.
        aligner: as `load_aligner` knows it.
        threads: CPU threads of all processes together.
        out: where to write; `folder` itself when left out.
        jobs: worker processes.
        min_confidence: cuts whose words have a lower mean confidence are rejected; those without confidences stay.
        strict: raise the first rejection instead.
        progress: told (done, total).

    Returns:
        The report, as `Report.as_json` describes it, and what was rejected by this call.

    Raises:
        RecipeError, AssetError: the aligner can't be had.
        DataError: another process aligns the same folder.
        AlignmentError: the first rejection, if `strict`.
    """
    next(stream_cuts(folder), None)  # is it a prepared folder?
    out = folder if out is None else out
    began = time.monotonic()
    with _parts_folder(out) as parts:
        if jobs > 1:
            threads = max(1, threads // jobs)
        loaded = load_aligner(aligner, threads)
        report = Report(loaded.name, loaded.fingerprint)
        place_cut = partial(_place, loaded) if jobs == 1 else partial(_placer, aligner, threads)
        del loaded
        report.speech_s = _place_all(folder, report, parts, place_cut, jobs, strict, progress)
        rejected = _write(folder, out, parts, report, min_confidence, strict)
        report.seconds = time.monotonic() - began
        write_json(out / ALIGNMENT_NAME, report.as_json())
    return report.as_json(), rejected


# --- placing --------------------------------------------------------------------------------------------------------


def _place_all(
    folder: Path,
    report: Report,
    parts: Path,
    place_cut: Callable[..., Any],
    jobs: int,
    strict: bool,
    progress: Progress | None,
) -> float:
    """Make the parts that are not there; the seconds of speech that were aligned for it."""
    with gzip.open(folder / CUTS_NAME, "rb") as lines:
        total = sum(1 for _ in lines)
    done = 0
    speech_s = 0.0
    rows: dict[str, list[Row | None]] = {}

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    def tasks() -> Iterator[tuple[str, int, MonoCut]]:
        for group in _groups(folder):
            todo = [cut for cut in group if not _is_timed(cut, report.tag)]
            name = _part_name(todo, report)
            if not todo or (parts / name).is_file():
                tell(len(group))
                continue
            tell(len(group) - len(todo))
            rows[name] = [None] * len(todo)
            yield from ((name, index, cut) for index, cut in enumerate(todo))

    answers: Iterable[tuple[tuple[str, int, MonoCut], Row | Died]]
    answers = ((task, place_cut(task)) for task in tasks()) if jobs == 1 else answer_all(tasks(), place_cut, jobs)
    for (name, index, cut), answer in answers:
        if isinstance(answer, Died):
            reason = f"aligner died: its process ended on this cut (exit code {answer.exit_code})"
            answer = asdict(Rejected(cut.id, reason, audio_place(cut)))
        if strict and "reason" in answer:
            raise AlignmentError(f"utterance {cut.id!r}: {answer['reason']}")
        speech_s += cut.duration
        rows[name][index] = answer
        if all(row is not None for row in rows[name]):
            write_atomic(parts / name, "".join(json.dumps(row) + "\n" for row in rows.pop(name)))
        tell(1)
    return speech_s


def _placer(aligner: str, threads: int) -> Callable[[tuple[str, int, MonoCut]], Row]:
    """In a worker: load the aligner, and give the function that places a cut."""
    return partial(_place, load_aligner(aligner, threads))


def _place(aligner: Aligner, task: tuple[str, int, MonoCut]) -> Row:
    """The words of one cut, or why they have no place."""
    cut = task[2]
    try:
        check_language(aligner, cut.supervisions[0].language)
        placed = aligner.align(load_cut(cut, RATE_HZ), text_of(cut).split())
    except (AlignmentError, AudioError, MissingFileError) as error:
        kind = "words can't be placed" if isinstance(error, AlignmentError) else "audio can't be read"
        return asdict(Rejected(cut.id, f"{kind}: {error}", audio_place(cut)))
    words = [[round(start, 4), round(end, 4), None if sure is None else round(sure, 4)] for start, end, sure in placed]
    return {"id": cut.id, "words": words}


# --- writing --------------------------------------------------------------------------------------------------------


def _write(folder: Path, out: Path, parts: Path, report: Report, min_confidence: float, strict: bool) -> list[Rejected]:
    """The folder's cuts with their timings; what was rejected joins what was rejected before, once. Cuts come last."""
    rejected: list[Rejected] = []
    with open_atomic(out / CUTS_NAME) as file, gzip_writer(file) as zipped:
        for group in _groups(folder):
            for cut, refused in _timed(group, parts, report, min_confidence):
                if refused is None:
                    zipped.write(cut_line(cut, out))
                elif strict:
                    raise AlignmentError(f"utterance {cut.id!r}: {refused.reason}")
                else:
                    rejected.append(refused)
        if rejected and report.num_aligned + report.num_kept == 0:
            raise AlignmentError(
                f"none of {len(rejected)} cuts of {folder} can be aligned, and it is as it was; the first, "
                f"{rejected[0].id!r}: {rejected[0].reason}"
            )
        earlier = read_jsonl(folder / "rejected.jsonl") if (folder / "rejected.jsonl").is_file() else []
        write_jsonl(out / "rejected.jsonl", [*earlier, *_new(map(asdict, rejected), earlier)])
        if out != folder:
            write_json(out / "info.json", read_info(folder))
    return rejected


def _new(rows: Iterable[Row], earlier: list[Row]) -> list[Row]:
    """The rows that are not among the earlier ones."""
    known = {json.dumps(row, sort_keys=True) for row in earlier}
    return [row for row in rows if json.dumps(row, sort_keys=True) not in known]


def _timed(
    group: list[MonoCut], parts: Path, report: Report, min_confidence: float
) -> Iterator[tuple[MonoCut, Rejected | None]]:
    """Every cut of a group with its timings, and why it is rejected if it is; counted in the report."""
    todo = [cut for cut in group if not _is_timed(cut, report.tag)]
    rows = {row["id"]: row for row in read_jsonl(parts / _part_name(todo, report))} if todo else {}
    for cut in group:
        row = rows.get(cut.id)
        if row is not None and "reason" in row:
            report.reject(cut)
            yield cut, Rejected(**row)
            continue
        if row is not None:
            with_words(cut, ((text, *word) for text, word in zip(text_of(cut).split(), row["words"], strict=True)))
            cut.custom = (cut.custom or {}) | {TIMED_BY: report.tag}
        scores = [item.score for item in cut.supervisions[0].alignment["word"] if item.score is not None]
        if scores and np.mean(scores) < min_confidence:
            reason = f"low confidence: its words' mean is {np.mean(scores):.3f}, under {min_confidence:g}; do text and "
            report.reject(cut)
            yield cut, Rejected(cut.id, reason + "audio belong together?", audio_place(cut))
            continue
        report.add(cut, kept=row is None)
        yield cut, None


# --- groups and parts -----------------------------------------------------------------------------------------------


def _groups(folder: Path) -> Iterator[list[MonoCut]]:
    cuts = stream_cuts(folder)
    while group := list(islice(cuts, GROUP)):
        yield group


def _is_timed(cut: MonoCut, tag: str) -> bool:
    """Whether a cut's timings stay: of exactly its words, and not made by another aligner."""
    try:
        words = words_of(cut)
    except AlignmentError:
        return False
    by = (cut.custom or {}).get(TIMED_BY, "")
    return len(words) > 0 and (by in ("", tag) or by.startswith("voice "))


def _part_name(todo: list[MonoCut], report: Report) -> str:
    state = json.dumps([report.aligner, report.fingerprint, *(cut.to_dict() for cut in todo)], sort_keys=True)
    return f"{hashlib.sha256(state.encode(errors='surrogatepass')).hexdigest()[:24]}.jsonl"


@contextmanager
def _parts_folder(out: Path) -> Iterator[Path]:
    """The folder of the parts, for one process alone; it goes when all is done."""
    parts = out / PARTS_NAME
    parts.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(parts / "lock", timeout=0):
            yield parts
            shutil.rmtree(parts)
    except Timeout as error:
        raise DataError(f"{out} is being aligned by another process; wait for it, or stop it.") from error
