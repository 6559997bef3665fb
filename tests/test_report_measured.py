"""A measurement beside a run and alone, several runs side by side, colours that all can tell; without a browser."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reported import HOSTILE, cluster, full, measurement, spoiled, with_arms
from salad.cli import app
from salad.errors import DataError, MissingFileError, RecipeError
from salad.measure.compared_runs import compare_runs
from salad.report.cluster_figures import MAX_MARKS, misalignment_map
from salad.report.compare_given import unlike_table
from salad.report.downloads import csv_text
from salad.report.gap_figures import fall_of_arm, fall_of_split
from salad.report.measured import Measured, read_measured
from salad.report.measured_page import measured_page
from salad.report.measurement import measurement_view
from salad.report.page import page
from salad.report.palette import PALETTE, SERIES
from salad.report.parts import MAX_ROWS, run_tiles
from salad.report.results import parse_results
from salad.report.svg import drawing_style, svg_file
from salad.report.training_figures import short_count
from salad.sides import compare_sides


def light(colour):
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in channels]
    return sum(weight * v for weight, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


# Colours


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_marks_stand_out_from_what_they_stand_on(scheme):
    colours = {name: pair[scheme] for name, pair in PALETTE.items()}
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for name in ("ink", "faint", "good", "bad", "unsure", "plain", "stage-one"):  # text; links are stage-one
        for behind in ("page", "panel"):
            assert contrast(colours[name], colours[behind]) >= 4.5, (name, behind)
    assert contrast(colours["ink"], colours["bad-page"]) >= 4.5
    assert contrast(colours["bad"], colours["bad-page"]) >= 4.5
    for name in {*SERIES, "topline", "misaligned", "heard-wrong", "forgotten"}:
        assert contrast(colours[name], colours["page"]) >= 3.0, name


def test_the_style_sheet_has_no_colour_but_the_palettes():
    text = page(parse_results(with_arms()), Path())
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    in_style = set(re.findall(r"#[0-9a-f]{6}\b", style))
    assert in_style == {colour for pair in PALETTE.values() for colour in pair}
    assert set(re.findall(r"var\(--([a-z-]+)", style)) <= {*PALETTE, "tone"}


# The gap


def test_parts_of_the_gap_add_up():
    results = parse_results(full())
    for fall in (
        fall_of_arm(results, results.arm("stage_two")),
        fall_of_split(Measured.model_validate(measurement()).mean),
    ):
        assert sum(part.value for part in fall.parts[:-1]) == pytest.approx(fall.gap.value)
        assert fall.topline.value - fall.gap.value == pytest.approx(fall.speech.value)


def test_a_run_of_before_has_a_gap_without_an_interval():
    old = with_arms("untrained", "stage_one")
    for arm in old["arms"]:
        for key in ("split", "law", "watch"):
            del arm[key]
        for point in arm["curve"]:
            del point["speech_positions"]
    del old["bill"]
    results = parse_results(old)
    assert run_tiles(results)[0].value == "27.5"
    assert run_tiles(results)[0].unit == "points"
    text = page(results, Path())
    assert 'id="figure-gap"' in text
    assert 'id="figure-training"' in text
    assert 'id="figure-training-hours"' not in text, "hours are not known"


# A measurement


def test_a_measurement_says_what_it_found():
    view = measurement_view(Measured.model_validate(measurement()))
    assert view.sentence.startswith("On 2 tasks the gap is 10.0 [5.0, 15.0] points: 1.0")
    rows = {row[0]: row for row in view.table}
    assert rows["mmsu"][-2:] == ["0.0004", "0.0008"]
    assert list(rows)[1:5] == ["mean", "mmsu", "– piper-joe", "– kokoro-heart"]
    assert ("mmsu", "speech/piper-joe", "the speech is longer than 30 s", "2") in view.rejected
    names = [figure.name for task in view.tasks for figure in task.figures]
    assert names[:4] == ["task-0-0", "task-0-conditions", "task-0-conditions-m", "task-0-m-0"]
    written, nats, free, corpus = (extra.rows for extra in view.extras)
    assert nats[1][:2] == ["mmsu", "0.900 [0.800, 1.000]"]
    assert free[2][:3] == ["speech piper-joe", "40", "40.0 % [30.0, 50.0]"]
    assert corpus[2] == ["misalignment nats", "1.200 [1.100, 1.300]"]
    assert written[1:3] == [
        ["mmsu", "topline", "80", "80", "0", "0", "50.0 %", "51.0 %", "25.0 %", "51.5 %"],
        ["mmsu", "speech/piper-joe", "78", "75", "3", "2", "50.0 %", "51.0 %", "25.0 %", "51.5 %"],
    ]
    by_category = next(figure for task in view.tasks for figure in task.figures)
    saved = list(csv.reader(io.StringIO(csv_text(by_category.rows))))
    assert [row[0] for row in saved] == ["group", "law", "chemistry", "biology"], "the widest gap first"


def test_an_older_measurement_is_drawn_and_another_file_refused(tmp_path):
    old = measurement("one")
    del old["open"], old["corpus"]
    for key in ("nats_per_token", "conditions", "unscorable", "chance", "resolved", "written"):
        del old["tasks"]["one"][key]
    (tmp_path / "measured.json").write_text(json.dumps(old))
    text = measured_page(read_measured(tmp_path))
    assert "<figure" in text
    assert "Written answers" not in text
    (tmp_path / "measured.json").write_text('{"misalignment": 1}')
    with pytest.raises(DataError, match="no 'tasks'; give what 'salad measure' wrote"):
        read_measured(tmp_path)
    old["tasks"]["one"]["gap"]["whole"]["speech"] = 3
    (tmp_path / "measured.json").write_text(json.dumps(old))
    with pytest.raises(DataError, match=r"tasks\.one\.gap\.whole\.speech"):
        read_measured(tmp_path)


def test_a_model_that_does_not_listen_is_told_first(monkeypatch):
    monkeypatch.setattr("salad.report.measurement._figures", lambda *_: [])
    deaf = measurement("one")
    deaf["tasks"]["one"] |= {"conditions": [], "nats_per_token": None}
    deaf["tasks"]["one"]["listening"] = {"listens": False, "sentence": "THE MODEL DOES NOT LISTEN."}
    text = measured_page(Measured.model_validate(deaf))
    assert text.index("THE MODEL DOES NOT LISTEN") < text.index('id="gap"')
    assert 'role="alert"' in text


# What is large


def test_tiles_say_what_their_sign_means_and_a_guessing_text_llm_is_told_first():
    told = measurement()
    name = next(iter(told["tasks"]))
    told["tasks"][name]["caution"] = "the text LLM itself can't be told from guessing here"
    for part, value in (("forgotten", 0.0), ("heard_wrong", -0.05), ("misaligned", 0.2)):
        for split in (told["mean"], told["tasks"][name]["gap"]["whole"]):
            split[part] |= {"value": value}
    view = measurement_view(Measured.model_validate(told))
    assert [tile.about for tile in view.tiles[1:]] == [
        "it reads as well as the text LLM does",
        "it reads a transcript better than the text",
        "it hears worse than it reads the transcript",
    ]
    assert f"{name}: the text LLM itself can't be told from guessing here" in view.warnings


def test_a_large_run_makes_a_small_page(monkeypatch):
    monkeypatch.setattr("salad.report.page.drawings", lambda results: {})
    results = with_arms()
    results["clusters"] = [cluster(number, HOSTILE * 3, number / 5000) for number in range(5000)]
    results["rejected"] = [{"where": "w", "reason": f"r {i}", "count": i} for i in range(5000)]
    text = page(parse_results(results), Path())
    assert len(text) < 1e6
    assert text.count(f"Shown: {MAX_ROWS} of 5,000 rows") == 2
    assert "all are in results.json" in text
    assert "<td>r 4999</td>" in text, "the most frequent reason is shown"
    assert "<td>r 3</td>" not in text


def test_a_map_of_many_clusters_shows_the_deafest_and_saves_all():
    clusters = parse_results(full() | {"clusters": [cluster(i, f"t {i}", i / 2000) for i in range(MAX_MARKS + 50)]})
    with drawing_style():
        drawn = misalignment_map(clusters.clusters)
    assert f"Shown: the {MAX_MARKS:,} with the highest M(c) of {MAX_MARKS + 50:,}" in drawn.caption
    assert drawn.svg.count('class="mark"') == 2 * MAX_MARKS, "one panel for each probe"
    assert len(drawn.svg) < 2 * MAX_MARKS * 400
    assert drawn.svg.count('tabindex="0"') == 2
    assert len(drawn.rows) == MAX_MARKS + 51


# What is saved


def test_a_spreadsheet_runs_nothing_of_a_csv():
    assert csv_text([["=1+1", "a,b", None, 1.5, -2]]) == '\'=1+1,"a,b",,1.5,-2\r\n'


def test_a_saved_figure_has_colours_of_its_own():
    saved = svg_file('<svg viewBox="0"><path style="fill: var(--stage-two-uniform); stroke: currentColor"/></svg>')
    light_green, ink = PALETTE["stage-two-uniform"][0], PALETTE["ink"][0]
    assert f"fill: {light_green}; stroke: {ink}" in saved
    assert saved.startswith('<svg xmlns="http://www.w3.org/2000/svg" ')


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1500, "1.5k"), (2_000_000, "2M"), (2.4e10, "24B"), (0.2, "0.2")]
)
def test_numbers_of_an_axis(value, text):
    assert short_count(value) == text


# Several side by side


def rows_of(shift, items=12, first=0):
    def nats(scale):
        return [{"item": f"i-{first + i}", "kl_nats": scale * (1 + i) + shift, "count": 4} for i in range(items)]

    pair = {"heard": nats(0.5), "swapped": nats(0.7)}
    right = [1] * (items - 2) + [0, 0] if shift else [0] * items
    return {"forgetting": nats(0.01), "broad": pair, "human": pair, "task_text": right, "task_speech": right}


def run_folder(folder, rows, **changes):
    (folder / "measured").mkdir(parents=True)
    results = with_arms("stage_one") | changes
    results["arms"][0] |= {"curve": [], "watch": [], "warm_start": []}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "measured" / "stage_one.json").write_text(json.dumps(rows))
    return folder


def test_runs_are_compared_item_by_item(tmp_path):
    a, b = run_folder(tmp_path / "a", rows_of(0.0)), run_folder(tmp_path / "b", rows_of(2.0))
    found = {one.metric: one for one in compare_runs(a, b).differences}
    assert found["misalignment_nats"].difference.value == pytest.approx(0.5), "2 nats over 4 positions"
    assert found["misalignment_nats"].difference.n == 12
    assert found["task_speech"].difference.value == pytest.approx(10 / 12)
    assert found["task_speech"].p_value < 0.01


def test_what_can_not_be_compared_is_not(tmp_path):
    a = run_folder(tmp_path / "a", rows_of(0.0))
    other = full()["conditions"] | {"policy": "utterance"}
    b = run_folder(tmp_path / "b", rows_of(2.0, first=11), conditions=other)
    found = compare_runs(a, b)
    assert found.differences == []
    assert any(
        note.startswith("M on broad speech has no paired differences: the runs differ in policy")
        for note in found.notes
    )
    assert any("fewer than two" in note for note in found.notes)
    assert any("other items" in note for note in found.notes)
    with pytest.raises(RecipeError, match="is a run and"):
        compare_sides([a, tmp_path])
    with pytest.raises(MissingFileError, match="nowhere does not exist"):
        compare_sides([a, tmp_path / "nowhere"])


def test_runs_that_are_the_same_are_said_to_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        run_folder(tmp_path / name, rows_of(2.0))
    said = CliRunner().invoke(app, ["compare", "a", str(tmp_path / "b")]).output
    assert said.startswith("A = a\nB = b\n")
    assert said.count(": the same\n") == 5
    text = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert text.count("<td>the same</td>") == 5
    assert "can&#39;t tell at this size" not in text
    assert "not corrected for 5 comparisons" in text
    assert "In nothing: recipe, seed, command" in text
    assert str(tmp_path) not in text


def test_how_runs_differ_and_what_one_lacks_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = full()["recipe"] | {"stage_two": {"gamma": 0.0, "num_clusters": 8}}
    run_folder(tmp_path / "a", rows_of(0.0))
    b = run_folder(tmp_path / "b", rows_of(2.0), recipe=recipe, task={"name": "other", "version": 1, "chance": 0.25})
    results = json.loads((b / "results.json").read_text())
    results["arms"][0] |= {"misalignment_human_nats": None, "hearing_human_nats": None, "split": None}
    (b / "results.json").write_text(json.dumps(results))
    sides = compare_sides([tmp_path / "a", b])
    assert unlike_table(sides.runs) == [["", "A a", "B b"], ["recipe: stage_two.gamma", "5.0", "0.0"]]
    assert {one.p_value for _, own in sides.pairs for one in own.differences} == {None}
    sides.write(tmp_path / "c.html")
    text = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "B has no M, human speech." in text
    assert "The gap of B has no interval" in text
    assert "the task has no paired differences" in text
    assert "Holm" not in text


def test_compare_and_report_write_pages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, shift in (("a", 0.0), ("b", 2.0)):
        run_folder(tmp_path / name, rows_of(shift), name=HOSTILE if shift else "a")
    said = CliRunner().invoke(app, ["compare", "a", "b"])
    assert said.exit_code == 0, said.output
    assert "Stage I, M: B − A +0.500" in said.output
    text = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert "more than A" in text
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "measured.json").write_text(json.dumps(spoiled(measurement("x"))))
    assert CliRunner().invoke(app, ["report", "a", "--measured", "m"]).output.strip() == "a/report.html"
    text = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert "Spoken benchmarks" in text
    assert text.count("<script") == 1
    refused = CliRunner().invoke(app, ["report", "m", "--measured", "m"])
    assert isinstance(refused.exception, RecipeError)
    nothing = CliRunner().invoke(app, ["report", "nowhere"])
    assert isinstance(nothing.exception, MissingFileError)
