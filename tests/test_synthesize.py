"""Voices, the synthesis pool, and the error rate."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass

import numpy as np
import psutil
import pytest

from salad.assets import resolve
from salad.errors import AssetError, DataError
from salad.speech.audio import load_cut
from salad.speech.prepared import read_cuts, read_info
from salad.speech.recognize import Recognizer
from salad.synthesize.pool import synthesize
from salad.synthesize.quality_words import character_error_rate
from salad.synthesize.voices import load_voice


@dataclass(frozen=True)
class Said:
    id: str
    text: str


@pytest.mark.assets
def test_the_same_text_gives_the_same_samples():
    once, again = (load_voice("piper-joe").speak("Good morning. How are you?").audio for _ in range(2))
    assert once.dtype == np.float32
    assert once.tobytes() == again.tobytes()
    assert 0.1 < np.abs(once).max() <= 1.0
    assert len(load_voice("piper-joe").speak("").audio) == 0
    assert len(load_voice("piper-joe").speak("[[ raw phonemes").audio) > 0


@pytest.mark.assets
def test_a_pool_writes_a_folder_and_rejects_what_can_not_be_spoken(tmp_path):
    texts = [
        Said("a/1", "Hello world."),
        Said("none", ""),
        Said("b", "Good night, everyone."),
        Said("same", "Hello world."),
    ]
    counts = []
    synthesize(texts, "piper-joe", tmp_path / "one", 2, lambda *count: counts.append(count))
    cuts = read_cuts(tmp_path / "one")
    assert [cut.id for cut in cuts] == ["a/1", "b", "same"]
    assert [cut.supervisions[0].text for cut in cuts] == ["Hello world.", "Good night, everyone.", "Hello world."]
    assert counts[-2:] == [(4, 4), (4, 4)]  # of texts; two share an utterance, and one has no words
    assert [done for done, _ in counts] == sorted(done for done, _ in counts)
    rejected = [json.loads(line) for line in (tmp_path / "one/rejected.jsonl").read_text().splitlines()]
    assert [(row["id"], row["reason"]) for row in rejected] == [("none", "no words: nothing in it can be read aloud")]
    assert read_info(tmp_path / "one")["voice"] == "en_US-joe-medium"
    audio = load_cut(cuts[0], 16_000)
    assert len(audio) == cuts[0].recording.num_samples
    assert cuts[0].recording.sources[0].source == cuts[2].recording.sources[0].source

    recognizer = Recognizer(resolve("whisper-tiny.en"), threads=2)
    heard = [recognizer.transcribe(load_cut(cut, 16_000)) for cut in cuts]
    assert max(map(character_error_rate, ["Hello world.", "Good night, everyone.", "Hello world."], heard)) < 0.15

    # another folder that shares the audio speaks nothing again; a missing file is made again, the same bytes
    shared = tmp_path / "one/audio"
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in shared.glob("*.flac")}
    gone = next(iter(before))
    gone.unlink()
    synthesize(texts[2:], "piper-joe", tmp_path / "two", 1, audio_dir=shared)
    synthesize(texts, "piper-joe", tmp_path / "two", 1, audio_dir=shared)
    for path, (mtime, content) in before.items():
        assert path.read_bytes() == content
        assert (path.stat().st_mtime_ns == mtime) == (path != gone)


def test_two_texts_of_one_id_are_refused_before_any_work(tmp_path):
    with pytest.raises(DataError, match="'a'"):
        synthesize([Said("a", "x"), Said("a", "y")], "no such voice", tmp_path, 1)


@pytest.mark.parametrize("name", ["no such voice", "kokoro"])
def test_an_unknown_voice_is_named(name):
    with pytest.raises(AssetError, match=name):
        load_voice(name)


def test_espeak_that_is_not_installed_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssetError, match="install"):
        load_voice("espeak-ng")


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_espeak_speaks_the_same_twice():
    voice = load_voice("espeak-ng")
    once, again = voice.speak("Good morning.").audio, voice.speak("Good morning.").audio
    assert once.tobytes() == again.tobytes()
    assert 0.5 < len(once) / voice.rate_hz < 3


def fake_espeak(folder, body: str):
    """A program in espeak-ng's place: the pool is tried on a voice that hangs or dies."""
    program = folder / "espeak-ng"
    program.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n" + textwrap.dedent(body))
    program.chmod(0o755)


def test_a_text_that_kills_its_worker_is_rejected_and_the_rest_goes_on(tmp_path, monkeypatch):
    fake_espeak(
        tmp_path,
        """
        if "--version" in sys.argv: print("fake 1"); sys.exit()
        text = sys.stdin.read()
        if "die" in text: os.kill(os.getppid(), signal.SIGKILL); time.sleep(5)
        if "fail" in text: sys.exit("no such word")
        rate = (22050).to_bytes(4, "little")
        form = b"\\x10\\0\\0\\0\\1\\0\\1\\0" + rate + (44100).to_bytes(4, "little") + b"\\2\\0\\x10\\0"
        head = b"RIFF\\xff\\xff\\xff\\xffWAVEfmt " + form + b"data\\xff\\xff\\xff\\xff"
        os.write(1, head + b"\\x00\\x10" * (2205 * (400 if "long" in text else 1)))
        """,
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    texts = [Said("1", "an"), Said("2", "die"), Said("3", "fail"), Said("4", "be"), Said("5", "long")]
    synthesize(texts, "espeak-ng", tmp_path / "out", 1)
    cuts = read_cuts(tmp_path / "out")
    assert [(cut.id, cut.duration) for cut in cuts] == [("1", 0.1), ("4", 0.1)]
    rejected = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rejected] == ["2", "3", "5"]
    assert "exit code -9" in rejected[0]["reason"]
    assert "no such word" in rejected[1]["reason"]
    assert "40.0 s, over 30 s" in rejected[2]["reason"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_do_not_outlive_their_parent(tmp_path, how):
    fake_espeak(
        tmp_path,
        """
        if "--version" in sys.argv: print("fake 1"); sys.exit()
        open(os.environ["STARTED"], "a").write("x")
        time.sleep(1.5)
        """,
    )
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            """
            import signal
            from pathlib import Path
            from salad.synthesize.variation import Utterance
            from salad.synthesize.workers import speak_all
            if __name__ == "__main__":
                signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
                said = [(str(i), Utterance(str(i), "espeak-ng")) for i in range(50)]
                list(speak_all(said, Path(__file__).parent / "out", 2))
            """
        )
    )
    started = tmp_path / "started"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "STARTED": str(started)}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL)
    wait_until(started.exists, 30)
    workers = psutil.Process(parent.pid).children(recursive=True)
    assert workers
    parent.send_signal(how)
    assert parent.wait(60) != 0
    wait_until(lambda: not any(worker.is_running() for worker in workers), 60)


def wait_until(true, limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
