"""Tasks for workers of any kind: what they answer, how they fail, and what they leave behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from salad.errors import DataError


def squarer() -> Callable[[int], int]:
    return lambda number: number * number


def squarer_with_a_bar() -> Callable[[int], int]:
    """As models do while they are loaded."""
    for _ in tqdm(range(2)):
        pass
    return squarer()


def unfit() -> Callable[[int], int]:
    """Can't be set up."""
    raise ZeroDivisionError("of this test's setup")


def gone() -> Callable[[int], int]:
    """Ends while it is set up, as a process does that runs out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def temperamental() -> Callable[[Any], Any]:
    """Answers a number with its square; a word is an order."""

    def answer(task: Any) -> Any:
        if task == "raise":
            raise ZeroDivisionError("of this test")
        if task == "refuse":
            raise DataError("text 7 of this test holds no words; give it some.")
        if task == "exit":
            sys.exit(7)
        if task == "die":
            if folder := os.environ.get("TOY_FOLDER"):
                Path(folder, f"died-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "big":
            return bytes(3_000_000)
        return task * task

    return answer


def recorder(folder: Path) -> Callable[[int], int]:
    """Writes into `folder` which process did a task; the answer is the process's number."""

    def answer(task: int) -> int:
        time.sleep(0.2)
        Path(folder, f"{task}-{os.getpid()}").touch()
        return os.getpid()

    return answer
