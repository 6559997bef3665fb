"""Kokoro-82M: a StyleTTS 2 model of 54 voices. By onnxruntime, or on a GPU by its authors' PyTorch package."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from salad.errors import AssetError
from salad.synthesize.voices.kokoro_text import MOST_SIGNS, KokoroText, pieces
from salad.synthesize.voices.onnx import open_model
from salad.synthesize.voices.piper_times import TimedPhoneme, word_spans
from salad.synthesize.voices.voice import NO_SHIFT, Range, Spoken, WordTimes, check_asked, literal

if TYPE_CHECKING:
    import onnxruntime

RATE_HZ = 24_000
FRAME_SAMPLES = 600
"""Samples of a frame of the model's durations: 40 frames a second."""

LEAD_SAMPLES = FRAME_SAMPLES
"""How much earlier a sign sounds than its frames lie. Against PocketSphinx, two voices, 77 words each, starts are 27
and 37 ms late at the median without it, 2 and 12 ms with it; Piper's, whose times are exact, are 7 ms late."""

STYLE_DIM = 256
_SILENCE = 0.02  # of the loudest sample
_VERSION = "kokoro, signs 1"  # another number for every change that is heard


class Uttered(NamedTuple):
    """One piece: float32 [num_samples], and the number of frames of each id [num_ids], None when they are not known."""

    audio: NDArray[np.float32]
    frames: NDArray[np.int64] | None


class Model(Protocol):
    """What turns ids into sound."""

    def utter(self, ids: list[int], style: NDArray[np.float32], speed: float) -> Uttered:
        """The sound of `ids` [num_ids] in a style [256]."""


class Files(NamedTuple):
    """Where a Kokoro voice comes from.

    `styles`: float32 [510, 256], a row for each number of signs, as a voice's own table has them. `model`: the ONNX
    file, or the PyTorch weights.
    """

    model: Path
    styles: NDArray[np.float32]
    vocabulary: dict[str, int]


class KokoroVoice:
    """One of Kokoro's voices speaking English; the same text gives the same samples.

    A text of more than 510 signs is spoken in pieces, each ending where a sentence or a clause does.

    Args:
        voice: Kokoro's own name, for instance "af_heart"; b… are British, all others speak American English.
        files: the model, the voice's styles and the model's vocabulary.
        model: what speaks; None: onnxruntime with `files.model`, opened when it is first needed.
        threads: onnxruntime's threads.
        device: "cpu" or "cuda", where onnxruntime runs.
    """

    rate_hz = RATE_HZ
    speeds: Range = (0.5, 2.0)
    semitones: Range = NO_SHIFT
    deterministic = True

    def __init__(
        self, voice: str, files: Files, model: Model | None = None, threads: int = 1, device: str = "cpu"
    ) -> None:
        if files.styles.shape != (MOST_SIGNS, STYLE_DIM):
            shape = " x ".join(map(str, files.styles.shape))
            raise AssetError(f"voice kokoro-{voice}: its styles are {shape}, not 510 x 256; fetch its file anew.")
        self._voice, self._files, self._given = voice, files, model
        self._threads, self._device = threads, device
        self._text = KokoroText(files.vocabulary, british=voice.startswith("b"))

    @property
    def name(self) -> str:
        """For instance "kokoro-af_heart"."""
        return f"kokoro-{self._voice}"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the model, the voice's styles, how text becomes signs, and which program computes it."""
        by = type(self._given).__name__ if self._given is not None else self._device
        digest = hashlib.sha256(f"{_VERSION} {by} {sorted(self._files.vocabulary.items())}".encode())
        digest.update(np.ascontiguousarray(self._files.styles, dtype="<f4").tobytes())
        digest.update(str(self._voice.startswith("b")).encode())
        with self._files.model.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def speak(self, text: str, speed: float = 1.0, semitones: float = 0.0) -> Spoken:
        """The speech of normalized `text`, with the times of its words where the model's durations can be had.

        Raises:
            AssetError: the model's file is damaged.
        """
        check_asked(self, speed, semitones)
        audio: list[NDArray[np.float32]] = []
        timed: list[TimedPhoneme] | None = []
        sample = 0
        for piece in pieces(self._text.signs(literal(text))):
            uttered = self._model.utter(self._text.ids(piece), self._files.styles[len(piece) - 1], speed)
            now = _timed(piece, uttered, sample)
            timed = None if timed is None or now is None else timed + now
            audio.append(uttered.audio)
            sample += len(uttered.audio)
        sound = np.concatenate(audio) if audio else np.zeros(0, dtype=np.float32)
        sound /= max(1.0, float(np.abs(sound).max(initial=0.0)))  # the model may reach past full scale
        return Spoken(sound, self._word_times(text, timed, sound) if timed else None)

    def _word_times(self, text: str, timed: list[TimedPhoneme], sound: NDArray[np.float32]) -> WordTimes | None:
        alone = [self._text.signs(literal(word)) for word in text.split()]
        spans = word_spans([phoneme.symbol for phoneme in timed], alone)
        if spans is None:
            return None
        starts = [max(0, timed[begin].start - LEAD_SAMPLES) for begin, _ in spans]
        ends = [max(1, timed[end - 1].end - LEAD_SAMPLES) for _, end in spans]
        for word, following in enumerate([*starts[1:], len(sound)]):
            if following > ends[word]:  # the last sign before a pause has some of the pause among its frames
                ends[word] = _end_of_sound(sound, starts[word], ends[word])
        return [(start / RATE_HZ, end / RATE_HZ) for start, end in zip(starts, ends, strict=True)]

    @cached_property
    def _model(self) -> Model:
        return self._given or OnnxKokoro(self._files.model, self._threads, self._device)


class OnnxKokoro:
    """Kokoro exported to ONNX, by onnxruntime.

    Raises:
        AssetError: the file is damaged, or is no Kokoro model.
    """

    def __init__(self, path: Path, threads: int = 1, device: str = "cpu") -> None:
        self._session: onnxruntime.InferenceSession = open_model(path, threads, "Round", device)
        names = {item.name for item in self._session.get_inputs()}
        self._ids = "input_ids" if "input_ids" in names else "tokens"  # exports differ in what they call it
        if names != {self._ids, "style", "speed"}:
            raise AssetError(f"{path} is no Kokoro model: its inputs are {', '.join(sorted(names))}.")

    def utter(self, ids: list[int], style: NDArray[np.float32], speed: float) -> Uttered:
        """The sound of `ids` [num_ids], 0 at both ends, in a style [256]."""
        given = {self._ids: np.array([ids], dtype=np.int64), "style": style[None].astype(np.float32)}
        sound, *durations = self._session.run(None, given | {"speed": np.array([speed], dtype=np.float32)})
        audio = np.asarray(sound, dtype=np.float32).ravel()
        if not durations:
            return Uttered(audio, None)
        frames = np.maximum(np.asarray(durations[-1]).ravel(), 1).astype(np.int64)  # the model's own least is 1
        whole = len(frames) == len(ids) and frames.sum() * FRAME_SAMPLES == len(audio)
        return Uttered(audio, frames if whole else None)


def _timed(piece: str, uttered: Uttered, begin: int) -> list[TimedPhoneme] | None:
    """When each sign of a piece that begins at sample `begin` sounds; the marks around it are breaks."""
    if uttered.frames is None:
        return None
    ends = begin + np.cumsum(uttered.frames) * FRAME_SAMPLES
    starts = ends - uttered.frames * FRAME_SAMPLES
    return [TimedPhoneme(*item) for item in zip([" ", *piece, " "], starts.tolist(), ends.tolist(), strict=True)]


def _end_of_sound(sound: NDArray[np.float32], start: int, end: int) -> int:
    """`end` of a word, or one past its last sample that is not silent."""
    floor = _SILENCE * float(np.abs(sound).max(initial=0.0))
    loud = np.flatnonzero(np.abs(sound[start:end]) > floor)
    return start + int(loud[-1]) + 1 if len(loud) else end
