"""Multiple choice by log-probability: the prefix is read once and shared by all choices.

Score of a choice = sum of log P(token) over its tokens / their number (the paper's length normalization); the highest
wins, the first of equals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from salad.errors import DataError
from salad.interleave.sequence import num_positions
from salad.model.processor import pad_features
from salad.model.speech_lm import SpeechLM


@dataclass(frozen=True)
class Prompt:
    """Text, or text around one utterance's speech: `before` [speech] `after`. Token ids; frames [F, E] or None."""

    before: tuple[int, ...]
    speech_FE: np.ndarray | None
    after: tuple[int, ...]


@torch.no_grad()
def choice_scores(model: SpeechLM, prompt: Prompt, choices: Sequence[Sequence[int]]) -> list[float]:
    """Length-normalized log-probability, nats per token, of each choice (token ids) after the prompt.

    Raises:
        DataError: a choice has no tokens.
    """
    if any(len(choice) == 0 for choice in choices):
        raise DataError("a choice tokenizes to nothing; it can't be scored.")
    ids = list(prompt.before)
    speech: dict[str, Tensor] = {}
    if prompt.speech_FE is not None:
        per_position = int(model.config.adapter["frames_per_position"])
        ids += [model.config.speech_token_id] * num_positions(len(prompt.speech_FE), per_position)
        features, lengths = pad_features([prompt.speech_FE])
        speech = {"speech_features": features, "speech_lengths": lengths}
    ids += prompt.after
    prefix = model(input_ids=torch.tensor([ids]), use_cache=True, **speech)
    first = torch.log_softmax(prefix.logits[0, -1].float(), -1)
    cache = prefix.past_key_values
    cache.batch_repeat_interleave(len(choices))
    longest = max(len(choice) for choice in choices)
    padded = torch.tensor([list(choice) + [0] * (longest - len(choice)) for choice in choices])
    mask = torch.tensor([[1] * (len(ids) + len(c)) + [0] * (longest - len(c)) for c in choices])
    logits = model(input_ids=padded, attention_mask=mask, past_key_values=cache, use_cache=True).logits
    later = torch.log_softmax(logits.float(), -1)
    scores = []
    for row, choice in enumerate(choices):
        logprob = float(first[choice[0]])
        logprob += sum(float(later[row, i, token]) for i, token in enumerate(choice[1:]))
        scores.append(logprob / len(choice))
    return scores
