"""`stack` and `paper`: decoder layers of transformers' own Llama over the positions of a span; and over `conv`'s.

Causal over the span, which is read by itself from position 0: what a span becomes depends neither on what stands
beside it in the batch nor on what was heard before it in the document.

Axes: S speech spans, F encoder frames, E encoder width, P LLM positions, W adapter width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from salad.model.adapters.frames import stack_frames
from salad.recipe import AdapterSettings

if TYPE_CHECKING:  # imported where it is used, see salad/__init__.py
    from transformers import LlamaModel


class StackInput(nn.Sequential):
    """Frames -> vectors of the stack's width: side by side, normalized, one linear map.

    Encoders differ in scale by orders of magnitude, and the stack's residual stream keeps what goes in; hence the norm.
    """

    def __init__(self, settings: AdapterSettings, encoder_dim: int) -> None:
        """Random weights."""
        self.frames_per_position, self.context_frames = settings.frames_per_position, settings.context_frames
        window = (settings.frames_per_position + 2 * settings.context_frames) * encoder_dim
        super().__init__(nn.LayerNorm(window), nn.Linear(window, settings.hidden_size))

    def forward(self, speech_SFE: Tensor) -> Tensor:
        """[S, F, E] -> [S, P, W]."""
        stacked: Tensor = super().forward(stack_frames(speech_SFE, self.frames_per_position, self.context_frames))
        return stacked


def decoder_stack(settings: AdapterSettings) -> LlamaModel:
    """`num_layers` Llama decoder layers and the final norm, without a vocabulary."""
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=1,  # fed with vectors; the one-row table is removed below
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        num_key_value_heads=settings.num_key_value_heads,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="sdpa",  # type: ignore[call-arg]  # goes through PreTrainedConfig's **kwargs
    )
    stack = LlamaModel(config)
    stack.set_input_embeddings(None)  # type: ignore[arg-type]  # transformers' types don't foresee a stack without one
    return stack
