"""What every frozen speech encoder is, and what they share: batches of like length, windows, devices, fingerprints.

A clip's features do not depend on what else is encoded with it: whatever an encoder puts in one batch is padded and
masked so that each row comes out as it would alone, up to the rounding of another order of summation (in float32 the
tests hold every frame within 1e-4 of the clip's largest value). Legend: B clips, S samples, F frames, E feature width,
Q codebooks, C codes in a codebook.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from salad.errors import AssetError, AudioError
from salad.speech.audio import Samples
from salad.workers import gpu_of_worker

if TYPE_CHECKING:
    import torch

Features = NDArray[np.float32]
"""[num_frames, feature_dim]."""

Codes = NDArray[np.int16]
"""[num_frames, num_codebooks]."""

BATCH_S = {"cpu": 6.0, "cuda": 480.0}
"""Seconds of audio in a batch, padding included. On a CPU, where 24 s were up to 60 % slower than a clip at a time and
6 s as good or better (Mimi and wav2vec2-base, clips of 0.5 to 4 s), only short clips share a batch. The figure for a
GPU was not measured: it is meant to fill one of 24 GB."""

LIKE_LENGTH = 1.15
"""The longest clip of a batch over the shortest: at most 13 % of a batch is padding."""


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
            AudioError: a clip is empty, or too short for one frame.
        """


class FrameStream(Protocol):
    """Frames of one clip while it is spoken: together those that `encode` gives of the whole clip."""

    def push(self, samples: Samples) -> Features:
        """The frames [num_frames, feature_dim] that these next samples complete; none may be."""

    def finish(self) -> Features:
        """The last frame, if the clip ends within it."""


@runtime_checkable
class StreamingEncoder(SpeechEncoder, Protocol):
    """A causal encoder that gives frames while speech comes in."""

    def stream(self) -> FrameStream:
        """Begin a clip."""


@runtime_checkable
class CodeEncoder(SpeechEncoder, Protocol):
    """A frozen encoder whose features are sums of codebook entries, so that the codes are all that need be kept."""

    codebooks_QCE: NDArray[np.float32]
    """[num_codebooks, codebook_size, feature_dim]."""

    def encode_codes(self, samples: list[Samples]) -> list[Codes]:
        """Codes [num_frames, num_codebooks] of each clip; `features_of_codes` makes of them what `encode` gives."""


def features_of_codes(codes_FQ: Codes, codebooks_QCE: NDArray[np.float32]) -> Features:
    """The features [num_frames, feature_dim] that codes stand for: the sum of their codebooks' entries, float32."""
    features_FE = np.zeros((len(codes_FQ), codebooks_QCE.shape[2]), dtype=np.float32)
    for codes_F, codebook_CE in zip(codes_FQ.T, codebooks_QCE, strict=True):
        features_FE += codebook_CE[codes_F]
    return features_FE


def like_length_batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """The indices of `lengths` in batches of like length, shortest first.

    A batch is never longer than `most` once padded (a single longer item stands alone), and its longest item is at most
    `LIKE_LENGTH` times its shortest.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        longest = lengths[index]
        if batch and (longest * (len(batch) + 1) > most or longest > LIKE_LENGTH * lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def refuse_empty(clips: Sequence[Samples], at_least: int = 1) -> None:
    """Refuse a clip of fewer than `at_least` samples, from which no frame can be made.

    Raises:
        AudioError: there is one.
    """
    for clip in clips:
        if len(clip) < at_least:
            raise AudioError(
                f"a clip of {len(clip)} samples can't be encoded, {at_least} are needed for one frame; "
                "leave the utterance out."
            )


def torch_device(device: str) -> torch.device:
    """The device of that name; "auto" is a GPU when there is one. Worker processes share out the GPUs."""
    import torch

    named = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    gpu = gpu_of_worker(torch.cuda.device_count()) if named == "cuda" else None
    return torch.device(named if gpu is None else f"{named}:{gpu}")


def compute_dtype(compute_type: str, device: torch.device) -> str:
    """In what PyTorch computes: "auto" is bfloat16 on a GPU and float32 on a CPU, where bfloat16 is slower.

    Raises:
        AssetError: neither auto, float32 nor bfloat16.
    """
    if compute_type == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    if compute_type not in ("float32", "bfloat16"):
        raise AssetError(f"compute type {compute_type!r}: encoders in PyTorch take auto, float32 or bfloat16.")
    return compute_type


def computing_in(dtype: str, device: torch.device) -> AbstractContextManager[object]:
    """Matrix products and convolutions in `dtype`; norms and sums stay in float32 (autocast)."""
    import torch

    return torch.autocast(device.type, torch.bfloat16) if dtype == "bfloat16" else nullcontext()


def to_numpy(features_FE: torch.Tensor) -> Features:
    """Frames on any device in any precision as contiguous float32."""
    return np.ascontiguousarray(features_FE.float().cpu().numpy())


def padded(clips: Sequence[Samples], length: int) -> NDArray[np.float32]:
    """Clips filled with silence to `length` samples: float32 [B, length]."""
    batch_BS = np.zeros((len(clips), length), dtype=np.float32)
    for row, clip in zip(batch_BS, clips, strict=True):
        row[: len(clip)] = clip
    return batch_BS


def weights_of(folder: Path) -> list[Path]:
    """The files of a transformers model that its features depend on.

    Raises:
        AssetError: the weights are not safetensors.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise AssetError(
            f"{folder} holds no weights as safetensors, the only kind that is loaded here; load the model with "
            "transformers once, save it with save_pretrained, and name that folder."
        )
    return [*weights, *sorted(folder.glob("*config.json"))]


def hash_of(files: Sequence[Path], settings: str) -> str:
    """SHA-256 of the files' names and contents and of the settings in words."""
    digest = hashlib.sha256(settings.encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(f"\n{path.name}\n".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
