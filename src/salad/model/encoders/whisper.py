"""Whisper's encoder, 50 frames a second, not causal: in transformers on 30 s windows, in CTranslate2 at own length.

The two give different numbers for the same clip (cosine 0.98 at 5 s, 0.88 at 1 s), so their features don't mix. A clip
over 30 s is cut into consecutive windows that know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salad.model.encoders.speech_encoder import (
    BATCH_S,
    Features,
    compute_dtype,
    computing_in,
    hash_of,
    refuse_empty,
    to_numpy,
    torch_device,
    weights_of,
)
from salad.speech.audio import Samples
from salad.speech.time import samples as to_samples

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor, WhisperModel

WINDOW_S = 30.0


class CTranslate2WhisperEncoder:
    """Whisper's encoder in CTranslate2; the window is the clip's own length, an eighth of the cost for a 4 s clip.

    One clip at a time: windows of several lengths can't share a batch, and on a CPU a batch is no faster.
    """

    causal = False
    frame_hz = 50.0
    sample_rate_hz = 16_000

    def __init__(
        self, folder: Path, name: str = "whisper", threads: int = 1, compute_type: str = "auto", device: str = "auto"
    ) -> None:
        """`compute_type` is CTranslate2's; "auto" is int8."""
        from salad.speech.recognize import load_whisper

        precision = "int8" if compute_type == "auto" else compute_type
        self.name = name
        self._whisper = load_whisper(folder, threads, precision, device)
        self.fingerprint = hash_of([folder / "model.bin", folder / "config.json"], f"own length {precision}")
        self.feature_dim = self.encode([np.zeros(self.sample_rate_hz, dtype=np.float32)])[0].shape[1]

    def encode(self, samples: list[Samples]) -> list[Features]:
        """Features [num_frames, feature_dim] of each clip [num_samples] at 16 kHz; see the module."""
        from salad.speech.recognize import log_mel

        refuse_empty(samples)
        return [
            np.concatenate(
                [_from_storage(self._whisper.encode(log_mel(self._whisper, window)))[0] for window in _windows(clip)]
            )
            for clip in samples
        ]


class WhisperEncoder:
    """Whisper's encoder in transformers, on 30 s windows padded with silence as it was trained.

    Frames that begin after the clip's end are dropped. All windows have one length, so they fill batches as they come.
    """

    causal = False
    sample_rate_hz = 16_000
    frame_hz = 50.0

    def __init__(
        self,
        model: WhisperModel,
        extractor: WhisperFeatureExtractor,
        name: str,
        fingerprint: str,
        compute_type: str = "auto",
    ) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.feature_dim = int(model.config.d_model)
        self._encoder = model.get_encoder().eval()
        self._extractor = extractor
        self._device = model.device
        self._dtype = compute_dtype(compute_type, self._device)

    @classmethod
    def load(cls, folder: Path, name: str, device: str = "auto", compute_type: str = "auto") -> WhisperEncoder:
        """From a local folder in transformers' layout."""
        from transformers import WhisperFeatureExtractor, WhisperModel

        files = weights_of(folder)
        on = torch_device(device)
        dtype = compute_dtype(compute_type, on)
        model: WhisperModel = WhisperModel.from_pretrained(folder, dtype="float32")
        model.to(on)  # type: ignore[arg-type]  # transformers' wrapper hides the method
        extractor = WhisperFeatureExtractor.from_pretrained(folder)
        return cls(model, extractor, name, hash_of(files, f"30 s, {dtype}"), dtype)

    def encode(self, samples: list[Samples]) -> list[Features]:
        """Features [num_frames, feature_dim] of each clip [num_samples] at 16 kHz; see the module."""
        refuse_empty(samples)
        windows = [(index, window) for index, clip in enumerate(samples) for window in _windows(clip)]
        parts: list[list[Features]] = [[] for _ in samples]
        size = max(1, int(BATCH_S[self._device.type] / WINDOW_S))
        for batch in (windows[start : start + size] for start in range(0, len(windows), size)):
            for (index, _), features_FE in zip(batch, self._encode([window for _, window in batch]), strict=True):
                parts[index].append(features_FE)
        return [np.concatenate(part) for part in parts]

    def _encode(self, windows: list[Samples]) -> Iterator[Features]:
        import torch

        mel = self._extractor(windows, sampling_rate=self.sample_rate_hz, return_tensors="pt").input_features
        with torch.inference_mode(), computing_in(self._dtype, self._device):
            hidden_BFE = self._encoder(mel.to(self._device)).last_hidden_state
        frame = to_samples(1 / self.frame_hz, self.sample_rate_hz)
        for window, hidden_FE in zip(windows, hidden_BFE, strict=True):
            yield to_numpy(hidden_FE[: -(-len(window) // frame)])


def _windows(clip: Samples) -> Iterator[Samples]:
    """Consecutive windows of at most 30 s at 16 kHz."""
    size = to_samples(WINDOW_S, 16_000)
    return (clip[start : start + size] for start in range(0, len(clip), size))


def _from_storage(hidden: Any) -> Features:
    """A CTranslate2 StorageView, wherever and in whatever precision it is, as float32."""
    import ctranslate2

    on_cpu = hidden.to_device(ctranslate2.Device.cpu) if hidden.device != "cpu" else hidden
    return np.array(on_cpu.to(ctranslate2.DataType.float32), dtype=np.float32)
