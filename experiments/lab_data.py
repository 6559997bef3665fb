"""The data that all experiments share: a run folder's steps, and parts of its pool of texts, spoken.

    runs/lab/            a run folder (experiments/lab.yaml): prompts, texts, clusters, held-out and probe speech
    runs/lab/spoken/     also ears, pool, many and heldout_unseen: more of the pool's texts, spoken

What is there is not made again. Several processes may make it together, a set each.
"""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from salad.files import read_json, read_jsonl, write_json
from salad.interleave.utterances import SpeechCorpus
from salad.model.encoder import load_encoder
from salad.natural_speech import held_out_speech, training_speech
from salad.recipe import AugmentSettings, Recipe, VoiceSettings, load_recipe
from salad.run import Run, Step, execute
from salad.spoken import speak_folder
from salad.steps import STEPS
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
    is divided by `cluster_divisor`. `overrides` are recipe keys, `stage_three` those of an arm with a Stage III.
    """

    ears_texts: int
    pool_texts: int
    many_texts: int
    ears_steps: int
    selected_h: float
    overrides: tuple[str, ...] = ()
    cluster_divisor: int = 1
    stage_three: tuple[str, ...] = ()


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
    (
        "stage_three.steps=3",
        "stage_three.warmup_steps=1",
        "stage_three.batch_sequences=3",
        "stage_three.refresh_steps=2",
        "stage_three.continuation_tokens=4",
    ),
)


class LabData:
    """The folder of a lab, and the speech and texts in it."""

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

    def prepare(self) -> None:
        """Make the data; what is there is not made again."""
        with alone(self.folder / "data.lock"):
            steps = [step for step in STEPS if step.name in DATA_STEPS]
            execute(self.run, steps, None, announce, lambda *_: None)
        own = self.run.recipe.voices
        eight = [VoiceSettings(name=voice, speed=(0.9, 1.1)) for voice in VOICES]
        sets = {"pool": own, "ears": own, "many": eight, "heldout_unseen": UNSEEN_VOICE}
        for wait in (False, True):  # what another process is at comes last
            for name, voices in sets.items():
                with alone(self.folder / f"{name}.lock", wait) as mine:
                    if mine:
                        self.speak(name, self.texts(name), voices)

    def sha256(self) -> dict[str, str]:
        """Of each set of speech that trainings and measurements hear, wherever it lies."""
        sets = {name: self.spoken(name) for name in ("ears", "heldout", "heldout_unseen", "many", "pool", "probe")}
        sets |= {"human": training_speech(self.run)[0], "heldout_human": held_out_speech(self.run)[0]}
        return {name: corpus.cuts.sha256 for name, corpus in sets.items()}

    def texts(self, name: str) -> list[Text]:
        """The texts of a spoken set: parts of the pool, in its order and without the probes.

        `ears` and `pool` share none; `many` are the pool's first, whose ids then end in "@8".
        """
        if name.startswith("heldout"):
            return read_texts(self.run.path("texts", "heldout.jsonl"))
        probes = {row["id"] for row in read_jsonl(self.run.path("clusters", "probes.jsonl"))}
        pool = [text for text in read_texts(self.run.path("texts", "pool.jsonl")) if text.id not in probes]
        size = self.size
        own = pool[size.ears_texts : size.ears_texts + size.pool_texts]
        many = [replace(text, id=f"{text.id}@8") for text in own[: size.many_texts]]
        return {"ears": pool[: size.ears_texts], "pool": own, "many": many}[name]

    def speech(self, name: str) -> list[SpeechCorpus]:
        """A set of speech: human; pool, narrow, broad; few, many; ears.

        `narrow` is what the pool holds of animals and plants, `broad` as many of the whole pool at random. `few` and
        `many` are the same texts in one voice and in eight.
        """
        if name == "human":
            return training_speech(self.run)
        if name in ("ears", "many"):
            return [self.spoken(name)]
        pool, texts = self.spoken("pool"), self.texts("pool")
        domain = {text.id: text.domain for text in texts}
        narrow = [row for row in range(len(pool)) if domain[pool[row].id] in NARROW_DOMAINS]
        few = {row.id.removesuffix("@8") for row in self.spoken("many")}  # some can be timed in one voice alone
        rows = {
            "pool": range(len(pool)),
            "narrow": narrow,
            "broad": range(len(narrow)),  # the pool's order is random
            "few": [row for row in range(len(pool)) if pool[row].id in few],
        }
        return [pool.take(list(rows[name]))]

    def spoken(self, name: str) -> SpeechCorpus:
        """A set that was spoken, by its folder's name."""
        return SpeechCorpus(self.run.path("spoken", name), self.run.recipe.model.encoder)

    def speak(self, name: str, texts: Sequence[Text], voices: str | Sequence[VoiceSettings]) -> None:
        """Speak texts into a set of this name, with timings and features; what is there is not spoken again."""
        recipe, out = self.run.recipe, self.run.path("spoken", name)
        done = out / "spoken.json"
        ids = hashlib.sha256("\n".join(text.id for text in texts).encode()).hexdigest()
        if done.is_file() and read_json(done)["texts_sha256"] == ids:
            return
        announce(f"speaking {name}: {len(texts)} texts")
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


@contextmanager
def alone(path: Path, wait: bool = True) -> Iterator[bool]:
    """One process at a time: the others wait, or are told False."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def announce(what: Any, *_: Any) -> Any:
    """Say a step of a run, or a sentence, with the time of day."""
    if isinstance(what, Step):
        print(f"{time.strftime('%H:%M:%S')} {what.name}", flush=True)
        return quiet
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)
    return None


def quiet(done: int, total: int, note: str = "") -> None:
    """Progress that nobody watches."""
