"""Trackers by name, and what a training leaves behind: curves, rows, what was watched, over kills and resumes."""

import importlib.util
import json
import sys

import pytest

from salad.distill.loop import StepReport
from salad.distill.tracker import Nowhere, open_tracker
from salad.errors import InterruptedRunError, RecipeError
from salad.interrupts import stopped_by
from salad.measure.statistics import Estimate
from salad.measure.watch import WatchReport
from salad.ranks import Ranks
from salad.recipe import EngineSettings, Recipe
from salad.report.results import parse_results
from salad.report.verdicts import warnings
from salad.training import follow
from test_report import full


def events(folder):
    """{name: [(step, value), …]} as TensorBoard shows it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, round(e.value, 6)) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


# --- by name --------------------------------------------------------------------------------------------------------


def test_tensorboard_keeps_the_curves(tmp_path):
    tracker = open_tracker("tensorboard", tmp_path, "run", {})
    for step in (1, 2, 3):
        tracker.log(step, {"train/kl_nats": 1.0 / step, "speed/positions_per_s": 1e3 * step})
    tracker.close()
    assert events(tmp_path) == {
        "train/kl_nats": [(1, 1.0), (2, 0.5), (3, 0.333333)],
        "speed/positions_per_s": [(1, 1000), (2, 2000), (3, 3000)],
    }


def test_a_killed_run_that_goes_back_shows_every_step_once(tmp_path):
    killed = open_tracker("tensorboard", tmp_path, "run", {})
    for step in range(1, 8):
        killed.log(step, {"train/kl_nats": step})  # never closed: kill -9
    again = open_tracker("tensorboard", tmp_path, "run", {}, first_step=5)
    for step in range(5, 10):
        again.log(step, {"train/kl_nats": 10 * step})
    expected = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 50), (6, 60), (7, 70), (8, 80), (9, 90)]
    assert events(tmp_path)["train/kl_nats"] == expected
    killed.close()
    again.close()


def test_what_was_logged_is_on_the_disk_at_once(tmp_path):
    tracker = open_tracker("tensorboard", tmp_path, "run", {})
    tracker.log(1, {"train/kl_nats": 1.0})
    assert events(tmp_path) == {"train/kl_nats": [(1, 1.0)]}
    tracker.close()


def test_no_tracker_leaves_nothing(tmp_path):
    tracker = open_tracker("none", tmp_path / "none", "run", {})
    tracker.log(1, {"train/kl_nats": 1.0})
    tracker.close()
    assert isinstance(tracker, Nowhere)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_package_that_is_missing_is_named(tmp_path, name, monkeypatch):
    if importlib.util.find_spec(name):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not
    with pytest.raises(RecipeError, match=f"engine.tracker={name}.*pip install {name}") as refused:
        open_tracker(name, tmp_path, "run", {})
    assert "\n" not in str(refused.value)


def test_another_name_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="no such tracker"):
        open_tracker("visdom", tmp_path, "run", {})


# --- following a training -------------------------------------------------------------------------------------------


def step_report(step, restored=0):
    return StepReport(
        step=step,
        loss_nats=1.0 / step,
        divergence_nats=1.0 / step,
        kl_nats=1.0 / step,
        nll_nats=2.0,
        count=10,
        positions=40,
        speech_positions=20,
        flops=1e9,
        grad_norm=0.5,
        rate_factor=1.0,
        seconds=1.0,
        data_s=0.1,
        restored=restored,
    )


def recipe(every=2, tracker="tensorboard"):
    return Recipe(name="tiny", engine=EngineSettings(tracker=tracker, watch_every=every))


class Looker:
    """Looks at a model that hears at the steps it is told; remembers when it was asked."""

    def __init__(self, hears_at=range(100)):
        self.hears_at = hears_at
        self.asked = []

    def __call__(self, step):
        self.asked.append(step)
        low = 0.1 if step in self.hears_at else -0.1
        return WatchReport(step, Estimate(1 / step, 0, 2, 8), None, Estimate(0.2, low, 0.3, 8))


class Screen:
    """What a progress is told."""

    def __init__(self):
        self.told = []

    def __call__(self, done, total, note=""):
        self.told.append((done, total, note))

    def warnings(self):
        return [note for _, _, note in self.told if note.startswith("WARNING")]


def training(upto, steps, done=0, killed=False):
    """What the loop yields from a checkpoint after `done` steps, up to `upto`."""
    yield from (step_report(step, restored=done) for step in range(1, done + 1))
    yield from (step_report(step) for step in range(done + 1, upto + 1))
    if killed:
        raise stopped_by(15, upto, steps)


def test_a_training_leaves_rows_curves_and_what_was_watched(tmp_path):
    look, screen = Looker(), Screen()
    rows = follow(training(5, 5), "Stage I", 5, look, recipe(), tmp_path, screen)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert look.asked == [2, 4, 5]  # every second, and after the last
    assert [row["step"] for row in rows if "watch" in row] == look.asked
    assert "restored" not in rows[0]
    json.dumps(rows, allow_nan=False)
    shown = events(tmp_path / "tracker")
    assert [step for step, _ in shown["train/kl_nats"]] == [1, 2, 3, 4, 5]
    assert shown["watch/hearing_nats"] == [(2, 0.2), (4, 0.2), (5, 0.2)]
    assert shown["speed/positions_per_s"][0] == (1, 40.0)
    assert shown["speed/mfu_frac"][0][1] > 0
    assert [done for done, _, _ in screen.told] == [1, 2, 3, 4, 5]
    assert screen.told[-1][2].startswith("Stage I  KL 0.200  NLL 2.00  ETA 00:00  40 tok/s  MFU ")
    assert "hears +0.200" in screen.told[2][2]  # what was seen stays on the line


@pytest.mark.parametrize("lost_watch", [False, True])
@pytest.mark.parametrize("done", [0, 2, 3, 4])
def test_a_killed_training_that_goes_on_leaves_the_same(tmp_path, done, lost_watch):
    """Killed after step 5, resumed from the checkpoint after `done`; or between that checkpoint and its watch."""
    whole = follow(training(7, 7), "Stage I", 7, Looker(), recipe(), tmp_path / "whole", Screen())
    out = tmp_path / "cut"
    upto = done if lost_watch else 5
    with pytest.raises(InterruptedRunError):
        follow(training(upto, 7, killed=True), "Stage I", 7, Looker(), recipe(), out, Screen())
    if lost_watch and (out / "watch.jsonl").is_file():
        kept = (out / "watch.jsonl").read_text().splitlines(keepends=True)
        (out / "watch.jsonl").write_text("".join(row for row in kept if json.loads(row)["step"] < done))
    look, screen = Looker(), Screen()
    rows = follow(training(7, 7, done=done), "Stage I", 7, look, recipe(), out, screen)
    assert rows == whole
    begin = done if lost_watch and done % 2 == 0 and done else done + 1
    assert look.asked == [step for step in (2, 4, 6, 7) if step >= begin]
    assert (out / "watch.jsonl").read_text() == (tmp_path / "whole" / "watch.jsonl").read_text()
    ours, expected = events(out / "tracker"), events(tmp_path / "whole" / "tracker")
    for name in ("train/kl_nats", "watch/hearing_nats"):
        assert ours[name] == expected[name]
    assert [told for told, _, _ in screen.told] == list(range(max(1, done), 8))  # earlier steps are not told again


def test_a_finished_training_is_read_again_at_once(tmp_path):
    follow(training(4, 4), "Stage I", 4, Looker(), recipe(), tmp_path, Screen())
    look = Looker()
    rows = follow(training(4, 4, done=4), "Stage I", 4, look, recipe(), tmp_path, Screen())
    assert look.asked == []
    assert [row["step"] for row in rows if "watch" in row] == [2, 4]


@pytest.mark.parametrize(("every", "looker"), [(0, Looker()), (2, None)])
def test_nobody_looks_who_was_not_asked(tmp_path, every, looker):
    rows = follow(training(3, 3), "Stage I", 3, looker, recipe(every, "none"), tmp_path, Screen())
    assert not any("watch" in row for row in rows)
    assert list(tmp_path.iterdir()) == []


def test_only_the_main_rank_shows_logs_and_writes(tmp_path):
    class Second(Ranks):
        """One that stands beside a main rank which found no file; all it asks is what the main one has."""

        def from_main(self, value):
            return []

    look, screen = Looker(), Screen()
    rows = follow(training(4, 4), "Stage I", 4, look, recipe(), tmp_path, screen, Second(rank=1, world=2))
    assert look.asked == [2, 4]  # but it looks: a sharded model is read by all
    assert len(rows) == 4
    assert screen.told == []
    assert list(tmp_path.iterdir()) == []


# --- alarms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hears_at", "alarms"),
    [
        ({2, 4, 6, 7}, []),
        ({6, 7}, []),  # deaf at first, as every model is
        ({2, 6, 7}, []),  # deaf once: a few utterances leave wide intervals
        ({2, 7}, ["after step 6"]),
        ({2}, ["after step 6", "after step 7"]),
        ((), ["after step 7"]),
    ],
)
def test_alarms(tmp_path, hears_at, alarms):
    screen = Screen()
    rows = follow(training(7, 7), "Stage I", 7, Looker(hears_at), recipe(tracker="none"), tmp_path, screen)
    told = screen.warnings()
    assert len(told) == len(alarms)
    assert all(alarm in sentence for alarm, sentence in zip(alarms, told, strict=True))
    assert told == [f"WARNING: {row['watch']['alarm']}" for row in rows if row.get("watch", {}).get("alarm")]
    if hears_at == {2}:
        assert told[0].endswith("The model heard after step 2 and does not any more.")
    if not hears_at:
        assert "hearing 0.200 [-0.100, 0.300] nats per token on 8 utterances" in told[0]
        assert told[0].endswith("The model has not learnt to hear.")


@pytest.mark.parametrize(
    ("hears_at", "end"),
    [({2, 4, 6, 7}, None), ({2}, "does not any more."), ({2, 7}, "After step 7 it heard again.")],
)
def test_an_alarm_is_among_the_warnings_of_the_run(tmp_path, hears_at, end):
    rows = follow(training(7, 7), "Stage I", 7, Looker(hears_at), recipe(tracker="none"), tmp_path, Screen())
    results = full()
    results["arms"][1]["watch"] = [row["watch"] for row in rows if "watch" in row]
    said = [sentence for sentence in warnings(parse_results(results)) if "in training" in sentence]
    assert len(said) == (end is not None)
    if end:
        assert said[0].startswith("Stage I, in training: after step ")
        assert said[0].endswith(end)
