"""Caching hidden states that is killed, or shared by ranks: nothing is done twice, and it ends with the same bytes."""

import multiprocessing
import random
import time
from functools import partial

import pytest

import cached
import tiny
from processes import together
from salad.distill.loop import train
from salad.distill.teacher import SeparateTeacher, unchanging
from salad.distill.teacher_cache import cache_hidden, training_teacher
from salad.distill.teacher_files import TeacherIdentity
from salad.distill.teacher_shards import Document
from salad.errors import CheckpointError
from salad.files import read_json, write_json
from salad.model.llm import load_llm
from salad.ranks import ALONE
from salad.recipe import StageSettings

pytestmark = pytest.mark.usefixtures("one_thread")
fork = multiprocessing.get_context("fork")  # quick; with one thread there is no pool to be missed


class Slowly(list[Document]):
    """Documents that take their time, so that there is some to be killed in."""

    def __getitem__(self, index):
        time.sleep(0.01)
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    return tiny.save_llm(tmp_path_factory.mktemp("llm"))


def documents():
    build = tiny.builder()
    read = [build.mixed(utterance) for utterance in tiny.utterances(60)]
    return Slowly(Document(sequence.item, sequence.teacher_ids) for sequence in read)


@pytest.mark.kill
def test_killed_anywhere_it_goes_on_and_ends_with_the_same_bytes(llm, tmp_path):
    read = documents()
    cached.cache(llm, tmp_path / "once", read)
    wanted = cached.files_of(tmp_path / "once")
    folder, rng, cut_off = tmp_path / "killed", random.Random(0), 0
    for _ in range(20):
        child = fork.Process(target=cached.cache, args=(llm, folder, read))
        child.start()
        child.join(rng.uniform(0.2, 1.5))
        child.kill()
        child.join()
        cut_off += not list(folder.glob("*/set.json"))
    assert cut_off
    notes = folder.glob("*/0*.json")  # of shards that were written to their end
    whole = {path: path.stat().st_mtime_ns for path in (note.with_suffix(".safetensors") for note in notes)}
    assert whole
    cached.cache(llm, folder, read)
    assert cached.files_of(folder) == wanted
    assert {path: path.stat().st_mtime_ns for path in whole} == whole  # what was there was not done again


def share(ranks, folder, llm):
    """Cache on this rank among others, then damage a shard and open it together."""
    identity = TeacherIdentity.of(str(llm), "float32", ranks)
    cache_hidden(
        lambda: SeparateTeacher(load_llm(str(llm))),
        cached.documents(),
        folder / "shared",
        identity,
        positions=40,
        ranks=ranks,
        shard_bytes=cached.SHARD_BYTES,
    )
    ranks.barrier()
    teacher = cached.opened(llm, folder / "shared", ranks=ranks)
    assert teacher.matched_hidden(cached.batch()).shape[1] == 32
    ranks.barrier()
    paths = sorted((folder / "shared").glob("*/*.safetensors"))
    kept = paths[1].read_bytes()  # one that the second rank looks at
    ranks.barrier()
    if ranks.is_main:
        paths[1].write_bytes(kept[:-1] + b"?")
    ranks.barrier()
    with pytest.raises(CheckpointError, match=paths[1].name):
        cached.opened(llm, folder / "shared", ranks=ranks)
    ranks.barrier()
    if ranks.is_main:
        paths[1].write_bytes(kept)


def stage(ranks, folder, llm):
    """Train by cached hidden states, what is trained and how it is spread both ways; the curves as JSON."""
    curves = {}
    for train_llm, parallel in (("lora", "fsdp"), ("full", "fsdp"), ("lora", "ddp")):
        student = cached.student(llm, train_llm)
        recipe = cached.recipe(llm, "cached", train_llm)
        engine = recipe.engine.model_copy(update={"parallel": parallel})
        steps = StageSettings(steps=2, batch_sequences=6, micro_batch_positions=2048)
        stream = cached.stream(student, steps)
        place = folder / f"{train_llm}-{parallel}-{ranks.world}"
        teacher = training_teacher(student, recipe, stream, 2, place / "teacher", None, ranks)
        batches = partial(stream.batches, rank=ranks.rank, world=ranks.world)
        with unchanging(teacher, ranks):
            trained = train(student, teacher, batches, steps, lambda _: 1.0, place, engine=engine, ranks=ranks)
            curves[f"{train_llm} {parallel}"] = [report.kl_nats for report in trained]
    if ranks.is_main:
        write_json(folder / f"{ranks.world}.json", curves)


def both(ranks, folder, llm):
    share(ranks, folder, llm)
    stage(ranks, folder, llm)


@pytest.mark.slow
def test_ranks_share_the_work_train_by_it_and_all_see_a_damaged_shard(llm, tmp_path):
    together(both, tmp_path, llm)
    stage(ALONE, tmp_path, llm)
    expected = read_json(tmp_path / "1.json")
    for name, curve in read_json(tmp_path / "2.json").items():
        assert curve == pytest.approx(expected[name], rel=1e-4), name
    cached.cache(llm, tmp_path / "once")
    assert cached.files_of(tmp_path / "shared") == cached.files_of(tmp_path / "once")
