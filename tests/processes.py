"""Several real processes of this machine that meet on loopback: for tests of what ranks do together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import distributed

from salad.ranks import Ranks

MEET = timedelta(seconds=60)
TIMEOUT_S = 400  # of a machine that is busy with other things


def together(work: Callable[..., None], folder: Path, *more: Any, world: int = 2) -> None:
    """Run work(ranks, folder, *more) in `world` processes of one thread to their end; a hang or an error fails."""
    store = Path(mkdtemp(dir=folder)) / "store"
    arguments = (world, store, work, folder, more)
    context = torch.multiprocessing.start_processes(_rank, arguments, world, join=False, daemon=True)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not context.join(deadline - time.monotonic()):
            assert time.monotonic() < deadline, f"the ranks hang: no end after {TIMEOUT_S} s"
    finally:
        for process in context.processes:
            process.kill()


def _rank(rank: int, world: int, store: Path, work: Callable[..., None], folder: Path, more: tuple[Any, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # and not whatever the host's name resolves to
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{store}", timeout=MEET, world_size=world, rank=rank)
    assert distributed.get_world_size() == world
    control = distributed.new_group(backend="gloo", timeout=MEET)
    work(Ranks(rank, world, torch.device("cpu"), control), folder, *more)
    distributed.destroy_process_group()


def torchrun(*command: str, processes: int = 2) -> subprocess.Popen[str]:
    """`torchrun COMMAND` on loopback with one thread each, running."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--master_addr=127.0.0.1"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, *launch, f"--master_port={port}", *command],
        env={**environment, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
