"""A head is read from the LLM, and holds against what the LLM itself makes of its hidden states."""

import pytest
import torch
from peft import LoraConfig
from torch import nn
from transformers import (
    Cohere2Config,
    Cohere2ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

import tiny
from salad.distill.head import Head, check_head, head_of
from salad.errors import RecipeError

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "initializer_range": 0.5,
    "pad_token_id": 0,
}
ARCHITECTURES = {
    "Gemma 2": (Gemma2ForCausalLM, Gemma2Config, {"final_logit_softcapping": 3.0}, {"softcap": 3.0}),
    "Cohere 2": (Cohere2ForCausalLM, Cohere2Config, {"logit_scale": 0.0625}, {"scale": 0.0625}),
    "Granite": (GraniteForCausalLM, GraniteConfig, {"logits_scaling": 8.0}, {"scale": 0.125}),
}


def test_the_head_is_the_live_parameter():
    llm = tiny.llm()
    head = head_of(llm)
    assert head.weight_VH is llm.get_output_embeddings().weight
    assert (head.bias_V, head.softcap, head.scale, head.rows) == (None, None, 1.0, tiny.VOCABULARY)
    check_head(llm)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_an_architecture_does_to_its_logits_is_known(name):
    model, config, given, wanted = ARCHITECTURES[name]
    torch.manual_seed(0)
    llm = model(config(**SIZES, **given)).eval()
    head = head_of(llm)
    assert {key: getattr(head, key) for key in wanted} == wanted
    check_head(llm)
    ids = torch.arange(5)[None]
    hidden = llm.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0]
    assert torch.allclose(head.logits(hidden), llm(input_ids=ids).logits[0], atol=1e-5)


def test_a_bias_is_found():
    llm = tiny.llm(tied=False)
    llm.lm_head = nn.Linear(32, tiny.VOCABULARY)
    assert head_of(llm).bias_V is llm.lm_head.bias
    check_head(llm)


def test_logits_that_are_not_those_of_the_head_are_refused():
    class Odd(type(tiny.llm())):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits - 0.1 * output.logits**2
            return output

    llm = tiny.llm()
    llm.__class__ = Odd
    with pytest.raises(RecipeError, match="does something to its logits"):
        check_head(llm)
    assert not llm.training


def test_a_head_with_lora_is_refused():
    llm = tiny.llm(tied=False)
    llm.add_adapter(LoraConfig(target_modules=["lm_head"]))
    with pytest.raises(RecipeError, match=r"leave lm_head out of model\.lora\.targets"):
        head_of(llm)


def test_padding_rows_are_no_tokens():
    assert Head(torch.zeros(8, 2), width=5).rows == 5
    assert Head(torch.zeros(8, 2), width=5).logits(torch.zeros(3, 2)).shape == (3, 5)
