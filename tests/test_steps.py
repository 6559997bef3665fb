"""What the steps of a run do besides the work of the rooms: whose memory is whose, and who reads what."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from salad.ranks import ALONE, Ranks
from salad.recipe import Recipe
from salad.run import Run
from salad.steps import measuring, stages


class Model:
    """Stands for a speech LLM and its gigabytes."""


def test_one_model_at_a_time_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[weakref.ref[Model]] = []

    def load(*_: Any, **__: Any) -> Model:
        assert all(earlier() is None for earlier in loaded)
        model = Model()
        loaded.append(weakref.ref(model))
        return model

    def measure(student: Model, *_: Any) -> Any:
        return SimpleNamespace(as_json=dict)

    monkeypatch.setattr(measuring, "SpeechLM", SimpleNamespace(from_pretrained=load))
    monkeypatch.setattr(measuring, "teacher_for", lambda student: student)
    monkeypatch.setattr(measuring, "_builder", lambda run, student: student)
    monkeypatch.setattr(measuring, "_held_out", lambda run, builder: (None, []))
    monkeypatch.setattr(measuring, "measure_arm", measure)
    run = Run(Recipe.model_validate({"name": "a"}), tmp_path)
    gc.disable()
    try:
        measuring.measure_step("stage_one", "stage_two")(run, lambda *_: None)
    finally:
        gc.enable()
    assert len(loaded) == 2
    assert sorted(path.name for path in run.path("measured").iterdir()) == ["stage_one.json", "stage_two.json"]


class Alone(Ranks):
    """One of several that don't hear each other: what it adds up is its own share."""

    def total(self, values: Tensor) -> Tensor:
        return values


@pytest.mark.parametrize("world", [1, 2, 5])
def test_ranks_share_the_reading_of_millions_of_utterances(world: int) -> None:
    corpora = [tiny.utterances(7), tiny.utterances(4)]
    wanted = sum(utterance.words[-1].end_s for corpus in corpora for utterance in corpus)
    shares = [stages._spoken_s(corpora, Alone(rank, world, torch.device("cpu"))) for rank in range(world)]
    assert sum(shares) == pytest.approx(wanted)
    assert max(shares) < wanted or world == 1
    assert stages._spoken_s(corpora, ALONE) == wanted
