"""The word-aligned warm start: what a position is called, and that only the adapter learns it."""

import pytest
import torch

import tiny
from salad.distill.teacher import teacher_for
from salad.model.warm_start import frame_targets, spelled, warm_start, word_directions
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


def test_word_directions_are_unit_vectors_of_centred_mean_embeddings():
    table = tiny.student().table_VH.detach()
    directions = word_directions(["river", "the"], tiny.tokenizer(), table)
    ids = tiny.tokenizer()(" river", add_special_tokens=False)["input_ids"]
    wanted = table[ids].mean(0) - table.mean(0)
    assert torch.allclose(directions[0], wanted / wanted.norm(), atol=1e-6)


def test_the_warm_start_teaches_the_adapter_alone_and_the_same_each_time():
    clips = [(u.words, u.features_FE) for u in tiny.utterances(6)]
    settings = WarmStartSettings(steps=40, batch_positions=64, learning_rate=1e-2)
    students = [tiny.student(hidden_size=64) for _ in range(2)]
    before = teacher_for(students[0]).fingerprint(), weights(students[0])
    runs = [warm_start(student, tiny.tokenizer(), clips, settings, 0, "test") for student in students]
    assert runs[0] == runs[1]
    first, second = map(weights, students)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [report.step for report in runs[0]] == list(range(1, 41))
    assert runs[0][-1].loss_nats < 0.5 * runs[0][0].loss_nats
    assert runs[0][-1].right_frac > runs[0][0].right_frac
    assert teacher_for(students[0]).fingerprint() == before[0]
    moved = {n for n, t in weights(students[0]).items() if not torch.equal(t, before[1][n])}
    assert moved
    assert all(name.startswith("adapter.") for name in moved)
    assert warm_start(students[0], tiny.tokenizer(), clips, WarmStartSettings(steps=0), 0, "test") == []
