"""Encoding that is killed, runs in several processes, or fills the disk: nothing is done twice, no half is trusted."""

import errno
import itertools
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet

from salad.model import shard_plan
from salad.model.encode import encode_cuts
from salad.model.features import FeatureStore, encoder_folder
from salad.speech.prepared import read_cuts, write_prepared
from tiny_speech import Loudness, files_of, prepared

fork = multiprocessing.get_context("fork")  # quick; nothing here has threads


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shard_plan, "CUTS_PER_SHARD", 4)


class Slow(Loudness):
    """Takes its time and writes down how many clips it was given."""

    def __init__(self, journal: Path) -> None:
        super().__init__()
        self.journal = journal

    def encode(self, samples):
        with self.journal.open("a") as file:
            file.write("x" * len(samples))
        time.sleep(0.02 * len(samples))
        return super().encode(samples)


def whole(folder: Path, other: Path, num: int) -> dict[str, bytes]:
    """`folder` with `num` cuts, and what encoding it without a break gives, done in `other`."""
    write_prepared(other, prepared(folder, num), [], {})
    encode_cuts(other, Loudness())
    return files_of(other)


def test_processes_share_the_work(tmp_path):
    expected = whole(tmp_path / "f", tmp_path / "once", 22)
    journal = tmp_path / "journal"
    processes = [fork.Process(target=encode_cuts, args=(tmp_path / "f", Slow(journal))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
        assert len(FeatureStore(tmp_path / "f", Loudness.name)) == 22  # whoever ends, all is there
    assert len(journal.read_text()) == 22
    assert files_of(tmp_path / "f") == expected


@pytest.mark.kill
def test_killed_anywhere_it_goes_on_and_ends_with_the_same_bytes(tmp_path):
    expected = whole(tmp_path / "f", tmp_path / "once", 22)
    journal = tmp_path / "journal"
    for delay_s in (0.02, 0.07, 0.11, 0.16, 0.05):
        process = fork.Process(target=encode_cuts, args=(tmp_path / "f", Slow(journal)))
        process.start()
        time.sleep(delay_s)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        for tar in (encoder_folder(tmp_path / "f", Loudness.name) / "shar").glob("enc.*"):
            assert tar.read_bytes() == expected[f"shar/{tar.name}"]
    assert encode_cuts(tmp_path / "f", Loudness()).num_encoded == 22
    assert files_of(tmp_path / "f") == expected


@pytest.mark.kill
def test_a_killed_process_leaves_its_shard_to_the_others(tmp_path):
    expected = whole(tmp_path / "f", tmp_path / "once", 8)
    first = fork.Process(target=encode_cuts, args=(tmp_path / "f", Slow(tmp_path / "journal")))
    first.start()
    while not (tmp_path / "journal").exists():
        time.sleep(0.005)
    second = fork.Process(target=encode_cuts, args=(tmp_path / "f", Loudness()))
    second.start()
    os.kill(first.pid, signal.SIGKILL)
    second.join(timeout=20)
    assert second.exitcode == 0
    assert files_of(tmp_path / "f") == expected


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_stopped_at_any_step_to_the_disk_it_goes_on(tmp_path, monkeypatch, call):
    expected = whole(tmp_path / "f", tmp_path / "once", 6)
    for step in itertools.count():
        folder = tmp_path / f"stopped-{step}"
        write_prepared(folder, read_cuts(tmp_path / "f"), [], {})
        with monkeypatch.context() as patch:
            stop_at(patch, call, step)
            went_through = room_for_all(folder)
        there = files_of(folder)
        assert all(expected[name] == content for name, content in there.items())
        encode_cuts(folder, Loudness())
        assert files_of(folder) == expected
        if went_through:
            assert step > 10
            return


def stop_at(patch, call: str, step: int) -> None:
    """Let a number of calls that make things last succeed and the next fail."""
    owner = os if call == "fsync" else Path
    really, calls = getattr(owner, call), itertools.count()

    def counted(*args):
        if next(calls) == step:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(*args)

    patch.setattr(owner, call, counted)


def room_for_all(folder: Path) -> bool:
    try:
        encode_cuts(folder, Loudness())
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True


def test_a_full_disk_within_a_shard_is_an_error_and_leaves_nothing(tmp_path):
    expected = whole(tmp_path / "f", tmp_path / "once", 6)
    where = encoder_folder(tmp_path / "f", Loudness.name)
    (where / "shards").mkdir(parents=True)
    (where / "shards" / "000001.writing.tar").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        encode_cuts(tmp_path / "f", Loudness())
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in sorted((where / "shar").iterdir())] == ["cuts.000000.jsonl.gz", "enc.000000.tar"]
    encode_cuts(tmp_path / "f", Loudness())
    assert files_of(tmp_path / "f") == expected


def test_an_index_row_of_a_million_cuts_is_found_in_flat_memory(tmp_path):
    """The index as `salad encode` writes it, of a million ids; the features are those of one shard."""
    cuts = prepared(tmp_path / "f", 1)
    encode_cuts(tmp_path / "f", Loudness())
    where = encoder_folder(tmp_path / "f", Loudness.name)
    index = np.load(where / "index.npy")
    many = np.repeat(index, 1_000_000, axis=1)
    many[0] = np.sort(np.random.default_rng(0).integers(0, 2**64, 1_000_000, np.uint64))
    many[0, np.searchsorted(many[0], index[0, 0])] = index[0, 0]
    np.save(where / "index.npy", many)
    store = FeatureStore(tmp_path / "f", Loudness.name)
    assert len(store) == 1_000_000
    assert store.load(cuts[0].id).shape == (15, 2)
    begin = time.perf_counter()
    for number in range(2000):
        assert f"other{number}" not in store
    assert time.perf_counter() - begin < 2  # 10 µs each; a copy of the column would take 1 ms


def test_the_report_is_json(tmp_path):
    prepared(tmp_path / "f", 3)
    summary = json.loads(json.dumps(encode_cuts(tmp_path / "f", Loudness()).summary()))
    assert summary["cuts"] == 3
    assert summary["bytes_per_hour"] > 0
    shar = Path(summary["folder"]) / "shar"
    assert len(list(CutSet.from_shar(in_dir=shar))) == 3
