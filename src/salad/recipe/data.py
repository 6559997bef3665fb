"""Natural speech and broad text, and how an utterance becomes a sequence."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from salad.recipe.base import Count, CountRange, Frac, Positive, Settings


class DataSettings(Settings):
    """Natural speech, broad text, and how they are split.

    `human`: natural speech, one or several of: debian-prompts, a folder of audio with a manifest, a prepared and
    aligned folder (used where it lies). Several are mixed by their numbers of utterances. `text`: `wordnet`, or a JSONL
    file. `pool_texts` are what Stage II may select from; `mix_texts` are Stage I's text; `heldout_texts` are spoken for
    measuring and seen by nothing else. `evaluation`: files of benchmark items (JSONL) that no selected text may share
    words with.
    """

    human: str | Annotated[tuple[str, ...], Field(min_length=1)] = "debian-prompts"
    text: str = "wordnet"
    evaluation: tuple[str, ...] = ()
    heldout_human: Annotated[int, Field(ge=2)] = 40
    heldout_texts: Count = 120
    mix_texts: Count = 4000
    pool_texts: Count = 4000


class SequenceSettings(Settings):
    """How one utterance becomes one mixed sequence (interleave/spans.py). Word ranges are the paper's.

    `continuation_words`: how much of the text after the utterance the `utterance` policy predicts, at most.
    """

    policy: Literal["interleaved", "speech_prefix", "utterance", "poisson"] = "interleaved"
    text_words: CountRange = (10, 30)
    speech_words: CountRange = (5, 15)
    poisson_words: Positive = 10.0
    prefix_frac: Frac = 0.6
    continuation_words: Count = 30
    min_words: Annotated[int, Field(ge=2)] = 5
    max_positions: Count = 2048
