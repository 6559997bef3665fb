"""wav2vec 2.0, HuBERT and WavLM in transformers: 50 frames a second for the usual strides, not causal.

What a clip's frames are must not depend on the padding beside it. Convolutions that normalize each frame (layer norm)
hear no more than their own window, so a padded batch gives each clip the frames it has alone; those that normalize
over time (group norm: wav2vec2-base, hubert-base) would take the padding in, so they run clip by clip. The Transformer
behind them is masked either way, and runs in batches of like length.

A clip over `WINDOW_S` is cut into consecutive windows on the frames' own grid that know nothing of each other, because
attention over it at once takes memory with its square.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salad.errors import AssetError
from salad.model.encoders.speech_encoder import (
    BATCH_S,
    Features,
    compute_dtype,
    computing_in,
    hash_of,
    like_length_batches,
    padded,
    refuse_empty,
    to_numpy,
    torch_device,
    weights_of,
)
from salad.speech.audio import Samples

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, Wav2Vec2FeatureExtractor

WINDOW_S = 60.0
FAMILY = ("wav2vec2", "hubert", "wavlm")
"""transformers' model types."""


class Wav2Vec2Encoder:
    """The hidden states behind one Transformer layer, the last unless told; the layers above it don't run.

    `layer` counts as transformers' `hidden_states` does: 0 is what the first layer reads.
    """

    causal = False

    def __init__(
        self,
        model: PreTrainedModel,
        extractor: Wav2Vec2FeatureExtractor,
        name: str,
        fingerprint: str,
        layer: int | None = None,
        compute_type: str = "auto",
    ) -> None:
        config: Any = model.config
        num_layers = int(config.num_hidden_layers)
        if layer is not None and layer > num_layers:
            raise AssetError(f"{name!r}: there is no layer {layer}; the model has {num_layers}.")
        self.name = name
        self.fingerprint = fingerprint
        self.feature_dim = int(config.hidden_size)
        self.sample_rate_hz = int(extractor.sampling_rate)
        self.frame_hz = self.sample_rate_hz / float(np.prod(config.conv_stride))
        self._model: Any = model.eval()
        self._extractor = extractor
        self._device = model.device
        self._dtype = compute_dtype(compute_type, self._device)
        self._strides = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self._pads_convolutions = config.feat_extract_norm == "layer"
        # HuBERT's batch norm before the positional convolution makes something of the silence beside a clip.
        self._pads_frames = not getattr(config, "conv_pos_batch_norm", False)
        if layer is not None and layer < num_layers:
            self._end_at(layer, bool(config.do_stable_layer_norm))

    @classmethod
    def load(
        cls, folder: Path, name: str, layer: int | None = None, device: str = "auto", compute_type: str = "auto"
    ) -> Wav2Vec2Encoder:
        """From a local folder in transformers' layout, with its feature extractor's settings."""
        from transformers import AutoModel, Wav2Vec2FeatureExtractor

        if not (folder / "preprocessor_config.json").is_file():
            raise AssetError(f"{folder} has no preprocessor_config.json, which says how its audio is normalized.")
        files = weights_of(folder)
        on = torch_device(device)
        dtype = compute_dtype(compute_type, on)
        model: PreTrainedModel = AutoModel.from_pretrained(folder, dtype="float32")
        model.to(on)  # type: ignore[arg-type]  # transformers' wrapper hides the method
        fingerprint = hash_of(files, f"layer {layer}, {dtype}")
        return cls(model, Wav2Vec2FeatureExtractor.from_pretrained(folder), name, fingerprint, layer, dtype)

    def encode(self, samples: list[Samples]) -> list[Features]:
        """Features [num_frames, feature_dim] of each clip [num_samples] at `sample_rate_hz`; see the module.

        Raises:
            AudioError: a clip is shorter than one frame's window (400 samples for the usual strides).
        """
        refuse_empty(samples, self._window_samples(1))
        clips = self._normalized(samples)
        windows = [(index, window) for index, clip in enumerate(clips) for window in self._windows(clip)]
        lengths = [len(window) for _, window in windows]
        encoded: dict[int, Features] = {}
        most = int(BATCH_S[self._device.type] * self.sample_rate_hz) if self._pads_frames else 1
        for batch in like_length_batches(lengths, most):
            encoded |= dict(zip(batch, self._encode([windows[i][1] for i in batch]), strict=True))
        parts: list[list[Features]] = [[] for _ in samples]
        for place, (index, _) in enumerate(windows):
            parts[index].append(encoded[place])
        return [np.concatenate(part) for part in parts]

    def _normalized(self, samples: list[Samples]) -> list[Samples]:
        """As the model's own extractor does it: each clip by itself, and the whole of it before it is cut."""
        return [
            np.asarray(self._extractor(clip, sampling_rate=self.sample_rate_hz).input_values[0], np.float32)
            for clip in samples
        ]

    def _encode(self, clips: list[Samples]) -> Iterator[Features]:
        """The features of a batch of normalized clips."""
        import torch

        num_frames = [self._num_frames(len(clip)) for clip in clips]
        with torch.inference_mode(), computing_in(self._dtype, self._device):
            frames_BFC = self._frames(clips, max(num_frames))
            projected = self._model.feature_projection(frames_BFC)
            hidden_BFE = projected[0] if isinstance(projected, tuple) else projected  # HuBERT gives the states alone
            places_F = torch.arange(max(num_frames), device=self._device)
            mask_BF = places_F < torch.tensor(num_frames, device=self._device)[:, None]
            hidden_BFE = self._model.encoder(hidden_BFE, attention_mask=mask_BF).last_hidden_state
        for hidden_FE, num in zip(hidden_BFE, num_frames, strict=True):
            yield to_numpy(hidden_FE[:num])

    def _frames(self, clips: list[Samples], most: int) -> torch.Tensor:
        """The convolutions' frames [B, F, C], zero behind a clip's own."""
        import torch

        together = [clips] if self._pads_convolutions else [[clip] for clip in clips]
        rows = []
        for group in together:
            waveform_BS = torch.from_numpy(padded(group, max(map(len, group)))).to(self._device)
            frames_BFC = self._model.feature_extractor(waveform_BS).transpose(1, 2)
            rows.append(torch.nn.functional.pad(frames_BFC, (0, 0, 0, most - frames_BFC.shape[1])))
        return torch.cat(rows)

    def _end_at(self, layer: int, stable: bool) -> None:
        """Leave out the layers above `layer`, and with "stable" layer norms the one behind the last layer."""
        import torch

        self._model.encoder.layers = self._model.encoder.layers[:layer]
        if stable:
            self._model.encoder.layer_norm = torch.nn.Identity()

    def _num_frames(self, num_samples: int) -> int:
        for kernel, stride in self._strides:
            num_samples = (num_samples - kernel) // stride + 1
        return num_samples

    def _window_samples(self, num_frames: int) -> int:
        """The samples that `num_frames` frames are made of."""
        for kernel, stride in reversed(self._strides):
            num_frames = (num_frames - 1) * stride + kernel
        return num_frames

    def _windows(self, clip: Samples) -> Iterator[Samples]:
        """Windows of at most `WINDOW_S` whose frames, one after another, lie as the whole clip's would."""
        frames = self._num_frames(len(clip))
        most = int(WINDOW_S * self.frame_hz)
        hop = int(np.prod([stride for _, stride in self._strides]))
        for first in range(0, frames, most):
            last = min(frames, first + most)
            begin = first * hop
            end = len(clip) if last == frames else begin + self._window_samples(most)
            yield clip[begin:end]
