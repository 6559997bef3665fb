"""Worker processes that speak: one voice, one thread, one pipe each.

A worker whose parent is gone, even killed, reads the end of its pipe and stops; a worker that dies takes one text with
it. multiprocessing's own pool waits for ever on a dead worker, and concurrent.futures gives up on all texts.
Nothing heavy is imported here (no lhotse, no PyTorch): every worker would pay for it.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from pathlib import Path

import numpy as np
import soundfile

from salad.errors import AudioError, DataError, SaladError
from salad.files import write_atomic
from salad.speech.audio import resample, save_flac
from salad.synthesize.voices import Voice, load_voice

RATE_HZ = 16_000
LONGEST_S = 30.0
_LOUDEST = 0.99
_UNSPEAKABLE = ".unspeakable.txt"  # beside the FLACs: the reason why an utterance has none and never will


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
    context = multiprocessing.get_context("spawn")  # onnxruntime's threads do not survive a fork
    queue = deque(tasks)
    busy: dict[object, _Worker] = {}
    try:
        while queue and len(busy) < processes:
            _give_next(queue, _Worker(context, voice, folder), busy)
        while busy:
            for pipe in wait([worker.pipe for worker in busy.values()]):
                worker = busy[pipe]
                utterance, answer = worker.utterance, worker.take()
                if isinstance(answer, SaladError):
                    raise answer
                yield utterance, answer
                del busy[pipe]
                if queue and worker.process.is_alive():
                    _give_next(queue, worker, busy)
                    continue
                worker.end()
                if queue:
                    _give_next(queue, _Worker(context, voice, folder), busy)
    finally:
        for worker in busy.values():
            worker.end()


def audio_file(folder: Path, utterance: str) -> Path:
    """Where an utterance's FLAC lies."""
    return folder / f"{utterance}.flac"


def earlier_result(path: Path) -> int | Failed | None:
    """What an earlier run made of an utterance: its FLAC's length, why it has none, or None: nothing yet."""
    with suppress(soundfile.LibsndfileError):
        return int(soundfile.info(path).frames)
    unspeakable = path.with_suffix(_UNSPEAKABLE)
    return Failed(unspeakable.read_text()) if unspeakable.is_file() else None


class _Worker:
    """A process that speaks one text at a time."""

    def __init__(self, context: SpawnContext, voice: str, folder: Path) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, voice, folder), daemon=True)
        self.process.start()
        theirs.close()  # so that the worker's death is the end of this pipe
        self.utterance = ""

    def give(self, utterance: str, text: str) -> None:
        self.utterance = utterance
        with suppress(OSError):  # it died while idle: `take` finds the end of the pipe and says so
            self.pipe.send((utterance, text))

    def take(self) -> int | Failed | SaladError:
        """The answer that is waiting, or why there is none and never will be."""
        try:
            answer: int | Failed | SaladError = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return Failed(f"the voice's process ended while speaking it (exit code {self.process.exitcode})")
        return answer

    def end(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def _give_next(queue: deque[tuple[str, str]], worker: _Worker, busy: dict[object, _Worker]) -> None:
    worker.give(*queue.popleft())
    busy[worker.pipe] = worker


def _serve(pipe: Connection, voice: str, folder: Path) -> None:
    """The worker's life: load the voice, then answer every (utterance, text) until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    speaker: Voice | None = None
    with suppress(EOFError, OSError):  # the parent is gone, or wants no more
        while True:
            utterance, text = pipe.recv()
            try:
                speaker = speaker or load_voice(voice)
                answer: int | Failed | SaladError = _speak(speaker, text, audio_file(folder, utterance))
            except SaladError as error:
                answer = error
            except OSError as error:
                answer = DataError(f"{folder} can't be written to ({error}); free space and run again to go on.")
            pipe.send(answer)


def _speak(voice: Voice, text: str, path: Path) -> int | Failed:
    """Speak one text into `path`; the number of samples written.

    Raises:
        OSError: the folder takes no more, which is not the text's fault.
    """
    try:
        spoken = voice.speak(text)
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
    try:
        save_flac(path, audio, RATE_HZ)
    except AudioError as error:
        return Failed(f"the voice fails on it: {error}")
    return len(audio)


def _unspeakable(path: Path, reason: str) -> Failed:
    """A failure that would come again: remembered, so that the next run need not speak it to find out."""
    write_atomic(path.with_suffix(_UNSPEAKABLE), reason)
    return Failed(reason)
