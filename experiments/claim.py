"""What an experiment is, and the one command that runs it.

    python -m experiments.active_selection                arms that are not there yet; results.json, plot.svg
    python -m experiments.active_selection --minutes 30   begins no arm after half an hour; the next call goes on
    python -m experiments.active_selection --afresh       without the arms kept in experiments/measured
    python -m experiments.active_selection --toy          at a size that only shows that it works

A claim is a module with its arms (label → arm, for a seed) and its judge: arms by label, one for each seed → a verdict.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.effects import (
    Effect,
    Rows,
    accuracy,
    forgetting,
    human_misalignment,
    misalignment,
    per_token,
    unseen_misalignment,
)
from experiments.lab import KEPT, Arm, Lab, Measured
from salad.card.bill import versions
from salad.files import write_atomic, write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPRODUCED, NOT, CANT_TELL = "reproduced", "not reproduced", "can't tell at this scale"
Found = Mapping[str, Sequence[Measured]]
"""Label → the arm, once for each seed."""


@dataclass(frozen=True)
class Verdict:
    """What came out: the effect that decides, a word for it, a sentence, and whatever else belongs to the claim.

    `parts` are those of a claim that says several things, each with its own verdict; `decided_by` is then the one whose
    effect this is.
    """

    verdict: str
    effect: Effect
    unit: str
    sentence: str
    more: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    decided_by: str | None = None


@dataclass(frozen=True)
class Claim:
    """A claim of the paper's (or one of ours), and how it is tried.

    Attributes:
        name: the package under experiments/.
        claim: what is claimed, in a sentence.
        effect: what the effect is, so that above 0 means that the claim holds.
        seeds: of the trainings.
        arms: a seed → label → arm.
        judge: all arms → a verdict.
        draw: all arms onto the plot's axes; None: what decides, of each arm.
        plotted: which rows decide, and what the plot calls them.
        toy: the labels that show at toy size that it works; empty: all.
    """

    name: str
    claim: str
    effect: str
    seeds: tuple[int, ...]
    arms: Callable[[int], dict[str, Arm]]
    judge: Callable[[Found], Verdict]
    draw: Callable[[Axes, Found], None] | None = None
    plotted: tuple[Rows, str] = (misalignment, "M on held-out definitions (nats per token)")
    toy: tuple[str, ...] = ()

    def main(self) -> None:
        """The command."""
        options = self._options()
        toy = options.toy
        kept = None if toy or options.afresh else KEPT
        lab = Lab(options.lab or Path("runs/lab-toy" if toy else "runs/lab"), toy, options.threads, kept)
        seeds = tuple(options.seeds or self.seeds)[: 1 if toy else None]
        arms = [(label, arm) for seed in seeds for label, arm in self.arms(seed).items()]
        if toy and self.toy:
            arms = [(label, arm) for label, arm in arms if label in self.toy]
        if any(lab.measured(arm) is None for _, arm in arms):
            lab.prepare()
        began, left = time.monotonic(), 0
        found: dict[str, list[Measured]] = {}
        for label, arm in arms:
            late = options.minutes is not None and time.monotonic() - began > 60 * options.minutes
            one = lab.measured(arm) if late else lab.make(arm)
            if one is None:
                left += 1
            else:
                found.setdefault(label, []).append(one)
        if left:
            sys.exit(f"{left} arms are left; the same command goes on.")
        out = lab.folder / "claims" / self.name if toy else Path(__file__).parent / self.name
        print(self.write(found, seeds, out, toy))

    def write(self, found: Found, seeds: Sequence[int], out: Path, toy: bool) -> str:
        """results.json and plot.svg; the verdict as a line to read."""
        verdict = self.judge(found)
        arms = [_row(label, one) for label, several in found.items() for one in several]
        result = {
            "claim": self.claim,
            "verdict": verdict.verdict,
            "effect": verdict.effect.value,
            "low": verdict.effect.low,
            "high": verdict.effect.high,
            "unit": verdict.unit,
            "effect_is": verdict.decided_by or self.effect,
            "sentence": verdict.sentence,
            "parts": verdict.parts,
            "seeds": list(seeds),
            "by_seed": list(verdict.effect.by_seed),
            "items": verdict.effect.items,
            "cost": cost(found),
            "more": verdict.more,
            "arms": arms,
            "command": f"python -m experiments.{self.name}" + (" --toy" if toy else ""),
            "versions": versions(),
        }
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "results.json", result)
        self._plot(found, verdict, out / "plot.svg")
        return f"{self.name}: {verdict.verdict}. {verdict.sentence}"

    def _plot(self, found: Found, verdict: Verdict, path: Path) -> None:
        import io

        import matplotlib as mpl
        from matplotlib.figure import Figure

        with mpl.rc_context({"svg.hashsalt": self.name, "font.size": 9, "svg.fonttype": "none"}):
            figure = Figure(figsize=(6.4, 3.4 if self.draw else 1.5 + 0.25 * len(found)), layout="constrained")
            axes = figure.subplots()
            if self.draw:
                self.draw(axes, found)
            else:
                arms_in_rows(axes, found, *self.plotted)
            axes.spines[["top", "right"]].set_visible(False)
            figure.suptitle(
                f"{verdict.verdict}: {verdict.decided_by or self.effect}\n{verdict.effect} {verdict.unit}", fontsize=9
            )
            drawn = io.StringIO()
            figure.savefig(drawn, format="svg", metadata={"Date": None})
        write_atomic(path, drawn.getvalue())

    def _options(self) -> argparse.Namespace:
        parser = argparse.ArgumentParser(description=self.claim)
        parser.add_argument("--lab", type=Path, default=None, help="the lab's folder (runs/lab)")
        parser.add_argument("--seeds", type=int, nargs="+", default=None)
        parser.add_argument("--threads", type=int, default=1)
        parser.add_argument("--minutes", type=float, default=None, help="begin no arm after so many")
        parser.add_argument("--afresh", action="store_true", help="without the measured arms that are kept here")
        parser.add_argument("--toy", action="store_true", help="only to see that it works")
        return parser.parse_args()


def judged(effect: Effect, unit: str, sentence: str, more: Mapping[str, Any] | None = None) -> Verdict:
    """The rule for all claims: the interval above 0, below 0, or around it."""
    return Verdict(word_for(effect), effect, unit, sentence, dict(more or {}))


def word_for(effect: Effect) -> str:
    """An effect's verdict."""
    return REPRODUCED if effect.above else NOT if effect.below else CANT_TELL


def weakest(parts: Mapping[str, str]) -> str:
    """The part that a claim of several parts stands or falls with: one that is not so, else one that can't be told."""
    return next(name for word in (NOT, CANT_TELL, REPRODUCED) for name, verdict in parts.items() if verdict == word)


def cost(found: Found) -> dict[str, float]:
    """What all arms of a claim cost, each counted once: processor hours, TFLOP of training, positions trained on.

    An arm that other claims use is counted in each of them.
    """
    every = {one.arm.folder: one.cost for several in found.values() for one in several}
    return {
        "cpu_h": round(sum(one["cpu_s"] for one in every.values()) / 3600, 3),
        "train_tflop": round(sum(one["train_tflop"] for one in every.values()), 3),
        "positions": sum(one["positions"] for one in every.values()),
        "arms": len(every),
    }


def arms_in_rows(axes: Axes, found: Found, rows: Rows, told: str) -> None:
    """Every arm a line with a point for each seed and their mean; thin lines join the points of a seed."""
    values = [[per_token(one, rows) for one in several] for several in found.values()]
    by_seed = list(zip(*values, strict=False))
    for places in by_seed if len(by_seed) > 1 else ():
        axes.plot(places, range(len(places)), "-", color="#bbbbbb", linewidth=0.7, zorder=1)
    for place, own in enumerate(values):
        axes.plot(own, [place] * len(own), "o", color="#0b5394", alpha=0.7, markersize=5)
        axes.plot([sum(own) / len(own)], [place], "|", color="black", markersize=12)
    axes.set_yticks(range(len(found)), list(found))
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel(f"{told}; a point a seed, | their mean", fontsize=8)


def _row(label: str, one: Measured) -> dict[str, Any]:
    return {
        "label": label,
        "seed": one.arm.seed,
        "misalignment_nats": per_token(one, misalignment),
        "misalignment_human_nats": per_token(one, human_misalignment),
        "misalignment_unseen_voice_nats": per_token(one, unseen_misalignment),
        "forgetting_nats": per_token(one, forgetting),
        "hearing_nats": _hearing(one),
        "task_text": per_token(one, accuracy("text")),
        "task_speech": per_token(one, accuracy("speech")),
        "cost": one.cost,
        "arm": one.arm.definition,
    }


def _hearing(one: Measured) -> float:
    heard, swapped = one.rows.broad.heard, one.rows.broad.swapped
    return (sum(row.kl_nats for row in swapped) - sum(row.kl_nats for row in heard)) / sum(row.count for row in heard)
