"""The page's figures. Arms differ by shape or dashes as well as by colour; each says its numbers in words too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from salad.report.results import Arm, Cluster, Estimate, Results
from salad.report.svg import ARM_COLOURS, INK, drawing_style, inline_svg
from salad.report.table import ARM_TITLES, nats, nats_estimate, percent, percent_estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

DASHES = {"untrained": ":", "stage_one": "-", "stage_two": "-", "stage_two_uniform": "--"}
MARKERS = {"untrained": "X", "stage_one": "o", "stage_two": "s", "stage_two_uniform": "D"}
WIDTH_IN = 4.4  # 422 px: a phone's 360 shrink the 10 pt letters to 11.4 px, which can still be read
ROW_IN = 0.3
ABOVE: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 2}  # where a legend stands
MAX_CLUSTERS = 32  # as many rows as still fit a page; the table has them all
MAX_LABEL = 26


@dataclass(frozen=True)
class Drawing:
    """A figure: its SVG, to be put into the page as it is, and the caption under it."""

    svg: str
    caption: str


def drawings(results: Results) -> dict[str, Drawing]:
    """All figures that the results have numbers for, by name."""
    with drawing_style():
        drawn = {
            "misalignment": _misalignment(results),
            "misalignment_human": _misalignment(results, human=True),
            "forgetting": _forgetting(results),
            "accuracy": _accuracy(results),
            "training": _training(results),
            "warm_start": _warm_start(results),
            "cluster_misalignment": _cluster_misalignment(results),
            "cluster_shares": _cluster_shares(results),
        }
    return {name: drawing for name, drawing in drawn.items() if drawing}


def _misalignment(results: Results, human: bool = False) -> Drawing | None:
    """M of each arm with its interval, heard and swapped; on human speech heard only."""
    key = "misalignment_human_nats" if human else "misalignment_nats"
    arms = [arm for arm in results.arms if getattr(arm, key)]
    if not arms:
        return None
    figure, axes = _rows([ARM_TITLES[arm.name] for arm in arms], legend=not human)
    for y, arm in enumerate(arms):
        heard: Estimate = getattr(arm, key)
        _interval(axes, y - (0 if human else 0.14), heard, ARM_COLOURS[arm.name], "o", filled=True)
        if not human:
            _interval(axes, y + 0.14, arm.misalignment_swapped_nats, ARM_COLOURS[arm.name], "s", filled=False)
    axes.set_xlabel("M, nats per text position (lower is better)")
    axes.set_xlim(left=0)
    speech = results.conditions.human if human else results.conditions.broad
    if not human:
        _legend(axes, [("its own audio", "o", True), ("audio of another item", "s", False)])
    where = "human speech" if human else "broad text in a synthetic voice"
    told = "; ".join(f"{ARM_TITLES[arm.name]} {nats_estimate(getattr(arm, key))}" for arm in arms)
    caption = f"Misalignment M on held-out {where} ({speech.corpus}, {speech.voice}), with 95 % intervals."
    if not human:
        caption += " Where the two marks of a row lie together, the arm does not hear."
    return _drawing(figure, f"m-{'human' if human else 'broad'}", f"{caption} M with its own audio: {told}.", caption)


def _forgetting(results: Results) -> Drawing | None:
    """F of each arm with its interval."""
    arms = [(arm, arm.forgetting_nats) for arm in results.arms if arm.forgetting_nats]
    if not arms:
        return None
    figure, axes = _rows([ARM_TITLES[arm.name] for arm, _ in arms])
    for y, (arm, estimate) in enumerate(arms):
        _interval(axes, y, estimate, ARM_COLOURS[arm.name], "o", filled=True)
    axes.set_xlabel("F, nats per text position (lower is better)")
    axes.set_xlim(left=0)
    if not any(estimate.high > 0 for _, estimate in arms):
        axes.set_xlim(0, 0.1)
    caption = "Forgetting F: how far each arm's reading of text is from the text LLM's, with 95 % intervals."
    told = "; ".join(f"{ARM_TITLES[arm.name]} {nats_estimate(estimate)}" for arm, estimate in arms)
    return _drawing(figure, "forgetting", f"{caption} {told}.", caption)


def _accuracy(results: Results) -> Drawing | None:
    """Accuracy on the task's text and speech, beside the topline, the cascade and chance."""
    arms = [(arm, arm.task) for arm in results.arms if arm.task]
    if not arms:
        return None
    figure, axes = _rows([ARM_TITLES[arm.name] for arm, _ in arms], legend=True, row_in=0.5, legend_rows=3)
    for y, (arm, task) in enumerate(arms):
        colour = ARM_COLOURS[arm.name]
        axes.barh(y - 0.2, 100 * task.text.value, 0.34, color="none", edgecolor=colour, linewidth=1.2)
        axes.barh(y + 0.2, 100 * task.speech.value, 0.34, color=colour, edgecolor=colour, alpha=0.75, linewidth=1.2)
        for estimate, at in ((task.text, y - 0.2), (task.speech, y + 0.2)):
            axes.hlines(at, 100 * estimate.low, 100 * estimate.high, color=INK, linewidth=1.2)
    lines = [("topline", e.value, "-") for e in [results.topline] if e]
    lines += [("cascade", e.value, "--") for e in [results.cascade] if e]
    lines += [("chance", results.task.chance, ":")]
    for label, frac, dash in lines:
        axes.axvline(100 * frac, color=INK, linestyle=dash, linewidth=1.4, label=f"{label} {percent(frac)}")
    axes.set_xlim(0, 100)
    axes.set_xlabel("right answers, %")
    swatches = [_swatch("text", INK, filled=False), _swatch("speech", INK, filled=True)]
    axes.legend(handles=[*axes.get_legend_handles_labels()[0], *swatches], **ABOVE)
    caption = f"Accuracy on the task {results.task.name}, with 95 % intervals."
    told = "; ".join(
        f"{ARM_TITLES[arm.name]} text {percent_estimate(task.text)}, speech {percent_estimate(task.speech)}"
        for arm, task in arms
    )
    told += "".join(f"; {label} {percent(frac)}" for label, frac, _ in lines)
    return _drawing(figure, "accuracy", f"{caption} {told}.", caption)


def _training(results: Results) -> Drawing | None:
    """KL at each step of each arm's distillation."""
    arms = [arm for arm in results.arms if arm.curve]
    if not arms:
        return None
    figure, axes = _panels(1)
    for arm in arms:
        _line(axes[0], arm, [p.step for p in arm.curve], [p.kl_nats for p in arm.curve])
    axes[0].set_ylabel("KL, nats per position")
    axes[0].set_xlabel("step")
    _arm_legend(axes[0], len(arms))
    caption = "Distillation: divergence of student from teacher at each step, on the step's own batch."
    told = "; ".join(
        f"{ARM_TITLES[arm.name]} from {nats(arm.curve[0].kl_nats)} to {nats(arm.curve[-1].kl_nats)} nats in "
        f"{len(arm.curve)} steps"
        for arm in arms
    )
    return _drawing(figure, "training", f"{caption} {told}.", caption)


def _warm_start(results: Results) -> Drawing | None:
    """Loss and share of right words at each step of each warm start."""
    arms = [arm for arm in results.arms if arm.warm_start]
    if not arms:
        return None
    figure, (loss, right) = _panels(2)
    for arm in arms:
        steps = [p.step for p in arm.warm_start]
        _line(loss, arm, steps, [p.loss_nats for p in arm.warm_start])
        _line(right, arm, steps, [100 * p.right_frac for p in arm.warm_start])
    loss.set_ylabel("loss, nats")
    right.set_ylabel("right words, %")
    right.set_ylim(0, 100)
    right.set_xlabel("step")
    _arm_legend(loss, len(arms))
    caption = "Warm start of the adapter: loss, and the share of positions (CTC: words) that were right, at each step."
    told = "; ".join(
        f"{ARM_TITLES[arm.name]} from {percent(arm.warm_start[0].right_frac)} to "
        f"{percent(arm.warm_start[-1].right_frac)} right"
        for arm in arms
    )
    return _drawing(figure, "warm-start", f"{caption} {told}.", caption)


def _cluster_misalignment(results: Results) -> Drawing | None:
    """M(c) ± its standard error, and the teacher's entropy beside it."""
    clusters = _shown(results)
    if not clusters:
        return None
    figure, axes = _rows([_cluster_label(c) for c in clusters], legend=True, legend_rows=2)
    for y, c in enumerate(clusters):
        around = Estimate(
            value=c.misalignment_nats,
            low=c.misalignment_nats - c.standard_error_nats,
            high=c.misalignment_nats + c.standard_error_nats,
            n=c.num_probes,
        )
        if c.num_probes:
            _interval(axes, y, around, ARM_COLOURS["stage_one"], "o", filled=c.excluded is None)
            axes.plot([c.teacher_entropy_nats], [y], "|", color=INK, markersize=11, markeredgewidth=1.8)
    axes.set_xlabel("nats per text position")
    axes.set_xlim(left=0)
    entries = [("M(c) ± standard error", "o", True), ("teacher's entropy", "|", False)]
    if any(c.excluded for c in clusters):
        entries.append(("left out", "o", False))
    _legend(axes, entries)
    caption = (
        "What the probe found, cluster by cluster. On a model that hardly hears, M(c) follows the teacher's entropy: "
        f"then it measures how hard the text is.{_of_all(results)}"
    )
    told = "; ".join(
        f"{_cluster_label(c)} {nats(c.misalignment_nats)} ± {nats(c.standard_error_nats)}" for c in clusters
    )
    return _drawing(figure, "cluster-m", f"{caption} {told}.", caption)


def _cluster_shares(results: Results) -> Drawing | None:
    """The share of texts drawn from each cluster, by M(c)^γ and uniformly, and the target it was drawn from."""
    clusters = _shown(results)
    if not clusters:
        return None
    selected = sum(c.selected for c in results.clusters) or 1
    uniform = sum(c.selected_uniform for c in results.clusters) or 1
    chosen, control = ARM_COLOURS["stage_two"], ARM_COLOURS["stage_two_uniform"]
    figure, axes = _rows([_cluster_label(c) for c in clusters], legend=True, row_in=0.38, legend_rows=2)
    for y, c in enumerate(clusters):
        if c.selected:
            axes.barh(y - 0.19, 100 * c.selected / selected, 0.34, color=chosen)
        if c.selected_uniform:
            share = 100 * c.selected_uniform / uniform
            axes.barh(y + 0.19, share, 0.34, color="none", edgecolor=control, linewidth=1.4)
        if c.target:
            axes.plot([100 * c.target], [y - 0.19], "|", color=INK, markersize=10, markeredgewidth=1.8)
    axes.plot([], [], "|", color=INK, markersize=10, markeredgewidth=1.8, label="target of M(c)^γ")
    axes.set_xlabel("share of the texts, %")
    axes.set_xlim(left=0)
    swatches = [_swatch("drawn by M(c)^γ", chosen, filled=True), _swatch("drawn uniformly", control, filled=False)]
    axes.legend(handles=[*swatches, *axes.get_legend_handles_labels()[0]], **ABOVE)
    caption = f"Where Stage II's synthetic speech comes from.{_of_all(results)}"
    told = "; ".join(
        f"{_cluster_label(c)} {percent(c.selected / selected)} by M(c)^γ, "
        f"{percent(c.selected_uniform / uniform)} uniformly"
        for c in clusters
    )
    return _drawing(figure, "cluster-shares", f"{caption} {told}.", caption)


def _shown(results: Results) -> list[Cluster]:
    """The clusters of the figures, highest M(c) first."""
    return sorted(results.clusters, key=lambda c: (-c.misalignment_nats, c.cluster))[:MAX_CLUSTERS]


def _of_all(results: Results) -> str:
    more = len(results.clusters) > MAX_CLUSTERS
    return f" Shown: the {MAX_CLUSTERS} with the highest M(c) of {len(results.clusters)}." if more else ""


def _cluster_label(cluster: Cluster) -> str:
    """Number and name; one short line of characters that can be printed and stand in XML."""
    name = "".join(c for c in " ".join(cluster.name.split()) if c.isprintable())
    label = f"{cluster.cluster} {name}".strip()
    return label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1].rstrip() + "…"


def _rows(
    labels: Sequence[str], legend: bool = False, row_in: float = ROW_IN, legend_rows: int = 1
) -> tuple[Figure, Axes]:
    """A figure with one labelled row for each label, the first at the top."""
    height = row_in * max(len(labels), 2) + 0.75 + (0.22 * legend_rows if legend else 0)
    figure, axes = _figure(height)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, pad=8)  # room for half a mark at 0
    axes.locator_params(axis="x", nbins=6)
    axes.grid(visible=False, axis="y")
    return figure, axes


def _figure(height_in: float) -> tuple[Figure, Axes]:
    figure, axes = _panels(1, height_in)
    return figure, axes[0]


def _panels(num: int, height_in: float | None = None) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, height_in or 1.0 + 1.7 * num), layout="constrained")
    axes = [figure.add_subplot(num, 1, 1)]
    axes += [figure.add_subplot(num, 1, place, sharex=axes[0]) for place in range(2, num + 1)]
    return figure, axes


def _interval(axes: Axes, y: float, estimate: Estimate, colour: str, marker: str, filled: bool) -> None:
    axes.hlines(y, estimate.low, estimate.high, color=colour, linewidth=2)
    face = colour if filled else "none"
    axes.plot(
        [estimate.value],
        [y],
        marker,
        color=colour,
        markerfacecolor=face,
        markersize=7,
        markeredgewidth=1.6,
        clip_on=False,  # a mark at 0 stands on the axis, whole
    )


def _line(axes: Axes, arm: Arm, steps: list[int], values: list[float]) -> None:
    axes.plot(
        steps,
        values,
        color=ARM_COLOURS[arm.name],
        linestyle=DASHES[arm.name],
        marker=MARKERS[arm.name],
        markersize=4,
        markevery=max(1, len(steps) // 8),  # a shape now and then, for those who see no colour
        linewidth=1.6,
        label=ARM_TITLES[arm.name],
    )


def _legend(axes: Axes, entries: Sequence[tuple[str, str, bool]]) -> None:
    for label, marker, filled in entries:
        face = INK if filled else "none"
        axes.plot([], [], marker, color=INK, markerfacecolor=face, markeredgewidth=1.6, label=label)
    axes.legend(**ABOVE)


def _swatch(label: str, colour: str, filled: bool) -> Patch:
    from matplotlib.patches import Patch

    return Patch(facecolor=colour if filled else "none", edgecolor=colour, linewidth=1.4, label=label)


def _arm_legend(axes: Axes, num: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=min(num, 3))


def _drawing(figure: Figure, name: str, alternative: str, caption: str) -> Drawing:
    return Drawing(inline_svg(figure, name, alternative), caption)
