"""What a worker of the synthesis pool does: speak utterances into files, and their words' times beside them.

Nothing heavy is imported here (no lhotse, no PyTorch): every worker would pay for it.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from salad.errors import AssetError, AudioError, DataError
from salad.files import read_json, write_atomic
from salad.speech.audio import resample, save_flac
from salad.synthesize.augment import augmented, softer
from salad.synthesize.cores import take_core
from salad.synthesize.variation import Utterance, spoken
from salad.synthesize.voices import load_voice
from salad.synthesize.voices.voice import Voice, WordTimes
from salad.workers import Died, FanOut, answer_all

RATE_HZ = 16_000
LONGEST_S = 30.0
_UNSPEAKABLE = ".unspeakable.txt"  # beside the FLACs: the reason why an utterance has none and never will
_WORDS = ".words.json"  # beside the FLACs: when each word is spoken, where the voice says so
_FROM_OUTSIDE = (None, -signal.SIGKILL, -signal.SIGTERM)  # somebody, or the machine out of memory, ended the process

Named = tuple[str, Utterance]
"""An utterance and the name of its file."""


@dataclass(frozen=True)
class Failed:
    """Why an utterance has no file."""

    reason: str


def speak_all(
    utterances: Iterable[Named], folder: Path, processes: int, fan_out: FanOut = answer_all
) -> Iterator[tuple[str, int | Failed]]:
    """Speak utterances in worker processes, drawn as workers are free; yields each one's name as it is done.

    With it comes the number of samples of its FLAC in `folder`, or why there is none. What a worker died of is tried
    once more at the end, alone on the machine: a process that ends may have been out of memory that others took. An
    utterance whose process crashes again is remembered; one that was killed from outside again is left for the next
    run.

    Raises:
        AssetError: a worker can't load a voice, or the voice does not work at all.
        DataError: `folder` can't be written to.
    """
    setup = partial(_speaker, folder)
    died: list[Named] = []
    for task, answer in fan_out(utterances, setup, processes):
        if isinstance(answer, Died):
            died.append(task)
        else:
            yield task[0], answer
    for task, answer in fan_out(died, setup, 1) if died else ():
        name = task[0]
        if not isinstance(answer, Died):
            yield name, answer
            continue
        reason = f"the voice's process ended twice while speaking it (exit code {answer.exit_code})"
        crashed = answer.exit_code not in _FROM_OUTSIDE
        yield name, _unspeakable(audio_file(folder, name), reason) if crashed else Failed(reason)


def audio_file(folder: Path, name: str) -> Path:
    """Where an utterance's FLAC lies."""
    return folder / f"{name}.flac"


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


def _speaker(folder: Path) -> Callable[[Named], int | Failed]:
    """In a worker: take a core, and give the function that speaks an utterance; voices are loaded when they come up."""
    take_core()
    voices: dict[str, Voice] = {}

    def answer(task: Named) -> int | Failed:
        name, utterance = task
        if utterance.voice not in voices:
            voices[utterance.voice] = load_voice(utterance.voice)
        try:
            return _speak(voices[utterance.voice], utterance, audio_file(folder, name))
        except OSError as error:
            raise DataError(f"{folder} can't be written to ({error}); free space and run again to go on.") from error

    return answer


def _speak(voice: Voice, utterance: Utterance, path: Path) -> int | Failed:
    """Speak one utterance into `path`; the number of samples written.

    Raises:
        AssetError: the voice does not work, whatever the text.
        OSError: the folder takes no more, which is not the text's fault.
    """
    try:
        audio, times = spoken(voice, utterance)
    except AssetError:
        raise
    except Exception as error:  # noqa: BLE001  whatever a voice raises on a text, the other texts must go on
        return Failed(f"the voice fails on it: {type(error).__name__}: {error}")
    if len(audio) == 0 or not np.any(audio):
        return _unspeakable(path, "the voice gives no sound for this text")
    duration_s = len(audio) / voice.rate_hz
    if duration_s > LONGEST_S:
        return _unspeakable(path, f"its speech takes {duration_s:.1f} s, over {LONGEST_S:.0f} s; split the text")
    try:
        audio = resample(audio, voice.rate_hz, RATE_HZ)
        if utterance.augmentation is not None:
            audio = augmented(softer(audio), RATE_HZ, utterance.augmentation)
        # Resampling rings past full scale where the voice is near it; such an utterance is made softer as a whole.
        audio = softer(audio)
        if times is not None:  # before the audio, so that an utterance that is there has its times
            write_atomic(path.with_suffix(_WORDS), json.dumps([[round(t, 4) for t in word] for word in times]))
        save_flac(path, audio, RATE_HZ)
    except AudioError as error:
        return Failed(f"the voice fails on it: {error}")
    return len(audio)


def _unspeakable(path: Path, reason: str) -> Failed:
    """A failure that would come again: remembered, so that the next run need not speak it to find out."""
    write_atomic(path.with_suffix(_UNSPEAKABLE), reason)
    return Failed(reason)
