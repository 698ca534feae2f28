"""Uploads that are almost pictures: good and bad ones with bytes changed, cut, doubled; and large ones of few bytes."""

import random
from collections.abc import Iterator

from PIL import Image

from .pictures import bad_pictures, garment, good_pictures, saved

LARGE = 0.03
"""Share of large pictures among the uploads."""


def large_pictures(megapixels: float) -> dict[str, bytes]:
    """Pictures of one size in the formats and modes that take most memory.

    Args:
        megapixels: of each.
    """
    edge = int((megapixels * 1e6) ** 0.5)
    rgb = garment("RGB", (400, 400)).resize((edge, edge), Image.Resampling.NEAREST)
    kinds: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "png": (rgb, "PNG", {"compress_level": 1}),
        "png with transparency": (rgb.convert("RGBA"), "PNG", {"compress_level": 1}),
        "jpeg": (rgb, "JPEG", {}),
        "progressive jpeg": (rgb, "JPEG", {"progressive": True}),
        "progressive jpeg, all colours": (rgb, "JPEG", {"progressive": True, "subsampling": 0}),
        "cmyk jpeg": (rgb.convert("CMYK"), "JPEG", {}),
        "webp": (rgb, "WEBP", {"method": 0}),
        "gif": (rgb.convert("P"), "GIF", {}),
        "tiff": (rgb, "TIFF", {"compression": "tiff_deflate"}),
    }
    return {name: saved(picture, kind, **options) for name, (picture, kind, options) in kinds.items()}


def mutated_uploads(seed: int, large: dict[str, bytes]) -> Iterator[bytes]:
    """Uploads without an end, the same for the same seed.

    Args:
        seed: of the choices.
        large: pictures of which `LARGE` of the uploads are made.
    """
    rng = random.Random(seed)
    usual = [*good_pictures().values(), *(content for content, _ in bad_pictures().values())]
    while True:
        content = rng.choice(list(large.values()) if rng.random() < LARGE else usual)
        for _ in range(rng.choice((0, 1, 1, 3, 10))):
            content = _mutate(rng, content)
        yield content


def _mutate(rng: random.Random, content: bytes) -> bytes:
    if not content:
        return content
    at = min(int(rng.expovariate(1 / 200)), len(content) - 1) if rng.random() < 0.5 else rng.randrange(len(content))
    kind = rng.randrange(5)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + content[at + rng.randrange(64) :]
    if kind == 2:
        return content[:at] + rng.randbytes(rng.randrange(1, 9)) + content[at + 8 :]
    if kind == 3:
        return content[:at] + content[max(0, at - 64) : at] + content[at:]
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
