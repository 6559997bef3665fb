"""The lab that all experiments share: arms are trained and measured once, whoever asks for them.

    runs/lab/ears/SEED/             a student whose adapter knows words (Stage 0), where all arms of a seed begin
    runs/lab/arms/NAME/             an arm: its definition, training, rows by item (measured.json) and cost
    experiments/measured/NAME.json.gz   the same without the training: kept, so that every verdict can be had again

An arm that is there is not made again; one that was interrupted goes on. Several processes may work in one lab, each
on an arm of its own.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import platform
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from torch.utils.flop_counter import FlopCounterMode

from experiments.lab_data import LabData, alone, announce, quiet
from salad.card.bill import versions
from salad.distill.teacher import teacher_for
from salad.files import folder_atomic, read_json, read_jsonl, write_atomic, write_json, write_jsonl
from salad.interleave.builder import SequenceBuilder
from salad.interleave.utterances import Utterance, feature_lookup
from salad.measure.arm import ArmRows, HeldOut, measure_arm
from salad.measure.divergence_by_item import ItemDivergence
from salad.measure.misalignment import HeardAndSwapped, misalignment_by_item
from salad.measure.tasks.definition import definition_items
from salad.model.llm import load_tokenizer
from salad.model.speech_lm import SpeechLM
from salad.natural_speech import held_out_speech
from salad.recipe import Recipe
from salad.select.budget import pace_of, seconds_budget
from salad.select.selecting import Selecting, Setting, open_pool, select_one
from salad.stage_one import stage_one
from salad.stage_three import stage_three
from salad.stage_two import cluster, probe, stage_two
from salad.student import new_student, warm_start_once
from salad.texts.corpus import TextCorpus
from salad.texts.text import read_texts

KEPT = Path(__file__).parent / "measured"
VIEWS = ("heard", "swapped")
MEASURED_NAME = "measured.json.gz"
WARM_STEP_COST = {"word_aligned": 1.0, "ctc": 1.116}  # FLOPs of a step, counted on the lab's speech


@dataclass(frozen=True)
class Selected:
    """What Stage II learns from: drawn from the lab's spoken pool by P ~ score^gamma over `clusters` clusters."""

    gamma: float = 5.0
    clusters: int | None = None
    score: str = "misalignment"


@dataclass(frozen=True)
class Arm:
    """A training: Stage I on `speech`, or, where it begins from another arm, Stage II on natural and selected speech.

    `speech` names sets of the lab's (`Lab.speech`); with `selected` None, Stage II has no new data: natural speech
    takes its place. `overrides` are recipe keys. A `stage_three` goes on from a Stage II on that one's speech.
    """

    name: str
    seed: int
    speech: tuple[str, ...] = ("human",)
    overrides: tuple[str, ...] = ()
    begins_from: Arm | None = None
    selected: Selected | None = None
    stage_three: bool = False

    @property
    def definition(self) -> dict[str, Any]:
        """All that makes it this arm, as plain data."""
        before = {"begins_from": self.begins_from.definition if self.begins_from else None}
        # Where it is none, as it was written down before there was a Stage III: the folders keep their names.
        without = set() if self.stage_three else {"stage_three"}
        return {key: value for key, value in (asdict(self) | before).items() if key not in without}

    @property
    def folder(self) -> str:
        """Its folder's name: readable, and another for another definition."""
        told = json.dumps(self.definition, sort_keys=True)
        return f"{self.name}-{self.seed}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Measured:
    """An arm's rows by item, what was seen of its training, and what it cost.

    `unseen`: M on the held-out texts in a voice that no arm hears. `curve`: a row a training step. `made`: the
    SHA-256 of each set of the lab's speech, the processor, and the packages.
    """

    arm: Arm
    rows: ArmRows
    unseen: HeardAndSwapped
    curve: list[dict[str, Any]]
    watch: list[dict[str, Any]]
    cost: dict[str, float]
    made: dict[str, Any]


class Lab(LabData):
    """A folder in which experiments find their data and leave their arms; `kept`: where measured arms are kept."""

    def __init__(self, folder: Path, toy: bool = False, threads: int = 1, kept: Path | None = None) -> None:
        """`toy`: everything at a size that only shows that it works."""
        super().__init__(folder, toy, threads)
        self.kept = kept

    def measured(self, arm: Arm) -> Measured | None:
        """An arm that is trained and measured, here or once and kept; None: it is not yet."""
        here = self.folder / "arms" / arm.folder / MEASURED_NAME
        places = [here, *([self.kept / f"{arm.folder}.{MEASURED_NAME}"] if self.kept else [])]
        for place in places:
            if place.is_file():
                tree = json.loads(gzip.decompress(place.read_bytes()))
                rows = ArmRows.from_json(tree["rows"])
                unseen = HeardAndSwapped(*([ItemDivergence(**row) for row in tree["unseen"][name]] for name in VIEWS))
                return Measured(arm, rows, unseen, *(tree[name] for name in ("curve", "watch", "cost", "made")))
        return None

    def make(self, arm: Arm) -> Measured:
        """Train and measure an arm that is not there yet, and before it the one that it begins from."""
        return self.measured(arm) or self._make(arm)

    def _make(self, arm: Arm) -> Measured:
        before = arm.begins_from
        if before is not None and not (self.folder / "arms" / before.folder / MEASURED_NAME).is_file():
            self._make(before)  # what is kept of it has no weights
        folder = self.folder / "arms" / arm.folder
        with alone(folder / "lock"):
            if not (folder / MEASURED_NAME).is_file():
                write_json(folder / "arm.json", arm.definition)
                tree = self._trained_and_measured(arm, folder / "training")
                data = gzip.compress(json.dumps({"arm": arm.definition, **tree}).encode(), mtime=0)
                write_atomic(folder / MEASURED_NAME, data)
                if self.kept is not None:
                    self.kept.mkdir(exist_ok=True)
                    write_atomic(self.kept / f"{arm.folder}.{MEASURED_NAME}", data)
        return cast("Measured", self.measured(arm))

    def _trained_and_measured(self, arm: Arm, out: Path) -> dict[str, Any]:
        announce(f"{arm.folder}: training")
        began = time.process_time()
        recipe = self.recipe(arm.seed, (*arm.overrides, *(self.size.stage_three if arm.stage_three else ())))
        if arm.begins_from is None:
            self._stage_one(arm, recipe, out)
        elif arm.stage_three:
            self._stage_three(arm, recipe, out)
        else:
            self._stage_two(arm, recipe, out)
        trained_s = time.process_time() - began
        announce(f"{arm.folder}: measuring")
        rows, unseen = self._measure(out / "model", recipe)
        curve, ears = read_json(out / "curve.json"), out / "warm_start" / "cost.json"
        cost = {
            "cpu_s": time.process_time() - began,
            "train_cpu_s": trained_s,
            "train_tflop": sum(row["flops"] for row in curve) / 1e12,
            "positions": float(sum(row["positions"] for row in curve)),
            "ears_tflop": read_json(ears)["tflop"] if ears.is_file() else 0.0,
            "rollout_tflop": sum(read_json(one)["flops"] for one in out.glob("rollouts/*/round.json")) / 1e12,
        }
        return {
            "rows": rows.as_json(),
            "unseen": asdict(unseen),
            "curve": curve,
            "watch": read_jsonl(out / "watch.jsonl") if (out / "watch.jsonl").is_file() else [],
            "cost": cost,
            "made": {
                "speech_sha256": self.sha256(),
                "processor": _processor(),
                "versions": versions(),
                "selection": self._drawn(arm),
            },
        }

    def _stage_one(self, arm: Arm, recipe: Recipe, out: Path) -> None:
        speech = [corpus for name in arm.speech for corpus in self.speech(name)]
        dim, hz = speech[0].store.feature_dim, speech[0].store.frame_hz
        settings = recipe.stage_one.warm_start
        if settings.steps and not (out / "warm_start").is_dir():
            ears = self.ears(arm.seed, settings.kind)
            with folder_atomic(out / "warm_start") as fresh:
                shutil.copytree(ears, fresh, dirs_exist_ok=True)
        texts = TextCorpus(self.run.path("texts", "mix.jsonl"))
        stage_one(recipe, speech, texts, self._watched(), dim, hz, out, quiet)

    def _stage_two(self, arm: Arm, recipe: Recipe, out: Path) -> None:
        before = cast("Arm", arm.begins_from)
        stage_one_folder = self.folder / "arms" / before.folder / "training"
        natural = [corpus for name in arm.speech for corpus in self.speech(name)]
        selected: Sequence[Utterance]
        if arm.selected is None:  # half of the natural speech stands where the new would be
            natural, selected = [natural[0][::2]], natural[0][1::2]
        else:
            chosen = self.select(before, arm.selected, arm.seed)
            selected = self.spoken("pool").only(chosen)
        texts = TextCorpus(self.run.path("texts", "mix.jsonl"))
        stage_two(recipe, stage_one_folder, natural, selected, texts, self._watched(), out, quiet)

    def _stage_three(self, arm: Arm, recipe: Recipe, out: Path) -> None:
        """On the speech of the Stage II that it goes on from."""
        two = cast("Arm", arm.begins_from)
        one, chosen = cast("Arm", two.begins_from), cast("Selected", two.selected)
        natural = [corpus for name in two.speech for corpus in self.speech(name)]
        selected = self.spoken("pool").only(self.select(one, chosen, two.seed))
        texts = TextCorpus(self.run.path("texts", "mix.jsonl"))
        before = self.folder / "arms" / two.folder / "training"
        stage_three(recipe, before, natural, selected, texts, self._watched(), out, quiet)

    def ears(self, seed: int, kind: str = "word_aligned") -> Path:
        """The warm start that all arms of a seed begin with: words of the ears' texts and of the prompts.

        Each kind's takes as many FLOPs of matrix products, and cost.json has them.
        """
        out = self.folder / "ears" / (str(seed) if kind == "word_aligned" else f"{seed}-{kind}")
        out.parent.mkdir(parents=True, exist_ok=True)
        with alone(out.with_suffix(".lock")):
            if not (out / "cost.json").is_file():
                announce(f"ears, seed {seed}, {kind}")
                steps = max(1, round(self.size.ears_steps / WARM_STEP_COST[kind]))
                keys = (f"stage_one.warm_start.steps={steps}", f"stage_one.warm_start.kind={kind}")
                shutil.rmtree(out, ignore_errors=True)  # one that was cut off: its FLOPs would be counted in part
                recipe = self.recipe(seed, keys)
                speech = [*self.speech("ears"), *self.speech("human")]
                student = new_student(recipe, speech[0].store.feature_dim, speech[0].store.frame_hz)
                with FlopCounterMode(display=False) as counter:
                    warm_start_once(student, recipe, speech, recipe.stage_one.warm_start, "ears", out, quiet)
                write_json(out / "cost.json", {"tflop": counter.get_total_flops() / 1e12})
        return out

    def clusters(self, num: int | None) -> Path:
        """The pool's clusters; with a number of its own, made anew."""
        recipe = self.run.recipe
        if num is None or num == recipe.stage_two.num_clusters:
            return self.run.path("clusters")
        num = max(2, num // self.size.cluster_divisor)
        out = self.folder / "clusterings" / str(num)
        out.parent.mkdir(parents=True, exist_ok=True)
        with alone(out.with_suffix(".lock")):
            if not (out / "info.json").is_file():
                out.mkdir(exist_ok=True)
                if not (out / "embeddings").exists():
                    (out / "embeddings").symlink_to(self.run.path("clusters", "embeddings").resolve())
                own = self.recipe(0, (f"stage_two.num_clusters={num}",))
                cluster(self.run.path("texts", "pool.jsonl"), own, out, quiet)
        return out

    def probe(self, arm: Arm, num: int | None, score: str) -> Path:
        """M(c) of a trained arm over the probe speech, mapped onto a clustering."""
        out = self.folder / "arms" / arm.folder / f"probe-{num or 'own'}-{score}"
        if not (out / "info.json").is_file():
            model = self.folder / "arms" / arm.folder / "training" / "model"
            own = self.recipe(0, (f"stage_two.score={score}",))
            probe(model, self.clusters(num), self.run.path("spoken", "probe"), own, out, quiet)
        return out

    def select(self, arm: Arm, selected: Selected, seed: int) -> list[str]:
        """The ids of the spoken texts that a selection draws for Stage II of an arm."""
        out = self._selected_folder(arm, selected, seed)
        if not (out / "selected.jsonl").is_file():
            spoken = {utterance.id for utterance in self.spoken("pool")}
            unspoken = self.run.path("spoken", "unspoken.jsonl")
            pool = self.run.path("texts", "pool.jsonl")
            write_jsonl(unspoken, [{"id": text.id} for text in read_texts(pool) if text.id not in spoken])
            folder = self.probe(arm, selected.clusters, selected.score) if selected.gamma > 0 else None
            pace = pace_of(self.run.path("spoken", "heldout"))
            opened = open_pool(
                Selecting(
                    pool,
                    self.clusters(selected.clusters),
                    out,
                    folder,
                    exclude=(unspoken,),
                    max_seconds=0.0,
                    seconds_per_character=pace,
                )
            )
            budget = seconds_budget(self.size.selected_h * 3600, pace)
            select_one(opened, Setting(selected.gamma, selected.score, seed=seed), budget, out)
        return [str(row["id"]) for row in read_jsonl(out / "selected.jsonl")]

    def _selected_folder(self, arm: Arm, selected: Selected, seed: int) -> Path:
        name = hashlib.sha256(json.dumps([asdict(selected), seed]).encode()).hexdigest()[:8]
        return self.folder / "arms" / arm.folder / "selected" / name

    def _drawn(self, arm: Arm) -> dict[str, Any] | None:
        """What an arm's selection drew, and how sure the scores were that it went by; None: it selected nothing.

        `effective_clusters` is the exponential of the entropy of the texts' clusters; `reliability` is that of the
        clusters' scores (salad.select.stability), None where nothing was probed.
        """
        if arm.selected is None:
            return None
        before = cast("Arm", arm.begins_from)
        rows = read_jsonl(self._selected_folder(before, arm.selected, arm.seed) / "selected.jsonl")
        shares = [count / len(rows) for count in Counter(row["cluster"] for row in rows).values()]
        found: dict[str, Any] = {
            "texts": len(rows),
            "effective_clusters": math.exp(-sum(share * math.log(share) for share in shares)),
            "reliability": None,
        }
        if arm.selected.gamma > 0:
            probed = read_json(self.probe(before, arm.selected.clusters, arm.selected.score) / "info.json")
            score = probed["stability"].get(arm.selected.score) or {}
            found |= {"reliability": score.get("reliability"), "left_out_clusters": len(probed["excluded"])}
        return found

    def _watched(self) -> list[Utterance]:
        """Held-out broad speech, on which the trainings are watched where the recipe says so."""
        return list(self.spoken("heldout"))

    def _measure(self, model: Path, recipe: Recipe) -> tuple[ArmRows, HeardAndSwapped]:
        """Everything of an arm on the held-out speech in the training's voice; M also in a voice nothing heard."""
        student = SpeechLM.from_pretrained(model)
        # The same sequences and items whatever the seed of the training.
        builder = SequenceBuilder.of(student, load_tokenizer(recipe.model.llm), recipe.sequence, 0)
        human = [u for corpus in held_out_speech(self.run) for u in builder.usable(corpus)[0]]
        broad, unseen = (builder.usable(self.spoken(name))[0] for name in ("heldout", "heldout_unseen"))
        ids, settings = {utterance.id for utterance in broad}, recipe.measure
        texts = [text for text in self.texts("heldout") if text.id in ids]
        items = definition_items(texts, min(settings.task_items, len(texts)), 0)
        rows = measure_arm(student, teacher_for(student), builder, HeldOut(broad, human, items), settings, 0)
        sequences = [builder.mixed(utterance) for utterance in unseen]
        batch = settings.batch_positions
        return rows, misalignment_by_item(student, sequences, feature_lookup(unseen), batch, 0)


def _processor() -> str:
    """The processor's name, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
