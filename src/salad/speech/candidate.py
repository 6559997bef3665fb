"""What a corpus says of an utterance before anyone has looked at the audio, and what will be asked of it.

A corpus module (`speech/corpora/`) reads its own layout and yields candidates; `speech/intake.py` turns each into a cut
or a rejection. Nothing heavy is imported here: the worker processes of the intake load it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_LANGUAGE = "English"
"""Of an utterance whose corpus says none; written as Lhotse's recipes write it."""


@dataclass(frozen=True)
class Candidate:
    """One utterance as its corpus describes it, not yet checked.

    Attributes:
        id: the cut's id; must be unique in the corpus and fit to name a file.
        place: where it is described: "manifest.jsonl:17", or the audio's path.
        audio: the audio file, absolute or from the working directory.
        text: the transcript, as it was written.
        start_s: where its span of `audio` begins, in seconds.
        duration_s: how long the span is; None: to the end of the file.
        stated_duration_s: what the corpus says its duration is, to be compared with the audio.
        document: utterances of one document (a chapter, a podcast) that follow each other are neighbours in its text.
        words: word timings that came with it, (word, start, end) in seconds from the span's start. Its words must be
            those of the text up to case and punctuation; words without a letter or digit ("") are silence.
        custom: what else to keep with the cut, small and fit for JSON.
    """

    id: str
    place: str
    audio: Path
    text: str
    start_s: float = 0.0
    duration_s: float | None = None
    stated_duration_s: float | None = None
    speaker: str | None = None
    language: str | None = None
    licence: str | None = None
    source: str | None = None
    document: str | None = None
    words: tuple[tuple[str, float, float], ...] | None = None
    custom: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checks:
    """What an utterance must satisfy to be taken; the defaults refuse what no speech corpus means to contain.

    Attributes:
        min_duration_s: shorter spans hold no word.
        max_duration_s: longer spans are recordings that were never cut into utterances. LibriSpeech's longest utterance
            has 35 s, LibriHeavy's and Emilia's 30 s; two minutes at 12.5 Hz take 1,500 of a window's 2,048 positions,
            and their words must go beside them.
        max_clipped_frac: share (0-1) of samples at full scale that follow another such sample: a flat top.
        min_peak: half the distance between the lowest and the highest sample; 0.001 is -60 dB of full scale.
        duration_slack_s: how far a stated duration may be from the audio's before the transcript is held to be
            another file's.
        max_words_per_s: nobody speaks faster; the transcript is another file's.
        min_script_frac: share (0-1) of letters that must be of the script its language is written in; 0 allows any.
        language: of utterances whose corpus says none.
        strict: stop at the first utterance that can't be taken.
    """

    min_duration_s: float = 0.1
    max_duration_s: float = 120.0
    max_clipped_frac: float = 0.01
    min_peak: float = 0.001
    duration_slack_s: float = 0.5
    max_words_per_s: float = 10.0
    min_script_frac: float = 0.8
    language: str = DEFAULT_LANGUAGE
    strict: bool = False
