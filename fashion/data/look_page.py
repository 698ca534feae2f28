"""One page of pictures to look through: labels that may be wrong, unusual pictures, near copies in two splits."""

import base64
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from fashion.data import similar, suspects
from fashion.data.dataset import Dataset, Split
from fashion.images import image_store
from fashion.images.transform import Images

SUSPECTS, UNUSUAL, PAIRS = 600, 100, 200
"""Most pictures of each section."""
HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }} body {{ font: 15px/1.4 system-ui, sans-serif; max-width: 1100px; margin: 24px auto;
  padding: 0 16px }} ol {{ list-style: none; padding: 0; display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)) }} img {{ width: 100%; image-rendering: pixelated;
  background: #8882 }} small {{ display: block; overflow-wrap: anywhere; opacity: .8 }}
</style></head><body>
<h1>{title}</h1>
"""
SOME = """<p>The first {count:,} of {total:,} were looked at ({names}); near copies were looked for among all.</p>
"""


def page(data: Dataset, paths: dict[str, Sequence[str]] | None = None) -> str:
    """Render the page.

    Args:
        data: the first `suspects.MOST_ROWS` rows are looked at, of training, then of validation, then of the test. Near
            copies are looked for among all.
        paths: the file of each row, by split; None where they are not known.
    """
    names = list(data.splits)
    images = np.concatenate([split.images for split in data.splits.values()])[: suspects.MOST_ROWS]
    labels = np.concatenate([split.labels for split in data.splits.values()])[: suspects.MOST_ROWS]
    where = [f"{name} {row:,}" for name in names for row in range(len(data.splits[name]))]
    if paths is not None:
        where = [f"{name}: {path}" for name in names for path in paths[name]]
    rows = Split(images, labels)
    found = suspects.look(images, labels, num_classes=len(data.class_names))
    count, total = len(labels), len(where)
    parts = [
        HEAD.format(title=escape(f"{data.name}: {count:,} pictures to look through")),
        *([] if count == total else [SOME.format(count=count, total=total, names=", then ".join(names))]),
        *_suspects(rows, found, data.class_names, where),
        *_pairs(data, where),
        *_unusual(rows, found, data.class_names, where),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _suspects(rows: Split, found: suspects.Suspects, class_names: Sequence[str], where: Sequence[str]) -> Iterator[str]:
    yield "<h2>Labels that may be wrong</h2><p>A classifier that has not seen the picture finds its label unlikely. "
    yield "The likeliest mistakes come first; of a clean data set, most are none.</p><ol>"
    for row in found.most_suspicious(min(SUSPECTS, max(20, len(rows) // 20))):
        said = f"is {escape(class_names[rows.labels[row]])}, looks like {escape(class_names[found.likelier[row]])}"
        yield _item(rows.images[row], f"<b>{said}</b>", f"{found.confidence[row]:.1%}, {where[row]}")
    yield "</ol>"


def _unusual(rows: Split, found: suspects.Suspects, class_names: Sequence[str], where: Sequence[str]) -> Iterator[str]:
    yield "<h2>Unusual pictures</h2><p>They are like no class.</p><ol>"
    for row in found.most_unusual(min(UNUSUAL, max(10, len(rows) // 50))):
        yield _item(rows.images[row], escape(class_names[rows.labels[row]]), where[row])
    yield "</ol>"


def _pairs(data: Dataset, where: Sequence[str]) -> Iterator[str]:
    names = [name for name, split in data.splits.items() for _ in range(len(split))]
    images = np.concatenate([split.images for split in data.splits.values()])
    keys = similar.content_keys(images)
    pairs = sorted({*similar.equal_pairs(keys), *similar.near_pairs(images)})
    across = [pair for pair in pairs if names[pair[0]] != names[pair[1]]]
    yield f"<h2>Copies and near copies in two splits</h2><p>{len(across):,} pairs.</p><ol>"
    for one, other in across[:PAIRS]:
        yield _item(np.concatenate([images[one], images[other]], axis=1), "", f"{where[one]}; {where[other]}")
    yield "</ol>"


def _item(image: Images, said: str, small: str) -> str:
    png = base64.b64encode(image_store.to_png(image)).decode()
    return f'<li><img alt="" loading="lazy" src="data:image/png;base64,{png}">{said}<small>{escape(small)}</small></li>'
