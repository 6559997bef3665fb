"""How far the aligners' word boundaries are from a reference, how sure they are of right and wrong text, how fast.

    python benchmarks/alignment.py [--data ../shared/data] [--json]

References: the Montreal Forced Aligner's alignments (LJ Speech excerpt, MFA's own samples), PocketSphinx's own example
alignments (LibriVox excerpt: no independent reference for PocketSphinx), and the durations that a Piper voice gave its
phonemes (WordNet definitions, spoken here). A boundary counts where transcript and reference have the same word.
Whisper's lag was chosen on the LJ Speech excerpt; PocketSphinx's beam was widened after one of MFA's samples had lost
its path, and changes nothing on LJ Speech.

Wrong text: every clip with the transcript, of another one of the same speech, that is nearest in its number of words.
An aligner that refuses it counts as right to.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein
from side_by_side import Round, row, run_variants, show

from salad.assets import resolve
from salad.errors import AlignmentError, SaladError
from salad.randomness import generator
from salad.speech.align import load_aligner
from salad.speech.aligner import RATE_HZ, Aligner, PlacedWord, in_words
from salad.speech.audio import Samples, load_audio, resample
from salad.speech.windows import frame_loudness, plain
from salad.synthesize.voices import load_voice
from salad.texts import wordnet

SETS = ("ljspeech_excerpt", "mfa_samples", "librivox_excerpt")
SPOKEN = "piper-joe"
UNALIGNED = "speechocean762_adults_train"
ALIGNERS = ("whisper", "pocketsphinx")
PEER = "whisper"
NUM_SPOKEN = 40
NUM_UNALIGNED = 100
LIMITS = {"whisper": (0.15, 0.3), "pocketsphinx": (0.05, 0.1)}


class Clip(NamedTuple):
    """Speech at 16 kHz, its transcript, and when each word of a reference is spoken: (word, start_s, end_s)."""

    id: str
    audio: Samples
    words: list[str]
    reference: list[tuple[str, float, float]]

    @property
    def duration_s(self) -> float:
        """How long it is."""
        return len(self.audio) / RATE_HZ


def read_clips(folder: Path) -> list[Clip]:
    """The clips of a manifest, with their alignments where there are any."""
    timed: dict[str, list[tuple[str, float, float]]] = {}
    if (folder / "alignments.jsonl").is_file():
        for line in (folder / "alignments.jsonl").read_text().splitlines():
            entry = json.loads(line)
            timed[entry["id"]] = [(word, start_s, end_s) for word, start_s, end_s in entry["words"] if word]
    rows = map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
    return [
        Clip(r["id"], load_audio(folder / r["audio"], RATE_HZ)[0], r["text"].split(), timed.get(r["id"], []))
        for r in rows
    ]


def spoken_clips(num: int, seed: int) -> list[Clip]:
    """Definitions spoken by the voice, whose own times are the reference; those that it does not time are counted."""
    texts, _ = wordnet.load(resolve("wordnet"))
    texts = [text for text in texts if 4 <= len(text.text.split()) <= 25]
    voice = load_voice(SPOKEN)
    clips = []
    for index in generator(seed, "alignment benchmark").permutation(len(texts))[:num]:
        words = texts[index].text.split()
        audio, times = voice.speak(texts[index].text)
        reference = [(word, *time_) for word, time_ in zip(words, times, strict=True)] if times is not None else []
        clips.append(Clip(texts[index].id, resample(audio, voice.rate_hz, RATE_HZ), words, reference))
    return clips


def errors_s(placed: Sequence[PlacedWord], clip: Clip) -> list[tuple[float, float]]:
    """(start, end) of each word that transcript and reference share, less the reference's."""
    own, other = ([plain(word) for word in words] for words in (clip.words, [word for word, *_ in clip.reference]))
    errors = []
    for step in Levenshtein.opcodes(own, other):
        if step.tag == "equal":
            for i, j in zip(range(step.src_start, step.src_end), range(step.dest_start, step.dest_end), strict=True):
                if in_words(clip.words[i]):
                    _, start_s, end_s = clip.reference[j]
                    errors.append((placed[i].start_s - start_s, placed[i].end_s - end_s))
    return errors


def boundaries(aligner: Aligner, clips: Sequence[Clip]) -> dict[str, Any]:
    """The boundary errors over a set, in milliseconds; clips that were refused are counted."""
    errors: list[tuple[float, float]] = []
    refused = words = 0
    for clip in clips:
        try:
            errors += errors_s(aligner.align(clip.audio, clip.words), clip)
            words += len(clip.words)
        except AlignmentError:
            refused += 1
    sizes_ms = 1000 * np.abs(errors).ravel()
    return {
        "clips": len(clips),
        "refused": refused,
        "words_placed_frac": words / sum(len(clip.words) for clip in clips),
        "boundaries": len(sizes_ms),
        "median_ms": round(float(np.median(sizes_ms)), 1),
        "p90_ms": round(float(np.percentile(sizes_ms, 90)), 1),
        "within_50_ms": round(float(np.mean(sizes_ms <= 50)), 3),
        "within_100_ms": round(float(np.mean(sizes_ms <= 100)), 3),
        "start_bias_ms": round(1000 * float(np.median([start for start, _ in errors])), 1),
        "end_bias_ms": round(1000 * float(np.median([end for _, end in errors])), 1),
    }


def confidences(aligner: Aligner, clips: Sequence[Clip]) -> dict[str, Any]:
    """The mean confidence of clips with their own text and with another's; a refusal is a confidence of 0."""
    right = [_confidence(aligner, clip, clip.words) for clip in clips]
    wrong = [_confidence(aligner, clip, _other_words(clip, clips)) for clip in clips]
    limits = LIMITS[aligner.name.partition(":")[0]]
    return {
        "clips": len(clips),
        "right_p5": round(float(np.quantile(right, 0.05)), 3),
        "right_median": round(float(np.median(right)), 3),
        "wrong_median": round(float(np.median(wrong)), 3),
        "wrong_p95": round(float(np.quantile(wrong, 0.95)), 3),
        "right_over_wrong": round(float(np.mean([r > w for r, w in itertools.product(right, wrong)])), 4),
        **{f"right_under_{x}": round(float(np.mean(np.array(right) < x)), 3) for x in limits},
        **{f"wrong_under_{x}": round(float(np.mean(np.array(wrong) < x)), 3) for x in limits},
    }


def _other_words(clip: Clip, clips: Sequence[Clip]) -> list[str]:
    others = [other.words for other in clips if other.words != clip.words]
    return min(others, key=lambda words: abs(len(words) - len(clip.words)))


def _confidence(aligner: Aligner, clip: Clip, words: list[str]) -> float:
    try:
        sure = [word.confidence for word in aligner.align(clip.audio, words) if word.confidence is not None]
    except AlignmentError:
        return 0.0
    return float(np.mean(sure))


def against_energy(clips: Sequence[Clip]) -> dict[str, Any]:
    """The voice's own times against the sound: from every edge of a silence of 100 ms to the nearest boundary."""
    gaps_ms = []
    for clip in clips:
        times = [t for _, *word in clip.reference for t in word]
        quiet = np.concatenate([[1], frame_loudness(clip.audio, RATE_HZ) < 0.002, [1]]).astype(int)
        turns = np.flatnonzero(np.diff(quiet))  # even: sound begins
        for end, begin in zip(turns[1:-1:2], turns[2::2], strict=True):
            if begin - end >= 5:
                gaps_ms += [1000 * min(abs(edge * 0.02 - t) for t in times) for edge in (end, begin)]
        gaps_ms += [1000 * abs(turns[0] * 0.02 - times[0]), 1000 * abs(turns[-1] * 0.02 - times[-1])]
    return {
        "edges": len(gaps_ms),
        "median_ms": round(float(np.median(gaps_ms)), 1),
        "p90_ms": round(float(np.percentile(gaps_ms, 90)), 1),
    }


def speed(aligner: str, folder: Path, threads: int) -> Round:
    """Ten clips of the LJ Speech excerpt a round, in the variant's own process."""
    loaded, clips = load_aligner(aligner, threads), read_clips(folder)

    def one_round(index: int) -> dict[str, float]:
        part = [clips[(10 * index + i) % len(clips)] for i in range(10)]
        began, began_cpu = time.perf_counter(), time.process_time()
        for clip in part:
            loaded.align(clip.audio, clip.words)
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
        speech_s = sum(clip.duration_s for clip in part)
        return {"seconds": seconds, "cpu_s": cpu_s, "times_real_time": seconds / speech_s, "cpu_frac": cpu_s / speech_s}

    return one_round


def measure(name: str, sets: dict[str, list[Clip]], unaligned: list[Clip], threads: int) -> dict[str, Any]:
    """Everything but speed of one aligner."""
    aligner = load_aligner(name, threads)
    errors = {kind: boundaries(aligner, [clip for clip in clips if clip.reference]) for kind, clips in sets.items()}
    sure = {kind: confidences(aligner, clips) for kind, clips in {SETS[0]: sets[SETS[0]], UNALIGNED: unaligned}.items()}
    return {"boundaries": errors, "confidence": sure}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="a list of objects instead of tables")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    speech = given.data / "speech"
    if not all((speech / name / "manifest.jsonl").is_file() for name in (*SETS, UNALIGNED)):
        sys.exit(f"{speech} does not hold {', '.join((*SETS, UNALIGNED))}; name the folder that does: --data FOLDER.")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sets = {name: read_clips(speech / name) for name in SETS}
    sets[SPOKEN] = spoken_clips(NUM_SPOKEN, given.seed)
    unaligned = read_clips(speech / UNALIGNED)[:: max(1, 469 // NUM_UNALIGNED)][:NUM_UNALIGNED]
    found: dict[str, dict[str, Any]] = {}
    for name in ALIGNERS:
        try:
            found[name] = measure(name, sets, unaligned, given.threads)
        except SaladError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    results = run_variants(
        {name: partial(speed, name, speech / SETS[0], given.threads) for name in found}, given.rounds, given.threads
    )
    rows = [
        row(name, result, results[PEER], PEER)
        | {
            "times_real_time": round(result.median("times_real_time"), 4),
            "cpu_frac": round(result.median("cpu_frac"), 4),
            **found[name],
        }
        for name, result in results.items()
    ]
    voice = {
        "timed_frac": float(np.mean([bool(clip.reference) for clip in sets[SPOKEN]])),
        **against_energy([clip for clip in sets[SPOKEN] if clip.reference]),
    }
    if given.json:
        return show([*rows, {"variant": f"{SPOKEN} itself", "ratio": None, "peer": "its loudness", **voice}], True)
    show([{key: value for key, value in entry.items() if not isinstance(value, dict)} for entry in rows], False)
    for table in ("boundaries", "confidence"):
        print()
        show([{"aligner": r["variant"], "set": k, **v} for r in rows for k, v in r[table].items()], False)
    print(f"\n{SPOKEN}'s own times against its loudness: {voice}")


if __name__ == "__main__":
    main()
