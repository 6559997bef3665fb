"""Decontamination: what counts as overlap by brute force, items of every shape, corpora in blocks, going on."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salad.errors import DataError, MissingFileError, RecipeError
from salad.select import decontaminate as module
from salad.select.contamination import SHORT, EvaluationIndex
from salad.select.decontaminate import decontaminate
from salad.select.evaluation_text import evaluation_items
from salad.select.words import words_of

N = 13


def lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def numbered(first, num):
    return [f"w{i}" for i in range(first, first + num)]


# --- what counts ----------------------------------------------------------------------------------------------------


def stands_in(needle, hay):
    return any(hay[i : i + len(needle)] == needle for i in range(len(hay) - len(needle) + 1))


def is_contaminated(text, items, n):
    """By definition; items are (stem, alternatives) in words."""
    short = min(SHORT, n)
    strings = [s for stem, alternatives in items for s in (stem, *(stem + a for a in alternatives if a)) if s]
    for string in strings:
        if len(text) >= n and any(stands_in(text[i : i + n], string) for i in range(len(text) - n + 1)):
            return True
        if short <= len(text) < n and stands_in(text, string):
            return True
        if short <= len(string) < n and stands_in(string, text):
            return True
        if len(text) < short and text == string:
            return True
    return False


@given(st.integers(0, 10**9), st.sampled_from([3, 5, 9, 13]), st.integers(2, 6))
@settings(deadline=None, max_examples=120)
def test_what_is_found_is_what_the_definition_says(tmp_path_factory, seed, n, vocabulary):
    rng = random.Random(seed)
    some = lambda most: [rng.choice("abcdefgh"[:vocabulary]) for _ in range(rng.randint(0, most))]  # noqa: E731
    items = [(some(20), [some(8) for _ in range(rng.randint(0, 3))]) for _ in range(rng.randint(1, 4))]
    items = [(stem or ["a"], alternatives) for stem, alternatives in items]
    rows = [{"question": " ".join(stem), "choices": [" ".join(a) for a in others]} for stem, others in items]
    file = lines(tmp_path_factory.mktemp("e") / "e.jsonl", rows)
    # strangers in between, or nothing would be clean
    texts = [some(30) for _ in range(12)]
    texts += [[rng.choice([*text, f"x{i}"]) for i in range(len(text))] for text in texts if text]
    found = {overlap.text for overlap in EvaluationIndex([file], n).overlaps(" ".join(text) for text in texts)}
    assert found == {number for number, text in enumerate(texts) if is_contaminated(text, items, n)}


@pytest.mark.parametrize(
    ("text", "item", "found"),
    [
        (numbered(0, 40), [*numbered(90, 5), *numbered(10, 13), *numbered(70, 5)], True),
        (numbered(0, 40), [*numbered(90, 5), *numbered(10, 12), *numbered(70, 5)], False),
        (numbered(0, 40), numbered(10, 12), True),  # the whole item stands in the text
        (numbered(0, 40), numbered(10, 8), True),
        (numbered(0, 40), numbered(10, 7), False),
        (numbered(10, 12), numbered(0, 40), True),  # the whole text stands in the item
        (numbered(10, 8), numbered(0, 40), True),
        (numbered(10, 7), numbered(0, 40), False),
        (numbered(10, 7), numbered(10, 7), True),  # the same
        (numbered(10, 1), numbered(10, 1), True),
        (numbered(10, 7), numbered(10, 6), False),
        ([], numbered(0, 5), False),
    ],
)
def test_by_hand(tmp_path, text, item, found):
    index = EvaluationIndex([lines(tmp_path / "e.jsonl", [{"text": " ".join(item)}])], N)
    assert bool(list(index.overlaps([" ".join(text)]))) is found


def test_case_punctuation_and_character_variants_make_no_difference(tmp_path):
    item = "The quick, brown fox — it's LAZY! — jumps over: Straße №5 caf\u00e9 ﬁne 1,234 \u2460"
    file = lines(tmp_path / "e.jsonl", [{"text": item}])
    text = 'so "the QUICK brown fox it\u2019s lazy jumps OVER STRASSE no5 cafe\u0301 fine 1 234 1'
    (overlap,) = EvaluationIndex([file], N).overlaps(["nothing here", text])
    assert overlap.text == 1
    assert overlap.words.startswith("the quick brown fox it s lazy jumps over strasse")
    assert len(overlap.words.split()) == N


def test_the_longest_run_is_shown_for_each_file_and_runs_are_counted(tmp_path):
    one = lines(tmp_path / "one.jsonl", [{"text": "no"}, {"id": "q7", "text": " ".join(numbered(0, 20))}])
    other = lines(tmp_path / "other.jsonl", [{"text": " ".join(numbered(5, 13))}])
    index = EvaluationIndex([one, other], N)
    found = list(index.overlaps(["a b c", " ".join(["x", *numbered(2, 16), "y"])]))
    assert [(o.text, o.file, o.num_runs) for o in found] == [(1, 0, 4), (1, 1, 1)]
    assert found[0].words == " ".join(numbered(2, 13))
    assert found[1].words == " ".join(numbered(5, 13))
    assert [index.places[o.item] for o in found] == [f"{one}:2", f"{other}:1"]
    assert index.ids[found[0].item] == "q7"
    assert index.num_items == [2, 1]


def test_texts_of_several_batches_keep_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("salad.select.contamination.BATCH_WORDS", 50)
    index = EvaluationIndex([lines(tmp_path / "e.jsonl", [{"text": " ".join(numbered(0, 13))}])], N)
    texts = [" ".join(numbered(0 if i % 5 == 0 else 1, 20)) for i in range(31)]
    assert [o.text for o in index.overlaps(texts)] == list(range(0, 31, 5))


# --- items of every shape -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "stem", "alternatives"),
    [
        (
            {"id": "1", "question": "Who?", "choices": ["me", "you"], "answer": 0, "category": "c"},
            "Who?",
            ["me", "you"],
        ),
        (
            {"question": {"stem": "Who?", "choices": [{"text": "me", "label": "A"}, {"text": "you", "label": "B"}]}},
            "Who?",
            ["me", "you"],
        ),
        ({"id": 7, "question": "Who?", "choices": {"text": ["me"], "label": ["A"]}, "answerKey": "A"}, "Who?", ["me"]),
        ({"goal": "Boil.", "sol1": "Heat.", "sol2": "Cool.", "label": 1}, "Boil. Heat. Cool.", []),
        ({"ctx": "A man", "endings": ["runs", "sits"], "source_id": "x", "split": "val"}, "A man", ["runs", "sits"]),
        ({"context": "It was.", "question": "Was it?", "answers": {"text": ["yes"]}}, "It was. Was it?", ["yes"]),
        ({"text": "plain", "licence": "CC0", "source": "web"}, "plain", []),
        ({"turns": [["only", "lists"]], "n": None}, "", ["only", "lists"]),
    ],
)
def test_the_strings_of_an_item(tmp_path, row, stem, alternatives):
    (item,) = evaluation_items(lines(tmp_path / "e.jsonl", [row]))
    assert item.stem == stem
    assert list(item.alternatives) == alternatives


def test_plain_text_parquet_and_folders(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    tmp_path.joinpath("e.txt").write_text("one line\nof a paragraph\n\nanother\n")
    items = list(evaluation_items(tmp_path / "e.txt"))
    assert [words_of(item.stem) for item in items] == [["one", "line", "of", "a", "paragraph"], ["another"]]
    parquet.write_table(pa.table({"question": ["Who?"], "options": [["a", "b"]]}), tmp_path / "e.parquet")
    (item,) = evaluation_items(tmp_path / "e.parquet")
    assert (item.stem, item.alternatives) == ("Who?", ("a", "b"))
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("b", "a"):
        lines(folder / f"{name}.jsonl", [{"text": name}])
    assert [item.stem for item in evaluation_items(folder)] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no evaluation item"),
        ('{"id": "1", "answer": 3}\n', r"e\.jsonl:1 holds no text to compare with, only id, answer"),
        ('{"text": "fine"}\n{"text": \n', r"e\.jsonl:2: broken JSON"),
    ],
)
def test_evaluation_sets_that_cannot_be_read_are_refused(tmp_path, content, said):
    tmp_path.joinpath("e.jsonl").write_text(content)
    with pytest.raises(DataError, match=said):
        EvaluationIndex([tmp_path / "e.jsonl"], N)


def test_other_bad_input(tmp_path):
    with pytest.raises(RecipeError, match="2 words in a row"):
        EvaluationIndex([lines(tmp_path / "e.jsonl", [{"text": "a"}])], 2)
    texts = lines(tmp_path / "t.jsonl", [{"id": "a", "text": "b"}])
    with pytest.raises(MissingFileError):
        decontaminate(texts, [tmp_path / "nothing.jsonl"], N, tmp_path / "out")


# --- corpora --------------------------------------------------------------------------------------------------------


def corpus_of(tmp_path, num=20):
    rows = [{"id": f"t{i}", "text": " ".join(numbered(0 if i % 4 == 1 else 1, 16))} for i in range(num)]
    items = [{"id": "q", "text": " ".join(numbered(0, 13))}]
    return lines(tmp_path / "t.jsonl", rows), lines(tmp_path / "e.jsonl", items)


def test_a_corpus_is_compared_in_blocks_and_the_list_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_TEXTS", 6)
    texts, items = corpus_of(tmp_path)
    told = []
    found = decontaminate(texts, [items], N, tmp_path / "out", progress=lambda *at: told.append(at))
    assert found.rows.tolist() == [1, 5, 9, 13, 17]
    assert found.num_compared == 20
    assert found.against[0]["num_items"] == 1
    assert found.against[0]["num_texts"] == 5
    rows = [json.loads(line) for line in (tmp_path / "out" / "contaminated.jsonl").read_text().splitlines()]
    assert rows[1] == {
        "id": "t5",
        "row": 5,
        "against": str(items),
        "item": f"{items}:1",
        "item_id": "q",
        "words": " ".join(numbered(0, 13)),
        "num_runs": 1,
    }
    assert told == [(6, 20), (12, 20), (18, 20), (20, 20)]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"contaminated.jsonl", "contaminated.json"}


def test_workers_find_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_TEXTS", 6)
    texts, items = corpus_of(tmp_path)
    one = decontaminate(texts, [items], N, tmp_path / "one")
    two = decontaminate(texts, [items], N, tmp_path / "two", processes=2)
    assert one.rows.tolist() == two.rows.tolist()
    for name in ("contaminated.jsonl", "contaminated.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_stopped_comparison_goes_on_and_a_finished_one_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_TEXTS", 6)
    texts, items = corpus_of(tmp_path)
    whole = decontaminate(texts, [items], N, tmp_path / "whole")

    def stop(done, _total):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decontaminate(texts, [items], N, tmp_path / "out", progress=stop)
    told = []
    again = decontaminate(texts, [items], N, tmp_path / "out", progress=lambda *at: told.append(at))
    assert told == [(18, 20), (20, 20)]
    assert again.rows.tolist() == whole.rows.tolist()
    told.clear()
    third = decontaminate(texts, [items], N, tmp_path / "out", progress=lambda *at: told.append(at))
    assert told == []
    assert third.as_json() == whole.as_json()
    lines(items, [{"text": "something else"}])
    assert decontaminate(texts, [items], N, tmp_path / "out").rows.tolist() == []


def test_passages_of_a_benchmark_are_found_and_nothing_in_other_corpora(shared_data):
    data = shared_data
    index = EvaluationIndex([data / "benchmarks" / "boolq_val.jsonl"], N)

    def found(name):
        rows = [json.loads(line) for line in (data / "text" / name).read_text(encoding="utf-8").split("\n") if line]
        return rows, {rows[o.text]["id"] for o in index.overlaps(row["text"] for row in rows)}

    rows, contaminated = found("boolq_wikipedia_passages.jsonl")
    # the passages were cut into pieces; those of fewer than 8 words are too short to tell
    items = evaluation_items(data / "benchmarks" / "boolq_val.jsonl")
    everything = "\n".join(" ".join(words_of(item.stem)) for item in items)
    pieces = {row["id"]: words_of(row["text"]) for row in rows}
    inside = {i for i, w in pieces.items() if len(w) >= N and " ".join(w) in everything}
    assert len(inside) > 500
    assert inside <= contaminated
    assert found("gum_genres.jsonl")[1] == set()


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_plain_text_are_those_of_any_text(text):
    assert words_of(text) == words_of(f"{text} \u00e9")[:-1]
