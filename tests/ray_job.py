"""What tests/test_ray.py runs in a network of its own: `python ray_job.py WHAT FOLDER`, which writes FOLDER/WHAT.json.

Ray's servers listen on the machine's address, and a cluster of several nodes can't be asked for less; so this process
has a network in which there is nothing but loopback.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pytest

import tiny_probe
import toy_tasks
from salad.errors import SaladError
from salad.interrupts import end_on_sigterm
from salad.ray_cluster import PACKAGE, cluster_cpus
from salad.ray_workers import answer_all_on_ray, fan_out
from salad.workers import Died, FanOut

NODES = 3
STORE_BYTES = 100 * 2**20


def raise_loopback() -> None:
    """Bring up `lo`, which is down in a new network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 0x1))  # SIOCSIFFLAGS, IFF_UP
    assert set(psutil.net_if_addrs()) == {"lo"}, "this is the machine's own network"


def cluster() -> Any:
    """A cluster of `NODES` nodes, of one CPU each, at RAY_ADDRESS."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "node_ip_address": "127.0.0.1"}
    nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    for _ in range(NODES - 1):
        nodes.add_node(wait=False, **node)
    nodes.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = nodes.address
    return nodes


def worker_processes() -> list[psutil.Process]:
    """The actors of Ray Data: Ray names its processes after what they do."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [""])[0].startswith("ray::MapWorker"):
            found.append(process)
    return found


def wait_until(true: Callable[[], Any], limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, f"still not so after {limit_s} s"
        time.sleep(0.1)


def refusal(answers: Iterable[Any]) -> str:
    """The sentence of the error that is raised."""
    try:
        list(answers)
    except SaladError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


TOYS = [1, "raise", 2, 3, "exit", "big", *range(4, 21), "die", *range(21, 40)]  # one that dies among others


def told(answer: Any) -> Any:
    """An answer as JSON can hold it."""
    if isinstance(answer, Died):
        return f"died {answer.exit_code}"
    return len(answer) if isinstance(answer, bytes) else answer


def our_version() -> str:
    return version(PACKAGE)


def toys(folder: Path) -> dict[str, Any]:
    """All that tasks and workers can do, short of real work."""
    import ray

    os.environ["TOY_FOLDER"] = str(folder)  # for the nodes
    cluster()
    ray.init(os.environ["RAY_ADDRESS"], log_to_driver=False)  # as a program that uses Ray itself has done already
    answered = [[task, told(answer)] for task, answer in answer_all_on_ray(TOYS, toy_tasks.temperamental, NODES)]
    wait_until(lambda: not worker_processes())

    # /proc/self/cwd is each process's own: this one's is `folder` now, a worker's is where the cluster was started
    os.chdir(folder)
    not_shared = refusal(answer_all_on_ray([1], toy_tasks.squarer, 1, folder=Path("/proc/self/cwd")))

    drawn = 0

    def endless_tasks() -> Iterator[int]:
        nonlocal drawn
        while True:
            drawn += 1
            yield drawn

    left_early = answer_all_on_ray(endless_tasks(), partial(toy_tasks.recorder, folder), NODES, folder=folder)
    next(left_early)
    at_work = len(worker_processes())
    left_early.close()
    wait_until(lambda: not worker_processes())

    found = {
        "answered": answered,
        "drawn": drawn,
        "not_shared": not_shared,
        "refused": refusal(answer_all_on_ray([1, "refuse", *range(100)], toy_tasks.temperamental, NODES)),
        "unfit": refusal(answer_all_on_ray([1, 2, 3], toy_tasks.unfit, NODES)),
        "no_gpu": refusal(answer_all_on_ray([1], toy_tasks.squarer, 1, gpus_per_worker=0.5)),
        "cpus": cluster_cpus(),
        "no_tasks": list(answer_all_on_ray([], toy_tasks.squarer, 1)),
        "at_work": at_work,
        "begun": len(list(folder.glob("*-*[0-9]"))),
        "left_behind": [path.name for path in folder.glob(".tmp*")],
    }
    ray.shutdown()  # before the cluster ends with this process: Ray ends a driver whose node is gone
    return found


@dataclass(frozen=True)
class Said:
    id: str
    text: str


SAID = [
    Said(f"s{i}", f"The {word} is number {i}.") for i, word in enumerate("river mountain evening horse".split() * 4)
]


def speak(out: Path, processes: int, fan_out: FanOut, told: Callable[[int], Any] = lambda done: None) -> None:
    """Speech of `SAID` by Piper."""
    from salad.synthesize.pool import synthesize

    synthesize(SAID, "piper-joe", out, processes, lambda done, _: told(done), fan_out=fan_out)


def embed(folder: Path, out: str, processes: int, fan_out: FanOut) -> None:
    """Vectors of folder/texts.jsonl by MiniLM, in shards of four texts."""
    from salad.select import embed_corpus as module
    from salad.texts.corpus import TextCorpus

    corpus, settings = TextCorpus(folder / "texts.jsonl"), module.EmbedSettings("minilm-l6", "cpu", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHARD_ROWS", (4, 4))
        module.embed_corpus(corpus, folder / out, settings, processes, fan_out=fan_out)


def probe(folder: Path, out: str, processes: int, fan_out: FanOut) -> None:
    """What the tiny model in folder/model hears of folder/speech, window by window."""
    from salad.recipe import SequenceSettings
    from salad.select.probe_windows import Hearing, hear_probes

    sequence = SequenceSettings(**tiny_probe.POLICY)
    asked = Hearing(folder / "model", folder / "speech", sequence, seed=0, batch_positions=160, threads=1)
    hear_probes(asked, folder / out, processes, fan_out)


def work(folder: Path) -> dict[str, Any]:
    """Speech while a worker is killed; vectors and probes; and speech while a whole node is lost."""
    nodes = cluster()
    killed: list[int] = []
    counts: dict[str, list[int]] = {"worker_killed": [], "node_lost": []}

    def kill_a_worker(done: int) -> None:
        counts["worker_killed"].append(done)
        if done == 3:
            worker = worker_processes()[0]
            killed.append(worker.pid)
            worker.kill()

    def lose_a_node(done: int) -> None:
        counts["node_lost"].append(done)
        if done == 3:
            nodes.remove_node(nodes.list_all_nodes()[-1], allow_graceful=False)

    on_ray = fan_out("ray", folder)
    speak(folder / "worker_killed", NODES, on_ray, kill_a_worker)
    embed(folder, "vectors_on_ray", 2, on_ray)
    probe(folder, "probes_on_ray", 2, on_ray)
    speak(folder / "node_lost", NODES, on_ray, lose_a_node)
    return {**counts, "killed": killed}


def interrupted(folder: Path) -> dict[str, Any]:
    """Drivers without a cluster, stopped in the middle by a signal each; nothing of their Rays outlives them."""
    drivers = {}
    for number in (signal.SIGTERM, signal.SIGKILL):
        (folder / number.name).mkdir()
        drivers[number] = subprocess.Popen([sys.executable, __file__, "endless", str(folder / number.name)])
    wait_until(lambda: all(len(list((folder / number.name).iterdir())) > 2 for number in drivers), 500)
    for number, driver in drivers.items():
        driver.send_signal(number)
    statuses = {number.name: driver.wait(120) for number, driver in drivers.items()}
    wait_until(lambda: not rays(), 120)
    return statuses


def rays() -> list[str]:
    """The processes of any Ray."""
    found = []
    for process in psutil.process_iter(["status", "name"]):
        if process.info["name"].startswith(("ray", "gcs_server")) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.info["name"])
    return found


def endless(folder: Path) -> None:
    """What is interrupted."""
    end_on_sigterm()
    for _ in answer_all_on_ray(range(10_000), partial(toy_tasks.recorder, folder), 1):
        pass


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "endless":
        endless(where)
    else:
        raise_loopback()
        found = {"toys": toys, "work": work, "interrupted": interrupted}[what](where)
        (where / f"{what}.json").write_text(json.dumps(found))
