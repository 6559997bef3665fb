"""The natural speech of a run: one corpus or several, made ready by the run or brought along, and what is held out.

Each entry of `data.human` is a corpus that salad fetches (debian-prompts), a folder of audio with a manifest, or a
prepared and aligned folder (`salad prepare`, `salad align`). The first two become human/NUMBER and aligned/NUMBER of
the run; the last is used where it lies, and keeps its encoded features for other runs.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from salad.errors import AlignmentError, DataError
from salad.files import read_json, write_json
from salad.interleave.utterances import SpeechCorpus
from salad.recipe import Recipe
from salad.run import Run
from salad.speech.corpora import debian_prompts, folder
from salad.speech.identity import shared_ids
from salad.speech.index import IndexedCuts
from salad.speech.prepared import CUTS_NAME, read_info

OVERLAP_WORDS = 5  # a held-out prompt shares no run of so many words with another prompt
SPLIT_NAME = "human_split.json"

Item = tuple[int, str]
"""An utterance: the number of its corpus in `data.human`, and its id."""


def corpora(recipe: Recipe) -> tuple[str, ...]:
    """The entries of `data.human`."""
    human = recipe.data.human
    return (human,) if isinstance(human, str) else human


def is_prepared(entry: str) -> bool:
    """Whether an entry is a prepared folder, to be used where it lies."""
    return (Path(entry) / CUTS_NAME).is_file()


def prepare_human(run: Run) -> list[Path]:
    """Prepare the corpora that were not brought along; all prepared folders, in the order of the recipe.

    Raises:
        AlignmentError: one that was brought along has no word timings.
    """
    found: list[Path] = []
    for number, entry in enumerate(corpora(run.recipe)):
        out = run.path("human", str(number))
        if is_prepared(entry):
            out = Path(entry)
            if not (IndexedCuts(out).num_words > 0).any():
                raise AlignmentError(f"data.human: no cut of {out} has word timings; run 'salad align {out}' first.")
        elif entry == "debian-prompts":
            debian_prompts.prepare(out)
        else:
            folder.prepare(Path(entry), out, jobs=run.recipe.threads)
        found.append(out)
    return found


def aligned_folders(run: Run) -> list[Path]:
    """Where the aligned folder of each corpus is, or will be."""
    return [
        Path(entry) if is_prepared(entry) else run.path("aligned", str(number))
        for number, entry in enumerate(corpora(run.recipe))
    ]


def hold_out(run: Run) -> None:
    """Choose the utterances that no training sees, and write them down.

    Synthetic speech among several corpora is trained on whole: what is held out is to say how people are heard.

    Raises:
        DataError: too few utterances are fit, or two corpora hold the same id.
    """
    folders = aligned_folders(run)
    refuse_shared_ids(dict(zip(corpora(run.recipe), map(IndexedCuts, folders), strict=True)))
    natural = {number for number, there in enumerate(folders) if "voices" not in read_info(there)}

    def texts() -> Iterator[tuple[Item, str]]:
        for number, there in enumerate(folders):
            for cut in IndexedCuts(there):
                if cut.words:  # others are never trained on
                    yield (number, cut.id), cut.text

    settings = run.recipe.data
    least = run.recipe.sequence.min_words
    chosen = choose_held_out(texts, settings.heldout_human, least, run.recipe.seed, natural or range(len(folders)))
    by_corpus = [sorted(name for n, name in chosen if n == number) for number in range(len(folders))]
    write_json(run.path(SPLIT_NAME), {"heldout": by_corpus})


def refuse_shared_ids(cuts: Mapping[str, IndexedCuts]) -> None:
    """Make sure that an id names one utterance, by the entries of `data.human`: before hours are spent on them.

    Raises:
        DataError: two corpora hold the same id.
    """
    entries = list(cuts)
    for first, second, found in shared_ids(own.hashes(np.arange(len(own))) for own in cuts.values()):
        one, other = entries[first], entries[second]
        raise DataError(
            f"data.human: {len(found)} utterances stand in both {one} and {other}, the first is "
            f"{cuts[one][int(found[0])].id!r}; prepare one of them with other ids."
        )


def training_speech(run: Run) -> list[SpeechCorpus]:
    """The corpora without what is held out."""
    pairs = zip(_aligned(run), _held_out(run), strict=True)
    return [corpus.without(ids) for corpus, ids in pairs]


def held_out_speech(run: Run) -> list[SpeechCorpus]:
    """What is held out of each corpus."""
    pairs = zip(_aligned(run), _held_out(run), strict=True)
    return [corpus.only(ids) for corpus, ids in pairs]


def held_out_corpora(recipe: Recipe, folder: Path) -> tuple[str, ...]:
    """The entries of `data.human` that something of a run in `folder` is held out of."""
    ids = read_json(folder / SPLIT_NAME)["heldout"]
    return tuple(entry for entry, own in zip(corpora(recipe), ids, strict=True) if own)


def choose_held_out(
    texts: Callable[[], Iterable[tuple[Item, str]]],
    wanted: int,
    min_words: int,
    seed: int,
    corpora: Container[int] | None = None,
) -> list[Item]:
    """Utterances to hold out: long enough, and sharing no run of `OVERLAP_WORDS` words with any other utterance.

    They are of the corpora with these numbers, by default of all, and are tried in an order that the seed and their
    ids make. `texts` is read several times; memory holds the candidates' words alone, however many texts there are.

    Raises:
        DataError: too few such utterances.
    """
    num_candidates = 8 * wanted
    while True:
        those = texts() if corpora is None else ((item, text) for item, text in texts() if item[0] in corpora)
        long_enough = ((item, text) for item, text in those if len(text.split()) >= min_words and _word_runs(text))
        candidates = heapq.nsmallest(num_candidates, long_enough, key=lambda pair: _rank(seed, pair[0]))
        runs = {item: _word_runs(text) for item, text in candidates}
        own = {words for found in runs.values() for words in found}
        seen = Counter(words for _, text in texts() for words in _word_runs(text) if words in own)
        fit = [item for item, found in runs.items() if all(seen[words] == 1 for words in found)]
        if len(fit) >= wanted:
            return sorted(fit[:wanted])
        if len(candidates) < num_candidates:
            raise DataError(
                f"{len(fit)} utterances share no {OVERLAP_WORDS} words in a row with another; data.heldout_human="
                f"{wanted} asks for more. Lower it, or give more speech."
            )
        num_candidates *= 4


def _rank(seed: int, item: Item) -> bytes:
    return hashlib.blake2b(f"{seed}:{item[0]}:{item[1]}".encode(), digest_size=8).digest()


def _word_runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[\w']+", text.lower())
    return {tuple(words[i : i + OVERLAP_WORDS]) for i in range(len(words) - OVERLAP_WORDS + 1)}


def _aligned(run: Run) -> list[SpeechCorpus]:
    return [SpeechCorpus(there, run.recipe.model.encoder) for there in aligned_folders(run)]


def _held_out(run: Run) -> list[list[str]]:
    ids: list[list[str]] = read_json(run.path(SPLIT_NAME))["heldout"]
    return ids
