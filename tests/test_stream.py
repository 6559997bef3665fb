"""The training stream: the same items in the same order on any number of ranks and workers, from any step at once."""

import dataclasses
import multiprocessing
import pickle
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from salad.distill.loop import train
from salad.distill.teacher import teacher_for
from salad.errors import CheckpointError, DataError, RecipeError
from salad.interleave.batch import collate
from salad.interleave.packing import pack
from salad.interleave.stream import Stream, loader, step_batches
from salad.interleave.utterances import Utterance
from salad.model.features import FeatureStore, encoder_folder
from salad.model.speech_lm import SpeechLM
from salad.recipe import StageSettings
from salad.texts.corpus import TextCorpus
from salad.texts.text import Text, write_texts
from tiny_corpus import corpus
from tiny_speech import Loudness

pytestmark = pytest.mark.usefixtures("one_thread")
NUM_SPOKEN, NUM_TEXTS = 12, 7


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two folders of speech and one file of texts."""
    folder = tmp_path_factory.mktemp("sources")
    texts = [" ".join(np.random.default_rng(i).choice(tiny.WORDS, 5 + i)) for i in range(NUM_TEXTS)]
    write_texts(folder / "texts.jsonl", [Text(f"t{i}", text, "d", "s", "l") for i, text in enumerate(texts)])
    speech = corpus(folder / "a", NUM_SPOKEN), corpus(folder / "b", 5, "v")
    return SimpleNamespace(folder=folder, speech=speech, texts=TextCorpus(folder / "texts.jsonl"))


def stream_of(sources, batch_sequences=6, batch_positions=120, seed=0, weights=(1, 1, 1), policy="interleaved", **keys):
    build = tiny.builder(seed, policy=policy, text_words=(1, 5), speech_words=(1, 5), max_positions=120)
    stage = StageSettings(batch_sequences=batch_sequences, micro_batch_positions=batch_positions, **keys)
    return Stream.of(build, sources.speech, sources.texts, weights, stage, tiny.SPEECH_TOKEN_ID, "test")


def naive(stream, step, world):
    """The reference: lists in memory, one position after the other, every rank's windows collated."""
    spoken = [[Utterance(u.id, u.words, np.asarray(u.features_FE)) for u in source] for source in stream.speech]
    table = {utterance.id: utterance.features_FE for source in spoken for utterance in source}
    sequences = []
    for position in range(step * stream.batch_sequences, (step + 1) * stream.batch_sequences):
        draw = stream.mix.draw(position)
        if draw.source == len(spoken):
            text = list(stream.texts)[draw.index]
            sequences.append(stream.builder.text(text.id, text.text))
        else:
            sequences.append(stream.builder.mixed(spoken[draw.source][draw.index], draw.epoch))
    windows = pack([len(s.student_ids) for s in sequences], stream.batch_positions, world)
    made = [collate([sequences[i] for i in w], table.__getitem__, 4, tiny.SPEECH_TOKEN_ID) for w in windows]
    return [made[rank::world] for rank in range(world)]


def same(one, other):
    """Lists of batches, equal to the bit."""
    assert len(one) == len(other)
    for ours, theirs in zip(one, other, strict=True):
        for field in [field for field in dataclasses.fields(ours) if field.name != "drawn"]:
            a, b = getattr(ours, field.name), getattr(theirs, field.name)
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name
    return True


@pytest.mark.parametrize("world", [1, 3])
def test_what_is_drawn_is_counted_by_source(sources, world):
    """Against a count from the batches themselves: document by document, looked up by its id."""
    stream = stream_of(sources, batch_sequences=7, weights=(3, 1, 2))
    for step in range(5):
        counted = np.zeros((3, 4), int)
        batches = [batch for rank in range(world) for batch in stream.batches(step, rank, world)]
        for batch in batches:
            heard = (batch.student_ids_T == tiny.SPEECH_TOKEN_ID).split(batch.student_lengths_D.tolist())
            for number, item in enumerate(batch.items):
                speech, scored = int(heard[number].sum()), int((batch.documents_N == number).sum())
                counted["uvt".index(item[0])] += [1, speech, len(heard[number]) - speech, scored]
        assert np.array_equal(sum(np.array(batch.drawn) for batch in batches), counted)
        assert np.array_equal(stream.drawn(step), counted)


def items(batches):
    return sorted(item for batch in batches for item in batch.items)


@pytest.mark.parametrize("policy", ["interleaved", "speech_prefix"])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_step_is_what_lists_in_memory_give(sources, world, policy):
    stream = stream_of(sources, policy=policy)
    for step in (0, 1, 7, 1000):
        expected = naive(stream, step, world)
        for rank in range(world):
            assert same(stream.batches(step, rank, world), expected[rank])


@given(st.integers(4, 12), st.integers(1, 4), st.integers(0, 10**9), st.tuples(*[st.integers(0, 3)] * 3).filter(any))
@settings(deadline=None, max_examples=20)
def test_any_number_of_ranks_read_the_same_items_and_none_is_without(sources, batch_sequences, world, step, weights):
    stream = stream_of(sources, batch_sequences, 400, weights=weights)
    positions = range(step * batch_sequences, (step + 1) * batch_sequences)
    groups = [*sources.speech, sources.texts]
    expected = sorted(groups[d.source][d.index].id for d in map(stream.mix.draw, positions))
    ranks = [stream.batches(step, rank, world) for rank in range(world)]
    assert items([batch for batches in ranks for batch in batches]) == expected
    assert len({len(batches) for batches in ranks}) == 1
    assert all(len(batch.items) > 0 for batches in ranks for batch in batches)
    assert min(map(len, ranks)) >= 1


def test_an_epoch_brings_every_item_once(sources):
    stream = stream_of(sources, batch_sequences=4, weights=(1, 0, 0))
    epoch = [item for step in range(NUM_SPOKEN // 4) for batch in stream.batches(step) for item in batch.items]
    assert sorted(epoch) == sorted(utterance.id for utterance in sources.speech[0])


def test_what_is_heard_grows_to_what_it_would_be(sources):
    """From a quarter of the prefix at the first step to the whole of it half-way through the stage."""
    growing = stream_of(sources, policy="speech_prefix", steps=8, curriculum={"start_frac": 0.25, "steps_frac": 0.5})
    whole = stream_of(sources, policy="speech_prefix", steps=8)
    assert [growing.spoken_frac(step) for step in (0, 1, 2, 4, 7, 99)] == [0.25, 0.4375, 0.625, 1.0, 1.0, 1.0]
    heard = [sum(row[1] for row in growing.drawn(step)) / sum(row[1] for row in whole.drawn(step)) for step in range(8)]
    assert heard[0] < 0.45
    assert heard[0] < heard[2] < heard[4] == 1.0
    for step in (4, 7):
        assert same(growing.batches(step), whole.batches(step))


def test_seeds_differ(sources):
    first, second = (stream_of(sources, seed=seed).batches(0) for seed in (0, 1))
    assert items(first) != items(second)


def test_only_the_own_windows_features_are_read(sources, monkeypatch):
    stream = stream_of(sources, batch_sequences=8, weights=(1, 1, 0), policy="speech_prefix")
    read, load = [], FeatureStore.load
    monkeypatch.setattr(FeatureStore, "load", lambda store, name, *part: read.append(name) or load(store, name, *part))
    for rank in range(2):
        read.clear()
        own = items(stream.batches(0, rank, 2))
        assert sorted(read) == own
        assert len(own) < 8


# --- the loader -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("rank", "world"), [(0, 1), (1, 2)])
def test_workers_make_the_same_batches_in_the_same_order(sources, num_workers, rank, world):
    stream = stream_of(sources)
    made = list(loader(stream, 3, 9, rank, world, num_workers))
    assert len(made) == 6
    for step, batches in enumerate(made, start=3):
        assert same(batches, stream.batches(step, rank, world))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_taken_up_at_a_step_is_the_uninterrupted_one(sources, num_workers):
    stream = stream_of(sources)
    whole = list(loader(stream, 0, 8))
    for first in (1, 5, 7):
        again = list(loader(stream, first, 8, num_workers=num_workers))
        assert all(same(a, b) for a, b in zip(again, whole[first:], strict=True))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_training_loop_may_ask_for_any_step(sources, num_workers):
    stream = stream_of(sources)
    batches = step_batches(stream, 9, num_workers=num_workers)
    for step in (0, 1, 2, 6, 7, 3, 4, 8):
        assert same(batches(step), stream.batches(step))
    del batches
    assert ended()


def ended():
    """Whether all child processes are gone within two seconds."""
    deadline = time.monotonic() + 2
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not multiprocessing.active_children()


def test_the_workers_end_with_the_loop_that_asked(sources):
    made = loader(stream_of(sources), 0, 1000, num_workers=2)
    next(made)
    assert len(multiprocessing.active_children()) == 2
    made.close()
    assert ended()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_in_a_worker_is_the_one_sentence(tmp_path, num_workers):
    speech = corpus(tmp_path, 6)
    stream = stream_of(SimpleNamespace(speech=[speech], texts=[]), weights=(1, 0), policy="speech_prefix")
    tar = next(encoder_folder(tmp_path, Loudness.name).rglob("enc.*.tar"))
    tar.write_bytes(tar.read_bytes()[:600])
    with pytest.raises(CheckpointError, match=r"^\S*enc\.000000\.tar ends within the frames of 'u\d'; run 'salad"):
        list(loader(stream, 0, 3, num_workers=num_workers))
    assert ended()


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_step_of_many_windows_is_one_open_file(sources):
    """A tensor that leaves a process is one; what a worker can't send for want of them is waited for for ever."""
    stream = stream_of(sources, batch_sequences=48)
    before = open_files()
    made = loader(stream, 0, 2, num_workers=1)
    batches = next(made)
    assert len(batches) > 8
    assert same(batches, stream.batches(0))
    assert open_files() < before + 8 + len(batches)  # some are the loader's own
    made.close()


def test_too_many_ranks_for_a_step_are_refused(sources):
    with pytest.raises(DataError, match="use fewer ranks"):
        stream_of(sources, batch_sequences=3).batches(0, 0, 4)


def test_a_stream_travels_to_a_fresh_process(sources):
    stream = stream_of(sources)
    sent = pickle.dumps(stream)
    assert same(pickle.loads(sent).batches(5), stream.batches(5))
    stream.batches(5)
    assert len(pickle.dumps(stream)) == len(sent)  # and brings nothing of what it has read


def test_training_is_the_same_with_workers_and_after_a_stop(sources, tmp_path):
    """Reports but for their seconds, with no worker, with two, and in two parts."""

    def curve(name, first=None, num_workers=0):
        stream = stream_of(sources, batch_sequences=4)
        stage = StageSettings(steps=5, batch_sequences=4, micro_batch_positions=120, checkpoint_every=3)
        student = SpeechLM.around(tiny.llm(), tiny.model_settings(), 2, tiny.ENCODER_HZ, tiny.SPEECH_TOKEN_ID)
        made = step_batches(stream, stage.steps, num_workers=num_workers)
        reports = train(student, teacher_for(student), made, stage, lambda _: 1.0, tmp_path / name)
        return [dataclasses.replace(report, seconds=0.0, data_s=0.0) for report in islice(reports, first)]

    whole = curve("whole")
    assert [tuple(map(tuple, report.drawn)) for report in whole] == [
        stream_of(sources, batch_sequences=4).drawn(step) for step in range(5)
    ]
    assert curve("workers", num_workers=2) == whole
    assert curve("parts", first=3) == whole[:3]
    assert curve("parts", num_workers=2) == whole


# --- what can't be mixed --------------------------------------------------------------------------------------------


def test_one_id_in_two_sources_is_refused(sources):
    speech = [sources.speech[0], [tiny.utterance("u7", 8)]]
    with pytest.raises(DataError, match=r"1 utterances stand in two sources.*\(1 and 2\), the first is 'u7'"):
        stream_of(SimpleNamespace(speech=speech, texts=sources.texts))
    with pytest.raises(DataError, match="two sources"):
        stream_of(SimpleNamespace(speech=[sources.speech[0]] * 2, texts=sources.texts))
    apart = [sources.speech[0].without(["u7"]), [tiny.utterance("u7", 8)]]
    assert stream_of(SimpleNamespace(speech=apart, texts=sources.texts)).mix.sizes == [NUM_SPOKEN - 1, 1, NUM_TEXTS]


def test_an_empty_source_is_refused(sources):
    with pytest.raises(RecipeError, match="no items"):
        stream_of(SimpleNamespace(speech=[sources.speech[0], []], texts=sources.texts))
