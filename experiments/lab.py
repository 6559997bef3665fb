"""The lab that all experiments share: data made once, arms trained and measured once, whoever asks for them.

    runs/lab/            a run folder (experiments/lab.yaml): prompts, texts, clusters, held-out and probe speech
    runs/lab/spoken/     also ears, pool, many and heldout_unseen: more of the pool's texts, spoken
    runs/lab/ears/SEED/  a student whose adapter knows words (Stage 0), where all arms of a seed begin
    runs/lab/arms/NAME/  an arm: its definition, training, rows by item (measured.json) and cost

An arm that is there is not made again; one that was interrupted goes on. Several processes may work in one lab, each
on an arm of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch

from salad.distill.teacher import teacher_for
from salad.files import folder_atomic, read_json, read_jsonl, write_json, write_jsonl
from salad.interleave.builder import SequenceBuilder
from salad.interleave.utterances import SpeechCorpus, Utterance
from salad.measure.arm import ArmRows, HeldOut, measure_arm
from salad.measure.tasks.definition import definition_items
from salad.model.encoder import load_encoder
from salad.model.llm import load_tokenizer
from salad.model.speech_lm import SpeechLM
from salad.natural_speech import held_out_speech, training_speech
from salad.recipe import AugmentSettings, Recipe, VoiceSettings, load_recipe
from salad.run import Run, Step, execute
from salad.select.budget import pace_of, seconds_budget
from salad.select.selecting import Selecting, Setting, open_pool, select_one
from salad.spoken import speak_folder
from salad.stage_one import stage_one
from salad.stage_two import cluster, probe, stage_two
from salad.steps import STEPS
from salad.student import new_student, warm_start_once
from salad.texts.corpus import TextCorpus
from salad.texts.text import Text, read_texts

HERE = Path(__file__).parent
DATA_STEPS = ("prepare", "align", "encode", "embed", "cluster", "speak")
NARROW_DOMAINS = ("noun.animal", "noun.plant")
VOICES = (
    "piper-joe",
    "flite:slt",
    "flite:awb",
    "flite:kal16",
    "espeak-ng:en-us",
    "espeak-ng:en-gb",
    "espeak-ng:en-gb-scotland",
    "espeak-ng:en-us+f3",
)
UNSEEN_VOICE = "flite:rms"


@dataclass(frozen=True)
class Size:
    """How many texts are spoken for the ears, for training and selection, and by many voices, and more.

    `ears_steps` of the warm start; `selected_h` hours of speech for a selection. A number of clusters that an arm names
    is divided by `cluster_divisor`. `overrides` are recipe keys.
    """

    ears_texts: int
    pool_texts: int
    many_texts: int
    ears_steps: int
    selected_h: float
    overrides: tuple[str, ...] = ()
    cluster_divisor: int = 1


FULL = Size(1500, 2800, 800, 300, 0.2)
TOY = Size(
    20,
    60,
    12,
    3,
    0.02,
    (
        "data.heldout_human=3",
        "data.heldout_texts=4",
        "data.mix_texts=60",
        "data.pool_texts=160",
        "stage_one.steps=6",
        "stage_one.batch_sequences=3",
        "stage_one.warmup_steps=1",
        "stage_two.steps=2",
        "stage_two.batch_sequences=3",
        "stage_two.num_clusters=4",
        "stage_two.probe_texts=2",
        "measure.task_items=3",
        "measure.num_bootstrap=200",
        "engine.watch_items=2",
    ),
    16,
)


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
    takes its place. `overrides` are recipe keys.
    """

    name: str
    seed: int
    speech: tuple[str, ...] = ("human",)
    overrides: tuple[str, ...] = ()
    begins_from: Arm | None = None
    selected: Selected | None = None

    @property
    def folder(self) -> str:
        """Its folder's name: readable, and another for another definition."""
        told = json.dumps(asdict(self), sort_keys=True)
        return f"{self.name}-{self.seed}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Measured:
    """An arm's rows by item, what was seen of its training, and what it cost.

    `unseen`: rows on the held-out texts in a voice that no arm hears. `curve`: a row a training step.
    """

    arm: Arm
    rows: ArmRows
    unseen: ArmRows
    curve: list[dict[str, Any]]
    watch: list[dict[str, Any]]
    cost: dict[str, float]


class Lab:
    """A folder in which experiments find their data and leave their arms."""

    def __init__(self, folder: Path, toy: bool = False, threads: int = 1) -> None:
        """`toy`: everything at a size that only shows that it works."""
        self.folder = folder
        self.size = TOY if toy else FULL
        self.toy = toy
        self.threads = threads
        torch.set_num_threads(threads)

    def recipe(self, seed: int = 0, overrides: Sequence[str] = ()) -> Recipe:
        """The lab's recipe under a seed, with keys changed."""
        own = (*self.size.overrides, f"seed={seed}", f"threads={self.threads}", *overrides)
        return load_recipe(HERE / "lab.yaml", own)

    @cached_property
    def run(self) -> Run:
        """The run folder with the data, under seed 0 whatever the seed of an arm."""
        return Run(self.recipe(), self.folder)

    # --- data ---------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the data; what is there is not made again."""
        with _alone(self.folder / "data.lock"):
            steps = [step for step in STEPS if step.name in DATA_STEPS]
            execute(self.run, steps, None, _announce, lambda *_: None)
            for name in ("ears", "pool"):
                self._speak(name, self.texts(name), self.run.recipe.voices)
            pool = [VoiceSettings(name=voice, speed=(0.9, 1.1)) for voice in VOICES]
            self._speak("many", self.texts("many"), pool)
            self._speak("heldout_unseen", self.texts("heldout"), UNSEEN_VOICE)

    def texts(self, name: str) -> list[Text]:
        """The texts of a spoken set: parts of the pool that share none, in the pool's order, without the probes."""
        if name == "heldout":
            return read_texts(self.run.path("texts", "heldout.jsonl"))
        probes = {row["id"] for row in read_jsonl(self.run.path("clusters", "probes.jsonl"))}
        pool = [text for text in read_texts(self.run.path("texts", "pool.jsonl")) if text.id not in probes]
        size = self.size
        own = pool[size.ears_texts : size.ears_texts + size.pool_texts]
        return {"ears": pool[: size.ears_texts], "pool": own, "many": own[: size.many_texts]}[name]

    def speech(self, name: str) -> list[SpeechCorpus]:
        """A set of speech: human; pool, narrow, broad; few, many; ears.

        `narrow` is what the pool holds of animals and plants, `broad` as many of the whole pool at random. `few` and
        `many` are the same texts in one voice and in eight.
        """
        if name == "human":
            return training_speech(self.run)
        if name in ("ears", "many"):
            return [self._spoken(name)]
        pool, texts = self._spoken("pool"), self.texts("pool")
        domain = {text.id: text.domain for text in texts}
        narrow = [row for row in range(len(pool)) if domain[pool[row].id] in NARROW_DOMAINS]
        few = {text.id for text in self.texts("many")}
        rows = {
            "pool": range(len(pool)),
            "narrow": narrow,
            "broad": range(len(narrow)),  # the pool's order is random
            "few": [row for row in range(len(pool)) if pool[row].id in few],
        }
        return [pool.take(list(rows[name]))]

    def _spoken(self, name: str) -> SpeechCorpus:
        return SpeechCorpus(self.run.path("spoken", name), self.run.recipe.model.encoder)

    def _speak(self, name: str, texts: Sequence[Text], voices: str | Sequence[VoiceSettings]) -> None:
        recipe, out = self.run.recipe, self.run.path("spoken", name)
        done = out / "spoken.json"
        ids = hashlib.sha256("\n".join(text.id for text in texts).encode()).hexdigest()
        if done.is_file() and read_json(done)["texts_sha256"] == ids:
            return
        _announce(f"speaking {name}: {len(texts)} texts")
        made = speak_folder(
            texts,
            out,
            voices=voices,
            augment=AugmentSettings(),
            quality=recipe.quality,
            asr=None,  # an ASR takes longer than all else; these voices were checked (docs/quality.md)
            aligner=recipe.aligner,
            encoder=load_encoder(recipe.model.encoder, self.threads),
            threads=self.threads,
            seed=0,
            audio_dir=self.run.path("spoken", "audio"),
        )
        write_json(done, {"texts_sha256": ids, **made})

    # --- arms ---------------------------------------------------------------------------------------------------------

    def measured(self, arm: Arm) -> Measured | None:
        """An arm that is trained and measured; None: it is not yet."""
        folder = self.folder / "arms" / arm.folder
        if not (folder / "measured.json").is_file():
            return None
        tree = read_json(folder / "measured.json")
        train = folder / "training"
        watch = train / "watch.jsonl"
        return Measured(
            arm,
            ArmRows.from_json(tree["rows"]),
            ArmRows.from_json(tree["unseen"]),
            read_json(train / "curve.json"),
            read_jsonl(watch) if watch.is_file() else [],
            tree["cost"],
        )

    def make(self, arm: Arm) -> Measured:
        """Train and measure an arm, and before it the one that it begins from."""
        if arm.begins_from is not None:
            self.make(arm.begins_from)
        folder = self.folder / "arms" / arm.folder
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / "lock"):
            if (found := self.measured(arm)) is not None:
                return found
            write_json(folder / "arm.json", asdict(arm))
            _announce(f"{arm.folder}: training")
            began = time.process_time()
            recipe = self.recipe(arm.seed, arm.overrides)
            if arm.begins_from is None:
                self._stage_one(arm, recipe, folder / "training")
            else:
                self._stage_two(arm, recipe, folder / "training")
            trained_s = time.process_time() - began
            _announce(f"{arm.folder}: measuring")
            rows, unseen = self._measure(folder / "training" / "model", recipe)
            curve = read_json(folder / "training" / "curve.json")
            cost = {
                "cpu_s": time.process_time() - began,
                "train_cpu_s": trained_s,
                "train_tflop": sum(row["flops"] for row in curve) / 1e12,
                "positions": float(sum(row["positions"] for row in curve)),
            }
            write_json(folder / "measured.json", {"rows": rows.as_json(), "unseen": unseen.as_json(), "cost": cost})
        return cast("Measured", self.measured(arm))

    def _stage_one(self, arm: Arm, recipe: Recipe, out: Path) -> None:
        speech = [corpus for name in arm.speech for corpus in self.speech(name)]
        dim, hz = speech[0].store.feature_dim, speech[0].store.frame_hz
        if recipe.stage_one.warm_start.steps and not (out / "warm_start").is_dir():
            ears = self.ears(arm.seed)
            with folder_atomic(out / "warm_start") as fresh:
                shutil.copytree(ears, fresh, dirs_exist_ok=True)
        texts = TextCorpus(self.run.path("texts", "mix.jsonl"))
        stage_one(recipe, speech, texts, self._watched(), dim, hz, out, _quiet)

    def _stage_two(self, arm: Arm, recipe: Recipe, out: Path) -> None:
        before = cast("Arm", arm.begins_from)
        stage_one_folder = self.folder / "arms" / before.folder / "training"
        natural = [corpus for name in arm.speech for corpus in self.speech(name)]
        selected: Sequence[Utterance]
        if arm.selected is None:  # half of the natural speech stands where the new would be
            natural, selected = [natural[0][::2]], natural[0][1::2]
        else:
            chosen = self.select(before, arm.selected, arm.seed)
            selected = self._spoken("pool").only(chosen)
        texts = TextCorpus(self.run.path("texts", "mix.jsonl"))
        stage_two(recipe, stage_one_folder, natural, selected, texts, self._watched(), out, _quiet)

    def ears(self, seed: int) -> Path:
        """The warm start that all arms of a seed begin with: words of the ears' texts and of the prompts."""
        out = self.folder / "ears" / str(seed)
        out.parent.mkdir(parents=True, exist_ok=True)
        with _alone(out.with_suffix(".lock")):
            if not (out / "reports.json").is_file():
                _announce(f"ears, seed {seed}")
                recipe = self.recipe(seed, (f"stage_one.warm_start.steps={self.size.ears_steps}",))
                speech = [*self.speech("ears"), *self.speech("human")]
                student = new_student(recipe, speech[0].store.feature_dim, speech[0].store.frame_hz)
                warm_start_once(student, recipe, speech, recipe.stage_one.warm_start, "ears", out, _quiet)
        return out

    def clusters(self, num: int | None) -> Path:
        """The pool's clusters; with a number of its own, made anew."""
        recipe = self.run.recipe
        if num is None or num == recipe.stage_two.num_clusters:
            return self.run.path("clusters")
        num = max(2, num // self.size.cluster_divisor)
        out = self.folder / "clusterings" / str(num)
        out.parent.mkdir(parents=True, exist_ok=True)
        with _alone(out.with_suffix(".lock")):
            if not (out / "info.json").is_file():
                out.mkdir(exist_ok=True)
                if not (out / "embeddings").exists():
                    (out / "embeddings").symlink_to(self.run.path("clusters", "embeddings").resolve())
                own = self.recipe(0, (f"stage_two.num_clusters={num}",))
                cluster(self.run.path("texts", "pool.jsonl"), own, out, _quiet)
        return out

    def probe(self, arm: Arm, num: int | None, score: str) -> Path:
        """M(c) of a trained arm over the probe speech, mapped onto a clustering."""
        out = self.folder / "arms" / arm.folder / f"probe-{num or 'own'}-{score}"
        if not (out / "info.json").is_file():
            model = self.folder / "arms" / arm.folder / "training" / "model"
            own = self.recipe(0, (f"stage_two.score={score}",))
            probe(model, self.clusters(num), self.run.path("spoken", "probe"), own, out, _quiet)
        return out

    def select(self, arm: Arm, selected: Selected, seed: int) -> list[str]:
        """The ids of the spoken texts that a selection draws for Stage II of an arm."""
        name = hashlib.sha256(json.dumps([asdict(selected), seed]).encode()).hexdigest()[:8]
        out = self.folder / "arms" / arm.folder / "selected" / name
        if not (out / "selected.jsonl").is_file():
            spoken = {utterance.id for utterance in self._spoken("pool")}
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

    def _watched(self) -> list[Utterance]:
        """Held-out broad speech, on which the trainings are watched where the recipe says so."""
        return list(self._spoken("heldout"))

    def _measure(self, model: Path, recipe: Recipe) -> tuple[ArmRows, ArmRows]:
        """Everything of an arm on the held-out speech in the training's voice; the same in a voice nothing heard."""
        student = SpeechLM.from_pretrained(model)
        # The same sequences and items whatever the seed of the training.
        builder = SequenceBuilder.of(student, load_tokenizer(recipe.model.llm), recipe.sequence, 0)
        human = [u for corpus in held_out_speech(self.run) for u in builder.usable(corpus)[0]]
        settings, teacher = recipe.measure, teacher_for(student)
        found = []
        for name, people in (("heldout", human), ("heldout_unseen", human[:2])):
            broad, _ = builder.usable(self._spoken(name))
            ids = {utterance.id for utterance in broad}
            texts = [text for text in self.texts("heldout") if text.id in ids]
            items = definition_items(texts, min(settings.task_items, len(texts)), 0)
            found.append(measure_arm(student, teacher, builder, HeldOut(broad, people, items), settings, 0))
        return found[0], found[1]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _announce(what: Any, *_: Any) -> Any:
    if isinstance(what, Step):
        print(f"{time.strftime('%H:%M:%S')} {what.name}", flush=True)
        return _quiet
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)
    return None


def _quiet(done: int, total: int, note: str = "") -> None:
    """Progress that nobody watches."""
