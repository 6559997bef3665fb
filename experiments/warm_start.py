"""What a warm start buys: Stage I with none, a word-aligned and a CTC one, at equal compute, on a finished run's data.

    python experiments/warm_start.py runs/demo --seeds 0 1 --json warm_start.json

Compute is FLOPs of matrix products (forward and backward), not seconds, so that a busy machine doesn't matter. The
budget is that of the run's recipe: its steps of word-aligned warm start and of distillation. CTC gets as many steps of
warm start as cost the same; without a warm start all goes into distillation. Everything else is the recipe's, the
schedule stretched to the steps. M and hearing are taken on the run's held-out speech. The run folder is read, and what
its corpora keep beside themselves is used; nothing else is written there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.flop_counter import FlopCounterMode

from salad.files import read_json, write_json
from salad.interleave.builder import SequenceBuilder
from salad.interleave.stream import Stream
from salad.interleave.utterances import SpeechCorpus, Utterance, feature_lookup
from salad.measure.misalignment import HeardAndSwapped, hearing, misalignment_by_item, per_token
from salad.measure.statistics import ratio_of_sums
from salad.model.config import SpeechLMConfig
from salad.model.flops import StepFlops
from salad.model.llm import load_tokenizer
from salad.model.speech_lm import SpeechLM
from salad.model.warm_start import warm_start
from salad.model.warm_starts.words import Clip
from salad.natural_speech import held_out_speech, training_speech
from salad.recipe import Recipe, load_recipe, parse_recipe
from salad.run import Run
from salad.stage_one import by_size, stage_one, usable_speech
from salad.student import new_student
from salad.texts.corpus import TextCorpus

KINDS = ("none", "word_aligned", "ctc")
COUNTED_STEPS = 3  # of a warm start, whose batches are all of about the same size
SETS = ("broad", "human")


@dataclass(frozen=True)
class Arm:
    """A kind of warm start, its steps and those of distillation, and what they cost by the count beforehand."""

    kind: str
    warm_steps: int
    steps: int
    flops: float

    def recipe(self, recipe: Recipe, seed: int, threads: int) -> Recipe:
        """The run's recipe with this arm's steps."""
        tree = recipe.model_dump(mode="json") | {"seed": seed, "threads": threads}
        tree["stage_one"]["steps"] = self.steps
        tree["stage_one"]["warm_start"] = warm_start_tree(recipe, self.kind, self.warm_steps)
        tree["engine"] |= {"tracker": "none", "watch_every": 0}
        return parse_recipe(tree, f"the arm {self.kind}")


def arms_of(run: Run) -> list[Arm]:
    """The three arms at the compute of the run's recipe."""
    recipe = run.recipe
    speech = training_speech(run)
    student = new_student(recipe, speech[0].store.feature_dim, speech[0].store.frame_hz)
    warm = {kind: warm_step_flops(student, recipe, speech, kind) for kind in KINDS[1:]}
    step = distillation_step_flops(student, run, speech)
    one = recipe.stage_one
    budget = one.warm_start.steps * warm["word_aligned"] + one.steps * step
    found = [Arm("none", 0, round(budget / step), round(budget / step) * step)]
    for kind, cost in warm.items():
        steps = round((budget - one.steps * step) / cost)
        found.append(Arm(kind, steps, one.steps, steps * cost + one.steps * step))
    return found


def warm_start_tree(recipe: Recipe, kind: str, steps: int) -> dict[str, Any]:
    """The recipe's keys of the warm start for so many steps of a kind, at the kind's own rate and scale."""
    if kind == "none":
        return {"steps": 0}
    return {"steps": steps, "kind": kind, "batch_positions": recipe.stage_one.warm_start.batch_positions}


def warm_step_flops(student: SpeechLM, recipe: Recipe, speech: Sequence[SpeechCorpus], kind: str) -> float:
    """FLOPs of a step of warm start, the mean of a few that are taken on a student that is then of no use."""
    tree = recipe.model_dump(mode="json")
    tree["stage_one"]["warm_start"] = warm_start_tree(recipe, kind, COUNTED_STEPS)
    settings = parse_recipe(tree, kind).stage_one.warm_start
    clips = [Clip(u.id, u.words, u.features_FE) for corpus in speech for u in corpus]
    with FlopCounterMode(display=False) as counter:
        warm_start(student, load_tokenizer(recipe.model.llm), clips, settings, recipe.seed, "count")
    return float(counter.get_total_flops()) / COUNTED_STEPS


def distillation_step_flops(student: SpeechLM, run: Run, speech: Sequence[SpeechCorpus]) -> float:
    """FLOPs of a step of distillation, student and teacher, the mean of the recipe's own first ones."""
    recipe, settings = run.recipe, run.recipe.stage_one
    builder = SequenceBuilder.of(student, load_tokenizer(recipe.model.llm), recipe.sequence, recipe.seed)
    usable, _ = usable_speech(builder, speech)
    weights = [*by_size(usable, 1 - settings.text_frac), settings.text_frac]
    texts = TextCorpus(run.path("texts", "mix.jsonl"))
    stream = Stream.of(builder, usable, texts, weights, settings, student.config.speech_token_id, "stage_one")
    flops = StepFlops.of(cast("SpeechLMConfig", student.config))
    total = 0.0
    for batch in (batch for step in range(settings.steps) for batch in stream.batches(step)):
        heard = [] if batch.speech_lengths_S is None else batch.speech_lengths_S.tolist()
        total += flops.step(batch.student_lengths_D, batch.teacher_lengths_D, len(batch.targets_N), heard)
    return total / settings.steps


def held_out(run: Run, builder: SequenceBuilder, items: int) -> dict[str, list[Utterance]]:
    """At most so many of the held-out utterances of each set that the policy can use."""
    broad = SpeechCorpus(run.path("spoken", "heldout"), run.recipe.model.encoder)
    corpora = {"broad": [broad], "human": held_out_speech(run)}
    return {
        name: list(islice((u for corpus in corpora[name] for u in builder.usable(corpus)[0]), items)) for name in SETS
    }


def train_and_measure(run: Run, arm: Arm, seed: int, threads: int, items: int, out: Path) -> dict[str, Any]:
    """Stage I of an arm under a seed; its rows by item, its seconds, and how well it ended."""
    recipe = arm.recipe(run.recipe, seed, threads)
    own = Run(recipe, run.folder)
    speech, began = training_speech(own), time.perf_counter()
    dim, hz = speech[0].store.feature_dim, speech[0].store.frame_hz
    watched = [utterance for corpus in held_out_speech(own) for utterance in corpus]
    texts = TextCorpus(run.path("texts", "mix.jsonl"))
    left_out = stage_one(recipe, speech, texts, watched, dim, hz, out, lambda *_: None)
    trained_s = time.perf_counter() - began
    student = SpeechLM.from_pretrained(out / "model")
    # Measured on the same sequences whatever the seed of the training.
    builder = SequenceBuilder.of(student, load_tokenizer(recipe.model.llm), recipe.sequence, run.recipe.seed)
    rows: dict[str, HeardAndSwapped] = {}
    for name, utterances in held_out(run, builder, items).items():
        sequences = [builder.mixed(utterance) for utterance in utterances]
        batch = recipe.measure.batch_positions
        rows[name] = misalignment_by_item(student, sequences, feature_lookup(utterances), batch, run.recipe.seed)
    warm = out / "warm_start" / "reports.json"
    told = json.loads(warm.read_text())[-1] if warm.is_file() else None
    return {"rows": rows, "seconds": trained_s, "warm_start": told, "left_out": len(left_out)}


def estimates(rows: dict[str, HeardAndSwapped], seed: int, num_bootstrap: int) -> dict[str, Any]:
    """M and hearing of each set, with intervals over its items."""
    found: dict[str, Any] = {}
    for name in SETS:
        found[f"misalignment_{name}_nats"] = per_token(rows[name].heard, seed, name, num_bootstrap).as_json()
        found[f"hearing_{name}_nats"] = hearing(rows[name], seed, name, num_bootstrap).as_json()
    return found


def bought(runs: Sequence[Mapping[str, Any]], row: Mapping[str, Any], seed: int, num_bootstrap: int) -> dict[str, Any]:
    """M without a warm start minus M with this one, under the same seed, paired by item: > 0 where it is lower with it.

    Empty where there is nothing to compare with.
    """
    others = [other for other in runs if other["kind"] == "none" and other["seed"] == row["seed"]]
    found: dict[str, Any] = {}
    for name in SETS if others and row["kind"] != "none" else ():
        pairs = list(zip(others[0]["rows"][name]["heard"], row["rows"][name]["heard"], strict=True))
        differences = [without["kl_nats"] - own["kl_nats"] for without, own in pairs]
        counts = [own["count"] for _, own in pairs]
        found[f"bought_{name}_nats"] = ratio_of_sums(differences, counts, seed, name, num_bootstrap).as_json()
    return found


def main() -> None:
    """Read the arguments, run what is not done yet while there is time, write and print what it came to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run's folder")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of salad run")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--items", type=int, default=60, help="held-out utterances of each set, at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=None, help="begin no arm after so many")
    parser.add_argument("--json", type=Path, default=Path("warm_start.json"), help="what is in it is not done again")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run = Run(load_recipe(options.run / "recipe.yaml", tuple(options.set)), options.run)
    began, num_bootstrap = time.perf_counter(), run.recipe.measure.num_bootstrap
    arms = arms_of(run)
    result: dict[str, Any] = {"recipe": run.recipe.model_dump(mode="json"), "arms": [asdict(a) for a in arms]}
    done = read_json(options.json) if options.json.is_file() else {**result, "runs": []}
    if any(done[key] != result[key] for key in result):
        parser.error(f"{options.json} is of another recipe or budget; give another file.")
    for arm in arms:
        print(f"{arm.kind}: {arm.warm_steps} + {arm.steps} steps, {arm.flops / 1e12:.2f} TFLOP", flush=True)
    wanted = [(arm, seed) for seed in options.seeds for arm in arms if arm.kind in options.kinds]
    for arm, seed in wanted:
        if any((row["kind"], row["seed"]) == (arm.kind, seed) for row in done["runs"]):
            continue
        if options.minutes is not None and time.perf_counter() - began > 60 * options.minutes:
            print(f"no time left for {arm.kind}, seed {seed}", flush=True)
            break
        with tempfile.TemporaryDirectory() as folder:
            made = train_and_measure(run, arm, seed, options.threads, options.items, Path(folder))
        rows = made["rows"]
        row = {"kind": arm.kind, "seed": seed, **made, **estimates(rows, run.recipe.seed, num_bootstrap)}
        done["runs"].append(row | {"rows": {name: asdict(own) for name, own in rows.items()}})
        write_json(options.json, done)
    for row in done["runs"]:
        row |= bought(done["runs"], row, run.recipe.seed, num_bootstrap)
        print(line(row), flush=True)
    write_json(options.json, done)


def line(row: dict[str, Any]) -> str:
    """An arm under a seed as a line."""

    def shown(key: str) -> str:
        return f"{row[key]['value']:.2f} [{row[key]['low']:.2f}, {row[key]['high']:.2f}]" if key in row else "-"

    return (
        f"{row['kind']:>12} seed {row['seed']}: M broad {shown('misalignment_broad_nats')}, hearing "
        f"{shown('hearing_broad_nats')}; M human {shown('misalignment_human_nats')}, hearing "
        f"{shown('hearing_human_nats')}; bought broad {shown('bought_broad_nats')}, human "
        f"{shown('bought_human_nats')}; {row['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
