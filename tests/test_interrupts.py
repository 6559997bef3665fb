"""SIGTERM and SIGINT: written down between two steps, passed on when nobody answers, and one sentence at the end."""

import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import tiny
from processes import torchrun
from salad.cli import main
from salad.distill.teacher import teacher_for
from salad.errors import InterruptedRunError, SaladError
from salad.interrupts import ECHO_S, Interruptible, end_on_sigterm, leave_signals_to_parent, stopped_by
from salad.recipe import StageSettings


class HeardError(Exception):
    """What the handler before ours does."""


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT])
def number(request):
    """A signal whose handler raises `HeardError`; a background job's SIGINT is ignored, so it is set here."""

    def raise_heard(*_):
        raise HeardError

    before = {each: signal.signal(each, raise_heard) for each in (signal.SIGTERM, signal.SIGINT)}
    yield request.param
    for each, handler in before.items():
        signal.signal(each, handler)


def send(number):
    os.kill(os.getpid(), number)


def test_a_signal_is_only_written_down(number, capfd):
    before = signal.getsignal(number)

    def train():
        with Interruptible() as interrupted:
            assert interrupted() is None
            send(number)
            assert interrupted() == number
            raise stopped_by(number, 3, 10)

    with pytest.raises(InterruptedRunError):
        train()
    assert signal.getsignal(number) is before
    assert f"{signal.Signals(number).name}: this step is finished and saved first" in capfd.readouterr().err


def test_a_second_signal_goes_through(number, monkeypatch):
    monkeypatch.setattr("salad.interrupts.ECHO_S", 0.0)
    reached = []

    def train():
        with Interruptible() as interrupted:
            send(number)
            reached.append(interrupted())
            time.sleep(0.01)
            send(number)
            reached.append("further")

    with pytest.raises(HeardError):
        train()
    assert reached == [number]


def test_its_echo_does_not(number):
    assert ECHO_S > 0.5  # torchrun passes Ctrl-C on within a tenth of a second

    def train():
        with Interruptible():
            send(number)
            send(signal.SIGINT)
            send(signal.SIGTERM)
            raise stopped_by(number, 1, 2)

    with pytest.raises(InterruptedRunError):
        train()


def test_what_nobody_answers_goes_through_in_the_end(number, capfd):
    with pytest.raises(HeardError), Interruptible(quiet=True):
        send(number)
    assert capfd.readouterr().err == ""  # of many ranks, one says what it heard


def test_an_error_is_not_replaced(number):
    def train():
        with Interruptible():
            send(number)
            raise KeyError

    with pytest.raises(KeyError):
        train()


def test_a_generator_that_is_left_passes_it_on(number):
    def steps():
        with Interruptible():
            yield 1
            yield 2

    made = steps()
    next(made)
    send(number)
    with pytest.raises(HeardError):
        made.close()


def test_other_threads_catch_nothing(number):
    before = signal.getsignal(number)
    seen = []

    def work():
        with Interruptible() as interrupted:
            seen.extend([signal.getsignal(number) is before, interrupted()])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True, None]


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts its background jobs
    try:
        with Interruptible() as interrupted:
            send(signal.SIGINT)
            assert interrupted() is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_error_says_how_to_go_on_and_can_travel():
    error = stopped_by(signal.SIGTERM, 120, 400)
    assert str(error) == (
        "stopped by SIGTERM after step 120 of 400; everything up to there is saved: run the same command to go on."
    )
    assert isinstance(error, SaladError)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.signal_number) == (str(error), signal.SIGTERM)


def test_a_loader_worker_leaves_signals_to_its_parent():
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        leave_signals_to_parent(0)
        assert {signal.getsignal(each) for each in before} == {signal.SIG_IGN}
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_a_forked_child_is_ended_by_sigterm_and_not_by_sigint(number):
    with Interruptible(), Interruptible():  # the inner one's handler is what the child inherits
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            while True:
                time.sleep(1)
        time.sleep(0.05)
        os.kill(child, signal.SIGINT)
        time.sleep(0.05)
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


# --- the command line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_ends_with_one_line_and_the_signals_status(given, status, monkeypatch, capsys):
    def run():
        raise stopped_by(given, 120, 400)

    monkeypatch.setattr("salad.cli.app", run)
    monkeypatch.setattr("salad.cli.end_on_sigterm", lambda: None)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == status
    told = capsys.readouterr().err
    assert told == f"salad: {stopped_by(given, 120, 400)}\n"


def test_sigterm_elsewhere_closes_what_is_open(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
import salad.cli
def work():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        Path({str(tmp_path)!r}, "closed").touch()
salad.cli.app = work
salad.cli.main()
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    child.terminate()
    _, told = child.communicate(timeout=60)
    assert child.returncode == 143
    assert told.strip() == "Stopped by SIGTERM; the same command goes on from here."
    assert (tmp_path / "closed").exists()


def test_a_handler_of_someone_else_stays():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        end_on_sigterm()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


# --- the training loop ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
def test_training_stops_after_a_step_and_goes_on_to_the_same_weights(tmp_path: Path, number):
    import torch

    from salad.distill.loop import train

    settings = StageSettings(steps=4, checkpoint_every=100)
    batches = [tiny.batch_of(tiny.utterances(3, seed=seed), ["the quiet river"]) for seed in range(4)]

    def run(folder, after=None):
        student = tiny.student()
        steps = train(student, teacher_for(student), lambda s: [batches[s]], settings, lambda _: 1.0, tmp_path / folder)
        for report in steps:
            if report.step == after and not report.restored:
                send(number)
        return student.trained_state()

    whole = run("whole")
    with pytest.raises(InterruptedRunError, match="after step 3 of 4"):  # heard after 2, while the third is under way
        run("cut", after=2)
    again = run("cut")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


# --- many ranks -----------------------------------------------------------------------------------------------------

MANY = """
import os, sys
from pathlib import Path
import tiny
from salad.distill.loop import train
from salad.distill.teacher import teacher_for
from salad.errors import InterruptedRunError
from salad.ranks import started_ranks
from salad.recipe import StageSettings

with started_ranks("cpu") as ranks:
    student = tiny.student()
    batch = tiny.batch_of(tiny.utterances(2, seed=ranks.rank))
    settings = StageSettings(steps=100000, checkpoint_every=100000)
    steps = train(
        student, teacher_for(student), lambda _: [batch], settings, lambda _: 0.1, Path(sys.argv[1]), ranks=ranks
    )
    try:
        for report in steps:
            if report.step == 2:  # in one write, or the two ranks' lines come mixed
                sys.stdout.write(f"pid {os.getpid()}\\n")
    except InterruptedRunError as error:
        print(error, flush=True)
        sys.exit(128 + error.signal_number)
"""


@pytest.mark.slow
def test_ctrl_c_reaches_ranks_twice_and_they_save_once(tmp_path):
    """The terminal tells all processes, then torchrun tells its workers again."""
    script = tmp_path / "many.py"
    script.write_text(MANY)
    launcher = torchrun(str(script), str(tmp_path / "run"))
    try:
        workers = []
        while len(workers) < 2:
            row = launcher.stdout.readline()
            assert row, launcher.stderr.read()
            workers += [int(row.split()[1])] if row.startswith("pid ") else []
        os.kill(workers[0], signal.SIGTERM)  # one of them is enough
        launcher.send_signal(signal.SIGTERM)
        told, _ = launcher.communicate(timeout=120)
    finally:
        launcher.kill()
    said = re.findall(r"stopped by SIGTERM after step (\d+) of 100000", told)
    assert len(said) == 2
    assert len(set(said)) == 1  # after the same step
    saved = [path.name for path in (tmp_path / "run").iterdir()]
    assert saved == [f"step-{int(said[0]):08}"]
