"""The teacher's part of a step, reading each time or once: its time, and what rounding does to the student's gradient.

    python benchmarks/teacher.py [--json] [--quick] [--texts FILE.jsonl]

1. An optimizer step of SmolLM2-135M on packed, interleaved sequences (`--texts`, each word with made-up frames), with
   the LLM's LoRA trained (the teacher is the student with its LoRA off) and all of it (a separate copy).
   `teacher_share` is the time until the teacher's hidden states are there, of the step's; `peak_mib` the whole
   process's. Recomputed and cached take their steps in turn.
2. The student's gradient (all of the LLM's weights and the adapter) against the one with the teacher's exact hidden
   states, for what might be kept of them: `gradient_error` is the norm of the difference over the norm, the mean over
   `batches`; `kl_nats` is D_KL(exact || kept). One student hears noise, another reads text and is near its teacher:
   the nearer, the smaller the gradient, and the larger the same rounding in proportion. The 64 largest logits, what
   others keep, stand beside them: they are biased.

Without the SmolLM2 asset its shape is taken, with random weights; without texts, made-up ones. The notes say so.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from side_by_side import Round, row, run_variants, show
from synthetic_corpus import LLM, running_text
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from salad.distill.divergence import divergence_terms, objective_sum
from salad.distill.head import head_of
from salad.distill.loop import make_optimizer
from salad.distill.parallel import objective
from salad.distill.teacher import SeparateTeacher, Teacher, teacher_for
from salad.distill.teacher_cache import CachedTeacher, cache_hidden
from salad.distill.teacher_files import TeacherIdentity
from salad.distill.teacher_shards import Document
from salad.errors import AssetError
from salad.interleave.batch import Batch, collate
from salad.interleave.builder import SequenceBuilder
from salad.interleave.utterances import Utterance, feature_lookup
from salad.model.llm import document_mark, llm_folder, load_llm, load_tokenizer
from salad.model.speech_lm import SpeechLM
from salad.recipe import AdapterSettings, ModelSettings, OptimizerSettings, SequenceSettings, StageSettings
from salad.speech.prepared import TimedWord

ENCODER_DIM, ENCODER_HZ, FRAMES_PER_POSITION = 384, 50.0, 4
WORDS_PER_S = 2.7
MAX_WORDS = 120  # of a text
SPEECH_TOKEN_ID = 1 << 20  # outside of any table
TOP = 64
NEAR = 0.02  # noise on each weight of the student that is near its teacher, in proportion to the matrix's own spread
STEP = StageSettings(alpha=1.0)


class Timed:
    """A teacher, and how long it was asked."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher, self.head, self.seconds = teacher, teacher.head, 0.0

    def matched_hidden(self, batch: Batch) -> Tensor:
        """The teacher's."""
        started = time.perf_counter()
        hidden = self.teacher.matched_hidden(batch)
        self.seconds += time.perf_counter() - started
        return hidden


class Bench:
    """The LLM's folder, and batches of texts."""

    def __init__(self, folder: Path, texts: list[str], positions: int, seed: int) -> None:
        self.folder, self.positions, self.seed, self.texts = str(folder), positions, seed, texts
        own = load_tokenizer(self.folder)
        self.builder = SequenceBuilder(
            own,
            document_mark(own),
            SequenceSettings(),
            ENCODER_HZ / FRAMES_PER_POSITION,
            FRAMES_PER_POSITION,
            seed,
        )

    def student(self, train_llm: str) -> SpeechLM:
        """A new one."""
        settings = ModelSettings(
            llm=self.folder,
            encoder="synthetic",
            train_llm=train_llm,
            adapter=AdapterSettings(kind="mlp", frames_per_position=FRAMES_PER_POSITION, hidden_size=640),
        )
        return SpeechLM.from_llm(settings, ENCODER_DIM, ENCODER_HZ, SPEECH_TOKEN_ID, self.seed)

    def batch(self, index: int, spoken: bool = True) -> Batch:
        """About as many positions as asked for, of the texts in random order."""
        rng = np.random.default_rng([self.seed, index + 1])
        sequences, utterances = [], []
        for number in rng.permutation(len(self.texts)):
            words = self.texts[number].split()[:MAX_WORDS]
            if sum(len(s.student_ids) for s in sequences) >= self.positions or len(words) < 30:
                continue
            utterance = self._utterance(f"u{number}", words, rng)
            utterances.append(utterance)
            read = self.builder.text(utterance.id, " ".join(words))
            sequences.append(self.builder.mixed(utterance) if spoken else read)
        return collate(sequences, feature_lookup(utterances), FRAMES_PER_POSITION, SPEECH_TOKEN_ID)

    def _utterance(self, name: str, words: list[str], rng: np.random.Generator) -> Utterance:
        step = 1 / WORDS_PER_S
        timed = tuple(TimedWord(word, i * step, (i + 0.9) * step) for i, word in enumerate(words))
        num_frames = math.ceil(len(words) * step * ENCODER_HZ)
        return Utterance(name, timed, rng.standard_normal((num_frames, ENCODER_DIM)).astype(np.float16))

    def cached(self, teacher: Teacher, batches: list[Batch], place: Path) -> CachedTeacher:
        """The teacher that has read these batches."""
        identity = TeacherIdentity.of(self.folder, "float32")
        read = [
            Document(item, ids.tolist())
            for batch in batches
            for item, ids in zip(batch.items, batch.teacher_ids_L.split(batch.teacher_lengths_D.tolist()), strict=True)
        ]
        cache_hidden(lambda: teacher, read, place, identity)
        head = teacher.head
        return CachedTeacher(place, identity, lambda: head)


# --- 1. the step ------------------------------------------------------------------------------------------------------


def steps(kind: str, train_llm: str, bench: Bench, rounds: int, threads: int, place: Path) -> Round:
    """An optimizer step a round."""
    torch.set_num_threads(threads)
    student = bench.student(train_llm)
    teacher = teacher_for(student)
    if kind == "cached":
        batches = [bench.batch(index) for index in range(-1, rounds)]
        teacher = bench.cached(teacher, batches, place)
    asked = Timed(teacher)
    optimizer = make_optimizer(student, OptimizerSettings())
    for group in optimizer.param_groups:
        group["lr"] = 1e-5

    def one_round(index: int) -> dict[str, float]:
        batch = bench.batch(index)
        asked.seconds = 0.0
        student.train()
        started = time.perf_counter()
        optimizer.zero_grad()
        sums = objective(student, asked, batch, STEP)  # type: ignore[arg-type]  # what it asks of a teacher
        (sums.loss / len(batch.targets_N)).backward()
        torch.nn.utils.clip_grad_norm_([p for p in student.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        taken = time.perf_counter() - started
        return {"seconds": taken, "teacher_s": asked.seconds, "share": asked.seconds / taken}

    return one_round


def step_rows(bench: Bench, rounds: int, threads: int, place: Path) -> list[dict[str, Any]]:
    """Recomputed against cached, for both ways to train."""
    rows = []
    for train_llm in ("lora", "full"):
        names = {"recomputed": f"recomputed, {train_llm}", "cached": f"salad cached, {train_llm}"}
        variants = {
            name: partial(steps, kind, train_llm, bench, rounds, threads, place / train_llm)
            for kind, name in names.items()
        }
        results = run_variants(variants, rounds, threads, timeout_s=1800)
        peer = names["recomputed"]
        for name, result in results.items():
            share = {
                "teacher_share": round(result.median("share"), 5),
                "teacher_s": round(result.median("teacher_s"), 5),
            }
            rows.append(row(name, result, results[peer], peer, **share))
    return rows


# --- 2. the gradient --------------------------------------------------------------------------------------------------


def top_logits(student: SpeechLM, student_NH: Tensor, exact_NH: Tensor, teacher: Teacher, targets_N: Tensor) -> Tensor:
    """The KL of a teacher of which the `TOP` largest logits are kept, their softmax taken as its distribution."""
    with torch.no_grad():
        logits, ids = teacher.head.logits(exact_NH).topk(TOP)
        kept_q = torch.zeros(len(exact_NH), teacher.head.rows).scatter_(1, ids, logits.softmax(-1))
    log_p = head_of(student.language_model).logits(student_NH).log_softmax(-1)
    assert len(targets_N) == len(log_p)
    return torch.special.xlogy(kept_q, kept_q).sum() - (kept_q * log_p).sum()


def gradient_rows(bench: Bench, batches: int, place: Path) -> list[dict[str, Any]]:
    """What might be kept, and what it does to the gradient."""
    student = bench.student("full")
    teacher = SeparateTeacher(load_llm(bench.folder))
    rows = gradients(student, teacher, bench, batches, True, place / "heard")
    torch.manual_seed(bench.seed)
    with torch.no_grad():
        for parameter in student.language_model.parameters():
            if parameter.dim() == 2:
                parameter += NEAR * parameter.std() * torch.randn_like(parameter)
    return rows + gradients(student, teacher, bench, batches, False, place / "read")


def gradients(
    student: SpeechLM, teacher: SeparateTeacher, bench: Bench, num: int, spoken: bool, place: Path
) -> list[dict[str, Any]]:
    """A row for each way to keep the teacher, of a student in one state."""
    batches = [bench.batch(index, spoken) for index in range(num)]
    cached = bench.cached(teacher, batches, place)
    width = teacher.head_VH.shape[1]
    ways: dict[str, tuple[int, Callable[[Batch, Tensor], Tensor]]] = {
        "salad float16": (2 * width, lambda batch, _: cached.matched_hidden(batch)),
        "bfloat16": (2 * width, lambda _, exact: exact.bfloat16().float()),
        f"top-{TOP} logits": (TOP * 6, lambda _, exact: exact),  # an id of 4 bytes, a logit of 2
    }
    errors: dict[str, list[float]] = {name: [] for name in ways}
    divergences: dict[str, list[float]] = {name: [] for name in ways}
    distance, count = 0.0, 0
    for batch in batches:
        student.zero_grad()
        hidden_TH = student.last_hidden(
            batch.student_ids_T, batch.student_lengths_D, batch.speech_features_SFE, batch.speech_lengths_S
        )
        student_NH = hidden_TH[batch.student_positions_N]
        exact_NH = teacher.matched_hidden(batch)
        weights = [p for p in student.parameters() if p.requires_grad]
        head = head_of(student.language_model)

        def gradient(loss: Tensor, weights: list[Tensor] = weights) -> list[Tensor]:
            found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
            return [torch.zeros(1) if part is None else part for part in found]

        sums = objective_sum(student_NH, head, exact_NH, teacher.head, batch.targets_N, 1.0)
        wanted = gradient(sums.loss)
        distance, count = distance + float(sums.kl), count + len(batch.targets_N)
        for name, (_, kept) in ways.items():
            kept_NH = kept(batch, exact_NH)
            if name.startswith("top"):
                loss = top_logits(student, student_NH, exact_NH, teacher, batch.targets_N)
                divergences[name].append(math.nan)
            else:
                loss = objective_sum(student_NH, head, kept_NH, teacher.head, batch.targets_N, 1.0).loss
                terms = divergence_terms(exact_NH, teacher.head, kept_NH, teacher.head, batch.targets_N)
                divergences[name].append(float(terms.kl_N.mean()))
            errors[name].append(relative(gradient(loss), wanted))
    state = {"student": "hears noise" if spoken else "near its teacher", "student_kl_nats": round(distance / count, 4)}
    return [
        {
            "variant": name,
            **state,
            "gradient_error": round(float(np.mean(errors[name])), 6),
            "kl_nats": None if name.startswith("top") else float(f"{np.mean(divergences[name]):.2e}"),
            "bytes_per_token": size,
            "batches": num,
            "positions": count,
        }
        for name, (size, _) in ways.items()
    ]


def relative(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The norm of the difference over the norm."""
    pairs = list(zip(found, wanted, strict=True))
    difference = sum(float((a - b).double().square().sum()) for a, b in pairs)
    return math.sqrt(difference / sum(float(b.double().square().sum()) for _, b in pairs))


# --- what it is run on ------------------------------------------------------------------------------------------------


def model_folder(place: Path, layers: int | None) -> tuple[Path, str]:
    """SmolLM2-135M, or its first layers, or its shape with random weights; and a sentence."""
    try:
        folder, sentence = llm_folder(LLM), f"{LLM}"
        if layers is None:
            return folder, sentence
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        model.model.layers = model.model.layers[:layers]
        model.config.num_hidden_layers = layers
    except AssetError:
        sizes: Mapping[str, int] = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": layers or 30}
        heads = {"num_attention_heads": 9, "num_key_value_heads": 3}
        config = LlamaConfig(vocab_size=49_152, **sizes, **heads, tie_word_embeddings=True)
        model, sentence = AutoModelForCausalLM.from_config(config), f"the shape of {LLM} with random weights"
    from synthetic_corpus import tokenizer

    model.save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place, f"{sentence}, {model.config.num_hidden_layers} layers"


def texts_of(path: Path | None, seed: int) -> tuple[list[str], str]:
    """The texts, and a sentence."""
    if path is None:
        words = running_text(60_000, seed)
        return [" ".join(words[i : i + MAX_WORDS]) for i in range(0, len(words), MAX_WORDS)], "made-up words"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in rows], path.name


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="4 layers, fewer and shorter batches: whether it runs")
    parser.add_argument("--texts", type=Path, help="JSON lines with a key text")
    parser.add_argument("--positions", type=int, default=1024, help="of a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=4, help="whose gradients are compared")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.positions, arguments.rounds, arguments.batches = 256, 2, 1
    torch.set_num_threads(arguments.threads)
    with TemporaryDirectory(prefix="salad-teacher-") as place:
        folder, model = model_folder(Path(place) / "llm", 4 if arguments.quick else None)
        texts, source = texts_of(arguments.texts, arguments.seed)
        bench = Bench(folder, texts, arguments.positions, arguments.seed)
        rows = step_rows(bench, arguments.rounds, arguments.threads, Path(place) / "steps")
        rows += gradient_rows(bench, arguments.batches, Path(place))
    settings = f"{arguments.positions} positions a batch, float32, threads {arguments.threads}, seed {arguments.seed}"
    show(rows, arguments.json, [f"{model}; {source}; {settings}"])


if __name__ == "__main__":
    main()
