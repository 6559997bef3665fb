"""The page's figures. Arms differ by shape or dashes as well as by colour; each says its numbers in words too."""

from __future__ import annotations

from salad.report.cluster_figures import cluster_misalignment, cluster_shares, misalignment_map
from salad.report.drawing import ABOVE, Drawing, arm_legend, drawing, interval, legend, line, panels, rows, swatch
from salad.report.results import Estimate, Results
from salad.report.svg import ARM_COLOURS, INK, drawing_style
from salad.report.table import ARM_TITLES, nats, nats_estimate, percent, percent_estimate


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
            "misalignment_map": misalignment_map(results.clusters),
            "cluster_misalignment": cluster_misalignment(results.clusters),
            "cluster_shares": cluster_shares(results.clusters),
        }
    return {name: figure for name, figure in drawn.items() if figure}


def _misalignment(results: Results, human: bool = False) -> Drawing | None:
    """M of each arm with its interval, heard and swapped; on human speech heard only."""
    key = "misalignment_human_nats" if human else "misalignment_nats"
    arms = [arm for arm in results.arms if getattr(arm, key)]
    if not arms:
        return None
    figure, axes = rows([ARM_TITLES[arm.name] for arm in arms], legend=not human)
    for y, arm in enumerate(arms):
        heard: Estimate = getattr(arm, key)
        interval(axes, y - (0 if human else 0.14), heard, ARM_COLOURS[arm.name], "o", filled=True)
        if not human:
            interval(axes, y + 0.14, arm.misalignment_swapped_nats, ARM_COLOURS[arm.name], "s", filled=False)
    axes.set_xlabel("M, nats per text position (lower is better)")
    axes.set_xlim(left=0)
    speech = results.conditions.human if human else results.conditions.broad
    if not human:
        legend(axes, [("its own audio", "o", True), ("audio of another item", "s", False)])
    where = "human speech" if human else "broad text in a synthetic voice"
    told = "; ".join(f"{ARM_TITLES[arm.name]} {nats_estimate(getattr(arm, key))}" for arm in arms)
    caption = f"Misalignment M on held-out {where} ({speech.corpus}, {speech.voice}), with 95 % intervals."
    if not human:
        caption += " Where the two marks of a row lie together, the arm does not hear."
    return drawing(figure, f"m-{'human' if human else 'broad'}", f"{caption} M with its own audio: {told}.", caption)


def _forgetting(results: Results) -> Drawing | None:
    """F of each arm with its interval."""
    arms = [(arm, arm.forgetting_nats) for arm in results.arms if arm.forgetting_nats]
    if not arms:
        return None
    figure, axes = rows([ARM_TITLES[arm.name] for arm, _ in arms])
    for y, (arm, estimate) in enumerate(arms):
        interval(axes, y, estimate, ARM_COLOURS[arm.name], "o", filled=True)
    axes.set_xlabel("F, nats per text position (lower is better)")
    axes.set_xlim(left=0)
    if not any(estimate.high > 0 for _, estimate in arms):
        axes.set_xlim(0, 0.1)
    caption = "Forgetting F: how far each arm's reading of text is from the text LLM's, with 95 % intervals."
    told = "; ".join(f"{ARM_TITLES[arm.name]} {nats_estimate(estimate)}" for arm, estimate in arms)
    return drawing(figure, "forgetting", f"{caption} {told}.", caption)


def _accuracy(results: Results) -> Drawing | None:
    """Accuracy on the task's text and speech, beside the topline, the cascade and chance."""
    arms = [(arm, arm.task) for arm in results.arms if arm.task]
    if not arms:
        return None
    figure, axes = rows([ARM_TITLES[arm.name] for arm, _ in arms], legend=True, row_in=0.5, legend_rows=3)
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
    swatches = [swatch("text", INK, filled=False), swatch("speech", INK, filled=True)]
    axes.legend(handles=[*axes.get_legend_handles_labels()[0], *swatches], **ABOVE)
    caption = f"Accuracy on the task {results.task.name}, with 95 % intervals."
    told = "; ".join(
        f"{ARM_TITLES[arm.name]} text {percent_estimate(task.text)}, speech {percent_estimate(task.speech)}"
        for arm, task in arms
    )
    told += "".join(f"; {label} {percent(frac)}" for label, frac, _ in lines)
    return drawing(figure, "accuracy", f"{caption} {told}.", caption)


def _training(results: Results) -> Drawing | None:
    """KL at each step of each arm's distillation."""
    arms = [arm for arm in results.arms if arm.curve]
    if not arms:
        return None
    figure, axes = panels(1)
    for arm in arms:
        line(axes[0], arm, [p.step for p in arm.curve], [p.kl_nats for p in arm.curve])
    axes[0].set_ylabel("KL, nats per position")
    axes[0].set_xlabel("step")
    arm_legend(axes[0], len(arms))
    caption = "Distillation: divergence of student from teacher at each step, on the step's own batch."
    told = "; ".join(
        f"{ARM_TITLES[arm.name]} from {nats(arm.curve[0].kl_nats)} to {nats(arm.curve[-1].kl_nats)} nats in "
        f"{len(arm.curve)} steps"
        for arm in arms
    )
    return drawing(figure, "training", f"{caption} {told}.", caption)


def _warm_start(results: Results) -> Drawing | None:
    """Loss and share of right words at each step of each warm start."""
    arms = [arm for arm in results.arms if arm.warm_start]
    if not arms:
        return None
    figure, (loss, right) = panels(2)
    for arm in arms:
        steps = [p.step for p in arm.warm_start]
        line(loss, arm, steps, [p.loss_nats for p in arm.warm_start])
        line(right, arm, steps, [100 * p.right_frac for p in arm.warm_start])
    loss.set_ylabel("loss, nats")
    right.set_ylabel("right words, %")
    right.set_ylim(0, 100)
    right.set_xlabel("step")
    arm_legend(loss, len(arms))
    caption = "Warm start of the adapter: loss, and the share of positions (CTC: words) that were right, at each step."
    told = "; ".join(
        f"{ARM_TITLES[arm.name]} from {percent(arm.warm_start[0].right_frac)} to "
        f"{percent(arm.warm_start[-1].right_frac)} right"
        for arm in arms
    )
    return drawing(figure, "warm-start", f"{caption} {told}.", caption)
