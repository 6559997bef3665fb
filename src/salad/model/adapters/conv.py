"""`conv`: strided convolutions bring the frame rate down by any integer, a prime factor a layer (12 = 2 x 2 x 3).

All but the first look back alone, so an LLM position hears no frame behind its own but `context_frames`; back it hears
less than 2 frames_per_position + context_frames. Every length is exact: padding is put on before the first layer, a
layer of stride s makes L / s positions out of L.

Axes: S speech spans, F encoder frames, E encoder width, L positions at a layer's rate, P LLM positions, W adapter
width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from salad.model.adapters.frames import pad_frames
from salad.recipe import AdapterSettings


class ConvInput(nn.Module):
    """Frames -> LLM positions: one convolution over `context_frames` on both sides, then a strided one a factor."""

    def __init__(self, settings: AdapterSettings, encoder_dim: int) -> None:
        """Random weights."""
        super().__init__()
        self.frames_per_position, self.context_frames = settings.frames_per_position, settings.context_frames
        width = settings.hidden_size
        self.norm = nn.LayerNorm(encoder_dim)
        self.first = _Layer(encoder_dim, width, 2 * settings.context_frames + 1, 1, past=0)
        factors = prime_factors(settings.frames_per_position)
        self.strided = nn.ModuleList(_Layer(width, width, 2 * stride, stride, past=stride) for stride in factors)

    def forward(self, speech_SFE: Tensor) -> Tensor:
        """[S, F, E] -> [S, P, W]."""
        padded = pad_frames(speech_SFE, self.frames_per_position, self.context_frames)
        hidden: Tensor = self.first(self.norm(padded))  # normalized with its padding: zeros in a batch are zeros alone
        for layer in self.strided:
            hidden = layer(hidden)
        return hidden


class _Layer(nn.Module):
    """Convolution over time, GELU, norm over the width. [S, L, in] -> [S, (L + past - kernel) / stride + 1, out].

    `past`: positions of silence before the first.
    """

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int, past: int) -> None:
        super().__init__()
        self.past = past
        self.conv = nn.Conv1d(width_in, width_out, kernel, stride)
        self.norm = nn.LayerNorm(width_out)

    def forward(self, x_SLW: Tensor) -> Tensor:
        padded_SWL = functional.pad(x_SLW.transpose(1, 2), (self.past, 0))
        normed: Tensor = self.norm(functional.gelu(self.conv(padded_SWL).transpose(1, 2)))
        return normed


def prime_factors(number: int) -> list[int]:
    """The prime factors of a whole number from 1, smallest first; none of 1."""
    factors: list[int] = []
    factor = 2
    while number > 1:
        while number % factor == 0:
            factors.append(factor)
            number //= factor
        factor += 1
    return factors
