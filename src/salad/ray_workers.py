"""`workers.answer_all` past one machine: the same tasks, setups and answers, by the workers of a Ray cluster.

Ray Data keeps the pool: it starts workers on whichever nodes have room, restarts one that died and sends its work
again. What it has no word for is kept by one small actor beside the driver, the desk: the tasks that are drawn and not
yet answered, and how often each has cost a worker its life, so that one that kills every time ends as `Died` and does
not go round for ever. A row of Ray Data costs some 15 ms of the driver's time, more than a small task is worth; so a
row is a group of tasks, as many as take `GROUP_S`.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from salad.errors import SaladError
from salad.ray_cluster import Mark, check_nodes, connected, mark, ray_itself, unfit
from salad.workers import Died, FanOut, answer_all, cannot_begin

Task = TypeVar("Task")
Answer = TypeVar("Answer")

# How often a task is begun before it is given up as one that kills its worker. A node that goes away costs each task
# in hand there one; three such losses in a row by chance are rare, and three dead workers for a bad text are cheap.
ATTEMPTS = 3
# Drawn and not yet answered, for each worker: one in its hands, one at its door, one on the way.
GROUPS_PER_WORKER = 3
GROUP_S = 2.0
MOST_IN_GROUP = 32  # tasks that take no time now may be followed by others that do


def fan_out(name: Literal["processes", "ray"], folder: Path | None = None, gpus_per_worker: float = 0.0) -> FanOut:
    """Who answers tasks: worker processes of this machine, or those of a Ray cluster.

    Args:
        name: the recipe's `engine.fan_out`.
        folder: where the workers write; every node of the cluster must see it. None: they only answer.
        gpus_per_worker: what each worker on Ray holds of a GPU; 0.25 lets four share one.

    Raises:
        AssetError: Ray is not installed.
    """
    if name == "processes":
        return answer_all
    ray_itself()
    return cast(FanOut, partial(answer_all_on_ray, folder=folder, gpus_per_worker=gpus_per_worker))


def answer_all_on_ray(
    tasks: Iterable[Task],
    setup: Callable[[], Callable[[Task], Answer]],
    processes: int,
    *,
    folder: Path | None = None,
    gpus_per_worker: float = 0.0,
) -> Iterator[tuple[Task, Answer | Died]]:
    """Every task with its answer, as they are done, by workers of a Ray cluster; else as `workers.answer_all`.

    The cluster is the one this process is connected to, else that at RAY_ADDRESS, else one that runs on this machine,
    else a Ray that is started here on loopback and ended afterwards. A task whose worker or node is lost is begun again
    elsewhere, `ATTEMPTS` times in all; those it shared a group with are done again. So it must do no harm to do a task
    twice.

    Args:
        tasks: whatever can be pickled; drawn as workers are free, in groups, `GROUPS_PER_WORKER` for each.
        setup: called once in every worker; gives the function that answers. Both must be picklable by name.
        processes: at most so many workers, of one CPU each; fewer while the cluster has no room for them.
        folder: where the workers write, which every node must see.
        gpus_per_worker: what each worker holds of a GPU.

    Raises:
        AssetError: Ray is not installed, no cluster answers at RAY_ADDRESS, no node has the GPU a worker is to hold; or
            a node has no salad, or another version of it, or does not see `folder`.
        SaladError: raised by `setup` or by the function in a worker; any other exception in the function is printed
            here with its traceback, and the task has `Died` for an answer.
        WorkerError: a worker could not be set up, so that no task can be blamed.
    """
    queue = enumerate(tasks)
    room = GROUPS_PER_WORKER * processes
    size = 1
    groups = iter(lambda: list(islice(queue, size)), [])
    drawn = list(islice(groups, room))
    if not drawn:
        return
    with connected(processes), mark(folder) as needed:
        check_nodes(needed, gpus_per_worker)
        desk = _open_desk()
        waiting: dict[int, Task] = {}
        given = answered = 0
        with closing(_answered(desk, setup, needed, processes, gpus_per_worker)) as results:
            while drawn or waiting:
                given += len(drawn)
                waiting.update(task for group in drawn for task in group)
                pickled = [[(number, _pickled(task)) for number, task in group] for group in drawn]
                desk.give.remote(pickled, given - answered < room)
                result = next(results)
                answered += 1
                desk.drop.remote(result.group)
                size = result.next_size(size)
                drawn = list(islice(groups, room - (given - answered)))
                for number, answer in result.answers:
                    yield waiting.pop(number), _told(answer)


@dataclass(frozen=True)
class _Raised:
    """An exception that is no answer; on one machine it ends the worker's process."""

    traceback: str
    exit_code: int


def _told(answer: bytes) -> Any:
    """The answer, or Died; raises it if it is a SaladError."""
    value = pickle.loads(answer)
    if isinstance(value, SaladError):
        raise value
    if isinstance(value, _Raised):
        print(value.traceback, end="", file=sys.stderr)
        return Died(value.exit_code)
    return value


@dataclass(frozen=True)
class _Result:
    """What a worker hands in: (number, pickled answer) of a group's tasks, and how long they took it."""

    group: int
    answers: list[tuple[int, bytes]]
    seconds: float

    def next_size(self, size: int) -> int:
        """How many tasks to draw for a group, after `size`: as many as take `GROUP_S`, found step by step."""
        fitting = GROUP_S * len(self.answers) / max(self.seconds, 1e-3)
        return max(1, min(int(fitting), 2 * size, MOST_IN_GROUP))


class _Desk:
    """An actor: the tasks that are drawn and not yet answered, in groups, and how often each ended its worker."""

    def __init__(self) -> None:
        self._groups: dict[int, list[tuple[int, bytes]]] = {}
        self._in_hand: dict[int, int] = {}
        self._deaths: dict[int, int] = {}
        self._given = 0
        self._last = False
        self._news = asyncio.Condition()

    async def give(self, groups: list[list[tuple[int, bytes]]], last: bool) -> None:
        """Take more groups of (number, task), counted on from those before; `last`: there will be no others."""
        async with self._news:
            self._groups.update(enumerate(groups, start=self._given))
            self._given += len(groups)
            self._last = last
            self._news.notify_all()

    async def has(self, group: int) -> bool:
        """Whether there is, or was, such a group; waits until that is known."""
        async with self._news:
            await self._news.wait_for(lambda: group < self._given or self._last)
        return group < self._given

    async def begin(self, group: int) -> list[tuple[int, bytes | None]]:
        """The group's tasks for a worker; None for one that is given up.

        Had the group been begun before, its worker is lost, and with it the task that it had in hand has one life less.
        """
        if group in self._in_hand:
            lost = self._in_hand.pop(group)
            self._deaths[lost] = self._deaths.get(lost, 0) + 1
        tasks = self._groups.get(group, [])
        return [(number, task if self._deaths.get(number, 0) < ATTEMPTS else None) for number, task in tasks]

    async def take_in_hand(self, group: int, number: int) -> None:
        """A worker is about to do a task."""
        self._in_hand[group] = number

    async def drop(self, group: int) -> None:
        """The driver has the answers."""
        for number, _ in self._groups.pop(group, []):
            self._deaths.pop(number, None)
        self._in_hand.pop(group, None)


def _open_desk() -> Any:
    """A desk on the driver's own node; it ends when the driver lets go of it."""
    ray = ray_itself()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(_Desk).remote()


class _Worker:
    """What Ray Data calls in each of its actors."""

    def __init__(self, desk: Any, pickled_setup: bytes, needed: Mark) -> None:
        self._desk, self._pickled_setup, self._needed = desk, pickled_setup, needed
        self._answer_to: Callable[[Any], Any] | None = None

    def __call__(self, batch: Any) -> Any:
        """A table of one group's number → a table of one pickled result."""
        import pyarrow

        get, group = ray_itself().get, batch["group"][0].as_py()
        began = time.monotonic()
        answers = []
        for number, task in get(self._desk.begin.remote(group)):
            if task is None:
                answers.append((number, _pickled(Died(None))))
                continue
            get(self._desk.take_in_hand.remote(group, number))  # waits: this process may not live to send it later
            answers.append((number, self._answer(task)))
        result = pickle.dumps(_Result(group, answers, time.monotonic() - began))
        return pyarrow.table({"result": pyarrow.array([result], pyarrow.large_binary())})

    def _answer(self, task: bytes) -> bytes:
        try:
            self._answer_to = self._answer_to or self._set_up()
            return _pickled(self._answer_to(pickle.loads(task)))
        except SaladError as error:
            return _pickled(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001  the driver prints it, and the task has died
            self._answer_to = None  # the next task finds a new worker, as far as can be
            code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
            return _pickled(_Raised(traceback.format_exc(), code))

    def _set_up(self) -> Callable[[Any], Any]:
        missing = self._needed.missing_here()  # this node may have joined after the others were asked
        if missing:
            raise unfit(os.uname().nodename, missing)
        try:
            answer_to: Callable[[Any], Any] = pickle.loads(self._pickled_setup)()
        except SaladError:
            raise
        except Exception as error:
            traceback.print_exc()
            raise cannot_begin(f"on {os.uname().nodename}: {type(error).__name__}: {error}") from error
        return answer_to


def _answered(
    desk: Any, setup: Callable[[], Callable[[Any], Any]], needed: Mark, processes: int, gpus_per_worker: float
) -> Generator[_Result]:
    """The desk's groups, answered by Ray Data; its workers end with this generator."""
    from ray.data import ActorPoolStrategy, DataContext, read_datasource

    context = DataContext.get_current().copy()
    context.target_max_block_size = 1  # byte: every group is a block, and so goes out and comes back by itself
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # The pool may shrink to one: a worker whose node is gone gets the room of one that has nothing left to do.
    pool = ActorPoolStrategy(min_size=1, max_size=processes, initial_size=processes, max_tasks_in_flight_per_actor=2)
    with DataContext.current(context):
        groups = read_datasource(_source(desk), override_num_blocks=1, num_cpus=0)
        answered = groups.map_batches(
            _Worker,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_args=(desk, _pickled(setup), needed),
            compute=pool,
            num_cpus=1,
            num_gpus=gpus_per_worker,
        )
        batches = iter(answered.iter_batches(batch_size=None, batch_format="pyarrow"))
    with closing(cast(Generator[Any], batches)):
        for batch in batches:
            yield pickle.loads(batch["result"][0].as_py())


def _pickled(value: Any) -> bytes:
    """As plain pickle, and what a script defines itself besides, which a worker could not import by name."""
    from ray import cloudpickle

    pickled: bytes = cloudpickle.dumps(value)
    return pickled


def _source(desk: Any) -> Any:
    """The numbers of the desk's groups for Ray Data to read, one at a time, as they are drawn."""
    import pyarrow
    import ray
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    def read() -> Iterator[Any]:
        for group in count():
            if not ray.get(desk.has.remote(group)):
                return
            yield pyarrow.table({"group": [group]})

    class Groups(Datasource):
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
            return [ReadTask(read, BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None))]

    return Groups()
