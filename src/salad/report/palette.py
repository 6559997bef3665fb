"""The colours of all pages and figures, light and dark: the style sheet and saved figures take them from here.

After Okabe and Ito (2008), darkened on light and lightened on dark until text reaches 4.5 : 1 and marks 3 : 1 against
what they stand on (WCAG 2.2, AA; tests compute it). Where two colours may be mistaken for each other by anyone, shape,
dashes or a label say the same.
"""

from __future__ import annotations

PALETTE: dict[str, tuple[str, str]] = {
    "page": ("#ffffff", "#15171a"),
    "panel": ("#f4f5f7", "#1e2125"),
    "ink": ("#1b1d21", "#e6e8eb"),
    "faint": ("#5f656e", "#a0a7b1"),
    "line": ("#d5d9df", "#363b42"),
    # arms, and what stands beside them
    "untrained": ("#5f6670", "#a3abb6"),
    "stage-one": ("#0072b2", "#56b4e9"),
    "stage-two": ("#c04a00", "#f28e3c"),
    "stage-two-uniform": ("#007a59", "#2fc498"),
    "topline": ("#33373e", "#d3d7dd"),
    "cascade": ("#9a3f76", "#e08dbd"),
    # parts of the gap
    "forgotten": ("#8a6100", "#e6b422"),
    "heard-wrong": ("#0072b2", "#56b4e9"),
    "misaligned": ("#c04a00", "#f28e3c"),
    # what a verdict is told in
    "good": ("#00684c", "#3fcf9f"),
    "bad": ("#b02a10", "#ff8a73"),
    "bad-page": ("#fdecea", "#3a1c17"),
    "unsure": ("#7a5800", "#eec04c"),
    "plain": ("#5f6670", "#a3abb6"),
    # the arm that came last
    "stage-three": ("#7b4bb0", "#b995e6"),
}
"""Name → (light, dark)."""

SERIES = ("stage-one", "stage-two", "stage-two-uniform", "cascade", "forgotten", "untrained")
"""Colours of several runs beside each other, in their order; a seventh has the first again, with another mark."""


def palette_css() -> str:
    """The colours as custom properties that follow `color-scheme`."""
    return "".join(f"  --{name}: light-dark({light}, {dark});\n" for name, (light, dark) in PALETTE.items())


def stand_in(name: str) -> str:
    """The colour that a figure is drawn in where the page will put its own `name`: no figure has it otherwise."""
    return f"#0101{list(PALETTE).index(name) + 1:02x}"
