"""Probes heard window by window, by one process or by many workers, with the same result.

A task is a window: the probes whose packed sequences one forward pass takes. Which probes share one depends on the
sequences alone, so the rows are the same with any number of workers. A window that was answered lies in a file and is
not asked for again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from salad.distill.teacher import teacher_for
from salad.errors import DataError
from salad.files import read_json, write_json
from salad.fingerprint import content_hash
from salad.interleave.builder import SequenceBuilder
from salad.interleave.packing import pack
from salad.interleave.utterances import SpeechCorpus, feature_lookup
from salad.measure.divergence_by_item import ItemDivergence, ItemScores, scores_by_item
from salad.measure.misalignment import HeardAndSwapped, batches_of, misalignment_by_item
from salad.model.config import SpeechLMConfig
from salad.model.encoders.speech_encoder import torch_device
from salad.model.features import encoder_folder
from salad.model.llm import document_mark, load_tokenizer
from salad.model.speech_lm import SpeechLM
from salad.randomness import generator
from salad.recipe import SequenceSettings
from salad.speech.prepared import Rejected, cuts_file
from salad.workers import Died, FanOut, answer_all

HEARING_ITEMS = 64
"""Probes that the hearing check takes: what it asks is yes or no, and 24 were too few for a small model that hears."""

Task = TypeVar("Task")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Hearing:
    """A model, prepared and encoded speech, and how the two meet: all that the rows of a probe depend on.

    `threads` of each process; they change results by rounding, as everywhere. `jsd` and `self_misalignment` are
    measured as well if asked for.
    """

    model: Path
    speech: Path
    sequence: SequenceSettings
    seed: int
    batch_positions: int
    threads: int
    jsd: bool = False
    self_misalignment: bool = False

    def builder(self) -> SequenceBuilder:
        """What makes the sequences; reads the model's configuration and not its weights."""
        config = SpeechLMConfig.from_pretrained(self.model)
        tokenizer = load_tokenizer(config.llm)
        per_position = int(config.adapter["frames_per_position"])
        mark = document_mark(tokenizer)
        return SequenceBuilder(tokenizer, mark, self.sequence, config.position_hz, per_position, self.seed)

    def corpus(self) -> SpeechCorpus:
        """The speech, as the model's encoder hears it.

        Raises:
            MissingFileError: it was not encoded; says how.
        """
        return SpeechCorpus(self.speech, SpeechLMConfig.from_pretrained(self.model).encoder)

    def as_json(self) -> dict[str, Any]:
        """Plain data, with hashes of what lies behind the paths."""
        encoder = encoder_folder(self.speech, SpeechLMConfig.from_pretrained(self.model).encoder)
        return {
            **asdict(self),
            "model": content_hash(self.model),
            "speech": [content_hash(cuts_file(self.speech)), content_hash(encoder / "index.npy")],
            "sequence": self.sequence.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class Heard:
    """What was heard: scores in the corpus's order, what the policy can't use, and the rows of the hearing check.

    The check is None where fewer than two probes have speech in their sequence.
    """

    scores: list[ItemScores]
    rejected: list[Rejected]
    check: HeardAndSwapped | None


@dataclass(frozen=True)
class Window:
    """Rows of the folder's cuts whose sequences one forward pass takes; or `swapped`, those of the hearing check."""

    rows: tuple[int, ...]
    swapped: bool = False


def hear_probes(
    hearing: Hearing,
    kept: Path,
    processes: int = 1,
    fan_out: FanOut = answer_all,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Heard:
    """The scores of every utterance that the policy can use, and the rows that tell whether the model hears.

    Args:
        hearing: who hears what.
        kept: a folder for what has been answered.
        processes: one: here; more: so many workers of `fan_out`, each with the model.
        fan_out: who answers.
        progress: told (done, total) in windows.

    Raises:
        MissingFileError: the speech was not encoded.
        NonFiniteError: a divergence is not a number; says which utterance's.
        DataError: a worker died.
    """
    builder = hearing.builder()
    usable, rejected = builder.usable(hearing.corpus())
    assert isinstance(usable, SpeechCorpus)
    ids = dict(zip(usable.rows.tolist(), (utterance.id for utterance in usable), strict=True))
    windows = _windows(hearing, builder, usable)
    key = json.dumps(hearing.as_json(), sort_keys=True)
    files = {window: kept / f"{_hash(key, window, ids)}.json" for window in windows}
    left = [window for window in windows if not files[window].is_file()]
    done = len(windows) - len(left)
    progress(done, len(windows))
    for window, answer in answers(left, partial(_measurer, hearing), processes, fan_out):
        write_json(files[window], answer)
        done += 1
        progress(done, len(windows))
    found = {window: read_json(files[window]) for window in windows}
    scores = {row["item"]: ItemScores(**row) for window in windows if not window.swapped for row in found[window]}
    check = next((_heard_and_swapped(found[window]) for window in windows if window.swapped), None)
    return Heard([scores[name] for name in ids.values()], rejected, check)


def answers(
    tasks: Sequence[Task], setup: Callable[[], Callable[[Task], Answer]], processes: int, fan_out: FanOut
) -> Iterator[tuple[Task, Answer]]:
    """Every task with its answer: in this process, or by workers.

    Raises:
        DataError: a worker died.
    """
    if processes == 1 and fan_out is answer_all:
        answer_to = setup() if tasks else None
        for task in tasks:
            assert answer_to is not None
            yield task, answer_to(task)
        return
    for task, answer in fan_out(tasks, setup, processes):
        if isinstance(answer, Died):
            raise DataError(
                f"a worker ended with exit code {answer.exit_code} while it heard probes (out of memory?); run the "
                "same command again with fewer --jobs, it goes on from here."
            )
        yield task, answer


def _windows(hearing: Hearing, builder: SequenceBuilder, usable: SpeechCorpus) -> list[Window]:
    sequences = [builder.mixed(utterance) for utterance in usable]
    lengths = [len(sequence.student_ids) for sequence in sequences]
    packed = pack(lengths, max([hearing.batch_positions, *lengths]))
    windows = [Window(tuple(usable.rows[window].tolist())) for window in packed]
    spoken = np.flatnonzero([bool(sequence.speech) for sequence in sequences])
    drawn = generator(hearing.seed, "hearing").permutation(spoken)[:HEARING_ITEMS]
    return [*windows, Window(tuple(usable.rows[drawn].tolist()), swapped=True)] if len(drawn) > 1 else windows


def _measurer(hearing: Hearing) -> Callable[[Window], Any]:
    """Loads the model once; hears windows, and answers with plain data."""
    torch.set_num_threads(hearing.threads)
    student = SpeechLM.from_pretrained(hearing.model, device_map=torch_device("auto"))
    teacher, builder, corpus = teacher_for(student), hearing.builder(), hearing.corpus()

    def measure(window: Window) -> Any:
        utterances = list(corpus.take(np.searchsorted(corpus.rows, window.rows)))
        sequences, features = [builder.mixed(utterance) for utterance in utterances], feature_lookup(utterances)
        if window.swapped:
            return asdict(misalignment_by_item(student, sequences, features, hearing.batch_positions, hearing.seed))
        batches = batches_of(sequences, features, student, hearing.batch_positions)
        rows = scores_by_item(teacher, student, batches, hearing.jsd, hearing.self_misalignment)
        return [asdict(row) for row in rows]

    return measure


def _heard_and_swapped(tree: Any) -> HeardAndSwapped:
    heard, swapped = ([ItemDivergence(**row) for row in tree[name]] for name in ("heard", "swapped"))
    return HeardAndSwapped(heard, swapped)


def _hash(key: str, window: Window, ids: Mapping[int, str]) -> str:
    parts = [key, window.swapped, [ids[row] for row in window.rows]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
