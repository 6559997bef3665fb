"""What it costs to have a task answered by a worker of a Ray cluster, beside one of this machine's own processes.

    python benchmarks/ray_workers.py [--tasks 200] [--processes 2] [--json]

The tasks do nothing, so all that is measured is the exchange. `first_s` is the time to the first answer (processes
start, and with Ray its pool); `task_ms` what each task takes after it; `driver_cpu_ms` how much of a core's time this
side spends on each, which bounds how many tasks a second one driver hands out, to however many workers. The Ray is one
of this machine, on loopback; starting it is not counted.
"""

from __future__ import annotations

import argparse
import atexit
import time
from contextlib import ExitStack
from functools import partial

from side_by_side import Round, row, run_variants, show

from salad.ray_cluster import connected
from salad.ray_workers import fan_out

SETUP = partial(partial, abs)
"""Gives a worker a function that does next to nothing, and that every process can find by its name."""


def exchange(name: str, tasks: int, processes: int) -> Round:
    """Rounds of `tasks` empty tasks, by those workers."""
    if name == "ray":
        cluster = ExitStack()
        cluster.enter_context(connected(processes))
        atexit.register(cluster.close)
    answer_all = fan_out("ray" if name == "ray" else "processes")

    def one_round(_: int) -> dict[str, float]:
        began = time.perf_counter()
        answers = answer_all(range(tasks), SETUP, processes)
        next(answers)
        first, used = time.perf_counter(), time.process_time()
        assert sum(1 for _ in answers) == tasks - 1
        seconds, cpu_s = time.perf_counter() - first, time.process_time() - used
        each = 1000 / (tasks - 1)
        return {"seconds": seconds, "first_s": first - began, "task_ms": each * seconds, "driver_cpu_ms": each * cpu_s}

    return one_round


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    variants = {name: partial(exchange, name, given.tasks, given.processes) for name in ("processes", "ray")}
    results = run_variants(variants, given.rounds)
    rows = []
    for name, result in results.items():
        numbers = {key: round(result.median(key), 3) for key in ("first_s", "task_ms", "driver_cpu_ms")}
        rows.append({**row(name, result, results["processes"], "processes"), **numbers, "tasks": given.tasks})
    show(rows, given.json)


if __name__ == "__main__":
    main()
