"""An arm's numbers: F and M against their equations, one position after another, and which row goes into which."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
from salad.distill.teacher import teacher_for
from salad.errors import DataError
from salad.interleave.spans import plan_spans
from salad.interleave.utterances import feature_lookup
from salad.measure.arm import ArmRows, arm_estimates, compare_misalignment
from salad.measure.divergence_by_item import ItemDivergence
from salad.measure.misalignment import HeardAndSwapped, forgetting_by_item, misalignment_by_item
from salad.model.processor import pad_features
from salad.randomness import generator
from salad.results import _comparisons, _law

pytestmark = pytest.mark.usefixtures("one_thread")

SPOKEN = tiny.utterances(5, num_words=9)
POLICY = {"policy": "interleaved", "text_words": (1, 3), "speech_words": (1, 3)}


def log_probabilities(model, ids, **heard):
    """[T, V] in float64, of a plain forward pass over one sequence."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False, **heard).logits[0].double().log_softmax(-1)


def whole_text(utterance):
    return [tiny.mark(), *tiny.tokenizer()(utterance.text, add_special_tokens=False)["input_ids"]]


def text_positions(utterance, sequence):
    """(position of the mixed context, of the text) of every text token, from its words' places in the text."""
    spans = plan_spans(len(utterance.words), tiny.builder(**POLICY).settings, generator(0, "spans", utterance.id, 0))
    heard_words = {word for span in spans if span.kind == "speech" for word in range(span.start, span.stop)}
    offsets = tiny.tokenizer()(utterance.text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ends = np.cumsum([len(word.text) + 1 for word in utterance.words]) - 1
    word_of = [int(np.searchsorted(ends, end)) for _, end in offsets]
    frames = iter(span.stop - span.start for span in sequence.speech)
    found, mixed, before = [], 1, None
    for read, word in enumerate(word_of, start=1):  # the mark stands at 0
        if word in heard_words:
            mixed += next(frames) if before not in heard_words else 0
        else:
            found.append((mixed - 1, read - 1))
            mixed += 1
        before = word
    assert mixed + sum(frames) == len(sequence.student_ids)
    return found


def kl(log_q, log_p):
    return float((log_q.exp() * (log_q - log_p)).sum())


def test_f_and_m_are_those_of_their_equations():
    student, text_llm = tiny.move(tiny.student(base=tiny.llm(seed=4)), by=0.15), tiny.llm(seed=4)
    sequences = [tiny.builder(**POLICY).mixed(utterance) for utterance in SPOKEN]
    assert sum(len(sequence.speech) for sequence in sequences) > len(SPOKEN)
    texts = [tiny.builder().text(utterance.id, utterance.text) for utterance in SPOKEN]
    f = forgetting_by_item(teacher_for(student), student, texts, 128)
    m = misalignment_by_item(student, sequences, feature_lookup(SPOKEN), 128, 0).heard
    for utterance, sequence, forgotten, misaligned in zip(SPOKEN, sequences, f, m, strict=True):
        ids, per = whole_text(utterance), tiny.FRAMES_PER_POSITION
        features, lengths = pad_features([utterance.features_FE[s.start * per : s.stop * per] for s in sequence.speech])
        mixed = [tiny.SPEECH_TOKEN_ID if token < 0 else token for token in sequence.student_ids]
        q, p = log_probabilities(text_llm, ids), log_probabilities(student, ids)
        heard = log_probabilities(student, mixed, speech_features=features, speech_lengths=lengths)
        assert forgotten.kl_nats == pytest.approx(sum(kl(q[i], p[i]) for i in range(len(ids) - 1)), rel=1e-4)
        assert forgotten.count == len(ids) - 1
        pairs = text_positions(utterance, sequence)
        assert misaligned.kl_nats == pytest.approx(sum(kl(p[i], heard[c]) for c, i in pairs), rel=1e-4)
        assert misaligned.nll_nats == pytest.approx(sum(-float(heard[c, ids[i + 1]]) for c, i in pairs), rel=1e-4)
        assert misaligned.count == len(pairs)


def test_speech_of_fewer_than_two_sequences_is_told_from_a_fault():
    sequence = tiny.builder().mixed(SPOKEN[0])
    with pytest.raises(DataError, match=r"1 of 1 sequences have speech.*data\.heldout_"):
        misalignment_by_item(tiny.student(), [sequence], feature_lookup(SPOKEN), 128, 0)


def rows(*nats, counts=(1, 4)):
    return [ItemDivergence(f"i{k}", nat, 0.0, 0.0, n) for k, (nat, n) in enumerate(zip(nats, counts, strict=True))]


def arm(scale=1.0):
    broad, human = HeardAndSwapped(rows(1 * scale, 2), rows(3, 7)), HeardAndSwapped(rows(4 * scale, 6), rows(5, 9))
    return ArmRows(rows(0.5, 1.5), broad, human, [1, 0, 1, 1], [0, 0, 1, 0])


def test_each_number_is_of_its_own_rows():
    found = arm_estimates(arm(), 0, 50)
    values = {name: one["value"] for name, one in found.items() if isinstance(one, dict) and "value" in one}
    assert values == pytest.approx(
        {
            "misalignment_nats": 3 / 5,
            "misalignment_swapped_nats": 10 / 5,
            "hearing_nats": 7 / 5,
            "misalignment_human_nats": 10 / 5,
            "hearing_human_nats": 4 / 5,
            "forgetting_nats": 2 / 5,
        }
    )
    assert found["hears"]
    assert (found["task"]["text"]["value"], found["task"]["speech"]["value"]) == (0.75, 0.25)


def test_the_better_arm_is_the_one_with_the_lower_m():
    assert compare_misalignment(arm(1.0), arm(2.0), 0, 50).value == pytest.approx(1 / 5)
    compared = _comparisons({"stage_two_uniform": arm(4.0), "stage_two": arm(1.0), "stage_one": arm(2.0)}, 0, 50)
    assert [(row["better"], row["than"], row["difference"]["value"]) for row in compared] == [
        ("stage_two", "stage_one", pytest.approx(1 / 5)),
        ("stage_two", "stage_two_uniform", pytest.approx(3 / 5)),
    ]


def test_the_law_of_a_run_is_over_positions_trained_on():
    def row(step, looked):
        positions = 1000 * step  # steps grow, so that their number is no stand-in
        tokens = 500 * step * (step + 1)
        watched = {"watch": {"misalignment_nats": {"value": 0.2 + 30 * tokens**-0.4}}} if looked else {}
        return {"positions": positions, **watched}

    law = _law([row(step, step % 2 == 0) for step in range(1, 41)], "stage_one")
    assert law["E_nats"]["value"] == pytest.approx(0.2, abs=1e-3)
    assert law["beta"]["value"] == pytest.approx(0.4, abs=1e-2)
    assert _law([row(1, False)], "stage_one") is None
    assert "6 points" in _law([row(step, True) for step in range(1, 4)], "stage_one")["unfit"]
