"""The cascade: recognize first, read then; what a speech LLM has to beat.

The ASR's transcripts stand in place of the speech, and the unchanged text LLM reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lhotse import MonoCut

from salad.speech.aligner import RATE_HZ
from salad.speech.audio import load_cut
from salad.speech.recognize import Recognizer


def transcripts(
    cuts: Sequence[MonoCut], recognizer: Recognizer, on_progress: Callable[[int, int], None] = lambda *_: None
) -> dict[str, str]:
    """Cut id -> what the ASR heard, numbers as words."""
    heard: dict[str, str] = {}
    for number, cut in enumerate(cuts, start=1):
        heard[cut.id] = recognizer.transcribe(load_cut(cut, RATE_HZ), spell_numbers=True)
        on_progress(number, len(cuts))
    return heard
