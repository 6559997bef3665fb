"""The natural speech of a run: which entries are used where they lie, and what is held out of several corpora."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from salad.errors import DataError
from salad.files import read_jsonl
from salad.natural_speech import choose_held_out, corpora, is_prepared, refuse_shared_ids
from salad.recipe import Recipe
from salad.run import Run
from salad.speech.index import IndexedCuts
from salad.steps.stages import heard_texts
from tiny_corpus import corpus


def sentence(number: int) -> str:
    return " ".join(f"word{number}x{i}" for i in range(8))


def test_one_corpus_or_several() -> None:
    assert corpora(Recipe(name="x")) == ("debian-prompts",)
    assert corpora(Recipe(name="x", data={"human": ["a", "b"]})) == ("a", "b")
    with pytest.raises(ValueError, match="at least 1"):
        Recipe(name="x", data={"human": []})


def test_a_folder_with_cuts_is_prepared(tmp_path: Path) -> None:
    assert not is_prepared(str(tmp_path))
    (tmp_path / "cuts.jsonl.gz").touch()
    assert is_prepared(str(tmp_path))


def test_held_out_shares_no_five_words_with_anything_else() -> None:
    texts = {(n % 2, f"u{n}"): sentence(n) for n in range(50)}
    texts[0, "copy"] = "and so " + sentence(7)  # the same words in the other corpus
    texts[1, "short"] = "only three words"
    chosen = choose_held_out(texts.items, 20, 5, seed=0)
    assert len(set(chosen)) == 20
    assert chosen == sorted(chosen)
    assert not {(1, "u7"), (0, "copy"), (1, "short")} & set(chosen)
    assert {corpus for corpus, _ in chosen} == {0, 1}
    assert chosen == choose_held_out(lambda: reversed(texts.items()), 20, 5, seed=0)
    assert chosen != choose_held_out(texts.items, 20, 5, seed=1)


def test_an_id_that_two_corpora_hold_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    folders = {"one": tmp_path / "a", "other": tmp_path / "b", "third": tmp_path / "c"}
    for folder, prefix in zip(folders.values(), ("u", "v", "u"), strict=True):
        corpus(folder, 4, prefix)
    cuts = {entry: IndexedCuts(folder) for entry, folder in folders.items()}
    refuse_shared_ids({entry: cuts[entry] for entry in ("one", "other")})
    with pytest.raises(DataError, match=r"data\.human: 4 utterances stand in both one and third, the first is 'u0'"):
        refuse_shared_ids(cuts)


def test_held_out_may_be_of_some_corpora_alone() -> None:
    texts = {(n % 3, f"u{n}"): sentence(n) for n in range(60)} | {(1, "copy"): sentence(0)}
    chosen = choose_held_out(texts.items, 15, 5, seed=0, corpora={0})
    assert {corpus for corpus, _ in chosen} == {0}
    assert (0, "u0") not in chosen, "another corpus says it too"


def test_more_candidates_are_tried_where_most_are_alike() -> None:
    """Of 300 texts 4 are unlike all others; the first 8 x 4 candidates hardly hold them."""
    texts = {(0, f"u{n}"): sentence(n if n < 4 else 4) for n in range(300)}
    assert choose_held_out(texts.items, 4, 5, seed=0) == [(0, f"u{n}") for n in range(4)]
    with pytest.raises(DataError, match=r"4 utterances share no 5 words in a row.*heldout_human=5"):
        choose_held_out(texts.items, 5, 5, seed=0)


def test_a_text_of_few_words_and_many_dashes_is_never_held_out() -> None:
    """It has no five words in a row to share, so its copies would stay in training."""
    texts = {(0, name): "Yes - no - maybe" for name in "abc"} | {(0, f"u{n}"): sentence(n) for n in range(3)}
    assert choose_held_out(texts.items, 3, 5, seed=0) == [(0, f"u{n}") for n in range(3)]


def test_texts_that_the_runs_own_synthetic_speech_says_are_not_selected_again(tmp_path: Path) -> None:
    """Nor are ids that two sources of Stage II would both hold."""
    for name, info in (("person", {}), ("voice", {"voices": [{"name": "piper-joe"}]})):
        corpus(tmp_path / name, 3, name[0])
        (tmp_path / name / "info.json").write_text(json.dumps(info))
    human = [str(tmp_path / "person"), str(tmp_path / "voice")]
    run = Run(Recipe(name="x", data={"human": human}), tmp_path / "run")
    (path,) = heard_texts(run)
    # Of what was spoken in parts, the document is the text.
    assert [row["id"] for row in read_jsonl(path)] == ["v0", "chapter 0", "v1", "v2"]
    assert heard_texts(Run(Recipe(name="x", data={"human": human[:1]}), tmp_path / "other")) == []
