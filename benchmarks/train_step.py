"""One optimizer step of distillation, whole: ours against the step of a usual trainer.

    python benchmarks/train_step.py [--json] [--quick]

Ours is what `salad run` does: the sequences of a step packed into windows, attention per document, both heads at the
positions with loss alone, KL from hidden states in chunks, gradients, clipping, AdamW. The usual trainer pads the same
sequences to the longest, makes the logits of student and teacher at every position, and takes a dense KL where there is
loss. Both train the first 8 layers of a LLM with SmolLM2-135M's sizes (random weights; V = 49,152, H = 576) and an MLP
adapter, from a frozen teacher of the same sizes, on the same interleaved sequences of made-up words and frames, drawn
anew each round. Every variant must come to the same loss, or the benchmark fails.

`mfu` is the model's own FLOPs of the step (model/flops.py: causal attention per document, heads where there is loss,
nothing for padding, nothing twice) over what a matrix product reaches in the same process in the same round; `ratio`
the tokens a second against the usual trainer's, `peak_ratio` the peak memory of the steps (without libraries, weights
and data) against its.
"""

from __future__ import annotations

import argparse
import math
import time
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from side_by_side import Result, Round, ratio, row, run_variants, show
from synthetic_corpus import running_text, tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from salad.distill.loop import make_optimizer, train
from salad.distill.teacher import SeparateTeacher
from salad.interleave.batch import Batch, collate
from salad.interleave.builder import SequenceBuilder
from salad.interleave.packing import pack
from salad.interleave.sequence import MixedSequence
from salad.interleave.utterances import Utterance, feature_lookup
from salad.model.flops import StepFlops
from salad.model.llm import document_mark
from salad.model.speech_lm import SpeechLM
from salad.recipe import AdapterSettings, EngineSettings, ModelSettings, SequenceSettings, StageSettings
from salad.speech.prepared import TimedWord

NUM_LAYERS = 8
ENCODER_DIM, ENCODER_HZ, FRAMES_PER_POSITION = 384, 50.0, 4
WORDS_PER_S = 2.7
WINDOW = 2048
GEMM = 1536  # side of the square matrix product that stands for the machine's speed
PEER = "usual trainer: padded, dense KL"


def llm(layers: int, vocabulary: int, seed: int) -> LlamaForCausalLM:
    """Random weights in the sizes of SmolLM2-135M."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config).eval()


class Bench:
    """Student, teacher and sequences of one variant's process."""

    def __init__(self, train_llm: str, positions: int, seed: int) -> None:
        """The student starts as its teacher; `positions` are a step's, about."""
        self.tokenizer = tokenizer()
        self.positions, self.seed = positions, seed
        settings = ModelSettings(
            llm="random",
            encoder="synthetic",
            train_llm=train_llm,
            adapter=AdapterSettings(kind="mlp", frames_per_position=FRAMES_PER_POSITION, hidden_size=640),
        )
        vocabulary = 128 * math.ceil(len(self.tokenizer) / 128)
        self.speech_token_id = vocabulary
        base = llm(NUM_LAYERS, vocabulary, seed)
        self.student = SpeechLM.around(base, settings, ENCODER_DIM, ENCODER_HZ, vocabulary, seed)
        self.teacher = SeparateTeacher(llm(NUM_LAYERS, vocabulary, seed))
        self.builder = SequenceBuilder(
            self.tokenizer,
            document_mark(self.tokenizer),
            SequenceSettings(),
            ENCODER_HZ / FRAMES_PER_POSITION,
            FRAMES_PER_POSITION,
            seed,
        )
        self.flops = StepFlops.of(self.student.config)
        self.words = running_text(50_000, seed)

    def sequences(self, index: int) -> tuple[list[MixedSequence], list[Utterance]]:
        """Interleaved utterances of lognormal length (mean 300 positions, sd 200) and a third as many texts."""
        rng = np.random.default_rng([self.seed, index + 1])
        sigma = math.sqrt(math.log(1 + (200 / 300) ** 2))
        made: list[MixedSequence] = []
        spoken: list[Utterance] = []
        while sum(len(s.student_ids) for s in made) < self.positions:
            length = float(rng.lognormal(math.log(300) - sigma**2 / 2, sigma))
            words = self._words(rng, max(12, int(length / 3.0)))
            if len(made) % 3 == 2:
                made.append(self.builder.text(f"t{len(made)}", " ".join(words)))
                continue
            utterance = self._utterance(f"u{len(made)}", words, rng)
            made.append(self.builder.mixed(utterance))
            spoken.append(utterance)
        return made, spoken

    def _words(self, rng: np.random.Generator, num: int) -> list[str]:
        begin = int(rng.integers(len(self.words) - num))
        return self.words[begin : begin + num]

    def _utterance(self, name: str, words: list[str], rng: np.random.Generator) -> Utterance:
        step = 1 / WORDS_PER_S
        timed = tuple(TimedWord(word, i * step, (i + 0.9) * step) for i, word in enumerate(words))
        num_frames = math.ceil(len(words) * step * ENCODER_HZ)
        return Utterance(name, timed, rng.standard_normal((num_frames, ENCODER_DIM)).astype(np.float16))

    def flops_of(self, batch: Batch) -> float:
        """The model's own FLOPs of a batch."""
        frames = [] if batch.speech_lengths_S is None else batch.speech_lengths_S.tolist()
        return self.flops.step(batch.student_lengths_D, batch.teacher_lengths_D, len(batch.targets_N), frames)

    def batch(self, sequences: list[MixedSequence], spoken: list[Utterance]) -> Batch:
        """Sequences side by side in one row."""
        return collate(sequences, feature_lookup(spoken), FRAMES_PER_POSITION, self.speech_token_id)


def ours(checkpointing: bool, train_llm: str, positions: int, seed: int, threads: int) -> Round:
    """The loop itself, a step at a time."""
    torch.set_num_threads(threads)
    bench = Bench(train_llm, positions, seed)

    def batches(step: int) -> list[Batch]:
        made, spoken = bench.sequences(step)
        windows = pack([len(sequence.student_ids) for sequence in made], WINDOW)
        return [bench.batch([made[i] for i in window], spoken) for window in windows]

    steps = train(
        bench.student,
        bench.teacher,
        batches,
        StageSettings(steps=10**6, checkpoint_every=10**6),
        lambda _: 1.0,
        Path(mkdtemp()),
        engine=EngineSettings(gradient_checkpointing=checkpointing),
        flops_of=bench.flops_of,
    )

    def one_round(_: int) -> dict[str, float]:
        peak = gemm_flops()
        report = next(steps)
        seconds = report.seconds - report.data_s
        return {
            "seconds": seconds,
            "tokens": report.positions,
            "loss": report.loss_nats,
            "mfu": report.flops / seconds / peak,
        }

    return one_round


def usual(train_llm: str, positions: int, seed: int, threads: int) -> Round:
    """Padded, logits at every position of both, a dense KL where there is loss."""
    torch.set_num_threads(threads)
    bench = Bench(train_llm, positions, seed)
    student, teacher = bench.student, bench.teacher.llm
    optimizer = make_optimizer(student, StageSettings().optimizer)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"]
    trained = [p for p in student.parameters() if p.requires_grad]

    def one_round(index: int) -> dict[str, float]:
        peak = gemm_flops()
        made, spoken = bench.sequences(index + 1)
        batch = bench.batch(made, spoken)
        started = time.perf_counter()
        student.train()
        optimizer.zero_grad()
        embedded_TH = student.embed(batch.student_ids_T[None], batch.speech_features_SFE, batch.speech_lengths_S)[0]
        student_DTV = padded_logits(student.language_model, embedded_TH, batch.student_lengths_D)
        with torch.no_grad():
            table = teacher.get_input_embeddings()
            teacher_DTV = padded_logits(teacher, table(batch.teacher_ids_L), batch.teacher_lengths_D)
        p_NV = student_DTV[where(batch.documents_N, batch.student_positions_N, batch.student_lengths_D)]
        q_NV = teacher_DTV[where(batch.documents_N, batch.teacher_positions_N, batch.teacher_lengths_D)]
        loss = functional.kl_div(
            functional.log_softmax(p_NV, -1), functional.log_softmax(q_NV, -1), reduction="sum", log_target=True
        ) / len(batch.targets_N)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        seconds = time.perf_counter() - started
        return {
            "seconds": seconds,
            "tokens": len(batch.student_ids_T),
            "loss": float(loss.detach()),
            "mfu": bench.flops_of(batch) / seconds / peak,
        }

    return one_round


def padded_logits(llm: Any, embedded_TH: Tensor, lengths_D: Tensor) -> Tensor:
    """Logits [D, longest, V] of documents that are padded to the longest."""
    documents = embedded_TH.split(lengths_D.tolist())
    rows = torch.nn.utils.rnn.pad_sequence(list(documents), batch_first=True)
    mask = torch.arange(rows.shape[1]) < lengths_D[:, None]
    logits: Tensor = llm(inputs_embeds=rows, attention_mask=mask.long(), use_cache=False).logits
    return logits


def where(documents_N: Tensor, positions_N: Tensor, lengths_D: Tensor) -> tuple[Tensor, Tensor]:
    """A matched position's document, and its place in it."""
    return documents_N, positions_N - (lengths_D.cumsum(0) - lengths_D)[documents_N]


def gemm_flops() -> float:
    """FLOP/s of a matrix product, now, with this process's threads."""
    left, right = torch.randn(GEMM, GEMM), torch.randn(GEMM, GEMM)
    fastest_s = math.inf
    for _ in range(4):
        started = time.perf_counter()
        left @ right
        fastest_s = min(fastest_s, time.perf_counter() - started)
    return 2 * GEMM**3 / fastest_s


def check(results: dict[str, Result]) -> None:
    """Every variant has trained on the same, and to the same."""
    for name, own in results.items():
        for entry, wanted in zip(own.rounds, results[PEER].rounds, strict=True):
            if entry["tokens"] != wanted["tokens"] or not math.isclose(entry["loss"], wanted["loss"], rel_tol=1e-3):
                raise AssertionError(f"{name} comes to {dict(entry)}, {PEER} to {dict(wanted)}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    parser.add_argument("--quick", action="store_true", help="a quarter of the positions, 2 rounds")
    parser.add_argument("--train-llm", choices=("full", "lora", "frozen"), default="full")
    parser.add_argument("--positions", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    positions, rounds = (given.positions // 4, 2) if given.quick else (given.positions, given.rounds)
    common = given.train_llm, positions, given.seed, given.threads
    variants = {
        "salad": partial(ours, False, *common),
        "salad, gradient checkpointing": partial(ours, True, *common),
        PEER: partial(usual, *common),
    }
    results = run_variants(variants, rounds, given.threads)
    check(results)
    peer = results[PEER]
    rows = [
        row(name, result, peer, PEER)
        | {
            "peak_ratio": round((result.peak_mib - result.base_mib) / (peer.peak_mib - peer.base_mib), 3),
            "step_mib": round(result.peak_mib - result.base_mib, 1),
            "tokens_per_s": round(result.median("tokens") / result.median(), 1),
            "cpu_ratio": round(ratio(result, peer, "cpu_s"), 3),
            "mfu": round(result.median("mfu"), 3),
            "train_llm": given.train_llm,
            "rounds": rounds,
            "seed": given.seed,
        }
        for name, result in results.items()
    ]
    note = (
        f"{NUM_LAYERS} layers, {peer.median('tokens'):.0f} positions a step, {given.threads} threads, medians of "
        f"{rounds} rounds, seed {given.seed}; ratios are tokens/s against '{PEER}'."
    )
    show(rows, given.json, [note])


if __name__ == "__main__":
    main()
