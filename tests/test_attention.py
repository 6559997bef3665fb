"""Attention per document: a packed row is read as its documents are read alone, and nothing else changes."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import tiny
from salad.errors import RecipeError
from salad.model.attention import DOCUMENTS, attend_per_document, read_documents
from salad.model.llm import load_llm

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS = torch.tensor([9, 1, 23, 5, 17])


def qwen2(window=None, dropout=0.0):
    """A two-layer Qwen2 (biases, grouped heads); with a `window`, its second layer sees no further back."""
    config = Qwen2Config(
        vocab_size=tiny.VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.15,
        attention_dropout=dropout,
        use_sliding_window=window is not None,
        sliding_window=window,
        max_window_layers=1,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Qwen2ForCausalLM(config).eval()


ARCHITECTURES = {"llama": tiny.llm, "qwen2": qwen2, "qwen2, window of 6": lambda: qwen2(window=6)}


def ids_of(lengths, seed=0):
    return torch.randint(tiny.VOCABULARY, (int(lengths.sum()),), generator=torch.Generator().manual_seed(seed))


def packed_logits(llm, ids, lengths):
    return llm.get_output_embeddings()(read_documents(llm, llm.get_input_embeddings()(ids), lengths))


def logits_alone(llm, ids, lengths):
    """Each document by itself through transformers' own forward."""
    return torch.cat([llm(input_ids=one[None], use_cache=False).logits[0] for one in ids.split(lengths.tolist())])


def made_ready(llm):
    llm = copy.deepcopy(llm)
    attend_per_document(llm)
    return llm


@pytest.mark.parametrize("mode", ["eval", "train", "checkpointing"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_packed_row_is_its_documents_alone_in_value_and_gradient(architecture, mode):
    plain = ARCHITECTURES[architecture]()
    ours = made_ready(plain)
    assert plain.config._attn_implementation == "sdpa"
    for llm in (plain, ours):
        llm.train(mode != "eval")
    if mode == "checkpointing":
        ours.activation_checkpointing_enable()
    ids = ids_of(LENGTHS)
    wanted, found = logits_alone(plain, ids, LENGTHS), packed_logits(ours, ids, LENGTHS)
    assert float(wanted.detach().abs().max()) > 1  # it is not all about nothing
    assert torch.allclose(found, wanted, rtol=0, atol=1e-5)
    for logits in (wanted, found):
        (torch.log_softmax(logits, -1)[torch.arange(len(ids)), ids].sum() / len(ids)).backward()
    gradients = dict(ours.named_parameters())
    for name, parameter in plain.named_parameters():
        assert torch.allclose(gradients[name].grad, parameter.grad, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_another_document_changes_not_a_bit_of_this_one(architecture):
    llm = made_ready(ARCHITECTURES[architecture]())
    ids = ids_of(LENGTHS)
    other = ids.clone()
    own = slice(10, 33)  # the third document
    other[:10], other[33:] = 7, 8
    with torch.no_grad():
        one, two = packed_logits(llm, ids, LENGTHS), packed_logits(llm, other, LENGTHS)
    assert torch.equal(one[own], two[own])
    assert not torch.allclose(one[:10], two[:10], atol=0.1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padded_batches_and_generate_are_what_they_were(architecture):
    plain = ARCHITECTURES[architecture]()
    ours = made_ready(plain)
    ids = ids_of(torch.tensor([60])).reshape(3, 20)
    mask = torch.ones_like(ids)
    mask[0, :7] = mask[1, :1] = 0
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "min_new_tokens": 12}
    with torch.no_grad():
        for kwargs in ({"attention_mask": mask}, {}):
            assert torch.equal(ours(input_ids=ids, **kwargs).logits, plain(input_ids=ids, **kwargs).logits)
            assert torch.equal(ours.generate(ids, **kwargs, **options), plain.generate(ids, **kwargs, **options))


def test_attention_drops_out_in_training_alone():
    llm = made_ready(qwen2(dropout=0.5))
    ids = ids_of(LENGTHS)
    calm = packed_logits(llm, ids, LENGTHS)
    assert torch.equal(packed_logits(llm, ids, LENGTHS), calm)
    assert not torch.allclose(packed_logits(llm.train(), ids, LENGTHS), calm, atol=0.1)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = [out] if isinstance(out, torch.Tensor) else out if isinstance(out, tuple | list) else []
        self.elements = max([self.elements, *(t.numel() for t in made if isinstance(t, torch.Tensor))])
        return out


def test_no_mask_over_the_whole_row_is_ever_made():
    lengths = torch.full((60,), 20)
    ids = ids_of(lengths)
    llm = made_ready(tiny.llm())
    with torch.no_grad(), Largest() as ours:
        read_documents(llm, llm.get_input_embeddings()(ids), lengths)
    assert ours.elements < 1200 * 100
    positions = torch.cat([torch.arange(20)] * 60)
    with torch.no_grad(), Largest() as transformers_own:  # what the restarting positions do by themselves
        tiny.llm()(input_ids=ids[None], position_ids=positions[None], use_cache=False)
    assert transformers_own.elements >= 1200 * 1200


# --- refusals -------------------------------------------------------------------------------------------------------

SIZES = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.15}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64}
UNFIT = {
    "built in": lambda: BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=32, n_layer=2, n_head=4)),
    "knows no softcap": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, **HEADS)),
    "read each other": lambda: Mamba2ForCausalLM(Mamba2Config(**SIZES, num_heads=4, head_dim=16, n_groups=1)),
}


@pytest.mark.parametrize("why", UNFIT)
def test_an_llm_that_cannot_be_packed_is_refused(why):
    with pytest.raises(RecipeError, match=rf"model\.llm: .*{why}.*choose an LLM") as caught:
        attend_per_document(UNFIT[why]())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_another_attention_fails_instead_of_reading_across_documents(implementation):
    llm = made_ready(tiny.llm())
    ids = ids_of(LENGTHS)
    llm.set_attn_implementation(implementation)
    with pytest.raises(ValueError, match=f"attention is '{implementation}'"):
        packed_logits(llm, ids, LENGTHS)
    mask = torch.empty(1, 1, 0, 0)  # what read_documents passes
    with pytest.raises(RuntimeError, match="size of tensor"):
        llm(input_ids=ids[None], attention_mask=mask, use_cache=False)


@pytest.mark.parametrize("lengths", [[9, 1], [55, 1], [0, 0]])
def test_lengths_that_are_not_the_rows_are_refused(lengths):
    with pytest.raises(ValueError, match="don't make a row of 55"):
        packed_logits(made_ready(tiny.llm()), ids_of(LENGTHS), torch.tensor(lengths))


def test_the_attention_is_of_the_running_model_and_not_of_its_files(tmp_path):
    llm = made_ready(tiny.llm())
    llm.save_pretrained(tmp_path)
    assert DOCUMENTS not in (tmp_path / "config.json").read_text()


# --- real models and real kernels -----------------------------------------------------------------------------------


@pytest.mark.assets
@pytest.mark.slow
def test_the_real_llm_reads_a_packed_row_as_its_documents_alone():
    llm = load_llm("smollm2-135m-instruct")
    lengths = torch.tensor([60, 200, 17, 120, 3])
    ids = torch.randint(49000, (400,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = logits_alone(llm, ids, lengths)
        attend_per_document(llm)
        found = packed_logits(llm, ids, lengths)
    assert torch.allclose(found, wanted, rtol=0, atol=2e-4)  # of logits up to 36
    assert float(torch.log_softmax(wanted, -1).sub(torch.log_softmax(found, -1)).abs().max()) < 2e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the variable-length kernel needs a CUDA device")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_variable_length_kernel_reads_the_same(architecture):
    plain = ARCHITECTURES[architecture]().to("cuda", torch.bfloat16)
    ours = made_ready(plain)
    ids, lengths = ids_of(LENGTHS).cuda(), LENGTHS.cuda()
    wanted, found = logits_alone(plain, ids, lengths), packed_logits(ours, ids, lengths)
    assert torch.allclose(found.float(), wanted.float(), atol=0.03 * float(wanted.abs().max()))
    for logits in (wanted, found):
        torch.log_softmax(logits.float(), -1)[torch.arange(len(ids)), ids].mean().backward()
    gradients = dict(ours.named_parameters())
    for name, parameter in plain.named_parameters():
        scale = float(parameter.grad.abs().max())
        assert torch.allclose(gradients[name].grad, parameter.grad, rtol=0, atol=0.05 * scale), name
