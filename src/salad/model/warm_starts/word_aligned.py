"""`word_aligned`: each position names the word under it. Needs word timings.

The direction the adapter puts a position in is classified, by a softmax over scaled cosines, among the centred mean
input embeddings of the words of the training transcripts; the target is the word under the position's centre. Positions
between words carry no loss. The LLM is not run.

Axes: S clips, P LLM positions, E encoder width, H LLM width, W words of the vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from salad.errors import DataError
from salad.model.features import Frames
from salad.model.processor import pad_features
from salad.model.speech_lm import SpeechLM
from salad.model.warm_starts.words import Clip, spelled, vocabulary_of, word_directions
from salad.randomness import generator
from salad.speech.prepared import TimedWord

PIECE_POSITIONS = 32  # 2.6 s at 12.5 Hz


def word_aligned(
    model: SpeechLM,
    tokenizer: PreTrainedTokenizerBase,
    clips: Sequence[Clip],
    batch_positions: int,
    cosine_scale: float,
    seed: int,
    purpose: str,
) -> Iterator[tuple[Tensor, float]]:
    """Endless (loss, share right): mean cross-entropy in nats, and positions whose nearest word is the right one.

    Raises:
        DataError: no position lies in a word.
    """
    vocabulary = vocabulary_of(clips)
    directions_WH = word_directions(list(vocabulary), tokenizer, model.table_VH)
    for features_SFE, targets_SP in _batches(model, clips, vocabulary, batch_positions, seed, purpose):
        known = targets_SP >= 0
        heard = model.adapter.direction(features_SFE.to(model.device))[known.to(model.device)]
        direction = functional.normalize(heard.float(), dim=-1)
        logits = cosine_scale * direction @ directions_WH.T
        targets = targets_SP[known].to(logits.device)
        loss = functional.cross_entropy(logits, targets)
        yield loss, float((logits.argmax(-1) == targets).float().mean())


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


def _batches(
    model: SpeechLM,
    clips: Sequence[Clip],
    vocabulary: dict[str, int],
    batch_positions: int,
    seed: int,
    purpose: str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of (features [S, F, E], targets [S, P]) from clips cut into pieces of one length.

    Frames are read when their piece comes up.
    """
    per_position = model.adapter.settings.frames_per_position
    pieces: list[tuple[Frames, int, np.ndarray]] = []
    for clip in clips:
        positions = -(-len(clip.features_FE) // per_position)
        targets = frame_targets(clip.words, positions, model.config.position_hz, vocabulary)
        for begin in range(0, len(targets), PIECE_POSITIONS):
            pieces.append((clip.features_FE, begin * per_position, targets[begin : begin + PIECE_POSITIONS]))
    pieces = [piece for piece in pieces if (piece[2] >= 0).any()]
    if not pieces:
        raise DataError(f"the warm start of {purpose}: no position's centre lies in a word; are the word times right?")
    size = min(len(pieces), max(1, batch_positions // PIECE_POSITIONS))
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
