"""Stage 0, ours and optional: a warm start of the adapter, by name (`stage_*.warm_start.kind`).

From scratch an adapter does not learn to hear within minutes. It does when it is first taught, by itself, to point at
the embeddings of the words that are spoken: `word_aligned` knows when each is, `ctc` in which order
(model/warm_starts/). The LLM is not run. Every result made with it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from salad.errors import DataError
from salad.model.speech_lm import SpeechLM
from salad.model.warm_starts.ctc import ctc, spellable
from salad.model.warm_starts.word_aligned import word_aligned
from salad.model.warm_starts.words import Clip, vocabulary_of
from salad.recipe import WarmStartSettings
from salad.speech.prepared import Rejected

OWN_RATE_AND_SCALE = {"word_aligned": (2e-3, 12.0), "ctc": (1e-3, 30.0)}  # docs/log.md: what else CTC was tried with


@dataclass(frozen=True)
class WarmStartReport:
    """A step: its loss in nats per position (word_aligned) or word (ctc), and what share of the batch's is right."""

    step: int
    loss_nats: float
    right_frac: float


def warm_start(
    model: SpeechLM,
    tokenizer: PreTrainedTokenizerBase,
    clips: Sequence[Clip],
    settings: WarmStartSettings,
    seed: int,
    purpose: str,
    on_step: Callable[[WarmStartReport], None] = lambda _: None,
) -> list[WarmStartReport]:
    """Train the adapter in place; the LLM's table is only read. Learning rate falls linearly to 0.

    Raises:
        DataError: there are no words to learn from, or none that the kind can use.
    """
    if settings.steps == 0:
        return []
    if not vocabulary_of(clips):
        raise DataError(f"the warm start of {purpose} has no timed words to learn from; align the speech first.")
    teach = word_aligned if settings.kind == "word_aligned" else ctc
    own_rate, own_scale = OWN_RATE_AND_SCALE[settings.kind]
    rate, scale = settings.learning_rate or own_rate, settings.cosine_scale or own_scale
    losses: Iterator[tuple[Tensor, float]] = teach(
        model, tokenizer, clips, settings.batch_positions, scale, seed, purpose
    )
    optimizer = torch.optim.AdamW(model.adapter.parameters(), lr=rate, weight_decay=0.01)
    reports: list[WarmStartReport] = []
    model.adapter.train()
    for step, (loss, right_frac) in zip(range(settings.steps), losses, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / settings.steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        reports.append(WarmStartReport(step + 1, float(loss.detach()), right_frac))
        on_step(reports[-1])
    model.adapter.eval()
    return reports


def not_taught(clips: Sequence[Clip], settings: WarmStartSettings, frames_per_position: int) -> list[Rejected]:
    """The clips that a warm start of these settings makes nothing of, with reasons."""
    if settings.steps == 0 or settings.kind != "ctc":
        return []
    return spellable(clips, vocabulary_of(clips), frames_per_position)[1]
