"""Lay out a figure: a headline that states the finding, measured text, plain axes. Knows no metrics and no images.

Uses matplotlib's object interface and never pyplot, so drawing changes no global state. The colours are Okabe and
Ito's, which colour-blind readers can distinguish, and never the only cue. Text is drawn literally, `$` included.
"""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

DPI = 150
INK, MUTED, GRID, PALE = "#1a1a1a", "#5f5f5f", "#dedede", "#e6e6e6"
BLUE, VERMILION = "#0072b2", "#d55e00"
MARGIN = 0.25
"""Width of the margin at each edge of a figure, in inches."""
TIMES, ELLIPSIS = "\N{MULTIPLICATION SIGN}", "\N{HORIZONTAL ELLIPSIS}"


def to_png(figure: Figure, *, dpi: int = DPI) -> bytes:
    """Render a figure as a PNG; equal figures give equal bytes.

    Args:
        figure: the figure to render.
        dpi: pixels per inch; below 96, long lines of text may be cut off at the edge.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def new_figure(width: float, height: float, title: str, subtitle: str) -> Figure:
    """Make a figure with a headline that wraps and is never cut off.

    Args:
        width: least width of the body in inches.
        height: height of the body in inches.
        title: the finding, in bold.
        subtitle: how to read the figure.
    """
    return _add_headline(width, height, title, subtitle)[0]


def new_plot(width: float, height: float, title: str, subtitle: str) -> tuple[Figure, Axes]:
    """Make a figure with a headline and one axes.

    Args:
        width: least width of the body in inches.
        height: height of the body in inches.
        title: the finding, in bold.
        subtitle: how to read the figure.
    """
    figure = new_figure(width, height, title, subtitle)
    return figure, figure.add_subplot()


def new_canvas(width: float, height: float, title: str, subtitle: str) -> tuple[Figure, Axes, float, float]:
    """Make a figure with a headline and one bare axes in inches, y downwards.

    One axes for a gallery draws several times faster than one for each image.

    Args:
        width: least width of the body in inches.
        height: height of the body in inches.
        title: the finding, in bold.
        subtitle: how to read the figure.

    Returns:
        The figure, its axes, and the left and top of its body in inches.
    """
    figure, top = _add_headline(width, height, title, subtitle)
    full_width, full_height = figure.get_size_inches()
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, full_width), ylim=(full_height, 0), autoscale_on=False)
    axes.set_axis_off()
    return figure, axes, MARGIN, top


def style_axes(axes: Any, *, spines: Sequence[str], grid: str | None) -> None:
    """Show only the named spines and the grid of one axis, hide tick marks, and draw all text literally.

    Args:
        axes: the axes, or a colour bar's.
        spines: of `left`, `right`, `top` and `bottom`.
        grid: `x`, `y`, `both` or None.
    """
    for name, spine in axes.spines.items():
        spine.set_visible(name in spines)
        spine.set_color("#888888")
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=10, labelcolor=INK)
    for text in axes.findobj(Text):
        text.set_parse_math(False)


def shorten(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """Shorten a text with an ellipsis so that it fits.

    Args:
        text: the text to shorten.
        width: the room in inches.
        size: font size in points.
        bold: whether the text is bold.
    """
    short = text
    while text_width(short, size, bold=bold) > width and len(short) > 1:
        short = short.removesuffix(ELLIPSIS)[:-1].rstrip() + ELLIPSIS
    return short


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return the greatest width of a text in inches at 96 dots per inch or more.

    Args:
        text: the text to measure.
        size: font size in points.
        bold: whether the text is bold.
    """
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    points, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    # Rounding glyphs to whole pixels widens a line: up to 9 % at 100 dots per inch, 6 % at 150 (n = 36).
    return 1.09 * float(points) / 72


def _add_headline(width: float, height: float, title: str, subtitle: str) -> tuple[Figure, float]:
    width = max(width, 7.0)
    titles, subtitles = _wrap(title, width, 15, bold=True), _wrap(subtitle, width, 10.5)
    top = MARGIN + 0.27 * len(titles) + 0.06 + 0.2 * len(subtitles) + 0.2
    full_width, full_height = width + 2 * MARGIN, height + top + MARGIN
    figure = Figure(figsize=(full_width, full_height), dpi=DPI, facecolor="white")
    y = MARGIN
    for lines, size, step, weight, colour in (
        (titles, 15, 0.27, "bold", INK),
        (subtitles, 10.5, 0.2, "normal", MUTED),
    ):
        for line in lines:
            y += step
            x = MARGIN / full_width
            figure.text(x, 1 - y / full_height, line, fontsize=size, fontweight=weight, color=colour, parse_math=False)
        y += 0.06
    sides = (MARGIN / full_width, MARGIN / full_height, width / full_width, height / full_height)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=sides, w_pad=0.06, h_pad=0.06, wspace=0.05))
    return figure, top


def _wrap(text: str, width: float, size: float, *, bold: bool = False) -> list[str]:
    """Break a text into lines of at most `width` inches; a number and its percent sign stay together."""
    lines = [""]
    for word in text.replace(" %", "\N{NO-BREAK SPACE}%").split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size, bold=bold) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]
