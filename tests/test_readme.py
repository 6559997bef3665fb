"""What README tells people to type exists: make's targets, salad's verbs and their options, and the files it names."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
README = (REPO / "README.md").read_text(encoding="utf-8")
WORD = re.compile(r"[a-z][a-z-]*")


def commands(text: str) -> list[list[str]]:
    """The command lines in the fenced `bash` blocks, as words, without comments and leading variables."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words:
                found.append(words)
    return found


COMMANDS = commands(README)
MAKE = sorted({word for words in COMMANDS if words[0] == "make" for word in words[1:] if WORD.fullmatch(word)})
SALAD = [words for words in COMMANDS if Path(words[0]).name == "salad"]
VERBS = sorted(set(re.findall(r"`salad ([a-z-]+)", README)) | {words[1] for words in SALAD})


@cache
def help_of(*verb: str) -> str:
    """What `salad VERB --help` prints; fails where there is no such verb."""
    salad = Path(sys.executable).with_name("salad")
    env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run([salad, *verb, "--help"], capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 0, f"salad {' '.join(verb)} --help: {done.stderr or done.stdout}"
    return done.stdout


def test_the_commands_are_found():
    assert COMMANDS[:2] == [["make", "demo"], ["make", "test"]], "README opens with the two commands"
    assert commands("```bash\nHF_HOME=x make demo # all\nsalad a \\\n  --b\n```\n") == [
        ["make", "demo"],
        ["salad", "a", "--b"],
    ]


@pytest.mark.parametrize("target", MAKE)
def test_make_has_the_target(target):
    done = subprocess.run(["make", "-n", target], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_make_refuses_what_it_has_not():
    assert subprocess.run(["make", "-n", "no-such-target"], cwd=REPO, capture_output=True).returncode != 0


@pytest.mark.parametrize("verb", VERBS)
def test_salad_has_the_verb(verb):
    assert "Usage" in help_of(verb)


@pytest.mark.parametrize("words", SALAD, ids=" ".join)
def test_salad_has_the_options(words):
    # `salad prepare folder DIR`: the second word may be a verb under the first; --help answers either way
    verb = [word for word in words[1:3] if WORD.fullmatch(word)]
    told = help_of(*verb)
    for word in words:
        if word.startswith("--"):
            assert re.search(rf"{re.escape(word.split('=')[0])}\b", told), f"salad {verb} has no option {word}"


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_a_linked_file_is_there(target):
    assert (REPO / target).exists()


@pytest.mark.parametrize("recipe", sorted(set(re.findall(r"\brecipes/[\w/.-]+\.yaml", README))))
def test_a_named_recipe_is_there(recipe):
    assert (REPO / recipe).is_file()


@pytest.mark.parametrize("document", ["docs/method.md", "docs/training.md", "CONTRIBUTING.md"])
def test_the_source_files_named_in_the_docs_are_there(document):
    named = set(re.findall(r"`(?:src/salad/)?((?:\w+/)*\w+\.py)`", (REPO / document).read_text(encoding="utf-8")))
    named -= {name for name in named if name.startswith("tests/")}
    assert named, f"{document} names no source file"
    missing = sorted(name for name in named if not (REPO / "src" / "salad" / name).is_file())
    assert not missing, f"{document} names files that are not there: {missing}"
