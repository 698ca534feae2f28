"""The memory that a picture takes is estimated from its header, and never too low."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.mutations import large_pictures
from support.pictures import bad_pictures, good_pictures, saved

from fashion.home import REPOSITORY
from fashion.images.errors import BadPicture
from fashion.images.memory import PREPARING_BYTES, decoding_bytes
from fashion.images.preparation import prepare

_MEASURE = """
import json, sys
from pathlib import Path
from fashion.images.preparation import prepare

def peak():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])

found = {}
for path in map(Path, sys.argv[1:]):
    content = path.read_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak()
    prepare(content, size=28, channels=1)
    found[path.name] = peak() - before
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts a process's peak")
def test_no_picture_takes_more_memory_than_is_estimated(tmp_path: Path) -> None:
    pictures = large_pictures(megapixels=6)
    pictures["rotated tiff"] = saved_rotated(pictures["png"])
    for name, content in pictures.items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *(str(tmp_path / name) for name in pictures)],
        cwd=REPOSITORY,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "1048576"},  # as in the service: what is freed is not used again
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    taken = json.loads(done.stdout)
    estimated = {name: decoding_bytes(content, 50_000_000) for name, content in pictures.items()}
    assert {name: bytes_ for name, bytes_ in taken.items() if bytes_ > estimated[name]} == {}
    assert taken["webp"] > 70e6 > taken["jpeg"]  # the measure shows what a format takes


def saved_rotated(png: bytes) -> bytes:
    """The picture as a TIFF that lies on its side."""
    return saved(Image.open(io.BytesIO(png)), "TIFF", compression="tiff_deflate", tiffinfo={274: 6})


@pytest.mark.parametrize("name", sorted(good_pictures()))
def test_every_good_picture_has_an_estimate(name: str) -> None:
    assert PREPARING_BYTES <= decoding_bytes(good_pictures()[name], 50_000_000) < PREPARING_BYTES + 10e6


@pytest.mark.parametrize("name", sorted(bad_pictures()))
def test_a_picture_that_cannot_be_estimated_cannot_be_prepared(name: str) -> None:
    content, _ = bad_pictures()[name]
    with contextlib.suppress(BadPicture):
        decoding_bytes(content, 50_000_000)
        with pytest.raises(BadPicture):
            prepare(content, size=28, channels=1)
