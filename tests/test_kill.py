"""Nothing is lost: killed at random moments, cut off while a checkpoint is written, told to stop, out of power, out of
disk, a training ends with the bits of one that was left alone.
"""

import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kill_run
from processes import torchrun
from salad.distill.checkpoint_folder import checkpoints
from salad.errors import CheckpointError

pytestmark = [pytest.mark.kill, pytest.mark.timeout(900), pytest.mark.usefixtures("one_thread")]

HERE = Path(__file__).parent
KILLS, INSIDE = 20, 5
PATIENCE_S = 200


@pytest.fixture(scope="module")
def starts():
    """Starts a run in a process of its own, forked from a bare one that has imported all there is to import."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(HERE)  # the bare process looks there
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kill_run"])

    def start(folder):
        process = context.Process(target=kill_run.run, args=(folder,), daemon=True)
        process.start()
        return process

    yield start
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


@pytest.fixture(scope="module")
def alone(starts, tmp_path_factory):
    """What an uninterrupted run leaves, and the seconds it takes for a step."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    starts(tmp_path_factory.mktemp("warm") / "run").kill()  # the imports
    began = time.monotonic()
    to_the_end(starts, folder)
    return kill_run.left_by(folder), (time.monotonic() - began) / kill_run.STEPS


def to_the_end(starts, folder):
    process = starts(folder)
    process.join(PATIENCE_S)
    assert process.exitcode == 0


def newest(folder):
    """The number of the newest checkpoint; 0 before the first."""
    return max((int(path.name.removeprefix("step-")) for path in checkpoints(folder)), default=0)


def half_written(folder):
    return [name for name in os.listdir(folder) if name.startswith((".tmp-", ".old-"))] if folder.is_dir() else []  # noqa: PTH208


def wait_until(true, process, *arguments):
    """Wait for something the process does; false if it ends first."""
    deadline = time.monotonic() + PATIENCE_S
    while process.is_alive() if hasattr(process, "is_alive") else process.poll() is None:
        if true(*arguments):
            return True
        assert time.monotonic() < deadline, "the run does nothing"
        time.sleep(0.0005)
    return False


def has_come_to(folder, step):
    return newest(folder) >= step


def writes_anew(folder, before):
    return not set(half_written(folder)) <= set(before)


def kill(process):
    """SIGKILL; whether it hit a living process."""
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


# --- kill -9 ----------------------------------------------------------------------------------------------------------


def test_killed_at_twenty_random_moments_it_ends_with_the_same_bits(starts, alone, tmp_path):
    expected, step_s = alone
    moments, folder = random.Random(0), tmp_path / "run"
    kills, inside, whole = 0, 0, 0
    while kills < KILLS or inside < INSIDE:
        before = half_written(folder)
        process = starts(folder)
        if kills % 2:  # into the writing of a checkpoint
            reached = wait_until(writes_anew, process, folder, before)
            time.sleep(moments.uniform(0, 0.2) * step_s)
        else:
            aim = min(whole + 2 * moments.randrange(9), kill_run.STEPS - 12)
            reached = wait_until(has_come_to, process, folder, aim)
            time.sleep(moments.uniform(0, 2) * step_s)
        assert reached, "the run ended by itself"
        assert kill(process)
        kills += 1
        inside += bool(half_written(folder))
        assert newest(folder) >= whole, "a checkpoint was lost"
        whole = newest(folder)
    print(f"{kills} kills, {inside} into the writing of a checkpoint, the last after step {whole} of {kill_run.STEPS}")
    to_the_end(starts, folder)
    assert kill_run.left_by(folder) == expected


# --- asked to stop ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_says_so_and_goes_on_later(alone, tmp_path, number):
    folder = tmp_path / "run"
    command = [sys.executable, str(HERE / "kill_run.py"), str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert wait_until(has_come_to, process, folder, 4)
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + number, said
    stopped = re.search(rf"stopped by {number.name} after step (\d+) of {kill_run.STEPS}; everything .* is saved", said)
    assert stopped, said
    assert "Traceback" not in said
    assert newest(folder) == int(stopped[1])
    assert not half_written(folder)
    kill_run.run(folder)
    assert kill_run.left_by(folder) == alone[0]


# --- power cuts -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def late(starts, tmp_path_factory):
    """A run that was killed when it was nearly done."""
    folder = tmp_path_factory.mktemp("late") / "run"
    process = starts(folder)
    assert wait_until(has_come_to, process, folder, kill_run.STEPS - 12)
    assert kill(process)
    return folder


def truncated(checkpoint):
    os.truncate(checkpoint / "weights.safetensors", 5000)


def emptied(checkpoint):
    """The rename reached the disk, nothing else did."""
    for path in checkpoint.iterdir():
        os.truncate(path, 0)


def rotten(checkpoint):
    content = bytearray((checkpoint / "optimizer.safetensors").read_bytes())
    content[len(content) // 3] ^= 4
    (checkpoint / "optimizer.safetensors").write_bytes(content)


def without_state(checkpoint):
    (checkpoint / "state.json").unlink()


@pytest.mark.parametrize("damage", [truncated, emptied, rotten, without_state])
def test_when_the_newest_is_damaged_it_goes_on_from_the_one_before(alone, late, tmp_path, capsys, damage):
    folder = tmp_path / "run"
    shutil.copytree(late, folder)
    before, last = checkpoints(folder)[-2:]
    damage(last)
    kill_run.run(folder)
    said = capsys.readouterr().err
    assert re.search(rf"WARNING: .*{last.name}.* Going on from {before.name}; .* called damaged-{last.name}", said)
    assert kill_run.left_by(folder) == alone[0]


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A real disk of a size that can be told again; needs the right to mount."""
    place = tmp_path / "disk"
    place.mkdir()

    def of(size, *options):
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", ",".join([*options, f"size={size}"]), "tmpfs", str(place)],
            capture_output=True,
            text=True,
        )

    mounted = of("1m")
    if mounted.returncode:
        pytest.skip(f"a tmpfs can't be mounted here: {mounted.stderr.strip()}")
    yield place, of
    subprocess.run(["umount", str(place)], check=True)


def test_on_a_full_disk_it_stops_in_order_and_goes_on_when_there_is_room(alone, late, disk):
    place, of = disk
    folder = place / "run"
    of("100m", "remount")
    shutil.copytree(late, folder)
    size = sum(path.stat().st_size for path in checkpoints(folder)[-1].iterdir())
    used = shutil.disk_usage(place).used
    of(used + size // 2, "remount")
    with pytest.raises(CheckpointError) as caught:
        kill_run.run(folder)
    said = str(caught.value)
    assert re.search(
        r"no room for the checkpoint .*step-\d+ .*: it takes [\d.]+ MB, [\d.]+ MB are free; nothing half", said
    )
    assert f"the last checkpoint before it is step-{newest(folder):08d}. Free space and run the same command" in said
    assert not half_written(folder)
    of("100m", "remount")
    kill_run.run(folder)
    assert kill_run.left_by(folder) == alone[0]


# --- several processes ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_of_two_ranks_is_killed_then_both_asked_to_stop_then_one_goes_on_alone(alone, tmp_path):
    folder = tmp_path / "run"
    command = (str(HERE / "kill_run.py"), str(folder), "fsdp")
    process = torchrun(*command)
    assert wait_until(has_come_to, process, folder, 4)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode, said
    killed_at = newest(folder)
    assert killed_at >= 4
    process = torchrun(*command)
    assert wait_until(has_come_to, process, folder, killed_at + 2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert len(re.findall("stopped by SIGTERM after step", said)) >= 1, said
    shards = {path.name for path in checkpoints(folder)[-1].iterdir()}
    assert {"weights-00001-of-00002.safetensors", "weights-00002-of-00002.safetensors"} <= shards
    assert not half_written(folder)
    curve = kill_run.run(folder)
    expected = alone[0][f"step-{kill_run.STEPS:08d}/state"]["reports"]
    assert [report.loss_nats for report in curve] == pytest.approx([r["loss_nats"] for r in expected], rel=1e-3)
    assert sorted(path.name for path in folder.iterdir()) == alone[0]["names"]
