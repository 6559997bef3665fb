"""Prefixes that the student goes on from: who reads what, and which positions are scored."""

from __future__ import annotations

import pytest

import tiny
from salad.interleave.continuation import OnPolicyStream, continued, prefixes
from salad.interleave.sequence import SPEECH
from salad.interleave.stream import Stream
from salad.recipe import StageSettings
from salad.texts.text import Text

POLICIES = [
    {"policy": "speech_prefix"},
    {"policy": "interleaved", "text_words": (2, 4), "speech_words": (1, 3)},
    {"policy": "poisson", "poisson_words": 3.0},
]
OWN = (17, 250, 3, 3)
TEXTS = [Text(f"t{i}", "the quiet river and the small mountain", "any", "tests", "CC0") for i in range(5)]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy["policy"])
def test_the_teacher_reads_the_transcript_of_what_the_student_has_heard(policy):
    build = tiny.builder(**policy)
    num_spans = set()
    for utterance in tiny.utterances(12, 14):
        sequence = build.mixed(utterance)
        found = prefixes(sequence)
        num_spans.add(len(found))
        assert len(found) == len(sequence.speech)
        for number, prefix in enumerate(found, start=1):
            assert sequence.student_ids[: len(prefix.student_ids)] == prefix.student_ids
            assert prefix.student_ids[-1] == SPEECH  # it ends with the span's last frame
            assert len(prefix.speech) == number
            assert prefix.student_ids.count(SPEECH) == sum(span.stop - span.start for span in prefix.speech)
            assert SPEECH not in prefix.teacher_ids
            read = tiny.tokenizer().decode(prefix.teacher_ids[1:])
            assert utterance.text.startswith(read)
            # All that the student has read, the teacher has too; and the words in between are those that were heard.
            rest = tiny.tokenizer().decode(sequence.teacher_ids[len(prefix.teacher_ids) :]).strip()
            assert f"{read} {rest}".strip() == utterance.text
            behind = sequence.student_ids[len(prefix.student_ids) :]
            if number == len(found):  # what follows the last span is text alone, and the same for both
                assert behind == sequence.teacher_ids[len(prefix.teacher_ids) :]
    assert max(num_spans) > (1 if policy["policy"] != "speech_prefix" else 0)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy["policy"])
def test_each_of_the_students_own_tokens_is_scored_and_nothing_else(policy):
    build = tiny.builder(**policy)
    for utterance in tiny.utterances(6, 14):
        for prefix in prefixes(build.mixed(utterance)):
            sequence = continued(prefix, OWN)
            assert sequence.student_ids == prefix.student_ids + OWN
            assert sequence.teacher_ids == prefix.teacher_ids + OWN
            assert [pair.target for pair in sequence.pairs] == list(OWN)
            for pair in sequence.pairs:
                assert sequence.student_ids[pair.student + 1] == sequence.teacher_ids[pair.teacher + 1] == pair.target
            assert sequence.pairs[0].student == len(prefix.student_ids) - 1  # the last frame predicts the first token


def stream(**sequence):
    settings = StageSettings(steps=4, batch_sequences=8, micro_batch_positions=2048)
    build = tiny.builder(**sequence)
    spoken, _ = build.usable(tiny.utterances(10))
    return Stream.of(build, [spoken], TEXTS, [2 / 3, 1 / 3], settings, tiny.SPEECH_TOKEN_ID, "stage_three")


def test_a_share_of_the_speech_is_gone_on_from_and_everything_else_stays():
    plain = stream()
    own = OnPolicyStream.over(plain, 0.5, 7)
    positions = range(300)
    prompted = [p for p in positions if own.prefix(p) is not None]
    speech = [p for p in positions if plain.sequence(p).speech]
    assert set(prompted) < set(speech)
    assert 0.4 < len(prompted) / len(speech) < 0.6
    assert [p for p in positions if OnPolicyStream.over(plain, 1.0, 7).prefix(p) is not None] == speech
    assert not any(OnPolicyStream.over(plain, 0.0, 7).prefix(p) for p in positions)
    told = OnPolicyStream.over(plain, 0.5, 7)
    told = type(told)(**vars(told) | {"own": dict.fromkeys(prompted, OWN)})
    for p in positions:
        if p in prompted:
            assert told.sequence(p) == continued(own.prefix(p)[0], OWN)
        else:
            assert told.sequence(p) == plain.sequence(p)
    batches = told.batches(1)
    items = [sorted(item for batch in own for item in batch.items) for own in (batches, plain.batches(1))]
    assert items[0] == items[1]  # how they are packed follows from their lengths
    scored = [sum(row[3] for row in made.drawn(1)) for made in (told, plain)]
    assert sum(len(batch.targets_N) for batch in batches) == scored[0] != scored[1]


def test_there_is_never_more_said_than_fits_into_a_sequence():
    own = OnPolicyStream.over(stream(max_positions=45), 1.0, 30)
    rooms = []
    for position in range(60):
        found = own.prefix(position)
        if found is not None:
            rooms.append(own.room(found[0]))
            assert len(found[0].student_ids) + rooms[-1] <= 45
            assert len(found[0].teacher_ids) + rooms[-1] <= 45
    assert min(rooms) >= 1
    assert min(rooms) < 30
