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

import toy_tasks
from salad.errors import SaladError
from salad.interrupts import end_on_sigterm
from salad.ray_cluster import PACKAGE, cluster_cpus
from salad.ray_workers import answer_all_on_ray, fan_out
from salad.workers import Died

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


TOYS = [1, "raise", 2, "die", 3, "exit", "big", *range(4, 34)]


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
    ray.init(
        os.environ["RAY_ADDRESS"], log_to_driver=False
    )  # once for all, as a program that uses Ray itself would have done
    drawn = 0

    def tasks() -> Iterator[Any]:
        nonlocal drawn
        for task in TOYS:
            drawn += 1
            yield task

    answered, ahead = [], 0
    for task, answer in answer_all_on_ray(tasks(), toy_tasks.temperamental, NODES):
        answered.append([task, told(answer)])
        ahead = max(ahead, drawn - len(answered))
    wait_until(lambda: not worker_processes())

    # /proc/self/cwd is each process's own: this one's is `folder` now, a worker's is where the cluster was started
    os.chdir(folder)
    not_shared = refusal(answer_all_on_ray([1], toy_tasks.squarer, 1, folder=Path("/proc/self/cwd")))

    left_early = answer_all_on_ray(range(1000), partial(toy_tasks.recorder, folder), NODES, folder=folder)
    next(left_early)
    at_work = len(worker_processes())
    left_early.close()
    wait_until(lambda: not worker_processes())

    return {
        "answered": answered,
        "ahead": ahead,
        "not_shared": not_shared,
        "refused": refusal(answer_all_on_ray([1, "refuse", *range(100)], toy_tasks.temperamental, NODES)),
        "no_gpu": refusal(answer_all_on_ray([1], toy_tasks.squarer, 1, gpus_per_worker=0.5)),
        "cpus": cluster_cpus(),
        "no_tasks": list(answer_all_on_ray([], toy_tasks.squarer, 1)),
        "at_work": at_work,
        "begun": len(list(folder.glob("*-*[0-9]"))),
        "left_behind": [path.name for path in folder.glob(".tmp*")],
    }


@dataclass(frozen=True)
class Said:
    id: str
    text: str


SAID = [
    Said(f"s{i}", f"The {word} is number {i}.") for i, word in enumerate("river mountain evening horse".split() * 4)
]


def speech(folder: Path) -> dict[str, Any]:
    """Real speech by real workers, one of which is killed; and then a whole node of them."""
    from salad.synthesize.pool import synthesize

    nodes = cluster()

    def speak(name: str, disturb: Callable[[], Any]) -> list[int]:
        out = folder / name
        counts: list[int] = []

        def progress(done: int, total: int) -> None:
            counts.append(done)
            if done == 3:
                disturb()

        synthesize(SAID, "piper-joe", out, NODES, progress, fan_out=fan_out("ray", out))
        return counts

    killed = []

    def kill_a_worker() -> None:
        worker = worker_processes()[0]
        killed.append(worker.pid)
        worker.kill()

    def lose_a_node() -> None:
        nodes.remove_node(nodes.list_all_nodes()[-1], allow_graceful=False)

    return {
        "worker_killed": speak("worker_killed", kill_a_worker),
        "killed": killed,
        "node_lost": speak("node_lost", lose_a_node),
    }


def interrupted(folder: Path) -> dict[str, Any]:
    """A driver without a cluster, stopped by each signal in the middle; nothing of its Ray outlives it."""
    statuses = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        where = folder / number.name
        where.mkdir()
        driver = subprocess.Popen([sys.executable, __file__, "endless", str(where)])
        wait_until(lambda where=where: len(list(where.iterdir())) > 2, 120)
        driver.send_signal(number)
        statuses[number.name] = driver.wait(60)
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
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    end_on_sigterm()
    for _ in answer_all_on_ray(range(10_000), partial(toy_tasks.recorder, folder), 2):
        pass


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "endless":
        endless(where)
    else:
        raise_loopback()
        found = {"toys": toys, "speech": speech, "interrupted": interrupted}[what](where)
        (where / f"{what}.json").write_text(json.dumps(found))
