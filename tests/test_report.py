"""The report draws full, partial and hostile results, runs nothing that stands in them, and says what numbers say."""

from __future__ import annotations

import json
import re
from functools import cache, reduce
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from reported import arm as measured_arm
from reported import cluster, compared, estimate, full, hostile, with_arms
from salad.errors import DataError, MissingFileError, SaladError
from salad.report import table
from salad.report.figures import drawings
from salad.report.page import bill_table, page, write_report
from salad.report.parts import run_tiles, script_text
from salad.report.results import parse_results, read_results
from salad.report.verdicts import verdicts, warning_title, warnings


@cache
def drawn(results_of):
    """The page of full() or hostile(), drawn once: figures take their time."""
    return page(parse_results(results_of()), Path())


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and whether they are closed in order."""

    VOID = frozenset("meta link br".split())

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.wrong, self.text = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


PARTIAL = {
    "nothing": with_arms(),
    "untrained": with_arms("untrained"),
    "stage one": with_arms("untrained", "stage_one"),
}


@pytest.mark.parametrize("results", [full(), hostile(), *PARTIAL.values()], ids=["full", "hostile", *PARTIAL])
def test_the_page_is_sound_and_asks_for_nothing(results, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results))
    write_report(tmp_path / "results.json", tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    seen = Page(text)
    assert not seen.wrong
    assert not seen.open
    assert len(seen.all("script")) == 1
    assert f"<script>{script_text()}</script>" in text
    assert not [(tag, a) for tag, a in seen.elements if any(key.startswith("on") for key in a)]
    addresses = [a[key] for _, a in seen.elements for key in ("src", "href", "xlink:href", "action") if key in a]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not re.search(r"url\((?!#)|@import|@font-face|http://|https://", text)
    ids = [a["id"] for _, a in seen.elements if "id" in a]
    assert len(ids) == len(set(ids)), "an id stands twice"
    targets = {address[1:] for address in addresses if address.startswith("#")} | set(
        re.findall(r"url\(#([^)]+)", text)
    )
    assert targets <= set(ids)


def test_the_page_can_be_read_without_eyes():
    seen = Page(drawn(full))
    assert len(seen.all("svg")) == 11
    assert all(a["role"] in ("img", "group") and len(a["aria-label"]) > 60 for a in seen.all("svg"))
    assert len(seen.all("table")) == len(seen.all("caption")) == 9
    levels = [int(tag[1]) for tag, _ in seen.elements if re.fullmatch("h[1-6]", tag)]
    assert all(later <= level + 1 for level, later in pairwise(levels)), "a heading is skipped"
    assert all(a.get("scope") in ("row", "col") for a in seen.all("th"))
    assert len(seen.all("h1")) == 1
    assert seen.all("html")[0]["lang"] == "en"


def test_the_page_says_what_was_run():
    text = " ".join("".join(Page(drawn(full)).text).split())
    assert "seed 0: 4 of 4 arms measured" in text
    assert "LLM smollm2-135m-instruct, speech encoder whisper-tiny.en, adapter mlp, voice piper-joe, γ 5.0, " in text
    assert "trained on 1 × CPU and 8 × NVIDIA H100, FSDP2." in text
    for piece in ("salad run recipes/demo.yaml", "num_clusters: 8", "2.11.0", "1 h 02 min", "could not read it back"):
        assert piece in text


def test_several_corpora_and_voices_are_named_one_by_one():
    tree = full()
    tree["recipe"] |= {"data": {"human": ["debian-prompts", "spoken"]}, "voice": [{"name": "piper-joe"}, {"name": "x"}]}
    text = " ".join("".join(Page(page(parse_results(tree), Path())).text).split())
    assert "human speech debian-prompts + spoken, " in text
    assert "voice piper-joe + x, " in text


def test_the_figures_have_no_colours_of_their_own():
    figures = re.findall(r"<svg.*?</svg>", drawn(full), flags=re.DOTALL)
    svg = "".join(figure for figure in figures if "marks-0" not in figure)  # but for the map, whose colours are numbers
    assert "var(--stage-two)" in svg
    assert "currentColor" in svg
    assert not re.findall(r"#[0-9a-f]{6}\b", svg)
    assert not re.search(r"(?:fill|stroke): (?:black|white)", svg)


def test_the_same_results_give_the_same_page():
    results = parse_results(PARTIAL["untrained"])
    assert page(results, Path()) == page(results, Path())


def test_hostile_text_is_shown_as_it_is():
    text = drawn(hostile)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert text.count("<script") == 1
    names = {key for _, attributes in Page(text).elements for key in attributes}
    assert all(re.fullmatch(r"[a-zA-Z][a-zA-Z0-9:-]*", name) for name in names), "a text broke out of its attribute"


def test_an_interval_that_leaves_out_its_value_is_drawn():
    results = with_arms("untrained")
    results["arms"][0]["misalignment_nats"] |= {"low": 3.5, "high": 3.6}  # a percentile bootstrap may do that
    assert "<svg" in page(parse_results(results), Path())


def test_results_without_human_speech_or_task_are_drawn():
    results = with_arms("untrained") | {"topline": None, "cascade": None}
    results["arms"][0] |= {"misalignment_human_nats": None, "hearing_human_nats": None, "task": None}
    results["arms"][0]["split"] = None
    assert len(Page(page(parse_results(results), Path())).all("svg")) == 2


def test_many_clusters_still_fit():
    results = with_arms()
    results["clusters"] = [cluster(i, f"topic {i}", 2 + i / 128) for i in range(128)]
    assert "Shown: the 32 with the highest M(c) of 128" in page(parse_results(results), Path())


# What the numbers say


def said(results):
    return {verdict.stage: verdict for verdict in verdicts(parse_results(results))}


def test_the_verdicts_of_a_good_run():
    seen = said(full())
    assert list(seen) == ["Untrained", "Stage I", "Stage II", "Selection by M(c)^γ", "The gap"]
    assert seen["Stage I"].headline == "Hears; M fell from untrained"
    assert "intervals apart; paired by document, it fell by 1.100 to 1.320" in " ".join(seen["Stage I"].sentences)
    assert seen["Stage II"].tone == "good"
    assert seen["The gap"].headline.startswith("20.0 points between reading and hearing; hearing can't be told")
    assert not warnings(parse_results(full()))


@pytest.mark.parametrize(
    ("value", "headline"), [(0.04, "Can't tell"), (0.2, "Better than uniform"), (-0.2, "Worse than uniform")]
)
@pytest.mark.parametrize("turned", [False, True])
def test_selection_against_uniform(value, headline, turned):
    results = full()
    results["comparisons"] = [compared("stage_two", "stage_two_uniform", value, 0.06)]
    if turned:
        results["comparisons"] = [compared("stage_two_uniform", "stage_two", -value, 0.06)]
    assert said(results)["Selection by M(c)^γ"].headline.startswith(headline)


def test_a_comparison_of_something_else_says_nothing_of_selection():
    results = full()
    results["comparisons"] = [compared("stage_two", "stage_two_uniform", 0.5, 0.1, metric="task_speech")]
    assert said(results)["Selection by M(c)^γ"].headline == "Not compared with uniform selection yet"


def test_stage_three_is_an_arm_with_its_compute():
    results = full()
    assert "Stage III" not in said(results)
    results["arms"].append(measured_arm("stage_three", 1.7, 0.7, 0.03, 0.45, 20))
    results["comparisons"].append(compared("stage_three", "stage_two", 0.2, 0.05))
    own = {"rollouts": 1600, "tokens": 41234, "ended": 12, "flops": 4.2e12}
    part = {"stage": "stage_three", "steps": 20, "train_flops": 3.1e13, "on_policy": own, "sources": []}
    results["bill"].append(part)
    verdict = said(results)["Stage III"]
    assert (verdict.tone, verdict.headline) == ("good", "Hears; M fell from Stage II")
    assert verdict.sentences[-1] == (
        "Training took 31 TFLOP; writing the 41,234 tokens of 1,600 continuations in the student's own words 4.2 TFLOP "
        "more."
    )
    parsed = parse_results(results)
    assert parsed.last is parsed.arm("stage_three")
    assert (
        next(verdict for verdict in verdicts(parsed) if verdict.stage == "The gap")
        .sentences[0]
        .startswith("Stage III answers")
    )
    assert "var(--stage-three)" in "".join(drawing.svg for drawing in drawings(parsed).values())
    results["bill"][-1]["on_policy"] = None
    assert said(results)["Stage III"].sentences[-1] == "Training took 31 TFLOP, on words of others alone."


@pytest.mark.parametrize(
    ("m", "headline"),
    [(2.21, "Hears; M fell from untrained"), (3.4, "Hears; can't tell at this size"), (4.0, "Hears; M rose")],
)
def test_without_comparisons_the_intervals_decide(m, headline):
    results = with_arms("untrained", "stage_one")
    results["arms"][1]["misalignment_nats"] = estimate(m)
    assert said(results)["Stage I"].headline.startswith(headline)


def test_an_arm_that_does_not_hear_is_warned_of(monkeypatch):
    monkeypatch.setattr("salad.report.page.drawings", lambda results: {})
    results = full()
    deaf = estimate(-0.2, 0.05)
    results["arms"][2] |= {"hears": False, "hearing_nats": deaf, "hearing_human_nats": deaf}
    (warning,) = warnings(parse_results(results))
    assert warning.startswith("Stage II does not hear")
    assert warning.endswith("is not about speech.")
    assert "[−0.250, −0.150]" in warning
    assert said(results)["Stage II"].tone == "bad"
    assert said(results)["Selection by M(c)^γ"].headline == "Can't be judged: Stage II does not hear"
    assert 'role="alert"' in page(parse_results(results), Path())
    assert 'role="alert"' not in page(parse_results(full()), Path()), "an untrained arm need not hear"


def test_an_interval_that_holds_0_shows_nothing_and_is_not_called_deaf(monkeypatch):
    monkeypatch.setattr("salad.report.page.drawings", lambda results: {})
    results = full()
    unsure = estimate(0.02, 0.05)
    results["arms"][1] |= {"hears": False, "hearing_nats": unsure, "hearing_human_nats": estimate(0.9)}
    text = page(parse_results(results), Path())
    assert "An arm can&#39;t be shown to hear the broad texts&#39; voice" in text
    assert said(results)["Stage I"].headline.startswith("Hears human speech only")
    results["arms"][1]["hearing_human_nats"] = unsure
    assert said(results)["Stage I"].headline.startswith("Can't be shown to hear")
    results["arms"][2] |= {"hears": False, "hearing_nats": unsure}
    parsed = parse_results(results)
    told = [*warnings(parsed), warning_title(parsed), *(v.headline for v in verdicts(parsed))]
    assert not [sentence for sentence in told if "not hear" in sentence]
    assert warning_title(parsed) == "2 arms can't be shown to hear the broad texts' voice"


def test_the_bill_parts_what_was_read_from_what_was_heard_and_has_the_warm_start():
    results = full()
    results["bill"][0]["warm_start"] = {"kind": "word_aligned", "steps": 100, "hours_at_most": 5.0}
    headers, warm, speech = bill_table(parse_results(results))
    own = dict(zip(headers, speech, strict=True))
    assert (own["positions heard"], own["text tokens read"]) == ("24,000", "30,000")
    own = dict(zip(headers, warm, strict=True))
    assert own["kind"] == "warm start (word-aligned)"
    assert (own["epochs"], own["heard"], own["positions heard"]) == ("≤ 12.0", "≤ 5 h 00 min", "≤ 112,500")
    (tile,) = [tile for tile in run_tiles(parse_results(results)) if tile.title == "speech it could learn from"]
    assert tile.about.endswith("the adapter's warm starts went over it for at most 5 h 00 min")


def test_the_course_of_training_says_what_was_looked_at_and_why_it_has_no_law_once():
    results = with_arms("stage_one", "stage_two")
    for arm, looks in zip(results["arms"], (2, 3), strict=True):
        arm["law"] = {"unfit": f"{arm['name']}: E, B and β need 6 points of the log, and there are {looks}; so."}
    caption = drawings(parse_results(results))["training"].caption
    assert "M and F on 8 held-out utterances of debian-prompts (so it is not the headline's M" in caption
    assert caption.count("need 6 points") == 1
    assert "No law for Stage I; Stage II: E, B" in caption
    assert "stage_" not in caption


def test_an_arm_that_hears_human_speech_alone_is_said_to():
    results = full()
    results["arms"][2] |= {
        "hears": False,
        "hearing_nats": estimate(0.02, 0.05),
        "hearing_human_nats": estimate(0.9, 0.1),
    }
    (warning,) = warnings(parse_results(results))
    assert "It does hear held-out human speech: 0.900" in warning
    assert said(results)["Stage II"].headline.startswith("Hears human speech only")


# The table, for the page and the terminal


def test_the_table_of_arms():
    headers, *rows = table.arms_table(parse_results(full()))
    assert headers == list(table.HEADERS)
    assert all(len(row) == len(headers) for row in rows)
    assert [row[0] for row in rows[:4]] == ["untrained", "Stage I", "Stage II", "Stage II, uniform"]
    stage_one = dict(zip(headers, rows[1], strict=True))
    assert stage_one["M (nats)"] == "2.210 [2.080, 2.340]"
    assert stage_one["task, speech"] == "32.5 % [17.5, 47.5]"
    assert stage_one["gap (points)"] == "27.5"
    assert [row[4] for row in rows[:2]] == ["not shown", "yes"]
    results = full()
    results["arms"][0]["hearing_nats"] = estimate(-0.2, 0.1)
    assert table.arms_table(parse_results(results))[1][4] == "NO"
    assert rows[-1][-3:] == ["25.0 %", "25.0 %", "–"]


def test_a_run_without_arms_has_a_table():
    assert len(table.arms_table(parse_results(with_arms()))) == 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.96, "1 min 00 s"), (3599.7, "1 h 00 min"), (509828400, "141,619 h 00 min"), (None, "–")],
)
def test_durations(seconds, text):
    assert table.duration(seconds) == text


def test_no_number_is_minus_nothing():
    assert table.nats(-0.0001) == "0.000"
    assert table.nats(-0.5) == "−0.500"


# Bad input


def without(*path):
    results = full()
    del reduce(lambda place, step: place[step], path[:-1], results)[path[-1]]
    return results


@pytest.mark.parametrize(
    ("results", "told"),
    [
        (without("schema"), "has no 'schema'"),
        (full() | {"schema": 2}, "has schema 2"),
        (full() | {"schema": True}, "has schema True"),
        (without("conditions"), "conditions is missing"),
        (without("arms", 2, "hearing_nats", "low"), "arms[2].hearing_nats.low is missing"),
        (full() | {"seed": "zero"}, "seed: input should be a valid integer"),
        (full() | {"topline": estimate(float("nan"))}, "topline.value: input should be a finite number"),
        (full() | {"arms": [{"name": "other"}]}, "arms[0].name"),
        ([], "holds no results"),
    ],
)
def test_bad_results_end_in_one_sentence(results, told, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    with pytest.raises(DataError) as caught:
        write_report(file, tmp_path / "report.html")
    assert str(file) in str(caught.value)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"results\.json does not exist"):
        read_results(tmp_path / "results.json")
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(SaladError, match=r"results\.json is not readable as JSON"):
        read_results(tmp_path / "results.json")
