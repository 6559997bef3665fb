"""Piper: a VITS voice in ONNX (`VOICE.onnx` and `VOICE.onnx.json` in one folder)."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from salad.errors import AssetError, SaladError
from salad.files import read_json
from salad.synthesize.voices.piper_times import TimedPhoneme, timed_phonemes, word_spans
from salad.synthesize.voices.voice import NO_SHIFT, Range, Spoken, WordTimes, check_asked, literal

if TYPE_CHECKING:
    import piper

PAUSE_S = 0.2
"""Silence between sentences, in seconds. Piper speaks each by itself and ends it abruptly; its own command line also
leaves the pause to the caller."""


class PiperVoice:
    """A Piper voice without its noise, so that the same text gives the same samples.

    Loudness is the model's own: Piper's default scales every sentence to full scale, so that a resampled one overshoots
    it, and makes a whispered "no" as loud as a paragraph.

    Args:
        folder: holds one .onnx file and its .onnx.json.
        threads: onnxruntime's threads for one sentence; more voices in more processes are worth more than threads.

    Raises:
        AssetError: the folder does not hold exactly one voice, or its configuration can't be read.
    """

    speeds: Range = (0.5, 2.0)
    semitones: Range = NO_SHIFT
    deterministic = True

    def __init__(self, folder: Path, threads: int = 1) -> None:
        models = sorted(folder.glob("*.onnx"))
        if len(models) != 1 or not models[0].with_suffix(".onnx.json").is_file():
            found = ", ".join(path.name for path in models) or "none"
            raise AssetError(
                f"{folder} must hold one .onnx and its .onnx.json to be a Piper voice (.onnx found: {found})."
            )
        self._model = models[0]
        self._threads = threads
        self._config = _config(self._model.with_suffix(".onnx.json"))

    @property
    def name(self) -> str:
        """The model file's name, for instance "en_US-joe-medium"."""
        return self._model.stem

    @property
    def rate_hz(self) -> int:
        """Samples per second, from the voice's own configuration."""
        return int(self._config["audio"]["sample_rate"])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the model, its configuration and the settings used here."""
        digest = hashlib.sha256(f"piper noise_scale=0 noise_w_scale=0 normalize=0 pause={PAUSE_S}".encode())
        with self._model.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        digest.update(self._model.with_suffix(".onnx.json").read_bytes())
        return digest.hexdigest()

    def speak(self, text: str, speed: float = 1.0, semitones: float = 0.0) -> Spoken:
        """The speech of normalized `text`, with the times of its words where the model's durations can be had.

        Every phoneme's duration is divided by `speed` before it is rounded up to whole frames: at 2 it lasts a little
        over half as long.

        Raises:
            AssetError: the model's file is damaged.
        """
        from piper import SynthesisConfig

        check_asked(self, speed, semitones)
        length_scale = self._piper.config.length_scale / speed
        config = SynthesisConfig(length_scale=length_scale, noise_scale=0.0, noise_w_scale=0.0, normalize_audio=False)
        pieces: list[NDArray[np.float32]] = []
        phonemes: list[TimedPhoneme] | None = []
        pause = np.zeros(round(PAUSE_S / speed * self.rate_hz), dtype=np.float32)
        for chunk in self._piper.synthesize(literal(text), config, include_alignments=True):
            begin = sum(map(len, pieces)) + (len(pause) if pieces else 0)
            timed = timed_phonemes(chunk, begin)
            phonemes = None if phonemes is None or timed is None else [*phonemes, *timed]
            pieces += [pause, chunk.audio_float_array] if pieces else [chunk.audio_float_array]
        audio = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)
        return Spoken(audio, self._word_times(text.split(), phonemes) if phonemes else None)

    def _word_times(self, words: list[str], phonemes: list[TimedPhoneme]) -> WordTimes | None:
        alone = [[phoneme for part in self._piper.phonemize(literal(word)) for phoneme in part] for word in words]
        spans = word_spans([phoneme.symbol for phoneme in phonemes], alone)
        if spans is None:
            return None
        return [(phonemes[i].start / self.rate_hz, phonemes[j - 1].end / self.rate_hz) for i, j in spans]

    @cached_property
    def _piper(self) -> piper.PiperVoice:
        from piper import PiperVoice as Piper
        from piper.config import PiperConfig

        from salad.synthesize.voices.onnx import open_model

        try:
            config = PiperConfig.from_dict(self._config)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AssetError(
                f"{self._model}.json is no configuration of a Piper voice ({type(error).__name__}: {error}); fetch "
                "both files anew."
            ) from error
        return Piper(session=open_model(self._model, self._threads, durations="Ceil"), config=config)


def _config(path: Path) -> dict[str, Any]:
    """A Piper voice's configuration, as far as it must be right before the voice is asked to speak."""
    try:
        config: dict[str, Any] = read_json(path)
        if not isinstance(config["audio"]["sample_rate"], int) or "phoneme_id_map" not in config:
            raise TypeError("it has no sample rate or no phonemes")
    except (SaladError, KeyError, TypeError, ValueError) as error:
        why = f"{type(error).__name__}: {error}".rstrip(".")
        raise AssetError(f"{path} is no configuration of a Piper voice ({why}); fetch both files anew.") from error
    return config
