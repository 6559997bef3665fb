"""WordNet's definitions as a corpus of short texts in 45 domains, and its split into parts that share nothing.

A definition is read as a sentence a voice can speak. Out go the quoted examples, a usage label at the front
("(informal)", "(of a ball)": it belongs to the headword, which is not spoken), and parentheses of dates and formulas
("(1824-1895)", "(Pb[CH3CO]2)"). Other parentheses are part of the sentence ("capable of taking (gas, light, or
liquids) into a solution") and stay, as do all parts between semicolons.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from salad.errors import DataError, MissingFileError
from salad.texts.normalize import spoken_form
from salad.texts.split import comparable
from salad.texts.text import Text

MIN_WORDS = 6
MAX_WORDS = 40
LICENCE = "WordNet-3.0"
SOURCE = "WordNet 3.0"
FILES = ("data.noun", "data.verb", "data.adj", "data.adv")

# lexnames(5WN): the number in a synset's second column → the lexicographer file it was written in.
DOMAINS = (
    *("adj.all", "adj.pert", "adv.all"),
    *("noun.Tops", "noun.act", "noun.animal", "noun.artifact", "noun.attribute", "noun.body", "noun.cognition"),
    *("noun.communication", "noun.event", "noun.feeling", "noun.food", "noun.group", "noun.location", "noun.motive"),
    *("noun.object", "noun.person", "noun.phenomenon", "noun.plant", "noun.possession", "noun.process"),
    *("noun.quantity", "noun.relation", "noun.shape", "noun.state", "noun.substance", "noun.time"),
    *("verb.body", "verb.change", "verb.cognition", "verb.communication", "verb.competition", "verb.consumption"),
    *("verb.contact", "verb.creation", "verb.emotion", "verb.motion", "verb.perception", "verb.possession"),
    *("verb.social", "verb.stative", "verb.weather", "adj.ppl"),
)

_EXAMPLES = re.compile(r"[;:,.](?:\s*e\.\s?g\.,?)?\s*\"")
_LABEL = re.compile(r"^\s*\([^()]*\)\s*")
_PARENTHESIS = re.compile(r"\s*\(([^()]*)\)")
_DATE_WORDS = {"born", "died", "circa", "from", "century", "flourished", "about", "around", "and"}


def load(asset_dir: Path) -> tuple[list[Text], dict[str, int]]:
    """The definitions in a folder with WordNet's data files, and how many were left out for each reason.

    A text has 6 to 40 words; its id is the synset's ("wn-n-00001740"), its domain the lexicographer file
    ("noun.animal"), its title the first lemma. Of equal texts the first is taken.

    Raises:
        MissingFileError: a data file is not there.
        DataError: a line is not a synset; says which.
    """
    texts: list[Text] = []
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    for identifier, domain, lemma, gloss in _synsets(asset_dir):
        try:
            text = spoken_form(definition_of(gloss))
        except DataError:
            left_out["a character without spoken form"] += 1
            continue
        reason = _unfit(text, seen)
        if reason:
            left_out[reason] += 1
            continue
        seen.add(comparable(text))
        texts.append(Text(identifier, text, domain, SOURCE, LICENCE, lemma.replace("_", " ")))
    return texts, dict(left_out)


def definition_of(gloss: str) -> str:
    """The defining part of a gloss, as the module says; may be empty, or hold a quotation mark no rule explains."""
    text = _EXAMPLES.split(gloss, maxsplit=1)[0] if '"' in gloss else gloss
    text = _LABEL.sub("", text) or text
    text = _PARENTHESIS.sub(lambda found: "" if _is_date_or_formula(found[1]) else found[0], text)
    return text.strip().rstrip(";:, ")


def _unfit(text: str, seen: set[str]) -> str | None:
    num_words = len(text.split())
    if '"' in text:
        return "a stray quotation mark"
    if num_words < MIN_WORDS:
        return f"fewer than {MIN_WORDS} words"
    if num_words > MAX_WORDS:
        return f"more than {MAX_WORDS} words"
    return "the same text as another" if comparable(text) in seen else None


def _is_date_or_formula(inside: str) -> bool:
    """Inside a parenthesis: digits, brackets or signs, and no word but those of dates."""
    if not re.search(r"[\d\[=^?]", inside):
        return False
    return set(re.findall(r"[a-z]{3,}", inside)) <= _DATE_WORDS


def _synsets(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """Identifier, domain, first lemma and gloss of every synset, in file order; see wndb(5WN) for the columns."""
    for name in FILES:
        path = folder / name
        if not path.is_file():
            raise MissingFileError(f"{path} does not exist; WordNet needs {', '.join(FILES)}.")
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if line.startswith("  "):  # the licence
                    continue
                head, bar, gloss = line.partition(" | ")
                columns = head.split(" ")
                if not bar or len(columns) < 5 or not columns[1].isdigit() or int(columns[1]) >= len(DOMAINS):
                    raise DataError(f"{path}:{number} is not a synset of WordNet 3.0; fetch the file again.")
                part_of_speech = "a" if columns[2] == "s" else columns[2]
                lemma = re.sub(r"\([a-z]+\)$", "", columns[4])  # good(a): where the adjective may stand
                yield f"wn-{part_of_speech}-{columns[0]}", DOMAINS[int(columns[1])], lemma, gloss.strip()
