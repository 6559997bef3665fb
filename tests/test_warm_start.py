"""Warm starts: what a position is called, and that only the adapter learns it, by either kind."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

import tiny
from salad.errors import DataError
from salad.model.warm_start import not_taught, warm_start
from salad.model.warm_starts import word_aligned
from salad.model.warm_starts.word_aligned import PIECE_POSITIONS, frame_targets
from salad.model.warm_starts.words import Clip, spelled, vocabulary_of, word_directions
from salad.recipe import WarmStartSettings
from salad.speech.prepared import TimedWord

pytestmark = pytest.mark.usefixtures("one_thread")


def weights(student):
    return {name: tensor.clone() for name, tensor in student.trained_state().items()}


def test_a_position_is_named_by_the_word_under_its_centre():
    words = [TimedWord("The", 0.0, 0.10), TimedWord("river,", 0.20, 0.35), TimedWord("zzz", 0.4, 0.5)]
    targets = frame_targets(words, 6, 10.0, {"the": 3, "river": 1})
    assert targets.tolist() == [3, -1, 1, -1, -1, -1]  # centres at 0.05, 0.15, …; 0.35 is past the river's end
    assert [spelled(word) for word in ("“Hello,”", "don't", "—", "3.5")] == ["hello", "don't", "", "3.5"]


def test_a_piece_of_a_clip_holds_the_frames_that_its_words_are_said_in():
    per, student = tiny.FRAMES_PER_POSITION, tiny.student()
    long = [tiny.utterance(f"u{i}", 30) for i in range(3)]  # some hundred positions, so several pieces
    numbered = [  # a frame says whose it is, and which
        Clip(u.id, u.words, np.stack([np.full(len(u.features_FE), i), np.arange(len(u.features_FE))], 1))
        for i, u in enumerate(long)
    ]
    vocabulary, seen = vocabulary_of(numbered), set()
    batches = word_aligned._batches(student, numbered, vocabulary, 2 * PIECE_POSITIONS, 0, "test")
    for features_SFE, targets_SP in itertools.islice(batches, 12):
        for features_FE, targets_P in zip(features_SFE.tolist(), targets_SP.tolist(), strict=True):
            clip, first = numbered[int(features_FE[0][0])], int(features_FE[0][1]) // per
            wanted = frame_targets(clip.words, -(-len(clip.features_FE) // per), tiny.POSITION_HZ, vocabulary)
            own = wanted[first : first + PIECE_POSITIONS].tolist()
            assert targets_P == own + [-1] * (len(targets_P) - len(own))
            seen.add((clip.id, first))
    assert {first for _, first in seen} >= {0, PIECE_POSITIONS, 2 * PIECE_POSITIONS}


def test_its_rate_falls_linearly_to_0(monkeypatch):
    rates = []
    step = torch.optim.AdamW.step

    def noted(optimizer):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    settings = WarmStartSettings(steps=4, batch_positions=64, learning_rate=0.1)
    warm_start(tiny.student(), tiny.tokenizer(), clips(), settings, 0, "test")
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])


def test_word_directions_are_unit_vectors_of_centred_mean_embeddings():
    table = tiny.student().table_VH.detach()
    directions = word_directions(["river", "the"], tiny.tokenizer(), table)
    ids = tiny.tokenizer()(" river", add_special_tokens=False)["input_ids"]
    wanted = table[ids].mean(0) - table.mean(0)
    assert torch.allclose(directions[0], wanted / wanted.norm(), atol=1e-6)


def clips(num=6):
    return [Clip(u.id, u.words, u.features_FE) for u in tiny.utterances(num)]


def test_the_vocabulary_is_the_words_without_their_punctuation():
    words = tuple(TimedWord(text, 0.0, 0.1) for text in ("River,", "river", "a", "—"))
    assert vocabulary_of([Clip("u", words, tiny.utterances(1)[0].features_FE)]) == {"a": 0, "river": 1}


@pytest.mark.parametrize("adapter", [{"kind": "mlp"}, {"kind": "conv", "num_layers": 0}, {"kind": "stack"}], ids=str)
@pytest.mark.parametrize("kind", ["word_aligned", "ctc"])
def test_the_warm_start_teaches_the_adapter_alone_and_the_same_each_time(kind, adapter):
    settings = WarmStartSettings(kind=kind, steps=40, batch_positions=64, learning_rate=1e-2)
    students = [tiny.student(hidden_size=64, **adapter) for _ in range(2)]
    before = {name: tensor.clone() for name, tensor in students[0].state_dict().items()}
    runs = [warm_start(student, tiny.tokenizer(), clips(), settings, 0, "test") for student in students]
    assert runs[0] == runs[1]
    first, second = weights(students[0]), weights(students[1])
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [report.step for report in runs[0]] == list(range(1, 41))
    assert runs[0][-1].loss_nats < 0.7 * runs[0][0].loss_nats
    if kind == "word_aligned":  # CTC has no word right before it has all of a clip's in order
        assert runs[0][-1].right_frac > runs[0][0].right_frac
    moved = {name for name, tensor in students[0].state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.startswith("adapter.") for name in moved)
    assert warm_start(students[0], tiny.tokenizer(), clips(), WarmStartSettings(steps=0), 0, "test") == []


def test_other_seeds_and_purposes_teach_in_another_order():
    settings = WarmStartSettings(kind="ctc", steps=3, batch_positions=64)
    runs = [
        warm_start(tiny.student(), tiny.tokenizer(), clips(), settings, seed, purpose)
        for seed, purpose in ((0, "stage_one"), (1, "stage_one"), (0, "stage_two"))
    ]
    assert runs[0] != runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize("kind", ["word_aligned", "ctc"])
def test_nothing_to_learn_from_is_said(kind):
    silent = [dataclasses.replace(clip, words=()) for clip in clips()]
    with pytest.raises(DataError, match="no timed words"):
        warm_start(tiny.student(), tiny.tokenizer(), silent, WarmStartSettings(kind=kind, steps=1), 0, "test")


def test_words_that_no_position_lies_in_are_said():
    brief = (TimedWord("river", 0.0, 0.001),)
    with pytest.raises(DataError, match="no position's centre lies in a word"):
        warm_start(
            tiny.student(),
            tiny.tokenizer(),
            [dataclasses.replace(clip, words=brief) for clip in clips()],
            WarmStartSettings(steps=1),
            0,
            "test",
        )


def test_every_clip_is_taught_by_word_times():
    assert not_taught(clips(), WarmStartSettings(), 100) == []
    assert len(not_taught(clips(), WarmStartSettings(kind="ctc"), 100)) == len(clips())
    assert not_taught(clips(), WarmStartSettings(kind="ctc", steps=0), 100) == []
