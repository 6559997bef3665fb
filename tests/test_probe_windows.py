"""Probes are heard window by window: the same rows by any workers, in any order, and after any stop."""

import shutil
from dataclasses import replace

import pytest

import tiny_corpus
from salad.distill.teacher import teacher_for
from salad.errors import DataError, MissingFileError
from salad.interleave.utterances import feature_lookup
from salad.measure.divergence_by_item import scores_by_item
from salad.measure.misalignment import batches_of, hearing, misalignment_by_item
from salad.model.speech_lm import SpeechLM
from salad.recipe import SequenceSettings
from salad.select.probe_windows import Hearing, hear_probes
from salad.workers import Died
from tiny_probe import POLICY, model_on_disk
from tiny_speech import Loudness

pytestmark = pytest.mark.usefixtures("one_thread")
NUM = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    tiny_corpus.chapters(folder / "speech", NUM)
    return model_on_disk(folder, Loudness.name, Loudness.feature_dim, Loudness.frame_hz), folder / "speech"


@pytest.fixture
def asked(made):
    return Hearing(*made, SequenceSettings(**POLICY), seed=0, batch_positions=160, threads=1, self_misalignment=True)


def backwards(tasks, setup, processes):
    """A fan-out whose workers are done in another order, each with its own model."""
    for task in reversed(list(tasks)):
        yield task, setup()(task)


def test_rows_are_those_of_one_pass_over_all(asked, tmp_path):
    heard = hear_probes(asked, tmp_path)
    builder = asked.builder()
    usable, rejected = builder.usable(asked.corpus())
    assert heard.rejected == rejected
    assert len(rejected) == 0
    student = SpeechLM.from_pretrained(asked.model)
    sequences, features = [builder.mixed(utterance) for utterance in usable], feature_lookup(usable)
    batches = list(batches_of(sequences, features, student, 160))
    assert len(batches) > 2
    wanted = {row.item: row for row in scores_by_item(teacher_for(student), student, batches, self_misalignment=True)}
    assert heard.scores == [wanted[utterance.id] for utterance in usable]  # in the corpus's order, to the bit
    swapped = misalignment_by_item(student, sequences, features, 10_000, 0).heard
    told = {row.item: row.kl_nats for row in heard.check.heard}
    assert told == pytest.approx({row.item: row.kl_nats for row in swapped}, rel=1e-4)
    assert hearing(heard.check, 0, "probe", 100).n == NUM


def test_workers_and_their_order_change_nothing(asked, tmp_path):
    here = hear_probes(asked, tmp_path / "here")
    there = hear_probes(asked, tmp_path / "there", processes=2, fan_out=backwards)
    assert here == there
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("here", "there")]
    assert files[0] == files[1]


@pytest.mark.slow
def test_processes_give_the_same_rows(asked, tmp_path):
    told = []
    one = hear_probes(asked, tmp_path / "one", progress=lambda done, total: told.append((done, total)))
    assert hear_probes(asked, tmp_path / "two", processes=2) == one
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1] == len(told) - 1


def test_what_was_heard_is_not_heard_again(asked, tmp_path):
    first = hear_probes(asked, tmp_path)
    windows = sorted(tmp_path.iterdir())
    windows[1].unlink()
    again = []

    def counted(tasks, setup, processes):
        again.extend(tasks)
        return backwards(again, setup, processes)

    assert hear_probes(asked, tmp_path, processes=2, fan_out=counted) == first
    assert len(again) == 1
    assert sorted(tmp_path.iterdir()) == windows


def test_another_model_or_question_is_heard_anew(asked, tmp_path):
    first = hear_probes(asked, tmp_path / "kept")
    files = len(list((tmp_path / "kept").iterdir()))
    plain = hear_probes(replace(asked, self_misalignment=False), tmp_path / "kept")
    assert plain.scores[0].self_kl_nats is None
    assert plain.scores[0].kl_nats == first.scores[0].kl_nats
    other = model_on_disk(tmp_path, Loudness.name, Loudness.feature_dim, Loudness.frame_hz, seed=5)
    assert hear_probes(replace(asked, model=other), tmp_path / "kept").scores != first.scores
    assert len(list((tmp_path / "kept").iterdir())) == 3 * files


def test_a_worker_that_dies_is_told(asked, tmp_path):
    def deadly(tasks, setup, processes):
        for number, task in enumerate(tasks):
            yield task, Died(-9) if number == 1 else setup()(task)

    with pytest.raises(DataError, match=r"ended with exit code -9 .*out of memory.*fewer --jobs, it goes on"):
        hear_probes(asked, tmp_path, processes=2, fan_out=deadly)
    assert len(list(tmp_path.iterdir())) == 1  # what was heard before is kept
    assert hear_probes(asked, tmp_path).scores


def test_speech_that_the_encoder_has_not_heard_is_refused(asked, made, tmp_path):
    bare = tmp_path / "speech"
    shutil.copytree(made[1], bare, ignore=shutil.ignore_patterns("features"))
    with pytest.raises(MissingFileError, match=r"is not encoded with a/loudness; run 'salad encode"):
        hear_probes(replace(asked, speech=bare), tmp_path / "kept")
