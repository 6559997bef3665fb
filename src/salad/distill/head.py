"""An LLM's head: everything between its last hidden states and its distribution over tokens.

    y = (W h + b) · scale          Cohere multiplies (logit_scale), Granite divides (logits_scaling)
    z = softcap · tanh(y/softcap)  Gemma 2 (final_logit_softcapping); z = y where there is none

Who takes W alone as the head gets another distribution from such a model, and no error: `check_head` looks.
Axes: N positions, V rows of the vocabulary, H width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from salad.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")  # Gemma 2 and its kin; RecurrentGemma
FACTORS = ("logit_scale", "lm_head_multiplier", "output_multiplier")  # Cohere, Falcon H1, Muse
DIVISOR = "logits_scaling"  # Granite, MiniCPM; HyperCLOVA X multiplies by what has the same name
MULTIPLIES_BY_DIVISOR = ("hyperclovax",)


@dataclass(frozen=True, eq=False)
class Head:
    """Weight [V, H], bias [V], softcap and scale of the logits, and how many of the V rows are tokens (None: all).

    Rows from `width` on are padding: they are in no softmax (logit −∞) and get no gradient.
    """

    weight_VH: Tensor
    bias_V: Tensor | None = None
    softcap: float | None = None
    scale: float = 1.0
    width: int | None = None

    @property
    def rows(self) -> int:
        """Rows that are tokens."""
        return len(self.weight_VH) if self.width is None else min(self.width, len(self.weight_VH))

    def detached(self) -> Head:
        """The same head, read only."""
        bias = None if self.bias_V is None else self.bias_V.detach()
        return replace(self, weight_VH=self.weight_VH.detach(), bias_V=bias)

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """Logits [N, rows] of a few positions, in float32; the objective never makes them for all."""
        bias = None if self.bias_V is None else self.bias_V[: self.rows]
        product = nn.functional.linear(hidden_NH.to(self.weight_VH.dtype), self.weight_VH[: self.rows], bias)
        scaled = product.float() * self.scale
        return scaled if self.softcap is None else self.softcap * torch.tanh(scaled / self.softcap)


def as_head(head: Head | Tensor) -> Head:
    """A plain weight [V, H] is a head without anything else."""
    return head if isinstance(head, Head) else Head(head)


def head_of(llm: PreTrainedModel) -> Head:
    """The head of a causal LM, by its module and config; the weight and bias are the live parameters.

    Raises:
        RecipeError: the head is no plain linear layer (LoRA on it, quantized).
    """
    module = llm.get_output_embeddings()
    if not isinstance(module, nn.Linear):
        raise RecipeError(
            f"model.llm: the head of {type(llm).__name__} is {type(module).__name__}, the objective needs a plain "
            "linear layer; leave lm_head out of model.lora.targets, or choose an LLM without a quantized head."
        )
    config = llm.config.get_text_config()
    bias = cast("Tensor | None", module.bias)
    return Head(module.weight, bias, _softcap(config), _scale(config), getattr(config, "unpadded_vocab_size", None))


def check_head(llm: PreTrainedModel) -> None:
    """Make sure that `head_of` gives what the LLM itself gives: three tokens are read, and the logits compared.

    Raises:
        RecipeError: they differ; the architecture does something to its logits that is not known here.
    """
    head = head_of(llm)
    if head.weight_VH.device.type == "meta":  # without weights there is nothing to compare
        return
    training = llm.training
    llm.eval()
    try:
        with torch.no_grad():
            ids = torch.linspace(0, head.rows - 1, 3, device=head.weight_VH.device).long()[None]
            wanted = llm(input_ids=ids, use_cache=False).logits[0, :, : head.rows].float()
            hidden = llm.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0]
            difference = float((head.logits(hidden) - wanted).abs().max() / wanted.abs().max())
    finally:
        llm.train(training)
    if not difference < (1e-4 if head.weight_VH.dtype == torch.float32 else 3e-2):
        raise RecipeError(
            f"model.llm: {type(llm).__name__} does something to its logits that distill/head.py does not know (they "
            f"differ by {difference:.1e} of the largest one); choose another LLM, or add it there."
        )


def _softcap(config: Any) -> float | None:
    found = [value for name in SOFTCAPS if (value := getattr(config, name, None)) is not None]
    return float(found[0]) if found else None


def _scale(config: Any) -> float:
    scale = 1.0
    for name in FACTORS:
        scale *= getattr(config, name, None) or 1.0
    divisor = getattr(config, DIVISOR, None) or 1.0
    return float(scale * divisor if config.model_type in MULTIPLIES_BY_DIVISOR else scale / divisor)
