"""One core for each worker, so that workers neither share one nor wander and find cold caches.

Which cores are taken is kept by locked files in the machine's temporary folder: the lock is the process's and ends with
it, whichever way it ends, and other runs of the same user on the machine are seen, too.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path


def take_core() -> int | None:
    """Pin this process, and what it starts, to an allowed core that no other worker holds; None: none is left.

    It keeps the core until it ends. Two threads of one physical core are taken last. Without a free core, or where a
    process can't be pinned (macOS), it runs wherever the system puts it.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = os.sched_getaffinity(0)
    if len(allowed) == 1:
        return None
    folder = Path(tempfile.gettempdir()) / f"salad-cores-{os.getuid()}"
    try:
        folder.mkdir(exist_ok=True)
        for core in sorted(allowed, key=lambda core: (_number_in_its_core(core), core)):
            lock = os.open(folder / str(core), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            os.sched_setaffinity(0, {core})  # the lock stays open: it is held until this process ends
            return core
    except OSError:  # no temporary folder that files can be locked in, or pinning is not permitted here
        return None
    return None


def _number_in_its_core(core: int) -> int:
    """0 for the first hardware thread of a physical core, 1 for its second; 0 where the system does not say."""
    siblings = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    if not siblings.is_file():
        return 0
    numbers = siblings.read_text().strip().replace("-", ",").split(",")
    return sum(int(number) < core for number in numbers)
