"""To be told when a module has been imported, without importing it: PEP 302's finders and loaders, and nothing else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def after_import(name: str, do: Callable[[], object]) -> None:
    """Call `do` once the module `name` has been imported: now, if it has been, else at the end of its first import."""
    if name in sys.modules:
        do()
    else:
        sys.meta_path.insert(0, _Finder(name, do))


class _Finder(MetaPathFinder):
    """Stands first until the module is looked for; the other finders then say where it is."""

    def __init__(self, name: str, do: Callable[[], object]) -> None:
        self._name = name
        self._do = do

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        with contextlib.suppress(ValueError):  # two threads may look for it
            sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader, self._do)
        return spec


class _Then(Loader):
    """A module's own loader, and then the call."""

    def __init__(self, loader: Loader, do: Callable[[], object]) -> None:
        self._loader = loader
        self._do = do

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if (spec := module.__spec__) is not None:
            spec.loader = self._loader  # so that inspect finds its source as ever
        self._loader.exec_module(module)
        self._do()
