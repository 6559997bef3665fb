"""Runs of the intake that are stopped, share the work, or run out of disk: the files are the same in the end."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet, MonoCut

from salad.errors import DataError
from salad.speech import chunks
from salad.speech.audio import load_cut
from salad.speech.corpora import folder
from salad.speech.intake import Candidate, Checks, Rejected, prepare_corpus
from salad.speech.prepared import cut_line, kind_of, read_cuts, write_prepared
from salad.speech.seen import RECENT, SeenNames

RATE_HZ = 8_000
NUM = 60
FILES = ("cuts.jsonl.gz", "rejected.jsonl", "info.json")


def make_corpus(root: Path, num: int = NUM) -> Path:
    """Every seventh file is cut short, every eleventh silent (and small); the last utterance stands twice."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(num):
        path = root / f"{number:03d}.flac"
        soundfile.write(path, rng.uniform(-0.3, 0.3, RATE_HZ) * (number % 11 > 0), RATE_HZ)
        if number % 7 == 1:
            path.write_bytes(path.read_bytes()[:3000])
        rows.append({"audio": path.name, "text": "so it goes", "speaker": f"s{number % 5}", "licence": "CC0"})
    rows.append({**rows[-1], "id": Path(rows[-1]["audio"]).stem})
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 7)


@pytest.mark.usefixtures("small_chunks")
def test_any_number_of_processes_gives_the_same_bytes(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus")
    expected = None
    for jobs in (1, 2, 3):
        told: list[int] = []
        found, info = folder.open_folder(corpus)
        summary = prepare_corpus(found, tmp_path / f"{jobs}", info, jobs=jobs, progress=told.append)
        assert dict(summary.reasons) == {"truncated or damaged audio": 8, "silent audio": 6, "duplicate id": 1}
        assert summary.num_cuts == NUM + 1 - 15
        assert told == sorted(told)
        assert told[-1] == NUM + 1
        expected = expected or contents(tmp_path / "1")
        assert contents(tmp_path / f"{jobs}") == expected
        assert not (tmp_path / f"{jobs}" / ".parts").exists()


@pytest.mark.usefixtures("small_chunks")
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = make_corpus(tmp_path / "corpus")
    folder.prepare(corpus, tmp_path / "whole")

    def stopping(candidates: Iterator[Candidate | Rejected]) -> Iterator[Candidate | Rejected]:
        for number, item in enumerate(candidates):
            if number == 40:
                raise KeyboardInterrupt
            yield item

    found, info = folder.open_folder(corpus)
    with pytest.raises(KeyboardInterrupt):
        prepare_corpus(stopping(found), tmp_path / "out", info)
    assert len(list((tmp_path / "out" / ".parts").glob("*.jsonl"))) == 5
    touched = corpus / "010.flac"  # in the second chunk
    os.utime(touched, ns=(0, 0))
    worked_on: list[str] = []
    check = chunks.accept
    monkeypatch.setattr(chunks, "accept", lambda items, *more: worked_on.append(items[0].id) or check(items, *more))
    folder.prepare(corpus, tmp_path / "out")
    assert worked_on == ["007", "035", "042", "049", "056"]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    worked_on.clear()
    folder.prepare(corpus, tmp_path / "out", checks=Checks(max_words_per_s=9))
    assert len(worked_on) == 9


@pytest.mark.kill
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_run_ends_with_the_same_bytes(jobs: int, tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", 100)
    rows = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text().splitlines()]
    lines = [json.dumps({**row, "id": f"{turn}-{i}"}) for turn in range(16) for i, row in enumerate(rows)]
    (corpus / "manifest.jsonl").write_text("\n".join(lines))
    command = [sys.executable, "-m", "salad", "prepare", "folder", str(corpus), "--jobs", str(jobs), "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    out = tmp_path / "out"
    done = 0
    for _ in range(2):
        run = subprocess.Popen(
            [*command, str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        while run.poll() is None and len(list(out.glob(".parts/*.jsonl"))) <= done:
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        assert run.returncode == -signal.SIGKILL, "it was done before it was killed: make the corpus longer"
        done = len(list(out.glob(".parts/*.jsonl")))
        if jobs > 1:
            deadline = time.monotonic() + 20
            while alive_in(run.pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not alive_in(run.pid), "worker processes outlive the one that started them"
        assert not (out / "cuts.jsonl.gz").exists()
    assert done >= 2
    subprocess.run([*command, str(out)], check=True, capture_output=True)
    assert contents(out) == contents(tmp_path / "whole")


def alive_in(session: int) -> list[int]:
    """The processes of a session that still run."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            alive.append(int(stat.parent.name))
    return alive


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(jobs: int, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        corpus = make_corpus(tmp_path / "corpus")
        command = [sys.executable, "-m", "salad", "prepare", "folder", str(corpus), "--out", str(disk / "out")]
        full = subprocess.run([*command, "--jobs", str(jobs)], capture_output=True, text=True)
        assert full.returncode == 2, full.stderr
        assert full.stderr.startswith("salad: no space left on the disk")
        assert full.stderr.count("\n") == 1
        assert not (disk / "out" / "cuts.jsonl.gz").exists()
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        done = subprocess.run([*command, "--jobs", str(jobs)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        folder.prepare(corpus, tmp_path / "whole")
        assert {**contents(disk / "out")} == contents(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("seed", range(12))
def test_wherever_the_disk_fills_the_next_run_goes_on(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th flush to the disk fails, for a random n: in a chunk, in its header, in the files at the end."""
    corpus = make_corpus(tmp_path / "corpus", 20)
    folder.prepare(corpus, tmp_path / "whole")
    flush, calls = os.fsync, iter(range(1000))
    fails_at = random.Random(seed).randrange(9)  # three chunks of two files, and three files

    def fsync(file: int) -> None:
        if next(calls) == fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        folder.prepare(corpus, tmp_path / "out")
    assert not (tmp_path / "out" / "cuts.jsonl.gz").exists()
    assert not list((tmp_path / "out").rglob(".tmp*"))
    folder.prepare(corpus, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_two_runs_do_not_write_the_same_folder(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", 3)
    (tmp_path / "out" / ".parts").mkdir(parents=True)
    with FileLock(tmp_path / "out" / ".parts" / "lock"), pytest.raises(DataError, match="another process is preparing"):
        folder.prepare(corpus, tmp_path / "out")
    assert folder.prepare(corpus, tmp_path / "out").num_cuts == 1


def test_a_file_that_kills_its_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [Candidate("a", "here:1", tmp_path / "a.flac", "so it goes", custom={"deadly": Deadly()})]
    with pytest.raises(DataError, match=r"the process that checked the utterances from here:1 on died"):
        prepare_corpus(items, tmp_path / "out", {}, jobs=2)


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (9,)


# --- what is written ------------------------------------------------------------------------------------------------


def test_what_is_written_is_what_lhotse_writes(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", 4)
    words = [["so", 0.1, 0.3], ["it", 0.3, 0.5], ["goes", 0.5, 0.9]]
    row = {"audio": "002.flac", "text": "so it goes", "words": words, "offset": 0.05, "duration": 0.95, "document": "d"}
    (corpus / "manifest.jsonl").write_text(json.dumps(row))
    out = tmp_path / "out"
    folder.prepare(corpus, out)
    (cut,) = read_cuts(out)
    assert isinstance(cut, MonoCut)
    (lhotse_cut,) = CutSet.from_file(out / "cuts.jsonl.gz")
    assert lhotse_cut == cut
    chunks_line = json.loads(cut_line(cut, out))
    assert chunks_line == json.loads(json.dumps(cut.to_dict()))
    write_prepared(tmp_path / "again", [cut], [], {})
    assert (tmp_path / "again" / "cuts.jsonl.gz").read_bytes() == (out / "cuts.jsonl.gz").read_bytes()
    assert cut.load_audio().shape == (1, round(0.95 * RATE_HZ))


def test_a_folder_is_moved_with_the_audio_inside_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    corpus = make_corpus(out / "audio", 6)
    folder.prepare(corpus, out)
    before = [load_cut(cut, RATE_HZ) for cut in read_cuts(out)]
    cuts = read_cuts(out)
    write_prepared(out, cuts, [], {})  # as a later step does
    shutil.move(out, tmp_path / "moved")
    after = read_cuts(tmp_path / "moved")
    assert next(cut.recording.sources[0].source for cut in after if cut.recording).startswith(str(tmp_path / "moved"))
    assert all((load_cut(cut, RATE_HZ) == audio).all() for cut, audio in zip(after, before, strict=True))


@given(st.lists(st.integers(0, 20_000).map(str), max_size=50), st.integers(0, 3))
def test_names_that_came_before_are_known(names: list[str], flushes: int) -> None:
    seen = SeenNames()
    known = {str(number) for number in range(0, flushes * RECENT + 100, 2)}
    for name in sorted(known):
        assert not seen.before(name)
    for name in names:
        assert seen.before(name) == (name in known)
        known.add(name)


def test_many_names_take_eight_bytes_each() -> None:
    seen = SeenNames()
    assert not any(seen.before(f"speaker-{number}-chapter") for number in range(50_000))
    assert seen.before("speaker-77-chapter")
    assert sum(array.nbytes for array in seen._sorted) <= 8 * 50_000
    assert len(seen._recent) < RECENT
    assert len(seen._sorted) <= 5


def test_kinds_of_reasons() -> None:
    assert kind_of("clipped audio: 4.0% of it") == "clipped audio"
    assert kind_of("the line 'x' has 3 words of 4.5 s") == "the line … has … words of … s"
    assert kind_of("") == "no reason given"
