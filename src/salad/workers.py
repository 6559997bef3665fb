"""Worker processes that answer tasks one at a time, over one pipe each.

A worker whose parent is gone, even killed, reads the end of its pipe and stops; a worker that dies takes one task with
it. multiprocessing's own pool waits for ever on a dead worker, and concurrent.futures gives up on all tasks.
Nothing heavy is imported here: every worker would pay for it.
"""

from __future__ import annotations

import multiprocessing
import pickle
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from salad.errors import SaladError, WorkerError

Task = TypeVar("Task")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Died:
    """A worker's process ended while it had the task."""

    exit_code: int | None


@dataclass(frozen=True)
class _Ready:
    """A worker's first word: it is set up."""


class FanOut(Protocol):
    """Whoever answers tasks with many workers: `answer_all` on this machine, `answer_all_on_ray` on a cluster."""

    def __call__(
        self, tasks: Iterable[Task], setup: Callable[[], Callable[[Task], Answer]], processes: int
    ) -> Iterator[tuple[Task, Answer | Died]]:
        """Every task with its answer, as they are done."""


def answer_all(
    tasks: Iterable[Task], setup: Callable[[], Callable[[Task], Answer]], processes: int
) -> Iterator[tuple[Task, Answer | Died]]:
    """Every task with its answer, as they are done; tasks are drawn as workers are free.

    Args:
        tasks: whatever can be pickled.
        setup: called once in every worker; gives the function that answers. Both must be picklable by name.
        processes: how many workers; they end with this generator, whichever way it ends.

    Raises:
        SaladError: raised by `setup` or by the function in a worker; any other exception in the function ends the
            worker, which prints its traceback, and the task has `Died` for an answer.
        WorkerError: a worker ended before it was set up, so that no task can be blamed.
    """
    context = multiprocessing.get_context("spawn")  # onnxruntime's and CTranslate2's threads do not survive a fork
    queue = iter(tasks)
    idle: list[_Worker] = []
    busy: dict[object, tuple[_Worker, Task]] = {}
    try:
        while True:
            for task in islice(queue, processes - len(busy)):
                worker = idle.pop() if idle else _Worker(context, setup)
                worker.give(task)
                busy[worker.pipe] = (worker, task)
            if not busy:
                return
            for pipe in wait([worker.pipe for worker, _ in busy.values()]):
                worker, task = busy[pipe]
                answer = worker.take()
                if isinstance(answer, _Ready):
                    continue
                del busy[pipe]
                if isinstance(answer, Died):
                    worker.end()
                    if not worker.ready:
                        raise cannot_begin(f"exit code {answer.exit_code}")
                else:
                    idle.append(worker)
                if isinstance(answer, SaladError):
                    raise answer
                yield task, answer
    finally:
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.end()


def gpu_of_worker(num_gpus: int) -> int | None:
    """Which of a machine's GPUs this process takes as a worker of `answer_all`; None if it is none.

    They are dealt out in turn. A worker of a Ray cluster sees those alone that it was given.
    """
    number = re.fullmatch(r"SpawnProcess-(\d+)", multiprocessing.current_process().name)
    return (int(number[1]) - 1) % num_gpus if number and num_gpus else None


class _Worker:
    """A process that answers one task at a time."""

    def __init__(self, context: SpawnContext, setup: Callable[[], Callable[[Any], Any]]) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, setup), daemon=True)
        self.process.start()
        self.ready = False
        theirs.close()  # so that the worker's death is the end of this pipe

    def give(self, task: Any) -> None:
        with suppress(OSError):  # it died while idle: `take` finds the end of the pipe and says so
            self.pipe.send(task)

    def take(self) -> Any:
        """What is waiting: an answer, or that there is none and never will be, or first that it is set up."""
        try:
            told = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return Died(self.process.exitcode)
        self.ready = True
        return told

    def end(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def _serve(pipe: Connection, setup: Callable[[], Callable[[Any], Any]]) -> None:
    """The worker's life: set up, then answer every task until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a process that is terminated would leave behind
    answer_to: Callable[[Any], Any] | None = None
    while True:
        try:
            pickled = pipe.recv_bytes()
        except (EOFError, OSError):  # the parent is gone, or wants no more
            return
        try:
            if answer_to is None:
                answer_to = setup()
                with suppress(OSError):  # the parent is gone, as the next `recv_bytes` finds
                    pipe.send(_Ready())
            answer = answer_to(pickle.loads(pickled))  # unpickled here: whatever it ends, it is the task that did
        except SaladError as error:
            answer = error
        with suppress(OSError):
            pipe.send(answer)


def cannot_begin(why: str) -> WorkerError:
    """What to tell the user of a worker that never came to its first task."""
    return WorkerError(
        f"a worker process could not begin ({why}); what it printed above says more. A script that calls salad begins "
        "its work under `if __name__ == '__main__':`; where memory is short, fewer processes help."
    )
