"""Speaking with worker processes, against the voice's bare model in one process.

    python benchmarks/synthesis.py [--json] [--voice piper-joe] [--texts 24] [--rounds 3] [--processes 1 2]

Bare is the library's own call, text to samples, in one process with one thread, pinned to one core. Ours takes written
texts and leaves FLAC files with word times: numbers in words, the model, resampling, writing, on the disk. Variants are
run in turn in one run, and a clock runs while workers are in full swing: it starts once every worker has spoken and
stops while all still speak. Only ratios mean anything, and `efficiency` only on a machine with as many idle cores.

    seconds_of_speech_per_second   median over the rounds
    ratio_to_bare                  this rate over that of the bare model, both for the time of one process
    efficiency                     rate / (processes × our rate with one)
    bytes_equal                    the files, and for bare its samples made a file, are those of our one process
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from side_by_side import Result, Round, run_variants, show

from salad.recipe import VoiceSettings
from salad.speech.audio import resample, save_flac
from salad.synthesize.augment import softer
from salad.synthesize.cores import take_core
from salad.synthesize.pool import Job
from salad.synthesize.voices import load_voice
from salad.synthesize.workers import RATE_HZ, Failed, audio_file, speak_all
from salad.texts.normalize import spoken_form

SUBJECTS = (
    "The river|A young teacher|The old bridge|Professor Lee|The committee|Her brother|This engine|The storm"
).split("|")
VERBS = "crossed|measured|weighed|rebuilt|counted|described|carried|studied".split("|")
OBJECTS = (
    "75 kg of iron in 1987|the 3rd floor of the library|about 2,400 pages of letters|the coast near St. Louis|"
    "5.5 km of cable, which nobody had expected|a box, a lamp and 12 chairs|the numbers again, because they were wrong"
).split("|")


def texts_of(index: int, num: int) -> list[str]:
    """The texts of a round: sentences of 8 to 20 words, written with numbers and units, no two the same."""
    rng = np.random.default_rng([11, index + 1])
    found = []
    for number in range(1, num + 1):
        who, did, what, other, too = (rng.choice(words) for words in (SUBJECTS, VERBS, OBJECTS, SUBJECTS, VERBS))
        found.append(f"{who} {did} {what}, and on day {number} {other.lower()} {too} it.")
    return found


def bare(voice: str, num: int) -> Round:
    """The voice's own library: for Piper its synthesize(), for others the voice without our pool."""
    take_core()
    speaker = load_voice(voice)
    piper: Any = getattr(speaker, "_piper", None)

    def speak(text: str) -> np.ndarray:
        if piper is None:
            return speaker.speak(text).audio
        from piper import SynthesisConfig

        plain = SynthesisConfig(noise_scale=0.0, noise_w_scale=0.0, normalize_audio=False)
        return np.concatenate([chunk.audio_float_array for chunk in piper.synthesize(text, plain)])

    def one_round(index: int) -> dict[str, float]:
        said = [spoken_form(text) for text in texts_of(index, num)]
        started = time.perf_counter()
        seconds_of_speech = sum(len(speak(text)) for text in said) / speaker.rate_hz
        return {"speech_s": seconds_of_speech, "seconds": time.perf_counter() - started}

    return one_round


def pool(voice: str, num: int, processes: int) -> Round:
    """Our workers, in full swing: the first and the last utterances of each worker lie outside the clock."""

    def one_round(index: int) -> dict[str, float]:
        edge = 2 * processes
        with tempfile.TemporaryDirectory() as folder:
            seconds_of_speech = started = ended = 0.0
            results = spoken(texts_of(index, num + 2 * edge), voice, Path(folder), processes)
            for done, (_, result) in enumerate(results, start=1):
                assert not isinstance(result, Failed), result
                if edge < done <= edge + num:
                    seconds_of_speech += result / RATE_HZ
                    ended = time.perf_counter()
                elif done == edge:
                    started = time.perf_counter()
        return {"speech_s": seconds_of_speech, "seconds": ended - started}

    return one_round


def spoken(texts: Sequence[str], voice: str, folder: Path, processes: int) -> Iterator[tuple[str, int | Failed]]:
    """What `synthesize` does between reading and writing manifests."""
    said = [SimpleNamespace(id=str(number), text=text) for number, text in enumerate(texts)]
    job = Job(said, [VoiceSettings(name=voice)], 0, None)
    yield from speak_all(job.missing(folder), folder, processes)


def hashes(voice: str, num: int, processes: int) -> str:
    """One hash of all files that so many processes make of some texts; of the bare voice's samples with 0."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if processes:
            list(spoken(texts_of(-1, num), voice, folder, processes))
        else:
            speaker = load_voice(voice)
            job = Job([], [VoiceSettings(name=voice)], 0, None)
            for text in texts_of(-1, num):
                file, utterance = job.planned(SimpleNamespace(id="x", text=text))  # type: ignore[misc]
                audio = softer(resample(speaker.speak(utterance.text).audio, speaker.rate_hz, RATE_HZ))
                save_flac(audio_file(folder, file), audio, RATE_HZ)
        files = sorted(folder.glob("*.flac"))
        return hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files)).hexdigest()


def rows_of(results: dict[str, Result], counts: dict[str, int], same: dict[str, bool]) -> list[dict[str, Any]]:
    """A row for each variant; the rate of each round is the round's own."""
    rates = {
        name: float(np.median([entry["speech_s"] / entry["seconds"] for entry in result.rounds]))
        for name, result in results.items()
    }
    one = next((rate for name, rate in rates.items() if name.startswith("salad") and counts[name] == 1), None)
    return [
        {
            "variant": name,
            "processes": counts[name],
            "seconds_of_speech_per_second": round(rate, 3),
            "ratio_to_bare": round(rate / counts[name] / rates["bare model"], 4),
            "efficiency": round(rate / (counts[name] * one), 4) if one and name.startswith("salad") else None,
            "bytes_equal": same[name],
            "seconds": round(results[name].median(), 3),
            "peak_mib": round(results[name].peak_mib, 1),
        }
        for name, rate in rates.items()
    ]


def main() -> None:
    """Run the variants and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--voice", default="piper-joe")
    parser.add_argument("--texts", type=int, default=24, help="utterances on the clock, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    voice, num = arguments.voice, arguments.texts
    counts = {"bare model": 1} | {f"salad, {count} processes": count for count in arguments.processes}
    variants = {
        name: partial(bare, voice, num) if name == "bare model" else partial(pool, voice, num, count)
        for name, count in counts.items()
    }
    results = run_variants(variants, arguments.rounds)
    reference = hashes(voice, 6, 1)
    same = {name: hashes(voice, 6, 0 if name == "bare model" else count) == reference for name, count in counts.items()}
    rows = rows_of(results, counts, same)
    notes = [f"{voice}, {num} utterances a round, {arguments.rounds} rounds, {multiprocessing.cpu_count()} cores"]
    show(rows, arguments.json, notes)


if __name__ == "__main__":
    main()
