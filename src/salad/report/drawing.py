"""What figures are made of: rows with labels, intervals, lines by arm, legends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from salad.report.downloads import Row, csv_text, data_uri
from salad.report.palette import SERIES, stand_in
from salad.report.results import Estimate
from salad.report.svg import INK, inline_svg, svg_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch


@dataclass(frozen=True)
class Look:
    """How one of several lines or marks is told from the others: by colour (a stand-in, svg.py), mark and dashes."""

    colour: str
    marker: str
    dash: str


ARM_LOOKS = {
    "untrained": Look(stand_in("untrained"), "X", ":"),
    "stage_one": Look(stand_in("stage-one"), "o", "-"),
    "stage_two": Look(stand_in("stage-two"), "s", "-"),
    "stage_two_uniform": Look(stand_in("stage-two-uniform"), "D", "--"),
    "stage_three": Look(stand_in("stage-three"), "^", "-."),
}
ESTIMATE = ("value", "low", "high", "n")  # the columns of `cells`
WIDTH_IN = 4.4  # 422 px: a phone's 360 shrink the 10 pt letters to 11.4 px, which can still be read
ROW_IN = 0.3
ABOVE: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 2}  # where a legend stands


@dataclass(frozen=True)
class Drawing:
    """A figure: its SVG, to be put into the page as it is, the caption under it, and its numbers.

    `name` is what its files are called, `rows` the numbers with their headers.
    """

    name: str
    svg: str
    caption: str
    rows: Sequence[Row] = field(default_factory=list)

    @property
    def svg_uri(self) -> str:
        """The figure as a file of its own."""
        return data_uri(svg_file(self.svg), "image/svg+xml")

    @property
    def csv_uri(self) -> str:
        """The numbers as a file."""
        return data_uri(csv_text(self.rows), "text/csv")


def run_look(place: int) -> Look:
    """The look of the run at that place among several."""
    return Look(stand_in(SERIES[place % len(SERIES)]), "osD^vP"[place % 6], ("-", "--", "-.", ":")[place % 4])


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


def line(axes: Axes, xs: Sequence[float], ys: Sequence[float], look: Look, label: str) -> None:
    """Values over something, with a mark now and then for those who see no colour."""
    axes.plot(
        xs,
        ys,
        color=look.colour,
        linestyle=look.dash,
        marker=look.marker,
        markersize=4,
        markevery=max(1, len(xs) // 8),
        linewidth=1.6,
        label=label,
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


def legend_above(axes: Axes) -> None:
    """A legend of the panel's lines, above it, in as many columns as there is room for."""
    labels = axes.get_legend_handles_labels()[1]
    columns = len(labels)
    if sum(len(label) + 6 for label in labels) > 52:
        columns = max(1, 52 // (max(map(len, labels)) + 6))
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns)


def drawing(
    figure: Figure,
    name: str,
    alternative: str,
    caption: str,
    rows: Sequence[Row],
    tips: Mapping[str, Sequence[str]] | None = None,
) -> Drawing:
    """The finished figure.

    Args:
        figure: what was drawn.
        name: of its files, and of its place in the page.
        alternative: says it in words, for those who don't see it.
        caption: what stands under it.
        rows: its numbers, the headers first.
        tips: what its marks tell (svg.py).
    """
    return Drawing(name, inline_svg(figure, name, alternative, tips), caption, rows)


def cells(estimate: Estimate | None) -> tuple[float | None, float | None, float | None, int | None]:
    """An estimate as four cells: value, low, high, n."""
    return (None,) * 4 if estimate is None else (estimate.value, estimate.low, estimate.high, estimate.n)
