"""Take the README's pictures from what is in this home: `make screenshots`. Needs Chromium with its driver.

A champion, its bento and a drift report must be there: `make train bento`, traffic, `make drift`.
"""

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fashion.home import REPOSITORY, current_home
from tests.support import browser

DOCS = REPOSITORY / "docs"
WIDE, NARROW = 1280, 1000
"""Pixels of a window's width."""


def main() -> int:
    """Take the pictures, and return the exit code."""
    reports = sorted(current_home().root.glob("reports/*/report.html"))
    if not reports:
        print("error: there is no drift report: run `make drift` after some traffic", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, browser.start(Path(folder)) as driver:
        card = Path(folder, "card.html")
        flow = [sys.executable, str(REPOSITORY / "flows" / "train_flow.py")]
        subprocess.run([*flow, "card", "get", "evaluate", str(card)], check=True, stdout=subprocess.DEVNULL)
        take(driver, card.as_uri(), DOCS / "evaluation.png", width=NARROW, height=1490, left=320)
        take(driver, reports[-1].as_uri(), DOCS / "drift.png", width=NARROW, height=1257)
        with service() as url:
            driver.set_window_size(WIDE, 1400)
            driver.get(url)
            driver.find_element("id", "file").send_keys(str(DOCS / "boot.png"))
            wait_for(driver, "return document.getElementById('heat-map').naturalWidth > 0")
            save(driver, DOCS / "page.png")
    return 0


def take(driver: Any, url: str, picture: Path, *, width: int, height: int, left: int = 0) -> None:
    """Show a page in a window of some pixels, and save what is seen, without the first `left` columns."""
    driver.set_window_size(width, height)
    driver.get(url)
    wait_for(driver, "return document.readyState === 'complete'")
    time.sleep(3)  # scripts that draw
    save(driver, picture, left)


def wait_for(driver: Any, script: str) -> None:
    """Wait until a script returns true.

    Raises:
        TimeoutError: it does not within two minutes.
    """
    deadline = time.monotonic() + 120
    while not driver.execute_script(script):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within two minutes: {script}")
        time.sleep(0.2)


def save(driver: Any, picture: Path, left: int = 0) -> None:
    """Save the window, with few colours: pictures in git should be small."""
    from PIL import Image

    driver.execute_script("document.documentElement.style.scrollbarWidth = 'none'")
    driver.save_screenshot(str(picture))
    with Image.open(picture) as shown:
        cut = shown.convert("RGB").crop((left, 0, *shown.size))
        cut.quantize(256).save(picture, optimize=True)
    print(picture)


@contextlib.contextmanager
def service() -> Iterator[str]:
    """Serve the latest bento on a free port, and give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "fashion", "serve", "--port", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2):
                break
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    sys.exit(main())
