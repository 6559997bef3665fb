"""How fast training goes and how long it will: tokens/s, MFU, data wait, memory, ETA, and the line a person reads.

MFU (model FLOPs utilization; Chowdhery et al., 2022, appendix B) is the FLOPs that the model needs for a step, counted
from its sizes and the documents' lengths (model/flops.py), over what the hardware could have done in the same seconds.
What is computed twice to save memory does not count as more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

import torch

WINDOW = 50  # steps that the pace is taken over

# FLOP/s of dense bfloat16 products with float32 accumulation, by words of the name that CUDA gives, the closest first.
# NVIDIA's data sheets print twice as much for structured sparsity; these are the halves, of
# www.nvidia.com/en-us/data-center/NAME and, for GeForce, of the whitepapers on Ada and on Ampere GA102, appendix A
# (FP16 with FP32 accumulate).
PEAK_BF16 = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}


class Step(Protocol):
    """What the meter reads of a step's report; sums over all ranks."""

    @property
    def step(self) -> int:
        """Its number, from 1."""

    @property
    def count(self) -> int:
        """Text positions with a target."""

    @property
    def positions(self) -> int:
        """Positions of the LLM that the student read."""

    @property
    def flops(self) -> float:
        """Model FLOPs; 0 where they are not known."""

    @property
    def seconds(self) -> float:
        """From asking for the batches to the moved weights."""

    @property
    def data_s(self) -> float:
        """Of these, waiting for the batches."""


@dataclass(frozen=True)
class Speed:
    """What the last steps came to; one step's, where there was one."""

    positions_per_s: float
    targets_per_s: float
    mfu_frac: float | None
    data_wait_frac: float
    eta_s: float


class Meter:
    """Reads the reports of the steps this process made, and those alone: what a checkpoint tells of others has no pace.

    The first step, which also allocates and compiles, counts until there is a second. `clock` is a monotonic clock: the
    time between two steps that is not theirs (saving, watching) belongs to what is left as well.
    """

    def __init__(self, steps: int, peak_flops: float | None, clock: Callable[[], float] = time.perf_counter) -> None:
        """For a stage of `steps` steps on devices that together could do `peak_flops` FLOP/s (None: not known)."""
        self.steps = steps
        self.peak_flops = peak_flops
        self.clock = clock
        self.window: deque[Step] = deque(maxlen=WINDOW)
        self._num_read = 0
        self._read_s: float | None = None
        self._aside_s = 0.0

    def read(self, report: Step) -> Speed:
        """The speed with this step, as soon as it is reported."""
        now = self.clock()
        if self._read_s is not None:
            self._aside_s += max(0.0, now - self._read_s - report.seconds)
        self._read_s = now
        self._num_read += 1
        if self._num_read == 2:
            self.window.clear()
        self.window.append(report)
        pace_s = median(step.seconds for step in self.window) + self._aside_s / max(1, self._num_read - 1)
        speed = speed_of(list(self.window), self.peak_flops)
        return Speed(*speed, eta_s=(self.steps - report.step) * pace_s)


def speed_of(steps: list[Step], peak_flops: float | None) -> tuple[float, float, float | None, float]:
    """(positions/s, targets/s, MFU, data wait) over some steps; MFU is None where FLOPs or the peak are not known."""
    seconds = max(sum(step.seconds for step in steps), 1e-9)
    flops = sum(step.flops for step in steps)
    return (
        sum(step.positions for step in steps) / seconds,
        sum(step.count for step in steps) / seconds,
        flops / (seconds * peak_flops) if flops and peak_flops else None,
        sum(step.data_s for step in steps) / seconds,
    )


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of one device: in bfloat16 on a known GPU its data sheet's, otherwise what its matrix products reach."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        known = known_peak(torch.cuda.get_device_name(device))
        if known:
            return known
    return measured_peak(device, dtype)


def known_peak(name: str) -> float | None:
    """Dense bfloat16 FLOP/s of a GPU by its name; None for others."""
    words = set(name.replace("-", " ").split())
    if words & {"Laptop", "MIG", "D"}:  # less of the same name
        return None
    return next((peak for known, peak in PEAK_BF16.items() if set(known.split()) <= words), None)


def measured_peak(device: torch.device, dtype: torch.dtype, rounds: int = 4) -> float:
    """FLOP/s of the fastest of a few square matrix products, with this process's threads; tens of milliseconds.

    Leaves torch's global generators as they are.
    """
    size = 8192 if device.type == "cuda" else 1024 if dtype == torch.float32 else 256  # CPUs may emulate bfloat16
    random = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(size, size, generator=random, device=device).to(dtype) for _ in range(2))
    fastest_s = float("inf")
    for _ in range(rounds + 1):  # the first only warms up
        began = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest_s = min(fastest_s, time.perf_counter() - began)
    return 2 * size**3 / fastest_s


def peak_memory_gib(device: torch.device) -> float | None:
    """The most memory so far: what torch had allocated on a GPU, on a CPU what the process held; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")
    if not status.is_file():  # not Linux
        return None
    held = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(held[0]) / 2**20 if held else None
