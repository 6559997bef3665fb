"""Named corpora: each one's layout, made of real speech, is read as its docstring says, and what is wrong is listed."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from real_speech import Spoken, prepared, split, spoken
from salad.errors import DataError, MissingFileError
from salad.speech.audio import load_audio, load_cut
from salad.speech.corpora import common_voice, libriheavy, librispeech
from salad.speech.intake import prepare_corpus
from salad.speech.prepared import read_cuts, read_info, text_of, words_of

# --- LibriSpeech ------------------------------------------------------------------------------------------------------


def chapter(root: Path, name: str, utterances: list[tuple[str, Spoken]]) -> Path:
    """A chapter `split/speaker/chapter` of LibriSpeech."""
    folder = root / name
    folder.mkdir(parents=True)
    speaker, number = name.split("/")[1:]
    for identifier, utterance in utterances:
        (folder / f"{identifier}.flac").write_bytes(utterance.path.read_bytes())
    lines = [f"{identifier} {utterance.text}\n" for identifier, utterance in utterances]
    (folder / f"{speaker}-{number}.trans.txt").write_text("".join(lines))
    return folder


@pytest.fixture
def libri(shared_data: Path, tmp_path: Path) -> Path:
    """`LibriSpeech` with two splits: two real utterances of it, and two of LJ Speech as a chapter of two."""
    reader_2412, reader_61 = spoken(shared_data, "librispeech_excerpt")
    lj = spoken(shared_data, "ljspeech_excerpt", 2)
    root = tmp_path / "LibriSpeech"
    chapter(root, "dev-clean/2412/153948", [(reader_2412.id, reader_2412)])
    chapter(root, "train-clean-5/61/70968", [(reader_61.id, reader_61)])
    chapter(root, "train-clean-5/19/198", [(f"19-198-000{n}", utterance) for n, utterance in enumerate(lj)])
    return root


def test_librispeech_utterances_follow_each_other_in_their_chapter(libri: Path) -> None:
    taken, rejected = split(librispeech.candidates(libri.parent))
    assert not rejected
    assert list(taken) == ["2412-153948-0000", "19-198-0000", "19-198-0001", "61-70968-0000"]
    last = taken["61-70968-0000"]
    assert last.text.startswith("HE BEGAN A CONFUSED COMPLAINT AGAINST THE WIZARD")
    assert (last.speaker, last.document, last.language, last.licence) == ("61", "61-70968", "English", "CC BY 4.0")
    assert last.source == "LibriSpeech train-clean-5"
    assert last.place.endswith("61-70968.trans.txt:1")
    assert {taken[name].document for name in ("19-198-0000", "19-198-0001")} == {"19-198"}
    assert all(candidate.audio.is_file() and candidate.words is None for candidate in taken.values())


def test_librispeech_reads_the_split_that_is_asked_for(libri: Path) -> None:
    taken, _ = split(librispeech.candidates(libri, ["dev-clean"]))
    assert list(taken) == ["2412-153948-0000"]
    with pytest.raises(MissingFileError, match="no split test-clean; found: dev-clean, train-clean-5"):
        librispeech.candidates(libri, ["dev-clean", "test-clean"])


def test_what_is_wrong_in_librispeech_is_listed(libri: Path) -> None:
    folder = libri / "train-clean-5" / "19" / "198"
    (folder / "19-198-0002.flac").write_bytes((folder / "19-198-0001.flac").read_bytes())
    with (folder / "19-198.trans.txt").open("ab") as lines:
        lines.write(b"\n19-198-0003 \xff\xfe\n19-198-0004\n")
    bare = libri / "train-clean-5" / "19" / "199"
    bare.mkdir()
    (bare / "19-199-0000.flac").write_bytes((folder / "19-198-0001.flac").read_bytes())
    (libri / "test-other").mkdir()
    taken, rejected = split(librispeech.candidates(libri))
    assert {name: item.reason for name, item in rejected.items()} == {
        "line 4": "not text: the line is not UTF-8 ('utf-8' codec can't decode byte 0xff in position 12: "
        "invalid start byte)",
        "19-198-0002": "missing transcript: 19-198.trans.txt has no line for it",
        "19-199-0000": "missing transcript: 19-199.trans.txt has no line for it",
        "test-other": "empty split: it holds no SPEAKER/CHAPTER folder; unpack its archive again",
    }
    assert rejected["line 4"].place == f"{folder / '19-198.trans.txt'}:4"
    assert taken["19-198-0004"].text == ""  # the intake says that it has no words


def test_librispeech_takes_word_timings_as_its_alignments_have_them(
    libri: Path, shared_data: Path, tmp_path: Path
) -> None:
    lj = spoken(shared_data, "ljspeech_excerpt", 2)
    folder = tmp_path / "timings" / "LibriSpeech" / "train-clean-5" / "19" / "198"
    folder.mkdir(parents=True)
    lines = []
    for number, utterance in enumerate(lj):
        words = ",".join(word.upper() for word, _, _ in utterance.words)
        ends = ",".join(f"{end:.3f}" for _, _, end in utterance.words)
        lines.append(f'19-198-000{number} "{words}" "{ends}"\n')
    (folder / "19-198.alignment.txt").write_text("".join([*lines, '19-198-0002 "OTHER,WORDS" "0.5,1.0"\n']))
    chapter_folder = libri / "train-clean-5" / "19" / "198"
    (chapter_folder / "19-198-0002.flac").write_bytes((chapter_folder / "19-198-0001.flac").read_bytes())
    with (chapter_folder / "19-198.trans.txt").open("a") as transcripts:
        transcripts.write("19-198-0002 THESE WORDS\n")
    report: dict[str, int] = {}
    taken, rejected = split(librispeech.candidates(libri, alignments=tmp_path / "timings", report=report))
    assert not rejected
    assert report == {"used": 2, "of_other_words": 1}
    assert taken["19-198-0002"].words is None
    for number, utterance in enumerate(lj):
        words = taken[f"19-198-000{number}"].words
        assert words is not None
        for (word, start, end), (expected, expected_start, expected_end) in zip(words, utterance.words, strict=True):
            assert word == expected.upper()
            assert (start, end) == pytest.approx((expected_start, expected_end), abs=6e-4)  # written to milliseconds
    assert taken["61-70968-0000"].words is None

    (folder / "19-198.alignment.txt").write_text('19-198-0000 "A,B"\n')
    taken, rejected = split(librispeech.candidates(libri, alignments=tmp_path / "timings"))
    assert "the chapter is taken without them" in rejected["19-198.alignment.txt"].reason
    assert taken["19-198-0000"].words is None
    with pytest.raises(MissingFileError, match="holds no alignments"):
        librispeech.candidates(libri, alignments=folder)


def test_librispeech_becomes_a_prepared_folder(libri: Path, shared_data: Path, tmp_path: Path) -> None:
    chapter_folder = libri / "train-clean-5" / "19" / "198"
    lj = spoken(shared_data, "ljspeech_excerpt", 2)
    timed = lj[0]
    words, ends = ",".join(word for word, _, _ in timed.words), ",".join(str(end) for _, _, end in timed.words)
    (chapter_folder / "19-198.alignment.txt").write_text(f'19-198-0000 "{words}" "{ends}"\n')
    with (chapter_folder / "19-198.trans.txt").open("a") as lines:
        lines.write("19-198-0001 THE SAME NAME\n19-198-0005 NO FILE\n19-198-0001\n")
    summary = prepare_corpus(librispeech.candidates(libri), tmp_path / "out", dict(librispeech.INFO))
    assert (summary.num_cuts, summary.num_speakers, summary.licence) == (4, 3, "CC BY 4.0")
    assert dict(summary.reasons) == {"duplicate id": 2, "missing file": 1}
    cuts = {cut.id: cut for cut in read_cuts(tmp_path / "out")}
    assert cuts["2412-153948-0000"].duration == pytest.approx(11.66)
    assert cuts["19-198-0001"].custom["document"] == "19-198"
    assert text_of(cuts["19-198-0000"]) == timed.text
    placed = [(word.start_s, word.end_s) for word in words_of(cuts["19-198-0000"])]
    expected = [(start, end) for word, start, end in timed.words if word]
    assert placed == [pytest.approx(times, abs=1e-3) for times in expected]
    assert read_info(tmp_path / "out")["text"] == "upper case, no punctuation"


# --- LibriHeavy -------------------------------------------------------------------------------------------------------


def heavy_cut(recording: str, number: int, start_s: float, utterance: Spoken) -> dict[str, Any]:
    """A cut with the fields that LibriHeavy's README shows."""
    identifier = f"{recording}_{number}"
    custom = {"texts": [utterance.text, utterance.text.upper()], "pre_texts": ["", ""], "begin_byte": 0, "end_byte": 9}
    source = {"type": "file", "channels": [0], "source": f"download/librilight/{recording}.flac"}
    return {
        "id": identifier,
        "start": start_s,
        "duration": utterance.duration_s,
        "channel": 0,
        "supervisions": [
            {
                "id": identifier,
                "recording_id": recording,
                "start": 0,
                "duration": utterance.duration_s,
                "channel": 0,
                "language": "English",
                "speaker": "100",
                "custom": custom,
            }
        ],
        "recording": {"id": recording, "sources": [source], "sampling_rate": 16000, "num_samples": 1, "duration": 1.0},
        "custom": {"text_path": "download/librilight_text/output_text_small_cleaned/Sea Fairies/text.txt"},
        "type": "MonoCut",
    }


RECORDING = "small/100/sea_fairies_0812_librivox_64kb_mp3/01_baum_sea_fairies_64kb"


@pytest.fixture
def heavy(shared_data: Path, tmp_path: Path) -> Path:
    """Manifest and audio of LibriHeavy: the first 3 LJ Speech utterances as one recording, cuts out of order."""
    listed = spoken(shared_data, "ljspeech_excerpt", 3)
    audio = [soundfile.read(utterance.path, dtype="float32") for utterance in listed]
    exact = zip(listed, audio, strict=True)  # the manifest's durations are rounded
    utterances = [replace(utterance, duration_s=len(samples) / rate_hz) for utterance, (samples, rate_hz) in exact]
    target = tmp_path / "download" / "librilight" / f"{RECORDING}.flac"
    target.parent.mkdir(parents=True)
    soundfile.write(target, np.concatenate([samples for samples, _ in audio]), audio[0][1])
    starts = [sum(utterance.duration_s for utterance in utterances[:n]) for n in range(3)]
    cuts = [heavy_cut(RECORDING, n, starts[n], utterances[n]) for n in (1, 0, 2)]
    with gzip.open(tmp_path / "libriheavy_cuts_small.jsonl.gz", "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(cut) + "\n" for cut in cuts)
    return tmp_path


def test_libriheavy_spans_a_recording_in_its_order(heavy: Path, shared_data: Path) -> None:
    utterances = spoken(shared_data, "ljspeech_excerpt", 3)
    taken, rejected = split(libriheavy.candidates(heavy))
    assert not rejected
    assert [name[-2:] for name in taken] == ["_0", "_1", "_2"]
    assert [candidate.text for candidate in taken.values()] == [utterance.text for utterance in utterances]
    middle = list(taken.values())[1]
    assert middle.id == "small--100--sea_fairies_0812_librivox_64kb_mp3--01_baum_sea_fairies_64kb_1"
    assert middle.start_s == pytest.approx(utterances[0].duration_s, abs=1e-3)
    assert middle.duration_s == pytest.approx(utterances[1].duration_s, abs=1e-3)
    assert (middle.speaker, middle.language, middle.document) == ("100", "English", RECORDING)
    assert middle.audio.is_file()


def test_libriheavy_finds_its_audio_elsewhere_and_names_what_is_absent(heavy: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (heavy / "download" / "librilight").rename(elsewhere)
    with pytest.raises(MissingFileError, match="--audio-root"):
        libriheavy.candidates(heavy)
    taken, _ = split(libriheavy.candidates(heavy / "libriheavy_cuts_small.jsonl.gz", audio_root=elsewhere))
    assert len(taken) == 3
    assert all(candidate.audio.is_file() for candidate in taken.values())
    with pytest.raises(MissingFileError, match=r"no libriheavy_cuts_medium\.jsonl\.gz; found: libriheavy_cuts_small"):
        libriheavy.candidates(heavy, ["medium"], elsewhere)
    with pytest.raises(MissingFileError, match="no manifest of LibriHeavy"):
        libriheavy.candidates(elsewhere, [], elsewhere)


def test_libriheavy_takes_the_text_of_its_derived_manifests(heavy: Path) -> None:
    manifest = heavy / "libriheavy_cuts_small.jsonl.gz"
    cuts = [json.loads(line) for line in gzip.decompress(manifest.read_bytes()).splitlines()]
    for cut in cuts:
        del cut["supervisions"][0]["custom"]
        cut["supervisions"][0]["text"] = "UPPER CASE"
    (heavy / "libriheavy_cuts_dev.jsonl").write_text("".join(json.dumps(cut) + "\n" for cut in cuts))
    taken, _ = split(libriheavy.candidates(heavy, ["dev"]))
    assert {candidate.text for candidate in taken.values()} == {"UPPER CASE"}


def test_what_is_wrong_in_libriheavy_is_listed(heavy: Path) -> None:
    manifest = heavy / "libriheavy_cuts_small.jsonl.gz"
    lines = gzip.decompress(manifest.read_bytes()).splitlines()
    cut = json.loads(lines[0])
    no_text = json.loads(lines[0]) | {"id": "no-text"}
    del no_text["supervisions"][0]["custom"]
    no_start = {**cut, "id": "no-start", "start": None}
    bad = [b'{"id": ', b"[1]", json.dumps(no_text).encode(), json.dumps(no_start).encode(), b'{"id": "\xff"}']
    whole = gzip.compress(b"\n".join([*lines, *bad]) + b"\n")
    manifest.write_bytes(whole + gzip.compress(b"x" * 1000)[:-12])  # the next member breaks off
    taken, rejected = split(libriheavy.candidates(heavy))
    assert len(taken) == 3
    assert [item.place.rpartition(":")[2] for item in rejected.values()] == ["4", "5", "6", "7", "8", "9"]
    assert "not one of LibriHeavy's cuts" in rejected["line 4"].reason
    assert "not one of LibriHeavy's cuts" in rejected["line 5"].reason
    assert "lacks 'custom'" in rejected["no-text"].reason
    assert "not one of LibriHeavy's cuts" in rejected["no-start"].reason
    assert "not UTF-8" in rejected["line 8"].reason
    assert "breaks off after line 8" in rejected[manifest.name].reason


def test_libriheavy_becomes_a_prepared_folder(heavy: Path, shared_data: Path, tmp_path: Path) -> None:
    utterances = spoken(shared_data, "ljspeech_excerpt", 3)
    manifest = heavy / "libriheavy_cuts_small.jsonl.gz"
    beyond = heavy_cut(RECORDING, 9, 1000.0, utterances[0])
    absent = heavy_cut("small/100/none/none", 0, 0.0, utterances[0])
    more = "".join(json.dumps(cut) + "\n" for cut in (beyond, absent))
    manifest.write_bytes(manifest.read_bytes() + gzip.compress(more.encode()))
    summary = prepare_corpus(libriheavy.candidates(heavy), tmp_path / "out", dict(libriheavy.INFO))
    assert dict(summary.reasons) == {"span beyond the end": 1, "missing file": 1}
    cuts = read_cuts(tmp_path / "out")
    assert [text_of(cut) for cut in cuts] == [" ".join(utterance.text.split()) for utterance in utterances]
    for cut, utterance in zip(cuts, utterances, strict=True):
        assert cut.duration == pytest.approx(utterance.duration_s, abs=1e-3)
        assert cut.recording is not None
        assert cut.recording.duration == pytest.approx(sum(each.duration_s for each in utterances), abs=2e-3)
        heard = load_cut(cut, cut.sampling_rate)
        alone, _ = load_audio(utterance.path)
        np.testing.assert_allclose(heard, alone, atol=1e-4)


# --- Common Voice -----------------------------------------------------------------------------------------------------

HEADER = "client_id\tpath\tsentence_id\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tvariant\tlocale\tsegment"


@pytest.fixture
def voices(shared_data: Path, tmp_path: Path) -> Path:
    """A language of Common Voice: three digits as MP3 clips, a sentence with an unbalanced quotation mark."""
    folder = tmp_path / "cv-corpus" / "en"
    (folder / "clips").mkdir(parents=True)
    rows = [HEADER]
    for number, utterance in enumerate(spoken(shared_data, "fsdd", 3)):
        (folder / "clips" / f"common_voice_en_{number}.mp3").write_bytes(utterance.encoded("mp3"))
        sentence = f'"{utterance.text}' if number == 0 else utterance.text
        rows.append(f"abc{number}\tcommon_voice_en_{number}.mp3\ts{number}\t{sentence}\t2\t0\ttwenties\t\t\t\ten\t")
    (folder / "train.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_common_voice_clips_are_read_with_their_reader(voices: Path) -> None:
    taken, rejected = split(common_voice.candidates(voices))
    assert not rejected
    assert list(taken) == [f"common_voice_en_{number}" for number in range(3)]
    first = taken["common_voice_en_0"]
    assert (first.text, first.speaker, first.language) == ('"zero', "abc0", "en")
    assert (first.licence, first.source) == ("CC0 1.0", "Common Voice train")
    assert (first.custom, first.document) == ({"age": "twenties"}, None)
    assert first.audio.is_file()
    assert first.place.endswith("train.tsv:2")
    assert list(split(common_voice.candidates(voices.parent, language="en"))[0]) == list(taken)


def test_common_voice_says_what_it_looked_for(voices: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no validated\.tsv; found: train"):
        common_voice.candidates(voices, ["validated"])
    with pytest.raises(MissingFileError, match=r"no folder 'clips'.* by --language: en"):
        common_voice.candidates(voices.parent)
    with pytest.raises(MissingFileError, match="unpack the archive there"):
        common_voice.candidates(tmp_path)
    (voices / "dev.tsv").write_text("client_id\tpath\n")
    with pytest.raises(DataError, match=r"dev\.tsv:1 must name the columns .*, and sentence is not there"):
        common_voice.candidates(voices, ["dev"])


def test_a_line_of_common_voice_with_other_fields_is_listed(voices: Path) -> None:
    with (voices / "train.tsv").open("a", encoding="utf-8") as lines:
        lines.write("abc\tclip.mp3\ts\ttwo\ttabs\n")
    taken, rejected = split(common_voice.candidates(voices))
    assert len(taken) == 3
    assert rejected["line 5"].reason == "broken line: it has 5 fields and the table 12"


def test_common_voice_becomes_a_prepared_folder(voices: Path, tmp_path: Path) -> None:
    with (voices / "train.tsv").open("a", encoding="utf-8") as lines:
        lines.write("abc9\tcommon_voice_en_9.mp3\ts\tnine\t2\t0\t\t\t\t\ten\t\n")
    summary = prepare_corpus(common_voice.candidates(voices), tmp_path / "out", dict(common_voice.INFO))
    assert (summary.num_cuts, summary.num_speakers, summary.licence) == (3, 3, "CC0 1.0")
    assert dict(summary.reasons) == {"missing file": 1}
    assert read_cuts(tmp_path / "out")[0].custom["age"] == "twenties"


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prepares_librispeech(libri: Path, tmp_path: Path) -> None:
    told = prepared("librispeech", libri, "--split", "train-clean-5", "--out", tmp_path / "out")
    assert (told["num_utterances"], told["num_speakers"], told["num_rejected"]) == (3, 2, 0)
    assert told["licence"] == "CC BY 4.0"
    with pytest.raises(MissingFileError, match="no split train-clean-100; found"):
        prepared("librispeech", libri, "--split", "train-clean-100", "--out", tmp_path / "none")


def test_the_command_prepares_libriheavy(heavy: Path, tmp_path: Path) -> None:
    audio = tmp_path / "elsewhere"
    (heavy / "download" / "librilight").rename(audio)
    told = prepared("libriheavy", heavy, "--split", "small", "--audio-root", audio, "--out", tmp_path / "out")
    assert (told["num_utterances"], told["num_rejected"]) == (3, 0)


def test_the_command_prepares_common_voice(voices: Path, tmp_path: Path) -> None:
    told = prepared("common-voice", voices.parent, "--language", "en", "--split", "train", "--out", tmp_path / "out")
    assert (told["num_utterances"], told["num_speakers"], told["licence"]) == (3, 3, "CC0 1.0")
