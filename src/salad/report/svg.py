"""Matplotlib to SVG: transparent, text as text, and colours as the page's own variables, or a file's light ones.

Every colour of a figure is a stand-in of palette.py; in a page it becomes `currentColor` or a CSS variable, so that one
figure is right on light and on dark, on the screen and on paper.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from salad.report.palette import PALETTE, stand_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, PAGE = stand_in("ink"), stand_in("faint"), stand_in("page")
ARM_COLOURS = {
    arm: stand_in(arm.replace("_", "-"))
    for arm in ("untrained", "stage_one", "stage_two", "stage_two_uniform", "stage_three")
}
IN_CSS = {stand_in(name): "currentColor" if name == "ink" else f"var(--{name})" for name in PALETTE}
IN_FILE = {in_css: PALETTE[name][0] for name, in_css in zip(PALETTE, IN_CSS.values(), strict=True)}
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
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.columnspacing": 1.2,
    "legend.handlelength": 2.6,  # a whole dash
    "legend.labelcolor": INK,
}
_SVG = "http://www.w3.org/2000/svg"


def printable(text: str) -> str:
    """The text on one line, without what can't stand in XML or has no shape."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


@contextmanager
def drawing_style() -> Iterator[None]:
    """Figures made in here look as the page wants them."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Measured in a font that may lack a letter of somebody's cluster name; the browser has its own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def inline_svg(figure: Figure, name: str, alternative: str, tips: Mapping[str, Sequence[str]] | None = None) -> str:
    """The figure as an <svg> element for an HTML page; its ids begin with `name`, for a page has many figures.

    `tips`: gid of a collection of marks → what each mark tells who points at it or comes to it by keyboard, in order.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    written = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(written, metadata={"Date": None})  # savefig lays out and draws all twice
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
    # Marks that can be reached are a group's members; an image has none.
    root.attrib.update({"role": "group" if tips else "img", "aria-label": printable(alternative)})
    for gid, told in (tips or {}).items():
        _add_tips(root, f"{name}-{gid}", told)
    return ElementTree.tostring(root, encoding="unicode")


def svg_file(inline: str) -> str:
    """The figure as a file of its own: the same in the light colours, on nothing."""
    for in_css, colour in IN_FILE.items():
        inline = inline.replace(in_css, colour)
    return inline.replace("<svg ", f'<svg xmlns="{_SVG}" ', 1)


def _add_tips(root: ElementTree.Element, gid: str, told: Sequence[str]) -> None:
    """Every mark of a collection gets its words; the first alone is a stop of Tab, arrows lead to the others."""
    group = next(element for element in root.iter("g") if element.get("id") == gid)
    shapes = {shape for defs in group.iter("defs") for shape in defs}
    marks = [element for element in group.iter() if element.tag in ("path", "use") and element not in shapes]
    for place, (mark, words) in enumerate(zip(marks, told, strict=True)):
        if mark.tag == "path" and "C" in mark.get("d", ""):
            _as_circle(mark)
        mark.attrib.update({"class": "mark", "role": "img", "tabindex": "-1" if place else "0"})
        title = ElementTree.SubElement(mark, "title")
        title.text = printable(words)


def _as_circle(mark: ElementTree.Element) -> None:
    """A round path as a circle, a third of its size: a map has thousands. Its curves' own points lie on its box."""
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", mark.attrib.pop("d"))]
    (left, right), (top, bottom) = ((min(own), max(own)) for own in (numbers[0::2], numbers[1::2]))
    mark.attrib.pop("clip-path", None)
    mark.tag = "circle"
    mark.attrib |= {
        "cx": f"{(left + right) / 2:.2f}",
        "cy": f"{(top + bottom) / 2:.2f}",
        "r": f"{(right - left) / 2:.2f}",
    }


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _of_page(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-", 1)
    if "url(#" in value:
        value = value.replace("url(#", f"url(#{name}-")
    if "#0101" in value:
        for colour, in_css in IN_CSS.items():
            value = value.replace(colour, in_css)
    if "DejaVu" not in value:
        return value
    # The browser's own letters, and no names of fonts that it would have to look for
    return re.sub(r"(font(?:-family)?: [^;]*?)'DejaVu Sans'(?:, [^;]*)?", r"\1sans-serif", value)
