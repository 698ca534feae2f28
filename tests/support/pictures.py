"""Uploads by name: good pictures in every format and mode, and bytes that must be rejected."""

import functools
import gzip
import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from fashion.images import image_store
from fashion.storage.blobs import Store

SIZE = (40, 52)


def garment(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """A dark shape on a white background."""
    picture = Image.new("RGB", size, "white")
    width, height = size
    shape = Image.new("RGB", (width // 2, height // 2), (70, 40, 90))
    picture.paste(shape, (width // 4, height // 3))
    if mode in ("LA", "RGBA"):
        picture = picture.convert(mode)
        picture.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))))
        return picture
    if mode == "I;16":
        return Image.fromarray((np.asarray(picture.convert("L")).astype(np.uint16)) * 257)
    if mode in ("I", "F"):
        return picture.convert("L").convert(mode)
    return picture.convert(mode)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a picture in a format."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of raw chunks, with right checksums."""
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return content


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk, after its header."""
    return png[:33] + png_of((kind, data))[8:] + png[33:]


def interlaced(pixels: np.ndarray) -> bytes:
    """A grey PNG in the seven passes of Adam7, which Pillow reads but does not write."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [row for y, x, down, right in passes for row in pixels[y::down, x::right] if row.size]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 0, 0, 0, 1)
    content = zlib.compress(b"".join(b"\x00" + row.tobytes() for row in rows))
    return png_of((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))


def run_length_bmp(width: int, height: int, body: bytes) -> bytes:
    """A BMP of 256 colours whose pixels are run lengths."""
    start = 14 + 40 + 1024
    head = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0) + bytes(1024) + body


def rewritten_jpeg(size: tuple[int, int], times: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    whole = saved(Image.new("L", size), "JPEG", progressive=True)
    return whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * times + whole[-2:]


def tiled_tiff(edge: int) -> bytes:
    """A TIFF of 16x16 pixels in one tile that claims to be much larger."""
    entries = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), (322, edge), (323, edge)]
    entries += [(324, 200), (325, 20)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in entries)
    return (b"II*\x00\x08\x00\x00\x00" + directory + bytes(4)).ljust(200, b"\x00") + zlib.compress(bytes(1000))


def canvas_webp(width: int, height: int) -> bytes:
    """An animation of one small frame on a canvas of any size."""
    frame = saved(Image.new("RGB", (16, 16)), "WEBP", lossless=True)[12:]
    edges = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    content = bytes(6) + b"\x0f\x00\x00" * 2 + bytes(4) + frame
    body = b"WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00" + edges + b"ANIM\x06\x00\x00\x00" + bytes(6)
    body += b"ANMF" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


def stored_digests(store: Store) -> set[str]:
    """The sha256 of every image in a store."""
    return {Path(name).stem for name in store.list(image_store.PREFIX)}


@functools.cache
def good_pictures() -> dict[str, bytes]:
    """Pictures in every format and in each of its modes."""
    modes = {
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "BMP": ("1", "L", "P", "RGB", "RGBA"),
        "JPEG": ("L", "RGB", "CMYK"),
        "GIF": ("L", "P", "RGB"),
        "WEBP": ("L", "RGB", "RGBA"),
        "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"),
    }
    pictures = {f"{kind} {mode}": saved(garment(mode), kind) for kind, all_modes in modes.items() for mode in all_modes}
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures["JPEG rotated by EXIF"] = saved(garment(), "JPEG", exif=exif)
    pictures["PNG rotated by EXIF"] = saved(garment(), "PNG", exif=exif)
    pictures["JPEG progressive"] = saved(garment(), "JPEG", progressive=True)
    pictures["TIFF compressed"] = saved(garment(), "TIFF", compression="tiff_lzw")
    pictures["PNG palette with transparency"] = saved(garment("P"), "PNG", transparency=0)
    pictures["PNG RGB with transparency"] = saved(garment(), "PNG", transparency=(255, 255, 255))
    pictures["GIF of two frames"] = saved(garment("P"), "GIF", save_all=True, append_images=[garment("L").convert("P")])
    pictures["PNG interlaced"] = interlaced(np.asarray(garment("L", (28, 28))))
    pictures["JPEG of several pictures"] = saved(garment(), "MPO", save_all=True, append_images=[garment()])
    pictures["BMP with run lengths"] = run_length_bmp(30, 40, b"\x1e\x05\x00\x00" * 40 + b"\x00\x01")
    pictures["PNG with broken EXIF"] = with_chunk(saved(garment("L", (28, 28)), "PNG"), b"eXIf", b"no tags at all")
    pictures["TIFF large 16 bit"] = saved(garment("I;16", (1600, 1200)), "TIFF", compression="tiff_lzw")
    pictures["PNG large palette with transparency"] = saved(garment("P", (1600, 1200)), "PNG", transparency=0)
    pictures["PNG large bits"] = saved(garment("1", (1600, 1200)), "PNG")
    pictures["PNG 1x1"] = saved(garment("L", (1, 1)), "PNG")
    pictures["PNG 1x400"] = saved(garment("L", (1, 400)), "PNG")
    pictures["PNG 400x1"] = saved(garment("L", (400, 1)), "PNG")
    pictures["PNG 3x2"] = saved(garment("RGB", (3, 2)), "PNG")
    pictures["JPEG 1600x1200"] = saved(garment("RGB", (1600, 1200)), "JPEG")
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        pictures[f"PNG 28x28 {mode}"] = saved(garment(mode, (28, 28)), "PNG")
    nothing = np.full((30, 30), np.nan, np.float32)
    nothing[5:20, 5:20] = 0.5
    pictures["TIFF with NaN"] = saved(Image.fromarray(nothing), "TIFF")
    return pictures


@functools.cache
def bad_pictures() -> dict[str, tuple[bytes, str]]:
    """Bytes that must be rejected, and the code of the error."""
    pictures: dict[str, tuple[bytes, str]] = {"empty": (b"", "empty")}

    def no_image(name: str, content: bytes) -> None:
        pictures[name] = (content, "not_an_image")

    def broken(name: str, content: bytes) -> None:
        pictures[name] = (content, "undecodable")

    def huge(name: str, content: bytes) -> None:
        pictures[name] = (content, "too_large")

    no_image("one byte", b"\x00")
    no_image("a letter", b"a")
    no_image("text", b"this is no picture")
    no_image("UTF-16 text", "this is no picture".encode("utf-16"))
    no_image("HTML", b"<!doctype html><html><body>hello</body></html>")
    no_image("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>')
    no_image("JSON", b'{"image": "x"}')
    no_image("CSV", b"prediction_id,true_label\n")
    no_image("PDF", b"%PDF-1.7\n1 0 obj\n<< >>\nendobj\n%%EOF\n")
    no_image("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    no_image("ELF", b"\x7fELF\x02\x01\x01" + bytes(64))
    no_image("Windows program", b"MZ\x90\x00" + bytes(64))
    no_image("gzip", gzip.compress(b"hello"))
    no_image("pickle", pickle.dumps({"image": 1}))
    no_image("zeros", bytes(1000))
    no_image("ones", b"\xff" * 1000)
    no_image("noise", np.random.default_rng(0).bytes(5000))
    no_image("newlines", b"\r\n" * 100)
    no_image("IDX file", struct.pack(">IIII", 2051, 1, 28, 28) + bytes(784))
    no_image("raw pixels", bytes(range(256)) * 3 + bytes(16))
    no_image("MP4", b"\x00\x00\x00\x18ftypmp42" + bytes(64))
    no_image("WAV", b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(32))
    no_image("AVIF", b"\x00\x00\x00\x1cftypavif" + bytes(64))
    no_image("ICO", saved(garment("RGB", (32, 32)), "ICO"))
    no_image("PPM", saved(garment(), "PPM"))
    no_image("TGA", saved(garment(), "TGA"))
    no_image("PCX", saved(garment(), "PCX"))
    no_image("SGI", saved(garment(), "SGI"))
    no_image("base64 of a PNG", b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptV")
    no_image("PNG after a space", b" " + saved(garment(), "PNG"))
    no_image("multipart in a raw body", b'--a\r\ncontent-disposition: form-data; name="image"\r\n\r\nx\r\n--a--\r\n')
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((28, 28), np.uint8))
    no_image("NumPy file", buffer.getvalue())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.png", b"x")
    no_image("ZIP", buffer.getvalue())

    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (60, 60, 3)).astype(np.uint8))
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        whole = saved(noise.quantize() if kind == "GIF" else noise, kind)
        for share in (0.3, 0.7):
            # TIFF keeps its directory at the end; without it there is nothing to decode.
            broken(f"{kind} cut off at {share:.0%}", whole[: int(len(whole) * share)])
    for kind, start in (("PNG", b"\x89PNG\r\n\x1a\n"), ("JPEG", b"\xff\xd8\xff"), ("GIF", b"GIF89a")):
        broken(f"{kind} signature alone", start)
        if kind != "GIF":  # its header would hold a size, which is rejected first
            broken(f"{kind} signature and noise", start + np.random.default_rng(2).bytes(200))
    broken("TIFF signature alone", b"II*\x00")
    header = struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\x00" + bytes(28) for _ in range(28)))
    broken("PNG without data", png_of((b"IHDR", header), (b"IEND", b"")))
    broken("PNG with half of its data", png_of((b"IHDR", header), (b"IDAT", data[: len(data) // 2])))
    broken("PNG with noise as data", png_of((b"IHDR", header), (b"IDAT", b"\x01\x02\x03" * 30), (b"IEND", b"")))
    broken("PNG of zero width", png_of((b"IHDR", struct.pack(">IIBBBBB", 0, 28, 8, 0, 0, 0, 0)), (b"IDAT", data)))
    wrong = bytearray(png_of((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")))
    wrong[29] ^= 1  # within the header's checksum
    broken("PNG with a wrong checksum", bytes(wrong))
    broken("PNG without a header", png_of((b"IDAT", data), (b"IEND", b"")))
    broken("JPEG without a scan", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xd9")
    whole = saved(noise, "JPEG")
    broken("JPEG without its tables", whole[:20] + whole[whole.index(b"\xff\xc0") :])
    # A directory that points at itself.
    broken("TIFF in a circle", b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", 0) + struct.pack("<I", 8))
    broken("TIFF pointing beyond its end", b"II*\x00\xff\xff\xff\x7f")
    broken("WEBP without data", b"RIFF\x04\x00\x00\x00WEBP")
    broken("WEBP with noise", b"RIFF\x2c\x00\x00\x00WEBPVP8 " + bytes(40))
    bmp = bytearray(saved(garment("RGB", (28, 28)), "BMP"))
    bmp[10:14] = struct.pack("<I", 1_000_000)
    broken("BMP with its pixels beyond its end", bytes(bmp))
    broken("BMP header alone", bytes(bmp[:54]))

    bomb = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    huge("PNG of 100,000 x 100,000", png_of((b"IHDR", bomb), (b"IDAT", data), (b"IEND", b"")))
    wide = struct.pack(">IIBBBBB", 60_000_000, 1, 8, 0, 0, 0, 0)
    huge("PNG of 60,000,000 x 1", png_of((b"IHDR", wide), (b"IDAT", data), (b"IEND", b"")))
    huge(
        "GIF of 65,535 x 65,535",
        b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
        + b"\x08\x00;",
    )
    large = bytearray(saved(garment("L", (28, 28)), "BMP"))
    large[18:26] = struct.pack("<ii", 30_000, 30_000)
    huge("BMP of 30,000 x 30,000", bytes(large))
    tiff = saved(garment("L", (28, 28)), "TIFF")
    for tag in (256, 257):  # width and height
        at = (
            tiff.index(struct.pack("<HH", tag, 4))
            if struct.pack("<HH", tag, 4) in tiff
            else tiff.index(struct.pack("<HH", tag, 3))
        )
        tiff = tiff[:at] + struct.pack("<HHII", tag, 4, 1, 60_000) + tiff[at + 12 :]
    huge("TIFF of 60,000 x 60,000", tiff)
    huge(
        "GIF whose frame is larger than its screen",
        b"GIF89a"
        + struct.pack("<HHBBB", 10, 10, 0, 0, 0)
        + b"!\xf9\x04\x08\x00\x00\x00\x00,"
        + struct.pack("<HHHHB", 0, 0, 13_000, 13_000, 0)
        + b"\x08\x01\x00\x00;",
    )
    huge("WEBP canvas of 13,000 x 13,000", canvas_webp(13_000, 13_000))
    huge("WEBP canvas of 16,777,216 x 16,777,216", canvas_webp(2**24, 2**24))
    huge("TIFF with a tile of 46,000 x 46,000", tiled_tiff(46_000))
    huge("BMP of 50,000,000 pixels in run lengths", run_length_bmp(50_000_000, 1, b"\x01\x01\x00\x00"))
    huge("JPEG written over 400 times", rewritten_jpeg((7000, 7000), 400))
    no_image("text that begins like a BMP", b"BMW is a car, and not a bitmap")
    no_image("shell script", b"#!/bin/sh\necho hello\n")
    no_image("HEIC", b"\x00\x00\x00\x18ftypheic" + bytes(64))
    broken("PNG whose line ends were converted", saved(noise, "PNG").replace(b"\r\n", b"\n"))
    broken("PNG without its end", saved(noise, "PNG")[:-12])
    huge("BMP of negative width", bytes(bmp[:18] + struct.pack("<i", -28) + bmp[22:54]))
    blank = b"\x00" + bytes(20_000)
    large_png = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    huge(
        "PNG of 400 megapixels in a few kilobytes",
        png_of((b"IHDR", large_png), (b"IDAT", zlib.compress(blank * 100, 9)), (b"IEND", b"")),
    )
    return pictures
