"""Which texts of a corpus share words with evaluation sets: it is read once, in blocks, by any number of workers.

OUT/contaminated.jsonl    a text and evaluation file a line: id, row, against, item, item_id, words, num_runs
OUT/contaminated.json     what was compared with what, and counts; written last
OUT/.contaminated-KEY/    blocks that are done, until all are: a comparison that was stopped goes on
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salad.errors import DataError
from salad.files import read_json, read_jsonl, write_json, write_jsonl
from salad.fingerprint import content_hash
from salad.select.contamination import EvaluationIndex
from salad.texts.corpus import TextCorpus
from salad.texts.readers import text_files
from salad.workers import Died, FanOut, answer_all

BLOCK_TEXTS = 1 << 15
LIST_NAME, COUNTS_NAME = "contaminated.jsonl", "contaminated.json"
VERSION = 1

Block = tuple[int, int]
"""The first row, and the one after the last."""


@dataclass(frozen=True)
class Contamination:
    """What a comparison found.

    Attributes:
        rows: the numbers of the contaminated texts, sorted, int [...].
        against: for each evaluation file {"file", "sha256", "num_items", "num_texts": those that share words with it}.
        num_words: how many words in a row.
        num_compared: texts.
    """

    rows: NDArray[np.int64]
    against: list[dict[str, Any]]
    num_words: int
    num_compared: int

    def as_json(self) -> dict[str, Any]:
        """Counts, without the texts."""
        return {
            "num_words": self.num_words,
            "num_compared": self.num_compared,
            "num_contaminated": len(self.rows),
            "against": self.against,
        }


def decontaminate(
    corpus: Path,
    against: Sequence[Path],
    num_words: int,
    out: Path,
    processes: int = 1,
    fan_out: FanOut = answer_all,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Contamination:
    """Compare every text of a corpus with evaluation items; see salad.select.contamination for what counts.

    One that was finished with the same corpus, files and number of words is read from `out`.

    Args:
        corpus: JSON lines of texts.
        against: files of evaluation items, or folders of them.
        num_words: n.
        out: the folder to write.
        processes: workers; one works in this process.
        fan_out: who works where there are more.
        progress: told (texts compared, texts).

    Raises:
        MissingFileError: a file is not there.
        DataError: an evaluation item can't be read, or a worker died.
        RecipeError: fewer than 3 words in a row.
    """
    files = list(dict.fromkeys(file for source in against for file in text_files(source)))
    hashes = [content_hash(file) for file in files]
    asked = [VERSION, content_hash(corpus), [str(file) for file in files], hashes, num_words]
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    if (out / COUNTS_NAME).is_file() and (known := read_json(out / COUNTS_NAME)).get("key") == key:
        return _contamination(out, known)
    texts = TextCorpus(corpus)
    parts = out / f".contaminated-{key}"
    for other in set(out.glob(".contaminated-*")) - {parts}:
        shutil.rmtree(other)
    index = EvaluationIndex(files, num_words)
    tasks = [(begin, min(begin + BLOCK_TEXTS, len(texts))) for begin in range(0, len(texts), BLOCK_TEXTS)]
    todo = [task for task in tasks if not _part(parts, task).is_file()]
    done = len(texts) - sum(end - begin for begin, end in todo)
    if min(processes, len(todo)) > 1:  # each worker reads the items itself: what starts a process must be small
        answers: Iterable[tuple[Block, Died | None]] = fan_out(
            todo, partial(_comparer, corpus, tuple(files), num_words, parts), processes
        )
    else:
        answers = _here(todo, partial(_compare, texts, index, parts))
    for (begin, end), answer in answers:
        if isinstance(answer, Died):
            raise DataError(
                f"a worker died (exit code {answer.exit_code}) comparing texts {begin} to {end} of {corpus} with "
                "evaluation items; the same command goes on from here, with fewer processes if memory was short."
            )
        done += end - begin
        progress(done, len(texts))
    num_texts = Counter(row["against"] for row in _found(parts, tasks))
    write_jsonl(out / LIST_NAME, _found(parts, tasks))
    rows = [
        {"file": str(file), "sha256": sha256, "num_items": num_items, "num_texts": num_texts[str(file)]}
        for file, sha256, num_items in zip(files, hashes, index.num_items, strict=True)
    ]
    known = {"key": key, "num_words": num_words, "num_compared": len(texts), "against": rows}
    write_json(out / COUNTS_NAME, known)
    shutil.rmtree(parts, ignore_errors=True)
    return _contamination(out, known)


def _contamination(out: Path, known: dict[str, Any]) -> Contamination:
    rows = np.unique(np.array([row["row"] for row in read_jsonl(out / LIST_NAME)], np.int64))
    return Contamination(rows, known["against"], known["num_words"], known["num_compared"])


def _part(parts: Path, task: Block) -> Path:
    return parts / f"{task[0]:012}-{task[1]:012}.jsonl"


def _found(parts: Path, tasks: Sequence[Block]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        yield from read_jsonl(_part(parts, task))


def _here(tasks: Sequence[Block], compare: Callable[[Block], None]) -> Iterator[tuple[Block, None]]:
    for task in tasks:
        compare(task)
        yield task, None


def _comparer(corpus: Path, files: Sequence[Path], num_words: int, parts: Path) -> Callable[[Block], None]:
    """A worker."""
    return partial(_compare, TextCorpus(corpus), EvaluationIndex(files, num_words), parts)


def _compare(texts: TextCorpus, index: EvaluationIndex, parts: Path, task: Block) -> None:
    """Compare a block of texts and write what is found."""
    begin, end = task
    found = list(index.overlaps(texts[row].text for row in range(begin, end)))
    rows = [
        {
            "id": texts[begin + overlap.text].id,
            "row": begin + overlap.text,
            "against": str(index.files[overlap.file]),
            "item": index.places[overlap.item],
            "item_id": index.ids[overlap.item],
            "words": overlap.words,
            "num_runs": overlap.num_runs,
        }
        for overlap in found
    ]
    write_jsonl(_part(parts, task), rows)
