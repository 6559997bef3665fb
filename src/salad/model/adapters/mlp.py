"""`mlp`: two layers over a position's frames and a few neighbours. Bounded context, as local as it gets.

Axes: S speech spans, F encoder frames, E encoder width, P LLM positions, W adapter width.
"""

from __future__ import annotations

from torch import Tensor, nn

from salad.model.adapters.frames import stack_frames
from salad.recipe import AdapterSettings


class MlpInput(nn.Sequential):
    """Frames -> the MLP's hidden layer; the adapter's projection to the LLM is its second layer.

    A position hears its own frames and `context_frames` on both sides, nothing else.
    """

    def __init__(self, settings: AdapterSettings, encoder_dim: int) -> None:
        """Random weights."""
        self.frames_per_position, self.context_frames = settings.frames_per_position, settings.context_frames
        window = (settings.frames_per_position + 2 * settings.context_frames) * encoder_dim
        super().__init__(
            nn.LayerNorm(window),
            nn.Linear(window, settings.hidden_size),
            nn.GELU(),
            nn.LayerNorm(settings.hidden_size),
        )

    def forward(self, speech_SFE: Tensor) -> Tensor:
        """[S, F, E] -> [S, P, W]."""
        hidden: Tensor = super().forward(stack_frames(speech_SFE, self.frames_per_position, self.context_frames))
        return hidden
