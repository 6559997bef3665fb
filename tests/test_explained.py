"""What M and F explain: a small example by hand, scikit-learn, and simulations with a known truth."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from typer.testing import CliRunner

from salad.cli import app
from salad.errors import DataError, MissingFileError
from salad.measure.explained import explain_runs, explained


def example(seed=0, n=14):
    rng = np.random.default_rng(seed)
    m, f = rng.uniform(0.1, 2, n), rng.uniform(0, 0.5, n)
    return 0.8 - 0.2 * m + 0.1 * f + rng.normal(0, 0.03, n), m, f


def test_by_hand():
    """x = 0…4, y = 1 3 2 5 4: slope 0.8, R² = 0.8² · 10 / 10 = 0.64; PRESS from e / (1 − h)."""
    found = explained([1, 3, 2, 5, 4], {"M": [0, 1, 2, 3, 4]}, "y")
    one = found.predictors["M"]
    assert one.slope == pytest.approx(0.8)
    assert found.r2.value == one.partial_r2.value == one.unique_r2 == pytest.approx(0.64)
    residual = np.array([-0.4, 0.8, -1.0, 1.2, -0.6])  # of ŷ = 1.4 + 0.8 x
    leverage = np.array([0.6, 0.3, 0.2, 0.3, 0.6])  # 1/5 + (x − 2)² / 10
    assert found.leave_one_out_r2 == pytest.approx(1 - ((residual / (1 - leverage)) ** 2).sum() / 10)
    assert found.n == 5


def test_two_predictors_by_hand():
    """Orthogonal ±1 designs: each share of the variance is a squared sum over 8, and they add up."""
    m, f = np.array([1, 1, 1, 1, -1, -1, -1, -1]), np.array([1, 1, -1, -1, 1, 1, -1, -1])
    noise = np.array([1, -1, -1, 1, -1, 1, 1, -1])  # orthogonal to both
    found = explained(0.5 + 3 * m + 2 * f + noise, {"M": m, "F": f}, "y")
    assert found.r2.value == pytest.approx(13 / 14)
    assert found.predictors["M"].unique_r2 == pytest.approx(9 / 14)
    assert found.predictors["M"].alone_r2 == pytest.approx(9 / 14)
    assert found.predictors["F"].unique_r2 == pytest.approx(4 / 14)
    assert found.predictors["M"].partial_r2.value == pytest.approx(9 / 10)
    assert found.predictors["F"].partial_r2.value == pytest.approx(4 / 5)


def test_leave_one_out_is_scikit_learns():
    y, m, f = example()
    found = explained(y, {"M": m, "F": f}, "y")
    both = np.column_stack([m, f])
    wanted = r2_score(y, cross_val_predict(LinearRegression(), both, y, cv=LeaveOneOut()))
    assert found.leave_one_out_r2 == pytest.approx(wanted)
    alone = r2_score(y, cross_val_predict(LinearRegression(), m[:, None], y, cv=LeaveOneOut()))
    assert found.predictors["M"].alone_leave_one_out_r2 == pytest.approx(alone)
    assert found.r2.value == pytest.approx(LinearRegression().fit(both, y).score(both, y))
    assert found.leave_one_out_r2 < found.r2.value


def test_partial_r2_is_the_squared_correlation_of_residuals():
    y, m, f = example(1)
    left = np.column_stack([np.ones(len(f)), f])
    residuals = [v - left @ np.linalg.lstsq(left, v, rcond=None)[0] for v in (y, m)]
    found = explained(y, {"M": m, "F": f}, "y").predictors["M"]
    assert found.partial_r2.value == pytest.approx(np.corrcoef(*residuals)[0, 1] ** 2)
    assert 0 < found.partial_r2.low < found.partial_r2.value < found.partial_r2.high < 1


def test_the_interval_of_partial_r2_covers_95_times_in_100():
    """Fixed M and F; the truth is λ / (λ + n) with λ the signal's squares over the noise's variance."""
    rng = np.random.default_rng(0)
    n = 16
    m, f = rng.uniform(0, 1, n), rng.uniform(0, 1, n)
    left = np.column_stack([np.ones(n), f])
    only_m = m - left @ np.linalg.lstsq(left, m, rcond=None)[0]
    noise = 0.35
    truth = (only_m**2).sum() / noise**2
    truth /= truth + n
    covered = 0
    for _ in range(400):
        found = explained(m + 0.3 * f + rng.normal(0, noise, n), {"M": m, "F": f}, "y").predictors["M"].partial_r2
        covered += found.low <= truth <= found.high
    assert 0.2 < truth < 0.6
    assert 0.93 <= covered / 400 <= 0.97


def test_a_predictor_of_nothing_explains_nothing_left_out():
    rng = np.random.default_rng(3)
    y, m, _ = example(3)
    found = explained(y, {"M": m, "noise": rng.normal(size=len(y))}, "y").predictors["noise"]
    assert found.alone_leave_one_out_r2 < 0.1
    assert found.partial_r2.low == 0
    assert found.p_value > 0.05


@pytest.mark.parametrize(
    ("y", "predictors", "said"),
    [
        ([1, 2, 3], {"M": [1, 2, 4]}, "3 runs are too few to fit 1 predictors; 5"),
        ([1, 2, 3, 4, 5], {}, "too few"),
        ([1, 2, 3, 4, 6], {"M": [1, 1, 1, 1, 1]}, "M is 1 in all 5 runs"),
        ([0.5] * 6, {"M": [1, 2, 3, 4, 5, 7]}, "y is 0.5 in all"),
        ([1, 2, 3, 4, 5, 7, 9], {"M": range(7), "F": range(0, 14, 2)}, "M and F go together"),
        ([1, 2, 3, 4, float("nan")], {"M": [1, 2, 3, 4, 5]}, "no finite number"),
        ([1, 2, 3, 4, 5], {"M": [1, 2, 3, 4]}, "4 values for 5 runs"),
    ],
)
def test_what_can_not_be_fitted_is_refused(y, predictors, said):
    with pytest.raises(DataError, match=said):
        explained(y, {name: list(values) for name, values in predictors.items()}, "y")


def write_runs(folder, policy="interleaved"):
    y, m, f = example(5, 12)
    for run in range(3):
        arms = [
            {
                "name": str(arm),
                "task": {"speech": {"value": y[arm]}, "text": {"value": 0.9 - f[arm] + 0.01 * m[arm] ** 2}},
                "misalignment_nats": {"value": m[arm]},
                "forgetting_nats": {"value": f[arm]},
            }
            for arm in range(4 * run, 4 * run + 4)
        ]
        conditions = {"policy": policy, "broad": {"corpus": "wordnet", "voice": "piper-joe"}}
        (folder / f"run-{run}").mkdir(exist_ok=True)
        tree = {"conditions": conditions, "arms": arms, "task": {"name": "definition", "version": 1}}
        (folder / f"run-{run}" / "results.json").write_text(json.dumps(tree))
    return [folder / f"run-{run}" for run in range(3)], y, m, f


def test_all_arms_of_several_runs_are_points(tmp_path):
    runs, y, m, f = write_runs(tmp_path)
    found = explain_runs(runs)
    assert found.speech == explained(y, {"M": m, "F": f}, "x")
    assert found.text.n == 12
    assert found.text.predictors["F"].partial_r2.value > 0.99
    assert json.loads(json.dumps(found.as_json()))["text"]["n"] == 12
    assert found.repeated == 0
    again = explain_runs([*runs, runs[1]])
    assert again.repeated == 4
    assert again.speech == found.speech  # the same arm is no second witness


def test_an_accuracy_that_never_varies_does_not_hide_the_other(tmp_path):
    runs, *_ = write_runs(tmp_path)
    for run in runs:
        tree = json.loads((run / "results.json").read_text())
        for arm in tree["arms"]:
            arm["task"]["text"]["value"] = 0.8
        (run / "results.json").write_text(json.dumps(tree))
    found = explain_runs(runs)
    assert found.speech.n == 12
    assert found.text.startswith("accuracy on text is 0.8 in all 12 runs")
    done = CliRunner().invoke(app, ["explain", *map(str, runs)])
    assert "speech accuracy of 12 arms: R² 0.9" in done.output
    assert "accuracy on text is 0.8" in done.output
    with pytest.raises(DataError, match="4 runs are too few"):
        explain_runs(runs[:1])


def test_one_policy_with_other_spans_is_another_measurement(tmp_path):
    runs, *_ = write_runs(tmp_path, "speech_prefix")
    for run, prefix_frac, unread in zip(runs, (0.6, 0.6, 0.8), ([5, 15], [5, 15], [1, 2]), strict=True):
        tree = json.loads((run / "results.json").read_text())
        tree["recipe"] = {"sequence": {"prefix_frac": prefix_frac, "speech_words": unread}}
        (run / "results.json").write_text(json.dumps(tree))
    with pytest.raises(
        DataError, match=r"run-2.* was measured otherwise \(speech_prefix prefix_frac=0\.8, .*prefix_frac=0\.6"
    ):
        explain_runs(runs)
    tree["recipe"]["sequence"]["prefix_frac"] = 0.6  # of other policies' keys this one reads nothing
    (runs[2] / "results.json").write_text(json.dumps(tree))
    assert explain_runs(runs).speech.n == 12


def test_runs_that_were_measured_otherwise_are_not_mixed(tmp_path):
    runs, *_ = write_runs(tmp_path)
    tree = json.loads((runs[2] / "results.json").read_text())
    tree["conditions"]["policy"] = "utterance"
    (runs[2] / "results.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"run-2.* was measured otherwise"):
        explain_runs(runs)
    (runs[1] / "results.json").write_text("{}")
    with pytest.raises(DataError, match=r"run-1.* is no results"):
        explain_runs(runs)
    (runs[0] / "results.json").unlink()
    with pytest.raises(MissingFileError, match="run-0"):
        explain_runs(runs)
