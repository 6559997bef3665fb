"""Being told when a module has been imported: once, at the end of its import, its loader left as it was."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

import pytest

from salad.after_import import after_import


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that can be imported and has not been."""
    (tmp_path / "told_of.py").write_text("value = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "told_of", raising=False)
    return "told_of"


def test_it_is_called_once_at_the_end_of_the_import(module: str) -> None:
    values: list[int] = []
    after_import(module, lambda: values.append(sys.modules[module].value))
    assert values == []
    found = importlib.import_module(module)
    assert values == [3]
    assert inspect.getsource(found) == "value = 3\n"
    assert type(found.__spec__.loader).__module__.startswith("_frozen_importlib")
    importlib.reload(found)
    assert values == [3]


def test_two_are_told_both(module: str) -> None:
    told: list[str] = []
    after_import(module, lambda: told.append("first"))
    after_import(module, lambda: told.append("second"))
    importlib.import_module(module)
    assert sorted(told) == ["first", "second"]


def test_of_a_module_that_is_there_it_is_called_at_once() -> None:
    told: list[str] = []
    after_import("sys", lambda: told.append("now"))
    assert told == ["now"]


def test_what_is_not_there_is_still_not_found() -> None:
    after_import("no_such_module_at_all", lambda: None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_module_at_all")
    assert importlib.util.find_spec("no_such_module_at_all") is None
