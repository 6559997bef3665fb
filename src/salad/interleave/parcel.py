"""A step's batches in one tensor, for the way out of the process that made them.

PyTorch gives each tensor that leaves a process a file of shared memory, open on both sides until it is read. A step of
16 windows would be some 160 of them, and a few such steps made ahead pass the usual limit of 1,024 open files. What a
worker can't send for that is lost, and the training waits for it for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from salad.interleave.batch import Batch

ALIGNED = 8  # bytes, of the widest number


@dataclass(frozen=True)
class Parcel:
    """Some batches: their tensors one after another as bytes, and what tells them apart."""

    content: Tensor
    batches: list[tuple[dict[str, tuple[int, torch.dtype, torch.Size]], dict[str, Any]]]
    """Of each its tensors (where it begins, its type, its shape) and what else it has, by their names."""

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> Self:
        """The tensors are copied."""
        described, tensors, end = [], [], 0
        for batch in batches:
            values = {field.name: getattr(batch, field.name) for field in fields(batch)}
            places = {}
            for name, value in values.items():
                if isinstance(value, Tensor):
                    places[name] = (end, value.dtype, value.shape)
                    tensors.append((places[name], value))
                    end += -(-value.nbytes // ALIGNED) * ALIGNED
            described.append((places, {name: value for name, value in values.items() if name not in places}))
        made = cls(torch.empty(end, dtype=torch.uint8), described)
        for place, tensor in tensors:
            made._at(*place).copy_(tensor)
        return made

    def opened(self) -> list[Batch]:
        """The batches; their tensors are views of what was sent."""
        made = []
        for places, rest in self.batches:
            values: dict[str, Any] = {name: self._at(*place) for name, place in places.items()}
            made.append(Batch(**values, **rest))
        return made

    def _at(self, begin: int, kind: torch.dtype, shape: torch.Size) -> Tensor:
        return self.content[begin : begin + kind.itemsize * shape.numel()].view(kind).view(shape)
