"""What figures are made of: rows with labels, intervals, lines by arm, legends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from salad.report.results import Arm, Estimate
from salad.report.svg import ARM_COLOURS, INK, inline_svg
from salad.report.table import ARM_TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

DASHES = {"untrained": ":", "stage_one": "-", "stage_two": "-", "stage_two_uniform": "--"}
MARKERS = {"untrained": "X", "stage_one": "o", "stage_two": "s", "stage_two_uniform": "D"}
WIDTH_IN = 4.4  # 422 px: a phone's 360 shrink the 10 pt letters to 11.4 px, which can still be read
ROW_IN = 0.3
ABOVE: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 2}  # where a legend stands


@dataclass(frozen=True)
class Drawing:
    """A figure: its SVG, to be put into the page as it is, and the caption under it."""

    svg: str
    caption: str


def rows(
    labels: Sequence[str], legend: bool = False, row_in: float = ROW_IN, legend_rows: int = 1
) -> tuple[Figure, Axes]:
    """A figure with one labelled row for each label, the first at the top."""
    height = row_in * max(len(labels), 2) + 0.75 + (0.22 * legend_rows if legend else 0)
    figure, axes = single(height)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, pad=8)  # room for half a mark at 0
    axes.locator_params(axis="x", nbins=6)
    axes.grid(visible=False, axis="y")
    return figure, axes


def single(height_in: float) -> tuple[Figure, Axes]:
    """A figure of one panel, `height_in` inches high."""
    figure, axes = panels(1, height_in)
    return figure, axes[0]


def panels(num: int, height_in: float | None = None) -> tuple[Figure, list[Axes]]:
    """A figure of `num` panels, one under the other, that share their horizontal axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, height_in or 1.0 + 1.7 * num), layout="constrained")
    axes = [figure.add_subplot(num, 1, 1)]
    axes += [figure.add_subplot(num, 1, place, sharex=axes[0]) for place in range(2, num + 1)]
    return figure, axes


def interval(axes: Axes, y: float, estimate: Estimate, colour: str, marker: str, filled: bool) -> None:
    """A mark at an estimate's value, and a line over its interval, in row `y`."""
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


def line(axes: Axes, arm: Arm, steps: list[int], values: list[float]) -> None:
    """An arm's values over its steps."""
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


def legend(axes: Axes, entries: Sequence[tuple[str, str, bool]]) -> None:
    """A legend of marks: (label, marker, filled)."""
    for label, marker, filled in entries:
        face = INK if filled else "none"
        axes.plot([], [], marker, color=INK, markerfacecolor=face, markeredgewidth=1.6, label=label)
    axes.legend(**ABOVE)


def swatch(label: str, colour: str, filled: bool) -> Patch:
    """A patch for a legend."""
    from matplotlib.patches import Patch

    return Patch(facecolor=colour if filled else "none", edgecolor=colour, linewidth=1.4, label=label)


def arm_legend(axes: Axes, num: int) -> None:
    """A legend of `num` arms, above the panel."""
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=min(num, 3))


def drawing(figure: Figure, name: str, alternative: str, caption: str) -> Drawing:
    """The finished figure: `alternative` says it in words, for those who don't see it."""
    return Drawing(inline_svg(figure, name, alternative), caption)
