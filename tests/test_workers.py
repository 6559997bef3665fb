"""Worker processes: a task that kills is told from a worker that never began."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import toy_tasks
from salad.errors import WorkerError
from salad.workers import Died, answer_all

SCRIPT = """
from toy_tasks import squarer
from salad.workers import answer_all

print(list(answer_all([1, 2, 3], squarer, 2)))
"""
BAR = """
from toy_tasks import squarer_with_a_bar
from salad.workers import answer_all

if __name__ == "__main__":
    print(sorted(answer for _, answer in answer_all([1, 2, 3], squarer_with_a_bar, 2)))
"""


def test_a_task_that_kills_takes_no_other_with_it(tmp_path: Path) -> None:
    answers = dict(answer_all([1, "die", 2, "exit", 3], toy_tasks.temperamental, 2))
    assert answers == {1: 1, "die": Died(-9), 2: 4, "exit": Died(7), 3: 9}


@pytest.mark.parametrize(("setup", "code"), [(toy_tasks.unfit, 1), (toy_tasks.gone, -9)])
def test_no_task_is_blamed_for_a_worker_that_could_not_begin(setup: Callable[[], Any], code: int) -> None:
    with pytest.raises(WorkerError, match=rf"could not begin \(exit code {code}\).*printed above"):
        list(answer_all([1, 2, 3], setup, 2))


def run(script: Path, text: str) -> subprocess.CompletedProcess[str]:
    script.write_text(text)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    return subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=120)


def test_a_worker_that_drew_a_bar_leaves_nothing_behind(tmp_path: Path) -> None:
    done = run(tmp_path / "script.py", BAR)
    assert (done.returncode, done.stdout) == (0, "[1, 4, 9]\n")
    assert "leaked" not in done.stderr


def test_a_script_without_a_guard_is_told_of_it(tmp_path: Path) -> None:
    done = run(tmp_path / "script.py", SCRIPT)
    assert done.returncode == 1
    assert "WorkerError: a worker process could not begin (exit code 1)" in done.stderr
    assert "if __name__ == '__main__':" in done.stderr
