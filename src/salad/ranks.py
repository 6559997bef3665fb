"""Which of how many processes this is, and what they do together. torchrun starts them; alone, nothing is exchanged.

    torchrun --nproc_per_node 8 -m salad run RECIPE

Tensors travel by NCCL between GPUs and by gloo between CPUs. What is agreed on beside them (which step comes next, that
one of them was told to stop) goes over a gloo group of its own that waits as long as it takes: one rank may encode for
hours while the others stand by.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from salad.errors import RecipeError

PATIENCE = timedelta(days=14)  # of a rank that waits for another's work
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One process of a run: its number from 0, how many there are, where its tensors live, how it agrees with others.

    Every method but `is_main` is collective: all ranks call it, in the same order.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    control: distributed.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the one that prints and writes what is written once."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until all ranks have come here."""
        if self.world > 1:
            distributed.barrier(group=self.control)

    def total(self, values: Tensor) -> Tensor:
        """The sum over ranks, on the CPU in float64, the same bits on all of them."""
        summed = values.detach().to("cpu", torch.float64)
        if self.world > 1:
            distributed.all_reduce(summed, group=self.control)
        return summed

    def any(self, flag: bool) -> bool:
        """Whether it is so on at least one rank."""
        return bool(self.total(torch.tensor([float(flag)])) > 0)

    def gather(self, value: T) -> list[T]:
        """What each rank has, in order of rank, on all of them."""
        if self.world == 1:
            return [value]
        found: list[T | None] = [None] * self.world
        distributed.all_gather_object(found, value, group=self.control)
        return found  # type: ignore[return-value]  # all_gather_object has filled it

    def from_main(self, value: T) -> T:
        """What the main rank has, on all of them."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, group=self.control)
        return box[0]


ALONE = Ranks()


def device_of(name: str, local_rank: int = 0) -> torch.device:
    """The device by its recipe name: auto (a GPU where there is one), cpu, cuda.

    Raises:
        RecipeError: a GPU is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise RecipeError("engine.device=cuda, and torch finds no GPU here; set engine.device=auto or cpu.")
    if name == "cpu" or not available:
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise RecipeError(
            f"torchrun started process {local_rank + 1} of this machine, which has {torch.cuda.device_count()} GPUs; "
            "start at most as many (--nproc_per_node)."
        )
    return torch.device("cuda", local_rank)


@contextmanager
def started_ranks(device: str = "auto") -> Iterator[Ranks]:
    """This process among those torchrun started (by its environment variables), or alone.

    Raises:
        RecipeError: see `device_of`.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    place = device_of(device, local_rank)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world == 1:
        yield Ranks(device=place)
        return
    distributed.init_process_group("cuda:nccl,cpu:gloo" if place.type == "cuda" else "gloo")
    try:
        if distributed.get_world_size() != world:
            raise RuntimeError(f"{distributed.get_world_size()} ranks met, torchrun started {world}.")
        control = distributed.new_group(backend="gloo", timeout=PATIENCE)
        yield Ranks(distributed.get_rank(), world, place, control)
    finally:
        distributed.destroy_process_group()
