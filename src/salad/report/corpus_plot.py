"""A corpus as a picture: how long its utterances are and how fast they are spoken, or how long its texts are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from salad.errors import RecipeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")
BLUE, ORANGE = "#0072b2", "#d55e00"  # Okabe and Ito (2008): told apart by everyone


def plot_corpus(stats: dict[str, Any], path: Path) -> None:
    """Draw what `salad stats` counted into a file.

    Raises:
        RecipeError: the file's name ends in none of .png, .svg, .pdf, or there is nothing to draw.
    """
    if path.suffix.lower() not in FORMATS:
        raise RecipeError(f"--plot {path}: the name must end in {', '.join(FORMATS)}.")
    if "length_histogram_s" in stats:
        title = f"{stats['corpus'] or stats['folder']}: {stats['num_cuts']:,} utterances, {_hours(stats['hours'])}, "
        title += f"{stats['num_speakers']:,} speaker{'s' * (stats['num_speakers'] != 1)}"
        panels = [
            (stats["length_histogram_s"], stats["duration_s"], "length of an utterance (s)", "utterances", BLUE),
            (stats["pace_histogram"], stats["words_per_second"], "words per second of clip", "utterances", ORANGE),
        ]
    else:
        title = f"{Path(stats['file']).name}: {stats['num_texts']:,} texts, {stats['num_words']:,} words"
        panels = [(stats["length_histogram_words"], stats["words_per_text"], "words in a text", "texts", BLUE)]
    if not panels[0][0]["counts"]:
        raise RecipeError(f"--plot {path}: the corpus is empty, there is nothing to draw.")
    _draw(title, panels, path)


def _draw(title: str, panels: list[tuple[dict[str, list[Any]], dict[str, Any], str, str, str]], path: Path) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False}
    with mpl.rc_context(style):  # type: ignore[arg-type]  # matplotlib types the keys as a Literal of them all
        figure = Figure(figsize=(4.8 * len(panels), 3.4), layout="constrained", dpi=160)
        figure.suptitle(title, fontsize=11)
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _histogram(axes, *panel)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _histogram(
    axes: Axes, histogram: dict[str, list[Any]], summary: dict[str, Any], unit: str, what: str, colour: str
) -> None:
    """Bars of the bins; a last bin that is wider than the others is drawn as wide as they are, hatched, and named."""
    from matplotlib.ticker import MaxNLocator

    edges, counts = list(histogram["edges"]), histogram["counts"]
    width = edges[1] - edges[0]
    tail = len(edges) > 2 and edges[-1] - edges[-2] > 1.5 * width
    bars = axes.bar(edges[:-1], counts, width=width, align="edge", color=colour, edgecolor="white", linewidth=0.6)
    if tail:
        bars[-1].set(hatch="///", alpha=0.6)
        name = f"{edges[-2]:g} to\n{edges[-1]:g}"
        axes.annotate(
            name, (edges[-2] + width / 2, counts[-1]), (0, 3), textcoords="offset points", ha="center", fontsize=8
        )
    right = edges[-2] + width if tail else edges[-1]
    axes.set_xlim(edges[0], right)
    if tail:  # the scale ends where the wide bin begins
        axes.set_xticks([tick for tick in axes.get_xticks() if edges[0] <= tick <= edges[-2]])
    axes.axvline(summary["median"], color="black", linewidth=1, linestyle="--")
    median = f"median {summary['median']:.3g}"
    on_left = summary["median"] > (edges[0] + right) / 2
    axes.annotate(
        median,
        (summary["median"], 1),
        (-4 if on_left else 4, -2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right" if on_left else "left",
        va="top",
        fontsize=9,
    )
    axes.set_ylim(0, max(counts) * 1.18)
    axes.set_xlabel(unit)
    axes.set_ylabel(what)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _hours(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
