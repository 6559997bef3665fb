"""Planned against measured memory: real training steps on a CPU, a fresh process for each case.

    python benchmarks/plan_memory.py [--json] [--layers 30] [--positions 512 1536] [--dtype float32]

Measured is the peak resident size (VmHWM) less what stood there before the student was made, with libraries loaded and
used once. Freed memory must go back to the system for that to be the peak of what is alive: glibc's malloc is told so
by two variables. What no page was touched of is not resident: of the embedding table's gradient only the rows of the
batch's tokens. So a fully trained LLM measures up to one table less than it allocates; a GPU would count all of it. The
LLM is SmolLM2-135M in shape, with random weights; the adapter is a stack of two layers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import torch
from side_by_side import show

from salad.distill.loop import make_optimizer
from salad.distill.parallel import distribute
from salad.distill.teacher import LoraOffTeacher, SeparateTeacher
from salad.interleave.batch import Batch
from salad.model.sizes import on_meta, student_config
from salad.model.speech_lm import SpeechLM
from salad.plan.activations import MicroBatch
from salad.plan.memory import Memory, Way
from salad.plan.plan import expected_windows
from salad.ranks import ALONE
from salad.recipe import Recipe, parse_recipe

GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
MIB = 2**20


def recipe_of(train_llm: str, checkpointing: bool, positions: int, layers: int, dtype: str) -> Recipe:
    """SmolLM2-135M with the case's settings."""
    stage = {"micro_batch_positions": positions}
    sizes = {"hidden_size": 576, "num_hidden_layers": layers, "num_attention_heads": 9, "num_key_value_heads": 3}
    model = {
        "llm": "shape/of-smollm2-135m",
        "llm_sizes": {**sizes, "intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True},
        "encoder": "shape/of-mimi",
        "encoder_sizes": {"dim": 512, "hz": 12.5},
        "dtype": dtype,
        "train_llm": train_llm,
        "adapter": {"kind": "stack", "num_layers": 2, "frames_per_position": 1, "context_frames": 0},
    }
    tree = {"name": "plan-memory", "model": model, "sequence": {"max_positions": 256}}
    engine = {"device": "cpu", "gradient_checkpointing": checkpointing}
    return parse_recipe(tree | {"stage_one": stage, "stage_two": stage, "engine": engine}, "plan_memory.py")


def planned(recipe: Recipe) -> dict[str, float]:
    """Bytes by part."""
    config = student_config(recipe.model)
    memory = Memory(recipe, config, on_meta(config), expected_windows(recipe))
    way = Way("alone", 1, recipe.engine.gradient_checkpointing, recipe.stage_one.micro_batch_positions, "cpu")
    return memory.parts(way)


def batch_of(window: MicroBatch, config: object, per_position: int, width: int) -> Batch:
    """The window as tensors: random tokens, speech at the beginning of each document."""
    num_positions = sum(window.lengths)
    ids = torch.randint(0, 49_000, (num_positions,))
    heard = sum(-(-frames // per_position) for frames in window.span_frames)
    ids[torch.randperm(num_positions)[:heard]] = config.speech_token_id  # type: ignore[attr-defined]
    lengths = torch.tensor(window.lengths)
    chosen = torch.randint(0, num_positions, (window.num_scored,)).sort().values
    return Batch(
        items=tuple(map(str, range(len(lengths)))),
        student_ids_T=ids,
        student_lengths_D=lengths,
        teacher_ids_L=torch.randint(0, 49_000, (num_positions,)),
        teacher_lengths_D=lengths,
        speech_features_SFE=torch.randn(len(window.span_frames), max(window.span_frames), width).half(),
        speech_lengths_S=torch.tensor(window.span_frames),
        documents_N=torch.zeros(window.num_scored, dtype=torch.long),
        student_positions_N=chosen,
        teacher_positions_N=chosen,
        targets_N=torch.randint(0, 49_000, (window.num_scored,)),
    )


def measured(recipe: Recipe) -> float:
    """Bytes at the peak of two steps of two micro-batches."""
    torch.manual_seed(0)
    tiny = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64))
    tiny(torch.randn(64, 64)).sum().backward()  # thread pools and libraries are there now
    torch.optim.AdamW(tiny.parameters()).step()
    config, width = student_config(recipe.model), recipe.model.encoder_sizes.dim  # type: ignore[union-attr]
    window = expected_windows(recipe)(recipe.stage_one.micro_batch_positions)
    batch = batch_of(window, config, recipe.model.adapter.frames_per_position, width)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM counts from here
    before = resident("VmHWM")
    student = SpeechLM(config)
    separate = recipe.model.train_llm == "full"
    teacher = SeparateTeacher(SpeechLM(config).language_model) if separate else LoraOffTeacher(student)
    steps = distribute(student, teacher, recipe.stage_one, recipe.engine, ALONE)
    optimizer = make_optimizer(student, recipe.stage_one.optimizer)
    student.train()
    for _ in range(2):
        optimizer.zero_grad()
        for _ in range(2):
            steps(batch).loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in student.parameters() if p.requires_grad], 1.0)
        optimizer.step()
    return resident("VmHWM") - before


def resident(name: str) -> float:
    """A line of /proc/self/status, in bytes."""
    return 1024 * float(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


def main() -> None:
    """All cases, one process after another."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--positions", type=int, nargs="+", default=[512, 1536])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--case", help="one case, as JSON: what this script starts itself with")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.case:
        print(measured(recipe_of(**json.loads(asked.case))))
        return
    rows = []
    for train, checkpointing, positions in product(("lora", "frozen", "full"), (False, True), asked.positions):
        case = {"train_llm": train, "checkpointing": checkpointing, "positions": positions}
        case |= {"layers": asked.layers, "dtype": asked.dtype}
        command = [sys.executable, __file__, "--case", json.dumps(case)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | GIVE_BACK)
        plan = sum(planned(recipe_of(**case)).values()) / MIB
        found = float(done.stdout) / MIB
        rows.append({**case, "planned_mib": plan, "measured_mib": found, "planned_to_measured": plan / found})
    worst = max(rows, key=lambda row: abs(row["planned_to_measured"] - 1))
    notes = [f"seed 0, one thread, two steps of two micro-batches; worst {worst['planned_to_measured']:.3f}"]
    show(rows, asked.json, notes)


if __name__ == "__main__":
    main()
