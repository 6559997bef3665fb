"""Workers of a Ray cluster: the same answers as on one machine, whatever becomes of a worker, a node or the driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ray_job
import tiny_corpus
import tiny_probe
import toy_tasks
from salad.errors import AssetError
from salad.files import write_jsonl
from salad.ray_cluster import Mark, connected
from salad.ray_workers import ATTEMPTS, GROUPS_PER_WORKER, fan_out
from salad.speech.prepared import read_cuts
from salad.workers import Died, answer_all
from tiny_speech import Loudness

LIMIT_S = 900  # of a machine that is busy with other things
# A network of its own, and processes of its own that end with it; their first one, a shell, buries the orphans.
ALONE = ["unshare", *([] if os.getuid() == 0 else ["--map-root-user"]), "--net", "--pid", "--fork", "--kill-child"]
ALONE += ["--mount-proc", "sh", "-c", '"$@"; exit "$?"', "sh"]


def on_ray(what: str, folder: Path) -> dict[str, Any]:
    """What ray_job.py found, in a network of its own."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'salad-speech[ray]'")
    tried = subprocess.run([*ALONE, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"a network namespace is needed, and is not to be had here: {tried.stderr.strip()}")
    # Ray's limit on a machine's memory would kill workers for what other programs take.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_memory_monitor_refresh_ms": "0"}
    job = [*ALONE, sys.executable, str(Path(ray_job.__file__)), what, str(folder)]
    done = subprocess.run(job, capture_output=True, text=True, timeout=LIMIT_S, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return {**json.loads((folder / f"{what}.json").read_text()), "stderr": done.stderr}


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 20)
def test_a_cluster_answers_as_one_machine_does(tmp_path):
    found = on_ray("toys", tmp_path)
    answered = {str(task): answer for task, answer in found["answered"]}
    assert len(found["answered"]) == len(answered) == len(ray_job.TOYS)
    for task, answer in answer_all(ray_job.TOYS, toy_tasks.temperamental, 2):
        if task == "die":  # how a process of another machine ended is not known
            assert isinstance(answer, Died)
            assert answered["die"] == "died None"
        else:
            assert answered[str(task)] == ray_job.told(answer)
    assert found["stderr"].count("ZeroDivisionError: of this test") == 1
    assert len(list(tmp_path.glob("died-*"))) == ATTEMPTS

    assert found["drawn"] <= GROUPS_PER_WORKER * ray_job.NODES + 2  # groups of one, and then one of two
    assert found["refused"] == "DataError: text 7 of this test holds no words; give it some."
    assert found["unfit"].startswith("WorkerError: a worker process could not begin (on ")
    assert "ZeroDivisionError: of this test's setup)" in found["unfit"]
    assert "does not see what is written to /proc/self/cwd" in found["not_shared"]
    assert "no node of the Ray cluster has the 0.5 GPU" in found["no_gpu"]
    assert found["no_tasks"] == []
    assert found["cpus"] == ray_job.NODES
    assert found["at_work"] >= 1
    assert 1 <= found["begun"] < found["drawn"]
    assert found["left_behind"] == []


@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.assets
@pytest.mark.usefixtures("one_thread")
@pytest.mark.timeout(LIMIT_S + 60)
def test_a_cluster_does_the_work_of_one_machine_when_it_loses_a_worker_and_a_node(tmp_path):
    tiny_corpus.chapters(tmp_path / "speech", 12)
    tiny_probe.model_on_disk(tmp_path, Loudness.name, Loudness.feature_dim, Loudness.frame_hz)
    rows = [{"id": said.id, "text": said.text} for said in ray_job.SAID]
    write_jsonl(tmp_path / "texts.jsonl", rows)
    ray_job.speak(tmp_path / "one_machine", 1, answer_all)
    ray_job.embed(tmp_path, "vectors", 1, answer_all)
    ray_job.probe(tmp_path, "probes", 1, answer_all)

    found = on_ray("work", tmp_path)
    assert len(found["killed"]) == 1
    names = [said.id for said in ray_job.SAID]
    alone = content(tmp_path / "one_machine", "*.flac")
    assert len(alone) == len(names)
    for folder in ("worker_killed", "node_lost"):
        assert [cut.id for cut in read_cuts(tmp_path / folder)] == names
        assert (tmp_path / folder / "rejected.jsonl").read_text() == ""
        assert content(tmp_path / folder, "*.flac") == alone
        assert found[folder] == [*range(1, len(names) + 1), len(names)], "an utterance was counted twice, or never"
    assert len(content(tmp_path / "vectors")) > 4
    assert content(tmp_path / "vectors_on_ray") == content(tmp_path / "vectors")
    assert len(content(tmp_path / "probes")) > 2
    assert content(tmp_path / "probes_on_ray") == content(tmp_path / "probes")


@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.timeout(LIMIT_S + 20)
def test_a_ray_that_was_started_here_ends_with_its_driver(tmp_path):
    found = on_ray("interrupted", tmp_path)
    assert found["SIGTERM"] == 128 + 15
    assert found["SIGKILL"] == -9


def content(folder: Path, names: str = "*") -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(names) if path.is_file()}


def test_a_node_with_another_version_or_without_the_folder_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr("salad.ray_cluster.FILE_IS_SEEN_WITHIN_S", 0.0)
    here = ray_job.our_version()
    seen = tmp_path / "seen"
    seen.write_text("this run")
    assert Mark(here, None, "").missing_here() is None
    assert Mark(here, seen, "this run").missing_here() is None
    assert "all nodes share" in Mark(here, seen, "another run").missing_here()
    assert "all nodes share" in Mark(here, tmp_path / "not there", "this run").missing_here()
    assert f"has salad {here} and not 0.0.1" in Mark("0.0.1", seen, "this run").missing_here()


def test_no_cluster_at_the_address_is_told_at_once(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(AssetError, match=r"RAY_ADDRESS=127\.0\.0\.1:1"), connected(1):
        pass


def test_without_ray_one_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AssetError, match=r"salad-speech\[ray\]"):
        fan_out("ray")
    assert fan_out("processes") is answer_all
