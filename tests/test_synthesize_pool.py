"""A pool of voices in worker processes: same bytes in any company, every utterance once, all else with a reason."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from core_job import the_core
from salad.card.bill import _voices
from salad.cli.synthesis import _settings
from salad.errors import DataError, RecipeError
from salad.recipe import AugmentSettings, VoiceSettings
from salad.speech.audio import load_cut
from salad.speech.prepared import follows, read_cuts, read_info, text_of
from salad.synthesize.cores import take_core
from salad.synthesize.pool import synthesize
from salad.synthesize.split import MOST_CHARACTERS, Part, split, split_texts
from salad.workers import Died, answer_all
from test_synthesize import Said, fake_espeak, wait_until

POOL = [
    VoiceSettings(name="espeak-ng", weight=2.0, speed=(0.9, 1.1), pitch_semitones=(-2, 2)),
    VoiceSettings(name="espeak-ng:en-gb"),
]
SOUND = AugmentSettings(noise_frac=0.5, reverb_frac=0.3, telephone_frac=0.2, codec_frac=0.3)
# Speaks a beep for each word; writes down what it was asked, and dies or hangs where the text says so.
BEEPS = """
    if "--version" in sys.argv: print("fake 1"); sys.exit()
    import math, wave
    text = sys.stdin.read()
    with open(os.environ["SAID"], "a") as said: said.write(text.strip() + "\\n")
    if "segfault" in text: os.kill(os.getppid(), signal.SIGSEGV); time.sleep(5)
    if "once" in text and not os.path.exists(os.environ["SAID"] + ".once"):
        open(os.environ["SAID"] + ".once", "w"); os.kill(os.getppid(), signal.SIGKILL); time.sleep(5)
    if "slow" in text: time.sleep(0.15)
    n = 2205 * max(1, len(text.split()))
    pcm = b"".join(int(8000 * math.sin(i / 9)).to_bytes(2, "little", signed=True) for i in range(n))
    with wave.open(sys.stdout.buffer, "wb") as out:
        out.setparams((1, 2, 22050, n, "NONE", ""))
        out.writeframes(pcm)
"""


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in espeak-ng's place; the file in which it notes what it was asked to say."""
    home = tmp_path / "bin"
    home.mkdir()
    fake_espeak(home, BEEPS)
    monkeypatch.setenv("PATH", f"{home}:{os.environ['PATH']}")
    monkeypatch.setenv("SAID", str(tmp_path / "said.txt"))
    return tmp_path / "said.txt"


def audio_of(folder: Path) -> dict[str, bytes]:
    return {cut.id: Path(cut.recording.sources[0].source).read_bytes() for cut in read_cuts(folder)}


def test_the_same_bytes_in_any_order_company_and_number_of_processes(said: Path, tmp_path: Path) -> None:
    texts = [Said(f"t{i}", f"this is number {i} of some") for i in range(12)]
    report = synthesize(texts, POOL, tmp_path / "one", 1, seed=5, augment=SOUND)
    synthesize(texts[::-1][:7], POOL[::-1], tmp_path / "two", 2, seed=5, augment=SOUND)
    one, two = audio_of(tmp_path / "one"), audio_of(tmp_path / "two")
    assert list(one) == [text.id for text in texts]
    assert two == {name: one[name] for name in two}
    assert len(two) == 7
    synthesize(texts, POOL, tmp_path / "other", 1, seed=6, augment=SOUND)
    assert audio_of(tmp_path / "other") != one

    cuts = read_cuts(tmp_path / "one")
    assert {cut.supervisions[0].speaker for cut in cuts} == {
        voice["name"] for voice in read_info(tmp_path / "one")["voices"]
    }
    varied = [cut.custom for cut in cuts if cut.custom and "speed" in cut.custom]
    assert varied
    assert all(0.9 <= custom["speed"] <= 1.1 and -2 <= custom["pitch_semitones"] <= 2 for custom in varied)
    assert any("augmentation" in (cut.custom or {}) for cut in cuts)
    assert cuts[0].custom["written"] == "this is number 0 of some"
    for cut in cuts:
        audio = load_cut(cut, 16_000)
        assert len(audio) == cut.recording.num_samples
        assert np.abs(audio).max() < 1.0

    info = read_info(tmp_path / "one")
    shares = {voice["asked"]: voice for voice in info["voices"]}
    assert sum(voice["num_texts"] for voice in shares.values()) == 12
    assert sum(voice["share"] for voice in shares.values()) == pytest.approx(1, abs=1e-3)
    assert (info["seed"], info["augment"]["noise_frac"]) == (5, 0.5)
    assert "voice" not in info
    assert report.num_spoken == 12
    assert report.speech_s == pytest.approx(sum(cut.duration for cut in cuts), abs=1e-3)
    assert report.rate is not None


def test_all_that_cannot_be_read_aloud_is_listed_and_the_rest_goes_on(said: Path, tmp_path: Path) -> None:
    texts = [
        Said("empty", "  "),
        Said("script", "日本語"),
        Said("emoji", "so 😀"),
        Said("control", "a \x07 bell"),
        Said("markup", '<speak>Hi <break time="9s"/></speak>'),
        Said("long", "word " * 10_000),
        Said("marks", "... !!! --"),
        Said("good", "Dr. Lee weighs 75 kg &amp; smiles"),
    ]
    report = synthesize(texts, "espeak-ng", tmp_path / "out", 1)
    (cut,) = read_cuts(tmp_path / "out")
    assert text_of(cut) == "Doctor Lee weighs seventy-five kilograms and smiles"
    assert cut.custom["written"] == texts[-1].text
    assert said.read_text().splitlines() == [text_of(cut)]
    rejected = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rejected] == [text.id for text in texts[:-1]]
    assert Counter(row["reason"] for row in report.reasons()) == Counter(
        ["no words", "no spoken form", "markup", "too long"]
    )
    assert {row["reason"]: row["count"] for row in report.reasons()}["no spoken form"] == 3
    nothing = synthesize(texts[:3], "espeak-ng", tmp_path / "none", 1)
    assert (nothing.num_spoken, nothing.rate, read_cuts(tmp_path / "none")) == (0, None, [])


def test_a_crash_is_tried_again_and_only_then_remembered(said: Path, tmp_path: Path) -> None:
    texts = [Said("a", "fine"), Said("b", "segfault here"), Said("c", "killed once"), Said("d", "fine too")]
    synthesize(texts, "espeak-ng", tmp_path / "out", 1)
    assert [cut.id for cut in read_cuts(tmp_path / "out")] == ["a", "c", "d"]  # c was killed from outside: once
    (rejected,) = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert rejected["id"] == "b"
    assert "ended twice" in rejected["reason"]
    assert Counter(said.read_text().splitlines())["segfault here"] == 2
    synthesize(texts, "espeak-ng", tmp_path / "out", 1)
    assert Counter(said.read_text().splitlines()) == {"fine": 1, "segfault here": 2, "killed once": 2, "fine too": 1}


@pytest.mark.kill
@pytest.mark.timeout(600)
def test_after_sigkill_every_utterance_is_there_once_with_the_same_bytes(said: Path, tmp_path: Path) -> None:
    texts = [Said(f"t{i}", f"slow text {'x' * i} goes on") for i in range(24)]
    synthesize(texts, POOL, tmp_path / "straight", 2, seed=1, augment=SOUND)
    said.unlink()
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            from pathlib import Path
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            from test_synthesize_pool import POOL, SOUND, Said, synthesize
            if __name__ == "__main__":
                texts = [Said(f"t{{i}}", f"slow text {{'x' * i}} goes on") for i in range(24)]
                synthesize(texts, POOL, Path({str(tmp_path / "killed")!r}), 2, seed=1, augment=SOUND)
            """
        )
    )
    for _ in range(2):
        process = subprocess.Popen([sys.executable, str(script)])
        before = said.read_text().count("\n") if said.exists() else 0
        wait_until(lambda so_far=before: said.exists() and said.read_text().count("\n") >= so_far + 6, 200)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert not (tmp_path / "killed/cuts.jsonl.gz").exists()
    assert subprocess.run([sys.executable, str(script)]).returncode == 0
    assert audio_of(tmp_path / "killed") == audio_of(tmp_path / "straight")
    assert not list((tmp_path / "killed/audio").glob(".tmp-*"))
    # nothing that was finished was spoken again: only what was in hand when it was killed, twice by two workers
    assert sum(Counter(said.read_text().splitlines()).values()) <= 24 + 4


def test_a_long_text_becomes_parts_that_follow_each_other(said: Path, tmp_path: Path) -> None:
    sentence = "Dr. Smith of St. Louis said that the U.S. Senate, e.g. in 1987, met at 3 p.m. every day."
    long, short = Said("doc", " ".join([sentence] * 12)), Said("short", "A short one.")
    parts = list(split_texts([long, short]))
    assert parts[-1] is short
    assert " ".join(part.text for part in parts[:-1]) == long.text
    assert all(isinstance(part, Part) and part.text.endswith("every day.") for part in parts[:-1])
    assert [part.id for part in parts[:-1]] == [f"doc#{i}" for i in range(1, len(parts))]
    synthesize(parts, "espeak-ng", tmp_path / "out", 1)
    cuts = read_cuts(tmp_path / "out")
    assert {cut.custom.get("part_of") for cut in cuts[:-1]} == {"doc"}
    assert all(follows(one.custom, other.custom) for one, other in pairwise(cuts[:-1]))
    assert not follows(cuts[-2].custom, cuts[-1].custom)


@pytest.mark.parametrize(
    "text",
    [
        "word " * 3000,
        "x" * 5000,
        "One, two, three; " * 100,
        "First.\n\nSecond paragraph here.\n\n* * *\n\n" * 30,
        "1234567890 " * 80,
    ],
)
def test_parts_hold_every_word_and_none_is_too_long(text: str) -> None:
    parts = split(text)
    assert " ".join(parts).split() == text.split()
    assert len(parts) > 1 or " " not in text
    for part in parts:
        assert len(part) <= MOST_CHARACTERS or " " not in part
        assert any(map(str.isalnum, part))


def test_what_makes_no_sense_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 processes"):
        synthesize([], "espeak-ng", tmp_path, 0)
    with pytest.raises(RecipeError, match="stands twice"):
        synthesize([], [POOL[0], POOL[0]], tmp_path, 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes can't be pinned on this system")
def test_workers_have_a_core_each_as_long_as_there_are_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where cores are marked as taken; no other run's marks count
    allowed = os.sched_getaffinity(0)
    found = {}
    for task, answer in answer_all(range(3 * len(allowed)), the_core, len(allowed)):
        assert not isinstance(answer, Died)
        found[task] = tuple(answer)
    assert all(len(cores) == 1 and cores[0] in allowed for cores in found.values())
    if len(allowed) > 1:
        os.sched_setaffinity(0, {min(allowed)})
        try:  # one core is allowed: nothing to choose, and nothing breaks
            assert take_core() is None
            assert os.sched_getaffinity(0) == {min(allowed)}
        finally:
            os.sched_setaffinity(0, allowed)
    assert os.sched_getaffinity(0) == allowed


def test_a_pools_voices_stand_in_the_bill() -> None:
    class OneVoice:
        voices = (VoiceSettings(name="piper-joe"),)

    row = {"asked": "piper-joe", "fingerprint": "f", "weight": 1.0}
    source = {"voices": [{"name": "joe", "num_texts": 3, **row}, {"name": "never", "num_texts": 0, **row}]}
    (voice,) = _voices(source, OneVoice())
    assert voice["name"] == "joe"
    assert voice["licence"]


def test_the_verb_speaks_a_pool_and_says_what_came_of_it(said: Path, tmp_path: Path) -> None:
    rows = [{"id": f"t{i}", "text": f"text {'y' * i}"} for i in range(8)] + [{"id": "none", "text": ""}]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def salad(*options: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "salad",
            "synthesize",
            str(tmp_path / "texts.jsonl"),
            "--out",
            str(tmp_path / "o"),
        ]
        return subprocess.run([*command, "--jobs", "1", *options], capture_output=True, text=True)

    pool = ["--voice", "espeak-ng:3", "--voice", "espeak-ng:en-gb", "--speed", "0.9:1.1", "--augment", "noise_frac=1"]
    done = salad(*pool, "--augment", "noise_snr_db=5:20", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["num_texts"], told["num_spoken"], told["num_rejected"]) == (9, 8, 1)
    assert told["rejected"][0]["reason"] == "no words"
    assert set(told["voices"]) == {"espeak-ng", "espeak-ng:en-gb"}
    assert read_info(tmp_path / "o")["augment"]["noise_snr_db"] == [5, 20]
    again = salad(*pool, "--augment", "noise_snr_db=5:20")
    assert "nothing to be made" in again.stdout
    assert "1 no words" in again.stdout
    assert len(list((tmp_path / "o/audio").glob("*.flac"))) == 8
    assert soundfile.info(next((tmp_path / "o/audio").glob("*.flac"))).samplerate == 16_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": ["noise=1"]}, "noise_frac"),
        ({"augment": ["noise"]}, "key=value"),
        ({"speed": "fast"}, "--speed fast"),
        ({"speed": "1.1:0.9"}, "least"),
        ({"voices": ["espeak-ng:-1"]}, "greater than 0"),
        ({"max_cer": -1.0}, "max_cer"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(options: dict[str, Any], message: str) -> None:
    nothing = dict.fromkeys(("recipe", "voices", "speed", "pitch", "augment", "asr", "max_cer", "seed"))
    with pytest.raises(RecipeError, match=message):
        _settings(**{**nothing, **options})


def test_options_stand_over_the_recipe(repo: Path) -> None:
    nothing = dict.fromkeys(("voices", "speed", "pitch", "augment", "asr", "max_cer", "seed"))
    demo = repo / "recipes/demo.yaml"
    assert _settings(**nothing, recipe=demo).voices[0].name == "piper-joe"
    pool = ["espeak-ng:en-gb:2", "openai:http://localhost:8000", "kokoro:af_heart"]
    found = _settings(**{**nothing, "voices": pool, "speed": "0.9", "max_cer": 0.1, "seed": 7}, recipe=demo)
    assert [(voice.name, voice.weight, voice.speed) for voice in found.voices] == [
        ("espeak-ng:en-gb", 2.0, (0.9, 0.9)),
        ("openai:http://localhost:8000", 1.0, (0.9, 0.9)),
        ("kokoro:af_heart", 1.0, (0.9, 0.9)),
    ]
    assert (found.quality.max_cer, found.seed) == (0.1, 7)
