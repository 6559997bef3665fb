"""Word timings for a whole folder of cuts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from lhotse import MonoCut

from salad.errors import AlignmentError, AudioError, MissingFileError
from salad.speech.audio import audio_place, load_cut
from salad.speech.prepared import Rejected, text_of, with_words, words_of
from salad.speech.recognize import RATE_HZ, Recognizer

Progress = Callable[[int, int], None]
"""Told (done, total) after every item."""


def align_cuts(
    cuts: Sequence[MonoCut], recognizer: Recognizer, progress: Progress | None = None
) -> tuple[list[MonoCut], list[Rejected], dict[str, Any]]:
    """The cuts with word timings, those that could not be aligned, and a report.

    A cut that already has timings of its own text's words keeps them. The report: `num_cuts`, `num_kept` (came with
    timings), `num_aligned`, `num_rejected`, `num_words` (placed here), `confidence_median`, `confidence_worst` (with
    `worst_cut`; means over a cut's words; None when nothing was placed), `speech_s` (aligned here),
    `seconds` (of work).
    """
    began = time.monotonic()
    done: list[MonoCut] = []
    rejected: list[Rejected] = []
    confidences: list[float] = []
    by_cut: dict[str, float] = {}
    speech_s = 0.0
    for number, cut in enumerate(cuts, start=1):
        try:
            if _has_timings(cut):
                done.append(cut)
            else:
                placed = align_cut(cut, recognizer)
                confidences += placed
                by_cut[cut.id] = statistics.fmean(placed)
                speech_s += cut.duration
                done.append(cut)
        except (AlignmentError, AudioError, MissingFileError) as error:
            rejected.append(Rejected(cut.id, str(error), audio_place(cut)))
        if progress is not None:
            progress(number, len(cuts))
    worst_cut = min(by_cut, key=lambda cut_id: by_cut[cut_id], default=None)
    report = {
        "num_cuts": len(cuts),
        "num_kept": len(done) - len(by_cut),
        "num_aligned": len(by_cut),
        "num_rejected": len(rejected),
        "num_words": len(confidences),
        "confidence_median": statistics.median(confidences) if confidences else None,
        "confidence_worst": by_cut[worst_cut] if worst_cut is not None else None,
        "worst_cut": worst_cut,
        "speech_s": speech_s,
        "seconds": time.monotonic() - began,
    }
    return done, rejected, report


def align_cut(cut: MonoCut, recognizer: Recognizer) -> list[float]:
    """Give one cut its word timings, in place; returns the confidence (0-1) of each word.

    Raises:
        AlignmentError: its text can't be placed on its audio.
        AudioError, MissingFileError: its audio can't be read.
    """
    words = text_of(cut).split()
    placed = recognizer.align(load_cut(cut, RATE_HZ), words)
    with_words(cut, ((text, *spoken) for text, spoken in zip(words, placed, strict=True)))
    return [word.confidence for word in placed]


def _has_timings(cut: MonoCut) -> bool:
    """Whether a cut came with timings of exactly its words; timings of other words are made anew."""
    try:
        return len(words_of(cut)) > 0
    except AlignmentError:
        return False
