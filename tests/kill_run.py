"""A small training that tests kill: `python kill_run.py FOLDER [ddp|fsdp]`, ending as the command line ends.

Everything is as in a stage: the stream, the schedule, the loop, a kept checkpoint before the decay.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import torch

import tiny
from salad.distill.loop import StepReport, train
from salad.distill.schedule import decay_start, warmup_stable_decay
from salad.distill.teacher import teacher_for
from salad.errors import InterruptedRunError, SaladError
from salad.interleave.stream import Stream
from salad.ranks import ALONE, Ranks, started_ranks
from salad.recipe import EngineSettings, OptimizerSettings, StageSettings
from salad.texts.text import Text

STEPS, DECAY_FRAC = 100, 0.2
KEPT_AT = decay_start(STEPS, DECAY_FRAC)
SETTINGS = StageSettings(
    alpha=0.7,
    steps=STEPS,
    checkpoint_every=2,
    batch_sequences=4,
    micro_batch_positions=60,
    optimizer=OptimizerSettings(adapter_rate=1e-3, llm_rate=1e-3),
)


def stream() -> Stream:
    """Speech and text in turns."""
    texts = [Text(f"t{n}", " ".join(tiny.WORDS[n : n + 6 + n % 3]), "d", "s", "l") for n in range(9)]
    return Stream.of(tiny.builder(), [tiny.utterances(9, 6)], texts, [1, 1], SETTINGS, tiny.SPEECH_TOKEN_ID, "kill")


def run(folder: Path, parallel: str = "ddp", ranks: Ranks = ALONE) -> list[StepReport]:
    """Train to the end, from wherever the last process was killed."""
    torch.set_num_threads(1)
    student = tiny.move(tiny.student("lora"), by=0.05)
    own = stream()
    reports = train(
        student,
        teacher_for(student),
        lambda step: own.batches(step, ranks.rank, ranks.world),
        SETTINGS,
        lambda step: warmup_stable_decay(step, STEPS, 5, DECAY_FRAC),
        folder,
        keep={KEPT_AT: "pre_decay"},
        engine=EngineSettings(parallel=parallel),
        ranks=ranks,
        warn=lambda sentence: print(f"WARNING: {sentence}", file=sys.stderr, flush=True),
    )
    return list(reports)


def left_by(folder: Path) -> dict[str, Any]:
    """All that a finished run leaves, but for how long it took: bytes of weights and optimizer state, and the curve."""
    found: dict[str, Any] = {"names": sorted(path.name for path in folder.iterdir() if "damaged-" not in path.name)}
    for name in (f"step-{STEPS:08d}", f"step-{STEPS - 2:08d}", "pre_decay"):
        for part in ("weights", "optimizer"):
            found[f"{name}/{part}"] = (folder / name / f"{part}.safetensors").read_bytes()
        state = json.loads((folder / name / "state.json").read_text())["state"]
        for report in state["reports"]:
            del report["seconds"], report["data_s"]
        found[f"{name}/state"] = state
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    try:
        with started_ranks("cpu") as these:
            run(Path(sys.argv[1]), *sys.argv[2:], ranks=these)
    except InterruptedRunError as error:
        print(error, file=sys.stderr)
        sys.exit(128 + error.signal_number)
    except SaladError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
