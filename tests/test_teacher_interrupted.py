"""Caching hidden states that is killed, or shared by ranks: nothing is done twice, and it ends with the same bytes."""

import multiprocessing
import random
import time

import pytest

import cached
import tiny
from processes import together
from salad.distill.teacher import SeparateTeacher
from salad.distill.teacher_cache import cache_hidden
from salad.distill.teacher_files import TeacherIdentity
from salad.distill.teacher_shards import Document
from salad.errors import CheckpointError
from salad.model.llm import load_llm

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


def test_ranks_share_the_work_and_all_see_a_damaged_shard(llm, tmp_path):
    together(share, tmp_path, llm)
    cached.cache(llm, tmp_path / "once")
    assert cached.files_of(tmp_path / "shared") == cached.files_of(tmp_path / "once")
