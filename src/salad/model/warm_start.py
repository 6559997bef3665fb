"""Stage 0, ours and optional: the word-aligned warm start of the adapter.

From scratch an adapter does not learn to hear within minutes. With word timings it does: the direction the adapter puts
a frame in is classified, by a softmax over scaled cosines, among the centred mean input embeddings of the words of the
training transcripts; the target is the word under the frame's centre. Frames between words carry no loss. The LLM is not run.
Every result made with it says so.

Axes: S clips, P LLM positions, E encoder width, H LLM width, W words of the vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from salad.model.processor import pad_features
from salad.model.speech_lm import SpeechLM
from salad.randomness import generator
from salad.recipe import WarmStartSettings
from salad.speech.prepared import TimedWord

Clip = tuple[Sequence[TimedWord], np.ndarray]  # timed words, encoder frames [F, E]


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
    vocabulary = {word: i for i, word in enumerate(sorted({spelled(w.text) for words, _ in clips for w in words} - {""}))}
    directions_WH = word_directions(list(vocabulary), tokenizer, model.get_input_embeddings().weight)
    optimizer = torch.optim.AdamW(model.adapter.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    reports: list[WarmStartReport] = []
    model.adapter.train()
    for step, batch in zip(range(settings.steps), _batches(model, clips, vocabulary, settings, seed, purpose), strict=False):
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
    per_position = int(model.config.adapter["frames_per_position"])
    targets = [
        frame_targets(words, -(-len(features) // per_position), model.config.position_hz, vocabulary)
        for words, features in clips
    ]
    chosen: list[int] = []
    for epoch in range(10**9):
        for index in generator(seed, "warm_start", purpose, epoch).permutation(len(clips)):
            chosen.append(int(index))
            if sum(len(targets[i]) for i in chosen) >= settings.batch_positions:
                padded = np.full((len(chosen), max(len(targets[i]) for i in chosen)), -1, np.int64)
                for row, i in enumerate(chosen):
                    padded[row, : len(targets[i])] = targets[i]
                features = pad_features([clips[i][1] for i in chosen])["speech_features"]
                yield features, torch.from_numpy(padded)
                chosen = []
