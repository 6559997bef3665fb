"""Tokens of a text and which word each belongs to, a word at a time where the tokenizer allows it.

Training reads the same words again and again. A byte-level BPE that cuts at every space gives " word" the same tokens
wherever it stands, so they are looked up instead of made, in a tenth of the time. Any other tokenizer reads each text
whole.
"""

from __future__ import annotations

import json
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from salad.errors import DataError

MAX_WORDS_KEPT = 50_000  # about 12 MB; in running text the first to come are the most frequent
# How GPT-2, Qwen 2 and Llama 3 cut a text: no piece holds a space but as its first character.
_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_kept: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, dict[str, list[int]] | None]] = WeakKeyDictionary()


def tokenize_words(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[int]]:
    """Token ids of `text` tokenized once, and for every whitespace-separated word the end of its tokens.

    Returns:
        (ids, ends): word k owns tokens ends[k-1]..ends[k]; a token belongs to the word its last character is in.

    Raises:
        DataError: a token spans two words, so the text can't be cut at word boundaries.
    """
    kept = _words_of(tokenizer)
    words = text.split()
    if kept is None or " ".join(words) != text:
        return _whole(tokenizer, text, words)
    ids: list[int] = []
    ends: list[int] = []
    for piece in text.replace(" ", "\n ").split("\n") if words else ():
        tokens = kept.get(piece)
        if tokens is None:
            tokens = encoded(tokenizer, piece).ids
            if len(kept) < MAX_WORDS_KEPT:
                kept[piece] = tokens
        ids += tokens
        ends.append(len(ids))
    return ids, ends


def encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> Any:
    """What `tokenizer(text, add_special_tokens=False)` does, without most of its cost: ids and offsets."""
    backend: Any = tokenizer.backend_tokenizer
    if backend.truncation is not None or backend.padding is not None:
        backend.no_truncation()
        backend.no_padding()
    return backend.encode(text, add_special_tokens=False)


def _whole(tokenizer: PreTrainedTokenizerBase, text: str, words: list[str]) -> tuple[list[int], list[int]]:
    """`tokenize_words` by the offsets of the text's tokens."""
    found = encoded(tokenizer, text)
    ids: list[int] = found.ids
    offsets = found.offsets
    ends: list[int] = []
    cursor = token = 0
    for word in words:
        cursor = text.index(word, cursor) + len(word)
        while token < len(ids) and offsets[token][1] <= cursor:
            token += 1
        if token < len(ids) and offsets[token][0] < cursor:
            raise DataError(f"the tokenizer joins {word!r} with the word after it in {text[:60]!r}")
        ends.append(token)
    return ids, ends


def _words_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]] | None:
    """The words of a tokenizer whose tokens are known; None if a word's tokens depend on its neighbours."""
    size = len(tokenizer)
    found = _kept.get(tokenizer)
    if found is None or found[0] != size:  # a token was added since
        backend: Any = tokenizer.backend_tokenizer
        found = size, {} if cuts_at_spaces(json.loads(backend.to_str())) else None
        _kept[tokenizer] = found
    return found[1]


def cuts_at_spaces(tokenizer: dict[str, Any]) -> bool:
    """Whether a tokenizer, as in tokenizer.json, is known to read each word, with the space before it, by itself."""
    steps = tokenizer["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    *earlier, last = steps
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        return False
    cuts = [
        step["type"] == "Digits" or (step["type"] == "Split" and step["pattern"].get("Regex") in _CUTS)
        for step in earlier
    ]
    return (
        all(cuts)
        and (last["use_regex"] or any(step["type"] == "Split" and step["behavior"] == "Isolated" for step in earlier))
        and not any(step.get("invert") for step in earlier)
        and (tokenizer["normalizer"] or {"type": "NFC"})["type"] == "NFC"
        and tokenizer["model"]["type"] == "BPE"
        and not tokenizer["model"]["dropout"]
        and not any(
            added["lstrip"] or added["rstrip"] or added["single_word"] or any(map(str.isspace, added["content"]))
            for added in tokenizer["added_tokens"]
        )
    )
