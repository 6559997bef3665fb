"""What the student says itself (Stage III): continuations of spoken prefixes, sampled from the student as it is then.

    OUT/rollouts/round-00000003/begun.json        whose words they are: the step, SHA-256 of the student's weights
    OUT/rollouts/round-00000003/part-00002.jsonl  a rollout a line: position of the mix, item, tokens, text
    OUT/rollouts/round-00000003/round.json        all parts are there: what they come to, SHA-256 of each

A round is what the steps up to the next refresh read. Its tokens are a function of the student's weights and of (seed,
position), so a round that was cut off goes on and ends the same. A training that resumes within a round reads it from
the disk: the weights that wrote it are gone.

Axes: B rollouts of a batch, T positions, V vocabulary.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from salad.assets import digest_of
from salad.distill.teacher import bytes_of
from salad.errors import CheckpointError, NonFiniteError
from salad.files import read_json, read_jsonl, sweep, write_json, write_jsonl
from salad.interleave.batch import Batch
from salad.interleave.continuation import OnPolicyStream, Prefix
from salad.interleave.stream import step_batches
from salad.interleave.utterances import feature_lookup
from salad.model.config import SpeechLMConfig
from salad.model.features import Frames
from salad.model.flops import StepFlops
from salad.model.llm import document_mark
from salad.model.processor import pad_features
from salad.model.speech_lm import SpeechLM
from salad.randomness import generator
from salad.ranks import ALONE, Ranks
from salad.recipe import StageThreeSettings


@dataclass(frozen=True)
class Vocabulary:
    """What the student may say: ids below `num_tokens`; one of `end_ids` ends a continuation and belongs to it."""

    num_tokens: int
    end_ids: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
        """All of a tokenizer's; the document mark and its own end of a text end one."""
        ends = {document_mark(tokenizer), tokenizer.eos_token_id} - {None}
        return cls(len(tokenizer), tuple(sorted(int(end) for end in ends if isinstance(end, int))))


class _Draw(LogitsProcessor):
    """Leaves one token of each row: drawn by the row's own generator from softmax(logits / T), at T = 0 the likeliest.

    What else is in the batch changes nothing, and `generate` needs no random numbers of its own.
    """

    def __init__(self, generators: Sequence[np.random.Generator], temperature: float, num_tokens: int) -> None:
        self.generators = generators
        self.temperature = temperature
        self.num_tokens = num_tokens

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002  (transformers' signature)
        scores_BV = scores[:, : self.num_tokens].double()
        if not bool(scores_BV.isfinite().all()):
            raise NonFiniteError(
                "the student's logits are not finite while it speaks; lower the learning rates of stage_three, or set "
                "model.dtype=bfloat16."
            )
        if self.temperature == 0:
            chosen_B1 = scores_BV.argmax(-1, keepdim=True)
        else:
            sums_BV = (scores_BV / self.temperature).softmax(-1).cumsum(-1)
            # In float64: rounded to float32 a draw can be 1, and what it finds is no token.
            drawn_B1 = torch.tensor(
                [[own.random()] for own in self.generators], dtype=torch.float64, device=scores.device
            )
            chosen_B1 = torch.searchsorted(sums_BV, drawn_B1 * sums_BV[:, -1:], right=True)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen_B1, 0.0)


@torch.no_grad()
def continuations(
    student: SpeechLM,
    prefixes: Sequence[Prefix],
    features: Callable[[str], Frames],
    limits: Sequence[int],
    temperature: float,
    generators: Sequence[np.random.Generator],
    vocabulary: Vocabulary,
    in_step: bool = False,
) -> list[tuple[int, ...]]:
    """The student's own tokens behind each prefix, all written at the same time by its `generate`.

    Args:
        student: in whatever mode; it speaks in evaluation mode.
        prefixes: what it has heard and read.
        features: an utterance's encoder frames.
        limits: how many tokens each may have at most.
        temperature: of the sampling; 0 takes the likeliest.
        generators: each row's random numbers, one a token.
        vocabulary: what may be said, and what ends it.
        in_step: all ranks speak at once, and none ends before the others: each has a shard of the student.

    Raises:
        NonFiniteError: the student's logits are not finite.
    """
    per_position = student.adapter.settings.frames_per_position
    spans = [span for prefix in prefixes for span in prefix.speech]
    clips = [features(s.utterance)[s.start * per_position : s.stop * per_position] for s in spans]
    speech_SFE, lengths_S = pad_features(clips)
    longest = max(len(prefix.student_ids) for prefix in prefixes)
    pads = [longest - len(prefix.student_ids) for prefix in prefixes]
    pad, mark = vocabulary.end_ids[0], student.config.speech_token_id
    rows = [[pad] * n + [mark if i < 0 else i for i in p.student_ids] for n, p in zip(pads, prefixes, strict=True)]
    training, device = student.training, student.table_VH.device
    student.eval()
    try:
        said_BT: Any = student.generate(  # type: ignore[misc]  # its self is a protocol
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor([[0] * n + [1] * (longest - n) for n in pads], device=device),
            speech_features=speech_SFE.to(device),
            speech_lengths=lengths_S.to(device),
            generation_config=GenerationConfig(
                max_new_tokens=max(limits),
                do_sample=False,
                eos_token_id=list(vocabulary.end_ids),
                pad_token_id=pad,
            ),
            logits_processor=LogitsProcessorList([_Draw(generators, temperature, vocabulary.num_tokens)]),
            synced_gpus=in_step,
        )
    finally:
        student.train(training)
    new = said_BT[:, longest:].tolist()
    return [_up_to_the_end(row[:limit], vocabulary.end_ids) for row, limit in zip(new, limits, strict=True)]


def _up_to_the_end(ids: Sequence[int], end_ids: Sequence[int]) -> tuple[int, ...]:
    ended = next((place for place, token in enumerate(ids) if token in end_ids), len(ids) - 1)
    return tuple(ids[: ended + 1])


class Rollouts:
    """The batches of an on-policy stage: before the first step of each round the student says what they consist of.

    Give it to the training loop in place of a stream's batches. All ranks call it, for every step in order.
    """

    def __init__(
        self,
        student: SpeechLM,
        tokenizer: PreTrainedTokenizerBase,
        stream: OnPolicyStream,
        settings: StageThreeSettings,
        folder: Path,
        ranks: Ranks = ALONE,
        loader_workers: int = 0,
        tell: Callable[[int, int, str], None] = lambda *_: None,
    ) -> None:
        """`student` speaks as it is when a round begins; `folder` keeps the rounds; `tell`: parts done, of, a note."""
        self.student, self.tokenizer, self.settings = student, tokenizer, settings
        self.stream, self.folder, self.ranks, self.loader_workers = stream, folder, ranks, loader_workers
        self.tell = tell
        self.vocabulary = Vocabulary.of(tokenizer)
        self.flops = StepFlops.of(cast("SpeechLMConfig", student.config))
        self._round: int | None = None
        self._batches: Callable[[int], list[Batch]] = lambda _: []

    def __call__(self, step: int) -> list[Batch]:
        """This rank's batches of `step` (from 0).

        Raises:
            CheckpointError: the step lies within a round that is not on the disk any more, or is damaged.
        """
        number = step // self.settings.refresh_steps
        if number != self._round:
            told = replace(self.stream, own=self.round(number, step))
            last = min((number + 1) * self.settings.refresh_steps, self.settings.steps)
            ranks = self.ranks
            self._batches = step_batches(told, last, ranks.rank, ranks.world, self.loader_workers)
            self._round = number
        return self._batches(step)

    def round(self, number: int, step: int) -> dict[int, tuple[int, ...]]:
        """The student's own tokens by position of the mix, for the steps of a round, of which `step` is the next."""
        first = number * self.settings.refresh_steps
        place = self.folder / f"round-{number:08d}"
        if step > first:
            if not self.ranks.from_main((place / "round.json").is_file()):
                raise CheckpointError(
                    f"{place} is gone, which the steps from {first + 1} on were trained with; delete "
                    f"{self.folder.parent} to begin the stage again."
                )
            return _read(place)
        # Shards are gathered by all; of a student that each has whole the main rank's is enough.
        own = fingerprint(self.student) if self.ranks.is_main or self._sharded else ""
        begun = {
            "step": first,
            "student": self.ranks.from_main(own),
            "settings": self.settings.model_dump(mode="json", exclude={"checkpoint_every"}),
        }
        if self.ranks.is_main:
            _make_ready(place, begun)
        self.ranks.barrier()
        if not self.ranks.from_main((place / "round.json").is_file()):
            self._speak(place, first)
        return _read(place)

    @property
    def _sharded(self) -> bool:
        """Whether each rank has a part of the student."""
        return isinstance(self.student, FSDPModule)

    def summary(self) -> dict[str, Any]:
        """What all rounds on the disk come to: rollouts, tokens, how many came to an end, FLOPs of writing them."""
        rounds = [read_json(path) for path in sorted(self.folder.glob("round-*/round.json"))]
        return {"rounds": len(rounds)} | {
            name: sum(found[name] for found in rounds) for name in ("rollouts", "tokens", "ended", "flops")
        }

    def _speak(self, place: Path, first: int) -> None:
        """Write the parts that are not there, each rank a share, and then what they come to."""
        last = min(first + self.settings.refresh_steps, self.settings.steps)
        per_step = self.stream.batch_sequences
        here = range(first * per_step, last * per_step)
        # Those of a length together: less padding.
        lengths = sorted((len(found[0].student_ids), p) for p in here if (found := self.stream.prefix(p)) is not None)
        positions, size = [position for _, position in lengths], self.settings.rollouts_at_once
        parts = [positions[begin : begin + size] for begin in range(0, len(positions), size)]
        paths = [place / f"part-{number:05d}.jsonl" for number in range(len(parts))]
        ranks = self.ranks
        todo = ranks.from_main([number for number, path in enumerate(paths) if not path.is_file()])
        turns = -(-len(todo) // ranks.world)
        for turn in range(turns):
            self.tell(turn, turns, f"the student speaks: {len(positions)} continuations")
            own = turn * ranks.world + ranks.rank
            if own < len(todo):
                write_jsonl(paths[todo[own]], self._said(parts[todo[own]]))
            elif self._sharded:
                self._said(parts[todo[0]])  # for its shards, which the others need
        self.ranks.barrier()
        if self.ranks.is_main:
            rows = [row for path in paths for row in read_jsonl(path)]
            comes_to = {
                "step": first,
                "rollouts": len(rows),
                "tokens": sum(len(row["ids"]) for row in rows),
                "ended": sum(row["ids"][-1] in self.vocabulary.end_ids for row in rows),
                "flops": sum(
                    self.flops.rollout(row["prefix"] + len(row["ids"]) - 1, len(row["ids"]), row["heard"])
                    for row in rows
                ),
                "parts": {path.name: digest_of(path) for path in paths},
            }
            write_json(place / "round.json", comes_to)
        self.ranks.barrier()

    def _said(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """The rollouts at some positions of the mix, made in one batch."""
        found = [prompt for position in positions if (prompt := self.stream.prefix(position)) is not None]
        prefixes, utterances = zip(*found, strict=True)
        seed, purpose = self.stream.builder.seed, self.stream.mix.purpose
        said = continuations(
            self.student,
            prefixes,
            feature_lookup(utterances),
            [self.stream.room(prefix) for prefix in prefixes],
            self.settings.temperature,
            [generator(seed, purpose, "rollout", position) for position in positions],
            self.vocabulary,
            self._sharded,
        )
        return [
            {
                "position": position,
                "item": prefix.item,
                "prefix": len(prefix.student_ids),
                "heard": [span.stop - span.start for span in prefix.speech],
                "ids": list(ids),
                "text": self.tokenizer.decode(list(ids)),
            }
            for position, prefix, ids in zip(positions, prefixes, said, strict=True)
        ]


def fingerprint(student: SpeechLM) -> str:
    """SHA-256 over what is trained of a student; of one that is sharded all ranks ask for it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(student.trained_state().items()):
        digest.update(name.encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def _make_ready(place: Path, begun: Mapping[str, Any]) -> None:
    """Keep what the same student said under the same settings; what another said is deleted."""
    note = place / "begun.json"
    if place.is_dir() and not (note.is_file() and read_json(note) == begun):
        shutil.rmtree(place)
    place.mkdir(parents=True, exist_ok=True)
    sweep(place)
    if not note.is_file():
        write_json(note, begun)


def _read(place: Path) -> dict[int, tuple[int, ...]]:
    found: dict[int, tuple[int, ...]] = {}
    for name, digest in read_json(place / "round.json")["parts"].items():
        path = place / name
        if not path.is_file() or digest_of(path) != digest:
            raise CheckpointError(
                f"{path} is damaged; put back a copy of it, or delete {place.parent.parent} to begin the stage again."
            )
        found |= {row["position"]: tuple(row["ids"]) for row in read_jsonl(path)}
    return found
