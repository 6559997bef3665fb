"""Texts at random: what reading the whole file gives, one at a time, and refused for the same reasons."""

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salad.errors import DataError, MissingFileError
from salad.texts import corpus as corpus_module
from salad.texts.corpus import TextCorpus
from salad.texts.text import Text, read_texts, write_texts

characters = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def rows(num):
    return [Text(f"t{i}", f"text number {i}\u2028é", "d", "s", "l", None if i % 2 else "title") for i in range(num)]


@given(st.dictionaries(characters, characters.filter(str.strip), max_size=8), st.sampled_from(["", "\n", "\n  \n"]))
@settings(deadline=None, max_examples=50)
def test_every_text_is_the_one_that_reading_the_file_gives(tmp_path_factory, texts, between):
    path = tmp_path_factory.mktemp("texts") / "some.jsonl"
    lines = [
        json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n" + between for name, text in texts.items()
    ]
    path.write_bytes((between + "".join(lines)).encode())
    corpus, expected = TextCorpus(path), read_texts(path)
    assert len(corpus) == len(expected)
    assert [corpus[i] for i in reversed(range(len(corpus)))] == expected[::-1]
    assert corpus[-1:] == expected[-1:]


def test_a_last_line_without_an_end_is_read(tmp_path):
    path = tmp_path / "some.jsonl"
    write_texts(path, rows(3))
    path.write_bytes(path.read_bytes()[:-1])
    assert list(TextCorpus(path)) == rows(3)


def test_it_is_remembered_pickled_as_a_name_and_made_anew_when_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "some.jsonl"
    write_texts(path, rows(300))
    before = pickle.dumps(TextCorpus(path))
    assert len(before) < 500
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "_make", lambda *_: pytest.fail("made again"))
        assert pickle.loads(before)[299] == rows(300)[299]
    write_texts(path, rows(2))
    assert list(TextCorpus(path)) == rows(2)
    with pytest.raises(IndexError):
        TextCorpus(path)[2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{no", r"(:|record )3 is not readable as JSON"),
        ("[1]", r"(:|record )3 is not a JSON object"),
        ('{"id": "x"}', r"record 3: 'text' must be a string"),
        ('{"id": "x", "text": " "}', r"record 3: the text of 'x' is empty"),
        ('{"id": "t0", "text": "again"}', r"record 3: the id 't0' stands twice"),
    ],
)
def test_what_is_no_text_is_refused_when_it_is_opened(tmp_path, line, said):
    path = tmp_path / "some.jsonl"
    write_texts(path, rows(2))
    path.write_text(path.read_text() + line + "\n")
    for opened in (TextCorpus, read_texts):
        with pytest.raises(DataError, match=said):
            opened(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.jsonl does not exist"):
        TextCorpus(tmp_path / "none.jsonl")
