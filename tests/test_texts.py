"""Texts: records in and out, written to spoken words, WordNet and its split."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from salad.assets import asset_dir, resolve
from salad.errors import DataError, MissingFileError, RecipeError
from salad.texts import wordnet
from salad.texts.normalize import PUNCTUATION, spoken_form
from salad.texts.split import comparable, split
from salad.texts.text import Text, read_texts, write_texts

SPOKEN = {
    "In 1905 it cost $2.50, not 25%.": (
        "In nineteen oh-five it cost two dollars and fifty cents, not twenty-five percent."
    ),
    "1,234,567 people": "one million two hundred and thirty-four thousand five hundred and sixty-seven people",
    "the 1st, 2nd and 21st": "the first, second and twenty-first",
    "the 1980s": "the nineteen eighties",
    "28.8 and 3.05": "twenty-eight point eight and three point zero five",
    "007": "zero zero seven",
    "$1, $0.05, £3.01, $2.5 million": (
        "one dollar, five cents, three pounds and one penny, two point five million dollars"
    ),
    "1914–1918; 3,000-5,000; 5%-6%; $5-10": (
        "nineteen fourteen to nineteen eighteen; three thousand to five thousand; "
        "five to six percent; five to ten dollars"
    ),
    "-5 and +1 -2": "minus five and plus one minus two",
    "2½ cups, ¾": "two and a half cups, three quarters",
    "24/7 and/or his/her": "twenty-four seven and or his or her",
    "x² 10^-3 10⁴ H₂O": "x squared ten to the power of minus three ten to the power of four H two O",
    "at 10:30, 10:00, 9:05": "at ten thirty, ten o'clock, nine oh five",
    "AT&T @ #1 = a + b": "AT and T at number one equals a plus b",
    "press * or # now": "press star or pound now",
    "3D MP3 H.323": "three D MP three H. three hundred and twenty-three",
    "call 555-1234": "call five five five one two three four",
    "20°C, 20°": "twenty degrees Celsius, twenty degrees",
    "“Quoted” ‘text’ it’s `so'": "\"Quoted\" 'text' it's 'so'",
    "carefully—the wet - road -- now": "carefully, the wet, road, now",
    "  white \n\t space\u00a0here ": "white space here",
    "e.g. this, i.e. that": "for example this, that is that",
    "... so it began ...": "so it began...",
    "naïve café ﬁne": "naïve café fine",
    "": "",
    " -- ": "",
    "Mixed CASE; stays: (it) does!": "Mixed CASE; stays: (it) does!",
}


@pytest.mark.parametrize(("written", "spoken"), SPOKEN.items())
def test_spoken_form(written: str, spoken: str) -> None:
    assert spoken_form(written) == spoken
    assert spoken_form(spoken) == spoken


@pytest.mark.parametrize("character", ["日", "ж", "*", "\\", "^", "|", "{", "→", "😀", "‡", "\x00"])
def test_what_nobody_can_speak_is_shown(character: str) -> None:
    with pytest.raises(DataError) as caught:
        spoken_form(f"some{character}thing")
    assert repr(character) in str(caught.value)


def test_another_language_is_refused() -> None:
    with pytest.raises(DataError, match="'de'"):
        spoken_form("12 Uhr", language="de")


def test_any_text_gives_words_with_letters_or_an_error() -> None:
    draw = random.Random(7)
    alphabet = "aB é0123456789999 .,;:'\"!?()-/%$&@+=#*~°²–—[]_^½x"
    num_spoken = 0
    for _ in range(1500):
        written = "".join(draw.choice(alphabet) for _ in range(draw.randint(0, 24)))
        try:
            spoken = spoken_form(written)
        except DataError:
            continue
        num_spoken += 1
        assert all(set(word) - PUNCTUATION for word in spoken.split(" ") if spoken), (written, spoken)
        assert not any(character.isdigit() for character in spoken), (written, spoken)
    assert num_spoken > 250


@pytest.mark.parametrize("written", ["9" * 5000, "$" + "9" * 400, "1" + ",000" * 200, "9" * 400 + "th", "1.5" * 300])
def test_endless_numbers_are_read_digit_by_digit(written: str) -> None:
    assert spoken_form(written)


def test_texts_are_read_as_they_were_written(tmp_path: Path) -> None:
    texts = [
        Text("a", "One\u2028line.", "d", "s", "l", "title"),
        Text("b", "Zwei – drei.", "d", "s", "l"),
    ]
    write_texts(tmp_path / "texts.jsonl", texts)
    assert read_texts(tmp_path / "texts.jsonl") == texts


GOOD_ROW = {"id": "a", "text": "t", "domain": "d", "source": "s", "licence": "l"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (GOOD_ROW | {"domain": None}, "record 2: 'domain' must be a string, not None"),
        ({key: value for key, value in GOOD_ROW.items() if key != "text"}, "record 2: 'text' must be a string"),
        (GOOD_ROW | {"id": 3}, "record 2: 'id' must be a string, not 3"),
        (GOOD_ROW | {"id": "b", "text": " "}, "the text of 'b' is empty"),
        (GOOD_ROW | {"id": "b", "title": 4}, "'title' must be a string"),
        (GOOD_ROW, "record 2: the id 'a' stands twice"),
    ],
)
def test_a_bad_record_is_named(row: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps(GOOD_ROW) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=message):
        read_texts(path)


def test_the_real_texts_are_read(shared_data: Path) -> None:
    texts = read_texts(shared_data / "text" / "pubmedqa_abstracts.jsonl")
    assert len(texts) == 1989


# --- WordNet --------------------------------------------------------------------------------------------------------

GLOSSES = {
    'a thing with (living or not) parts; another way; "an example"; "two"': (
        "a thing with (living or not) parts; another way"
    ),
    "(informal) absolute": "absolute",
    "(of a ball) that is out": "that is out",
    "United States writer (1824-1895)": "United States writer",
    "German poet (born in 1927)": "German poet",
    "Greek (circa 276-194 BC) who": "Greek who",
    "a salt (Pb[CH3CO]2) used in dyeing": "a salt used in dyeing",
    "a hill (8,000 feet high) in Asia": "a hill (8,000 feet high) in Asia",
    'not moved; e.g. "frozen prices"': "not moved",
    'with inspiration, "he talked so"': "with inspiration",
    "(only a label)": "(only a label)",
}


@pytest.mark.parametrize(("gloss", "definition"), GLOSSES.items())
def test_definition_of_a_gloss(gloss: str, definition: str) -> None:
    assert wordnet.definition_of(gloss) == definition


def write_wordnet(folder: Path, nouns: list[str]) -> Path:
    for name in wordnet.FILES:
        (folder / name).write_text("  1 This software and database is provided under a licence  \n")
    lines = [f"{1740 + i:08} 05 n 01 big_cat_{i} 0 000 | {gloss}  \n" for i, gloss in enumerate(nouns)]
    (folder / "data.noun").write_text("  1 licence\n" + "".join(lines))
    (folder / "data.adj").write_text(
        "00001740 00 s 01 able(p) 0 000 | having the necessary means or skill to do it  \n"
    )
    return folder


def test_wordnet_records_and_what_is_left_out(tmp_path: Path) -> None:
    long = " ".join(["word"] * 41)
    good = "a large animal that has 4 legs"
    folder = write_wordnet(
        tmp_path,
        [good, "too short", long, "A large animal, that has four legs", "a \\ b c d e f", 'five "words" a b c d e'],
    )
    texts, left_out = wordnet.load(folder)
    assert texts[0] == Text(
        "wn-n-00001740",
        "a large animal that has four legs",
        "noun.animal",
        "WordNet 3.0",
        "WordNet-3.0",
        "big cat 0",
    )
    assert (texts[1].id, texts[1].domain, texts[1].title) == ("wn-a-00001740", "adj.all", "able")
    assert left_out == {
        "fewer than 6 words": 1,
        "more than 40 words": 1,
        "the same text as another": 1,
        "a character without spoken form": 1,
        "a stray quotation mark": 1,
    }


def test_a_broken_wordnet_is_refused(tmp_path: Path) -> None:
    write_wordnet(tmp_path, [])
    (tmp_path / "data.adv").write_text("no synset\n")
    with pytest.raises(DataError, match=r"data\.adv:1 is not a synset"):
        wordnet.load(tmp_path)
    (tmp_path / "data.adv").unlink()
    with pytest.raises(MissingFileError, match=r"data\.adv does not exist"):
        wordnet.load(tmp_path)


def some_texts(num: int) -> list[Text]:
    return [Text(f"wn-n-{i:08}", f"Text number {i}", "noun.act", "s", "l") for i in range(num)]


def test_a_split_shares_nothing_and_depends_on_the_seed_alone() -> None:
    texts = some_texts(200)
    twins = [Text(f"twin-{i}", f"text NUMBER {i}!", "noun.act", "s", "l") for i in range(100)]
    sizes = {"mix": 50, "pool": 100, "rest": None, "heldout": 30}

    def parts(corpus: list[Text], seed: int) -> dict[str, list[Text]]:
        return {name: [corpus[row] for row in rows] for name, rows in split(corpus, sizes, seed).items()}

    first = parts(texts + twins, 1)
    assert {name: len(part) for name, part in first.items()} == {**sizes, "rest": 20}
    everything = [comparable(text.text) for part in first.values() for text in part]
    assert len(set(everything)) == len(everything) == 200
    assert parts((texts + twins)[::-1], 1) == first
    assert parts(texts + twins, 2) != first


def test_a_split_refuses_what_it_cannot_give() -> None:
    with pytest.raises(RecipeError, match=r"asks for 11 texts.*there are 10"):
        split(some_texts(10), {"a": 6, "b": 5}, seed=0)
    with pytest.raises(RecipeError, match="negative"):
        split(some_texts(10), {"a": -1}, seed=0)


@pytest.mark.assets
def test_a_slice_of_the_real_wordnet(tmp_path: Path) -> None:
    if not asset_dir("wordnet").is_dir():
        pytest.skip("asset wordnet is not in the cache; fetch it with 'salad assets wordnet'")
    for name in wordnet.FILES:
        lines = (resolve("wordnet") / name).read_text().split("\n")
        (tmp_path / name).write_text("\n".join([line for line in lines if line][::40]) + "\n")
    texts, left_out = wordnet.load(tmp_path)
    assert len(texts) + sum(left_out.values()) == pytest.approx(117_659 / 40, abs=10)
    assert len({text.domain for text in texts}) >= 40
    assert all(wordnet.MIN_WORDS <= len(text.text.split()) <= wordnet.MAX_WORDS for text in texts)
    assert left_out["fewer than 6 words"] < len(texts)
