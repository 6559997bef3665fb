"""What a terminal can't show is escaped, and what a user gets wrong is one sentence that says what to do instead."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import typer

from salad.cli import app
from salad.cli.options import print_json
from salad.errors import DataError, MissingFileError, RecipeError
from salad.serve.address import bind
from salad.speech.prepared import read_info

STDOUT_IS_ASCII = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
WRITES = """
import sys
import salad.cli
from salad.cli.options import print_json
salad.cli.app = lambda: print_json({"said": "naïve"}) if sys.argv[1] == "json" else print("naïve")
salad.cli.main()
"""
STOPS = """
import sys
import salad.cli
sys.argv = ["salad", sys.argv[1]]
salad.cli.app = lambda: sys.exit(130)
salad.cli.main()
"""


def python(code, argument, **how):
    return subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, timeout=120, **how)


def test_a_letter_that_stdout_lacks_is_escaped():
    done = python(WRITES, "text", env=STDOUT_IS_ASCII)
    assert (done.returncode, done.stdout, done.stderr) == (0, "na\\xefve\n", "")


def test_json_stays_json_where_stdout_lacks_a_letter():
    done = python(WRITES, "json", env=STDOUT_IS_ASCII)
    assert json.loads(done.stdout) == {"said": "naïve"}


def test_json_is_readable_where_stdout_is_utf8(capsys):
    print_json({"said": "naïve"})
    assert '"naïve"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verb", "told"), [("run", "Interrupted; the same command goes on from here."), ("ask", "Interrupted.")]
)
def test_ctrl_c_promises_to_go_on_only_where_something_is_kept(verb, told):
    done = python(STOPS, verb)
    assert (done.returncode, done.stderr.strip()) == (130, told)


def refused(*words):
    with pytest.raises((RecipeError, MissingFileError)) as caught:
        typer.main.get_command(app)([*map(str, words)], standalone_mode=False)
    return str(caught.value)


def test_voices_speaks_into_a_file(tmp_path):
    (tmp_path / "said.wav").mkdir()
    assert "is a folder; name a file in it" in refused("voices", "--say", "Hi.", "--out", tmp_path / "said.wav")
    assert "give --say" in refused("voices", "--out", tmp_path / "other.wav")


def test_a_report_of_nothing_says_what_it_needs(tmp_path):
    told = refused("report", tmp_path)
    assert all(part in told for part in (str(tmp_path), "salad run", "salad measure"))
    assert "salad run" in refused("explain", tmp_path)


def test_a_host_that_is_not_this_machine_is_not_the_ports_fault():
    with pytest.raises(RecipeError, match="give a --host of this machine"):
        bind("192.0.2.1", 0)  # kept for documentation: nobody's address


def test_examples_of_a_verb_stand_on_lines_of_their_own():
    for name, verb in typer.main.get_command(app).commands.items():
        for paragraph in (verb.help or "").split("\n\n"):
            assert not re.search(rf"^salad {name}\b(?!;).*[^;:`'] salad ", " ".join(paragraph.split())), name


def test_a_damaged_info_of_a_prepared_folder_is_named(tmp_path):
    (tmp_path / "info.json").write_bytes(b'{"corpus": "caf\xe9"}')
    with pytest.raises(DataError, match=r"info\.json is not readable as JSON"):
        read_info(tmp_path)
