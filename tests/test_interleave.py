"""One utterance becomes one mixed sequence: every word once, the text comes back, and the position map is true."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tiny
from salad.errors import AlignmentError, DataError
from salad.interleave.batch import swap_speech
from salad.interleave.sequence import (
    SPEECH,
    MixedSequence,
    Pair,
    mixed_sequence,
    num_positions,
    text_sequence,
)
from salad.interleave.spans import plan_spans, shortened
from salad.interleave.words import tokenize_words
from salad.model.llm import load_tokenizer
from salad.randomness import generator
from salad.recipe import SequenceSettings

pytestmark = pytest.mark.usefixtures("one_thread")

word_ranges = st.tuples(st.integers(1, 8), st.integers(0, 8)).map(lambda r: (r[0], r[0] + r[1]))
policies = st.builds(
    SequenceSettings,
    policy=st.sampled_from(["interleaved", "speech_prefix", "utterance", "poisson"]),
    text_words=word_ranges,
    speech_words=word_ranges,
    poisson_words=st.floats(0.5, 12),
    prefix_frac=st.floats(0, 1),
    min_words=st.just(2),
)


# --- which words are heard ------------------------------------------------------------------------------------------


@given(policies, st.integers(2, 120), st.integers(0, 10**6))
@settings(deadline=None, max_examples=200)
def test_spans_cover_every_word_once(policy, num_words, seed):
    spans = plan_spans(num_words, policy, np.random.default_rng(seed))
    assert [word for span in spans for word in range(span.start, span.stop)] == list(range(num_words))
    assert all(span.start < span.stop for span in spans)
    assert all(a.kind != b.kind for a, b in itertools.pairwise(spans))
    if policy.policy == "interleaved":
        for span in spans[:-1]:
            low, high = policy.speech_words if span.kind == "speech" else policy.text_words
            assert low <= span.stop - span.start <= high


def test_the_papers_ranges_are_used_to_their_ends():
    lengths = {"text": set(), "speech": set()}
    first = set()
    for seed in range(60):
        spans = plan_spans(400, SequenceSettings(), np.random.default_rng(seed))
        first.add(spans[0].kind)
        for span in spans[:-1]:
            lengths[span.kind].add(span.stop - span.start)
    assert lengths == {"text": set(range(10, 31)), "speech": set(range(5, 16))}
    assert first == {"text", "speech"}


@pytest.mark.parametrize(("num_words", "heard"), [(5, 3), (6, 4), (7, 4), (8, 5), (10, 6), (100, 60)])
def test_speech_prefix_hears_the_first_60_per_cent(num_words, heard):
    spans = plan_spans(num_words, SequenceSettings(policy="speech_prefix"), np.random.default_rng(0))
    assert [(s.kind, s.start, s.stop) for s in spans] == [("speech", 0, heard), ("text", heard, num_words)]


@pytest.mark.parametrize(("prefix_frac", "heard"), [(0.0, 1), (1.0, 6)])
def test_speech_prefix_always_leaves_something_to_hear_and_to_predict(prefix_frac, heard):
    policy = SequenceSettings(policy="speech_prefix", prefix_frac=prefix_frac)
    assert [span.stop for span in plan_spans(7, policy, np.random.default_rng(0))] == [heard, 7]


@pytest.mark.parametrize("policy", ["interleaved", "speech_prefix", "utterance", "poisson"])
def test_too_few_words_are_refused(policy):
    with pytest.raises(DataError, match=r"4 words, fewer than sequence\.min_words=5"):
        plan_spans(4, SequenceSettings(policy=policy), np.random.default_rng(0))


def test_poisson_spans_have_the_mean_they_are_given():
    policy = SequenceSettings(policy="poisson", poisson_words=6.0)
    spans = plan_spans(20_000, policy, np.random.default_rng(0))
    assert np.mean([span.stop - span.start for span in spans[:-1]]) == pytest.approx(6.0, abs=0.25)


@pytest.mark.parametrize("policy", ["interleaved", "speech_prefix", "poisson"])
def test_shortened_settings_shorten_what_is_heard(policy):
    """A third of the mean length, and never nothing; 1 is the policy itself."""
    whole = SequenceSettings(policy=policy, poisson_words=9.0)
    assert shortened(whole, 1.0) is whole

    def mean_heard(own):
        rngs = [np.random.default_rng(seed) for seed in range(200)]
        spans = [span for rng in rngs for span in plan_spans(60, own, rng)[:-1] if span.kind == "speech"]
        return np.mean([span.stop - span.start for span in spans])

    assert mean_heard(shortened(whole, 1 / 3)) / mean_heard(whole) == pytest.approx(1 / 3, rel=0.1)
    assert mean_heard(shortened(whole, 1e-6)) == 1.0


# --- tokens, frames and the map -------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(tiny.WORDS), min_size=1, max_size=12), st.sampled_from([" ", "  ", " \n"]))
@settings(deadline=None, max_examples=100)
def test_words_own_all_tokens_and_give_their_text_back(words, space):
    ids, ends = tokenize_words(tiny.tokenizer(), space.join(words))
    assert ends[-1] == len(ids)
    starts = [0, *ends[:-1]]
    for word, start, end in zip(words, starts, ends, strict=True):
        assert tiny.tokenizer().decode(ids[start:end]).strip() == word


@pytest.mark.assets
def test_words_own_all_tokens_of_the_real_tokenizer():
    tokenizer = load_tokenizer("smollm2-135m-instruct")
    text = (
        "It's 3.5 km — naïve “quotes”, co-operate; “Ünïcödé” 𝛼β don't\u2019ve e.g. (see §2): https://x.y/z?q=1 … end."
    )
    ids, ends = tokenize_words(tokenizer, text)
    assert ends[-1] == len(ids)
    for word, start, end in zip(text.split(), [0, *ends[:-1]], ends, strict=True):
        assert tokenizer.decode(ids[start:end]).strip() == word


def test_a_tokenizer_that_joins_words_is_refused():
    joined = Tokenizer(models.WordLevel({"of the": 0, "?": 1}, unk_token="?"))
    with pytest.raises(DataError, match="joins 'of'"):
        tokenize_words(PreTrainedTokenizerFast(tokenizer_object=joined), "of the")


def test_positions_round_up():
    assert [num_positions(n, 4) for n in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]


def spans_of(utterance, build, epoch=0):
    return plan_spans(len(utterance.words), build.settings, generator(build.seed, "spans", utterance.id, epoch))


def assert_sequence_is_true(sequence, utterance, spans):
    """Read the sequence from left to right beside the utterance and hold every part of the map against it."""
    ids, ends = tokenize_words(tiny.tokenizer(), utterance.text)
    starts = [0, *ends[:-1]]
    assert sequence.teacher_ids == (tiny.mark(), *ids)
    pairs = {pair.student: pair for pair in sequence.pairs}
    assert len(pairs) == len(sequence.pairs)
    student, speech, told = 0, iter(sequence.speech), []
    for span in spans:
        if span.kind == "speech":
            part = next(speech)
            heard = sequence.student_ids[student + 1 : student + 1 + part.stop - part.start]
            assert set(heard) == {SPEECH}
            assert part.utterance == utterance.id
            student += len(heard)
            told.append(" ".join(word.text for word in utterance.words[span.start : span.stop]))
            continue
        tokens = range(starts[span.start], ends[span.stop - 1])
        for token in tokens:
            assert pairs.pop(student) == Pair(student, token, ids[token])  # teacher position = tokens read before
            student += 1
            assert sequence.student_ids[student] == ids[token]
        told.append(tiny.tokenizer().decode([ids[token] for token in tokens]).strip())
    assert not pairs
    assert student == len(sequence.student_ids) - 1
    assert next(speech, None) is None
    assert " ".join(told) == utterance.text


@given(
    st.integers(2, 40), st.integers(0, 10**6), st.sampled_from(["interleaved", "speech_prefix", "poisson"]), word_ranges
)
@settings(deadline=None, max_examples=100)
def test_interleaving_gives_the_text_back_with_a_true_map(num_words, seed, policy, speech_words):
    build = tiny.builder(policy=policy, text_words=(1, 6), speech_words=speech_words, min_words=2, poisson_words=3)
    utterance = tiny.utterance(f"u{seed}", num_words, seed)
    spans = spans_of(utterance, build)
    if all(span.kind == "speech" for span in spans):
        with pytest.raises(DataError, match="all of its words are heard"):
            build.mixed(utterance)
        assert [row.id for row in build.usable([utterance])[1]] == [utterance.id]
        return
    assert_sequence_is_true(build.mixed(utterance), utterance, spans)


def test_a_later_epoch_that_draws_nothing_but_speech_takes_the_first_epochs_spans():
    build = tiny.builder(policy="interleaved", text_words=(3, 3), speech_words=(8, 9), min_words=2)
    utterance = next(u for u in (tiny.utterance(f"u{i}", 6, i) for i in range(99)) if build.usable([u])[0])
    drawn = [build.mixed(utterance, epoch) for epoch in range(20)]
    assert all(sequence.pairs for sequence in drawn)
    assert len({sequence.student_ids for sequence in drawn}) == 1


def test_the_last_frame_of_speech_predicts_the_next_text_token():
    utterance = tiny.utterance("u", 10)
    sequence = tiny.builder().mixed(utterance)
    ids, ends = tokenize_words(tiny.tokenizer(), utterance.text)
    last_frame = max(i for i, token in enumerate(sequence.student_ids) if token == SPEECH)
    heard = ends[5]  # tokens of the first 6 of 10 words; behind the mark, the last of them stands at position `heard`
    assert sequence.pairs[0] == Pair(last_frame, heard, ids[heard])
    assert len(sequence.pairs) == len(ids) - heard


def test_a_frame_belongs_to_the_span_its_centre_lies_in():
    build = tiny.builder(policy="interleaved", text_words=(1, 4), speech_words=(1, 4))
    for seed in range(30):
        utterance = tiny.utterance(f"u{seed}", 20, seed)
        sequence, spans = build.mixed(utterance), spans_of(utterance, build)
        available = num_positions(len(utterance.features_FE), tiny.FRAMES_PER_POSITION)
        words = utterance.words
        borders = [0.0, *((a.end_s + b.start_s) / 2 for a, b in itertools.pairwise(words)), math.inf]
        heard = [span for span in spans if span.kind == "speech"]
        for span, part in zip(heard, sequence.speech, strict=True):
            centres = (np.arange(available) + 0.5) / tiny.POSITION_HZ
            inside = (centres >= borders[span.start]) & (centres < borders[span.stop])
            assert list(range(part.start, part.stop)) == np.flatnonzero(inside).tolist()


def test_a_span_without_frames_names_the_utterance():
    utterance = tiny.utterance("short one", 10)
    with pytest.raises(AlignmentError, match=r"'short one'.*no frame"):
        mixed_sequence(
            utterance.id, utterance.words[4:], 0, tiny.POSITION_HZ, tiny.tokenizer(), 0, tiny.builder().settings,
            np.random.default_rng(0),
        )  # fmt: skip


@pytest.mark.parametrize("field", ["student", "teacher", "target"])
@pytest.mark.parametrize("shift", [1, 1000])
def test_a_broken_map_is_refused_with_the_utterances_name(field, shift):
    sequence = tiny.builder().mixed(tiny.utterance("rainbow 7", 10))
    pair = sequence.pairs[2]
    bent = pair._replace(**{field: getattr(pair, field) + shift})
    broken = dataclasses.replace(sequence, pairs=(*sequence.pairs[:2], bent, *sequence.pairs[3:]))
    with pytest.raises(AlignmentError, match="'rainbow 7'"):
        broken.check()


def test_a_true_map_is_not_refused():
    assert MixedSequence("x", (0, 5, 6), (0, 5, 6), (), (Pair(0, 0, 5), Pair(1, 1, 6))).check() is None


def test_lost_frames_are_refused_with_the_utterances_name():
    sequence = tiny.builder().mixed(tiny.utterance("rainbow 7", 10))
    with pytest.raises(AlignmentError, match=r"'rainbow 7'.*frames"):
        dataclasses.replace(sequence, speech=()).check()


def test_a_sequence_longer_than_the_window_is_refused_and_a_text_is_cut():
    utterance = tiny.utterance("u", 10)
    fits = len(tiny.builder().mixed(utterance).student_ids)
    assert tiny.builder(max_positions=fits).mixed(utterance)
    with pytest.raises(DataError, match=rf"{fits} positions, more than max_positions={fits - 1}"):
        tiny.builder(max_positions=fits - 1).mixed(utterance)
    text = text_sequence("t", utterance.text, tiny.tokenizer(), tiny.mark(), 7)
    assert len(text.student_ids) == 7
    assert text.teacher_ids == text.student_ids
    assert [p.target for p in text.pairs] == list(text.student_ids[1:])
    text.check()


def test_only_the_beginning_of_a_long_text_is_tokenized_unless_it_has_few_tokens():
    words = "the quiet river " * 3000
    whole = tiny.tokenizer()(words, add_special_tokens=False)["input_ids"]
    assert text_sequence("t", words, tiny.tokenizer(), tiny.mark(), 40).student_ids == (tiny.mark(), *whole[:39])
    spaced = "the" + " " * 2000 + "river"
    backend = Tokenizer(models.WordLevel({"the": 0, "river": 1, "?": 2}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    few = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert text_sequence("t", spaced, few, 7, 8).student_ids == (7, 0, 1)


def test_the_utterance_policy_predicts_a_continuation_that_is_never_heard():
    utterance = tiny.utterance("u", 6)
    policy = SequenceSettings(policy="utterance")
    arguments = (utterance.words, 40, tiny.POSITION_HZ, tiny.tokenizer(), tiny.mark(), policy, np.random.default_rng(0))
    sequence = mixed_sequence("u", *arguments, continuation="and it was quiet")
    assert [(s.start, s.stop) for s in sequence.speech] == [(0, 40)]
    assert tiny.tokenizer().decode([p.target for p in sequence.pairs]) == " and it was quiet"
    assert sequence.pairs[0].student == 40
    with pytest.raises(DataError, match="utterance"):
        mixed_sequence("u", *arguments)


def test_an_epoch_draws_its_spans_anew_and_always_the_same():
    build, utterance = (
        tiny.builder(policy="interleaved", text_words=(1, 6), speech_words=(1, 6)),
        tiny.utterance("u", 40),
    )
    assert build.mixed(utterance, 0) == build.mixed(utterance, 0)
    assert len({build.mixed(utterance, epoch).student_ids for epoch in range(5)}) == 5


def test_what_a_policy_cannot_use_is_listed_with_its_reason():
    good, short = tiny.utterance("good", 6), tiny.utterance("short", 3)
    taken, rejected = tiny.builder().usable([good, short])
    assert [u.id for u in taken] == ["good"]
    assert [(r.id, r.place) for r in rejected] == [("short", "speech_prefix")]
    assert "3 words" in rejected[0].reason


# --- swapped speech -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["speech_prefix", "interleaved"])
def test_swapped_speech_keeps_targets_and_teacher_positions(policy):
    build = tiny.builder(policy=policy, text_words=(1, 5), speech_words=(1, 5))
    sequences = [build.mixed(u) for u in tiny.utterances(8, num_words=8)]
    assert policy == "speech_prefix" or len({len(s.speech) for s in sequences}) > 1
    for own, donor in itertools.permutations(sequences, 2):
        swapped = swap_speech(own, donor)
        assert swapped.item == own.item
        assert swapped.teacher_ids == own.teacher_ids
        assert [(p.teacher, p.target) for p in swapped.pairs] == [(p.teacher, p.target) for p in own.pairs]
        assert [t for t in swapped.student_ids if t != SPEECH] == [t for t in own.student_ids if t != SPEECH]
        assert len(swapped.speech) == len(own.speech)
        assert {span.utterance for span in swapped.speech} == {donor.item}
        assert set(swapped.speech) <= set(donor.speech)
        swapped.check()
    assert swap_speech(sequences[0], sequences[0]) == sequences[0]


def test_a_donor_without_speech_is_refused():
    own, donor = tiny.builder().mixed(tiny.utterance("u", 8)), tiny.builder().text("silent", "of the")
    with pytest.raises(AlignmentError, match="'silent'"):
        swap_speech(own, donor)
