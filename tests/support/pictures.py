"""Pictures that people and attackers send, by name: good ones of every kind, and bytes that are none."""

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
    """A dark shape on a white ground."""
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
    """Every format, with the modes that it has."""
    modes = {
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "BMP": ("1", "L", "P", "RGB", "RGBA"),
        "JPEG": ("L", "RGB", "CMYK"),
        "GIF": ("L", "P", "RGB"),
        "WEBP": ("L", "RGB", "RGBA"),
        "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"),
    }
    found = {f"{kind} {mode}": saved(garment(mode), kind) for kind, all_modes in modes.items() for mode in all_modes}
    exif = Image.Exif()
    exif[0x0112] = 6
    found["JPEG turned by EXIF"] = saved(garment(), "JPEG", exif=exif)
    found["PNG turned by EXIF"] = saved(garment(), "PNG", exif=exif)
    found["JPEG progressive"] = saved(garment(), "JPEG", progressive=True)
    found["TIFF compressed"] = saved(garment(), "TIFF", compression="tiff_lzw")
    found["PNG palette with transparency"] = saved(garment("P"), "PNG", transparency=0)
    found["PNG RGB with transparency"] = saved(garment(), "PNG", transparency=(255, 255, 255))
    found["GIF of two frames"] = saved(garment("P"), "GIF", save_all=True, append_images=[garment("L").convert("P")])
    found["PNG interlaced"] = interlaced(np.asarray(garment("L", (28, 28))))
    found["JPEG of several pictures"] = saved(garment(), "MPO", save_all=True, append_images=[garment()])
    found["BMP with run lengths"] = run_length_bmp(30, 40, b"\x1e\x05\x00\x00" * 40 + b"\x00\x01")
    found["PNG with broken EXIF"] = with_chunk(saved(garment("L", (28, 28)), "PNG"), b"eXIf", b"no tags at all")
    found["TIFF large 16 bit"] = saved(garment("I;16", (1600, 1200)), "TIFF", compression="tiff_lzw")
    found["PNG large palette with transparency"] = saved(garment("P", (1600, 1200)), "PNG", transparency=0)
    found["PNG large bits"] = saved(garment("1", (1600, 1200)), "PNG")
    found["PNG 1x1"] = saved(garment("L", (1, 1)), "PNG")
    found["PNG 1x400"] = saved(garment("L", (1, 400)), "PNG")
    found["PNG 400x1"] = saved(garment("L", (400, 1)), "PNG")
    found["PNG 3x2"] = saved(garment("RGB", (3, 2)), "PNG")
    found["JPEG 1600x1200"] = saved(garment("RGB", (1600, 1200)), "JPEG")
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        found[f"PNG 28x28 {mode}"] = saved(garment(mode, (28, 28)), "PNG")
    nothing = np.full((30, 30), np.nan, np.float32)
    nothing[5:20, 5:20] = 0.5
    found["TIFF with NaN"] = saved(Image.fromarray(nothing), "TIFF")
    return found


@functools.cache
def bad_pictures() -> dict[str, tuple[bytes, str]]:
    """Bytes, and the code with which they are refused."""
    found: dict[str, tuple[bytes, str]] = {"empty": (b"", "empty")}

    def none(name: str, content: bytes) -> None:
        found[name] = (content, "not_an_image")

    def broken(name: str, content: bytes) -> None:
        found[name] = (content, "undecodable")

    def huge(name: str, content: bytes) -> None:
        found[name] = (content, "too_large")

    none("one byte", b"\x00")
    none("a letter", b"a")
    none("text", b"this is no picture")
    none("UTF-16 text", "this is no picture".encode("utf-16"))
    none("HTML", b"<!doctype html><html><body>hello</body></html>")
    none("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>')
    none("JSON", b'{"image": "x"}')
    none("CSV", b"prediction_id,true_label\n")
    none("PDF", b"%PDF-1.7\n1 0 obj\n<< >>\nendobj\n%%EOF\n")
    none("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    none("ELF", b"\x7fELF\x02\x01\x01" + bytes(64))
    none("Windows program", b"MZ\x90\x00" + bytes(64))
    none("gzip", gzip.compress(b"hello"))
    none("pickle", pickle.dumps({"image": 1}))
    none("zeros", bytes(1000))
    none("ones", b"\xff" * 1000)
    none("noise", np.random.default_rng(0).bytes(5000))
    none("newlines", b"\r\n" * 100)
    none("IDX file", struct.pack(">IIII", 2051, 1, 28, 28) + bytes(784))
    none("raw pixels", bytes(range(256)) * 3 + bytes(16))
    none("MP4", b"\x00\x00\x00\x18ftypmp42" + bytes(64))
    none("WAV", b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(32))
    none("AVIF", b"\x00\x00\x00\x1cftypavif" + bytes(64))
    none("ICO", saved(garment("RGB", (32, 32)), "ICO"))
    none("PPM", saved(garment(), "PPM"))
    none("TGA", saved(garment(), "TGA"))
    none("PCX", saved(garment(), "PCX"))
    none("SGI", saved(garment(), "SGI"))
    none("base64 of a PNG", b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptV")
    none("PNG after a space", b" " + saved(garment(), "PNG"))
    none("multipart in a raw body", b'--a\r\ncontent-disposition: form-data; name="image"\r\n\r\nx\r\n--a--\r\n')
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((28, 28), np.uint8))
    none("NumPy file", buffer.getvalue())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.png", b"x")
    none("ZIP", buffer.getvalue())

    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (60, 60, 3)).astype(np.uint8))
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        whole = saved(noise.quantize() if kind == "GIF" else noise, kind)
        for share in (0.3, 0.7):
            # TIFF keeps its directory at the end; without it there is nothing to decode.
            broken(f"{kind} cut off at {share:.0%}", whole[: int(len(whole) * share)])
    for kind, start in (("PNG", b"\x89PNG\r\n\x1a\n"), ("JPEG", b"\xff\xd8\xff"), ("GIF", b"GIF89a")):
        broken(f"{kind} signature alone", start)
        if kind != "GIF":  # whose header would hold a size that is refused first
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
    none("text that begins like a BMP", b"BMW is a car, and not a bitmap")
    none("shell script", b"#!/bin/sh\necho hello\n")
    none("HEIC", b"\x00\x00\x00\x18ftypheic" + bytes(64))
    broken("PNG whose line ends were converted", saved(noise, "PNG").replace(b"\r\n", b"\n"))
    broken("PNG without its end", saved(noise, "PNG")[:-12])
    huge("BMP of negative width", bytes(bmp[:18] + struct.pack("<i", -28) + bmp[22:54]))
    blank = b"\x00" + bytes(20_000)
    large_png = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    huge(
        "PNG of 400 megapixels in a few kilobytes",
        png_of((b"IHDR", large_png), (b"IDAT", zlib.compress(blank * 100, 9)), (b"IEND", b"")),
    )
    return found
