"""Colour pictures of shapes, as somebody's own: of mixed sizes, imbalanced, with what lies about in folders."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("circle", "square", "triangle")


def shape(kind: str, rng: np.random.Generator, *, edges: tuple[int, int] = (40, 120)) -> Image.Image:
    """One picture.

    Args:
        kind: of `KINDS`.
        rng: of sizes, colours, place and noise.
        edges: shortest and longest edge in pixels.
    """
    width, height = (int(edge) for edge in rng.integers(*edges, 2, endpoint=True))
    background = tuple(int(level) for level in rng.integers(0, 256, 3))
    colour = tuple((level + 128) % 256 for level in background)
    picture = Image.new("RGB", (width, height), background)
    radius = min(width, height) * rng.uniform(0.25, 0.45)
    x, y = width / 2 + rng.uniform(-0.1, 0.1) * width, height / 2 + rng.uniform(-0.1, 0.1) * height
    box, draw = (x - radius, y - radius, x + radius, y + radius), ImageDraw.Draw(picture)
    if kind == "circle":
        draw.ellipse(box, fill=colour)
    elif kind == "square":
        draw.rectangle(box, fill=colour)
    else:
        turn = rng.uniform(0, 2 * math.pi)
        angles = [turn + 2 * math.pi * corner / 3 for corner in range(3)]
        draw.polygon([(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles], fill=colour)
    noisy = np.asarray(picture) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def as_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def write_shapes(folder: Path, counts: dict[str, int], *, seed: int = 0) -> Path:
    """Class folders of shapes, with a broken file, a text file, and an operating system's file."""
    rng = np.random.default_rng(seed)
    for kind, count in counts.items():
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            shape(kind, rng).save(folder / kind / f"{number}.{'jpg' if number % 3 else 'png'}")
    first = folder / next(iter(counts))
    (first / "broken.jpg").write_bytes((first / "1.jpg").read_bytes()[:200])
    (first / "notes.txt").write_text("taken in May")
    (folder / "Thumbs.db").write_bytes(b"\0")
    return folder
