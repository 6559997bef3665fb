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


def choice_scores(model: SpeechLM, prompt: Prompt, choices: Sequence[Sequence[int]]) -> list[float]:
    """Length-normalized log-probability, nats per token, of each choice (token ids) after the prompt.

    Raises:
        DataError: a choice has no tokens.
    """
    return scores_of_all(model, [prompt], [choices])[0]


@torch.no_grad()
def scores_of_all(
    model: SpeechLM, prompts: Sequence[Prompt], choices: Sequence[Sequence[Sequence[int]]]
) -> list[list[float]]:
    """`choice_scores` of several prompts in two forward passes: all prompts, then all their choices.

    Prompts are padded on the right; the mask keeps the padding unread and the positions go on where a prompt ended.

    Raises:
        DataError: a choice has no tokens.
    """
    if any(len(choice) == 0 for own in choices for choice in own):
        raise DataError("a choice tokenizes to nothing; it can't be scored.")
    with model.device:  # tensors are made where the model is
        return _scores(model, prompts, choices)


def _scores(
    model: SpeechLM, prompts: Sequence[Prompt], choices: Sequence[Sequence[Sequence[int]]]
) -> list[list[float]]:
    ids_BP, mask_BP, speech = _prefixes(model, prompts)
    prefix = model(input_ids=ids_BP, attention_mask=mask_BP, use_cache=True, **speech)
    lengths_B = mask_BP.sum(1)
    first_BV = torch.log_softmax(prefix.logits[torch.arange(len(prompts)), lengths_B - 1].float(), -1)
    owner_C = torch.tensor([row for row, own in enumerate(choices) for _ in own])
    flat = [list(choice) for own in choices for choice in own]
    longest = max(len(choice) for choice in flat)
    padded_CT = torch.tensor([choice + [0] * (longest - len(choice)) for choice in flat])
    valid_CT = torch.tensor([[1] * len(choice) + [0] * (longest - len(choice)) for choice in flat])
    cache = prefix.past_key_values
    cache.batch_select_indices(owner_C)
    logits = model(
        input_ids=padded_CT,
        attention_mask=torch.cat([mask_BP[owner_C], valid_CT], 1),
        position_ids=lengths_B[owner_C, None] + torch.arange(longest),
        past_key_values=cache,
        use_cache=True,
    ).logits
    later_CTV = torch.log_softmax(logits.float(), -1)
    scores: list[list[float]] = [[] for _ in prompts]
    for row, (owner, choice) in enumerate(zip(owner_C.tolist(), flat, strict=True)):
        logprob = float(first_BV[owner, choice[0]])
        logprob += sum(float(later_CTV[row, i, token]) for i, token in enumerate(choice[1:]))
        scores[owner].append(logprob / len(choice))
    return scores


def _prefixes(model: SpeechLM, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Right-padded prompt ids and mask [B, P], and the speech of those that have some."""
    per_position = int(model.config.adapter["frames_per_position"])
    rows: list[list[int]] = []
    for prompt in prompts:
        heard = 0 if prompt.speech_FE is None else num_positions(len(prompt.speech_FE), per_position)
        rows.append([*prompt.before, *[model.config.speech_token_id] * heard, *prompt.after])
    longest = max(len(row) for row in rows)
    ids_BP = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask_BP = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    clips = [prompt.speech_FE for prompt in prompts if prompt.speech_FE is not None]
    if not clips:
        return ids_BP, mask_BP, {}
    features, lengths = pad_features(clips)
    return (
        ids_BP,
        mask_BP,
        {
            "speech_features": features.to(model.device),
            "speech_lengths": lengths.to(model.device),
        },
    )
