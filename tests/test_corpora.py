"""Corpora as they really are: human speech with manifests, and Debian's prompts; and the verb that prepares them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from salad.assets import asset_dir
from salad.errors import AudioError, DataError
from salad.speech.audio import load_audio
from salad.speech.corpora import debian_prompts, folder
from salad.speech.prepared import read_cuts, read_info, text_of

RATE_HZ = 16_000


def rejected_of(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / "rejected.jsonl").read_text().split("\n") if line]


def salad(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "salad", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "num", "speakers", "timed"),
    [
        ("fsdd", 500, 6, 0),
        ("librispeech_excerpt", 2, 2, 0),
        ("librivox_excerpt", 8, 2, 5),
        ("ljspeech_excerpt", 35, 1, 32),
        ("mfa_samples", 36, 1, 1),
        ("speechbrain_samples", 10, 2, 0),
        ("speechocean762_adults_train", 469, 67, 0),
    ],
)
def test_human_speech_is_taken_whole(
    name: str, num: int, speakers: int, timed: int, shared_data: Path, tmp_path: Path
) -> None:
    corpus = shared_data / "speech" / name
    alignments = corpus / "alignments.jsonl"
    summary = folder.prepare(corpus, tmp_path, alignments=alignments if alignments.is_file() else None, jobs=2)
    cuts = read_cuts(tmp_path)
    assert rejected_of(tmp_path) == []
    assert (len(cuts), summary.num_cuts, summary.num_speakers) == (num, num, speakers)
    stated_s = [json.loads(line)["duration"] for line in (corpus / "manifest.jsonl").read_text().splitlines()]
    assert 3600 * summary.hours == pytest.approx(sum(stated_s), abs=0.001 * num)  # they are written to the millisecond
    assert read_info(tmp_path)["hours"] == round(summary.hours, 4)
    assert sum("word" in (cut.supervisions[0].alignment or {}) for cut in cuts) == timed
    assert all(cut.supervisions[0].speaker for cut in cuts)


# --- the verb -------------------------------------------------------------------------------------------------------


def a_corpus(root: Path) -> Path:
    root.mkdir()
    rows = [{"audio": f"{name}.flac", "text": "so it goes", "licence": "CC0", "speaker": name} for name in "abcd"]
    for name in "abc":
        soundfile.write(root / f"{name}.flac", np.random.default_rng(0).uniform(-0.3, 0.3, RATE_HZ), RATE_HZ)
    (root / "b.flac").write_bytes(b"")
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def test_the_verb_says_what_was_lost(tmp_path: Path) -> None:
    corpus, out = a_corpus(tmp_path / "corpus"), tmp_path / "out"
    done = salad("prepare", "folder", str(corpus), "--out", str(out), "--jobs", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{out}: 2 utterances, 0.00 h, 2 speakers; licence: CC0",
        f"rejected: 2 of 4 (50.0%): 1 missing file, 1 zero-length file; see {out / 'rejected.jsonl'}",
    ]
    done = salad("prepare", "folder", str(corpus), "--out", str(out), "--json", "--limit", "3")
    assert json.loads(done.stdout) == {
        "out": str(out), "num_utterances": 2, "hours": pytest.approx(2 / 3600), "num_speakers": 2, "licence": "CC0",
        "num_rejected": 1, "rejected_frac": pytest.approx(1 / 3), "rejected": {"zero-length file": 1},
    }  # fmt: skip
    assert [row["id"] for row in rejected_of(out)] == ["b"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["emilia", "."], "emilia is under CC BY-NC 4.0, which forbids commercial use"),
        (["folder", "CORPUS", "--strict"], "zero-length file: "),
        (["text", "hub:"], "hub:"),
    ],
)
def test_what_the_verb_refuses_is_one_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    corpus = a_corpus(tmp_path / "corpus")
    arguments = [str(corpus) if argument == "CORPUS" else argument for argument in arguments]
    done = salad("prepare", *arguments, "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.startswith("salad: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "No such command 'nothing'"),
        (["folder"], "Missing argument 'DIR'"),
        (["debian-prompts", "somewhere"], "unexpected extra argument"),
        (["librispeech", ".", "--manifest", "x"], "No such option: --manifest"),
        (["hub"], "Missing option '--name'"),
    ],
)
def test_a_corpus_has_its_own_options_alone(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = salad("prepare", *arguments, "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


# --- Debian's prompts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("Please press 1 now, or * to exit.", "Please press one now, or star to exit."),
        ("equals [=]", "equals"),
        ('IAX (note: does not say "2")', "IAX"),
        ("Leave a message. (simple tone sound plays)", "Leave a message."),
        ("... using your keypad", "using your keypad"),
    ],
)
def test_a_transcript_is_what_is_said(written: str, text: str) -> None:
    assert debian_prompts.transcript_of(written) == text


@pytest.mark.parametrize(
    "written", ["[a tone]", "(1 second of silence)", "<beep ascending>", "", " ", "...", "приветик"]
)
def test_what_is_not_english_speech_is_refused(written: str) -> None:
    with pytest.raises(DataError):
        debian_prompts.transcript_of(written)


def test_g722_that_is_empty_or_missing(tmp_path: Path) -> None:
    (tmp_path / "empty.g722").write_bytes(b"")
    for name in ("empty.g722", "none.g722"):
        with pytest.raises(AudioError, match=name):
            debian_prompts.decode_g722(tmp_path / name)


@pytest.mark.assets
def test_the_prompts(tmp_path: Path) -> None:
    if not asset_dir("debian-prompts").is_dir():
        pytest.skip("asset debian-prompts is not in the cache; fetch it with 'salad assets debian-prompts'")
    summary = debian_prompts.prepare(tmp_path)
    cuts, rejected = read_cuts(tmp_path), rejected_of(tmp_path)
    assert (len(cuts), len(rejected)) == (551, 18)
    assert summary.reasons == (("not speech", 17), ("no audio", 1))
    info = read_info(tmp_path)
    assert (info["corpus"], info["licence"], info["num_cuts"]) == ("debian-prompts", "CC-BY-SA-3.0", 551)
    assert 0.40 < info["hours"] < 0.41
    by_id = {cut.id: cut for cut in cuts}
    assert text_of(by_id["letters_equals"]) == "equals"
    assert by_id["activated"].supervisions[0].speaker == "allison"
    samples, rate_hz = load_audio(tmp_path / "audio" / "activated.flac")
    assert rate_hz == RATE_HZ
    assert len(samples) == by_id["activated"].num_samples
    assert 0.05 < float(np.abs(samples).max()) <= 1.0
    assert [item["id"] for item in rejected if item["reason"].startswith("no audio")] == ["pls-try-call-later"]
    kept = (tmp_path / "audio" / "activated.flac").stat().st_mtime_ns
    debian_prompts.prepare(tmp_path)
    assert (tmp_path / "audio" / "activated.flac").stat().st_mtime_ns == kept
