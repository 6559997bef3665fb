"""How well and how fast voices speak: what a recognizer reads back, and the time they take.

    python benchmarks/voices.py [--json] [--voices piper-joe flite:slt …] [--asr whisper-tiny.en]

Each voice speaks the same twenty sentences in one process with one thread; its model is loaded before. Without --voices
all that are ready here.

    cer, cer_highest                 character error rate, mean over the sentences and of the worst of them
    wrong_words_frac                 sentences that are not read back letter by letter
    cpu_seconds_per_second           processor time for a second of speech, its programs' too
    wall_seconds_per_second          by the clock, which means something on an idle machine alone
    characters_per_second            how fast it speaks
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

import numpy as np

from salad.assets import resolve
from salad.errors import AssetError
from salad.speech.audio import resample
from salad.speech.recognize import Recognizer
from salad.synthesize.quality import character_error_rate
from salad.synthesize.voices import load_voice
from salad.synthesize.voices.catalogue import catalogue

SENTENCES = """\
The quiet river runs past the old stone mill before it reaches the sea.
She opened the window and listened to the rain falling on the garden.
Scientists measured the temperature of the water every hour for a week.
My brother bought a second hand bicycle from a shop near the station.
The judge asked the witness to describe exactly what he had seen that night.
Fresh bread and warm soup were waiting on the kitchen table when we arrived.
Although the road was closed, the driver found another way to the airport.
Most birds build their nests in spring, when food is easy to find.
The museum will stay open until nine o'clock on Thursday evening.
A small group of students gathered outside the library to discuss the exam.
He carefully folded the letter and placed it inside the wooden drawer.
The company plans to hire fifty new engineers by the end of the year.
Doctors recommend drinking plenty of water during hot weather.
Children learn languages faster than adults because they are not afraid of mistakes.
The mountain path was steep, narrow and covered with loose stones.
Nobody could explain why the lights went out in the middle of the concert.
The farmer sold his vegetables at the market every Saturday morning.
An ancient bridge connects the two villages on either side of the valley.
Please remember to lock the door and switch off the heating before you leave.
The orchestra played a slow and beautiful piece by a young composer.
""".splitlines()


def measured(name: str, recognizer: Recognizer) -> dict[str, Any]:
    """One voice's row."""
    voice = load_voice(name)
    voice.speak("Good morning.")
    errors: list[float] = []
    speech_s = cpu_s = wall_s = 0.0
    for sentence in SENTENCES:
        began, busy = time.perf_counter(), _cpu_s()
        audio = voice.speak(sentence).audio
        wall_s, cpu_s = wall_s + time.perf_counter() - began, cpu_s + _cpu_s() - busy
        speech_s += len(audio) / voice.rate_hz
        heard = recognizer.transcribe(resample(audio, voice.rate_hz, 16_000), spell_numbers=True)
        errors.append(character_error_rate(sentence, heard))
    return {
        "variant": name,
        "cer": float(np.mean(errors)),
        "cer_highest": max(errors),
        "wrong_words_frac": sum(error > 0 for error in errors) / len(errors),
        "cpu_seconds_per_second": cpu_s / speech_s,
        "wall_seconds_per_second": wall_s / speech_s,
        "characters_per_second": sum(map(len, SENTENCES)) / speech_s,
        "seconds": speech_s,
        "n": len(SENTENCES),
    }


def _cpu_s() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def main() -> None:
    """Measure, and print a row a voice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ready = [entry.name for entry in catalogue() if entry.ready and ":VOICE" not in entry.name]
    parser.add_argument("--voices", nargs="+", default=ready, metavar="NAME")
    parser.add_argument("--asr", default="whisper-tiny.en")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    recognizer = Recognizer(resolve(given.asr), threads=1)
    rows = []
    for name in given.voices:
        try:
            rows.append(measured(name, recognizer))
        except AssetError as error:
            parser.error(str(error))
        if not given.json:
            row = rows[-1]
            print(
                f"{name:<24} cer {row['cer']:.3f} (worst {row['cer_highest']:.3f})  "
                f"cpu {row['cpu_seconds_per_second']:.3f}  wall {row['wall_seconds_per_second']:.3f}  "
                f"{row['characters_per_second']:.1f} characters/s",
                flush=True,
            )
    if given.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
