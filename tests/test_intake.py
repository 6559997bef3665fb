"""Bad input of every kind, made as real files: each is listed with reason and place, and its neighbours are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from salad.errors import DataError, MissingFileError
from salad.speech.audio import load_audio, load_cut
from salad.speech.corpora import folder
from salad.speech.intake import Checks, Summary
from salad.speech.prepared import read_cuts, read_info, words_of

RATE_HZ = 16_000
Row = dict[str, Any]


def voice(duration_s: float, rate_hz: int = RATE_HZ, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise that comes and goes, within ±0.5: [num_samples, channels]."""
    num = round(duration_s * rate_hz)
    envelope = np.abs(np.sin(2 * np.pi * 3 * np.arange(num) / rate_hz))[:, None]
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (num, channels))
    return (envelope * noise).astype(np.float32)


def write(path: Path, audio: np.ndarray, rate_hz: int = RATE_HZ, **kwargs: Any) -> Path:
    soundfile.write(path, audio, rate_hz, **kwargs)
    return path


def by_ffmpeg(path: Path, codec: str, duration_s: float = 1.0, rate_hz: int = 48_000, **options: str) -> int:
    """Encode a mono voice; returns the number of samples that went in."""
    audio = voice(duration_s, rate_hz).T
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate_hz, layout="mono")
        for start in range(0, audio.shape[1], 1024):
            piece = np.ascontiguousarray(audio[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate_hz, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return audio.shape[1]


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 24, 3):
        content[place] ^= 0xFF
    path.write_bytes(content)


def hole(path: Path) -> None:
    content = path.read_bytes()
    third = len(content) // 3
    path.write_bytes(content[:third] + bytes(third) + content[2 * third :])


def promise_more(path: Path) -> None:
    """A FLAC whose header tells of twice as many samples as follow, all of which are whole."""
    content = bytearray(path.read_bytes())
    assert int.from_bytes(content[22:26]) == RATE_HZ  # the lower 32 of 36 bits of the count
    content[22:26] = (2 * RATE_HZ).to_bytes(4)
    path.write_bytes(content)


GOOD: Row = {"text": "one two three", "speaker": "anna", "licence": "CC0"}

# How the file (or row) is made bad, given a whole one-second file, and what must be said of it.
BAD_AUDIO: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "missing": ("b.flac", Path.unlink, "missing file: "),
    "a folder": ("b.flac", lambda path: (path.unlink(), path.mkdir()), "missing file: "),
    "zero-length": ("b.flac", lambda path: path.write_bytes(b""), "zero-length file: "),
    "zero-length au": ("b.au", lambda path: path.write_bytes(b""), "zero-length file: "),
    "FLAC cut short": ("b.flac", halve, "truncated or damaged audio: "),
    "FLAC that promises more": ("b.flac", promise_more, "truncated or damaged audio: "),
    "WAV cut short": ("b.wav", halve, "is cut short: 7989 of 16000 samples"),
    "AIFF cut short": ("b.aiff", halve, "is cut short: "),
    "AU cut short": ("b.au", halve, "is cut short: "),
    "W64 cut short": ("b.w64", halve, "is cut short: "),
    "RF64 cut short": ("b.rf64", halve, "is cut short: "),
    "SPHERE cut short": ("b.sph", halve, "is cut short: "),
    "MP3 cut short": ("b.mp3", halve, "of 128000 samples can be read"),
    "OGG cut short": ("b.ogg", halve, "is cut short: the last Ogg page"),
    "OPUS cut short": ("b.opus", halve, "is cut short: the last Ogg page"),
    "M4A cut short": ("b.m4a", halve, "truncated or damaged audio: "),
    "WebM cut short": ("b.webm", halve, "truncated or damaged audio: "),
    "FLAC with wrong bytes": ("b.flac", flip, "can't be decoded beyond sample "),
    "OGG with wrong bytes": ("b.ogg", flip, "has a page with a wrong checksum"),
    "OPUS with wrong bytes": ("b.opus", flip, "has a page with a wrong checksum"),
    "MP3 with a hole": ("b.mp3", hole, "truncated or damaged audio: "),
    "noise for bytes": ("b.flac", lambda path: path.write_bytes(np.random.default_rng(0).bytes(40_000)), "not audio: "),
    "noise named mp3": ("b.mp3", lambda path: path.write_bytes(np.random.default_rng(0).bytes(40_000)), "not audio: "),
    "noise named au": ("b.au", lambda path: path.write_bytes(np.random.default_rng(0).bytes(40_000)), "not audio: "),
    "text named wav": ("b.wav", lambda path: path.write_text("<html>404 not found</html>"), "not audio: "),
    "NaN": ("b.wav", lambda path: write(path, nan_at(700), subtype="FLOAT"), "samples that are not numbers: "),
    "infinity": (
        "b.wav",
        lambda path: write(path, nan_at(15_999, np.inf), subtype="DOUBLE"),
        "has the first at sample 15999",
    ),
    "header alone": ("b.wav", lambda path: write(path, voice(0.0)), "no samples: "),
    "all zero": ("b.flac", lambda path: write(path, np.zeros(RATE_HZ)), "silent audio: "),
    "nearly silent": ("b.flac", lambda path: write(path, 0.001 * voice(1.0)), "silent audio: "),
    "an offset and no sound": ("b.flac", lambda path: write(path, np.full(RATE_HZ, 0.4)), "silent audio: "),
    "clipped": ("b.flac", lambda path: write(path, np.clip(40 * voice(1.0), -1, 1)), "clipped audio: 37"),
    "one channel clipped": ("b.wav", lambda path: write(path, one_clipped()), "clipped audio: "),
    "8 bits clipped": (
        "b.wav",
        lambda path: write(path, np.clip(40 * np.abs(voice(1.0)), -1, 1), subtype="PCM_U8"),
        "clipped audio: ",
    ),
    "not scaled": (
        "b.wav",
        lambda path: write(path, 32768 * voice(1.0), subtype="FLOAT"),
        "clipped audio: ",
    ),
    "31 minutes": ("b.wav", lambda path: write(path, voice(1860, 2000), 2000, subtype="PCM_U8"), "too long: 1860.0 s"),
    "too short": ("b.flac", lambda path: write(path, voice(0.09)), "too short: 0.090 s"),
}

BAD_ROWS: dict[str, tuple[str | bytes | Row, str]] = {
    "empty transcript": ({"text": " "}, "empty transcript: "),
    "marks alone": ({"text": "... - —"}, "empty transcript: "),
    "no transcript": ({"text": None}, "empty transcript: "),
    "transcript no string": ({"text": ["one"]}, "no transcript: "),
    "another script": ({"text": "раз два три"}, "transcript in another script: 0% of the letters are Latin"),
    "script half another": ({"text": "one два three четыре"}, "transcript in another script: "),
    "Latin for Russian": ({"text": "raz dva tri", "language": "ru"}, "are Cyrillic, in which ru is written"),
    "wrong duration": ({"duration": 1.6}, "wrong duration: the corpus says 1.60 s, the audio has 1.00 s"),
    "too short a duration": ({"duration": 0.3}, "wrong duration: "),
    "duration no number": ({"duration": "long"}, "'duration' must be a number of seconds"),
    "duration NaN": ({"duration": float("nan")}, "'duration' must be a number of seconds"),
    "endless duration": ({"duration": 10**400}, "'duration' must be a number of seconds"),
    "span beyond the end": ({"offset": 0.5, "duration": 0.6}, "span beyond the end: it ends 0.100 s after"),
    "span after the end": ({"offset": 1.5, "duration": 0.5}, "span beyond the end: it begins at 1.500 s"),
    "negative offset": ({"offset": -0.1, "duration": 0.5}, "'offset' must be a number of seconds"),
    "impossible speech rate": ({"text": "word " * 11}, "impossible speech rate: 11 words in 1.00 s"),
    "timing beyond the end": ({"words": [["one", 0, 0.3], ["two", 0.3, 0.6], ["three", 0.6, 1.2]]}, "beyond the end"),
    "timings not increasing": (
        {"words": [["one", 0, 0.3], ["two", 0.6, 0.8], ["three", 0.4, 0.6]]},
        "word timings out of order: 'three'",
    ),
    "timing that ends before it begins": (
        {"words": [["one", 0.3, 0.1], ["two", 0.3, 0.6], ["three", 0.6, 0.9]]},
        "word timings out of order: 'one'",
    ),
    "timings of other words": ({"words": [["one", 0, 0.3], ["too", 0.3, 0.6], ["three", 0.6, 0.9]]}, "other words"),
    "timings of fewer words": ({"words": [["one", 0, 0.3], ["two", 0.3, 0.6]]}, "other words"),
    "timings of more words": ({"words": [[w, 0, 0.3] for w in "one two three four".split()]}, "other words"),
    "timings no list": ({"words": 3}, "unreadable word timings: "),
    "broken JSON": ('{"id": "b", "audio"', "broken line: "),
    "not UTF-8": (b'{"id": "\xff"}', "not text: "),
    "half a surrogate": ('{"id": "\\ud800", "audio": "b.flac", "text": "a"}', "not text: "),
    "endless nesting": ("[" * 100_000, "broken line: "),
    "not an object": ("[1]", "not a JSON object but list"),
    "duplicate id": ({"id": "before"}, "duplicate id: 'before'"),
    "an id that is a path": ({"id": "../b"}, "unfit id: "),
    "an id with a line feed": ({"id": "a\nb"}, "unfit id: "),
    "an endless id": ({"id": "b" * 300}, "unfit id: "),
    "no audio": ({"audio": None}, "no audio: "),
    "audio no string": ({"audio": 3}, "no audio: "),
    "NUL in a path": ({"audio": "a\0b"}, "no audio: "),
    "endless path": ({"audio": "a" * 5000}, "unreadable file: "),
    "speaker no string": ({"speaker": {"name": "anna"}}, "'speaker' must be a string"),
}


def nan_at(place: int, value: float = np.nan) -> np.ndarray:
    audio = voice(1.0)
    audio[place] = value
    return audio


def one_clipped() -> np.ndarray:
    return np.concatenate([0.5 * voice(1.0), np.clip(40 * voice(1.0, seed=1), -1, 1)], axis=1)


def corpus_with(root: Path, bad: str | bytes | Row) -> Path:
    """A folder whose manifest has a good utterance, the bad one, and another good one."""
    root.mkdir()
    rows: list[str | bytes | Row] = []
    for name, seed in (("before", 1), ("after", 2)):
        write(root / f"{name}.flac", voice(1.0, seed=seed))
        rows.append({**GOOD, "id": name, "audio": f"{name}.flac"})
    rows.insert(1, bad)
    lines = [json.dumps(row) if isinstance(row, dict) else row for row in rows]
    (root / "manifest.jsonl").write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines))
    return root


def rejected_of(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / "rejected.jsonl").read_text().split("\n") if line]


def check_rejection(summary: Summary, identifier: str, reason: str, place: str) -> None:
    assert [cut.id for cut in read_cuts(summary.out)] == ["before", "after"]
    (row,) = rejected_of(summary.out)
    assert reason in row["reason"]
    assert ": " in row["reason"]
    assert row["place"] == place
    assert row["id"] == identifier
    assert (summary.num_cuts, summary.num_rejected) == (2, 1)
    assert summary.rejected_frac == pytest.approx(1 / 3)
    assert summary.reasons == ((row["reason"].split(": ")[0], 1),)


@pytest.mark.parametrize("name", BAD_AUDIO)
def test_bad_audio_is_listed_and_its_neighbours_are_taken(name: str, tmp_path: Path) -> None:
    file, spoil, reason = BAD_AUDIO[name]
    corpus = corpus_with(tmp_path / "corpus", {**GOOD, "id": "b", "audio": file})
    path = corpus / file
    if path.suffix in (".m4a", ".webm"):
        by_ffmpeg(path, "aac" if path.suffix == ".m4a" else "libopus", 2.0)
    else:
        kinds = {".opus": {"format": "OGG", "subtype": "OPUS"}, ".sph": {"format": "NIST"}}
        write(path, voice(8.0 if path.suffix in (".mp3", ".ogg", ".opus") else 1.0), **kinds.get(path.suffix, {}))
    spoil(path)
    summary = folder.prepare(corpus, tmp_path / "out")
    check_rejection(summary, "b", reason, f"{corpus / 'manifest.jsonl'}:2")


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_listed_and_its_neighbours_are_taken(name: str, tmp_path: Path) -> None:
    change, reason = BAD_ROWS[name]
    row = {**GOOD, "id": "b", "audio": "b.flac", **change} if isinstance(change, dict) else change
    corpus = corpus_with(tmp_path / "corpus", row)
    write(corpus / "b.flac", voice(1.0))
    summary = folder.prepare(corpus, tmp_path / "out")
    identifier = row["id"] if isinstance(row, dict) else {"half a surrogate": "?"}.get(name, "line 2")
    check_rejection(summary, identifier, reason, f"{corpus / 'manifest.jsonl'}:2")


@pytest.mark.parametrize("name", ["missing", "31 minutes", "broken JSON", "wrong duration"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_strict_stops_at_a_bad_item_and_the_next_run_goes_on(name: str, jobs: int, tmp_path: Path) -> None:
    if name in BAD_AUDIO:
        file, spoil, reason = BAD_AUDIO[name]
        corpus = corpus_with(tmp_path / "corpus", {**GOOD, "id": "b", "audio": file})
        spoil(write(corpus / file, voice(1.0)))
    else:
        change, reason = BAD_ROWS[name]
        bad = {**GOOD, "id": "b", "audio": "before.flac", **change} if isinstance(change, dict) else change
        corpus = corpus_with(tmp_path / "corpus", bad)
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"manifest\.jsonl:2\) can't be used: .*without --strict") as caught:
        folder.prepare(corpus, out, checks=Checks(strict=True), jobs=jobs)
    assert reason in str(caught.value)
    assert len(rejected_of(out)) == 1
    with pytest.raises(MissingFileError):
        read_cuts(out)
    assert folder.prepare(corpus, out, jobs=jobs).num_cuts == 2


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text("{\n{")
    with pytest.raises(DataError, match=r"none of 2 utterances can be used; the first, at .*manifest\.jsonl:1: broken"):
        folder.prepare(tmp_path, tmp_path / "out")
    assert len(rejected_of(tmp_path / "out")) == 2
    (tmp_path / "manifest.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no utterance"):
        folder.prepare(tmp_path, tmp_path / "out")


# --- what is taken --------------------------------------------------------------------------------------------------

GOOD_AUDIO: dict[str, tuple[int, int, dict[str, str]]] = {
    "a.flac": (16_000, 1, {}),
    "b.flac": (44_100, 1, {"subtype": "PCM_24"}),
    "c.wav": (8_000, 2, {}),
    "d.wav": (22_050, 1, {"subtype": "FLOAT"}),
    "e.wav": (8_000, 1, {"subtype": "ULAW"}),
    "f.wav": (11_025, 3, {"subtype": "PCM_U8"}),
    "g.mp3": (44_100, 2, {}),
    "h.mp3": (16_000, 1, {}),
    "i.ogg": (32_000, 1, {}),
    "j.opus": (48_000, 2, {"format": "OGG", "subtype": "OPUS"}),
    "k.aiff": (16_000, 1, {}),
    "l.sph": (16_000, 1, {"format": "NIST"}),
}


def test_every_format_rate_and_channel_count_is_taken_whole(tmp_path: Path) -> None:
    rows = []
    for name, (rate_hz, channels, kwargs) in GOOD_AUDIO.items():
        write(tmp_path / name, voice(1.5, rate_hz, channels), rate_hz, **kwargs)
        rows.append({"audio": name, "text": "one two three"})
    num_48k = {
        name: by_ffmpeg(tmp_path / name, codec, 1.5) for name, codec in [("m.m4a", "aac"), ("n.webm", "libopus")]
    }
    by_ffmpeg(tmp_path / "o.mp3", "libmp3lame", 1.5, 16_000, write_xing="0")
    rows += [{"audio": name, "text": "one two three"} for name in [*num_48k, "o.mp3"]]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    summary = folder.prepare(tmp_path, tmp_path / "out")
    assert rejected_of(summary.out) == []
    for row, cut in zip(rows, read_cuts(summary.out), strict=True):
        name = row["audio"]
        audio, rate_hz = load_audio(tmp_path / name)
        assert cut.recording is not None
        assert (cut.num_samples, cut.recording.num_samples) == (len(audio), len(audio)), name
        assert cut.sampling_rate == rate_hz
        assert (load_cut(cut, rate_hz) == audio).all()
        if name in GOOD_AUDIO:
            expected_hz, channels, _ = GOOD_AUDIO[name]
            assert (rate_hz, len(audio), cut.recording.num_channels) == (
                expected_hz,
                round(1.5 * expected_hz),
                channels,
            )
            written = voice(1.5, rate_hz, channels).mean(axis=1)
            if name.endswith((".flac", ".wav", ".aiff", ".sph")):  # the others lose something on purpose
                assert np.abs(audio - written).max() < 0.02, name
    assert load_audio(tmp_path / "n.webm")[0].shape == (num_48k["n.webm"],)


def test_an_mp3_without_a_count_in_its_header_is_as_long_as_it_decodes(tmp_path: Path) -> None:
    """libsndfile only estimates its length, and would have it cut short."""
    by_ffmpeg(tmp_path / "a.mp3", "libmp3lame", 3.0, 44_100, write_xing="0")
    with soundfile.SoundFile(tmp_path / "a.mp3") as file:
        estimate, there = file.frames, len(file.read())
    assert estimate != there
    audio, _ = load_audio(tmp_path / "a.mp3")
    assert len(audio) == there
    (tmp_path / "manifest.jsonl").write_text(
        json.dumps({"audio": "a.mp3", "text": "a b", "offset": 1, "duration": 0.5})
    )
    folder.prepare(tmp_path, tmp_path / "out")
    (cut,) = read_cuts(tmp_path / "out")
    assert cut.recording is not None
    assert cut.recording.num_samples == there
    assert (load_cut(cut, 44_100) == audio[44_100:66_150]).all()


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.flac"])
def test_spans_of_a_long_file_are_what_decoding_it_whole_gives(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, voice(20.0), RATE_HZ)
    whole, _ = load_audio(tmp_path / name)
    spans = [(0.0, 0.8), (3.21, 1.07), (4.0, 2.5), (19.5, 0.5)]  # two of them overlap
    rows = [{"audio": name, "text": "so it is", "offset": start, "duration": length} for start, length in spans]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    summary = folder.prepare(tmp_path, tmp_path / "out")
    cuts = read_cuts(summary.out)
    assert [cut.id for cut in cuts] == ["a", "a-2", "a-3", "a-4"]
    for cut, (start_s, length_s) in zip(cuts, spans, strict=True):
        first, last = round(start_s * RATE_HZ), round((start_s + length_s) * RATE_HZ)
        assert (cut.start, cut.num_samples) == (first / RATE_HZ, last - first)
        assert cut.recording is not None
        assert cut.recording.num_samples == len(whole)
        # An MP3 decoder that jumps into the stream comes out up to a few 16-bit steps beside the one that did not.
        assert np.abs(load_cut(cut, RATE_HZ) - whole[first:last]).max() < (1e-3 if name == "a.mp3" else 1e-6)


def test_what_a_good_item_becomes(tmp_path: Path) -> None:
    corpus = corpus_with(
        tmp_path / "corpus",
        {
            "id": "b", "audio": str(tmp_path / "x.wav"), "text": " Forty-two  —\n ist's ", "speaker": 7,
            "language": "de", "duration": 1.4, "document": "chapter 1", "source": "a tape",
            "words": [["", 0, 0.1], ["forty", 0.1, 0.25], ["two", 0.25, 0.5], ["ists", 0.6, 1.01]],
        },
    )  # fmt: skip
    write(tmp_path / "x.wav", voice(1.0))
    manifest = corpus / "manifest.jsonl"
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes().replace(b"\n", b"\r\n\r\n"))
    summary = folder.prepare(corpus, tmp_path / "out")
    first, second, _ = read_cuts(tmp_path / "out")
    assert rejected_of(tmp_path / "out") == []
    assert first.recording is not None
    assert first.recording.sources[0].source == str((corpus / "before.flac").resolve())
    spoken = second.supervisions[0]
    assert (spoken.text, spoken.speaker, spoken.language) == ("Forty-two — ist's", "7", "de")
    assert first.supervisions[0].language == "English"
    assert (first.duration, first.sampling_rate, first.custom) == (1.0, RATE_HZ, {"licence": "CC0"})
    assert second.custom == {"source": "a tape", "document": "chapter 1", "number": 1}
    times = [(word.text, word.start_s, round(word.end_s, 6)) for word in words_of(second)]
    assert times == [("Forty-two", 0.1, 0.5), ("—", 0.5, 0.5), ("ist's", 0.6, 1.0)]
    info = read_info(tmp_path / "out")
    expected = {"corpus": "corpus", "licence": "CC0", "num_cuts": 3, "num_speakers": 2, "num_rejected": 0}
    assert info.items() >= expected.items()
    assert info["hours"] == round(3 / 3600, 4)
    assert summary.hours == pytest.approx(3 / 3600)


def test_the_limits_can_be_moved(tmp_path: Path) -> None:
    corpus = corpus_with(tmp_path / "corpus", {"id": "b", "audio": "b.flac", "text": "раз два"})
    write(corpus / "b.flac", np.clip(40 * voice(130), -1, 1))
    everything = Checks(max_duration_s=200, max_clipped_frac=1.0, min_script_frac=0.0)
    assert folder.prepare(corpus, tmp_path / "out", checks=everything).num_cuts == 3
    with pytest.raises(DataError, match="none of 3"):
        folder.prepare(corpus, tmp_path / "out", checks=Checks(max_duration_s=0.5))
