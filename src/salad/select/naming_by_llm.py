"""Names for clusters by a causal LLM that is shown a cluster's telling terms and typical texts.

It continues a list, so a base LLM will do; greedily, so the same LLM gives the same names on the same kind of machine.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from salad.select.embed import Device, device_for

MAX_NEW_TOKENS = 16
LONGEST_NAME = 60
TERMS_SHOWN = 6
TEXTS_SHOWN = 3
CHARACTERS_SHOWN = 160

EXAMPLES = (
    ("violin, orchestra, played, string", "a stringed instrument that is played with a bow", "Musical instruments"),
    ("court, judge, law, legal", "the party against which an action is brought in a court", "Law and courts"),
    ("boil, oven, sauce, dough", "let the dough rise for an hour before it goes into the oven", "Cooking"),
)


class Namer:
    """Names clusters one at a time.

    Attributes:
        num_without_name: how many clusters the LLM found no usable name for.
    """

    def __init__(self, llm: str, device: Device = "auto") -> None:
        """Load an LLM by name or path.

        Raises:
            AssetError: there is none.
        """
        from transformers.utils import logging

        from salad.model.llm import load_llm, load_tokenizer

        logging.disable_progress_bar()
        self._device = device_for(device)
        model: Any = load_llm(llm)  # Any: transformers types `to` and `generate` as its own classes
        self._model = model.to(self._device)
        self._tokenizer = load_tokenizer(llm)
        self._room = int(getattr(self._model.config, "max_position_embeddings", 2048)) - MAX_NEW_TOKENS
        self.num_without_name = 0

    def name(self, terms: Sequence[str], texts: Sequence[str]) -> str | None:
        """A name of at most `LONGEST_NAME` characters, or None where the LLM gives nothing that could be one."""
        import torch

        inputs = self._tokenizer(prompt(terms, texts), return_tensors="pt", add_special_tokens=False)
        ids = inputs["input_ids"][:, -self._room :].to(self._device)
        with torch.inference_mode():
            generated = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id,
            )
        said = str(self._tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True))
        name = tidy(said)
        self.num_without_name += name is None
        return name


def prompt(terms: Sequence[str], texts: Sequence[str]) -> str:
    """Three groups with their topics, and one whose topic is to be said."""
    parts = [f"Words: {words}\nText: {text}\nTopic: {topic}\n" for words, text, topic in EXAMPLES]
    shown = [" ".join(text.split())[:CHARACTERS_SHOWN] for text in texts[:TEXTS_SHOWN]]
    own = f"Words: {', '.join(terms[:TERMS_SHOWN])}\n" + "".join(f"Text: {text}\n" for text in shown) + "Topic:"
    return "The topic of each group of texts, in a few words.\n\n" + "\n".join([*parts, own])


def tidy(said: str) -> str | None:
    """What an LLM said as a name: its first line without quotes, marks and control characters; None if it is none."""
    lines = [line for line in said.splitlines() if line.strip()]
    line = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in lines[0]) if lines else ""
    name = re.sub(r"\s+", " ", line).strip(" \t\"'“”‘’.,;:*#-_`")
    if len(name) > LONGEST_NAME:
        name = name[:LONGEST_NAME].rsplit(" ", 1)[0].rstrip(" ,;:-")
    return name if any(character.isalpha() for character in name) and "\ufffd" not in name else None
