"""What it costs to know M(c) for each of K clusters, against one plain evaluation pass over the same sequences.

    python benchmarks/probe.py [--json] [--tiny] [--sequences 256] [--words 12] [--rounds 3] [--threads 1]

The plain pass is as plain as can be: teacher over the text, student over the speech, the KL of each position and one
sum over all. Ours gives every text's sums and every cluster's M with its standard error, entropy and NLL gap, for K of
8, 64 and 256; `all scores` also JSD and self-misalignment, which takes one more pass of the student over the text.
`a pass a cluster` is what is written without thinking: clusters one after another, each in batches of its own. All run
in one process, in turn; batches are made beforehand. `ratio_to_evaluation_pass` is the median over rounds of time over
the plain pass's in the same round: the goal is 1.02 for any K.

The model is SmolLM2-135M with LoRA and an adapter (`--tiny`, or without the asset: two layers of random weights); texts
and frames are made up.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from side_by_side import show
from synthetic_corpus import LLM, tokenizer, vocabulary
from transformers import LlamaConfig, LlamaForCausalLM

from salad.distill.logits import LogitsPair
from salad.distill.teacher import Teacher, teacher_for
from salad.errors import AssetError
from salad.interleave.batch import Batch
from salad.interleave.builder import SequenceBuilder
from salad.interleave.sequence import MixedSequence
from salad.interleave.utterances import Utterance, feature_lookup
from salad.measure.divergence_by_item import scores_by_item, student_hears
from salad.measure.misalignment import batches_of
from salad.model.llm import document_mark, load_llm
from salad.model.speech_lm import SpeechLM
from salad.recipe import AdapterSettings, ModelSettings, SequenceSettings
from salad.select.probe import ProbeItem, probe_clusters
from salad.speech.prepared import TimedWord

ENCODER_DIM, ENCODER_HZ, FRAMES_PER_POSITION = 384, 50.0, 4
WORDS_PER_S = 2.7
SPEECH_TOKEN_ID = 1 << 20  # outside of any table
NUM_CLUSTERS = (8, 64, 256)
BATCH_POSITIONS = 2048
PLAIN = "evaluation pass"


def student_of(tiny: bool, place: str) -> tuple[SpeechLM, str]:
    """A speech LLM whose LoRA has moved, and what it is."""
    own = tokenizer()
    try:
        llm = None if tiny else load_llm(LLM)
    except AssetError:
        llm = None
    name = LLM if llm is not None else "two layers of random weights"
    if llm is None:
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        llm = LlamaForCausalLM(LlamaConfig(vocab_size=len(own), **sizes, num_key_value_heads=2))
    adapter = AdapterSettings(kind="mlp", frames_per_position=FRAMES_PER_POSITION, hidden_size=640)
    settings = ModelSettings(llm=place, encoder="synthetic", train_llm="lora", adapter=adapter)
    student = SpeechLM.around(llm, settings, ENCODER_DIM, ENCODER_HZ, SPEECH_TOKEN_ID)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter += 0.01 * torch.randn_like(parameter)
    return student, name


def utterances_of(num: int, num_words: int, seed: int) -> list[Utterance]:
    """Made-up texts of about so many words, and noise for their frames."""
    rng, words = np.random.default_rng(seed), vocabulary()
    found = []
    for index in range(num):
        said = [words[i] for i in rng.integers(min(len(words), 2000), size=max(6, round(rng.normal(num_words, 2))))]
        timed = tuple(TimedWord(w, i / WORDS_PER_S, (i + 0.9) / WORDS_PER_S) for i, w in enumerate(said))
        num_frames = math.ceil(len(said) / WORDS_PER_S * ENCODER_HZ)
        found.append(Utterance(f"u{index}", timed, rng.standard_normal((num_frames, ENCODER_DIM)).astype(np.float16)))
    return found


def evaluation_pass(teacher: Teacher, student: SpeechLM, batches: Sequence[Batch]) -> float:
    """The mean KL per position, and nothing else."""
    hears, total, count = student_hears(student), 0.0, 0
    with torch.no_grad():
        for batch in batches:
            heard_NH, head = hears(batch)
            pair = LogitsPair(heard_NH, head, teacher.matched_hidden(batch), teacher.head, batch.targets_N, None)
            kl_N = pair.new_values()
            for _, blocks in pair.chunks(batch.targets_N):
                for block in blocks:
                    kl_N[block.rows] = block.kl()
            total, count = total + float(kl_N.sum(dtype=torch.float64)), count + len(kl_N)
    return total / count


def probe(
    teacher: Teacher, student: SpeechLM, batches: Sequence[Batch], num_clusters: int, extra: bool = False
) -> float:
    """Every cluster's probe; the mean KL per position over all, for a check."""
    rows = scores_by_item(teacher, student, batches, jsd=extra, self_misalignment=extra)
    items = [ProbeItem(row, int(row.item[1:]) % num_clusters, 0.1, 10, 4.0) for row in rows]
    probes = probe_clusters(items, num_clusters, 1.0)
    total = sum((one.misalignment_nats or 0.0) * one.num_tokens for one in probes)
    return total / sum(one.num_tokens for one in probes)


def in_turn(work: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every round of each, the order turned round each time; all must find the same mean.

    Raises:
        AssertionError: they don't.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for index in range(-1, rounds):  # the first warms up
        found = {}
        for name in list(work)[:: -1 if index % 2 else 1]:
            began = time.perf_counter()
            found[name] = work[name]()
            if index >= 0:
                seconds[name].append(time.perf_counter() - began)
        assert max(found.values()) - min(found.values()) < 1e-4 * max(found.values()), found
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="two layers of random weights")
    parser.add_argument("--sequences", type=int, default=256)
    parser.add_argument("--words", type=int, default=12, help="of a text, about")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with TemporaryDirectory() as place:
        student, name = student_of(given.tiny, place)
    own = tokenizer()
    policy = SequenceSettings(policy="speech_prefix")
    hz = ENCODER_HZ / FRAMES_PER_POSITION
    builder = SequenceBuilder(own, document_mark(own), policy, hz, FRAMES_PER_POSITION, given.seed)
    utterances, rejected = builder.usable(utterances_of(given.sequences, given.words, given.seed))
    sequences = [builder.mixed(utterance) for utterance in utterances]
    teacher = teacher_for(student)

    def batched(chosen: Sequence[MixedSequence]) -> list[Batch]:
        return list(batches_of(chosen, feature_lookup(utterances), student, BATCH_POSITIONS))

    batches = batched(sequences)
    work: dict[str, Callable[[], float]] = {PLAIN: partial(evaluation_pass, teacher, student, batches)}
    clusters: dict[str, int | None] = {PLAIN: None}
    for k in NUM_CLUSTERS:
        by_cluster = [batch for c in range(k) for batch in batched(sequences[c::k])]
        for variant, call in (
            ("salad", partial(probe, teacher, student, batches, k)),
            ("salad, all scores", partial(probe, teacher, student, batches, k, True)),
            ("a pass a cluster", partial(probe, teacher, student, by_cluster, k)),
        ):
            if variant == "salad" or k == NUM_CLUSTERS[1]:
                work[f"{variant} {k}"] = call
                clusters[f"{variant} {k}"] = k
    seconds = in_turn(work, given.rounds)
    rows: list[dict[str, Any]] = [
        {
            "variant": variant if k is None else variant.removesuffix(f" {k}"),
            "K": k,
            "seconds": round(statistics.median(seconds[variant]), 4),
            "ratio_to_evaluation_pass": round(
                statistics.median(own / plain for own, plain in zip(seconds[variant], seconds[PLAIN], strict=True)), 4
            ),
            "sequences": len(sequences),
            "positions": sum(len(sequence.pairs) for sequence in sequences),
            "threads": given.threads,
            "rounds": given.rounds,
        }
        for variant, k in clusters.items()
    ]
    show(rows, given.json, [f"{name}; seed {given.seed}; {len(rejected)} texts not usable"])


if __name__ == "__main__":
    main()
