"""Neighbouring frames side by side: how `mlp`, `stack` and `paper` bring the frame rate down."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def pad_frames(speech_SFE: Tensor, frames_per_position: int, context_frames: int) -> Tensor:
    """Zeros around the frames: `context_frames` on both sides, and up to the end of the last position. [S, F', E]."""
    missing = -speech_SFE.shape[1] % frames_per_position
    return functional.pad(speech_SFE, (0, 0, context_frames, context_frames + missing))


def stack_frames(speech_SFE: Tensor, frames_per_position: int, context_frames: int) -> Tensor:
    """A position's own frames and `context_frames` on both sides: [S, F, E] -> [S, P, window E], window in frames.

    The clip's edges are padded with zeros; window = frames_per_position + 2 context_frames.
    """
    window = frames_per_position + 2 * context_frames
    padded = pad_frames(speech_SFE, frames_per_position, context_frames)
    return padded.unfold(1, window, frames_per_position).transpose(2, 3).flatten(2)
