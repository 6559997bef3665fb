"""The step that selects, on a run's folders: two arms, one budget, and nothing that was heard or probed before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from salad.files import read_json, read_jsonl, write_jsonl
from salad.recipe import Recipe
from salad.run import Run
from salad.speech.prepared import write_prepared
from salad.steps import stages
from salad.texts.text import read_texts
from test_select_verb import LEVELS, K, lay_out
from tiny_corpus import spoken_cut

GAMMA, SECONDS = 2.0, 60.0
PROBES = [f"t{number}" for number in range(2 * K)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run up to its probe. Its own speech says t8 whole and t11 in parts, both of the deafest cluster."""
    place = lay_out(tmp_path, LEVELS)
    folder, voice = tmp_path / "run", tmp_path / "voice"
    for name, there in (("texts.jsonl", "texts/pool.jsonl"), ("clusters", "clusters"), ("probe", "probe/stage_one")):
        (folder / there).parent.mkdir(parents=True, exist_ok=True)
        (place / name).rename(folder / there)
    write_jsonl(folder / "clusters" / "probes.jsonl", [{"id": name} for name in PROBES])
    write_prepared(folder / "spoken" / "heldout", [spoken_cut(tmp_path / "heldout", "h", 12)], [], {})
    said = [spoken_cut(voice, "t8", 6), *(spoken_cut(voice, f"t11#{part}", 6, "t11") for part in (1, 2))]
    write_prepared(voice, said, [], {"voices": [{"name": "piper-joe"}]})
    two: dict[str, Any] = {"gamma": GAMMA, "budget_frac": None, "budget_h": SECONDS / 3600, "num_clusters": K}
    return Run(Recipe.model_validate({"name": "x", "data": {"human": str(voice)}, "stage_two": two}), folder)


def test_two_arms_are_drawn_to_one_budget_without_what_was_heard(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "report_of", lambda *_: {"human_s": 1.0})
    report = stages.run_select(run, lambda *_: None)
    assert report["budget"] == {"amount": pytest.approx(SECONDS), "unit": "seconds"}
    weights = [level**GAMMA for level in LEVELS]
    wanted = {"stage_two": [w / sum(weights) for w in weights], "stage_two_uniform": [1 / K] * K}
    pace = report["stage_two"]["seconds_per_character"]
    length = {text.id: len(text.text) for text in read_texts(run.path("texts", "pool.jsonl"))}
    for arm, target in wanted.items():
        told = read_json(run.path("selected", arm, "selection.json"))
        assert told == json.loads(json.dumps(report[arm]))
        assert [row["target"] for row in told["clusters"]] == pytest.approx(target)
        drawn = [row["id"] for row in read_jsonl(run.path("selected", arm, "selected.jsonl"))]
        spent = [length[name] * pace for name in drawn]
        assert sum(spent[:-1]) < SECONDS <= sum(spent)
        assert not {*PROBES, "t8", "t11"} & set(drawn)
        assert sum(told["refused"].values()) == len(PROBES) + 2
    assert report["stage_two"]["gamma"] == GAMMA
    assert report["stage_two_uniform"]["gamma"] == 0
