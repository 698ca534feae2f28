"""What the flows' cards show: live curves while training, pictures and tables after. Knows no models and no data."""

import base64
import html
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metaflow.cards import Markdown, ProgressBar, Table, VegaChart

REDRAW_SECONDS = 20.0
"""While training runs, its card is written this often: each time costs a process and about a CPU-second."""


class LiveCurves:
    """Progress and curves of one training, in a card that refreshes itself."""

    def __init__(self, card: Any, title: str) -> None:
        self._card = card
        self._progress = ProgressBar(max=100, label="percent of all steps")
        self._status = Markdown("waiting for the first step")
        self._loss: list[dict[str, Any]] = []
        self._accuracy: list[dict[str, Any]] = []
        self._loss_chart = VegaChart(_curves("loss", "cross-entropy"))
        self._accuracy_chart = VegaChart(_curves("accuracy", "validation accuracy"))
        # One component that grows: to append another would have Metaflow render the card anew, and training wait.
        self._pictures = Markdown("")
        self._shown: list[str] = []
        card.append(Markdown(f"# {title}"))
        card.append(self._progress)
        card.append(self._status)
        card.append(self._loss_chart)
        card.append(self._accuracy_chart)
        card.append(self._pictures)
        self._draw()

    def step(self, done: int, total: int, loss: float) -> None:
        """Show how far training is, and what else is new, unless the card was drawn just now.

        What comes after the last step is in the card that Metaflow writes at the end of the task.
        """
        self._progress.update(round(100 * done / total))
        self._status.update(f"step {done:,} of {total:,}, loss {loss:.3f}")
        if time.monotonic() - self._drawn >= REDRAW_SECONDS:
            self._draw()

    def epoch(self, number: int, losses: Mapping[str, float], accuracies: Mapping[str, float]) -> None:
        """Add a point to each curve.

        Args:
            number: of the epoch, from 1.
            losses: curve -> mean loss.
            accuracies: curve -> accuracy in [0, 1].
        """
        self._loss += [{"epoch": number, "of": name, "value": value} for name, value in losses.items()]
        self._accuracy += [{"epoch": number, "of": name, "value": value} for name, value in accuracies.items()]
        self._loss_chart.update(_curves("loss", "cross-entropy", self._loss))
        self._accuracy_chart.update(_curves("accuracy", "validation accuracy", self._accuracy))

    def picture(self, caption: str, png: bytes) -> None:
        """Append a picture (PNG)."""
        self._shown.append(f"## {caption}\n\n{_image(caption, png)}")
        self._pictures.update("\n\n".join(self._shown))

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._card.refresh()


def show(card: Any, *, title: str, texts: Iterable[str] = (), pictures: Mapping[str, bytes] | None = None) -> None:
    """Append a heading, paragraphs and pictures to a card.

    Args:
        card: Metaflow's `current.card[id]`.
        title: the heading.
        texts: paragraphs, in Markdown.
        pictures: caption -> PNG.
    """
    card.append(Markdown(f"# {title}"))
    for text in texts:
        card.append(Markdown(text))
    for caption, png in (pictures or {}).items():
        card.append(Markdown(f"## {caption}"))
        card.append(Markdown(_image(caption, png)))


def table(card: Any, heading: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append a table to a card, unless it has no rows.

    Args:
        card: Metaflow's `current.card[id]`.
        heading: of the table.
        rows: one mapping of column to cell each.
    """
    if rows:
        card.append(Markdown(f"## {heading}"))
        card.append(Table([[str(value) for value in row.values()] for row in rows], headers=list(rows[0])))


def append_page(card: Any, page: str) -> None:
    """Append a whole HTML page, in a frame of its own."""
    frame = 'title="report" style="width: 100%; height: 90vh; border: 0"'
    card.append(Markdown(f'<iframe {frame} srcdoc="{html.escape(page)}"></iframe>'))


def _image(caption: str, png: bytes) -> str:
    """Markdown of a picture as wide as the card: Metaflow's own Image is cut down to a height that no one can read."""
    encoded = base64.b64encode(png).decode()
    return f'<img alt="{caption}" style="max-width: 100%" src="data:image/png;base64,{encoded}">'


def _curves(name: str, label: str, points: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": list(points)},
        "title": label,
        "width": "container",
        "height": 220,
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": {"field": "epoch", "type": "ordinal", "axis": {"labelAngle": 0, "labelOverlap": "greedy"}},
            "y": {"field": "value", "type": "quantitative", "scale": {"zero": False}, "title": name},
            "color": {"field": "of", "type": "nominal", "title": None},
        },
    }
