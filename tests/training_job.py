"""A small training that torchrun starts, for tests/test_torchrun.py: `training_job.py FOLDER PARALLEL RANK_THAT_DIES`.

That rank kills itself after the step whose number is CUT, unless the training goes on from there.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from salad.ranks import started_ranks
from test_many_ranks import CUT, begin

if __name__ == "__main__":
    folder, parallel, dies = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(1)
    with started_ranks("cpu") as ranks:
        assert ranks.world == 2
        curve = []
        for report in begin("full", parallel, folder, ranks)[2]:
            curve.append(report)
            if report["step"] == CUT and not report["restored"] and ranks.rank == dies:
                os.kill(os.getpid(), signal.SIGKILL)
        if ranks.is_main:
            (folder / "curve.json").write_text(json.dumps(curve))
