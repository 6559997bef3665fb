"""A Ray cluster to work on: connected to or started, and every node of it found fit before any work.

Ray is imported where it is used: it is an extra, and nobody else pays for it.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

from salad.errors import AssetError
from salad.files import write_atomic

PACKAGE = "salad-speech"
HEAD_ANSWERS_WITHIN_S = 10.0
NODE_ANSWERS_WITHIN_S = 120.0  # it starts a Python and imports salad
# A name that was never asked for is looked up afresh (NFS); other file systems renew their view of a folder in seconds.
FILE_IS_SEEN_WITHIN_S = 5.0
_OBJECT_STORE_BYTES = 256 * 2**20  # of a Ray started here: few answers are in it at a time
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its C++ parts write to our stderr; a worker's death is no error of ours
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # and its Python ones to our stdout, where a result is printed as JSON
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do by default, and warns about until then
}


def ray_itself() -> ModuleType:
    """The library, told to be quiet.

    Raises:
        AssetError: it is not installed.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data  # the extra's own part
    except ImportError as error:
        raise AssetError(
            f"working on many machines needs Ray ({error}); pip install 'salad-speech[ray]' on every one of them."
        ) from error
    for handler in logging.getLogger("ray.data").handlers:  # one writes a file that Ray keeps, the other to our output
        if handler.level == logging.INFO:
            handler.setLevel(logging.CRITICAL)
    return ray


@contextmanager
def connected(processes: int) -> Iterator[None]:
    """Connected to a cluster: this process's if it has one, else RAY_ADDRESS's, else the one that runs on this machine.

    Where there is none, a Ray of `processes` CPUs is started on loopback. What this connected or started it also ends.

    Raises:
        AssetError: no cluster answers at RAY_ADDRESS.
    """
    ray = ray_itself()
    if ray.is_initialized():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if not _joined():
            ray.init(
                "local",
                num_cpus=processes,
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **_QUIET,
            )
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray puts its own, which exits with another status
        yield
    finally:
        ray.shutdown()


def cluster_cpus() -> int:
    """The CPUs of the cluster that `connected` finds, or of this machine if there is none: how many workers have room.

    Raises:
        AssetError: Ray is not installed, or no cluster answers at RAY_ADDRESS.
    """
    ray = ray_itself()
    before = ray.is_initialized()
    if not before and not _joined():
        return len(os.sched_getaffinity(0))
    try:
        return max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        if not before:
            ray.shutdown()


def _joined() -> bool:
    """Connected to the cluster at RAY_ADDRESS, or to the one that `ray start` has made this machine a part of.

    Ray's own "auto" takes any other program's Ray that it finds running, too, and waits minutes for one that is gone.
    """
    from ray._private.utils import read_ray_address

    asked = os.environ.get("RAY_ADDRESS") or "auto"
    address = read_ray_address() if asked == "auto" else asked
    if address and _is_answered(address):
        with suppress(ConnectionError):
            ray_itself().init(address, **_QUIET)
            return True
    if "RAY_ADDRESS" in os.environ:
        raise AssetError(
            f"no Ray cluster answers at RAY_ADDRESS={asked}; start its head there with `ray start --head` and give "
            "HOST:PORT as that prints it, or unset RAY_ADDRESS to work on this machine."
        )
    return False


def _is_answered(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=HEAD_ANSWERS_WITHIN_S).close()
    except (OSError, ValueError):
        return False
    return True


@dataclass(frozen=True)
class Mark:
    """What a node must have: this version of salad, and the file, if there is one, with this content."""

    version: str
    file: Path | None
    content: str

    def missing_here(self) -> str | None:
        """What this machine lacks, as the end of a sentence."""
        if version(PACKAGE) != self.version:
            return f"has salad {version(PACKAGE)} and not {self.version}: install the same version on every node"
        if self.file is None:
            return None
        last = time.monotonic() + FILE_IS_SEEN_WITHIN_S
        while True:
            with suppress(OSError):
                if self.file.read_text() == self.content:
                    return None
            if time.monotonic() > last:
                return f"does not see what is written to {self.file.parent}: it must be a folder that all nodes share"
            time.sleep(0.2)


@contextmanager
def mark(folder: Path | None) -> Iterator[Mark]:
    """What to look for on every node; a file in `folder` for as long as the block takes."""
    content = uuid4().hex
    if folder is None:
        yield Mark(version(PACKAGE), None, content)
        return
    file = folder.absolute() / f".tmp-{os.getpid()}-{content}.seen"
    write_atomic(file, content)
    try:
        yield Mark(version(PACKAGE), file, content)
    finally:
        file.unlink(missing_ok=True)


def check_nodes(needed: Mark, gpus_per_worker: float = 0.0) -> None:
    """Before any work: every node of the cluster can do it.

    Raises:
        AssetError: one has no salad or another version of it, or does not see the folder; or none has the GPU.
    """
    ray = ray_itself()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def look(pickled: bytes) -> str | None:  # in here, so that Ray sends its code: salad may be missing there
        try:
            missing: str | None = pickle.loads(pickled).missing_here()
        except ImportError as error:
            return f"can't import salad ({error}): install it there as it is here, with the extra ray"
        return missing

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if gpus_per_worker and max(node["Resources"].get("GPU", 0) for node in nodes) < gpus_per_worker:
        raise AssetError(
            f"no node of the Ray cluster has the {gpus_per_worker:g} GPU that each worker is to hold; "
            "start the nodes that have one with --num-gpus, or work on the CPU."
        )
    task = ray.remote(num_cpus=0, max_retries=0)(look)
    answers = []
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        answers.append((node, task.options(scheduling_strategy=there).remote(pickle.dumps(needed))))
    for node, answer in answers:
        try:
            missing = ray.get(answer, timeout=NODE_ANSWERS_WITHIN_S)
        except ray.exceptions.RayError as error:
            missing = f"does not answer ({type(error).__name__}): `ray status` shows the cluster's nodes"
        if missing:
            raise unfit(f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})", missing)


def unfit(node: str, missing: str) -> AssetError:
    """The error of a node that can't do the work; `missing` is the end of the sentence."""
    return AssetError(f"the Ray node {node} {missing}.")
