"""What a JSONL file of texts holds, in numbers: one pass, line by line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from salad.errors import DataError, MissingFileError
from salad.tally import Kinds, Tally
from salad.texts.readers import JsonLines
from salad.texts.text import text_from

TEXTS_AT_ONCE = 1000
TOP_DOMAINS = 20

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def text_stats(
    path: Path,
    count_tokens: Callable[[Sequence[str]], int] | None = None,
    tokenizer: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, Any]:
    """What `salad stats --json` prints of a file of texts; a rejected.jsonl beside OUT/texts.jsonl is counted too.

    Args:
        path: JSON lines with id and text.
        count_tokens: texts → how many tokens the LLM reads them as; None leaves `tokens` None.
        tokenizer: its name.
        progress: told (texts read, None) now and then.

    Raises:
        MissingFileError: no such file.
        DataError: a line is no text.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist.")
    lengths = Tally(1)
    domains, licences, sources = Counter[str](), Counter[str](), Counter[str]()
    words: set[str] = set()
    waiting: list[str] = []
    num_tokens = 0
    for row in JsonLines(path, path.stem).rows(None):
        if row.problem:
            raise DataError(f"{row.place}: {row.problem}.")
        text = text_from(row.columns, row.place, path.name)
        lengths.add(len(text.text.split()))
        words.update(map(str.lower, _WORD.findall(text.text)))
        domains[text.domain] += 1
        licences[text.licence] += 1
        sources[text.source] += 1
        waiting.append(text.text)
        if len(waiting) >= TEXTS_AT_ONCE:
            num_tokens += count_tokens(waiting) if count_tokens is not None else 0
            waiting.clear()
            if progress is not None:
                progress(lengths.count, None)
    num_tokens += count_tokens(waiting) if count_tokens is not None and waiting else 0
    rejected = Kinds()
    beside = path.parent / "rejected.jsonl"
    if path.name == "texts.jsonl" and beside.is_file():
        for row in JsonLines(beside, "rejected").rows(None):
            rejected.add(*(str(row.columns.get(key, "")) for key in ("reason", "id", "place")))
    return {
        "file": str(path),
        "num_texts": lengths.count,
        "num_words": round(lengths.total),
        "num_distinct_words": len(words),
        "words_per_text": lengths.summary(),
        "length_histogram_words": lengths.histogram(),
        "num_domains": len(domains),
        "top_domains": [{"domain": name, "num_texts": count} for name, count in domains.most_common(TOP_DOMAINS)],
        "licences": [{"licence": name, "num_texts": count} for name, count in licences.most_common()],
        "num_sources": len(sources),
        "tokens": None if count_tokens is None else {"tokenizer": tokenizer, "num_tokens": num_tokens},
        "rejected": {
            "num": rejected.count,
            "frac": rejected.count / max(1, rejected.count + lengths.count),
            "reasons": rejected.rows(),
        },
    }
