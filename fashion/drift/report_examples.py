"""Pictures of unusual rows in a drift report, each beside a typical one. Knows no tests."""

import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from fashion.data.dataset import Split
from fashion.drift.window_part import UnusualRow
from fashion.images import image_store
from fashion.images.image_store import DamagedImage
from fashion.images.transform import Images
from fashion.predictions.record import UNLABELLED
from fashion.storage.blobs import BlobNotFound, Store


@dataclass(frozen=True, eq=False)
class Example:
    """An unusual row's picture, and a typical picture of its predicted class."""

    row: UnusualRow
    picture: Images | None
    """None if pictures are not stored, or this one is missing or damaged."""
    typical: Images | None
    """None without held-out pictures of this class."""


def load_examples(unusual_rows: Sequence[UnusualRow], store: Store, held_out: Split | None) -> list[Example]:
    """Load the pictures of unusual rows, and pair each with a held-out picture of its predicted class.

    Args:
        unusual_rows: the rows.
        store: where users' pictures are stored.
        held_out: pictures to compare them with, with the labels that the model predicts; None if not available.
    """
    examples = []
    used: Counter[int] = Counter()
    for row in unusual_rows:
        try:
            picture = image_store.get(store, row.image_sha256)
        except (BlobNotFound, DamagedImage):
            picture = None
        typical = None
        if held_out is not None and (same_class := np.flatnonzero(held_out.labels == row.label)).size:
            typical = held_out.images[same_class[used[row.label] % len(same_class)]]
            used[row.label] += 1
        examples.append(Example(row, picture, typical))
    return examples


def section(examples: Sequence[Example], class_names: Sequence[str]) -> Iterator[str]:
    """The section of the report, as HTML; nothing without examples."""
    if not examples:
        return
    yield "<section><h2>The most unusual rows</h2>"
    if all(each.picture is None for each in examples):
        yield "<p>Their pictures were not stored: <code>serve.log.images=true</code> stores them.</p>"
    yield "<div class='examples'>"
    for each in examples:
        name, true = class_names[each.row.label], each.row.true_label
        feedback = "" if true == UNLABELLED else f"<br>feedback: {escape(class_names[true])}"
        yield (
            f"<figure>{_picture(each.picture, 'as sent')}{_picture(each.typical, f'a typical {name}')}"
            f"<figcaption><b>{escape(name)}</b>confidence {each.row.confidence:.0%}{feedback}<br>"
            f"<span class='id'>{escape(each.row.prediction_id)}</span></figcaption></figure>"
        )
    yield (
        "</div><p class='small'>Left: what the network saw. Right: a held-out picture of the predicted class. The rows "
        "are those whose image statistics and embedding are farthest from the reference's.</p></section>"
    )


def _picture(image: Images | None, name: str) -> str:
    if image is None:
        return f"<span class='none' title='{escape(name)}'>no picture</span>"
    encoded = base64.b64encode(image_store.to_png(image)).decode()
    return f"<img alt='{escape(name)}' title='{escape(name)}' src='data:image/png;base64,{encoded}'>"
