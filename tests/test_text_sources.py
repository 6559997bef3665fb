"""Texts from JSON lines, Parquet, plain text, datasets and WordNet: what is taken, what not and why, and going on."""

from __future__ import annotations

import gzip
import json
import math
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salad.cli.texts import prepare_texts
from salad.errors import AssetError, DataError, MissingFileError, RecipeError
from salad.files import read_json, read_jsonl
from salad.texts import ledger, readers, sources
from salad.texts.rows import TextSettings
from salad.texts.sources import prepare_text
from salad.texts.text import Text, read_texts


def prepared(source: Path | str, out: Path, **options) -> tuple[list[Text], list[dict[str, str]]]:
    prepare_text(TextSettings(str(source), **options), out)
    return read_texts(out / "texts.jsonl"), read_jsonl(out / "rejected.jsonl")


def reasons(rejected: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(row["place"].rpartition("/")[2], row["reason"]) for row in rejected]


def write_rows(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# --- what a row becomes -----------------------------------------------------------------------------------------------

BAD_LINES = [
    (b'{"id": "x", "text": ', "broken JSON: "),
    (b'"a text"', "not a JSON object: the line is str"),
    (b"[" * 100_000, "broken JSON: "),
    (b'{"id": "x", "text": "caf\xe9 au lait"}', "not UTF-8: invalid continuation byte at byte 24 of the line"),
    (b'{"id": "x"}', "no text: there is no 'text', only id"),
    (b'{"id": "x", "text": null}', "no text: there is no 'text'"),
    (b'{"id": "x", "text": NaN}', "not a string: 'text' is float (nan)"),
    (b'{"id": "x", "text": 12}', "not a string: 'text' is int (12)"),
    (b'{"id": "x", "text": ["a", "b"]}', "not a string: 'text' is list"),
    (b'{"id": "x", "text": ""}', "empty text"),
    (b'{"id": "x", "text": " \\n\\u2028 "}', "empty text"),
    (b'{"id": "x", "text": "-- ... !"}', "no words: "),
    (b'{"id": "x", "text": "half a \\ud800 pair"}', "half a character: "),
    (b'{"id": "x", "text": "two words"}', "fewer than 3 words"),
    (b'{"id": "x", "text": "one two three four five six seven"}', "more than 6 words"),
    (b'{"id": "x", "text": "A GOOD text!"}', "duplicate text: the same as line 1 of texts.jsonl"),
    (b'{"id": "first", "text": "another text altogether"}', "duplicate id: the same as line 1 of texts.jsonl"),
    (b'{"id": ["x"], "text": "this has a strange id"}', "not a string: 'id' is list"),
    (b'{"id": "x", "text": "this has a strange title", "title": {}}', "not a string: 'title' is dict"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=[reason for _, reason in BAD_LINES])
def test_a_bad_row_is_listed_with_its_reason_and_place(tmp_path, line, reason):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'{"id": "first", "text": "a good text"}\n\n' + line + b'\n{"text": "and one more"}\n')
    texts, rejected = prepared(path, tmp_path / "out", min_words=3, max_words=6)
    assert [text.text for text in texts] == ["a good text", "and one more"]
    assert [text.id for text in texts] == ["first", "corpus-000004"]
    (row,) = rejected
    assert row["place"] == f"{path}:3"
    assert reason in row["reason"]
    assert row["id"] in {"x", "first", "corpus-000003"}
    info = read_json(tmp_path / "out" / "info.json")
    assert (info["num_texts"], info["num_words"], info["num_rejected"]) == (2, 6, 1)


def test_id_and_text_suffice_and_the_rest_is_kept_where_it_is_stated(tmp_path):
    rows = [
        {"id": "a", "text": "  only these two \n"},
        {"id": 7, "text": "all of it", "domain": "news", "source": "s", "licence": "CC0", "title": "T"},
        {"id": "c", "text": "spelled otherwise", "license": "MIT", "domain": None, "title": math.nan},
    ]
    path = write_rows(tmp_path / "t.jsonl", rows)
    texts, rejected = prepared(path, tmp_path / "out", licence="CC BY 4.0")
    assert rejected == []
    assert texts == [
        Text("a", "  only these two \n", "all", str(path), "CC BY 4.0"),
        Text("7", "all of it", "news", "s", "CC0", "T"),
        Text("c", "spelled otherwise", "all", str(path), "MIT"),
    ]
    assert read_texts(write_rows(tmp_path / "bare.jsonl", rows[:1])) == [
        Text("a", "  only these two \n", "all", "bare.jsonl", "not stated")
    ]


def test_columns_by_name(tmp_path):
    rows = [{"body": "the first text", "topic": 3}, {"body": "the second text"}]
    path = write_rows(tmp_path / "t.jsonl", rows)
    texts, rejected = prepared(path, tmp_path / "out", text_column="body", domain_column="topic")
    assert [(text.text, text.domain) for text in texts] == [("the first text", "3")]
    assert reasons(rejected) == [("t.jsonl:2", "no domain: 'topic' is missing")]


def test_lines_end_at_a_line_feed_alone_and_the_text_stays_as_it_is(tmp_path):
    text = "one\u2028two\u0085three\x0bfour\r\nfive"
    path = tmp_path / "t.jsonl"
    path.write_text("\ufeff" + json.dumps({"id": "a", "text": text}, ensure_ascii=False) + "\r\n", encoding="utf-8")
    texts, rejected = prepared(path, tmp_path / "out")
    assert [row.text for row in texts] == [text]
    assert rejected == []


def test_no_row_that_can_be_used_is_an_error_that_says_why(tmp_path):
    path = write_rows(tmp_path / "t.jsonl", [{"body": "x"}] * 3)
    with pytest.raises(DataError, match=r"none of 3 rows.*t\.jsonl:1: no text: there is no 'text', only body"):
        prepared(path, tmp_path / "out")
    assert len(read_jsonl(tmp_path / "out" / "rejected.jsonl")) == 3
    assert not (tmp_path / "out" / "texts.jsonl").exists()


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (lambda d: d / "missing.jsonl", {}, MissingFileError, "does not exist; a dataset of the hub is written hub:"),
        (lambda d: write_rows(d / "t.csv", []), {}, DataError, "its name says no kind of text file"),
        (lambda d: d, {}, DataError, "no text file"),
        (lambda d: write_rows(d / "t.jsonl", []), {}, DataError, "holds no text"),
        (lambda d: write_rows(d / "t.parquet", ["x"]), {}, DataError, "not readable as Parquet"),
        (lambda d: write_rows(d / "t.jsonl", []), {"limit": 0}, RecipeError, "--limit 0"),
        (lambda d: write_rows(d / "t.jsonl", []), {"min_words": 9, "max_words": 8}, RecipeError, "at least 9 and at"),
    ],
)
def test_what_can_not_be_read_is_said_in_a_sentence(tmp_path, make, options, error, message):
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(error, match=message):
        prepared(make(folder), tmp_path / "out", **options)


def test_a_folder_of_several_kinds_is_refused(tmp_path):
    write_rows(tmp_path / "a.jsonl", [])
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"files of 2 kinds \(JSON lines, plain text\)"):
        prepared(tmp_path, tmp_path / "out")


# --- plain text -------------------------------------------------------------------------------------------------------

PLAIN = "\n\nFirst line,\r\nsecond line.\n \nAnother\u2028paragraph\nof two lines.\n\n\nLast"


@pytest.mark.parametrize(
    ("per", "expected"),
    [
        (
            "line",
            [
                (3, "First line,"),
                (4, "second line."),
                (6, "Another\u2028paragraph"),
                (7, "of two lines."),
                (10, "Last"),
            ],
        ),
        ("paragraph", [(3, "First line,\r\nsecond line."), (6, "Another\u2028paragraph\nof two lines."), (10, "Last")]),
        ("file", [(3, PLAIN.strip())]),
    ],
)
def test_plain_text_by_line_paragraph_and_file(tmp_path, per, expected):
    path = tmp_path / "book.txt"
    path.write_bytes(PLAIN.encode())
    texts, rejected = prepared(path, tmp_path / "out", per=per)
    assert [(text.id, text.text) for text in texts] == [(f"book-{number:06}", text) for number, text in expected]
    assert rejected == []


@pytest.mark.parametrize("per", ["line", "paragraph"])
def test_broken_plain_text_costs_one_text(tmp_path, per):
    path = tmp_path / "book.txt"
    path.write_bytes(b"good one\n\nbad \xff one\n\ngood two\n")
    texts, rejected = prepared(path, tmp_path / "out", per=per)
    assert [text.text for text in texts] == ["good one", "good two"]
    assert reasons(rejected) == [("book.txt:3", "not UTF-8: invalid start byte at byte 4 of the text")]


@pytest.mark.parametrize("per", ["line", "paragraph"])
def test_a_text_that_memory_should_not_hold_is_refused(tmp_path, monkeypatch, per):
    monkeypatch.setattr(readers, "MAX_TEXT_BYTES", 64)
    path = tmp_path / "book.txt"
    path.write_text("before\n\n" + "word " * 1000 + "\n\nafter\n\n" + "a line\n" * 50 + "\nlast\n")
    texts, rejected = prepared(path, tmp_path / "out", per=per)
    assert [text.text for text in texts] == ["before", "after", *(["a line"] if per == "line" else []), "last"]
    too_long = [row["reason"] for row in rejected if "too long to hold" in row["reason"]]
    assert len(too_long) == (1 if per == "line" else 2)


# --- Parquet ----------------------------------------------------------------------------------------------------------


def write_parquet(path: Path, rows: int, group: int = 3, **more: list[object]) -> Path:
    table = pa.table({"text": [f"text number {i} of them" for i in range(rows)], "score": list(range(rows)), **more})
    parquet.write_table(table, path, row_group_size=group)
    return path


def test_parquet_by_row_groups_with_bad_values(tmp_path):
    values = [b"a good text", None, b"bad \xff bytes", b"", b"the last text"]
    column = pa.array(values, pa.binary()).view(pa.string())
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"text": column, "title": ["A", None, "C", "D", "E"]}), path, row_group_size=2)
    texts, rejected = prepared(path, tmp_path / "out")
    assert [(text.id, text.text, text.title) for text in texts] == [
        ("t-000001", "a good text", "A"),
        ("t-000005", "the last text", "E"),
    ]
    assert reasons(rejected) == [
        ("t.parquet, row 2", "no text: there is no 'text', only text, title"),
        ("t.parquet, row 3", "not UTF-8: invalid start byte at byte 4 of 'text'"),
        ("t.parquet, row 4", "empty text"),
    ]


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    path = write_parquet(tmp_path / "t.parquet", 3)
    with pytest.raises(DataError, match=r"no column 'texts', only text, score; did you mean 'text'\?"):
        prepared(path, tmp_path / "out", text_column="texts")


def test_a_seed_draws_the_order_of_row_groups_and_files_and_loses_nothing(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "ab":
        write_parquet(folder / f"{name}.parquet", 12, text=[f"{name} has text {i}" for i in range(12)])
    plain, _ = prepared(folder, tmp_path / "plain")
    drawn, _ = prepared(folder, tmp_path / "drawn", seed=1)
    again, _ = prepared(folder, tmp_path / "again", seed=1)
    assert drawn == again != plain
    assert sorted(text.id for text in drawn) == sorted(text.id for text in plain)


# --- Hugging Face datasets --------------------------------------------------------------------------------------------


def save_dataset(kind: str, folder: Path) -> None:
    folder.mkdir()
    if kind == "parquet":
        for part in range(3):
            write_parquet(folder / f"train-{part}.parquet", 10, text=[f"part {part} has text {i}" for i in range(10)])
    elif kind == "jsonl":
        for part in range(3):
            write_rows(folder / f"train-{part}.jsonl", [{"text": f"part {part} has text {i}"} for i in range(10)])
    else:
        from datasets import Dataset, DatasetDict

        data = Dataset.from_dict({"text": [f"part {i // 10} has text {i % 10}" for i in range(30)], "n": [*range(30)]})
        DatasetDict(train=data).save_to_disk(str(folder), num_shards={"train": 3})


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "saved"])
@pytest.mark.parametrize("seed", [None, 3])
def test_a_dataset_is_streamed_and_gone_on_with(tmp_path, monkeypatch, kind, seed):
    save_dataset(kind, tmp_path / "data")
    source = f"hub:{tmp_path / 'data'}"
    monkeypatch.setattr(sources, "COMMIT_EVERY", 4)
    texts, rejected = prepared(source, tmp_path / "whole", seed=seed)
    assert rejected == []
    assert sorted(text.text for text in texts) == sorted(f"part {p} has text {i}" for p in range(3) for i in range(10))
    assert len({text.id for text in texts}) == 30
    assert texts[0].source == source
    settings_ = TextSettings(source, seed=seed)
    for stop_at in (1, 2, 3):
        interrupt(settings_, tmp_path / "cut", stop_at)
    prepare_text(settings_, tmp_path / "cut")
    assert (tmp_path / "cut/texts.jsonl").read_bytes() == (tmp_path / "whole/texts.jsonl").read_bytes()


def test_a_split_or_column_that_a_dataset_has_not_is_named(tmp_path):
    save_dataset("saved", tmp_path / "saved")
    save_dataset("parquet", tmp_path / "parquet")
    with pytest.raises(RecipeError, match="no split 'test'; choose train"):
        prepared(f"hub:{tmp_path / 'saved'}", tmp_path / "out", split="test")
    with pytest.raises(RecipeError, match=r"test.*--split"):
        prepared(f"hub:{tmp_path / 'parquet'}", tmp_path / "out", split="test")
    with pytest.raises(DataError, match="no column 'body', only text, score"):
        prepared(f"hub:{tmp_path / 'parquet'}", tmp_path / "out", text_column="body")
    with pytest.raises(AssetError, match="can't be opened"):
        prepared("hub:nobody/nothing-of-the-kind", tmp_path / "out")


@pytest.mark.assets
@pytest.mark.slow
def test_wordnet_is_a_source_too(tmp_path):
    texts, _ = prepared("wordnet", tmp_path / "out", limit=50, min_words=8)
    assert len(texts) == 50
    assert min(len(text.text.split()) for text in texts) == 8
    info = read_json(tmp_path / "out" / "info.json")
    assert info["licence"] == "WordNet-3.0"
    assert info["left_out"]["fewer than 6 words"] > 1000


# --- going on, and not doing it twice ---------------------------------------------------------------------------------


class StoppedError(Exception):
    """As if the process had been killed at a commit."""


def interrupt(settings_: TextSettings, out: Path, commits: int) -> None:
    def stop(*_):
        nonlocal commits
        commits -= 1
        if commits == 0:
            raise StoppedError

    with pytest.raises(StoppedError):
        prepare_text(settings_, out, stop)
    assert not (out / "texts.jsonl").exists()


LINES = st.one_of(
    st.integers(0, 30).map(lambda i: json.dumps({"id": f"id {i}", "text": f"text of {i // 2}"})),
    st.sampled_from(["", "{", '{"text": 3}', '{"id": "one", "text": "ONE, only."}', '{"text": "one only"}']),
)


@given(lines=st.lists(LINES, max_size=40), every=st.integers(1, 5), stops=st.integers(1, 6), gz=st.booleans())
@settings(deadline=None, max_examples=25)
def test_an_interrupted_run_writes_the_same_bytes(tmp_path_factory, lines, every, stops, gz):
    folder = tmp_path_factory.mktemp("texts")
    content = ('{"id": "sure", "text": "one text there is"}\n' + "".join(line + "\n" for line in lines)).encode()
    path = folder / ("t.jsonl.gz" if gz else "t.jsonl")
    path.write_bytes(gzip.compress(content) if gz else content)
    settings_ = TextSettings(str(path))
    whole = prepare_text(settings_, folder / "whole")
    assert whole["num_texts"] + whole["num_rejected"] == sum(bool(line) for line in lines) + 1
    before = sources.COMMIT_EVERY
    sources.COMMIT_EVERY = every
    try:
        for _ in range(stops):
            try:
                prepare_text(settings_, folder / "cut", _once())
            except StoppedError:
                with (folder / "cut" / ".texts.jsonl").open("ab") as file:
                    file.write(b'{"half a li')  # what a killed process may leave behind a commit
        assert prepare_text(settings_, folder / "cut") == whole
    finally:
        sources.COMMIT_EVERY = before
    for name in ("texts.jsonl", "rejected.jsonl", "info.json"):
        assert (folder / "cut" / name).read_bytes() == (folder / "whole" / name).read_bytes()
    assert sorted(path.name for path in (folder / "cut").iterdir()) == ["info.json", "rejected.jsonl", "texts.jsonl"]


def _once():
    def stop(*_):
        raise StoppedError

    return stop


@pytest.mark.parametrize("name", ["texts.jsonl", "rejected.jsonl"])
def test_a_stop_while_the_files_get_their_names(tmp_path, monkeypatch, name):
    path = write_rows(tmp_path / "t.jsonl", [{"id": str(i), "text": f"text {i // 2}"} for i in range(9)])
    whole, rejected = prepared(path, tmp_path / "whole")
    real = Path.replace

    def replace(self, target):
        if Path(target).name == name:
            raise StoppedError
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(StoppedError):
            prepare_text(TextSettings(str(path)), tmp_path / "out")
    assert prepared(path, tmp_path / "out") == (whole, rejected)


def test_a_limit_ends_early_and_a_stop_at_it_takes_no_more(tmp_path):
    path = write_rows(tmp_path / "t.jsonl", [{"text": f"text number {i}"} for i in range(50)])
    settings_ = TextSettings(str(path), limit=10)
    interrupt(settings_, tmp_path / "out", 1)
    texts, _ = prepared(path, tmp_path / "out", limit=10)
    assert [text.text for text in texts] == [f"text number {i}" for i in range(10)]


def test_a_finished_folder_is_left_alone_and_other_settings_are_refused(tmp_path):
    path = write_rows(tmp_path / "t.jsonl", [{"text": "the first text"}, {"text": "the second text"}])
    info = prepare_text(TextSettings(str(path)), tmp_path / "out")
    stamp = (tmp_path / "out" / "texts.jsonl").stat().st_mtime_ns
    assert prepare_text(TextSettings(str(path)), tmp_path / "out") == info
    assert (tmp_path / "out" / "texts.jsonl").stat().st_mtime_ns == stamp
    with pytest.raises(RecipeError, match="made with other settings"):
        prepare_text(TextSettings(str(path), min_words=2), tmp_path / "out")
    write_rows(path, [{"text": "the first text"}])
    with pytest.raises(RecipeError, match="changed since"):
        prepare_text(TextSettings(str(path)), tmp_path / "out")
    interrupt(TextSettings(str(path), limit=1), tmp_path / "begun", 1)
    with pytest.raises(RecipeError, match="unfinished run with other settings"):
        prepare_text(TextSettings(str(path)), tmp_path / "begun")


def test_memory_does_not_grow_with_the_source(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "COMMIT_EVERY", 50)
    peaks = []
    for size in (100, 800, 3000):  # the first warms up
        path = write_rows(tmp_path / f"{size}.jsonl", [{"text": f"text {i} " + "word " * 40} for i in range(size)])
        tracemalloc.start()
        prepare_text(TextSettings(str(path)), tmp_path / f"out-{size}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 0.05 * path.stat().st_size


def test_what_the_command_says(tmp_path, capsys):
    path = write_rows(
        tmp_path / "t.jsonl", [{"text": text} for text in ("one text", "One text.", "", "", "other text")]
    )
    prepare_texts(TextSettings(str(path)), tmp_path / "out")
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{tmp_path / 'out' / 'texts.jsonl'}: 2 texts, 4 words; licence: not stated"
    assert second.startswith("rejected: 3 (60.0%): 2 empty text, 1 duplicate text; see ")


# --- real texts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wikitext2_passages", "gum_genres", "pubmedqa_abstracts"])
def test_real_texts_are_accounted_for(tmp_path, shared_data, name):
    path = shared_data / "text" / f"{name}.jsonl"
    rows = {row["id"]: row for row in read_jsonl(path)}
    texts, rejected = prepared(path, tmp_path / "out")
    assert len(texts) + len(rejected) == len(rows)
    assert all(text.text == rows[text.id]["text"] and text.licence == rows[text.id]["licence"] for text in texts)
    kept = {ledger.comparable(text.text) for text in texts}
    assert len(kept) == len(texts)
    assert all(ledger.comparable(rows[row["id"]]["text"]) in kept for row in rejected)
