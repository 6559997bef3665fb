"""The adapter: frozen-encoder frames -> LLM input embeddings. The only part that has to learn what sounds mean.

Axes: S speech spans, F encoder frames, E encoder width, P LLM positions, H LLM width, W adapter width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from salad.recipe import AdapterSettings

if TYPE_CHECKING:  # imported where it is used, see salad/__init__.py
    from transformers import LlamaModel


def stack_frames(speech_SFE: Tensor, frames_per_position: int, context_frames: int) -> Tensor:
    """Neighbouring encoder frames side by side: [S, F, E] -> [S, P, (frames_per_position + 2 context_frames) E].

    The clip's edges are padded with zeros; P = ceil(F / frames_per_position).
    """
    num_spans, num_frames, width = speech_SFE.shape
    positions = -(-num_frames // frames_per_position)
    missing = positions * frames_per_position - num_frames
    padded = functional.pad(speech_SFE, (0, 0, context_frames, context_frames + missing))
    window = frames_per_position + 2 * context_frames
    return padded.unfold(1, window, frames_per_position).transpose(2, 3).reshape(num_spans, positions, window * width)


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
        return self.mean_H + self.norm * functional.normalize(x, dim=-1)


class Adapter(nn.Module):
    """Encoder frames -> LLM input embeddings; padding frames do not change a position's output.

    The paper's stack is causal and runs over each speech span by itself, so what an utterance's span becomes does not
    depend on what else is in the batch.
    """

    def __init__(self, settings: AdapterSettings, encoder_dim: int, llm_dim: int) -> None:
        """Random weights; see AdapterSettings for the kinds."""
        super().__init__()
        self.settings = settings
        window = settings.frames_per_position + 2 * settings.context_frames
        self.stack: LlamaModel | None = None
        if settings.kind == "paper":
            self.stack = _llama_stack(settings)
            self.project_in: nn.Module = nn.Linear(window * encoder_dim, self.stack.config.hidden_size, bias=False)
            self.project_out = nn.Linear(self.stack.config.hidden_size, llm_dim, bias=False)
        else:
            self.project_in = nn.Sequential(
                nn.LayerNorm(window * encoder_dim),
                nn.Linear(window * encoder_dim, settings.hidden_size),
                nn.GELU(),
                nn.LayerNorm(settings.hidden_size),
            )
            self.project_out = nn.Linear(settings.hidden_size, llm_dim, bias=False)
        self.shell = EmbeddingShell(llm_dim) if settings.output == "embedding_shell" else None

    def direction(self, speech_SFE: Tensor) -> Tensor:
        """[S, F, E] -> [S, P, H] before the shell; what the warm start compares with word embeddings."""
        settings = self.settings
        stacked = stack_frames(speech_SFE, settings.frames_per_position, settings.context_frames)
        hidden: Tensor = self.project_in(stacked.to(self.project_out.weight.dtype))
        if self.stack is not None:
            hidden = self.stack(inputs_embeds=hidden, use_cache=False).last_hidden_state
        projected: Tensor = self.project_out(hidden)
        return projected

    def forward(self, speech_SFE: Tensor) -> Tensor:
        """[S, F, E] zero-padded encoder frames -> [S, P, H] LLM input embeddings."""
        projected = self.direction(speech_SFE)
        return projected if self.shell is None else self.shell(projected)


def _llama_stack(settings: AdapterSettings) -> LlamaModel:
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
