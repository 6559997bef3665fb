"""Measurements side by side as `salad compare` draws them: M and F of tasks, and how the measurements differ."""

from __future__ import annotations

import csv
import io
import json

import pytest

from reported import estimate, full, measurement
from salad.report.compare_figures import MAX_SHOWN, nats_rows
from salad.report.compare_given import unlike, unlike_table, what_was_given
from salad.report.compare_page import compare_page
from salad.report.compare_tables import METRICS, Side, side_table
from salad.report.downloads import csv_text
from salad.report.measured import Measured
from salad.report.results import parse_results
from salad.report.svg import drawing_style
from salad.sides import compare_sides
from test_compare import answers, scores, write


def side(letter, value):
    return Side(f"m-{letter.lower()}", letter, f"measured/{letter}", measured=Measured.model_validate(value))


def two(*names, **changes):
    """A measurement, and one like it but for `changes`."""
    return [side("A", measurement(*names)), side("B", measurement(*names) | changes)]


def drawn(runs, title):
    with drawing_style():
        return nats_rows(runs, title, METRICS[title])


def test_m_and_f_of_every_task_are_drawn_with_their_intervals():
    without = measurement()
    without["tasks"]["mmsu"]["nats_per_token"]["misalignment"] = None
    runs = [side("A", measurement()), side("B", without)]
    found = drawn(runs, "misalignment M")
    assert list(csv.reader(io.StringIO(csv_text(found.rows)))) == [
        ["run", "name", "task", "value", "low", "high", "n"],
        ["A", "m-a", "mmsu", "0.9", "0.8", "1.0", "120"],
        ["A", "m-a", "arc_easy", "0.9", "0.8", "1.0", "120"],
        ["B", "m-b", "arc_easy", "0.9", "0.8", "1.0", "120"],
    ]
    assert "nats per token" in found.svg
    assert found.caption.endswith("with 95 % intervals. B has no misalignment M on mmsu.")
    assert "A, mmsu 0.900 [0.800, 1.000]" in found.svg
    assert [row[2] for row in drawn(runs, "forgetting F").rows[1:]] == ["mmsu", "mmsu", "arc_easy", "arc_easy"]
    assert drawn(runs, "M, human speech") is None
    rows = {row[0]: row[1:] for row in side_table(runs)}
    assert rows["mmsu: misalignment M (nats)"] == ["0.900 [0.800, 1.000]", "–"]
    assert rows["mmsu: forgetting F (nats)"] == ["0.030 [0.020, 0.040]"] * 2


def test_a_figure_of_many_tasks_says_how_many_it_shows():
    found = drawn(two(*(f"task {number:02}" for number in range(30))), "misalignment M")
    assert f"Shown: {MAX_SHOWN} of 60." in found.caption
    assert len(found.rows) == 61


def test_measurements_without_distributions_have_no_such_figure():
    writes = measurement("mmsu")
    writes["tasks"]["mmsu"]["nats_per_token"] = None
    runs = [side("A", writes), side("B", writes)]
    assert drawn(runs, "misalignment M") is None
    assert not any("nats" in row[0] for row in side_table(runs))


def test_how_measurements_differ_is_listed():
    other = measurement("mmsu")
    other["tasks"]["mmsu"]["gap"]["voices"] = ["piper-joe"]
    other["tasks"]["mmsu"]["conditions"] = [
        c for c in other["tasks"]["mmsu"]["conditions"] if c["condition"] == "clean"
    ]
    other |= {"model": "runs/other", "shots": 0, "speech_sha256": {"mmsu": "77" * 32}, "versions": {"torch": "2.12"}}
    runs = [side("A", measurement("mmsu") | {"versions": {"torch": "2.11"}}), side("B", other)]
    assert unlike_table(runs) == [
        ["", "A m-a", "B m-b"],
        ["model", "runs/demo", "runs/other"],
        ["solved examples", "5", "0"],
        ["mmsu: voices", "piper-joe, kokoro-heart", "piper-joe"],
        ["mmsu: conditions", "clean, noise at 10 dB, telephone", "clean"],
        ["mmsu: speech, SHA-256", "8f118f118f118f11…", "7777777777777777…"],
        ["version: torch", "2.11", "2.12"],
    ]
    assert unlike_table(two()) == []
    assert unlike_table([*two(), Side("scores", "C", "scores")]) is None
    assert what_was_given(runs).startswith("models, how they were asked, tasks")


def test_other_speech_is_warned_of_once_for_each_pair():
    other = dict.fromkeys(("mmsu", "arc_easy"), "00" * 32)
    runs = [*two(), side("C", measurement() | {"speech_sha256": other}), side("D", measurement("mmsu"))]
    (said,) = unlike(runs)
    assert said.startswith("A and C did not hear the same speech of mmsu, arc_easy (its SHA-256 differs)")
    assert said in compare_page(runs, [], []).replace("&#39;", "'")
    assert unlike(two()) == []


@pytest.mark.parametrize("same", [True, False])
def test_folders_of_measurements_are_compared_and_drawn(tmp_path, monkeypatch, same):
    monkeypatch.chdir(tmp_path)
    for name, number in (("a", 0), ("b", 1)):
        own = measurement("mmsu") if same else measurement("mmsu") | {"model": f"runs/{name}"}
        own["tasks"]["mmsu"]["nats_per_token"]["misalignment"] = estimate(0.5 + number)
        for arm, p in (("topline", 0.8), ("speech/amy", 0.5)):
            audio = "amy" if arm != "topline" else None
            rows = scores(answers(p, number), f"runs/{name}", "mmsu", audio)
            write(tmp_path / name / "mmsu" / f"{arm}.parquet", rows)
        (tmp_path / name / "measured.json").write_text(json.dumps(own))
    compare_sides([tmp_path / "a", tmp_path / "b"]).write(tmp_path / "c.html")
    text = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert 'id="figure-misalignment-nats"' in text
    assert 'id="figure-forgetting-nats"' in text
    assert "B, mmsu 1.500 [1.400, 1.600]" in text
    assert ("In nothing: models, how they were asked" in text) == same
    assert ("<td>runs/b</td>" in text) != same
    assert "did not hear the same speech" not in text
    assert "M only of the same speech." in text
    assert "Each run at the last stage" not in text


def test_corpora_of_one_name_are_all_listed():
    sides = []
    for letter, more in (("A", 900), ("B", 901)):
        value = full()
        first = value["bill"][0]["sources"][0]
        value["bill"][0]["sources"].insert(0, first | {"num_items": more})
        sides.append(Side(letter, letter, letter, results=parse_results(value)))
    [row] = [row for row in unlike_table(sides) if row[0].startswith("data: ")]
    drawn = f"{first['num_items']:,} items, {first['num_sequences']:,} sequences"
    assert row[1:] == [f"{more} items, {first['num_sequences']:,} sequences; {drawn}" for more in (900, 901)]
