"""What a worker of the synthesis pool does: speak one text into one file, and its words' times beside it.

Nothing heavy is imported here (no lhotse, no PyTorch): every worker would pay for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from salad.errors import AudioError, DataError
from salad.files import read_json, write_atomic
from salad.speech.audio import resample, save_flac
from salad.synthesize.voices import load_voice
from salad.synthesize.voices.voice import Voice, WordTimes
from salad.workers import Died, answer_all

RATE_HZ = 16_000
LONGEST_S = 30.0
_LOUDEST = 0.99
_UNSPEAKABLE = ".unspeakable.txt"  # beside the FLACs: the reason why an utterance has none and never will
_WORDS = ".words.json"  # beside the FLACs: when each word is spoken, where the voice says so


@dataclass(frozen=True)
class Failed:
    """Why an utterance has no file."""

    reason: str


def speak_all(
    tasks: Sequence[tuple[str, str]], voice: str, folder: Path, processes: int
) -> Iterator[tuple[str, int | Failed]]:
    """Speak (utterance, text) pairs in worker processes; yields each utterance as it is done.

    With it comes the number of samples of its FLAC in `folder`, or why there is none.

    Raises:
        AssetError: a worker can't load the voice.
        DataError: `folder` can't be written to.
    """
    for (utterance, _), answer in answer_all(tasks, partial(_speaker, voice, folder), processes):
        if isinstance(answer, Died):
            reason = f"the voice's process ended while speaking it (exit code {answer.exit_code})"
            yield utterance, Failed(reason)
        else:
            yield utterance, answer


def audio_file(folder: Path, utterance: str) -> Path:
    """Where an utterance's FLAC lies."""
    return folder / f"{utterance}.flac"


def word_times(path: Path) -> WordTimes | None:
    """When each word of the FLAC at `path` is spoken; None when its voice did not say."""
    beside = path.with_suffix(_WORDS)
    return [(start_s, end_s) for start_s, end_s in read_json(beside)] if beside.is_file() else None


def earlier_result(path: Path) -> int | Failed | None:
    """What an earlier run made of an utterance: its FLAC's length, why it has none, or None: nothing yet."""
    with suppress(soundfile.LibsndfileError):
        return int(soundfile.info(path).frames)
    unspeakable = path.with_suffix(_UNSPEAKABLE)
    return Failed(unspeakable.read_text()) if unspeakable.is_file() else None


def _speaker(voice: str, folder: Path) -> Callable[[tuple[str, str]], int | Failed]:
    """In a worker: load the voice, and give the function that speaks an (utterance, text)."""
    speaker = load_voice(voice)

    def answer(task: tuple[str, str]) -> int | Failed:
        utterance, text = task
        try:
            return _speak(speaker, text, audio_file(folder, utterance))
        except OSError as error:
            raise DataError(f"{folder} can't be written to ({error}); free space and run again to go on.") from error

    return answer


def _speak(voice: Voice, text: str, path: Path) -> int | Failed:
    """Speak one text into `path`; the number of samples written.

    Raises:
        OSError: the folder takes no more, which is not the text's fault.
    """
    try:
        spoken, times = voice.speak(text)
    except Exception as error:  # noqa: BLE001  whatever a voice raises on a text, the other texts must go on
        return Failed(f"the voice fails on it: {type(error).__name__}: {error}")
    if len(spoken) == 0 or not np.any(spoken):
        return _unspeakable(path, "the voice gives no sound for this text")
    duration_s = len(spoken) / voice.rate_hz
    if duration_s > LONGEST_S:
        return _unspeakable(path, f"its speech takes {duration_s:.1f} s, over {LONGEST_S:.0f} s; split the text")
    audio = resample(spoken, voice.rate_hz, RATE_HZ)
    # Resampling rings past full scale where the voice is near it; such an utterance is made softer as a whole.
    audio = audio * np.float32(min(1.0, _LOUDEST / float(np.abs(audio).max())))
    if times is not None:  # before the audio, so that an utterance that is there has its times
        write_atomic(path.with_suffix(_WORDS), json.dumps([[round(t, 4) for t in word] for word in times]))
    try:
        save_flac(path, audio, RATE_HZ)
    except AudioError as error:
        return Failed(f"the voice fails on it: {error}")
    return len(audio)


def _unspeakable(path: Path, reason: str) -> Failed:
    """A failure that would come again: remembered, so that the next run need not speak it to find out."""
    write_atomic(path.with_suffix(_UNSPEAKABLE), reason)
    return Failed(reason)
