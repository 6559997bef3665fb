"""Attention per document: a flat row of documents in which none reads another.

transformers isolates packed documents only under conditions that it doesn't check (docs/footguns.md), and then by a
dense [T, T] mask that takes much of the gain away (benchmarks/packing.py). Here each document is attended to by itself:
one causal attention a document on the CPU, one variable-length kernel for all on the GPU. The function is registered
with transformers as `documents`; without document borders it is transformers' `sdpa`, so that padded batches and
`generate` are unchanged.

Axes: T positions of the flat row, D documents, H width of the LLM.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from salad.errors import RecipeError

DOCUMENTS = "documents"
UNPACKABLE = ("softcap", "position_bias", "s_aux")  # what some architectures add to their scores
MAX_VARLEN_HEAD_DIM = 256  # of the flash kernels behind torch.nn.attention.varlen


def read_documents(llm: PreTrainedModel, embedded_TH: Tensor, lengths_D: Tensor) -> Tensor:
    """Last hidden states [T, H] of documents that stand one after another in a flat row of input embeddings.

    Args:
        llm: a causal LM that `attend_per_document` has made ready.
        embedded_TH: input embeddings of all documents.
        lengths_D: positions of each document; they add up to T.

    Raises:
        ValueError: the lengths don't add up, or the LLM's attention is not ours.
    """
    if int(lengths_D.sum()) != len(embedded_TH):
        raise ValueError(f"documents of {lengths_D.tolist()} positions don't make a row of {len(embedded_TH)}.")
    if llm.config._attn_implementation != DOCUMENTS:
        raise ValueError(f"the LLM's attention is {llm.config._attn_implementation!r}; call attend_per_document first.")
    ends_D = lengths_D.cumsum(0)
    starts_T = (ends_D - lengths_D).repeat_interleave(lengths_D)
    positions_T = torch.arange(len(starts_T), device=starts_T.device) - starts_T  # each document counts from 0
    borders = functional.pad(ends_D, (1, 0)).to(embedded_TH.device, torch.int32)
    longest = int(lengths_D.max())
    output = llm.get_decoder()(
        inputs_embeds=embedded_TH[None],
        position_ids=positions_T[None].to(embedded_TH.device),
        # A 4-D mask is handed on as it is, so that no dense one is built. It fits nothing: an attention that would use
        # it fails, instead of reading across documents.
        attention_mask=embedded_TH.new_empty(1, 1, 0, 0),
        use_cache=False,
        cu_seq_lens_q=borders,
        cu_seq_lens_k=borders,
        max_length_q=longest,
        max_length_k=longest,
    )
    return cast("Tensor", output.last_hidden_state)[0]


def attend_per_document(llm: PreTrainedModel) -> None:
    """Make an LLM's attention ours, and make sure that it isolates documents: leaks give no error by themselves.

    Two short documents are read in one row and each alone. Architectures that mix positions elsewhere than in their
    attention (state spaces, convolutions over time) are found by that.

    Raises:
        RecipeError: the LLM's attention can't be replaced, or documents read each other.
    """
    if llm.config._attn_implementation == DOCUMENTS:
        return
    name = type(llm).__name__
    remedy = "choose an LLM whose attention goes through transformers' AttentionInterface, such as Llama or Qwen2."
    if not llm._can_set_attn_implementation():
        raise RecipeError(f"model.llm: {name} can't read packed documents, its attention is built in; {remedy}")
    llm.set_attn_implementation(DOCUMENTS)
    table = cast("Tensor", llm.get_input_embeddings().weight)
    if table.device.type == "meta":  # without weights there is nothing to read with
        return
    try:
        difference = _packed_against_alone(llm, table)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise RecipeError(f"model.llm: {name} can't read packed documents ({error}); {remedy}") from error
    tolerance = 1e-4 if table.dtype == torch.float32 else 5e-2
    if not difference < tolerance:
        raise RecipeError(
            f"model.llm: packed documents of {name} read each other (hidden states differ by {difference:.1e} of their "
            f"largest value from each document alone); {remedy}"
        )


@torch.no_grad()
def _packed_against_alone(llm: PreTrainedModel, table_VH: Tensor) -> float:
    """The largest difference of hidden states, as a share of the largest hidden state."""
    training = llm.training
    llm.eval()
    try:
        embedded_TH = table_VH[torch.linspace(0, len(table_VH) - 1, 7, device=table_VH.device).long()]
        lengths_D = torch.tensor([4, 3], device=table_VH.device)
        packed = read_documents(llm, embedded_TH, lengths_D)
        parts = zip(embedded_TH.split([4, 3]), lengths_D[:, None], strict=True)
        alone = torch.cat([read_documents(llm, part, length) for part, length in parts])
    finally:
        llm.train(training)
    return float((packed - alone).abs().max() / alone.abs().max())


def documents_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: [1, heads, T, width] -> [1, T, heads, width], document by document.

    `cu_seq_lens_q` are the documents' borders [D + 1] (0, end of the first, ..., T); without them this is `sdpa`.

    Raises:
        NotImplementedError: the architecture adds something to its attention scores.
    """
    if cu_seq_lens_q is None or max_length_q is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, sliding_window=sliding_window, **kwargs
        )
    if torch.is_autocast_enabled(query.device.type):  # queries and keys come out of the rotation in float32
        narrow = torch.get_autocast_dtype(query.device.type)
        query, key, value = (tensor.to(narrow) for tensor in (query, key, value))
    added = [name for name in UNPACKABLE if kwargs.get(name) is not None]
    if added:
        raise NotImplementedError(f"attention per document knows no {', '.join(added)}")
    # Beyond its reach a window is no window; dropout is what the kernel doesn't have.
    window = sliding_window if sliding_window is not None and sliding_window < max_length_q else None
    fused = query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and dropout == 0.0
    if fused and query.shape[-1] == value.shape[-1] <= MAX_VARLEN_HEAD_DIM:
        return attend_in_one_kernel(query, key, value, scaling, window, cu_seq_lens_q, max_length_q), None
    return attend_one_by_one(query, key, value, dropout, scaling, window, cu_seq_lens_q.tolist()), None


def attend_in_one_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    window: int | None,
    borders: Tensor,
    longest: int,
) -> Tensor:
    """A causal attention over all documents by PyTorch's variable-length kernel, on a GPU in a 16-bit type."""
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))  # [T, heads, width]
    attended = varlen_attn(
        query,
        key,
        value,
        borders,
        borders,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),  # so many positions before, none behind: causal
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return cast("Tensor", attended)[None]


def attend_one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    scaling: float | None,
    window: int | None,
    borders: list[int],
) -> Tensor:
    """A causal scaled-dot-product attention for each document, on the kernels that need no mask."""
    lengths = [end - start for start, end in pairwise(borders)]
    # split, not slices: its gradient is put together once instead of being added up document by document
    documents = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    attended = [
        functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if window is None else _band(q.shape[2], window, query.device),
            is_causal=window is None,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        ).transpose(1, 2)
        for q, k, v in documents
    ]
    return torch.cat(attended, 1)


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """True where a position may look: at itself and the `window` - 1 before it. [length, length]."""
    position = torch.arange(length, device=device)
    distance = position[:, None] - position
    return (distance >= 0) & (distance < window)


AttentionInterface.register(DOCUMENTS, documents_attention)
AttentionMaskInterface.register(DOCUMENTS, sdpa_mask)
