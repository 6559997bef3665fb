"""Corpora: Debian's prompts, and folders with good and bad items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from salad.assets import asset_dir
from salad.errors import AudioError, DataError, MissingFileError
from salad.speech.audio import load_audio
from salad.speech.corpora import debian_prompts, folder
from salad.speech.prepared import read_cuts, read_info, text_of

RATE_HZ = 16_000


def tone(path: Path, duration_s: float) -> None:
    time_s = np.arange(int(duration_s * RATE_HZ)) / RATE_HZ
    soundfile.write(path, 0.1 * np.sin(2 * np.pi * 220 * time_s), RATE_HZ)


def make_corpus(root: Path, lines: list[str | bytes | dict[str, Any]]) -> Path:
    root.mkdir()
    tone(root / "good.flac", 1.0)
    tone(root / "empty.wav", 0.0)
    (root / "noise.flac").write_bytes(b"these bytes are no audio")
    (root / "cut.flac").write_bytes((root / "good.flac").read_bytes()[:2000])
    soundfile.write(root / "nan.wav", np.full(1600, np.nan), RATE_HZ, subtype="FLOAT")
    rows = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
    content = b"\n".join(row if isinstance(row, bytes) else row.encode() for row in rows)
    (root / "manifest.jsonl").write_bytes(content)
    return root


def rejected_of(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / "rejected.jsonl").read_text().split("\n") if line]


GOOD: dict[str, Any] = {"id": "good", "audio": "good.flac", "text": " one  two\n three ", "licence": "CC0"}

BAD_ITEMS: dict[str, tuple[str | bytes | dict[str, Any], str]] = {
    "missing file": (GOOD | {"id": "b", "audio": "none.flac"}, "none.flac does not exist"),
    "a folder": (GOOD | {"id": "b", "audio": "."}, "does not exist"),
    "undecodable bytes": (GOOD | {"id": "b", "audio": "noise.flac"}, "noise.flac can't be decoded"),
    "cut short": (GOOD | {"id": "b", "audio": "cut.flac"}, "cut.flac"),
    "zero length": (GOOD | {"id": "b", "audio": "empty.wav"}, "empty.wav holds no audio"),
    "NaN samples": (GOOD | {"id": "b", "audio": "nan.wav"}, "nan.wav holds a sample that is not a number"),
    "empty transcript": (GOOD | {"id": "b", "text": " "}, "has no words"),
    "marks alone": (GOOD | {"id": "b", "text": "... -"}, "has no words"),
    "no transcript": ({"id": "b", "audio": "good.flac"}, "'text' must be a string, not None"),
    "broken JSON": ('{"id": "b", "audio"', "not readable as JSON"),
    "not UTF-8": (b'{"id": "\xff"}', "not readable as JSON"),
    "half a surrogate": ('{"id": "\\ud800", "audio": "good.flac", "text": "a"}', "not readable as JSON"),
    "endless nesting": ("[" * 100_000, "not readable as JSON"),
    "not an object": ("[1]", "not a JSON object but list"),
    "duplicate id": (GOOD, "the id 'good' stands in an earlier line too"),
    "no id": ({"audio": "good.flac", "text": "a"}, "'id' must be a string"),
    "an id that is a path": (GOOD | {"id": "../b"}, "can't name a file"),
    "no audio": ({"id": "b", "text": "a"}, "'audio' must be a path, not None"),
    "NUL in a path": (GOOD | {"id": "b", "audio": "a\0b"}, "'audio' must be a path"),
    "endless path": (GOOD | {"id": "b", "audio": "a" * 5000}, "name too long"),
    "wrong duration": (GOOD | {"id": "b", "duration": 1.6}, "says 1.60 s, the audio has 1.00 s"),
    "duration no number": (GOOD | {"id": "b", "duration": "1"}, "'duration' must be a number"),
    "duration NaN": (GOOD | {"id": "b", "duration": float("nan")}, "'duration' must be a number"),
    "endless duration": (GOOD | {"id": "b", "duration": 10**400}, "'duration' must be a number"),
}


@pytest.mark.parametrize("name", BAD_ITEMS)
def test_a_bad_item_is_listed_and_the_rest_is_taken(name: str, tmp_path: Path) -> None:
    item, reason = BAD_ITEMS[name]
    corpus, out = make_corpus(tmp_path / "corpus", [GOOD, "", item]), tmp_path / "out"
    folder.prepare(corpus, out)
    assert [cut.id for cut in read_cuts(out)] == ["good"]
    (rejected,) = rejected_of(out)
    assert reason in rejected["reason"]
    assert rejected["place"] == f"{corpus / 'manifest.jsonl'}:3"


@pytest.mark.parametrize("name", ["missing file", "broken JSON", "wrong duration"])
def test_strict_stops_at_a_bad_item(name: str, tmp_path: Path) -> None:
    item, reason = BAD_ITEMS[name]
    corpus, out = make_corpus(tmp_path / "corpus", [GOOD, item]), tmp_path / "out"
    with pytest.raises(DataError, match=r"1 of 2 items can't be used; the first, at .*manifest\.jsonl:2: ") as caught:
        folder.prepare(corpus, out, strict=True)
    assert reason in str(caught.value)
    with pytest.raises(MissingFileError):
        read_cuts(out)
    assert len(rejected_of(out)) == 1


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", ["{", "{"])
    with pytest.raises(DataError, match="2 of 2 items can't be used"):
        folder.prepare(corpus, tmp_path / "out")
    (corpus / "manifest.jsonl").write_text("")
    with pytest.raises(DataError, match="0 of 0 items"):
        folder.prepare(corpus, tmp_path / "out")
    with pytest.raises(MissingFileError, match=r"other\.jsonl does not exist"):
        folder.prepare(corpus, tmp_path / "out", manifest_name="other.jsonl")


def test_what_a_good_item_becomes(tmp_path: Path) -> None:
    other = GOOD | {
        "id": "other",
        "speaker": 7,
        "language": "German",
        "duration": 1.4,
        "audio": str(tmp_path / "x.wav"),
    }
    tone(tmp_path / "x.wav", 1.0)
    corpus, out = make_corpus(tmp_path / "corpus", [GOOD, other]), tmp_path / "out"
    manifest = corpus / "manifest.jsonl"
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes().replace(b"\n", b"\r\n"))
    folder.prepare(corpus, out)
    first, second = read_cuts(out)
    assert rejected_of(out) == []
    assert text_of(first) == "one two three"
    assert (first.duration, first.sampling_rate) == (1.0, RATE_HZ)
    assert first.recording is not None
    assert first.recording.sources[0].source == str((corpus / "good.flac").resolve())
    supervisions = (first.supervisions[0], second.supervisions[0])
    assert [(item.speaker, item.language) for item in supervisions] == [(None, "English"), ("7", "German")]
    assert read_info(out) == {
        "corpus": "corpus",
        "licence": "CC0",
        "source": f"{corpus} (0 sources, see its manifest)",
        "num_cuts": 2,
        "hours": round(2 / 3600, 4),
    }


@pytest.mark.parametrize(
    ("name", "num"),
    [("librivox_excerpt", 8), ("ljspeech_excerpt", 35), ("mfa_samples", 36), ("speechbrain_samples", 10)],
)
def test_real_corpora_are_taken_whole(name: str, num: int, shared_data: Path, tmp_path: Path) -> None:
    folder.prepare(shared_data / "speech" / name, tmp_path)
    cuts = read_cuts(tmp_path)
    assert len(cuts) == num
    assert rejected_of(tmp_path) == []
    assert all(cut.supervisions[0].speaker for cut in cuts)


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
    debian_prompts.prepare(tmp_path)
    cuts, rejected = read_cuts(tmp_path), rejected_of(tmp_path)
    assert (len(cuts), len(rejected)) == (551, 18)
    assert read_info(tmp_path)["num_cuts"] == 551
    assert 0.40 < read_info(tmp_path)["hours"] < 0.41
    by_id = {cut.id: cut for cut in cuts}
    assert text_of(by_id["letters_equals"]) == "equals"
    assert by_id["activated"].supervisions[0].speaker == "allison"
    samples, rate_hz = load_audio(tmp_path / "audio" / "activated.flac")
    assert rate_hz == RATE_HZ
    assert len(samples) == by_id["activated"].num_samples
    assert 0.05 < float(np.abs(samples).max()) <= 1.0
    assert [item["id"] for item in rejected if "no audio" in item["reason"]] == ["pls-try-call-later"]
    kept = (tmp_path / "audio" / "activated.flac").stat().st_mtime_ns
    debian_prompts.prepare(tmp_path)
    assert (tmp_path / "audio" / "activated.flac").stat().st_mtime_ns == kept
