"""The LLM, the encoder and the adapter that joins them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from salad.recipe.base import Count, Positive, Settings


class AdapterSettings(Settings):
    """The trained part between the frozen encoder and the LLM (model/adapter.py, docs/adapters.md).

    `kind`: `mlp`, two layers over a position's frames and `context_frames` neighbours on both sides; `stack`, those
    frames into `num_layers` Llama decoder layers; `paper`, the paper's stack of 12 layers, 960 wide (118.0M parameters,
    120.5M with the projections from Mimi to a 2048-wide LLM); `conv`, strided convolutions, and a stack on top unless
    `num_layers` is 0. `frames_per_position` brings the frame rate down by any whole number. The stack's sizes say
    nothing to `mlp`. `output`: `linear`, or `embedding_shell` (unit vector x mean norm of the LLM's centred input
    embeddings + their mean).
    """

    kind: Literal["mlp", "stack", "paper", "conv"] = "mlp"
    frames_per_position: Count = 4
    context_frames: Annotated[int, Field(ge=0)] = 1
    hidden_size: Count = 960
    num_layers: Annotated[int, Field(ge=0)] = 12
    num_heads: Count = 15
    num_key_value_heads: Count = 5
    intermediate_size: Count = 2560
    output: Literal["linear", "embedding_shell"] = "embedding_shell"

    @model_validator(mode="after")
    def _sizes_make_a_stack(self) -> Self:
        if self.kind == "paper":
            names = ("hidden_size", "num_layers", "num_heads", "num_key_value_heads", "intermediate_size")
            paper = {name: type(self).model_fields[name].default for name in names}
            other = [f"{name}={getattr(self, name)}" for name in names if getattr(self, name) != paper[name]]
            if other:
                own = ", ".join(f"{name}={value}" for name, value in paper.items())
                raise ValueError(
                    f"{', '.join(other)}: kind=paper is the paper's stack, {own}; set kind=stack for another"
                )
        if self.kind == "stack" and self.num_layers == 0:
            raise ValueError("num_layers=0 leaves no stack; set at least 1, or kind=mlp")
        if self.kind == "mlp" or self.num_layers == 0:
            return self
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}")
        if self.hidden_size // self.num_heads % 2:
            raise ValueError(
                f"hidden_size={self.hidden_size} in num_heads={self.num_heads} makes heads of an odd width, "
                f"{self.hidden_size // self.num_heads}, which rotary positions can't turn; choose another num_heads"
            )
        if self.num_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads={self.num_key_value_heads} does not divide num_heads={self.num_heads}"
            )
        return self


class LoraSettings(Settings):
    """Low-rank updates of the LLM (Hu et al., 2021)."""

    rank: Count = 16
    alpha: Positive = 32.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")


class LlmSizes(Settings):
    """The LLM's architecture, under the names of its config.json: `salad plan` then needs neither hub nor weights.

    `head_dim` None: hidden_size / num_attention_heads. Qwen2's biases come with its `model_type`; `attention_bias` is
    for types whose configuration has that key.
    """

    model_type: str = "llama"
    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    head_dim: Count | None = None
    intermediate_size: Count
    vocab_size: Count
    tie_word_embeddings: bool
    attention_bias: bool = False


class EncoderSizes(Settings):
    """What the encoder gives: `dim` wide frames, `hz` of them a second."""

    dim: Count
    hz: Positive


class ModelSettings(Settings):
    """Which LLM, which encoder, and how they are joined. `train_llm` says what of the LLM learns.

    `llm_sizes` and `encoder_sizes` are for planning where the models are not at hand; where they are, both must agree.
    """

    llm: str = "smollm2-135m-instruct"
    llm_sizes: LlmSizes | None = None
    encoder: str = "whisper-tiny.en"
    encoder_sizes: EncoderSizes | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    train_llm: Literal["frozen", "lora", "full"] = "lora"
    lora: LoraSettings = LoraSettings()
    adapter: AdapterSettings = AdapterSettings()
