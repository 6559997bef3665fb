"""A corpus of any length embedded into memory-mapped shards, by any number of workers, going on after a stop.

A shard of texts is embedded by one worker, in batches of texts of about the same length. What stands together in a
batch depends on the shard alone, so any number of workers, and a run that was stopped and went on, write the same
bytes. The number of CPU threads, the kind of processor and the libraries' versions do change the last bits: a matrix
product adds up in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from salad.errors import DataError, SaladError
from salad.files import sweep, write_atomic
from salad.fingerprint import content_hash
from salad.select.embed import Device, Embedder, Progress, embedder_folder, silent
from salad.select.embeddings import EmbeddingIndex, Embeddings, Shard, checksum, is_sound, refuse_others, shard_path
from salad.texts.corpus import TextCorpus
from salad.texts.text import Text
from salad.workers import Answer, Died, FanOut, Task, answer_all

SHARDS = 1024  # about so many in a large corpus, within the limits below
SHARD_ROWS = (1024, 16384)
UNREAD_NAMED = 3


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
    progress: Progress = silent,
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
    texts: Path, folder: Path, settings: EmbedSettings, rows: int, progress: Progress = silent
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
