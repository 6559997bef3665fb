"""Misalignment, forgetting, hearing, the intervals, and the definition task."""

import dataclasses

import numpy as np
import pytest
import torch

import tiny
from salad.distill.loop import train
from salad.distill.teacher import teacher_for
from salad.errors import DataError
from salad.interleave.sequence import SPEECH
from salad.interleave.utterances import feature_lookup
from salad.measure.divergence_by_item import (
    divergence_by_item,
    remembered,
    student_hears,
    student_reads_text,
    teacher_reads_text,
)
from salad.measure.misalignment import batches_of, forgetting_by_item, hearing, hears, misalignment_by_item, per_token
from salad.measure.scoring import Prompt, choice_scores, scores_of_all
from salad.measure.statistics import Estimate, mean, ratio_of_sums
from salad.measure.tasks.definition import (
    AFTER,
    BEFORE,
    choice_ids,
    definition_items,
    speech_prompt,
    text_prompt,
)
from salad.randomness import derangement, generator, torch_seed
from salad.recipe import OptimizerSettings, StageSettings
from salad.texts.text import Text

pytestmark = pytest.mark.usefixtures("one_thread")

SPOKEN = tiny.utterances(10)
FEATURES = feature_lookup(SPOKEN)


# --- intervals ------------------------------------------------------------------------------------------------------


def test_a_per_token_number_is_a_ratio_of_sums():
    estimate = ratio_of_sums([1.0, 30.0], [1, 10], 0, "x")
    assert estimate.value == pytest.approx(31 / 11)  # the mean of the items' means would be 2
    assert estimate.n == 2
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.as_json() == dataclasses.asdict(estimate)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered, widths = 0, []
    sizes = np.arange(3, 30)  # long documents have the higher rate, so the mean of their rates is another number
    truth = (sizes * (0.5 + 0.03 * sizes)).sum() / sizes.sum()
    for trial in range(400):
        counts = rng.choice(sizes, size=60)
        totals = counts * (0.5 + 0.03 * counts + rng.normal(0, 0.4, size=60)) + rng.normal(0, 1, size=60)
        estimate = ratio_of_sums(totals, counts, trial, "coverage", num_bootstrap=400)
        covered += estimate.low <= truth <= estimate.high
        widths.append(estimate.high - estimate.low)
    assert 0.91 <= covered / 400 <= 0.98
    assert np.mean(widths) < 0.4  # and it doesn't cover by being wide


def test_the_same_seed_and_purpose_give_the_same_interval():
    values = np.random.default_rng(0).normal(size=30)
    assert mean(values, 0, "M") == mean(values, 0, "M")
    assert mean(values, 0, "M") != mean(values, 1, "M")
    assert mean(values, 0, "M") != mean(values, 0, "F")
    assert mean(values, 0, "M").value == mean(values, 1, "F").value == pytest.approx(values.mean())


def test_more_documents_make_the_interval_narrower():
    values = np.random.default_rng(0).normal(size=400)
    few, many = mean(values[:25], 0, "x"), mean(values, 0, "x")
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4, rel=0.4)


@pytest.mark.parametrize(("totals", "counts"), [([], []), ([0.0], [0])])
def test_nothing_to_measure_on_is_said(totals, counts):
    with pytest.raises(DataError, match="nothing to measure"):
        ratio_of_sums(totals, counts, 0, "M")


# --- draws ----------------------------------------------------------------------------------------------------------


def test_a_derangement_moves_every_item():
    for size in (2, 3, 4, 7, 40):
        for seed in range(25):
            order = derangement(size, np.random.default_rng(seed))
            assert sorted(order) == list(range(size))
            assert all(i != partner for i, partner in enumerate(order))
    assert {tuple(derangement(3, np.random.default_rng(seed))) for seed in range(20)} == {(1, 2, 0), (2, 0, 1)}
    for size in (0, 1):
        with pytest.raises(ValueError, match="at least 2"):
            derangement(size, np.random.default_rng(0))


def test_draws_depend_on_seed_and_purpose_alone():
    def draws(*parts):
        return tuple(generator(*parts).integers(10**9, size=4))

    assert draws(0, "spans", "u1", 2) == draws(0, "spans", "u1", 2)
    different = [
        (0, "spans", "u1", 2),
        (1, "spans", "u1", 2),
        (0, "swap", "u1", 2),
        (0, "spans", "u12"),
        (0, "spansu1", 2),
    ]
    assert len({draws(*parts) for parts in different}) == len(different)
    assert 0 <= torch_seed(0, "student") < 2**63
    assert torch_seed(0, "student") == torch_seed(0, "student") != torch_seed(1, "student")


# --- one reader against another -------------------------------------------------------------------------------------


def test_a_reader_against_itself_is_exactly_0():
    student = tiny.move(tiny.student())
    batch = tiny.batch_of(SPOKEN, ["the quiet river"])
    for reader in (student_reads_text(student), student_hears(student), teacher_reads_text(teacher_for(student))):
        for row in divergence_by_item(reader, reader, [batch]):
            assert row.kl_nats == 0.0
            assert row.count > 0


def test_items_add_up_to_the_batch_and_keep_its_order():
    student = tiny.move(tiny.student())
    batch = tiny.batch_of(SPOKEN, ["the quiet river"])
    rows = divergence_by_item(teacher_reads_text(teacher_for(student)), student_hears(student), [batch])
    assert [row.item for row in rows] == [*(u.id for u in SPOKEN), "t0"]
    assert sum(row.count for row in rows) == len(batch.targets_N)
    alone = [
        divergence_by_item(teacher_reads_text(teacher_for(student)), student_hears(student), [tiny.batch_of([u])])[0]
        for u in SPOKEN
    ]
    for one, row in zip(alone, rows, strict=False):
        assert (one.item, one.count) == (row.item, row.count)
        assert row.kl_nats == pytest.approx(one.kl_nats, abs=1e-4)
        assert row.entropy_nats == pytest.approx(one.entropy_nats, rel=1e-5)
        assert row.nll_nats == pytest.approx(one.nll_nats, rel=1e-5)


def test_forgetting_is_0_before_training_and_grows_with_the_change():
    student = tiny.student()
    texts = [tiny.builder().text(u.id, u.text) for u in SPOKEN]
    assert all(row.kl_nats == 0.0 for row in forgetting_by_item(teacher_for(student), student, texts, 128))
    little = tiny.move(tiny.student(), by=0.02)
    much = tiny.move(tiny.student(), by=0.2)
    values = [
        per_token(forgetting_by_item(teacher_for(model), model, texts, 128), 0, "F", 50).value
        for model in (little, much)
    ]
    assert 0 < values[0] < values[1]


def test_misalignment_is_of_the_student_against_itself_on_text():
    student = tiny.move(tiny.student(), by=0.2)
    sequences = [tiny.builder().mixed(u) for u in SPOKEN]
    heard = misalignment_by_item(student, sequences, FEATURES, 128, 0).heard
    batch = tiny.collated(sequences, SPOKEN)
    own = divergence_by_item(student_reads_text(student), student_hears(student), [batch])
    against_teacher = divergence_by_item(teacher_reads_text(teacher_for(student)), student_hears(student), [batch])
    assert [row.kl_nats for row in heard] == pytest.approx([row.kl_nats for row in own], abs=1e-4)
    assert [row.kl_nats for row in heard] != pytest.approx([row.kl_nats for row in against_teacher], abs=1e-2)


@pytest.mark.parametrize("policy", ["speech_prefix", "interleaved"])
def test_how_many_are_read_at_once_changes_no_number(policy):
    student = tiny.move(tiny.student())
    build = tiny.builder(policy=policy, text_words=(2, 9), speech_words=(2, 9))
    sequences = [build.mixed(u) for u in SPOKEN]
    results = [misalignment_by_item(student, sequences, FEATURES, size, 0) for size in (1, 128, 4096)]
    for result in results:
        for name in ("heard", "swapped"):
            rows, reference = getattr(result, name), getattr(results[0], name)
            assert [row.item for row in rows] == [u.id for u in SPOKEN]
            assert [row.kl_nats for row in rows] == pytest.approx([row.kl_nats for row in reference], abs=1e-4)
            assert [row.count for row in rows] == [row.count for row in reference]


def test_a_sequence_without_speech_is_left_as_it_is_in_the_swap():
    student = tiny.move(tiny.student())
    build = tiny.builder(policy="interleaved", text_words=(10, 12), speech_words=(3, 4))
    sequences = [build.mixed(u) for u in SPOKEN]
    silent = [i for i, s in enumerate(sequences) if SPEECH not in s.student_ids]
    assert 0 < len(silent) < len(sequences) - 1
    result = misalignment_by_item(student, sequences, FEATURES, 128, 0)
    assert all(rows[i].kl_nats == pytest.approx(0, abs=1e-4) for i in silent for rows in (result.heard, result.swapped))
    assert any(abs(h.kl_nats - s.kl_nats) > 0.01 for h, s in zip(result.heard, result.swapped, strict=True))


def test_the_text_is_read_once_for_right_and_for_swapped_speech():
    student = tiny.student()
    calls = []

    def reader(batch):
        calls.extend(batch.items)
        return student_reads_text(student)(batch)

    once = remembered(reader)
    sequences = [tiny.builder().mixed(u) for u in SPOKEN]
    forth = list(batches_of(sequences, FEATURES, student, 128))
    back = list(batches_of(sequences[::-1], FEATURES, student, 80))
    for batch in (*forth, *back):
        hidden, head = once(batch)
        wanted, wanted_head = student_reads_text(student)(batch)
        assert torch.allclose(hidden, wanted, atol=1e-5)
        assert head.weight_VH is wanted_head.weight_VH
    assert sorted(calls) == sorted(u.id for u in SPOKEN)


# --- hearing --------------------------------------------------------------------------------------------------------


def deaf_student():
    student = tiny.student(output="linear")
    with torch.no_grad():
        student.adapter.project_out.weight.zero_()
    return student


def test_a_model_that_ignores_audio_does_not_hear():
    sequences = [tiny.builder().mixed(u) for u in SPOKEN]
    estimate = hearing(misalignment_by_item(deaf_student(), sequences, FEATURES, 128, 0), 0, "H", 500)
    assert estimate.low <= 0 <= estimate.high  # only the length of the speech is left
    assert not hears(estimate)
    same_length = [tiny.utterance(f"v{i}", 8) for i in range(5)]
    longest = max(len(u.features_FE) for u in same_length)
    padded = [
        dataclasses.replace(
            u, words=same_length[0].words, features_FE=np.resize(u.features_FE, (longest, tiny.ENCODER_DIM))
        )
        for u in same_length
    ]
    sequences = [tiny.builder().mixed(u) for u in padded]
    result = misalignment_by_item(deaf_student(), sequences, feature_lookup(padded), 128, 0)
    assert hearing(result, 0, "H", 50).value == pytest.approx(0, abs=1e-6)


def test_a_model_that_learnt_its_audio_hears(tmp_path):
    student = tiny.student("frozen", hidden_size=64)
    settings = StageSettings(steps=40, checkpoint_every=100, optimizer=OptimizerSettings(adapter_rate=1e-2))
    batch = tiny.batch_of(SPOKEN)
    list(train(student, teacher_for(student), lambda _: [batch], settings, lambda _: 1.0, tmp_path))
    sequences = [tiny.builder().mixed(u) for u in SPOKEN]
    result = misalignment_by_item(student, sequences, FEATURES, 128, 0)
    estimate = hearing(result, 0, "H", 500)
    assert hears(estimate)
    paired = [s.kl_nats - h.kl_nats for h, s in zip(result.heard, result.swapped, strict=True)]
    assert estimate.value == pytest.approx(sum(paired) / sum(row.count for row in result.heard))
    assert result == misalignment_by_item(student, sequences, FEATURES, 128, 0)
    assert result.swapped != misalignment_by_item(student, sequences, FEATURES, 128, 1).swapped


def test_an_interval_that_reaches_0_is_not_hearing():
    assert hears(Estimate(0.2, 0.01, 0.4, 9))
    assert not hears(Estimate(0.2, 0.0, 0.4, 9))


# --- multiple choice ------------------------------------------------------------------------------------------------

CHOICES = [[82, 83], [84], [85, 86, 87, 88], [82, 89, 90]]


@pytest.mark.parametrize("speech", [True, False])
def test_sharing_the_prefix_changes_no_score(speech):
    student = tiny.move(tiny.student())
    prompt = Prompt((0, 258, 69), SPOKEN[0].features_FE if speech else None, (90, 91) if speech else ())
    scores = choice_scores(student, prompt, CHOICES)
    for choice, score in zip(CHOICES, scores, strict=True):
        features = torch.from_numpy(SPOKEN[0].features_FE.astype(np.float32))[None]
        positions = -(-features.shape[1] // tiny.FRAMES_PER_POSITION)
        middle = [tiny.SPEECH_TOKEN_ID] * positions if speech else []
        prefix = [*prompt.before, *middle, *prompt.after]
        heard = {"speech_features": features, "speech_lengths": torch.tensor([features.shape[1]])} if speech else {}
        with torch.no_grad():
            logits = student(input_ids=torch.tensor([prefix + choice]), use_cache=False, **heard).logits[0]
        logprobs = torch.log_softmax(logits, -1)[len(prefix) - 1 : -1]
        wanted = float(logprobs.gather(1, torch.tensor(choice)[:, None]).mean())  # per token: length-normalized
        assert score == pytest.approx(wanted, abs=1e-4)
    assert choice_scores(student, prompt, [CHOICES[2]])[0] == pytest.approx(scores[2], abs=1e-4)


def test_prompts_of_several_lengths_score_together_as_they_do_alone():
    student = tiny.move(tiny.student())
    heard = Prompt((0, 258, 69), SPOKEN[0].features_FE, (90, 91))
    prompts = [Prompt((0, 70), None, ()), heard, Prompt((0, 71, 72, 73, 74, 75), None, ())]
    choices = [CHOICES, CHOICES[:2], CHOICES[1:]]
    for prompt, own, together in zip(prompts, choices, scores_of_all(student, prompts, choices), strict=True):
        assert together == pytest.approx(choice_scores(student, prompt, own), abs=1e-4)


def test_a_choice_without_tokens_is_refused():
    with pytest.raises(DataError, match="tokenizes to nothing"):
        choice_scores(tiny.student(), Prompt((0,), None, ()), [[82], []])


def text(name, kind="noun.animal", title=None, definition="a quiet small one of the river"):
    return Text(name, definition, kind, "wordnet", "free", title)


TEXTS = [
    *(text(f"a{i}", title=f"animal{i}") for i in range(6)),
    *(text(f"v{i}", "verb.motion", f"move{i}") for i in range(5)),
    text("untitled"),
    text("told", title="river"),
    text("told too", title="Quiet"),
    text("alone", "adj.all", "lonely"),
]


def test_definition_items_offer_the_right_term_once_among_its_kind():
    items = definition_items(TEXTS, 100, seed=0)
    by_id = {entry.id: entry for entry in TEXTS}
    assert [item.id for item in items] == [t.id for t in TEXTS if t.title and t.id not in ("told", "told too")]
    for item in items:
        assert item.choices[item.answer] == by_id[item.id].title
        assert len(set(item.choices)) == 4
        assert item.definition == by_id[item.id].text
        if item.id != "alone":  # which has no others of its kind
            kinds = {t.domain for t in TEXTS for choice in item.choices if t.title == choice}
            assert len(kinds) == 1
    assert len(definition_items(TEXTS, 3, seed=0)) == 3


def test_the_right_answer_stands_everywhere_equally_often():
    items = definition_items([text(f"a{i}", title=f"animal{i}") for i in range(200)], 200, seed=0)
    counts = np.bincount([item.answer for item in items], minlength=4)
    assert ((counts - 50) ** 2 / 50).sum() < 11.3  # chi-square with 3 degrees of freedom, 1 in 100


def test_definition_items_are_a_function_of_seed_and_text():
    items = definition_items(TEXTS, 100, seed=0)
    assert definition_items(TEXTS, 100, seed=0) == items
    assert definition_items(TEXTS, 100, seed=1) != items
    shuffled = {item.id: item for item in definition_items(TEXTS[::-1], 100, seed=0)}
    assert [shuffled[item.id] for item in items] == items


def test_too_few_titles_make_no_task():
    with pytest.raises(DataError, match="needs 4 texts with titles"):
        definition_items([text(f"a{i}", title="same") for i in range(9)], 4, 0)


def test_both_views_of_an_item_put_the_same_words_around_it():
    item = definition_items(TEXTS, 1, 0)[0]
    tokenizer, mark = tiny.tokenizer(), tiny.mark()
    read = text_prompt(item.definition, tokenizer, mark)
    heard = speech_prompt(SPOKEN[0].features_FE, tokenizer, mark)
    assert read.before[0] == heard.before[0] == mark
    assert tokenizer.decode(read.before[1:]) == f"{BEFORE} {item.definition}{AFTER}"
    assert tokenizer.decode(heard.before[1:]) == BEFORE
    assert tokenizer.decode(heard.after) == AFTER
    assert read.speech_FE is None
    assert read.after == ()
    assert heard.speech_FE is SPOKEN[0].features_FE
    assert [tokenizer.decode(ids) for ids in choice_ids(item, tokenizer)] == [f" {choice}" for choice in item.choices]
    student = tiny.student()
    for prompt in (read, heard):
        assert len(choice_scores(student, prompt, choice_ids(item, tokenizer))) == 4
