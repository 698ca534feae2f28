"""A headless Chromium that can reach this machine only. Knows no pages."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # as root in a container there is none
    "--disable-dev-shm-usage",  # a container's /dev/shm is too small for screenshots
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no name resolves
)
SECONDS = 20.0
"""Longest wait for a page: a busy machine takes long for a service's first picture."""


@contextlib.contextmanager
def start(profile: Path) -> Iterator[Any]:
    """Start a browser and yield its Selenium driver. Without a browser the test is skipped, but fails in CI.

    Args:
        profile: an empty folder for the browser's profile.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = _driver()
    if browser is None or driver is None:
        reason = (
            f"{'chromedriver' if browser else 'Chromium'} is not installed: apt-get install chromium chromium-driver"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # An explicit path: otherwise selenium-manager looks for a driver on the network.
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


def _driver() -> str | None:
    folder = os.environ.get("CHROMEWEBDRIVER")  # GitHub's runners set it
    return shutil.which("chromedriver") or (shutil.which("chromedriver", path=folder) if folder else None)
