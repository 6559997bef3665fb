"""For tests/test_torchrun.py: the main rank works alone for as long as it is let, and the other one waits for it."""

import sys
import time
from pathlib import Path

from salad.interrupts import end_on_sigterm
from salad.ranks import started_ranks
from salad.recipe import Recipe
from salad.run import Run, Step, execute


def work(run, progress):
    run.path("begun").touch()
    time.sleep(600)
    return {}


if __name__ == "__main__":
    end_on_sigterm()
    with started_ranks("cpu") as ranks:
        steps = (Step("alone", "", (), (), (), 1, work),)
        run = Run(Recipe(name="waiting"), Path(sys.argv[1]), ranks)
        execute(run, steps, None, lambda *_: lambda *_: None, lambda *_: None)
