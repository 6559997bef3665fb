"""The CTC warm start: its loss against every alignment by hand, which clips it can use, and that it needs no times."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

import tiny
from salad.errors import DataError
from salad.model.warm_start import not_taught, warm_start
from salad.model.warm_starts import ctc
from salad.model.warm_starts.words import Clip
from salad.recipe import WarmStartSettings
from salad.speech.prepared import TimedWord, kind_of

pytestmark = pytest.mark.usefixtures("one_thread")

PER_POSITION = tiny.FRAMES_PER_POSITION


def clip(name, words, positions):
    """A clip whose words have no times that mean anything."""
    frames = np.random.default_rng(len(words)).standard_normal((positions * PER_POSITION, tiny.ENCODER_DIM))
    return Clip(name, tuple(TimedWord(word, 0.0, 0.0) for word in words), frames.astype(np.float32))


def collapsed(path):
    """Repeats and then blanks taken out of a row of classes."""
    return [number for number, _ in itertools.groupby(path) if number != 0]


@pytest.mark.parametrize("classes", [[1], [1, 2], [2, 2], [1, 2, 1], [1, 1, 2]])
def test_the_loss_is_the_sum_over_all_alignments(classes):
    generator = torch.Generator().manual_seed(len(classes))
    logits = torch.randn(1, 5, 3, generator=generator, dtype=torch.float64)
    log_probs = logits.log_softmax(-1)
    item = ctc.Spoken(clip("u", ["a"], 5), classes, 5)
    total = sum(
        math.exp(sum(float(log_probs[0, t, number]) for t, number in enumerate(path)))
        for path in itertools.product(range(3), repeat=5)
        if collapsed(path) == classes
    )
    assert float(ctc.spelling_loss(log_probs, [item])) == pytest.approx(-math.log(total) / len(classes), rel=1e-9)


def test_padding_and_neighbours_change_no_clips_loss():
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(2, 9, 4, generator=generator, dtype=torch.float64).log_softmax(-1)
    long, short = ctc.Spoken(clip("a", "a", 9), [1, 2, 3], 9), ctc.Spoken(clip("b", "b", 4), [3, 3], 4)
    alone = [ctc.spelling_loss(log_probs[:1], [long]), ctc.spelling_loss(log_probs[1:, :4], [short])]
    together = ctc.spelling_loss(log_probs, [long, short])
    assert float(together) == pytest.approx(float(3 * alone[0] + 2 * alone[1]) / 5, rel=1e-12)


def test_what_is_right_is_one_minus_the_word_error_rate():
    best = torch.tensor([[0, 1, 1, 0, 1, 2, 2, 3], [3, 0, 0, 0, 9, 9, 9, 9]])
    log_probs = torch.nn.functional.one_hot(best, 10).double()
    items = [ctc.Spoken(clip("a", "a", 8), [1, 1, 2], 8), ctc.Spoken(clip("b", "b", 4), [3, 4, 5], 4)]
    assert ctc.share_right(log_probs, items) == pytest.approx(1 - 3 / 6)  # one word too many, two missing
    assert ctc.share_right(log_probs[:, :0], [dataclasses.replace(item, positions=0) for item in items]) == 0.0


def test_clips_with_fewer_positions_than_words_are_left_out_and_counted():
    spoken = [
        clip("fits", ["a", "b", "c"], 3),
        clip("repeats", ["a", "a", "b"], 3),
        clip("repeats and fits", ["a", "A,", "b"], 4),
        clip("wordless", ["—"], 3),
        clip("fast", ["a", "b", "c"], 2),
    ]
    usable, left_out = ctc.spellable(spoken, {"a": 0, "b": 1, "c": 2}, PER_POSITION)
    assert [(item.clip.id, item.classes, item.positions) for item in usable] == [
        ("fits", [1, 2, 3], 3),
        ("repeats and fits", [1, 1, 2], 4),
    ]
    assert {row.id: kind_of(row.reason) for row in left_out} == {
        "repeats": "too fast for the ctc warm start",
        "wordless": "no words for the ctc warm start",
        "fast": "too fast for the ctc warm start",
    }
    assert "its words need 4 positions, it has 3" in left_out[0].reason
    assert not_taught(spoken, WarmStartSettings(kind="ctc"), PER_POSITION) == left_out
    for row in usable:
        log_probs = torch.zeros(1, row.positions, 4).log_softmax(-1)
        assert torch.isfinite(ctc.spelling_loss(log_probs, [row]))


def test_no_clip_slow_enough_is_said():
    with pytest.raises(DataError, match=r"none of 1 clips .* lower model\.adapter\.frames_per_position"):
        warm_start(
            tiny.student(), tiny.tokenizer(), [clip("u", "a b c".split(), 1)], WarmStartSettings(kind="ctc"), 0, "t"
        )


def test_word_times_say_nothing():
    timed = [Clip(u.id, u.words, u.features_FE) for u in tiny.utterances(4)]
    untimed = [
        dataclasses.replace(c, words=tuple(dataclasses.replace(w, start_s=0.0, end_s=0.0) for w in c.words))
        for c in timed
    ]
    settings = WarmStartSettings(kind="ctc", steps=3, batch_positions=64)
    runs = [warm_start(tiny.student(), tiny.tokenizer(), part, settings, 0, "t") for part in (timed, untimed)]
    assert runs[0] == runs[1]


def test_batches_hold_every_clip_once_an_epoch_and_no_more_positions_than_asked():
    items = [ctc.Spoken(clip(f"u{n}", ["a"], n), [1], n) for n in (1, 2, 3, 5, 8, 13, 21, 40)]
    batches = ctc._batches(items, 24, 0, "t")
    for _ in range(2):
        seen = []
        while len(seen) < len(items):
            batch = next(batches)
            assert len(batch) == 1 or len(batch) * max(item.positions for item in batch) <= 24
            seen += [item.clip.id for item in batch]
        assert sorted(seen) == sorted(item.clip.id for item in items)


def test_it_learns_to_spell_what_can_be_heard():
    rng = np.random.default_rng(0)
    words = ["river", "quiet", "small", "water"]
    sounds = rng.standard_normal((len(words), tiny.ENCODER_DIM)).astype(np.float32)
    spoken = []
    for n in range(24):
        order = rng.integers(len(words), size=4)
        frames = np.repeat(sounds[order], 2 * PER_POSITION, axis=0) + 0.1 * rng.standard_normal((32, 8))
        spoken.append(Clip(f"u{n}", tuple(TimedWord(words[i], 0, 0) for i in order), frames.astype(np.float32)))
    settings = WarmStartSettings(kind="ctc", steps=150, batch_positions=128, learning_rate=1e-2)
    reports = warm_start(tiny.student(hidden_size=64, context_frames=0), tiny.tokenizer(), spoken, settings, 0, "t")
    assert reports[0].right_frac < 0.5
    assert reports[-1].right_frac > 0.8
