"""Variants side by side: a process each, rounds interleaved, so that a busy machine slows all of them alike.

    def packed(seed: int) -> Round:          # runs in the variant's own process: load, prepare ...
        ...
        def one_round(index: int) -> dict[str, float] | None:
            ...                              # ... what is timed; may return numbers, such as {"tokens": 2048},
                                             # and its own "seconds" where not all of it counts
        return one_round

    results = run_variants({"packed": partial(packed, 0), "padded": partial(padded, 0)}, rounds=5)
    show([row(name, results[name], results["padded"], "padded") for name in results], as_json)

A variant is a picklable callable (a function at the top of the script, or functools.partial of one). The script that
calls `run_variants` does so under `if __name__ == "__main__":`, because each process imports it anew. Peak memory is
VmHWM of the variant's process while its rounds run: libraries, data and model are in it, what loading took is not.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

ENDING_S = 3.0
Round = Callable[[int], Mapping[str, float] | None]
Variant = Callable[[], Round]


@dataclass(frozen=True)
class Result:
    """What one variant measured: `rounds` hold `seconds`, `cpu_s` and its own numbers; memory in MiB.

    `cpu_s` is the process's own time on all cores (without its children's): beside a busy neighbour it says more.
    `base_mib` is what stands in memory before the first round: libraries, data and model alone.
    """

    rounds: tuple[Mapping[str, float], ...]
    peak_mib: float
    base_mib: float

    def median(self, key: str = "seconds") -> float:
        """The median of a number over the rounds."""
        return statistics.median(entry[key] for entry in self.rounds)


def run_variants(
    variants: Mapping[str, Variant], rounds: int, threads: int = 1, timeout_s: float = 600.0
) -> dict[str, Result]:
    """Run every variant once unmeasured and then `rounds` times, in turn; the order turns round each time.

    Args:
        variants: name -> what makes ready, in its own process, and returns the function of one round.
        rounds: measured rounds of each.
        threads: OMP_NUM_THREADS of each process.
        timeout_s: longest that a set-up or a round may take.

    Raises:
        RuntimeError: a variant failed, died or took too long; all processes are ended.
    """
    os.environ |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    context = multiprocessing.get_context("spawn")
    workers: dict[str, tuple[SpawnProcess, Connection]] = {}
    try:
        base: dict[str, float] = {}
        for name, variant in variants.items():
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(variant, theirs))
            process.start()
            theirs.close()
            workers[name] = process, ours
            base[name] = _answer(name, *workers[name], timeout_s)["peak_mib"]  # one set-up after another
        measured: dict[str, list[Mapping[str, float]]] = {name: [] for name in variants}
        peak: dict[str, float] = {}
        for index in range(-1, rounds):
            for name in list(variants)[:: -1 if index % 2 else 1]:
                workers[name][1].send(index)
                answer = _answer(name, *workers[name], timeout_s)
                peak[name] = answer.pop("peak_mib")
                if index >= 0:
                    measured[name].append(answer)
        return {name: Result(tuple(measured[name]), peak[name], base[name]) for name in variants}
    finally:
        for process, connection in workers.values():
            connection.close()  # a child that waits for its next round ends by itself
            process.join(timeout=ENDING_S)
            process.kill()
            process.join()


def ratio(result: Result, peer: Result, key: str = "seconds") -> float:
    """How many times as fast as its peer: the median over the rounds of peer's / own, each within its round."""
    pairs = zip(result.rounds, peer.rounds, strict=True)
    return statistics.median(other[key] / own[key] for own, other in pairs)


def row(name: str, result: Result, peer: Result, peer_name: str, **numbers: Any) -> dict[str, Any]:
    """One line of a benchmark's output."""
    return {
        "variant": name,
        "ratio": round(ratio(result, peer), 3),
        "peer": peer_name,
        "peak_mib": round(result.peak_mib, 1),
        "seconds": round(result.median(), 4),
        **numbers,
    }


def show(rows: Sequence[Mapping[str, Any]], as_json: bool, notes: Iterable[str] = ()) -> None:
    """Print the rows as a JSON list, or as a table with notes (seed, sizes, machine) below."""
    if as_json:
        print(json.dumps(list(rows), indent=1))
        return
    columns = list(dict.fromkeys(key for entry in rows for key in entry))
    cells = [columns, *([_cell(entry.get(column)) for column in columns] for entry in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for note in notes:
        print(note)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _serve(variant: Variant, connection: Connection) -> None:
    """The child's whole life: set up, then a round for every index that comes."""
    try:
        one_round = variant()
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM counts from here
        connection.send({"peak_mib": _peak_mib()})
        while True:
            index = connection.recv()
            started, started_cpu = time.perf_counter(), time.process_time()
            numbers = one_round(index)
            taken = {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - started_cpu}
            connection.send({**taken, **(numbers or {}), "peak_mib": _peak_mib()})
    except EOFError:  # the parent is done
        return
    except BaseException:  # noqa: BLE001  # whatever it was, the parent says it with the variant's name
        connection.send(traceback.format_exc())


def _answer(name: str, process: SpawnProcess, connection: Connection, timeout_s: float) -> dict[str, float]:
    if not connection.poll(timeout_s):
        raise RuntimeError(f"variant {name!r} took longer than {timeout_s:.0f} s.")
    try:
        answer = connection.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"variant {name!r} died with exit code {process.exitcode}.") from None
    if isinstance(answer, str):
        raise RuntimeError(f"variant {name!r} failed:\n{answer}")
    return dict(answer)


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
