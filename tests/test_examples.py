"""The sbatch example: what it passes on exists; the signal before the time limit ends in a job that is queued again."""

import re
import shlex
import signal
import subprocess
import time

import pytest
from torch.distributed.run import get_args_parser
from typer.main import get_command

from salad.cli import app
from salad.recipe import load_recipe

SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4"}
SLURM |= {"SLURM_CPUS_PER_TASK": "64"}


@pytest.fixture
def script(repo):
    return repo / "examples" / "train.sbatch"


@pytest.fixture
def slurm(tmp_path):
    """Stand-ins for Slurm's commands that write down how they were called; srun runs its command."""
    calls = tmp_path / "calls"
    for name, does in {
        "srun": f'echo "$SRUN_CPUS_PER_TASK" > {tmp_path}/cpus; "${{@:2}}" & echo $! > {tmp_path}/task; wait $!',
        "scontrol": '[ "$1" = show ] && printf "node-1\\nnode-2\\n"; exit 0',
        "scancel": f'kill -"${{1#--signal=}}" "$(cat {tmp_path}/task)"',
    }.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {calls}\n{does}\n')
        path.chmod(0o755)
    return tmp_path


def start(script, slurm, does, *more):
    """The script with a python that does something else, its words written down one a line."""
    python = slurm / "python"
    python.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {slurm}/words\n{does}\n')
    python.chmod(0o755)
    environment = {"PATH": f"{slurm}/bin:/usr/bin:/bin", "SALAD_PYTHON": str(python), **SLURM}
    return subprocess.Popen(
        ["bash", str(script), "recipes/demo.yaml", "/shared/a run", *more], env=environment, stdout=subprocess.PIPE
    )


def calls(slurm):
    return (slurm / "calls").read_text().splitlines()


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_bash_can_read_it(script):
    assert subprocess.run(["bash", "-n", script]).returncode == 0


def test_torchrun_and_salad_have_what_it_passes_on(script, slurm, repo):
    assert start(script, slurm, "exit 0", "--set", "engine.parallel=fsdp").wait(60) == 0
    words = (slurm / "words").read_text().splitlines()
    assert words[:2] == ["-m", "torch.distributed.run"]
    torchrun = get_args_parser().parse_args(words[2:])  # ends the process where it doesn't know an option
    assert (torchrun.nnodes, torchrun.nproc_per_node) == ("2", "4")
    assert (torchrun.rdzv_endpoint, torchrun.rdzv_id) == ("node-1:29500", "7-0")
    assert (torchrun.module, torchrun.training_script) == (True, "salad")
    verb, *rest = torchrun.training_script_args
    context = get_command(app).commands[verb].make_context(verb, rest)
    assert context.params["out"].as_posix() == "/shared/a run"
    assert load_recipe(repo / context.params["recipe"], tuple(context.params["settings"])).engine.parallel == "fsdp"


def test_the_processes_of_a_machine_get_all_cores_that_were_asked_for(script, slurm):
    """srun does not read SLURM_CPUS_PER_TASK since Slurm 22.05: eight processes would share one core."""
    assert start(script, slurm, "exit 0").wait(60) == 0
    assert (slurm / "cpus").read_text() == "64\n"


def test_what_its_comments_name_is_there(script, repo):
    text = script.read_text()
    (line,) = re.findall(r"^# +sbatch (.*)$", text, re.MULTILINE)
    words = shlex.split(line)
    assert (repo / words[1]).samefile(script)
    load_recipe(repo / "recipes" / "demo.yaml", tuple(words[words.index("--set") + 1 :][:1]))
    pages = re.findall(r"docs/[\w-]+\.md", text)
    assert pages
    assert all((repo / page).is_file() for page in pages)


def test_the_signal_before_the_time_limit_reaches_the_run_and_the_job_is_queued_again(script, slurm):
    process = start(script, slurm, f"trap 'exit 1' TERM; touch {slurm}/up; while :; do sleep 0.05; done")
    wait_for(slurm / "up")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 1
    assert calls(slurm)[-2:] == ["scancel --signal=TERM 7", "scontrol requeue 7"]


def test_a_run_that_ends_just_then_is_not_queued_again(script, slurm):
    process = start(script, slurm, f"trap 'exit 0' TERM; touch {slurm}/up; while :; do sleep 0.05; done")
    wait_for(slurm / "up")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 0
    assert "scontrol requeue 7" not in calls(slurm)


def test_a_run_that_fails_is_not_queued_again(script, slurm):
    assert start(script, slurm, "exit 3").wait(60) == 3
    assert "scontrol requeue 7" not in calls(slurm)


def test_a_preemption_leaves_the_script_waiting_for_the_run(script, slurm):
    process = start(script, slurm, f"trap 'exit 1' TERM; touch {slurm}/up; while :; do sleep 0.05; done")
    wait_for(slurm / "up")
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    subprocess.run([slurm / "bin" / "scancel", "--signal=TERM", "7"], check=True)
    assert process.wait(60) == 1


def test_without_a_recipe_it_says_how_it_is_used(script):
    done = subprocess.run(["bash", script], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode != 0
    assert "usage: sbatch examples/train.sbatch RECIPE RUN" in done.stderr
