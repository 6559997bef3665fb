"""Under torchrun: a rank that is killed ends the others or is started again with them, and errors are said once."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from processes import torchrun
from salad.cli.runs import crowded
from salad.ranks import ALONE
from test_many_ranks import CUT, STEPS, alike, training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ENDS_S = 60  # torchrun looks every tenth of a second, and gives the others 30 s to end


def ended(process, timeout_s=400):
    """(exit code, stdout, stderr) of a torchrun; killed with its workers if it hangs."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    finally:
        if process.poll() is None:
            process.terminate()  # it passes that on to its workers
    return process.returncode, out, err


# --- a rank that is killed ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    curve = training("full", "ddp", tmp_path_factory.mktemp("alone"), ALONE)[2]
    torch.set_num_threads(before)
    return curve


@pytest.mark.kill
@pytest.mark.parametrize(("parallel", "dies"), [("ddp", 0), ("fsdp", 1)])
def test_a_killed_rank_ends_the_others_and_the_next_start_goes_on(tmp_path, repo, alone, parallel, dies):
    job = (str(repo / "tests" / "training_job.py"), str(tmp_path), parallel, str(dies))
    process = torchrun(*job)
    while not list(tmp_path.glob(f"step-{CUT:08d}")) and process.poll() is None:
        time.sleep(0.05)
    began = time.monotonic()
    status, _, err = ended(process)
    assert status != 0, err[-2000:]
    assert time.monotonic() - began < ENDS_S
    assert "Signal 9 (SIGKILL)" in err
    assert not (tmp_path / "curve.json").exists()
    status, _, err = ended(torchrun(*job))
    assert status == 0, err[-2000:]
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert [row["restored"] for row in curve] == [CUT] * CUT + [0] * (STEPS - CUT)
    alike(curve, alone)


@pytest.mark.kill
def test_torchrun_starts_all_again(tmp_path, repo, alone):
    job = str(repo / "tests" / "training_job.py")
    status, _, err = ended(torchrun("--max_restarts=1", job, str(tmp_path), "fsdp", "1"))
    assert status == 0, err[-2000:]
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert curve[0]["restored"] == CUT
    alike(curve, alone)


def test_sigterm_ends_a_rank_that_waits_for_the_main_one(tmp_path, repo):
    process = torchrun(str(repo / "tests" / "waiting_job.py"), str(tmp_path))
    while not (tmp_path / "begun").exists() and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    status, _, err = ended(process)
    assert status != 0
    assert "closing signal SIGTERM" in err
    assert "forcefully exiting" not in err  # what torchrun says of a process that is still there after its 30 s


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "no-such.yaml"], "salad: no recipe at no-such.yaml."),
        (["steps", "recipes/demo.yaml"], "salad: 'salad steps' works in one process; start it without torchrun."),
        (["run", "recipes/demo.yaml", "--only", "nothing"], "salad: --only nothing: no such step"),
    ],
)
def test_an_error_of_all_is_said_once(repo, monkeypatch, tmp_path, arguments, sentence):
    monkeypatch.chdir(repo)
    out = ["--out", str(tmp_path / "run")] if arguments[0] == "run" else []
    status, _, err = ended(torchrun("-m", "salad", *arguments, *out))
    assert status != 0
    assert err.count(sentence.removeprefix("salad: ")) == 1, err
    assert err.count("Traceback") == 1, err  # torchrun's own
    assert sentence in err  # the main rank says it
    assert not (tmp_path / "run").exists()


def test_a_world_without_torchrun_is_refused(repo, tmp_path):
    command = [sys.executable, "-m", "salad", "run", str(repo / "recipes/demo.yaml"), "--out", str(tmp_path / "run")]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "MASTER_ADDR")}
    done = subprocess.run(command, env=environment | {"WORLD_SIZE": "2"}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "WORLD_SIZE=2 says that there are 2 processes" in done.stderr
    assert not (tmp_path / "run").exists()


def test_too_many_threads_are_warned_of(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert crowded(99) is None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert crowded(2) is None
    told = crowded(3)
    assert told == "4 processes of 3 threads each hold each other up on 8 cores; --set threads=2 would not."
