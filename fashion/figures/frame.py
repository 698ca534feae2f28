"""Draw what an evaluation found, fit for a stranger: the title says the finding, the axes the units.

Knows arrays, names and matplotlib's object interface; not where the numbers came from nor where pictures go.
Never imports pyplot, so drawing leaves no global state behind. Colours are Okabe and Ito's, told apart by
colour-blind readers, and never the only sign. Class names are printed as they are, `$` included.
"""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

from fashion.metrics.classification import wilson_interval

DPI = 150
INK, MUTED, GRID, PALE = "#1a1a1a", "#5f5f5f", "#dedede", "#e6e6e6"
BLUE, VERMILION = "#0072b2", "#d55e00"
MISTAKES = LinearSegmentedColormap.from_list("mistakes", ["white", "#fdd0a2", VERMILION, "#7f2704"])
MARGIN = 0.25
"""Inches left free at each edge of a figure."""
EN_DASH, TIMES, ELLIPSIS = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}", "\N{HORIZONTAL ELLIPSIS}"


def to_png(figure: Figure, *, dpi: int = DPI) -> bytes:
    """The figure as the bytes of a PNG, its size in inches times dpi; equal figures give equal bytes.

    Below 96 dots per inch long lines may reach over the edge.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


# The frame of a figure: all lengths in inches


def new_figure(width: float, height: float, title: str, subtitle: str) -> Figure:
    """A figure whose body is at least this large, under a headline that wraps and is never cut off."""
    return _headed(width, height, title, subtitle)[0]


def plot(width: float, height: float, title: str, subtitle: str) -> tuple[Figure, Axes]:
    figure = new_figure(width, height, title, subtitle)
    return figure, figure.add_subplot()


def canvas(width: float, height: float, title: str, subtitle: str) -> tuple[Figure, Axes, float, float]:
    """A figure with one bare axes in inches, y downwards, and the left and top of its body.

    One axes for a gallery draws several times faster than an axes for each picture.
    """
    figure, top = _headed(width, height, title, subtitle)
    full_width, full_height = figure.get_size_inches()
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, full_width), ylim=(full_height, 0), autoscale_on=False)
    axes.set_axis_off()
    return figure, axes, MARGIN, top


def _headed(width: float, height: float, title: str, subtitle: str) -> tuple[Figure, float]:
    width = max(width, 7.0)
    titles, subtitles = _wrapped(title, width, 15, bold=True), _wrapped(subtitle, width, 10.5)
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


def plain_axes(axes: Any, *, spines: Sequence[str], grid: str | None) -> None:
    for name, spine in axes.spines.items():
        spine.set_visible(name in spines)
        spine.set_color("#888888")
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=10, labelcolor=INK)
    for text in axes.findobj(Text):
        text.set_parse_math(False)


# Parts of figures


def percent_text(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def interval_text(part: int, whole: int) -> str:
    low, high = wilson_interval(int(part), int(whole))
    return f"{100 * low:.1f}{EN_DASH}{100 * high:.1f} %"


def shortened(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """Text cut, and said to be cut, to at most this many inches."""
    kept = text
    while text_width(kept, size, bold=bold) > width and len(kept) > 1:
        kept = kept.removesuffix(ELLIPSIS)[:-1].rstrip() + ELLIPSIS
    return kept


def _wrapped(text: str, width: float, size: float, *, bold: bool = False) -> list[str]:
    """Lines of at most this many inches; a number keeps its percent sign."""
    lines = [""]
    for word in text.replace(" %", "\N{NO-BREAK SPACE}%").split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size, bold=bold) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Inches that the text takes at most, at 96 dots per inch or more."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    points, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    # Rounding glyphs to whole pixels widens a line: by up to 9 % at 100 dots per inch, 6 % at 150 (n = 36).
    return 1.09 * float(points) / 72


# What is refused
