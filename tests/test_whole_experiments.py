"""Every experiment by its own command at toy size, in one lab: `make experiments-smoke` does the same.

Second tier (`slow`): some minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from experiments import CLAIMS

pytestmark = [pytest.mark.slow, pytest.mark.assets, pytest.mark.timeout(3000)]
REPO = Path(__file__).resolve().parents[1]
VERDICTS = ("reproduced", "not reproduced", "can't tell at this scale")


def test_every_experiment_comes_to_a_verdict(tmp_path: Path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for name in CLAIMS:
        words = [sys.executable, "-m", f"experiments.{name}", "--toy", "--lab", str(tmp_path)]
        done = subprocess.run(words, cwd=REPO, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        out = tmp_path / "claims" / name
        found = json.loads((out / "results.json").read_text())
        assert found["verdict"] in VERDICTS
        assert found["low"] <= found["effect"] <= found["high"] or name == "explained_accuracy"
        assert found["seeds"] == [0]
        assert found["cost"]["arms"] >= 2
        assert found["cost"]["cpu_h"] > 0
        assert found["command"].startswith(f"python -m experiments.{name}")
        assert (out / "plot.svg").read_text().count("<path") > 3
    arms = [json.loads(path.read_text()) for path in (tmp_path / "arms").glob("*/arm.json")]
    folders = len(list((tmp_path / "arms").iterdir()))
    assert len(arms) == folders == 23, "claims share arms, and each is made once"

    again = subprocess.run(words, cwd=REPO, env=environment, capture_output=True, text=True)
    assert again.returncode == 0
    assert "training" not in again.stdout, "what is there is not made again"
