"""Matplotlib to inline SVG: transparent, text as text, and colours as the page's own variables.

Every colour of a figure is one of the stand-ins below; in the SVG it becomes `currentColor` or a CSS variable, so that
one figure is right on light and on dark, on the screen and on paper. The colours behind the variables, in page.html,
are after Okabe and Ito (2008).
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, PAGE = "#010101", "#010102", "#010107"
ARM_COLOURS = {
    "untrained": "#010103",
    "stage_one": "#010104",
    "stage_two": "#010105",
    "stage_two_uniform": "#010106",
}
IN_CSS = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    PAGE: "var(--page)",
    **{colour: f"var(--{name.replace('_', '-')})" for name, colour in ARM_COLOURS.items()},
}
STYLE: dict[Any, Any] = {  # Any: matplotlib types the keys as a Literal of them all
    "svg.fonttype": "none",
    "svg.hashsalt": "salad",  # the same results give the same bytes
    "text.parse_math": False,  # a name with two dollar signs is a name
    "font.size": 10,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # wider than what a browser puts in its place, so nothing runs over
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "grid.alpha": 0.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.columnspacing": 1.2,
    "legend.handlelength": 2.6,  # a whole dash
    "legend.labelcolor": INK,
}


@contextmanager
def drawing_style() -> Iterator[None]:
    """Figures made in here look as the page wants them."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Measured in a font that may lack a letter of somebody's cluster name; the browser has its own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def inline_svg(figure: Figure, name: str, alternative: str) -> str:
    """The figure as an <svg> element for an HTML page; its ids begin with `name`, for a page has many figures."""
    written = io.BytesIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(written.getvalue())
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(key): value for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({key: _of_page(key, value, name) for key, value in attributes.items()})
    for unneeded in root.findall("metadata"):
        root.remove(unneeded)
    for key in ("width", "height", "version", "id"):
        root.attrib.pop(key, None)
    root.attrib.update({"role": "img", "aria-label": alternative})
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _of_page(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-", 1)
    value = re.sub(r"url\(#", f"url(#{name}-", value)
    for stand_in, in_css in IN_CSS.items():
        value = value.replace(stand_in, in_css)
    # The browser's own letters, and no names of fonts that it would have to look for
    return re.sub(r"(font(?:-family)?: [^;]*?)'DejaVu Sans'(?:, [^;]*)?", r"\1sans-serif", value)
