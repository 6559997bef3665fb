"""Stage 0, ours and optional: the word-aligned warm start of the adapter.

From scratch an adapter does not learn to hear within minutes. With word timings it does: the direction the adapter puts
a frame in is classified, by a softmax over scaled cosines, among the centred mean input embeddings of the words of the
training transcripts; the target is the word under the frame's centre. Frames between words carry no loss. The LLM is
not run. Every result made with it says so.

Axes: S clips, P LLM positions, E encoder width, H LLM width, W words of the vocabulary.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from salad.errors import DataError
from salad.model.features import Frames
from salad.model.processor import pad_features
from salad.model.speech_lm import SpeechLM
from salad.randomness import generator
from salad.recipe import WarmStartSettings
from salad.speech.prepared import TimedWord

PIECE_POSITIONS = 32  # 2.6 s at 12.5 Hz
Clip = tuple[Sequence[TimedWord], Frames]  # timed words, encoder frames [F, E]


@dataclass(frozen=True)
class WarmStartReport:
    """After a step: mean cross-entropy in nats, and the share of the batch's positions whose nearest word is right."""

    step: int
    loss_nats: float
    right_frac: float


def spelled(word: str) -> str:
    """A transcript's word as the warm start's vocabulary has it: lower case, without punctuation around it."""
    return re.sub(r"^\W+|\W+$", "", word).lower()


def word_directions(words: Sequence[str], tokenizer: PreTrainedTokenizerBase, embedding_VH: Tensor) -> Tensor:
    """Unit vectors [W, H]: a word's mean input embedding (read after a space), minus the table's mean."""
    table = embedding_VH.detach().float()
    mean = table.mean(0)
    rows = [table[tokenizer(" " + word, add_special_tokens=False)["input_ids"]].mean(0) - mean for word in words]
    return functional.normalize(torch.stack(rows), dim=-1)


def frame_targets(
    words: Sequence[TimedWord], positions: int, position_hz: float, vocabulary: dict[str, int]
) -> np.ndarray:
    """For each LLM position the vocabulary index of the word under its centre, -1 between words. int64 [P]."""
    targets = np.full(positions, -1, np.int64)
    centres_s = (np.arange(positions) + 0.5) / position_hz
    for word in words:
        index = vocabulary.get(spelled(word.text), -1)
        targets[(centres_s >= word.start_s) & (centres_s < word.end_s)] = index
    return targets


def warm_start(
    model: SpeechLM,
    tokenizer: PreTrainedTokenizerBase,
    clips: Sequence[Clip],
    settings: WarmStartSettings,
    seed: int,
    purpose: str,
    on_step: Callable[[WarmStartReport], None] = lambda _: None,
) -> list[WarmStartReport]:
    """Train the adapter in place; the LLM's table is only read. Learning rate falls linearly to 0."""
    if settings.steps == 0:
        return []
    spoken = {spelled(word.text) for words, _ in clips for word in words} - {""}
    if not spoken:
        raise DataError(f"the warm start of {purpose} has no timed words to learn from; align the speech first.")
    vocabulary = {word: i for i, word in enumerate(sorted(spoken))}
    directions_WH = word_directions(list(vocabulary), tokenizer, model.table_VH)
    optimizer = torch.optim.AdamW(model.adapter.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    reports: list[WarmStartReport] = []
    model.adapter.train()
    batches = _batches(model, clips, vocabulary, settings, seed, purpose)
    for step, batch in zip(range(settings.steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1 - step / settings.steps)
        features_SFE, targets_SP = batch
        known = targets_SP >= 0
        direction = functional.normalize(model.adapter.direction(features_SFE)[known].float(), dim=-1)
        logits = settings.cosine_scale * direction @ directions_WH.T
        loss = functional.cross_entropy(logits, targets_SP[known])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right = float((logits.argmax(-1) == targets_SP[known]).float().mean())
        reports.append(WarmStartReport(step + 1, float(loss.detach()), right))
        on_step(reports[-1])
    model.adapter.eval()
    return reports


def _batches(
    model: SpeechLM,
    clips: Sequence[Clip],
    vocabulary: dict[str, int],
    settings: WarmStartSettings,
    seed: int,
    purpose: str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of (features [S, F, E], targets [S, P]) from clips cut into pieces of one length.

    Frames are read when their piece comes up.
    """
    per_position = int(model.config.adapter["frames_per_position"])
    pieces: list[tuple[Frames, int, np.ndarray]] = []
    for words, features in clips:
        targets = frame_targets(words, -(-len(features) // per_position), model.config.position_hz, vocabulary)
        for begin in range(0, len(targets), PIECE_POSITIONS):
            pieces.append((features, begin * per_position, targets[begin : begin + PIECE_POSITIONS]))
    pieces = [piece for piece in pieces if (piece[2] >= 0).any()]
    size = min(len(pieces), max(1, settings.batch_positions // PIECE_POSITIONS))
    for epoch in itertools.count():
        order = generator(seed, "warm_start", purpose, epoch).permutation(len(pieces))
        for begin in range(0, len(order) - size + 1, size):
            chosen = [pieces[i] for i in order[begin : begin + size]]
            num_frames = PIECE_POSITIONS * per_position
            features_SFE, _ = pad_features([features[first : first + num_frames] for features, first, _ in chosen])
            targets_SP = np.full((size, -(-features_SFE.shape[1] // per_position)), -1, np.int64)
            for row, (_, _, targets) in enumerate(chosen):
                targets_SP[row, : len(targets)] = targets
            yield features_SFE, torch.from_numpy(targets_SP)
