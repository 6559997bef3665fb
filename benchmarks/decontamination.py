"""How fast texts are compared with evaluation items, against sets of word tuples.

    python benchmarks/decontamination.py [--json] [--texts 20000] [--items 5000] [--rounds 3] [--seed 0]

Texts and items are made of WordNet glosses, a few in a row each; some texts hold a stretch of an item. The plain way
keeps every 13 words in a row of the items as a tuple in a set, and looks up every 13 of a text. Both take turns in one
process, after their indexes are made; both must find the same texts. One core; `salad select --jobs` has more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from side_by_side import show

from salad.assets import resolve
from salad.randomness import generator
from salad.select.contamination import EvaluationIndex
from salad.select.words import words_of
from salad.texts import wordnet

WORDS = 13


def material(num_texts: int, num_items: int, seed: int) -> tuple[list[str], list[str]]:
    """Texts and items of about 50 words; a hundredth of the texts hold a stretch of an item."""
    glosses = [text.text for text in wordnet.load(resolve("wordnet"))[0]]
    rng = generator(seed, "decontamination")
    rng.shuffle(glosses)
    half = len(glosses) // 2
    items = ["; ".join(glosses[i] for i in rng.integers(half, size=5)) for _ in range(num_items)]
    texts = ["; ".join(glosses[half + i] for i in rng.integers(half, size=5)) for _ in range(num_texts)]
    for place in range(0, num_texts, 100):
        words = items[int(rng.integers(num_items))].split()
        texts[place] += " " + " ".join(words[: WORDS + 5])
    return texts, items


def plain(items: list[str]) -> Callable[[list[str]], set[int]]:
    """Sets of tuples."""

    def runs(text: str) -> set[tuple[str, ...]]:
        words = words_of(text)
        return {tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)}

    known = set().union(*map(runs, items))
    return lambda texts: {number for number, text in enumerate(texts) if not known.isdisjoint(runs(text))}


def ours(items: list[str]) -> Callable[[list[str]], set[int]]:
    """An `EvaluationIndex`."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "items.jsonl"
        file.write_text("".join(json.dumps({"text": item}) + "\n" for item in items))
        index = EvaluationIndex([file], WORDS)
    return lambda texts: {overlap.text for overlap in index.overlaps(texts)}


def main() -> None:
    """Print a row for each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    for name, default in (("texts", 20_000), ("items", 5_000), ("rounds", 3), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    texts, items = material(options.texts, options.items, options.seed)
    variants = {"sets of tuples": plain(items), "salad": ours(items)}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    found: dict[str, set[int]] = {}
    for _ in range(options.rounds):
        for name, compare in variants.items():
            begin = time.perf_counter()
            found[name] = compare(texts)
            seconds[name].append(time.perf_counter() - begin)
    if found["salad"] != found["sets of tuples"]:
        raise SystemExit("the two don't find the same texts")
    rows: list[dict[str, Any]] = [
        {
            "variant": name,
            "texts_per_s": round(len(texts) / statistics.median(times)),
            "ratio_to_sets": statistics.median(a / b for a, b in zip(times, seconds["sets of tuples"], strict=True)),
            "num_found": len(found[name]),
            "num_texts": len(texts),
            "num_items": len(items),
        }
        for name, times in seconds.items()
    ]
    show(rows, options.json)


if __name__ == "__main__":
    main()
