"""salad --help: every verb once, under a heading, on a whole line; nothing heavy is loaded for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from salad.cli import app
from salad.cli.headings import HEADINGS, OTHERS, Grouped

HEAVY = ("torch", "transformers", "numpy", "lhotse", "scipy", "rich", "pydantic", "yaml", "huggingface_hub", "asyncio")
WIDTH = 80


def told_by(of: typer.Typer) -> list[str]:
    done = CliRunner().invoke(of, ["--help"], terminal_width=WIDTH)
    assert done.exit_code == 0
    return done.stdout.splitlines()


def test_every_verb_stands_once_under_a_heading_on_a_whole_line():
    lines = told_by(app)
    verbs = [line.split()[0] for line in lines[lines.index("Begin:") :] if line.startswith("  ")]
    assert sorted(verbs) == sorted(typer.main.get_command(app).commands), "one line each: nothing is wrapped"
    assert not any("…" in line or "..." in line for line in lines[lines.index("Begin:") :])
    assert all(len(line) <= WIDTH for line in lines)
    assert [line[:-1] for line in lines[lines.index("Begin:") :] if line and line[0] != " "] == list(HEADINGS)


def test_a_verb_without_a_heading_is_not_hidden():
    fresh = typer.Typer(cls=Grouped, rich_markup_mode=None)

    @fresh.command()
    def doctor() -> None:
        """Look."""

    @fresh.command()
    def new() -> None:
        """Something new."""

    @fresh.command(hidden=True)
    def secret() -> None:
        """Not told."""

    lines = told_by(fresh)
    assert lines[lines.index(f"{OTHERS}:") + 1].split() == ["new", "Something", "new."]
    assert lines.index("Begin:") < lines.index(f"{OTHERS}:")
    assert "secret" not in "".join(lines)


def test_nothing_heavy_is_loaded_for_it():
    asked = f"""
import sys
from salad.cli import app
sys.argv = ["salad", "--help"]
try:
    app()
except SystemExit:
    pass
print("loaded:", [name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize(
    "command",
    [
        ["measure", "x", "--tasks", "openbookqa", "--items", "openbookqa=no.jsonl"],
        ["score", "openbookqa", "--model", "x", "--items", "no.jsonl"],
        ["score", "openbookqa", "--model", "x", "--shots-from", "no.jsonl"],
        ["speak", "openbookqa", "--items", "no.jsonl", "--voice", "piper-joe", "--out", "spoken"],
    ],
)
def test_nothing_heavy_is_loaded_to_say_that_a_file_is_missing(command, tmp_path):
    asked = f"""
import sys
from salad.cli import app
try:
    app({command!r})
except Exception as error:
    print(error)
print("loaded:", [name for name in ("torch", "transformers", "numpy", "scipy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.stdout == "no.jsonl does not exist; name a JSONL file of items.\nloaded: []\n"
