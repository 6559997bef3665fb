"""The index of a prepared folder: what lhotse reads, at random and by id; made anew when it can't be trusted."""

import gzip
import json
import multiprocessing
import os
import pickle
import shutil
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

from salad.errors import AlignmentError, DataError, MissingFileError
from salad.speech import index as index_module
from salad.speech.identity import sound_hash
from salad.speech.index import INDEX_NAME, RECORDS_NAME, IndexedCuts
from salad.speech.prepared import CUTS_NAME, read_cuts, text_of, with_words, words_of, write_prepared


def cut(name, text, document=None, aligned=True):
    words = text.split()
    duration = 0.3 * len(words) + 0.5
    recording = Recording(name, [], 16000, int(duration * 16000), duration)
    spoken = SupervisionSegment(name, name, 0.0, duration, text=text, speaker="s", language="en")
    custom = {"document": document} if document is not None else None
    made = MonoCut(name, 0.0, duration, 0, supervisions=[spoken], recording=recording, custom=custom)
    return with_words(made, ((w, 0.3 * i + 0.1, 0.3 * i + 0.37, 0.9) for i, w in enumerate(words))) if aligned else made


def prepared(folder, cuts):
    write_prepared(folder, cuts, [], {"corpus": "test"})
    return folder


def chapters(folder):
    """Two chapters, then two cuts of no document."""
    texts = ["one two three", "four five", "six", "seven eight", "nine ten", "eleven"]
    documents = ["a", "a", "a", "b", None, None]
    return prepared(folder, [cut(f"u{i}", t, d) for i, (t, d) in enumerate(zip(texts, documents, strict=True))])


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12)
texts = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1, max_size=8), min_size=1, max_size=6
).map(" ".join)


@given(
    st.dictionaries(
        names, st.tuples(texts, st.sampled_from([None, "d", "é\u2028"]), st.booleans()), min_size=1, max_size=12
    )
)
@settings(deadline=None, max_examples=30)
def test_a_record_says_what_lhotse_reads(tmp_path_factory, rows):
    folder = prepared(tmp_path_factory.mktemp("corpus"), [cut(name, *row) for name, row in rows.items()])
    index, cuts = IndexedCuts(folder), read_cuts(folder)
    assert len(index) == len(cuts)
    for row, expected in enumerate(cuts):
        record = index[row]
        assert (record.id, record.duration_s, record.text) == (expected.id, expected.duration, text_of(expected))
        assert record.document == (expected.custom or {}).get("document")
        aligned = "word" in (expected.supervisions[0].alignment or {})
        assert record.words == (tuple(words_of(expected)) if aligned else ())
        assert index.num_words[row] == len(record.words)
        assert index.sounds[row] == sound_hash(expected, folder)
        assert index.row(expected.id) == row
    assert index.row("not there") is None
    assert index[-2:] == [index[i] for i in range(len(index))[-2:]]


def test_a_folder_without_a_cut_has_an_empty_index(tmp_path):
    index = IndexedCuts(prepared(tmp_path, []))
    assert list(index) == []
    assert index.row("x") is None


def test_ids_of_one_hash_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "id_hash", len)
    index = IndexedCuts(chapters(tmp_path))
    assert [index.row(f"u{i}") for i in range(6)] == list(range(6))
    assert index.row("u7") is None
    assert index.rows_of(["u3", "u0"]).tolist() == [3, 0]
    with pytest.raises(DataError, match=r"no cut 'u7' \(2 of"):
        index.rows_of(["u3", "u7", "u8"])


def test_the_hash_of_the_cuts_does_not_depend_on_where_they_and_their_audio_lie(tmp_path):
    def hashed(folder, audio, text="one two", order=1):
        cuts = [cut("a", text), cut("b", "three")]
        for one in cuts:
            one.recording.sources = [AudioSource("file", [0], str(audio / f"{one.id}.flac"))]
        return IndexedCuts(prepared(tmp_path / folder, cuts[::order])).sha256

    inside = hashed("mine", (tmp_path / "mine").resolve() / "audio")
    assert len(inside) == 64
    assert hashed("yours", Path("/somewhere/else")) == inside
    assert hashed("renamed", Path("/somewhere/else"), order=-1) != inside
    assert hashed("reworded", Path("/somewhere/else"), "one too") != inside
    other = prepared(tmp_path / "other", [cut("a", "one two"), cut("b", "three")])
    assert IndexedCuts(other).sha256 != inside, "without audio"


def test_an_id_that_stands_twice_is_refused(tmp_path):
    folder = prepared(tmp_path, [cut("same", "one two"), cut("other", "three")])
    content = gzip.decompress((folder / CUTS_NAME).read_bytes())
    (folder / CUTS_NAME).write_bytes(gzip.compress(content + content.splitlines(keepends=True)[0]))
    with pytest.raises(DataError, match="'same' stands twice"):
        IndexedCuts(folder)
    assert not [entry for entry in (folder / INDEX_NAME).iterdir() if entry.is_dir()]


def test_the_continuation_comes_from_the_same_document(tmp_path):
    index = IndexedCuts(chapters(tmp_path))
    assert index.continuation(0, (), 100) == "four five six"
    assert index.continuation(0, (), 2) == "four five"
    assert index.continuation(0, (), 3) == "four five six"
    assert index.continuation(0, {2}, 3) == "four five"
    assert index.continuation(0, {1}, 3) == ""
    assert index.continuation(1, {0}, 100) == "six"
    assert [index.continuation(row, (), 100) for row in (2, 3, 4, 5)] == [""] * 4


def test_the_index_follows_the_cuts(tmp_path):
    folder = prepared(tmp_path, [cut("a", "one two")])
    first = IndexedCuts(folder)
    places = lambda: [entry.name for entry in (folder / INDEX_NAME).iterdir() if entry.is_dir()]  # noqa: E731
    made = places()
    IndexedCuts(folder)
    assert places() == made
    prepared(folder, [cut("b", "three four five"), cut("c", "six")])
    assert [record.id for record in IndexedCuts(folder)] == ["b", "c"]
    assert len(places()) == 1
    assert places() != made
    assert first[0].id == "a"  # a process that has the older one open keeps it


def test_it_is_not_made_anew_without_need(tmp_path, monkeypatch):
    folder = chapters(tmp_path)
    before = pickle.dumps(IndexedCuts(folder))
    monkeypatch.setattr(index_module, "_make", lambda *_: pytest.fail("made again"))
    again = pickle.loads(before)
    assert len(before) < 500
    assert [record.id for record in again] == [f"u{i}" for i in range(6)]


@pytest.mark.parametrize(
    "name",
    [
        "whole.json",
        RECORDS_NAME,
        "offsets.npy",
        "checksums.npy",
        "num_words.npy",
        "sounds.npy",
        "hashes.npy",
        "rows.npy",
    ],
)
@pytest.mark.parametrize("damage", ["gone", "cut short", "other bytes"])
def test_a_damaged_index_is_made_anew(tmp_path, name, damage):
    folder = chapters(tmp_path)
    expected = list(IndexedCuts(folder))
    path = next((folder / INDEX_NAME).glob(f"*/{name}"))
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(content[:-3])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    index = IndexedCuts(folder)
    assert list(index) == expected
    assert [index.row(record.id) for record in expected] == list(range(6))


def test_a_record_that_is_damaged_while_the_index_is_open_is_made_anew(tmp_path):
    folder = chapters(tmp_path)
    index = IndexedCuts(folder)
    expected = list(index)
    path = next((folder / INDEX_NAME).glob(f"*/{RECORDS_NAME}"))
    path.write_bytes(path.read_bytes().replace(b"three", b"eerht"))
    assert [index[row] for row in range(6)] == expected


def test_what_a_stopped_process_left_is_cleared_away(tmp_path):
    folder = chapters(tmp_path)
    left = folder / INDEX_NAME / ".tmp-1"
    left.mkdir(parents=True)
    (left / RECORDS_NAME).write_text("half")
    assert len(IndexedCuts(folder)) == 6
    assert not left.exists()


def _num_cuts(folder: Path) -> int:
    return len(IndexedCuts(folder))


def test_many_processes_may_ask_at_once(tmp_path):
    folder = prepared(tmp_path, [cut(f"u{i}", "one two three") for i in range(300)])
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(_num_cuts, [folder] * 8) == [300] * 8
    assert sorted(entry.name[:2] for entry in (folder / INDEX_NAME).iterdir()) == [".l", f"v{index_module.VERSION}"]


def test_where_the_folder_is_read_only_the_cache_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr("salad.derived._can_write", lambda home: "cache" in str(home))
    monkeypatch.setenv("SALAD_CACHE", str(tmp_path / "cache"))
    folder = chapters(tmp_path / "corpus")
    assert len(IndexedCuts(folder)) == 6
    assert not (folder / INDEX_NAME).exists()
    monkeypatch.setattr(index_module, "_make", lambda *_: pytest.fail("made again"))
    assert len(IndexedCuts(folder)) == 6


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{not json", "JSONDecodeError"),
        (b'{"id": "x", "duration": 1.0}', "KeyError"),
        (b'{"id": "x", "duration": 1.0, "supervisions": []}', "IndexError"),
    ],
)
def test_a_line_that_is_no_cut_is_refused_with_its_place(tmp_path, line, said):
    folder = chapters(tmp_path)
    content = gzip.decompress((folder / CUTS_NAME).read_bytes())
    (folder / CUTS_NAME).write_bytes(gzip.compress(content + line + b"\n"))
    with pytest.raises(DataError, match=rf"cuts\.jsonl\.gz:7 .*{said}.*prepare"):
        IndexedCuts(folder)


def test_cuts_cut_short_are_refused_with_their_place(tmp_path):
    folder = chapters(tmp_path)
    (folder / CUTS_NAME).write_bytes((folder / CUTS_NAME).read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cuts\.jsonl\.gz:\d+ .*EOFError"):
        IndexedCuts(folder)


def test_timings_of_another_text_are_refused_with_the_utterance(tmp_path):
    made = cut("u9", "one two")
    made.supervisions[0].text = "one deux"
    with pytest.raises(AlignmentError, match=r"'u9'.*align it again"):
        IndexedCuts(prepared(tmp_path, [made]))


def test_a_folder_that_was_never_prepared_says_how(tmp_path):
    with pytest.raises(MissingFileError, match="salad prepare"):
        IndexedCuts(tmp_path)


def test_cuts_that_are_written_meanwhile_are_refused(tmp_path, monkeypatch):
    folder = chapters(tmp_path)
    make = index_module._make

    def make_and_touch(source, out):
        make(source, out)
        time.sleep(0.01)
        os.utime(source)

    monkeypatch.setattr(index_module, "_make", make_and_touch)
    with pytest.raises(DataError, match="changes while it is read"):
        IndexedCuts(folder)


def test_making_it_holds_a_few_bytes_a_cut(tmp_path):
    """Peak memory of 4,000 cuts less that of 1,000, a cut."""
    peaks = []
    for num in (1_000, 4_000):
        folder = tmp_path / str(num)
        folder.mkdir()
        line = json.dumps(cut("NAME", "one two three four five six").to_dict()).encode() + b"\n"
        with gzip.open(folder / CUTS_NAME, "wb", compresslevel=1) as file:
            file.writelines(line.replace(b"NAME", f"cut-{i}".encode()) for i in range(num))
        tracemalloc.start()
        assert len(IndexedCuts(folder)) == num
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        shutil.rmtree(folder)
    assert (peaks[1] - peaks[0]) / 3_000 < 120
