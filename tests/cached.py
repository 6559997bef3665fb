"""A tiny LLM in a folder, a stream of what it reads, and its hidden states cached: for the tests of caches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
from salad.distill.teacher import SeparateTeacher
from salad.distill.teacher_cache import CachedTeacher, cache_hidden
from salad.distill.teacher_files import TeacherIdentity, load_head
from salad.distill.teacher_shards import Document
from salad.interleave.batch import Batch
from salad.interleave.stream import Stream
from salad.model.llm import load_llm
from salad.model.speech_lm import SpeechLM
from salad.ranks import ALONE, Ranks
from salad.recipe import Recipe, StageSettings
from salad.texts.text import Text

SPOKEN = tiny.utterances(9)
TEXTS = ["the quiet river", "she listens, he speaks; and it was evening", "a mountain on the water", "—"]
SHARD_BYTES = 64 * 60  # sixty tokens of the tiny LLM's 32 bfloat16: several documents


def student(llm: Path, train_llm: str = "lora", dtype: str = "float32") -> SpeechLM:
    """A new speech LLM around the LLM in that folder."""
    settings = tiny.model_settings(train_llm, name=str(llm)).model_copy(update={"dtype": dtype})
    return SpeechLM.from_llm(settings, tiny.ENCODER_DIM, tiny.ENCODER_HZ, tiny.SPEECH_TOKEN_ID)


def documents(**sequence: Any) -> list[Document]:
    """What the teacher reads of `SPOKEN` and `TEXTS`."""
    build = tiny.builder(**sequence)
    read = [build.mixed(item) for item in SPOKEN] + [build.text(f"t{i}", text) for i, text in enumerate(TEXTS)]
    return [Document(sequence.item, sequence.teacher_ids) for sequence in read]


def batch(**sequence: Any) -> Batch:
    """All of `SPOKEN` and `TEXTS` in one batch."""
    return tiny.batch_of(SPOKEN, TEXTS, **sequence)


def cache(llm: Path, folder: Path, read: list[Document] | None = None, dtype: str = "float32") -> None:
    """Have `read` (None: `documents()`) in a cache of small shards."""
    identity = TeacherIdentity.of(str(llm), dtype)
    cache_hidden(
        lambda: SeparateTeacher(load_llm(str(llm), dtype)),
        documents() if read is None else read,
        folder,
        identity,
        positions=40,
        shard_bytes=SHARD_BYTES,
    )


def opened(llm: Path, folder: Path, dtype: str = "float32", ranks: Ranks = ALONE) -> CachedTeacher:
    """The teacher of that cache."""
    head = load_head(str(llm), dtype)
    return CachedTeacher(folder, TeacherIdentity.of(str(llm), dtype), lambda: head, ranks)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a cache but its lock, by its place."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def stream(model: SpeechLM, steps: StageSettings, policy: str = "poisson") -> Stream:
    """Spoken and read items as in a stage, some of them several times."""
    texts = [Text(f"t{i}", text, "all", "test", "none") for i, text in enumerate(TEXTS)]
    build = tiny.builder(policy=policy, poisson_words=3.0, text_words=(2, 4), speech_words=(2, 3))
    return Stream.of(
        build, [SPOKEN[:5], SPOKEN[5:]], texts, [1, 1, 1], steps, model.config.speech_token_id, "stage_one"
    )


def recipe(llm: Path, teacher: str, train_llm: str = "lora", dtype: str = "float32") -> Recipe:
    """A recipe with that teacher."""
    settings = tiny.model_settings(train_llm, name=str(llm)).model_copy(update={"dtype": dtype})
    return Recipe(name="tiny", model=settings, engine={"teacher": teacher})
