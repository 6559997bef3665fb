"""The pages in a real browser: nothing fails, nothing is asked for, and everybody can read, save and print them."""

from __future__ import annotations

import csv
import json
import wave
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from reported import full, hostile, measurement, spoiled, with_arms
from salad.report.compare_page import write_compare
from salad.report.compare_tables import Difference, Side
from salad.report.measured import Measured
from salad.report.measured_page import measured_page
from salad.report.page import page as run_page
from salad.report.page import write_report
from salad.report.results import Estimate, parse_results

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (pip install playwright)")
CHROMIUM = Path("/usr/bin/chromium")
PAGES = ("run", "hostile", "measured", "compare", "gaps")
SVGS = {"run": 18, "hostile": 13, "measured": 7, "compare": 9, "gaps": 5}

# Contrast of every element that holds text with what is painted behind it (WCAG 2.2): those under 4.5 : 1.
FAINT_TEXT = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const found = parts(getComputedStyle(one).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const wrong = [];
  for (const one of document.querySelectorAll("body *")) {
    if (one.closest("script, #tip, .skip") || !one.getClientRects().length) continue;
    if (![...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) continue;
    const style = getComputedStyle(one);
    const svg = one.closest("svg");
    const colour = svg ? style.fill : style.color;
    const [a, b] = [light(parts(colour)), light(behind(svg || one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) wrong.push(`${one.tagName} ${one.textContent.slice(0, 30)} ${colour}`);
  }
  return wrong;
}"""


# Of each group of figures: their boxes, by the left edge of their column.
COLUMNS = """() => [...document.querySelectorAll(".figures")].filter((group) => group.children.length).map((group) => {
  const columns = {};
  for (const one of group.children) {
    const { left, top, bottom } = one.getBoundingClientRect();
    (columns[Math.round(left)] ??= []).push([one.id, top, bottom]);
  }
  return columns;
})"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """One page of each kind, with a second of speech."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "probe").mkdir()
    with wave.open(str(folder / "probe" / "0.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0\1" * 8000)
    results = full()
    results["clusters"][0]["samples"][0]["audio"] = "probe/0.wav"
    results["bill"][0]["warm_start"] = {"kind": "word_aligned", "steps": 100, "hours_at_most": 5.0}
    results["bill"][0]["sources"][0]["origins"][0]["licence"] = "texts: WordNet-3.0; voice: MIT (trained on CC0 speech)"
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "measured.json").write_text(json.dumps(measurement("mmsu")))
    write_report(folder / "results.json", folder / "run.html", [folder])
    evil = Measured.model_validate(spoiled(measurement("one")))
    few = hostile()
    few["arms"] = few["arms"][:1]
    text = run_page(parse_results(few), folder, [evil])
    (folder / "hostile.html").write_bytes(text.encode(errors="replace"))
    measured = Measured.model_validate(measurement("mmsu"))
    (folder / "measured.html").write_text(measured_page(measured), encoding="utf-8")
    run = parse_results(with_arms("untrained", "stage_one"))
    sides = [Side(name, letter, f"runs/{name}", results=run) for name, letter in (("one", "A"), ("two", "B"))]
    difference = Difference("B", "Stage I: M", "misalignment_nats", Estimate(value=0.1, low=0.02, high=0.2, n=60))
    write_compare(sides, [difference], ["B: a note."], folder / "compare.html")
    other = Measured.model_validate(measurement("mmsu") | {"model": "b", "speech_sha256": {"mmsu": "00" * 32}})
    gaps = [Side(name, name, f"measured/{name}", measured=own) for name, own in (("A", measured), ("B", other))]
    write_compare(gaps, [], [], folder / "gaps.html")
    return folder


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium."""
    if not CHROMIUM.is_file():
        pytest.skip(f"no browser: {CHROMIUM} does not exist (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser, pages):
    """Opens a page; what the browser has to say against it, and what it asks for, is in `page.said`."""
    opened = []

    def open_page(name, **how):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **how})
        page = context.new_page()
        page.said = []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("dialog", lambda dialog: (page.said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: page.said.append(request.url) if _is_asked(request) else None)
        page.goto((pages / f"{name}.html").as_uri())
        opened.append(context)
        return page

    yield open_page
    for context in opened:
        context.close()


def _is_asked(request):
    return not request.url.startswith("data:") and not request.is_navigation_request()


@pytest.mark.parametrize("name", PAGES)
def test_nothing_fails_nothing_is_asked_for_and_all_can_be_read(show, name):
    page = show(name)
    assert page.said == []
    assert page.title()
    ids = page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
    assert len(ids) == len(set(ids)), "an id stands twice"
    boxes = page.eval_on_selector_all("figure > svg", "all => all.map(one => one.getBoundingClientRect().height)")
    assert len(boxes) >= SVGS[name]
    assert all(height > 80 for height in boxes)
    levels = page.eval_on_selector_all("h1,h2,h3,h4", "all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360, "a phone's page scrolls sideways"
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(FAINT_TEXT) == [], f"too little contrast in {scheme}"
    assert page.said == []


def test_colours_follow_the_system_and_the_button(show):
    page = show("run", color_scheme="dark")

    def paper():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert paper() == "rgb(21, 23, 26)"
    page.get_by_role("button", name="Light colours").click()
    assert paper() == "rgb(255, 255, 255)"
    page.get_by_role("button", name="Dark colours").click()
    assert paper() == "rgb(21, 23, 26)"
    page.emulate_media(media="print")
    assert paper() == "rgb(255, 255, 255)"
    assert not page.locator("#theme").is_visible()
    assert len(page.pdf()) > 20_000


def test_marks_of_the_map_tell_their_names_to_pointer_and_keyboard(show):
    page = show("run")
    marks = page.locator("#figure-map [id$=marks-0] .mark")
    tip = page.locator("#tip")
    marks.nth(1).hover()
    assert "genus" in tip.inner_text()
    page.mouse.move(0, 0)
    marks.first.focus()
    first = tip.inner_text()
    assert "M(c)" in first
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() not in ("", first)
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    assert page.locator("#figure-map .mark[tabindex='0']").count() == len(
        page.eval_on_selector_all("#figure-map [id*=marks-]", "all => all.map(one => one.id)")
    )


def test_tab_leads_past_the_head_and_shows_where_it_is(show):
    page = show("run")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_figures_can_be_saved(show, tmp_path, scripts):
    page = show("run", java_script_enabled=scripts)
    assert page.locator("#theme").is_visible() == scripts
    assert page.locator("figure > svg").count() >= SVGS["run"]
    for kind, name in (("SVG", "demo-gap.svg"), ("CSV", "demo-gap.csv")):
        with page.expect_download() as waiting:
            page.locator("#figure-gap").get_by_role("link", name=kind).click()
        assert waiting.value.suggested_filename == name
        waiting.value.save_as(tmp_path / name)
    svg = (tmp_path / "demo-gap.svg").read_text()
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in svg
    assert "currentColor" not in svg
    rows = list(csv.reader((tmp_path / "demo-gap.csv").open()))
    assert rows[0] == ["part", "value", "low", "high", "n"]
    assert [row[0] for row in rows[1:]][1:3] == ["forgotten", "misheard or misaligned"]


def test_the_bill_fits_a_common_screen_and_the_map_has_room_for_names(show):
    page = show("run", viewport={"width": 1280, "height": 900})
    clipped = "one => one.parentElement.scrollWidth - one.parentElement.clientWidth"
    assert page.locator("table.bill").evaluate(clipped) == 0
    assert "0 animals, genus, family" in page.locator("#figure-map svg text").all_text_contents()
    page.emulate_media(media="print")
    breaks = "all => all.map(one => getComputedStyle(one).breakAfter)"
    assert set(page.eval_on_selector_all("h2, h3, caption", breaks)) == {"avoid"}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [1280, 1920, 900, 390])
def test_no_figure_waits_for_a_taller_one_beside_it(show, name, width):
    page = show(name, viewport={"width": width, "height": 900})
    for columns in page.evaluate(COLUMNS):
        figures = [one for own in columns.values() for one in own]
        for own in columns.values():
            assert all(below[1] - above[2] < 40 for above, below in pairwise(own)), columns
        has_map = any(id == "figure-map" for id, *_ in figures)
        expected = 1 if width < 860 else 3 if width >= 1280 and len(figures) == 3 and not has_map else 2
        assert len(columns) == min(expected, len(figures)), columns
        if has_map and expected == 2:
            assert [id for id, *_ in next(iter(columns.values()))] == ["figure-map"]
        assert len({round(own[0][1]) for own in columns.values()}) <= 1, "columns begin at the same height"


def test_speech_plays(show):
    page = show("run")
    heard = "one => new Promise(tell => { one.onloadedmetadata = () => tell(one.duration); one.load(); })"
    assert page.locator("audio").first.evaluate(heard) == pytest.approx(1.0)
    assert page.said == []
