"""The adapter: frozen-encoder frames -> LLM input embeddings. The only part that has to learn what sounds mean.

    frames [S, F, E] -> project_in -> (stack) -> project_out -> (shell) -> LLM positions [S, P, H]

`project_in` is a kind's own (model/adapters/), brings the frame rate down, and gives P = ceil(F / frames_per_position)
positions. For every kind frames of padding don't change a position, and a span is heard by itself.

Axes: S speech spans, F encoder frames, E encoder width, P LLM positions, H LLM width, W adapter width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from salad.model.adapters.conv import ConvInput
from salad.model.adapters.mlp import MlpInput
from salad.model.adapters.stack import StackInput, decoder_stack
from salad.recipe import AdapterSettings

if TYPE_CHECKING:  # imported where it is used, see salad/__init__.py
    from transformers import LlamaModel

_INPUTS: dict[str, type[MlpInput | StackInput | ConvInput]] = {
    "mlp": MlpInput,
    "stack": StackInput,
    "paper": StackInput,
    "conv": ConvInput,
}


class EmbeddingShell(nn.Module):
    """Puts a vector where the LLM's own input embeddings lie: mean + mean norm x unit vector.

    Averages of embeddings have too small a norm and wreck the LLM; direction and norm both matter.
    """

    mean_H: Tensor
    norm: Tensor

    def __init__(self, width: int) -> None:
        """The shell starts as the unit sphere; `fit` takes the LLM's."""
        super().__init__()
        self.register_buffer("mean_H", torch.zeros(width))
        self.register_buffer("norm", torch.ones(()))

    @torch.no_grad()
    def fit(self, embedding_VH: Tensor) -> None:
        """Take mean and mean norm (about the mean) of the LLM's input embeddings."""
        table = embedding_VH.float()
        self.mean_H.copy_(table.mean(0))
        self.norm.copy_((table - self.mean_H).norm(dim=-1).mean())

    def forward(self, x: Tensor) -> Tensor:
        """[..., H] of any length -> [..., H] on the shell."""
        return self.mean_H + self.norm * functional.normalize(x.float(), dim=-1)


class Adapter(nn.Module):
    """Encoder frames -> LLM input embeddings, by a kind's name (AdapterSettings)."""

    def __init__(self, settings: AdapterSettings, encoder_dim: int, llm_dim: int) -> None:
        """Random weights."""
        super().__init__()
        self.settings = settings
        self.project_in = _INPUTS[settings.kind](settings, encoder_dim)
        stacked = settings.kind != "mlp" and settings.num_layers > 0
        self.stack: LlamaModel | None = decoder_stack(settings) if stacked else None
        # The other kinds end in a LayerNorm, whose shift goes through the matrix; Llama's last norm has none.
        self.project_out = nn.Linear(settings.hidden_size, llm_dim, bias=stacked)
        self.shell = EmbeddingShell(llm_dim) if settings.output == "embedding_shell" else None

    def direction(self, speech_SFE: Tensor) -> Tensor:
        """[S, F, E] -> [S, P, H] before the shell; what the warm start compares with word embeddings."""
        hidden: Tensor = self.project_in(speech_SFE.to(self.project_out.weight.dtype))
        if self.stack is not None:
            hidden = self.stack(inputs_embeds=hidden, use_cache=False).last_hidden_state
        projected: Tensor = self.project_out(hidden)
        return projected

    def forward(self, speech_SFE: Tensor) -> Tensor:
        """[S, F, E] zero-padded encoder frames -> [S, P, H] LLM input embeddings."""
        projected = self.direction(speech_SFE)
        return projected if self.shell is None else self.shell(projected)
