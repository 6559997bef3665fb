"""Texts → a prepared folder of synthetic speech, by worker processes, resumable to the utterance.

An utterance's file is named by what it sounds like: sha256(voice fingerprint | text)[:16]. A file that is there is
right (they are written atomically), so a run that was stopped, or another folder that shares `audio_dir`, uses it.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

from salad.errors import AudioError, DataError, SaladError
from salad.files import write_atomic
from salad.speech.audio import resample, save_flac
from salad.speech.prepared import Rejected, write_prepared
from salad.synthesize.voices import Voice, load_voice

RATE_HZ = 16_000
LONGEST_S = 30.0
_LOUDEST = 0.99
_UNSPEAKABLE = ".unspeakable.txt"  # beside the FLACs: the reason why an utterance has none and never will


class Text(Protocol):
    """What is spoken: a text, already normalized, with an id of its own."""

    @property
    def id(self) -> str:
        """Becomes the cut's id."""

    @property
    def text(self) -> str:
        """The words to speak."""


@dataclass(frozen=True)
class _Failed:
    """Why an utterance has no file."""

    reason: str


def synthesize(
    texts: Sequence[Text],
    voice: str,
    out: Path,
    processes: int,
    progress: Callable[[int, int], None] | None = None,
    audio_dir: Path | None = None,
) -> None:
    """Speak every text and write the prepared folder `out`: one 16 kHz mono FLAC and one cut a text, in input order.

    A text that the voice fails on, or whose speech is empty or longer than `LONGEST_S`, is rejected with the reason and
    the rest goes on; so it does when a worker process dies of it. Equal texts share one file.

    Args:
        texts: ids must be unique.
        voice: as `load_voice` knows it.
        out: the prepared folder; written at the end, so a folder with cuts is whole.
        processes: worker processes, one thread each; they end with this one, whichever way it ends.
        progress: told (done, total) in utterances.
        audio_dir: where the FLACs lie, `out`/audio unless several folders share it.

    Raises:
        DataError: two texts share an id, `processes` is below one, or the disk takes no more.
        AssetError: the voice can't be loaded.
    """
    _check(texts, processes)
    speaker = load_voice(voice)
    folder = (audio_dir or out / "audio").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    utterances = {text.id: utterance_id(speaker.fingerprint, text.text) for text in texts}
    num_samples = _speak_all(texts, utterances, voice, folder, processes, progress)
    cuts: list[MonoCut] = []
    rejected: list[Rejected] = []
    for text in texts:
        utterance = utterances[text.id]
        found = num_samples[utterance]
        if isinstance(found, _Failed):
            rejected.append(Rejected(text.id, found.reason, f"voice {speaker.name}"))
        else:
            cuts.append(_cut(text, _file(folder, utterance), utterance, found, speaker.name))
    info = {"corpus": "synthesized", "voice": speaker.name, "voice_fingerprint": speaker.fingerprint}
    write_prepared(out, cuts, rejected, info)


def utterance_id(fingerprint: str, text: str) -> str:
    """The name of what a voice with this fingerprint makes of `text`: sha256(fingerprint | text), 16 hex digits."""
    return hashlib.sha256(f"{fingerprint}|{text}".encode()).hexdigest()[:16]


def _check(texts: Sequence[Text], processes: int) -> None:
    if processes < 1:
        raise DataError(f"{processes} processes can't synthesize anything; give 1 or more.")
    seen: set[str] = set()
    for text in texts:
        if text.id in seen:
            raise DataError(
                f"the text id {text.id!r} stands twice; ids must be unique, or cuts could not be told apart."
            )
        seen.add(text.id)


def _speak_all(
    texts: Sequence[Text],
    utterances: dict[str, str],
    voice: str,
    folder: Path,
    processes: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, int | _Failed]:
    """For every utterance its number of samples at 16 kHz, or why there is none."""
    results: dict[str, int | _Failed] = {}
    wanted = {utterances[text.id]: text.text for text in texts}
    for utterance in wanted:
        there = _found(_file(folder, utterance))
        if there is not None:
            results[utterance] = there
    if progress is not None:
        progress(len(results), len(wanted))
    missing = [(utterance, text) for utterance, text in wanted.items() if utterance not in results]
    for utterance, result in _work(missing, voice, folder, processes):
        results[utterance] = result
        if progress is not None:
            progress(len(results), len(wanted))
    return results


def _file(folder: Path, utterance: str) -> Path:
    return folder / f"{utterance}.flac"


def _found(path: Path) -> int | _Failed | None:
    """What an earlier run made of an utterance: its FLAC's length, why it has none, or None: nothing yet."""
    with suppress(soundfile.LibsndfileError):
        return int(soundfile.info(path).frames)
    unspeakable = path.with_suffix(_UNSPEAKABLE)
    return _Failed(unspeakable.read_text()) if unspeakable.is_file() else None


def _cut(text: Text, path: Path, utterance: str, num_samples: int, speaker: str) -> MonoCut:
    duration_s = num_samples / RATE_HZ
    source = AudioSource(type="file", channels=[0], source=str(path))
    recording = Recording(utterance, [source], RATE_HZ, num_samples, duration_s)
    words = SupervisionSegment(
        id=text.id,
        recording_id=utterance,
        start=0.0,
        duration=duration_s,
        text=text.text,
        language="en",
        speaker=speaker,
    )
    return MonoCut(id=text.id, start=0.0, duration=duration_s, channel=0, supervisions=[words], recording=recording)


# Worker processes. One pipe each: a worker whose parent is gone, even killed, reads the end of its pipe and stops, and
# a worker that dies takes one text with it. multiprocessing's own pool waits for ever on a dead worker, and
# concurrent.futures gives up on all texts.


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

    def take(self) -> int | _Failed | SaladError:
        """The answer that is waiting, or why there is none and never will be."""
        try:
            answer: int | _Failed | SaladError = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return _Failed(f"the voice's process ended while speaking it (exit code {self.process.exitcode})")
        return answer

    def end(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def _work(
    tasks: Sequence[tuple[str, str]], voice: str, folder: Path, processes: int
) -> Iterator[tuple[str, int | _Failed]]:
    """Speak (utterance, text) pairs in worker processes; yields results as they come."""
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
                answer: int | _Failed | SaladError = _speak(speaker, text, _file(folder, utterance))
            except SaladError as error:
                answer = error
            pipe.send(answer)


def _speak(voice: Voice, text: str, path: Path) -> int | _Failed:
    """Speak one text into `path`; the number of samples written.

    Raises:
        DataError: the file can't be written, which is not the text's fault.
    """
    try:
        spoken = voice.speak(text)
        if len(spoken) == 0 or not np.any(spoken):
            return _unspeakable(path, "the voice gives no sound for this text")
        duration_s = len(spoken) / voice.rate_hz
        if duration_s > LONGEST_S:
            return _unspeakable(path, f"its speech takes {duration_s:.1f} s, over {LONGEST_S:.0f} s; split the text")
        audio = resample(spoken, voice.rate_hz, RATE_HZ)
    except Exception as error:  # noqa: BLE001  whatever a voice raises on a text, the other texts must go on
        return _Failed(f"the voice fails on it: {type(error).__name__}: {error}")
    # Resampling rings past full scale where the voice is near it; such an utterance is made softer as a whole.
    audio = audio * np.float32(min(1.0, _LOUDEST / float(np.abs(audio).max())))
    try:
        save_flac(path, audio, RATE_HZ)
    except AudioError as error:
        return _Failed(f"the voice fails on it: {error}")
    except OSError as error:
        raise DataError(f"{path} can't be written ({error}); free space and run again to go on from here.") from error
    return len(audio)


def _unspeakable(path: Path, reason: str) -> _Failed:
    """A failure that would come again: remembered, so that the next run need not speak it to find out."""
    write_atomic(path.with_suffix(_UNSPEAKABLE), reason)
    return _Failed(reason)
