"""Sentence embeddings of texts: a few at once, or a corpus of any length into memory-mapped shards.

A shard of texts is embedded by one worker, in batches of texts of about the same length. What stands together in a
batch depends on the shard alone, so any number of workers, and a run that was stopped and went on, write the same
bytes. The number of CPU threads, the kind of processor and the libraries' versions do change the last bits: a matrix
product adds up in another order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from salad.assets import resolve
from salad.errors import AssetError, DataError, SaladError
from salad.files import sweep, write_atomic
from salad.fingerprint import content_hash
from salad.select.embeddings import (
    EmbeddingIndex,
    Embeddings,
    Shard,
    checksum,
    is_sound,
    refuse_others,
    shard_path,
)
from salad.texts.corpus import TextCorpus
from salad.texts.text import Text
from salad.workers import Answer, Died, FanOut, Task, answer_all

BATCH = 64
SHARDS = 1024  # about so many in a large corpus, within the limits below
SHARD_ROWS = (1024, 16384)
UNREAD_NAMED = 3
Device = Literal["auto", "cpu", "cuda"]
Progress = Callable[[int, int | None], None]


def _silent(_done: int, _total: int | None) -> None:
    """No progress shown."""


class Embedder:
    """A sentence-transformers model that gives unit vectors and says what it did not see whole."""

    def __init__(self, folder: Path, device: Device = "auto", threads: int | None = None) -> None:
        """Load the model of a local folder; on a GPU it computes in float16.

        Args:
            folder: a folder with modules.json.
            device: "auto" is a GPU where there is one.
            threads: CPU threads; None leaves them as they are.

        Raises:
            AssetError: the folder holds no such model, or there is no GPU where one was asked for.
        """
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()
        if threads is not None:
            torch.set_num_threads(threads)
        where = device_for(device)
        try:
            self.model: Any = SentenceTransformer(str(folder), device=where, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            reason = str(error).strip().split("\n")[0].rstrip(".")
            raise AssetError(f"{folder} is not readable as a sentence-transformers model ({reason}).") from error
        if where.startswith("cuda"):
            self.model.half()
        self.max_tokens: int | None = _finite(self.model.max_seq_length)
        self._special: int = self.model.tokenizer.num_special_tokens_to_add(pair=False)

    def embed(self, texts: Sequence[str], progress: Progress = _silent) -> np.ndarray:
        """Unit vectors, float32 [N, d], in the order of the texts; batches are of texts of about the same length."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors: np.ndarray | None = None
        for begin in range(0, len(order), BATCH):
            chosen = order[begin : begin + BATCH]
            batch = self.model.encode(
                [texts[i] for i in chosen], batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False
            )
            if vectors is None:
                vectors = np.empty((len(texts), batch.shape[1]), np.float32)
            vectors[chosen] = batch
            progress(begin + len(chosen), len(texts))
        return np.empty((0, 0), np.float32) if vectors is None else vectors

    def is_truncated(self, text: str) -> bool:
        """Whether the model reads only the beginning of a text. A token is never less than a byte."""
        if self.max_tokens is None or len(text.encode("utf-8", "replace")) <= self.max_tokens - self._special:
            return False
        return len(self._tokens(text)) > self.max_tokens - self._special

    def is_unread(self, text: str) -> bool:
        """Whether the model knows no part of a text: it gives it no token, or unknown ones alone."""
        if re.search(r"[a-z0-9]", text, re.IGNORECASE | re.ASCII):
            return False
        unknown: int | None = self.model.tokenizer.unk_token_id
        return set(self._tokens(text)) <= {unknown}

    def _tokens(self, text: str) -> list[int]:
        tokens: list[int] = self.model.tokenizer(
            text, add_special_tokens=False, truncation=False, verbose=False
        ).input_ids
        return tokens


def _finite(length: Any) -> int | None:
    return None if length is None or length > 1e9 else int(length)


def device_for(device: Device) -> str:
    """The torch device that "auto", "cpu" or "cuda" means for this process; worker processes share out the GPUs.

    Raises:
        AssetError: "cuda" where there is none.
    """
    import multiprocessing

    import torch

    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise AssetError("--device cuda: torch sees no GPU here; use --device cpu, or install torch for CUDA.")
    number = re.search(r"-(\d+)$", multiprocessing.current_process().name)  # SpawnProcess-3
    return f"cuda:{(int(number[1]) - 1) % torch.cuda.device_count() if number else 0}"


def embedder_folder(name: str) -> Path:
    """The local folder of a sentence-transformers model: a path, an asset, or a name on the Hugging Face hub.

    Raises:
        AssetError: nothing of that name can be had, or it is another kind of model.
    """
    folder = resolve(name)
    if not (folder / "modules.json").is_file():
        raise AssetError(
            f"{name} is no sentence-transformers model: {folder} has no modules.json; "
            "name one such as minilm-l6 or BAAI/bge-large-en-v1.5."
        )
    return folder


def embed(texts: Sequence[str], embedder: str, progress: Progress = _silent) -> np.ndarray:
    """Unit-length embeddings, float32 [N, d], by a sentence-transformers model given by name or path, in memory."""
    return Embedder(embedder_folder(embedder)).embed(texts, progress)


@dataclass(frozen=True)
class EmbedSettings:
    """How a corpus is embedded. `threads`: CPU threads of each worker; `dtype`: of the shards on the disk."""

    embedder: str = "minilm-l6"
    device: Device = "auto"
    threads: int = 2
    dtype: Literal["float16", "float32"] = "float16"


def shard_rows(num_rows: int) -> int:
    """Rows of a shard in a corpus of so many: it depends on nothing else, because the batches depend on it."""
    return int(np.clip(-(-num_rows // SHARDS), *SHARD_ROWS))


def embed_corpus(
    corpus: TextCorpus,
    folder: Path,
    settings: EmbedSettings,
    processes: int = 1,
    progress: Progress = _silent,
    fan_out: FanOut = answer_all,
) -> Embeddings:
    """The embeddings of a corpus in `folder`: those that are there already are kept, damaged shards are made again.

    Args:
        corpus: the texts; workers open its file themselves.
        folder: on a disk that all workers share.
        settings: the embedder and how it runs.
        processes: workers; one on this machine is this process itself.
        progress: told (texts done, texts).
        fan_out: who has the shards embedded.

    Raises:
        AssetError: there is no such embedder.
        DataError: `folder` holds embeddings of another corpus or by another embedder, or vectors are not finite.
        EmbeddingError: a worker's process died twice on the same shard.
    """
    local = embedder_folder(settings.embedder)
    index = _begun(corpus, folder, settings, content_hash(local))
    tasks = index.missing
    done = sum(shard.rows for shard in index.shards)
    progress(done, index.num_rows)
    setup = partial(_worker, corpus.path, folder, settings, index.shard_rows)
    if processes == 1 and fan_out is answer_all:
        setup = partial(setup, lambda part, _: progress(done + part, index.num_rows))
        fan_out = _in_this_process
    for again in (False, True):
        died: list[int] = []
        for number, answer in fan_out(tasks, setup, processes):
            if isinstance(answer, Died):
                died.append(number)
                continue
            shard, max_tokens = answer
            index = replace(index, max_tokens=max_tokens).with_shard(shard)
            index.write(folder)
            done += shard.rows
            progress(done, index.num_rows)
        tasks = sorted(died)
        if died and again:
            begin = tasks[0] * index.shard_rows
            raise EmbeddingError(
                f"the process that embedded texts {begin + 1} to {min(begin + index.shard_rows, len(corpus))} of "
                f"{corpus.path} died twice, perhaps for want of memory; give fewer --jobs and start again: what is "
                "done is kept."
            )
    return Embeddings(folder)


class EmbeddingError(SaladError, RuntimeError):
    """A corpus could not be embedded to the end."""


def _begun(corpus: TextCorpus, folder: Path, settings: EmbedSettings, embedder_sha256: str) -> EmbeddingIndex:
    """The index of `folder` with the shards that are sound, or a new one; says in it what the embeddings are of."""
    if not len(corpus):
        raise DataError(f"{corpus.path} holds no text.")
    rows = shard_rows(len(corpus))
    sha256 = content_hash(corpus.path)
    fresh = EmbeddingIndex(
        str(corpus.path), sha256, settings.embedder, embedder_sha256, settings.dtype, len(corpus), rows
    )
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    if not (folder / "index.json").is_file():
        fresh.write(folder)
        return fresh
    index = EmbeddingIndex.read(folder)
    refuse_others(folder, index, sha256, embedder_sha256)
    if index.dtype != settings.dtype:
        raise DataError(f"{folder} holds {index.dtype} embeddings, not {settings.dtype}; choose another, or delete it.")
    sound = tuple(shard for shard in index.shards if is_sound(folder, shard))
    return replace(index, corpus=str(corpus.path), embedder=settings.embedder, shards=sound)


def _in_this_process(
    tasks: Iterable[Task], setup: Callable[[], Callable[[Task], Answer]], processes: int
) -> Iterator[tuple[Task, Answer | Died]]:
    """A `FanOut` of one worker that needs no process of its own."""
    del processes
    answer_to: Callable[[Task], Answer] | None = None
    for task in tasks:
        answer_to = answer_to or setup()
        yield task, answer_to(task)


def _worker(
    texts: Path, folder: Path, settings: EmbedSettings, rows: int, progress: Progress = _silent
) -> Callable[[int], tuple[Shard, int | None]]:
    """What a worker does: opens the corpus and the model, then embeds shard after shard."""
    corpus = TextCorpus(texts)
    embedder = Embedder(embedder_folder(settings.embedder), settings.device, settings.threads)
    return partial(_embed_shard, corpus, embedder, folder, np.dtype(settings.dtype), rows, progress)


def _embed_shard(
    corpus: TextCorpus,
    embedder: Embedder,
    folder: Path,
    dtype: np.dtype[Any],
    rows: int,
    progress: Progress,
    number: int,
) -> tuple[Shard, int | None]:
    """Embed the texts of one shard into its file; the shard, and how many tokens the model reads of a text."""
    texts = corpus[number * rows : (number + 1) * rows]
    for place, text in enumerate(texts, start=number * rows + 1):
        _refuse_half_characters(text, f"{corpus.path}, record {place}")
    vectors = embedder.embed([text.text for text in texts], progress)
    _refuse_not_finite(vectors, texts)
    content = BytesIO()
    np.save(content, vectors.astype(dtype))
    path = shard_path(folder, number)
    write_atomic(path, content.getvalue())
    unread = [text.id for text in texts if embedder.is_unread(text.text)]
    shard = Shard(
        number,
        len(texts),
        vectors.shape[1],
        path.stat().st_size,
        checksum(path),
        sum(embedder.is_truncated(text.text) for text in texts),
        len(unread),
        tuple(unread[:UNREAD_NAMED]),
    )
    return shard, embedder.max_tokens


def _refuse_half_characters(text: Text, place: str) -> None:
    try:
        (text.id + text.text).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place}: a surrogate stands alone in {text.id!r}, half a character that no file can hold; "
            "'salad prepare text' leaves such texts out."
        ) from error


def _refuse_not_finite(vectors: np.ndarray, texts: Sequence[Text]) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(bad):
        raise DataError(
            f"the embedder gives {len(bad)} texts a vector that is not finite (e.g. {texts[bad[0]].id!r}); "
            "use another embedder, or --device cpu."
        )
