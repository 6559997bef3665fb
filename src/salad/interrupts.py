"""SIGTERM and SIGINT (Ctrl-C): asked for between two steps of training, where everything can be saved.

    with Interruptible() as interrupted:
        for step in …:
            …
            if interrupted():           # the number of the signal
                save, and raise stopped_by(interrupted(), step, steps)

Nothing heavy is imported here: the command line imports it before it knows what it will do.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from salad.errors import InterruptedRunError

ASKED = (signal.SIGTERM, signal.SIGINT)
TERMINATED = 128 + signal.SIGTERM
# Ctrl-C reaches all processes of a terminal, and then torchrun passes it on to its workers: the same wish twice.
ECHO_S = 2.0


class Interruptible:
    """Within it, SIGTERM and SIGINT are only written down; called, it gives the first one's number, or None.

    A second signal goes through at once, as it would have before; one that comes within `ECHO_S` of the first is its
    echo. One that came too late to be answered goes through at the end of the block. Where signals can't be caught (any
    thread but the main one) nothing is caught. A forked child leaves SIGINT to its parent, and SIGTERM ends it.
    """

    def __init__(self, quiet: bool = False) -> None:
        """`quiet`: don't say on stderr that the signal was heard (of many ranks, one says it)."""
        self.quiet = quiet
        self._number: int | None = None
        self._heard_s = 0.0
        self._process = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> int | None:
        """The number of the signal that asked to stop."""
        return self._number

    def __enter__(self) -> Self:
        """Begin to listen."""
        if threading.current_thread() is threading.main_thread():
            for number in ASKED:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # a background job's Ctrl-C stays ignored
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back to whom they belonged, and with them one that nobody answered."""
        if os.getpid() != self._process:
            return
        self._give_back()
        if self._number is not None and (error is None or isinstance(error, GeneratorExit)):
            os.kill(os.getpid(), self._number)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            if number == signal.SIGTERM:
                _end_at_once(number)
        elif self._number is None:
            self._number, self._heard_s = number, time.monotonic()
            if not self.quiet:  # not print(): a signal may come in the middle of another print
                name = signal.Signals(number).name
                os.write(2, f"\n{name}: this step is finished and saved first; once more stops at once.\n".encode())
        elif time.monotonic() - self._heard_s > ECHO_S:
            self._give_back()
            os.kill(os.getpid(), number)

    def _give_back(self) -> None:
        while self._before:
            number, before = self._before.popitem()
            signal.signal(number, before)


def stopped_by(number: int, step: int, steps: int) -> InterruptedRunError:
    """What the training loop raises once it has saved."""
    name = signal.Signals(number).name
    return InterruptedRunError(
        f"stopped by {name} after step {step} of {steps}; everything up to there is saved: "
        "run the same command to go on.",
        number,
    )


def end_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does: what is open is closed, workers are sent home, exit code 143."""

    def end(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked child
            _end_at_once(number)
        sys.exit(TERMINATED)

    process = os.getpid()
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)


def leave_signals_to_parent(_worker: int = 0) -> None:
    """For a loader's workers: they live as long as the process that asked for them wants them, also after Ctrl-C."""
    for number in ASKED:
        signal.signal(number, signal.SIG_IGN)


def _end_at_once(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
