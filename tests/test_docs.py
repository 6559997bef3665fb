"""Every command and code block of README and the docs is run, or checked to be one that can be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import typer
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from docs_text import PAGES, REPO, Command, blocks, command_in, commands, name_of
from salad.cli import app

CHROMIUM = Path("/usr/bin/chromium")
APP = get_command(app)
CLICK_ERROR = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
COMMANDS = [command for page in PAGES for command in commands(page)]
SALAD = sorted({c for c in COMMANDS if c.words[0] == "salad"}, key=str)
SCRIPTS = sorted({c for c in COMMANDS if c.words[0] == "python"}, key=str)
TARGETS = sorted({word for c in COMMANDS if c.words[0] == "make" for word in c.words[1:] if "=" not in word})
CHEAP = re.compile(r"salad (doctor|assets|clean|voices --ready --json|steps recipes/[\w.-]+\.yaml)")
PYTHON = {(b.page, b.number): b for page in PAGES for b in blocks(page) if b.language == "python"}

# Who runs a page's Python; each is checked to name the page. Those of this file are run below.
RUN_BY = {
    "docs/clustering.md": "test_clusters_verb.py",
    "docs/encoders.md": "test_encoder_docs.py",
    "docs/models.md": "test_models_docs.py",
    "docs/talking.md": "test_talking_docs.py",
    "docs/tasks.md": "test_measure_docs.py",
    "docs/tutorial.md": "test_tutorial.py",
}
RUN_HERE = {("docs/selection.md", 0), ("docs/selection.md", 1), ("README.md", 0)}
RUN_HERE |= {("docs/saved-models.md", 0), ("docs/saved-models.md", 1)}
NOT_RUN = {("docs/many-machines.md", 0)}
"""Blocks with a `<!-- not run: REASON -->` before them, all of them."""


class QuietHandler(SimpleHTTPRequestHandler):
    """Files over HTTP, without a line for each."""

    def log_message(self, *_):
        """Says nothing."""


def verb_of(words: tuple[str, ...]) -> tuple[object, list[str]]:
    """(The command of the app that these words name, its arguments); fails where there is none."""
    command, rest = APP, list(words[1:])
    if rest[0].startswith("--"):
        return command, rest
    while rest and getattr(command, "commands", None) and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    assert command is not APP, f"salad has no verb {words[1]!r}"
    return command, rest


@pytest.mark.parametrize("command", SALAD, ids=str)
def test_salad_knows_the_verb_and_every_option(command):
    verb, rest = verb_of(command.words)
    known = {name for parameter in verb.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    for word in rest:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{command.words[1]} has no option {word}"
    if command.whole and not getattr(verb, "commands", None):
        try:
            verb.make_context(command.words[1], rest)
        except typer.Exit:  # --help
            pass
        except CLICK_ERROR as error:
            pytest.fail(f"{command}: {error.format_message()}")


def test_make_has_every_target():
    done = subprocess.run(["make", "-n", *TARGETS], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", SCRIPTS, ids=str)
def test_our_scripts_are_there_with_their_options(command):
    script = REPO / command.words[1]
    assert script.is_file(), f"{command}: there is no such script"
    told = script.read_text(encoding="utf-8")
    for word in command.words[2:]:
        if word.startswith("--"):
            assert f'"{word.partition("=")[0]}"' in told, f"{script.name} has no option {word}"


def test_a_wrong_command_is_seen():
    assert command_in("    $ HF_HOME=x salad run recipes/demo.yaml --out a | tee log  # all") == (
        "salad",
        "run",
        "recipes/demo.yaml",
        "--out",
        "a",
    )
    assert command_in("torchrun --nproc_per_node 2 -m salad run x.yaml")[:2] == ("salad", "run")
    assert command_in("salad (rank 3): …") == ()
    with pytest.raises(AssertionError, match="no verb"):
        test_salad_knows_the_verb_and_every_option(Command("x", ("salad", "sing"), True))
    with pytest.raises(AssertionError, match="no option"):
        test_salad_knows_the_verb_and_every_option(Command("x", ("salad", "run", "a.yaml", "--sett", "x"), False))
    with pytest.raises(pytest.fail.Exception):
        test_salad_knows_the_verb_and_every_option(Command("x", ("salad", "run"), True))


def test_recipes_and_keys_in_commands_are_real():
    from salad.recipe import load_recipe

    found = 0
    for command in SALAD:
        recipe = next((REPO / word for word in command.words if re.fullmatch(r"recipes/[\w.-]+\.yaml", word)), None)
        if recipe is not None:
            keys = [b for a, b in zip(command.words, command.words[1:], strict=False) if a == "--set"]
            load_recipe(recipe, tuple(keys))
            found += 1
    assert found > 10


@pytest.mark.parametrize("line", sorted({" ".join(c.words) for c in SALAD if CHEAP.fullmatch(" ".join(c.words))}))
def test_the_cheap_ones_run(line, monkeypatch):
    monkeypatch.chdir(REPO)
    done = CliRunner().invoke(app, line.split()[1:])
    assert done.exit_code in ((0, 2) if "doctor" in line else (0,)), done.output
    assert done.output.strip()


def test_every_python_block_is_run_by_somebody():
    marked = {key for key, block in PYTHON.items() if block.not_run}
    assert marked == NOT_RUN, "a block that is not run is marked in its page and listed here"
    for key in PYTHON.keys() - NOT_RUN - RUN_HERE:
        assert key[0] in RUN_BY, f"{key}: nobody runs this block; run it in a test, and say so here"
        test = (REPO / "tests" / RUN_BY[key[0]]).read_text(encoding="utf-8")
        assert Path(key[0]).name in test or f'"{Path(key[0]).stem}"' in test
        assert "exec(" in test


def test_other_blocks_are_what_they_say():
    for page in PAGES:
        for block in blocks(page):
            if block.language == "yaml":
                yaml.safe_load(block.text)
            elif block.language == "json":
                json.loads(block.text)
            elif block.language == "python":
                compile(block.text, block.page, "exec")
            else:
                assert block.language in ("", "bash", "sh", "console", "text", "bibtex"), (
                    f"{block.page}: {block.language}"
                )


def test_another_trainer_reads_a_selection_as_the_page_says(tmp_path, monkeypatch):
    import test_select_verb
    from salad.synthesize.pool import synthesize
    from salad.texts.text import Text

    place = test_select_verb.lay_out(tmp_path, test_select_verb.LEVELS)
    assert (
        test_select_verb.run(place, "--gamma", "2", "--budget", "60s", "--format", "jsonl,hf", out="selected").exit_code
        == 0
    )
    monkeypatch.chdir(place)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    scope: dict[str, object] = {}
    exec(PYTHON["docs/selection.md", 0].text, scope)  # ours
    assert len(scope["texts"]) > 5
    synthesize([Text("a", "Good morning.", "d", "s", "CC0")], "espeak-ng", tmp_path / "spoken", 1)
    exec(PYTHON["docs/selection.md", 1].text, scope)
    assert len(scope["cuts"]) == 1


def test_saved_models_are_loaded_as_the_pages_say(tmp_path, monkeypatch):
    import tiny_talker

    monkeypatch.chdir(tmp_path)
    tiny_talker.saved(tmp_path)
    (tmp_path / "runs" / "demo" / "stage_two").mkdir(parents=True)
    for place in ("runs/demo/stage_two/model", "path"):
        (tmp_path / place).symlink_to(tmp_path / ("model" if "runs" in place else "."))
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "model").symlink_to(tmp_path / "model")
    (tmp_path / "question.wav").write_bytes(tiny_talker.audio_bytes(0.5))
    for key in (("docs/saved-models.md", 0), ("docs/saved-models.md", 1), ("README.md", 0)):
        exec(PYTHON[key].text, {})  # ours


def test_every_page_is_in_the_site_and_every_link_leads_somewhere():
    nav = (REPO / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES:
        name = name_of(page).removeprefix("docs/")
        if page.parent != REPO:
            assert re.search(rf"[ :]{re.escape(name)}$", nav, re.MULTILINE), f"{name} is not in mkdocs.yml's nav"
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{name} links to {target}, which is not there"
        for named in re.findall(r"\bdocs/[\w-]+\.md", page.read_text(encoding="utf-8")):
            assert (REPO / named).is_file(), f"{name} names {named}, which is not there"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The docs as a site."""
    pytest.importorskip("mkdocstrings", reason="mkdocs is not installed: pip install 'salad-speech[docs]'")
    out = tmp_path_factory.mktemp("docs") / "site"
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(build, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_the_site_builds_without_a_warning_or_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) >= len(PAGES) - 2
    for page in pages:
        html = page.read_text(encoding="utf-8")
        assert not re.search(r'<(?:script|img|iframe|source)[^>]+src="(?:https?:)?//', html)
        assert not re.search(r'<link[^>]+(?:stylesheet|preconnect|icon)[^>]+href="(?:https?:)?//', html)
    assert "fonts.googleapis" not in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["index.html", "reference/model.html"])
@pytest.mark.parametrize("scheme", ["file", "http"])
def test_the_site_can_be_searched_from_the_disk_and_from_a_server(site, page, scheme):
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (pip install playwright)")
    if not CHROMIUM.is_file():
        pytest.skip(f"no browser: {CHROMIUM} does not exist (apt-get install chromium)")
    handler = partial(QuietHandler, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_api.sync_playwright() as playwright:
        Thread(target=server.serve_forever, daemon=True).start()
        there = site.as_uri() if scheme == "file" else f"http://127.0.0.1:{server.server_port}"
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        said, asked = [], []
        tab = chromium.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(f"{there}/{page}")
        box = tab.get_by_role("textbox", name="Search")
        box.click()
        tab.get_by_text("Type to start searching").wait_for(state="attached")  # what is typed before the index is lost
        box.press_sequentially("telephone", delay=20)
        found = tab.locator("a.md-search-result__link").filter(has_text="telephone")
        found.first.wait_for()
        found.first.click()
        tab.wait_for_url("**/*h=telephone*")
        tab.locator("mark", has_text="telephone").first.wait_for()
        chromium.close()
        server.shutdown()
    assert said == []
    assert [url for url in asked if not url.startswith((there, "data:"))] == []
