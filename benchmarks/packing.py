"""A training step on documents of realistic lengths: padded, in length buckets, packed, and packed per document.

    python benchmarks/packing.py [--json]

Forward and backward of the first 8 layers of SmolLM2-135M (its shape with random weights where the asset is not there)
over the same documents in every variant: as many as make 2,048 positions, drawn anew each round. Only real positions
count as tokens. MFU is the model's own arithmetic (6 FLOPs a weight and token, causal attention within each document)
over that of a matrix product of torch timed beside it. `cpu_ratio` is the ratio of the processes' own CPU time, which a
busy neighbour doesn't change. Every variant must come to the same sum over the last hidden states, or the benchmark
fails.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from side_by_side import Result, Round, ratio, row, run_variants, show
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel
from transformers.utils import logging

from salad.errors import AssetError
from salad.interleave.packing import pack
from salad.model.attention import attend_per_document, read_documents
from salad.model.llm import llm_folder

NUM_LAYERS = 8
CAPACITY = 2048
GEMM = 1536  # side of the square matrix product that stands for the machine's speed
Step = Callable[[PreTrainedModel, list[Tensor]], tuple[Tensor, int]]  # documents -> (sum to learn from, positions run)


def model() -> PreTrainedModel:
    """The first layers of SmolLM2-135M, or random ones of its shape."""
    torch.manual_seed(0)
    logging.set_verbosity_error()  # it would list the layers that are left out
    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(
            llm_folder("smollm2-135m-instruct"), num_hidden_layers=NUM_LAYERS, dtype=torch.float32
        )
    except AssetError:
        config = LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=NUM_LAYERS,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
        )
        return AutoModelForCausalLM.from_config(config)


def lengths_of(distribution: str, num: int, rng: np.random.Generator) -> list[int]:
    """Positions of `num` documents.

    `lognormal`: mean 300, standard deviation 200. `librispeech`: utterances cut near 14-16 s with a tail of shorter
    ones, at 12.5 positions a second.
    """
    if distribution == "lognormal":
        sigma = math.sqrt(math.log(1 + (200 / 300) ** 2))
        drawn = rng.lognormal(math.log(300) - sigma**2 / 2, sigma, num)
    else:
        cut_s, shorter_s = rng.normal(14.2, 1.5, num), rng.uniform(1.3, 13, num)
        drawn = 12.5 * np.where(rng.random(num) < 0.72, cut_s, shorter_s)
    return [int(length) for length in drawn.clip(16, CAPACITY)]


def documents_of(distribution: str, seed: int, index: int, vocabulary: int) -> list[Tensor]:
    """The documents of a round: as many random ones as fit into a window, in random order."""
    rng = np.random.default_rng([seed, index + 1])
    documents: list[Tensor] = []
    for length in lengths_of(distribution, CAPACITY, rng):
        if sum(map(len, documents)) + length > CAPACITY:
            break
        documents.append(torch.from_numpy(rng.integers(vocabulary, size=length)))
    return documents


# --- the variants: the same documents, read in four ways -------------------------------------------------------------


def padded(llm: PreTrainedModel, documents: list[Tensor]) -> tuple[Tensor, int]:
    """One batch, every document padded to the longest."""
    ids = torch.nn.utils.rnn.pad_sequence(documents, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(document) for document in documents], batch_first=True)
    hidden = llm.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return hidden[mask.bool()].sum(), ids.numel()


def bucketed(llm: PreTrainedModel, documents: list[Tensor]) -> tuple[Tensor, int]:
    """Two batches: the shorter half and the longer half, each padded to its longest."""
    ordered = sorted(documents, key=len)
    halves = [half for half in (ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]) if half]
    parts = [padded(llm, half) for half in halves]
    return torch.stack([total for total, _ in parts]).sum(), sum(positions for _, positions in parts)


def packed_dense(llm: PreTrainedModel, documents: list[Tensor]) -> tuple[Tensor, int]:
    """One row; transformers sees the positions restart and builds a block-diagonal mask over the whole row."""
    positions = torch.cat([torch.arange(len(document)) for document in documents])
    decoder = llm.get_decoder()
    output = decoder(input_ids=torch.cat(documents)[None], position_ids=positions[None], use_cache=False)
    return output.last_hidden_state.sum(), len(positions)


def packed_per_document(llm: PreTrainedModel, documents: list[Tensor]) -> tuple[Tensor, int]:
    """One row; each document is attended to by itself."""
    row_ids, lengths = torch.cat(documents), torch.tensor([len(document) for document in documents])
    return read_documents(llm, llm.get_input_embeddings()(row_ids), lengths).sum(), len(row_ids)


VARIANTS: dict[str, Step] = {
    "padded at random": padded,
    "two length buckets": bucketed,
    "packed, dense mask": packed_dense,
    "packed, per document": packed_per_document,
}
PEER = "padded at random"


def variant(step: Step, distribution: str, seed: int, threads: int) -> Round:
    """One variant, ready in its own process."""
    torch.set_num_threads(threads)
    llm = model().train()
    if step is packed_per_document:
        attend_per_document(llm)
    left, right = torch.randn(GEMM, GEMM), torch.randn(GEMM, GEMM)

    def one_round(index: int) -> dict[str, float]:
        documents = documents_of(distribution, seed, index, llm.config.vocab_size)
        gemm_s = min(_seconds(lambda: left @ right) for _ in range(3))
        llm.zero_grad()
        started, started_cpu = time.perf_counter(), time.process_time()
        total, positions = step(llm, documents)
        total.backward()
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
        lengths = [len(document) for document in documents]
        return {
            "seconds": seconds,
            "cpu_s": cpu_s,
            "tokens_per_s": sum(lengths) / seconds,
            "fill": sum(lengths) / positions,
            "mfu": useful_flops(llm, lengths) / seconds / (2 * GEMM**3 / gemm_s),
            "documents": len(lengths),
            "total": float(total.detach()),
        }

    return one_round


def useful_flops(llm: PreTrainedModel, lengths: list[int]) -> float:
    """Of forward and backward: weights of the layers, and causal attention within each document."""
    weights = sum(p.numel() for p in llm.get_decoder().layers.parameters() if p.ndim == 2)
    width = llm.config.num_attention_heads * llm.config.head_dim
    attention = NUM_LAYERS * 2 * width * sum(length**2 for length in lengths)  # q k^T and p v, half of each
    return 6.0 * weights * sum(lengths) + 3.0 * attention


def window_fill(distribution: str, seed: int, buffer: int) -> float:
    """Positions / (windows x capacity) when `buffer` documents are packed at a time."""
    rng = np.random.default_rng([seed, buffer])
    used = windows = 0
    for _ in range(16):
        lengths = lengths_of(distribution, buffer, rng)
        used += sum(lengths)
        windows += len(pack(lengths, CAPACITY))
    return used / (windows * CAPACITY)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _check(results: dict[str, Result]) -> None:
    """Every variant has computed the same."""
    totals = {name: [entry["total"] for entry in result.rounds] for name, result in results.items()}
    for name, own in totals.items():
        if not np.allclose(own, totals[PEER], rtol=1e-3, atol=1.0):
            raise AssertionError(f"{name} comes to {own}, {PEER} to {totals[PEER]}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    parser.add_argument("--lengths", choices=("lognormal", "librispeech"), default="lognormal")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    variants = {
        name: partial(variant, step, given.lengths, given.seed, given.threads) for name, step in VARIANTS.items()
    }
    results = run_variants(variants, given.rounds, given.threads)
    _check(results)
    rows = [
        row(name, result, results[PEER], PEER)
        | {
            "cpu_ratio": round(ratio(result, results[PEER], "cpu_s"), 3),
            "ratio_to_buckets": round(ratio(result, results["two length buckets"]), 3),
            "tokens_per_s": round(result.median("tokens_per_s"), 1),
            "fill": round(result.median("fill"), 3),
            "mfu": round(result.median("mfu"), 3),
            "rounds": given.rounds,
            "seed": given.seed,
        }
        for name, result in results.items()
    ]
    fills = ", ".join(f"{window_fill(given.lengths, given.seed, n):.3f} of {n:,}" for n in (256, 1024))
    notes = [
        f"{given.lengths} lengths, {results[PEER].median('documents'):.0f} documents a round, {given.threads} threads, "
        f"medians of {given.rounds} rounds, seed {given.seed}.",
        f"Windows of {CAPACITY} positions are filled to {fills} documents packed at a time.",
    ]
    show(rows, given.json, notes)


if __name__ == "__main__":
    main()
