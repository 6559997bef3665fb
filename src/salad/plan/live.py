"""How many bytes a computation holds at its peak, without doing it: fake tensors have sizes and no storage."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of every tensor made while it is on, from its making until its last reference goes.

    `live` now, `peak` at the most. Views of a tensor count once; what a kernel takes for itself while it runs is not
    seen. The same way as torch.distributed's MemTracker, which needs hooks on modules and an optimizer.
    """

    def __init__(self, before: Iterable[Tensor] = ()) -> None:
        """`before`: tensors that are there already and are not counted when a view of them is made."""
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known = WeakIdKeyDictionary(ref_type=weakref.ref)
        for tensor in before:
            self._known[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what was asked, and count what came of it."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return made

    def _count(self, storage: UntypedStorage) -> None:
        if storage in self._known:
            return
        num_bytes = storage.nbytes()
        self._known[storage] = True
        weakref.finalize(storage, self._gone, num_bytes).atexit = False
        self.live += num_bytes
        self.peak = max(self.peak, self.live)

    def _gone(self, num_bytes: int) -> None:
        self.live -= num_bytes


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, without those of a parameter that stands in two places counted twice."""
    return sum({id(tensor): tensor.numel() * tensor.element_size() for tensor in tensors}.values())
