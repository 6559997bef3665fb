"""Rollouts are the student's own tokens, drawn as they should be, and the objective over them is the equation's."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

import tiny
from salad.distill.parallel import objective
from salad.distill.teacher import SeparateTeacher, teacher_for
from salad.errors import CheckpointError, NonFiniteError
from salad.interleave.continuation import OnPolicyStream, continued, prefixes
from salad.interleave.sequence import SPEECH
from salad.interleave.stream import Stream
from salad.interleave.utterances import feature_lookup
from salad.model.processor import pad_features
from salad.recipe import StageSettings, StageThreeSettings
from salad.rollouts import Rollouts, Vocabulary, _Draw, continuations, fingerprint
from salad.texts.text import Text

pytestmark = pytest.mark.usefixtures("one_thread")

SPOKEN = tiny.utterances(8)
WORDS = Vocabulary.of(tiny.tokenizer())
TEXTS = [Text(f"t{i}", text, "any", "tests", "CC0") for i, text in enumerate(("the quiet river", "she listens"))]
INTERLEAVED = {"policy": "interleaved", "text_words": (1, 2), "speech_words": (2, 3)}


def some_prefixes():
    build = tiny.builder(**INTERLEAVED)
    return [prefixes(build.mixed(utterance))[-1] for utterance in SPOKEN]


def generators(num, seed=0):
    return [np.random.default_rng([seed, row]) for row in range(num)]


def said(student, found, temperature, limits=None, drawn_by=None, words=WORDS):
    limits = limits or [6] * len(found)
    drawn_by = drawn_by or generators(len(found))
    return continuations(student, found, feature_lookup(SPOKEN), limits, temperature, drawn_by, words)


def greedy(student, prefix, tokens):
    """`generate` of the model on one prefix alone, nothing ruled out."""
    features = feature_lookup(SPOKEN)
    per = tiny.FRAMES_PER_POSITION
    clips = [features(span.utterance)[span.start * per : span.stop * per] for span in prefix.speech]
    speech, lengths = pad_features(clips)
    ids = [tiny.SPEECH_TOKEN_ID if i == SPEECH else i for i in prefix.student_ids]
    out = student.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        speech_features=speech,
        speech_lengths=lengths,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    return tuple(out[0, len(ids) :].tolist())


# --- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 1e-6])
@pytest.mark.parametrize("train_llm", ["lora", "full"])
def test_without_temperature_it_is_what_generate_says(train_llm, temperature):
    student = tiny.move(tiny.student(train_llm))
    found = some_prefixes()
    wanted = [greedy(student, prefix, 6) for prefix in found]
    end = next(token for token in range(tiny.VOCABULARY) if all(token not in row for row in wanted))
    assert said(student, found, temperature, words=dataclasses.replace(WORDS, end_ids=(end,))) == wanted
    assert len(set(wanted)) > 1


def test_what_else_is_in_the_batch_changes_nothing():
    student = tiny.move(tiny.student())
    found = some_prefixes()
    together = said(student, found, 1.0)
    for row, prefix in enumerate(found):
        assert said(student, [prefix], 1.0, drawn_by=[np.random.default_rng([0, row])]) == [together[row]]
    assert said(student, found, 1.0, drawn_by=generators(len(found), seed=1)) != together


def test_the_end_belongs_to_what_is_said_and_nothing_follows_it():
    student = tiny.move(tiny.student())
    found = some_prefixes()
    first = said(student, found, 1.0)
    end = first[0][2]
    words = dataclasses.replace(WORDS, end_ids=(end,))
    again = said(student, found, 1.0, words=words)
    for whole, cut in zip(first, again, strict=True):
        assert cut == (whole[: whole.index(end) + 1] if end in whole else whole)
    assert again[0][-1] == end
    limits = [1 + row % 4 for row in range(len(found))]
    assert said(student, found, 1.0, limits) == [row[:limit] for row, limit in zip(first, limits, strict=True)]


def test_the_student_is_left_in_the_mode_it_was_in_and_draws_no_global_numbers():
    student = tiny.move(tiny.student("lora", base=tiny.llm(dropout=0.5)))
    calm = said(student, some_prefixes(), 1.0)
    student.train()
    before = torch.get_rng_state()
    assert said(student, some_prefixes(), 1.0) == calm  # without dropout
    assert student.training
    assert torch.equal(torch.get_rng_state(), before)


def test_tokens_are_drawn_from_the_softmax():
    num, temperature = 20_000, 0.7
    logits = torch.tensor([1.0, -0.5, 0.3, 2.0, -3.0, 9.0])
    draw = _Draw(generators(num), temperature, 5)  # the last one may not be said
    chosen = draw(torch.zeros(num, 1), logits.expand(num, -1)).argmax(-1)
    seen = torch.bincount(chosen, minlength=6).double() / num
    wanted = (logits[:5].double() / temperature).softmax(-1)
    assert seen[5] == 0
    assert torch.allclose(seen[:5], wanted, atol=4 * float((wanted * (1 - wanted) / num).sqrt().max()))


def test_a_draw_beside_one_finds_a_token() -> None:
    class Highest:
        def random(self) -> float:
            return 1 - 2.0**-53  # the highest there is; as a float32 it is 1

    chosen = _Draw([Highest()], 1.0, 5)(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 7))
    assert chosen.isfinite().nonzero().tolist() == [[0, 4]]


def test_logits_that_are_no_numbers_are_refused():
    with pytest.raises(NonFiniteError, match="not finite while it speaks"):
        _Draw(generators(1), 1.0, 3)(torch.zeros(1, 1), torch.tensor([[0.0, torch.nan, 1.0]]))


# --- how it is scored -------------------------------------------------------------------------------------------------


def by_the_equation(student, teacher, found, own, divergence):
    """Σ over a continuation's tokens of D(Q(·|transcript, y<i), P(·|speech, y<i)), in float64, one by one."""
    total = torch.zeros((), dtype=torch.float64)
    features, per = feature_lookup(SPOKEN), tiny.FRAMES_PER_POSITION
    for prefix, tokens in zip(found, own, strict=True):
        clips = [features(span.utterance)[span.start * per : span.stop * per] for span in prefix.speech]
        speech, lengths = pad_features(clips)
        heard = [tiny.SPEECH_TOKEN_ID if i == SPEECH else i for i in prefix.student_ids]
        p = student(input_ids=torch.tensor([[*heard, *tokens]]), speech_features=speech, speech_lengths=lengths)
        q = teacher(input_ids=torch.tensor([[*prefix.teacher_ids, *tokens]]))
        for number in range(len(tokens)):
            log_p = p.logits[0, len(heard) - 1 + number].double().log_softmax(-1)
            log_q = q.logits[0, len(prefix.teacher_ids) - 1 + number].double().log_softmax(-1)
            one, other = (log_q, log_p) if divergence == "forward_kl" else (log_p, log_q)
            total = total + (one.exp() * (one - other)).sum()
    return total


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl"])
@pytest.mark.parametrize("train_llm", ["lora", "full"])
def test_the_loss_is_that_of_the_equation(train_llm, divergence):
    student = tiny.move(tiny.student(train_llm, base=tiny.llm(seed=4)))
    found = some_prefixes()
    own = said(student, found, 1.0)
    batch = tiny.collated([continued(prefix, tokens) for prefix, tokens in zip(found, own, strict=True)], SPOKEN)
    teacher = SeparateTeacher(tiny.llm(seed=4)) if train_llm == "full" else teacher_for(student)
    sums = objective(student, teacher, batch, StageSettings(divergence=divergence))
    sums.loss.backward()
    gradients = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
    student.zero_grad()
    wanted = by_the_equation(student, tiny.llm(seed=4), found, own, divergence)
    wanted.backward()
    assert sums.loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert len(batch.targets_N) == sum(map(len, own))
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, parameter in student.named_parameters():
        if name in gradients:
            assert torch.allclose(gradients[name], parameter.grad, rtol=1e-3, atol=1e-4 * largest), name


def test_the_teacher_does_not_read_the_speech():
    student = tiny.move(tiny.student())
    found = some_prefixes()
    sequences = [continued(prefix, (5, 6, 7)) for prefix in found]
    batch = tiny.collated(sequences, SPOKEN)
    assert tiny.SPEECH_TOKEN_ID not in batch.teacher_ids_L
    read = [ids.tolist() for ids in batch.teacher_ids_L.split(batch.teacher_lengths_D.tolist())]
    for ids, utterance in zip(read, SPOKEN, strict=True):
        assert ids[-3:] == [5, 6, 7]
        assert utterance.text.startswith(tiny.tokenizer().decode(ids[1:-3]))
    teacher = teacher_for(student)
    before = teacher.matched_hidden(batch)
    other = [dataclasses.replace(one, features_FE=-one.features_FE) for one in SPOKEN]
    assert torch.equal(teacher.matched_hidden(tiny.collated(sequences, other)), before)


# --- rounds -----------------------------------------------------------------------------------------------------------


def settings(**changed):
    told = {"steps": 5, "batch_sequences": 6, "refresh_steps": 2, "rollouts_at_once": 3, "continuation_tokens": 5}
    return StageThreeSettings(**{**told, "warmup_steps": 1, **changed})


def rollouts(student, folder, tell=lambda *_: None, **changed):
    stage = settings(**changed)
    plain = Stream.of(
        tiny.builder(), [SPOKEN], TEXTS, [2 / 3, 1 / 3], stage, student.config.speech_token_id, "stage_three"
    )
    own = OnPolicyStream.over(plain, stage.on_policy_frac, stage.continuation_tokens)
    return Rollouts(student, tiny.tokenizer(), own, stage, folder, tell=tell)


def test_a_round_covers_its_steps_and_is_said_by_the_student_as_it_is_then(tmp_path):
    student = tiny.move(tiny.student())
    made = rollouts(student, tmp_path)
    first = [made(0), made(1)]
    tiny.move(student, seed=2)
    second = made(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-00000000", "round-00000001"]
    info = [json.loads((tmp_path / f"round-{n:08d}" / "begun.json").read_text()) for n in (0, 1)]
    assert [one["step"] for one in info] == [0, 2]
    assert info[0]["student"] != info[1]["student"] == fingerprint(student)
    for step, batches in ((0, first[0]), (1, first[1]), (2, second)):
        told = made.round(step // 2, 1 if step < 2 else 2)
        for position in range(step * 6, step * 6 + 6):
            prompt = made.stream.prefix(position)
            assert (position in told) == (prompt is not None)
            if prompt is not None:
                assert 1 <= len(told[position]) <= 5
        scored = sum(len(batch.targets_N) for batch in batches)
        own = sum(len(told[p]) for p in range(step * 6, step * 6 + 6) if p in told)
        text = sum(len(made.stream.sequence(p).pairs) for p in range(step * 6, step * 6 + 6) if p not in told)
        assert scored == own + text
    assert made.summary()["rounds"] == 2
    assert made.summary()["tokens"] == sum(len(ids) for n in (0, 1) for ids in made.round(n, 2 * n + 1).values())


def test_a_round_that_was_cut_off_goes_on_and_ends_the_same(tmp_path):
    student = tiny.move(tiny.student())
    whole = rollouts(student, tmp_path / "whole").round(0, 0)

    class CutOffError(Exception):
        """The process ends here."""

    def cut(done, total, note):
        if done == 1:
            raise CutOffError

    with pytest.raises(CutOffError):
        rollouts(student, tmp_path / "cut", cut).round(0, 0)
    place = tmp_path / "cut" / "round-00000000"
    assert [path.name for path in sorted(place.glob("part-*"))] == ["part-00000.jsonl"]
    before = (place / "part-00000.jsonl").stat().st_mtime_ns
    assert rollouts(student, tmp_path / "cut").round(0, 0) == whole
    assert (place / "part-00000.jsonl").stat().st_mtime_ns == before  # not said again
    files = [{p.name: p.read_bytes() for p in (tmp_path / n / "round-00000000").iterdir()} for n in ("whole", "cut")]
    assert files[0] == files[1]


def test_what_another_student_said_is_not_taken_for_its_own(tmp_path):
    student = tiny.move(tiny.student())
    first = rollouts(student, tmp_path).round(0, 0)
    tiny.move(student, seed=3)
    again = rollouts(student, tmp_path).round(0, 0)
    assert again.keys() == first.keys()
    assert again != first
    assert rollouts(student, tmp_path, temperature=0.0).round(0, 0) != again


def test_a_round_that_is_lost_or_damaged_is_named(tmp_path):
    student = tiny.move(tiny.student())
    rollouts(student, tmp_path).round(0, 0)
    part = tmp_path / "round-00000000" / "part-00001.jsonl"
    part.write_bytes(part.read_bytes()[:-2])
    with pytest.raises(CheckpointError, match=r"part-00001.jsonl is damaged"):
        rollouts(student, tmp_path).round(0, 1)
    with pytest.raises(CheckpointError, match=r"round-00000001 is gone.* steps from 3 on"):
        rollouts(student, tmp_path).round(1, 3)
