"""How much of the accuracy of many runs their misalignment M and forgetting F explain, by ordinary least squares.

The paper's analysis: over runs, M predicts accuracy on speech and F accuracy on text. A run is a point here; what is
said is about the runs at hand and not about cause.

Axes: R runs, K predictors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import f as central_f
from scipy.stats import ncf

from salad.errors import DataError, MissingFileError
from salad.files import read_json
from salad.measure.statistics import LEVEL, Estimate

SPANS = {
    "interleaved": ("text_words", "speech_words"),
    "speech_prefix": ("prefix_frac",),
    "utterance": ("continuation_words",),
    "poisson": ("poisson_words",),
}
"""What of a recipe's `sequence` makes another M under a policy."""
SPARE = 3  # runs beyond the numbers that are fitted; fewer leave next to nothing to judge the fit by

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predictor:
    """What one predictor adds.

    `slope`: accuracy (0–1) per nat, beside the others. `partial_r2`: the share of what the others leave over that it
    explains. `unique_r2`: the share of all variance that only it explains. `alone_*`: without the others.
    """

    slope: float
    partial_r2: Estimate
    p_value: float
    unique_r2: float
    alone_r2: float
    alone_leave_one_out_r2: float


@dataclass(frozen=True)
class Explained:
    """Ordinary least squares of accuracy on all predictors over `n` runs."""

    n: int
    r2: Estimate
    leave_one_out_r2: float
    predictors: dict[str, Predictor]

    def as_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        return asdict(self)


def explained(accuracy_R: Sequence[float], predictors: Mapping[str, Sequence[float]], what: str) -> Explained:
    """R², leave-one-out R² and each predictor's partial R² with 95 % intervals.

    Leave-one-out R² is 1 − Σ(y − ŷ₋)² / Σ(y − ȳ)², ŷ₋ from a fit without the run itself; it is below 0 where the mean
    of all would have been better. Intervals invert the non-central F (Steiger, 2004), with M and F as given;
    leave-one-out R² has none that is known to hold for few runs.

    Raises:
        DataError: too few runs, something that is not a number, an accuracy or predictor that is always the same, or
            predictors that can't be told apart.
    """
    y_R = np.asarray(accuracy_R, np.float64)
    columns = {name: np.asarray(values, np.float64) for name, values in predictors.items()}
    _require_fit(y_R, columns, what)
    n, num = y_R.size, len(columns)
    every = _design(columns.values(), n)
    total, full = float(((y_R - y_R.mean()) ** 2).sum()), _squares(every, y_R)
    slopes = np.linalg.lstsq(every, y_R, rcond=None)[0][1:]
    own: dict[str, Predictor] = {}
    for index, name in enumerate(columns):
        others = _squares(_design([one for other, one in columns.items() if other != name], n), y_R)
        alone = _design([columns[name]], n)
        share, residual = max(0.0, (others - full) / others) if others > 0 else 0.0, n - num - 1
        own[name] = Predictor(
            float(slopes[index]),
            _with_interval(share, 1, residual, n),
            float(central_f.sf(_f(share, 1, residual), 1, residual)),
            (others - full) / total,
            1 - _squares(alone, y_R) / total,
            _leave_one_out(alone, y_R),
        )
    return Explained(n, _with_interval(1 - full / total, num, n - num - 1, n), _leave_one_out(every, y_R), own)


@dataclass(frozen=True)
class ExplainedRuns:
    """Accuracy on speech and on text, each explained by M and F, or a sentence that says why it can't be.

    `repeated` counts arms whose numbers are those of another to the last digit (runs that share their Stage I); each
    counts once.
    """

    speech: Explained | str
    text: Explained | str
    repeated: int

    def as_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        return asdict(self)


def explain_runs(paths: Sequence[Path]) -> ExplainedRuns:
    """Accuracy on speech and on text of all arms in runs' results.json, each on M and F.

    Raises:
        MissingFileError: a run without results.json.
        DataError: one that is none, runs whose M was not taken alike or whose task differs, or neither accuracy can be
            explained.
    """
    rows: list[tuple[float, float, float, float]] = []
    seen: dict[str, str] = {}
    for path in paths:
        file = path / "results.json" if path.is_dir() else path
        if not file.is_file():
            raise MissingFileError(f"{file} does not exist; name a run that 'salad run' has brought to its end.")
        tree = read_json(file)
        try:
            alike = f"{_policy(tree)}, {tree['conditions']['broad']}, {tree['task']}"
            own = [
                (
                    arm["task"]["speech"]["value"],
                    arm["task"]["text"]["value"],
                    arm["misalignment_nats"]["value"],
                    arm["forgetting_nats"]["value"],
                )
                for arm in tree["arms"]
            ]
        except (TypeError, KeyError) as error:
            raise DataError(f"{file} is no results of a run ({type(error).__name__}: {error}).") from error
        first = seen.setdefault("alike", alike)
        if alike != first:
            raise DataError(f"{file} was measured otherwise ({alike}) than the first ({first}); M can't be compared.")
        rows += own
    once = list(dict.fromkeys(rows))
    speech, text, misalignment, forgetting = zip(*once, strict=True) if once else ((), (), (), ())
    both = {"M": misalignment, "F": forgetting}
    found: dict[str, Explained | str] = {}
    for name, accuracy_R in (("speech", speech), ("text", text)):
        try:
            found[name] = explained(accuracy_R, both, f"accuracy on {name}")
        except DataError as error:
            found[name] = str(error)
    if all(isinstance(one, str) for one in found.values()):
        raise DataError(str(found["speech"]))
    return ExplainedRuns(found["speech"], found["text"], len(rows) - len(once))


def _policy(results: Mapping[str, Any]) -> str:
    """The sequence policy of a run's results, with how long its spans are where the results say it."""
    policy, sequence = results["conditions"]["policy"], results.get("recipe", {}).get("sequence", {})
    return " ".join([policy, *(f"{key}={sequence[key]}" for key in SPANS.get(policy, ()) if key in sequence)])


def _require_fit(y_R: Floats, columns: Mapping[str, Floats], what: str) -> None:
    needed = len(columns) + 1 + SPARE
    if y_R.size < needed or not columns:
        raise DataError(f"{what}: {y_R.size} runs are too few to fit {len(columns)} predictors; {needed} are needed.")
    for name, values in {what: y_R, **columns}.items():
        if values.size != y_R.size or not np.isfinite(values).all():
            raise DataError(f"{name}: {values.size} values for {y_R.size} runs, or one of them is no finite number.")
        if np.ptp(values) <= 1e-12 * np.abs(values).max():
            raise DataError(f"{name} is {values[0]:g} in all {y_R.size} runs; what does not vary explains nothing.")
    spread = np.column_stack([(one - one.mean()) / one.std() for one in columns.values()])
    if np.linalg.cond(spread) > 1e6:
        raise DataError(f"{what}: {' and '.join(columns)} go together in these runs and can't be told apart.")


def _design(columns: Any, n: int) -> Floats:
    return np.column_stack([np.ones(n), *columns])


def _squares(design_RK: Floats, y_R: Floats) -> float:
    """Residual sum of squares."""
    return float(((y_R - design_RK @ np.linalg.lstsq(design_RK, y_R, rcond=None)[0]) ** 2).sum())


def _leave_one_out(design_RK: Floats, y_R: Floats) -> float:
    """1 − PRESS / SS; the residual without run i is e_i / (1 − h_i), h the hat matrix' diagonal (Allen, 1974)."""
    q_RK, _ = np.linalg.qr(design_RK)
    residual_R = y_R - q_RK @ (q_RK.T @ y_R)
    without_R = residual_R / np.maximum(1 - (q_RK**2).sum(1), 1e-12)
    return float(1 - (without_R**2).sum() / ((y_R - y_R.mean()) ** 2).sum())


def _f(r2: float, num: int, residual: int) -> float:
    return r2 / num / (max(1 - r2, 1e-15) / residual)


def _with_interval(r2: float, num: int, residual: int, n: int) -> Estimate:
    """(Partial) R² with the ends λ / (λ + n): λ where the F seen is the 97.5 % and the 2.5 % quantile."""
    seen = min(_f(r2, num, residual), 1e9)

    def end(level: float) -> float:
        if central_f.cdf(seen, num, residual) <= level:
            return 0.0
        high = 1.0
        while ncf.cdf(seen, num, residual, high) > level:
            high *= 2
        found = float(brentq(lambda value: ncf.cdf(seen, num, residual, value) - level, 0, high))
        return found / (found + n)

    low, high = end((1 + LEVEL) / 2), end((1 - LEVEL) / 2)
    return Estimate(r2, min(r2, low), max(r2, high), n)
