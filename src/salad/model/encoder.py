"""Frozen speech encoders: audio → features, each clip at its own length and by itself.

A clip's features never depend on which other clips were encoded with it: no batch, so no padding. Legend: F = frames,
E = feature width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from salad.assets import resolve
from salad.errors import AssetError, AudioError
from salad.files import read_json
from salad.speech.audio import Samples
from salad.speech.time import samples as to_samples

if TYPE_CHECKING:
    import torch
    from transformers import MimiModel, WhisperFeatureExtractor, WhisperModel

Features = NDArray[np.float32]
"""[num_frames, feature_dim]."""

WHISPER_WINDOW_S = 30.0


class SpeechEncoder(Protocol):
    """A frozen encoder."""

    name: str
    feature_dim: int
    frame_hz: float
    sample_rate_hz: int
    causal: bool
    """Whether a frame depends on no sound after it, so that speech can be encoded while it comes in."""
    fingerprint: str
    """Changes whenever the same audio could give other features: a hash of the weights and the settings."""

    def encode(self, samples: list[Samples]) -> list[Features]:
        """Features [num_frames, feature_dim] of each clip [num_samples] at `sample_rate_hz`.

        Raises:
            AudioError: a clip is empty.
        """


def load_encoder(name: str, threads: int = 1, compute_type: str = "int8", device: str = "auto") -> SpeechEncoder:
    """The encoder of that name: an asset ("whisper-tiny.en"), a hub name ("kyutai/mimi"), or a local folder.

    What it is follows from its files: Whisper in CTranslate2 (model.bin), or Mimi or Whisper in transformers.

    Args:
        threads: CPU threads of CTranslate2; the encoders in PyTorch use PyTorch's own setting.
        compute_type: CTranslate2's; the encoders in PyTorch run in float32.
        device: "auto" (a GPU when there is one), "cpu" or "cuda".

    Raises:
        AssetError: there is no such model, or it is no speech encoder that is known here.
    """
    folder = resolve(name)
    if (folder / "model.bin").is_file() and (folder / "tokenizer.json").is_file():
        return CTranslate2WhisperEncoder(folder, name, threads, compute_type, device)
    config = folder / "config.json"
    kind = read_json(config).get("model_type") if config.is_file() else None
    if kind == "mimi":
        return MimiEncoder.load(folder, name, device)
    if kind == "whisper":
        return WhisperEncoder.load(folder, name, device)
    raise AssetError(
        f"{name!r} ({folder}) is of type {kind!r}, not a speech encoder known here; name a Mimi or Whisper model, or a "
        "Whisper converted to CTranslate2."
    )


class CTranslate2WhisperEncoder:
    """Whisper's encoder in CTranslate2, 50 frames a second.

    The window is the clip's own length, not 30 s: an eighth of the cost for a 4 s clip, and other numbers than a padded
    window gives (cosine 0.98 at 5 s, 0.88 at 1 s), so features of the two kinds don't mix. A clip over 30 s is cut into
    consecutive 30 s windows that know nothing of each other. Not causal within a window.
    """

    causal = False
    frame_hz = 50.0
    sample_rate_hz = 16_000

    def __init__(
        self, folder: Path, name: str = "whisper", threads: int = 1, compute_type: str = "int8", device: str = "auto"
    ) -> None:
        from salad.speech.recognize import load_whisper

        self.name = name
        self._whisper = load_whisper(folder, threads, compute_type, device)
        self.fingerprint = _hash_of([folder / "model.bin", folder / "config.json"], f"own length {compute_type}")
        self.feature_dim = self.encode([np.zeros(self.sample_rate_hz, dtype=np.float32)])[0].shape[1]

    def encode(self, samples: list[Samples]) -> list[Features]:
        """Features [num_frames, feature_dim] of each clip [num_samples] at 16 kHz; see the class."""
        from salad.speech.recognize import log_mel

        encoded: list[Features] = []
        for clip in samples:
            windows_FE = []
            for window in _windows(clip, self.sample_rate_hz):
                hidden_1FE = self._whisper.encode(log_mel(self._whisper, window))
                windows_FE.append(_to_numpy(hidden_1FE)[0])
            encoded.append(np.concatenate(windows_FE))
        return encoded


class WhisperEncoder:
    """Whisper's encoder in transformers, 50 frames a second, on 30 s windows padded with silence as it was trained.

    Frames that begin after the clip's end are dropped. A clip over 30 s is cut into consecutive windows that know
    nothing of each other. Not causal within a window.
    """

    causal = False
    sample_rate_hz = 16_000
    frame_hz = 50.0

    def __init__(self, model: WhisperModel, extractor: WhisperFeatureExtractor, name: str, fingerprint: str) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.feature_dim = int(model.config.d_model)
        self._encoder = model.get_encoder().eval()
        self._extractor = extractor

    @classmethod
    def load(cls, folder: Path, name: str, device: str = "auto") -> WhisperEncoder:
        """From a local folder in transformers' layout."""
        import torch
        from transformers import WhisperFeatureExtractor, WhisperModel

        model: WhisperModel = WhisperModel.from_pretrained(folder, dtype="float32")
        model.to(torch.device(_torch_device(device)))  # type: ignore[arg-type]  # transformers' wrapper hides the method
        return cls(model, WhisperFeatureExtractor.from_pretrained(folder), name, _hash_of(_weights(folder), "30 s"))

    def encode(self, samples: list[Samples]) -> list[Features]:
        """Features [num_frames, feature_dim] of each clip [num_samples] at 16 kHz; see the class."""
        return [
            np.concatenate([self._encode_window(window) for window in _windows(clip, self.sample_rate_hz)])
            for clip in samples
        ]

    def _encode_window(self, window: Samples) -> Features:
        import torch

        mel = self._extractor(window, sampling_rate=self.sample_rate_hz, return_tensors="pt").input_features
        with torch.inference_mode():
            hidden_1FE = self._encoder(mel.to(self._encoder.device)).last_hidden_state
        num_frames = -(-len(window) // to_samples(1 / self.frame_hz, self.sample_rate_hz))
        return _from_torch(hidden_1FE[0, :num_frames])


class MimiEncoder:
    """Mimi's continuous latents before quantization, 12.5 frames of 512 a second for kyutai/mimi; causal.

    A clip is filled with silence to whole frames (1,920 samples), which no layer has to pad again; so a clip's frames
    are the same whether it is encoded whole, in streaming steps, or as the start of a longer one.
    """

    causal = True

    def __init__(self, model: MimiModel, name: str, fingerprint: str) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.feature_dim = int(model.config.hidden_size)
        self.frame_hz = float(model.config.frame_rate)
        self.sample_rate_hz = int(model.config.sampling_rate)
        self._frame_samples = to_samples(1 / self.frame_hz, self.sample_rate_hz)
        if model.encoder is None:
            raise AssetError(f"{name!r} is a Mimi without its encoder; name one that has it.")
        self._encoder = model.encoder.eval()

    @classmethod
    def load(cls, folder: Path, name: str, device: str = "auto") -> MimiEncoder:
        """From a local folder in transformers' layout."""
        import torch
        from transformers import MimiModel

        model: MimiModel = MimiModel.from_pretrained(folder, dtype="float32")
        model.to(torch.device(_torch_device(device)))  # type: ignore[arg-type]  # transformers' wrapper hides the method
        return cls(model, name, _hash_of(_weights(folder), "latents, whole frames"))

    def encode(self, samples: list[Samples]) -> list[Features]:
        """Latents [num_frames, feature_dim] of each clip [num_samples] at `sample_rate_hz`; see the class."""
        import torch

        encoded: list[Features] = []
        for clip in samples:
            _refuse_empty(clip)
            whole = np.pad(clip, (0, -len(clip) % self._frame_samples))
            waveform_11S = torch.from_numpy(whole)[None, None].to(self._encoder.device)
            with torch.inference_mode():
                latents_1EF = self._encoder(waveform_11S).latents
            encoded.append(_from_torch(latents_1EF[0].T))
        return encoded


def _windows(clip: Samples, rate_hz: int) -> Iterator[Samples]:
    """Consecutive windows of at most 30 s."""
    _refuse_empty(clip)
    size = to_samples(WHISPER_WINDOW_S, rate_hz)
    return (clip[start : start + size] for start in range(0, len(clip), size))


def _refuse_empty(clip: Samples) -> None:
    if len(clip) == 0:
        raise AudioError("a clip of no samples can't be encoded; leave the utterance out.")


def _to_numpy(hidden: Any) -> Features:
    """A CTranslate2 StorageView, wherever and in whatever precision it is, as float32."""
    import ctranslate2

    on_cpu = hidden.to_device(ctranslate2.Device.cpu) if hidden.device != "cpu" else hidden
    return np.array(on_cpu.to(ctranslate2.DataType.float32), dtype=np.float32)


def _from_torch(features_FE: torch.Tensor) -> Features:
    return np.ascontiguousarray(features_FE.float().cpu().numpy())


def _torch_device(device: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def _weights(folder: Path) -> list[Path]:
    """The files of a transformers model that its features depend on."""
    return sorted([*folder.glob("*.safetensors"), *folder.glob("*config.json")])


def _hash_of(files: Sequence[Path], settings: str) -> str:
    """SHA-256 of the files' names and contents and of the settings in words."""
    digest = hashlib.sha256(settings.encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(f"\n{path.name}\n".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
