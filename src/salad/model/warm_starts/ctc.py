"""`ctc`: the positions of a clip spell its words in order. Needs transcripts, and no word timings.

Connectionist temporal classification (Graves et al., 2006) over the words of the training transcripts, whose logits are
scaled cosines with their centred mean input embeddings as in `word_aligned`, and a blank. Words, because there are some
2 to 3 a second, which is few enough even for 6.25 positions; characters (15 a second) would not fit, and tokens have
no direction of their own within a word. The blank's direction is that of a lone space, so that an LLM that is handed
blanks reads next to nothing. The LLM is not run.

Axes: S clips, P LLM positions, H LLM width, W words of the vocabulary, C = W + 1 classes, the blank being 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from salad.errors import DataError
from salad.model.processor import pad_features
from salad.model.speech_lm import SpeechLM
from salad.model.warm_starts.words import Clip, spelled, vocabulary_of, word_directions
from salad.randomness import generator
from salad.speech.prepared import Rejected

BLANK = ""  # read after a space, as every word is
LIKE_LENGTH = 8  # batches whose clips are sorted by length among each other


@dataclass(frozen=True)
class Spoken:
    """A clip that can be spelled: its classes (1 to W) in order, and its number of positions."""

    clip: Clip
    classes: list[int]
    positions: int


def ctc(
    model: SpeechLM,
    tokenizer: PreTrainedTokenizerBase,
    clips: Sequence[Clip],
    batch_positions: int,
    cosine_scale: float,
    seed: int,
    purpose: str,
) -> Iterator[tuple[Tensor, float]]:
    """Endless (loss, share right): nats per word, and 1 - word error rate of the best class at each position.

    Raises:
        DataError: no clip has as many positions as words.
    """
    vocabulary = vocabulary_of(clips)
    spoken, left_out = spellable(clips, vocabulary, model.adapter.settings.frames_per_position)
    if not spoken:
        raise DataError(
            f"the ctc warm start of {purpose}: none of {len(left_out)} clips has a position for each of its words; "
            "lower model.adapter.frames_per_position."
        )
    directions_CH = word_directions([BLANK, *vocabulary], tokenizer, model.table_VH)
    for batch in _batches(spoken, batch_positions, seed, purpose):
        features_SFE, _ = pad_features([item.clip.features_FE[:] for item in batch])
        direction_SPH = functional.normalize(model.adapter.direction(features_SFE.to(model.device)).float(), dim=-1)
        log_probs_SPC = (cosine_scale * direction_SPH @ directions_CH.T).log_softmax(-1)
        yield spelling_loss(log_probs_SPC, batch), share_right(log_probs_SPC, batch)


def spellable(
    clips: Sequence[Clip], vocabulary: dict[str, int], frames_per_position: int
) -> tuple[list[Spoken], list[Rejected]]:
    """The clips that CTC can align, and the others with reasons.

    n words need n positions, and one more between any two equal neighbours.
    """
    spoken: list[Spoken] = []
    left_out: list[Rejected] = []
    for clip in clips:
        words = [spelled(word.text) for word in clip.words]
        classes = [vocabulary[word] + 1 for word in words if word]
        positions = -(-len(clip.features_FE) // frames_per_position)
        needed = len(classes) + sum(a == b for a, b in itertools.pairwise(classes))
        if not classes:
            left_out.append(Rejected(clip.id, "no words for the ctc warm start", "warm_start"))
        elif positions < needed:
            reason = f"too fast for the ctc warm start: its words need {needed} positions, it has {positions}"
            left_out.append(Rejected(clip.id, reason, "warm_start"))
        else:
            spoken.append(Spoken(clip, classes, positions))
    return spoken, left_out


def spelling_loss(log_probs_SPC: Tensor, batch: Sequence[Spoken]) -> Tensor:
    """-log of the probability that each clip's positions spell its words, summed, over the number of words."""
    lengths = [len(item.classes) for item in batch]
    targets = torch.tensor([number for item in batch for number in item.classes], device=log_probs_SPC.device)
    total = functional.ctc_loss(
        log_probs_SPC.transpose(0, 1),
        targets,
        torch.tensor([item.positions for item in batch]),
        torch.tensor(lengths),
        reduction="sum",
    )
    return total / sum(lengths)


def share_right(log_probs_SPC: Tensor, batch: Sequence[Spoken]) -> float:
    """1 - word error rate of the best class at each position, repeats and blanks taken out; 0 at least."""
    best_SP = log_probs_SPC.argmax(-1).tolist()
    wrong = words = 0
    for row, item in zip(best_SP, batch, strict=True):
        heard = [number for number, _ in itertools.groupby(row[: item.positions]) if number]
        wrong += Levenshtein.distance(heard, item.classes)
        words += len(item.classes)
    return max(0.0, 1 - wrong / words)


def _batches(spoken: Sequence[Spoken], batch_positions: int, seed: int, purpose: str) -> Iterator[list[Spoken]]:
    """Endless batches of at most `batch_positions`, padding included, of clips of like length; a longer clip alone."""
    mean = sum(item.positions for item in spoken) / len(spoken)
    pool = LIKE_LENGTH * max(1, int(batch_positions / mean))
    for epoch in itertools.count():
        random = generator(seed, "warm_start", purpose, epoch)
        order = random.permutation(len(spoken))
        batches: list[list[Spoken]] = []
        for begin in range(0, len(order), pool):
            near = sorted((spoken[i] for i in order[begin : begin + pool]), key=lambda item: item.positions)
            batches.append([])
            for item in near:
                if batches[-1] and (len(batches[-1]) + 1) * item.positions > batch_positions:
                    batches.append([])
                batches[-1].append(item)
        for number in random.permutation(len(batches)):
            yield batches[number]
