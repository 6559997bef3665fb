"""Training data without a model, and with one: how fast it comes, how long a step waits, what it keeps in memory.

    python benchmarks/loading.py [--json] [--cuts 1000000]

1. A warm epoch of made-up utterances with LibriSpeech-like lengths and 384-wide frames at 50 Hz, one process: stream of
   steps from the disk to packed batches. Against it the same sequences and batches made from (a) Lhotse's cuts in
   memory and a .npy file an utterance, (b) Lhotse's DynamicBucketingSampler over lazy cuts and its NumPy feature files.
2. A training step of SmolLM2-135M's first 8 layers with ears (its shape with random weights where the asset is not
   there): the share of its time that passes until its batches are there. The whole model waits for less of it.
3. A million short cuts: the index, resident memory (what no file stands behind) at 1, 10, 50 and 100 % of an epoch's
   positions, of which every tenth step is made, and asking what a policy can use, of every tenth cut.
4. From nothing to the first batches at a random step of that million, against Lhotse's sampler, which replays, over
   fewer cuts.

`seconds` are the medians of a round; `cpu_ratio` compares the processes' own CPU time.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from functools import partial
from itertools import islice
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet, Features
from lhotse.dataset import DynamicBucketingSampler
from side_by_side import Round, row, run_variants, show
from synthetic_corpus import ENCODER, FRAME_HZ, LLM, librispeech_durations, running_text, tokenizer, write_corpus
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.utils import logging

from salad.distill.loop import train
from salad.distill.teacher import teacher_for
from salad.errors import AssetError
from salad.interleave.batch import collate
from salad.interleave.builder import SequenceBuilder
from salad.interleave.packing import pack
from salad.interleave.sequence import MixedSequence
from salad.interleave.stream import Stream, step_batches
from salad.interleave.utterances import SpeechCorpus, Utterance
from salad.model.llm import document_mark, llm_folder
from salad.model.speech_lm import SpeechLM
from salad.recipe import ModelSettings, SequenceSettings, StageSettings
from salad.speech.prepared import CUTS_NAME, words_of
from salad.texts.corpus import TextCorpus
from salad.texts.text import Text, write_texts

FEATURE_DIM = 384  # Whisper tiny's
SPEECH_TOKEN_ID = 49152
STEP = StageSettings(batch_sequences=32, micro_batch_positions=2048)
EPOCH_STEPS = 8
STRIDE = 10
NUM_LAYERS = 8


def builder(policy: str = "interleaved") -> SequenceBuilder:
    """Sequences of the paper's policy for 12.5 positions a second."""
    own = tokenizer()
    return SequenceBuilder(own, document_mark(own), SequenceSettings.model_validate({"policy": policy}), 12.5, 4, 0)


def stream_of(speech: Sequence[Utterance], texts: Sequence[Text], text_frac: float, step: StageSettings) -> Stream:
    """Speech and text mixed as in Stage I."""
    weights = [1 - text_frac, text_frac]
    return Stream.of(builder(), [speech], texts, weights, step, SPEECH_TOKEN_ID, "benchmark")


# --- 1. a warm epoch ------------------------------------------------------------------------------------------------


def ours(folder: Path, text_frac: float) -> Round:
    """The stream of steps, an epoch of the speech a round."""
    speech, _ = builder().usable(SpeechCorpus(folder, ENCODER))
    num_items = EPOCH_STEPS * STEP.batch_sequences
    stream = stream_of(speech[:num_items], TextCorpus(folder / "texts.jsonl"), text_frac, STEP)

    def one_round(index: int) -> dict[str, float]:
        first = (index + 1) * EPOCH_STEPS
        batches = (batch for step in range(first, first + EPOCH_STEPS) for batch in stream.batches(step))
        return {"positions": sum(len(batch.student_ids_T) for batch in batches)}

    return one_round


def a_file_each(folder: Path) -> Round:
    """Lhotse's cuts in memory, a .npy file an utterance; sequences and batches made as ours are."""
    cuts = {cut.id: cut for cut in CutSet.from_file(folder / CUTS_NAME)}
    build = builder()
    names = [u.id for u in build.usable(SpeechCorpus(folder, ENCODER))[0]][: EPOCH_STEPS * STEP.batch_sequences]

    def one_round(index: int) -> dict[str, float]:
        order = np.random.default_rng(index + 1).permutation(names)
        spoken = (
            Utterance(name, tuple(words_of(cuts[name])), np.load(folder / "npy" / name[:10] / f"{name}.npy"))
            for name in order
        )
        return {"positions": _collated(build, spoken)}

    return one_round


def lhotse_sampler(folder: Path) -> Round:
    """Lhotse's bucketing sampler over lazy cuts, its NumPy feature files; sequences and batches made as ours are."""
    build = builder()
    usable = {u.id for u in build.usable(SpeechCorpus(folder, ENCODER))[0][: EPOCH_STEPS * STEP.batch_sequences]}

    def one_round(index: int) -> dict[str, float]:
        cuts = CutSet.from_jsonl_lazy(folder / "with_features.jsonl.gz").filter(lambda cut: cut.id in usable)
        sampler = DynamicBucketingSampler(
            cuts, max_duration=12.3 * STEP.batch_sequences, shuffle=True, seed=index + 1, num_buckets=4
        )
        spoken = (Utterance(cut.id, tuple(words_of(cut)), cut.load_features()) for batch in sampler for cut in batch)
        return {"positions": _collated(build, spoken)}

    return one_round


def _collated(build: SequenceBuilder, spoken: Iterator[Utterance]) -> int:
    positions = 0
    while group := list(islice(spoken, STEP.batch_sequences)):
        sequences: list[MixedSequence] = [build.mixed(utterance) for utterance in group]
        features = {utterance.id: utterance.features_FE for utterance in group}
        for window in pack([len(s.student_ids) for s in sequences], STEP.micro_batch_positions):
            batch = collate([sequences[i] for i in window], features.__getitem__, 4, SPEECH_TOKEN_ID)
            positions += len(batch.student_ids_T)
    return positions


def write_epoch(folder: Path, seed: int) -> None:
    """The corpus of the first part, its features a second time as files, and texts of some 170 words."""
    durations_s = librispeech_durations(EPOCH_STEPS * STEP.batch_sequences + 40, seed)
    write_corpus(folder, durations_s, FEATURE_DIM, seed, shared=False)
    lines: list[Any] = []
    for utterance, cut in zip(SpeechCorpus(folder, ENCODER), CutSet.from_file(folder / CUTS_NAME), strict=True):
        home = folder / "npy" / utterance.id[:10]
        home.mkdir(parents=True, exist_ok=True)
        frames = np.asarray(utterance.features_FE)
        np.save(home / f"{utterance.id}.npy", frames)
        cut.features = Features(
            "enc", *frames.shape, 1 / FRAME_HZ, 16000, 0.0, cut.duration, "numpy_files", str(folder / "npy"),
            f"{utterance.id[:10]}/{utterance.id}.npy",
        )  # fmt: skip
        lines.append(cut)
    CutSet.from_cuts(lines).to_file(folder / "with_features.jsonl.gz")
    words = iter(running_text(100_000, seed))
    lengths = np.random.default_rng(seed).lognormal(5.0, 0.6, 300).clip(20, 1500).astype(int)
    texts = [" ".join(islice(words, length)) for length in lengths.tolist()]
    write_texts(folder / "texts.jsonl", [Text(f"t{i}", text, "all", "", "") for i, text in enumerate(texts)])


def epoch_rows(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Part 1."""
    peer = "a .npy file an utterance, Lhotse cuts in memory"
    variants = {
        "stream, speech": partial(ours, folder, 0.0),
        "stream, 2/3 speech, 1/3 text": partial(ours, folder, 1 / 3),
        peer: partial(a_file_each, folder),
        "Lhotse's sampler and NumPy files": partial(lhotse_sampler, folder),
    }
    results = run_variants(variants, rounds)
    made = []
    for name, result in results.items():
        rates = [entry["positions"] / entry["seconds"] for entry in result.rounds]
        cpu_rates = [entry["positions"] / entry["cpu_s"] for entry in result.rounds]
        per_position = [
            (theirs["seconds"] / theirs["positions"]) / (own["seconds"] / own["positions"])
            for own, theirs in zip(result.rounds, results[peer].rounds, strict=True)
        ]
        made.append(
            row(f"epoch: {name}", result, results[peer], peer)
            | {
                "ratio": round(statistics.median(per_position), 3),
                "positions_per_s": round(statistics.median(rates)),
                "positions_per_cpu_s": round(max(cpu_rates)),
            }
        )
    return made


# --- 2. how long a training step waits ------------------------------------------------------------------------------


def waiting(folder: Path, num_workers: int, steps: int) -> dict[str, Any]:
    """Train a few steps; the time until the batches are there, and the steps' whole time, the first one apart."""
    torch.set_num_threads(2)
    set_start_method("fork", force=True)  # as in a run; this process was spawned, and would spawn the workers in turn
    step = StageSettings(batch_sequences=12, steps=steps, checkpoint_every=steps)
    speech, _ = builder().usable(SpeechCorpus(folder, ENCODER))
    stream = stream_of(speech, TextCorpus(folder / "texts.jsonl"), 1 / 3, step)
    made = step_batches(stream, steps, num_workers=num_workers)
    waited: list[float] = []

    def timed(number: int) -> Any:
        started = time.perf_counter()
        batches = made(number)
        waited.append(time.perf_counter() - started)
        return batches

    student = _student()
    with tempfile.TemporaryDirectory() as out:
        took = [r.seconds for r in train(student, teacher_for(student), timed, step, lambda _: 1.0, Path(out))]
    return {
        "variant": f"training step, {num_workers} workers: share spent waiting for data",
        "ratio": round(sum(waited[1:]) / sum(took[1:]), 5),
        "peer": "the whole step",
        "peak_mib": round(_status("VmHWM"), 1),
        "seconds": round(statistics.median(took[1:]), 4),
        "waited_s": round(statistics.median(waited[1:]), 5),
        "first_step_waited_s": round(waited[0], 4),
    }


def _student() -> SpeechLM:
    settings = ModelSettings(llm=LLM)
    logging.set_verbosity_error()  # it would list the layers that are left out
    logging.disable_progress_bar()
    try:
        llm = AutoModelForCausalLM.from_pretrained(
            llm_folder(LLM), num_hidden_layers=NUM_LAYERS, dtype=torch.float32
        ).eval()
    except AssetError:
        shape = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": NUM_LAYERS, "vocab_size": 49152}
        llm = AutoModelForCausalLM.from_config(
            LlamaConfig(**shape, num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True)
        )
    return SpeechLM.around(llm, settings, FEATURE_DIM, FRAME_HZ, SPEECH_TOKEN_ID)


# --- 3. and 4. a million cuts ---------------------------------------------------------------------------------------


def million(folder: Path, num_cuts: int, seed: int) -> list[dict[str, Any]]:
    """Write it, index it, read an epoch, ask what a policy can use; memory along the way."""
    durations_s = np.round(np.random.default_rng(seed).uniform(1.9, 2.6, num_cuts), 2)
    write_corpus(folder, durations_s, 8, seed, shared=True)
    began = time.perf_counter()
    speech = SpeechCorpus(folder, ENCODER)
    indexed_s = time.perf_counter() - began
    resident, read_s = _memory_of_an_epoch(_million_stream(speech))
    before, began = _anonymous(), time.perf_counter()
    usable, rejected = _short_builder().usable(speech[::STRIDE])
    usable_s, after = time.perf_counter() - began, _anonymous()
    common = {"peak_mib": round(_status("VmHWM"), 1), "cuts": num_cuts}
    return [
        {
            "variant": "memory at 100 % of the positions",
            "ratio": round(resident[100] / resident[1], 4),
            "peer": "at 1 %",
        }
        | common
        | {"seconds": round(read_s, 1), "resident_mib": {str(k): round(v, 1) for k, v in resident.items()}},
        {"variant": f"memory after asking what is usable of every {STRIDE}th", "ratio": round(after / before, 4)}
        | {"peer": "before"}
        | common
        | {"seconds": round(usable_s, 1), "index_s": round(indexed_s, 1), "usable": len(usable), "left": len(rejected)},
    ]


def _memory_of_an_epoch(stream: Stream) -> tuple[dict[int, float], float]:
    """Percentage of the positions that are behind -> MiB; and the seconds all of it took."""
    num_steps = stream.mix.sizes[0] // stream.batch_sequences
    began, resident = time.perf_counter(), {}
    for percent in range(1, 101):
        for step in range(num_steps * (percent - 1) // 100, num_steps * percent // 100, STRIDE):
            stream.batches(step)
        if percent in (1, 10, 50, 100):
            resident[percent] = _anonymous()
    return resident, time.perf_counter() - began


def _short_builder() -> SequenceBuilder:
    return builder("speech_prefix")


def _million_stream(speech: SpeechCorpus) -> Stream:
    step = StageSettings(batch_sequences=64, micro_batch_positions=2048)
    return Stream.of(_short_builder(), [speech], [], [1.0, 0.0], step, SPEECH_TOKEN_ID, "million")


def resume(folder: Path, seed: int) -> Round:
    """From the folder's name to the batches of a random step."""

    def one_round(index: int) -> dict[str, float]:
        stream = _million_stream(SpeechCorpus(folder, ENCODER))
        step = int(np.random.default_rng([seed, index + 1]).integers(stream.mix.sizes[0] // stream.batch_sequences))
        return {"step": step, "batches": len(stream.batches(step))}

    return one_round


def lhotse_resume(cuts_path: Path, num_cuts: int, seed: int) -> Round:
    """From a sampler's state at a random batch to the next batch."""

    def sampler() -> DynamicBucketingSampler:
        cuts = CutSet.from_jsonl_lazy(cuts_path)
        return DynamicBucketingSampler(cuts, max_duration=144.0, shuffle=True, seed=seed, num_buckets=10)

    def one_round(index: int) -> dict[str, float]:
        before, num_batches = sampler(), int(num_cuts / 64 * np.random.default_rng([seed, index + 1]).uniform(0.2, 0.9))
        batches = iter(before)
        for _ in range(num_batches):
            next(batches)
        state = deepcopy(before.state_dict())  # loading empties it
        started, cpu = time.perf_counter(), time.process_time()
        after = sampler()
        after.load_state_dict(state)
        next(iter(after))
        return {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - cpu, "batch": num_batches}

    return one_round


def resume_rows(folder: Path, num_cuts: int, peer_cuts: int, rounds: int, seed: int) -> list[dict[str, Any]]:
    """Part 4."""
    part = folder / "part.jsonl.gz"
    CutSet.from_cuts(islice(CutSet.from_jsonl_lazy(folder / CUTS_NAME), peer_cuts)).to_file(part)
    peer = f"Lhotse's sampler, {peer_cuts:,} cuts"
    variants = {"ours": partial(resume, folder, seed), peer: partial(lhotse_resume, part, peer_cuts, seed)}
    results = run_variants(variants, rounds)
    found = row(f"resume in {num_cuts:,} cuts", results["ours"], results[peer], peer)
    return [found | {"peer_seconds": round(results[peer].median(), 3), "rounds": rounds}]


def _anonymous() -> float:
    """MiB that no file stands behind: what the kernel can't take back."""
    gc.collect()
    return _status("RssAnon")


def _status(key: str) -> float:
    return int(Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0]) / 1024


def in_its_own_process(work: partial[Any]) -> Any:
    """Memory counts from an interpreter's start."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work).result()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    parser.add_argument("--cuts", type=int, default=1_000_000, help="of parts 3 and 4")
    parser.add_argument("--peer-cuts", type=int, default=10_000, help="that Lhotse's sampler replays over")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="salad-loading-"))
    try:
        write_epoch(folder / "epoch", given.seed)
        rows = epoch_rows(folder / "epoch", given.rounds)
        rows += [in_its_own_process(partial(waiting, folder / "epoch", n, given.steps)) for n in (0, 1)]
        shutil.rmtree(folder / "epoch")
        rows += in_its_own_process(partial(million, folder / "million", given.cuts, given.seed))
        peer_cuts = min(given.peer_cuts, given.cuts)
        rows += resume_rows(folder / "million", given.cuts, peer_cuts, min(3, given.rounds), given.seed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = [{"seed": given.seed, "rounds": given.rounds} | entry for entry in rows]
    show(rows, given.json, [f"Positions are LLM positions of the student. {torch.get_num_threads()} threads here."])


if __name__ == "__main__":
    main()
