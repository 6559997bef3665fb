"""A small prepared, aligned and encoded folder: noise that is said to be words, in chapters, heard by `Loudness`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

import tiny
from salad.interleave.utterances import SpeechCorpus
from salad.model.encode import encode_cuts
from salad.speech.audio import save_flac
from salad.speech.prepared import with_words, write_prepared
from tiny_speech import Loudness, noise

WORD_S = 0.24


def spoken_cut(folder: Path, name: str, num_words: int, document: str | None = None, seed: int = 0) -> MonoCut:
    """A cut of `num_words` words of `WORD_S` each, aligned."""
    rng = np.random.default_rng([seed, num_words, *name.encode()])
    words = [tiny.WORDS[i] for i in rng.integers(len(tiny.WORDS), size=num_words)]
    seconds = round(WORD_S * num_words + 0.12, 2)
    audio = folder / "audio" / f"{name}-{num_words}.flac"
    save_flac(audio, noise(seconds, seed + num_words).astype(np.float32), 16_000)
    recording = Recording(name, [AudioSource("file", [0], str(audio))], 16_000, round(seconds * 16_000), seconds)
    said = SupervisionSegment(name, name, 0.0, seconds, text=" ".join(words))
    custom = {"document": document} if document is not None else None
    cut = MonoCut(name, 0.0, seconds, 0, [said], recording=recording, custom=custom)
    return with_words(cut, ((w, WORD_S * i + 0.05, WORD_S * (i + 1) + 0.05, 0.9) for i, w in enumerate(words)))


def chapters(folder: Path, num: int, prefix: str = "u", per_chapter: int = 5) -> list[MonoCut]:
    """`num` cuts of 6 to 14 words, `per_chapter` to a chapter, in a prepared and encoded folder."""
    cuts = [spoken_cut(folder, f"{prefix}{i}", 6 + i * 5 % 9, f"chapter {i // per_chapter}") for i in range(num)]
    write_prepared(folder, cuts, [], {})
    encode_cuts(folder, Loudness())
    return cuts


def corpus(folder: Path, num: int, prefix: str = "u") -> SpeechCorpus:
    """The corpus of `chapters`."""
    chapters(folder, num, prefix)
    return SpeechCorpus(folder, Loudness.name)
