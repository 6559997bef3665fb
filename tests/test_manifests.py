"""Every way a folder can say what is spoken in it, and manifests that say nothing sensible."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.supervision import AlignmentItem

from salad.errors import DataError, MissingFileError, RecipeError, SaladError
from salad.speech.audio import load_audio, load_cut
from salad.speech.corpora import folder
from salad.speech.corpora.alignments import Alignments
from salad.speech.intake import Summary
from salad.speech.prepared import read_cuts, read_info, text_of, words_of

RATE_HZ = 8_000
TALK_S = 10.0
WORDS = "so it goes on"
SPANS = [("anna-1", 0.5, 2.0, "so it goes"), ("bert-1", 2.5, 1.25, "and on")]
"""Utterances in talk.flac: id, start, duration, text; the speaker's name begins the id."""


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """A folder with audio alone: talk.flac of ten seconds, clips/a.flac and clips/b.wav of one."""
    rng = np.random.default_rng(0)
    for name, seconds in (("talk.flac", TALK_S), ("clips/a.flac", 1.0), ("clips/b.wav", 1.0)):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.uniform(-0.3, 0.3, int(seconds * RATE_HZ)), RATE_HZ)
    return tmp_path / "corpus"


def rejected_of(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / "rejected.jsonl").read_text().split("\n") if line]


def jsonl(path: Path, *rows: Any) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def clips(path: Path, delimiter: str) -> None:
    path.write_text(
        f"path{delimiter} Sentence {delimiter}client_id{delimiter}locale\n"
        f"clips/a.flac{delimiter}so it goes on{delimiter}7{delimiter}en\n"
        f"clips/b.wav{delimiter}so it goes on{delimiter}{delimiter}de\n"
    )


def check_clips(summary: Summary) -> None:
    first, second = read_cuts(summary.out)
    assert (first.id, second.id) == ("a", "b")
    assert text_of(first) == text_of(second) == WORDS
    assert [cut.supervisions[0].speaker for cut in (first, second)] == ["7", None]
    assert [cut.supervisions[0].language for cut in (first, second)] == ["en", "de"]
    assert rejected_of(summary.out) == []


@pytest.mark.parametrize(("name", "delimiter"), [("metadata.csv", ","), ("clips.tsv", "\t")])
def test_tables(name: str, delimiter: str, talk: Path, tmp_path: Path) -> None:
    clips(talk / name, delimiter)
    check_clips(folder.prepare(talk, tmp_path / "out"))


def test_json_lines_under_other_names(talk: Path, tmp_path: Path) -> None:
    jsonl(
        talk / "train.json",
        {"wav": "clips/a.flac", "transcript": WORDS, "speaker_id": 7, "lang": "en"},
        {"file_name": "clips/b.wav", "transcription": WORDS, "LOCALE": "de", "speaker": None},
    )
    check_clips(folder.prepare(talk, tmp_path / "out"))


def nemo(talk: Path) -> None:
    rows = [
        {
            "audio_filepath": "talk.flac",
            "offset": start,
            "duration": length,
            "text": text,
            "utt_id": name,
            "spk_id": name[:4],
        }
        for name, start, length, text in SPANS
    ]
    jsonl(talk / "manifest.json", *rows)


def kaldi(talk: Path) -> None:
    (talk / "wav.scp").write_text("talk talk.flac\n")
    (talk / "segments").write_text(
        "".join(f"{name} talk {start} {start + length}\n" for name, start, length, _ in SPANS)
    )
    (talk / "text").write_text("".join(f"{name}\t{text}\n" for name, _, _, text in SPANS))
    (talk / "utt2spk").write_text("".join(f"{name} {name[:4]}\n" for name, _, _, _ in SPANS))


def lhotse_pair(talk: Path, suffix: str = ".jsonl.gz") -> tuple[RecordingSet, SupervisionSet]:
    recording = Recording.from_file(talk / "talk.flac", recording_id="talk")
    supervisions = []
    for name, start, length, text in SPANS:
        words = text.split()
        step = length / len(words)
        timings = [AlignmentItem(word, start + i * step, step) for i, word in enumerate(words)]
        supervisions.append(
            SupervisionSegment(name, "talk", start, length, text=text, speaker=name[:4], alignment={"word": timings})
        )
    pair = RecordingSet.from_recordings([recording]), SupervisionSet.from_segments(supervisions)
    pair[0].to_file(talk / f"x_recordings{suffix}")
    pair[1].to_file(talk / f"x_supervisions{suffix}")
    return pair


def lhotse_cuts(talk: Path) -> None:
    recordings, supervisions = lhotse_pair(talk)
    cuts = CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
    cuts = CutSet.from_cuts(cut.truncate(offset=0.4, duration=4.0) for cut in cuts)  # times count from the cut's start
    cuts.to_file(talk / "cuts.jsonl")
    (talk / "x_recordings.jsonl.gz").unlink()
    (talk / "x_supervisions.jsonl.gz").unlink()


@pytest.mark.parametrize("write", [nemo, kaldi, lhotse_pair, lhotse_cuts])
def test_spans_of_a_long_recording(write: Callable[[Path], Any], talk: Path, tmp_path: Path) -> None:
    write(talk)
    summary = folder.prepare(talk, tmp_path / "out")
    assert rejected_of(summary.out) == []
    whole, _ = load_audio(talk / "talk.flac")
    for cut, (name, start, length, text) in zip(read_cuts(summary.out), SPANS, strict=True):
        assert (cut.id, cut.start, cut.duration, text_of(cut)) == (name, start, length, text)
        assert cut.supervisions[0].speaker == name[:4]
        assert (load_cut(cut, RATE_HZ) == whole[int(start * RATE_HZ) : int((start + length) * RATE_HZ)]).all()
        if write in (lhotse_pair, lhotse_cuts):
            starts, ends = [word.start_s for word in words_of(cut)], [word.end_s for word in words_of(cut)]
            step = length / len(text.split())
            assert starts == pytest.approx([i * step for i in range(len(starts))], abs=2e-4)
            assert ends == pytest.approx([(i + 1) * step for i in range(len(starts))], abs=2e-4)


def test_a_prepared_folder_is_a_lhotse_manifest_too(talk: Path, tmp_path: Path) -> None:
    lhotse_cuts(talk)
    first = folder.prepare(talk, tmp_path / "first")
    again = folder.prepare(first.out, tmp_path / "again")
    assert [cut.to_dict() for cut in read_cuts(again.out)] == [cut.to_dict() for cut in read_cuts(first.out)]


def test_texts_beside_audio(talk: Path, tmp_path: Path) -> None:
    (talk / "clips" / "a.txt").write_text("so it goes\non\n")
    (talk / "clips" / "b.lab").write_text(WORDS)
    (talk / "README.txt").write_text("about this")
    summary = folder.prepare(talk, tmp_path / "out")
    assert [(cut.id, text_of(cut)) for cut in read_cuts(summary.out)] == [("clips-a", WORDS), ("clips-b", WORDS)]
    reasons = {row["id"]: row["reason"] for row in rejected_of(summary.out)}
    assert reasons == {
        "README": "no audio: there is none beside README.txt",
        "talk": "no transcript: there is no talk.txt beside it",
    }


# --- which manifest -------------------------------------------------------------------------------------------------


def test_it_must_be_clear_which_manifest(talk: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="holds no manifest"):
        folder.prepare(talk, tmp_path / "out")
    clips(talk / "one.csv", ",")
    clips(talk / "two.tsv", "\t")
    with pytest.raises(DataError, match=r"the folder holds one\.csv, two\.tsv; name one by --manifest"):
        folder.prepare(talk, tmp_path / "out")
    with pytest.raises(MissingFileError, match=r"three\.csv does not exist; the folder holds one\.csv"):
        folder.prepare(talk, tmp_path / "out", manifest="three.csv")
    check_clips(folder.prepare(talk, tmp_path / "out", manifest="two.tsv"))
    (talk / "notes").write_bytes((talk / "two.tsv").read_bytes())
    check_clips(folder.prepare(talk, tmp_path / "out", manifest="notes", style="tsv"))
    jsonl(talk / "manifest.jsonl", {"audio": "clips/a.flac", "text": "so"})
    assert folder.prepare(talk, tmp_path / "out").num_cuts == 1
    with pytest.raises(RecipeError, match="--format excel: choose jsonl, csv"):
        folder.prepare(talk, tmp_path / "out", style="excel")
    with pytest.raises(MissingFileError, match="nowhere is not a folder"):
        folder.prepare(tmp_path / "nowhere", tmp_path / "out")


def test_a_table_without_the_columns_says_which_it_has(talk: Path, tmp_path: Path) -> None:
    (talk / "a.csv").write_text("wave,words\nclips/a.flac,so\n")
    with pytest.raises(DataError, match=r"a\.csv has no columns of audio and text in its first line but wave, words"):
        folder.prepare(talk, tmp_path / "out")


def test_bad_rows_of_a_table(talk: Path, tmp_path: Path) -> None:
    clips(talk / "a.csv", ",")
    with (talk / "a.csv").open("ab") as file:
        file.write(
            b'clips/a.flac,"so\nit goes",1,en\n\xff,so,1,en\nclips/a.flac,so,it\n,so,1,en\n"clips/a.flac","a ""b""",,\n'
        )
    summary = folder.prepare(talk, tmp_path / "out")
    assert [(cut.id, text_of(cut)) for cut in read_cuts(summary.out)][2:] == [("a-9", 'a "b"')]
    reasons = [(row["place"].rpartition(":")[2], row["reason"].split(":")[0]) for row in rejected_of(summary.out)]
    assert reasons == [
        (line, kind)
        for line, kind in zip("45678", 2 * ["broken line"] + ["not text", "broken line", "no audio"], strict=True)
    ]


def test_what_kaldi_can_say_and_can_not(talk: Path, tmp_path: Path) -> None:
    (talk / "wav.scp").write_text(
        f"a clips/a.flac\nabs {talk / 'talk.flac'}\nark feats.ark:17\nb clips/b.wav\nb clips/a.flac\n"
        "pipe sph2pipe -f wav x.sph |\nsilent clips/b.wav\n"
    )
    (talk / "text").write_text("a so it goes\nabs so\nark so\nb so\nnowhere so\npipe so it goes\n")
    (talk / "utt2lang").write_text("a en\n")
    summary = folder.prepare(talk, tmp_path / "out")
    assert [cut.id for cut in read_cuts(summary.out)] == ["a", "abs", "b"]
    reasons = {row["id"]: row["reason"] for row in rejected_of(summary.out)}
    assert {name: reason.split(":")[0] for name, reason in reasons.items()} == {
        "ark": "Kaldi archive", "b": "duplicate id", "nowhere": "no audio", "pipe": "piped command",
        "silent": "no transcript",
    }  # fmt: skip
    assert "run it once to write a file" in reasons["pipe"]
    (talk / "segments").write_text("a abs 1 2.5\nb abs 3 -1\nabs talk 2 1\nark abs x y\nnowhere gone 0 1\n")
    summary = folder.prepare(talk, tmp_path / "out")
    assert [(cut.id, cut.start, cut.duration) for cut in read_cuts(summary.out)] == [("a", 1.0, 1.5), ("b", 3.0, 7.0)]
    assert [row["id"] for row in rejected_of(summary.out)] == ["b", "abs", "ark", "nowhere", "pipe"]


def test_what_lhotse_computes_is_not_taken(talk: Path, tmp_path: Path) -> None:
    soundfile.write(talk / "two.wav", np.random.default_rng(0).uniform(-0.3, 0.3, (RATE_HZ, 2)), RATE_HZ)
    spoken = SupervisionSegment("s", "r", 0, 1.0, text="so it goes")

    def cut_of(name: str, file: str = "clips/a.flac") -> Any:
        cut = Recording.from_file(talk / file, recording_id="r").to_cut()
        cut.id, cut.supervisions = name, [spoken]
        return cut

    mono, both = cut_of("left", "two.wav").to_mono()[0], cut_of("both", "two.wav")
    fast, without = cut_of("fast").perturb_speed(1.1), cut_of("without")
    without.supervisions = []
    remote = cut_of("remote")
    remote.recording.sources[0].type, remote.recording.sources[0].source = "url", "https://example.org/a.flac"
    mixed = cut_of("mixed").append(cut_of("other"))
    CutSet.from_cuts([cut_of("whole"), mono, both, fast, without, remote, mixed]).to_file(talk / "cuts.jsonl.gz")
    summary = folder.prepare(talk, tmp_path / "out")
    assert [cut.id for cut in read_cuts(summary.out)] == ["whole", "both"]
    kinds = [row["reason"].split(":")[0] for row in rejected_of(summary.out)]
    assert kinds == ["one channel of several", "transformed recording", "no transcript", "no audio", "not a recording"]


def test_timings_in_a_file_of_their_own(talk: Path, tmp_path: Path) -> None:
    rows = [
        {"id": name, "audio": f"clips/{file}", "text": "So it goes, on!"}
        for name, file in [("a", "a.flac"), ("b", "b.wav")]
    ]
    jsonl(talk / "manifest.jsonl", *rows, rows[0] | {"id": "c"}, rows[0] | {"id": "d"}, rows[0] | {"id": "e"})
    timings = [["", 0, 0.1], ["so", 0.1, 0.2], ["it", 0.2, 0.4], ["goes", 0.4, 0.7], ["on", 0.7, 1.0]]
    jsonl(
        talk / "alignments.jsonl",
        {"id": "b", "words": timings[:-1]},
        {"id": "a", "words": timings},
        {"id": "c", "words": [*timings[:-1], ["on", 0.7, 1.2]]},
        {"id": "d", "words": 5},
        {"words": timings},
    )
    summary = folder.prepare(talk, tmp_path / "out", alignments=talk / "alignments.jsonl")
    cuts = {cut.id: cut for cut in read_cuts(summary.out)}
    assert cuts.keys() == {"a", "b", "d", "e"}
    assert [word.text for word in words_of(cuts["a"])] == "So it goes, on!".split()
    assert cuts["b"].supervisions[0].alignment is cuts["e"].supervisions[0].alignment is None
    assert summary.reasons == (("word timing beyond the end", 1),)
    assert read_info(summary.out)["alignments"] == {"used": 2, "of_other_words": 1, "unreadable": 2}
    with pytest.raises(MissingFileError, match=r"gone\.jsonl does not exist"):
        Alignments(talk / "gone.jsonl")


# --- manifests that say nothing sensible ----------------------------------------------------------------------------

KEYS = ["id", "audio", "text", "duration", "offset", "speaker", "language", "words", "licence", "other"]
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["a.flac", "so it", "\0"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6
)
json_rows = st.dictionaries(st.sampled_from(KEYS), values, max_size=8) | values
lines = (
    json_rows.map(lambda row: json.dumps(row).encode())
    | st.binary(max_size=60)
    | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass"))
)


@pytest.fixture(scope="module")
def one_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.3, 0.3, RATE_HZ), RATE_HZ)
    return path


def counted(home: Path, manifest: str, content: bytes, clip: Path, style: str | None = None) -> tuple[int, int]:
    """How many utterances of a manifest are kept and rejected, as the files say; a good row is put at its end."""
    (home / "a.flac").symlink_to(clip)
    (home / manifest).write_bytes(content)
    folder.prepare(home, home / "out", manifest=manifest, style=style)
    rejected = rejected_of(home / "out")
    assert all({"id", "reason", "place"} == row.keys() and row["reason"] for row in rejected)
    return len(read_cuts(home / "out")), len(rejected)


@settings(max_examples=100, deadline=None)
@given(st.lists(lines, max_size=4))
def test_no_json_line_vanishes_or_stops_the_rest(one_clip: Path, some: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as home:
        good = json.dumps({"id": "the good one", "audio": "a.flac", "text": "so it goes"}).encode()
        content = b"\n".join([*some, good])
        kept, rejected = counted(Path(home), "m.jsonl", content, one_clip, "jsonl")
        assert kept >= 1
        text = content.removeprefix(b"\xef\xbb\xbf")
        assert kept + rejected == sum(bool(line.strip()) for line in text.split(b"\n"))


cells = st.text(max_size=20) | st.sampled_from(["a.flac", "so it goes", "1.0", "-1", "nan", '"', "a\nb", "x,y"])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(cells, min_size=4, max_size=6), max_size=4), st.sampled_from(["csv", "tsv"]), st.booleans())
def test_no_table_row_vanishes_or_stops_the_rest(
    one_clip: Path, rows: list[list[str]], style: str, quoted: bool
) -> None:
    buffer = io.StringIO()
    if quoted:
        csv.writer(buffer, lineterminator="\n").writerows(rows)
    else:
        buffer.write("".join(("," if style == "csv" else "\t").join(row) + "\n" for row in rows))
    delimiter = "," if style == "csv" else "\t"
    header = delimiter.join(["audio", "text", "duration", "words"])
    good = delimiter.join(["a.flac", "so it goes", "1.0", ""])
    content = f"{header}\n{buffer.getvalue()}{good}\n".encode("utf-8", "replace")
    with tempfile.TemporaryDirectory() as home:
        kept, rejected = counted(Path(home), f"m.{style}", content, one_clip)
        assert kept >= 1
        assert kept + rejected == sum(bool(line.strip()) for line in content.split(b"\n")) - 1


@settings(max_examples=60, deadline=None)
@given(st.lists(lines, max_size=3), st.sampled_from(["kaldi", "lhotse", "jsonl", "csv", "tsv"]))
def test_no_bytes_of_any_format_raise_more_than_a_sentence(one_clip: Path, some: list[bytes], style: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        names = ["wav.scp", "text", "segments"] if style == "kaldi" else ["m"]
        for name in names:
            (Path(home) / name).write_bytes(b"\n".join(some))
        with suppress(SaladError):
            folder.prepare(Path(home), Path(home) / "out", manifest=None if style == "kaldi" else "m", style=style)
