"""The words a warm start classifies speech among: those of the transcripts, by the direction of their embeddings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from salad.model.features import Frames
from salad.speech.prepared import TimedWord


@dataclass(frozen=True)
class Clip:
    """A spoken text: its timed words and its encoder frames [F, E]."""

    id: str
    words: Sequence[TimedWord]
    features_FE: Frames


def spelled(word: str) -> str:
    """A transcript's word as the vocabulary has it: lower case, without punctuation around it."""
    return re.sub(r"^\W+|\W+$", "", word).lower()


def vocabulary_of(clips: Sequence[Clip]) -> dict[str, int]:
    """The words of the clips, numbered in alphabetical order."""
    spoken = {spelled(word.text) for clip in clips for word in clip.words} - {""}
    return {word: number for number, word in enumerate(sorted(spoken))}


def word_directions(words: Sequence[str], tokenizer: PreTrainedTokenizerBase, embedding_VH: Tensor) -> Tensor:
    """Unit vectors [W, H]: a word's mean input embedding (read after a space), minus the table's mean."""
    table = embedding_VH.detach().float()
    mean = table.mean(0)
    rows = [table[tokenizer(" " + word, add_special_tokens=False)["input_ids"]].mean(0) - mean for word in words]
    return functional.normalize(torch.stack(rows), dim=-1)
