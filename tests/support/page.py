"""The service's page in a browser. Knows its elements, not what a test expects of them."""

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import browser

NUM_CLASSES = 10

CONTRAST = """
const rgb = (text) => {
  const [, numbers] = text.match(/^rgba?\\((.*)\\)$/) ?? [, "0, 0, 0, 0"];
  const [r, g, b, a = 1] = numbers.split(", ").map(Number);
  return { channels: [r, g, b], opaque: a > 0.99 };
};
const luminance = (channels) => channels
  .map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const contrast = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = rgb(getComputedStyle(at).backgroundColor);
    if (colour.opaque) return colour.channels;
  }
};
"""
TEXT_CONTRASTS = (
    CONTRAST
    + """
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const { parentElement: element, data } = walker.currentNode;
  if (!data.trim() || !element.checkVisibility() || ["SCRIPT", "OPTION"].includes(element.tagName)) continue;
  found.push([data.trim(), contrast(rgb(getComputedStyle(element).color).channels, behind(element))]);
}
return found;
"""
)


class Page:
    """The page, used as a person would."""

    def __init__(self, driver: Any, url: str, folder: Path) -> None:
        self.driver, self.url, self.folder = driver, url, folder
        self.errors_expected = False

    def open(self, url: str | None = None) -> None:
        """Load the page with empty storage."""
        url = url or self.url
        self.driver.get(f"{url}/page/icon.svg")  # the same origin, without a script that would write again
        self.driver.execute_script("sessionStorage.clear()")
        self.driver.get(f"{url}/")
        self.ready()

    def reload(self) -> None:
        self.driver.refresh()
        self.ready()

    def ready(self) -> None:
        self.until(lambda: len(self.all("#bars li")) == NUM_CLASSES)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> Any:
        return self.driver.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        return " ".join(self.one(selector).text.split())

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def cdp(self, command: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, parameters)

    def until(self, true: Callable[[], Any]) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.driver, browser.SECONDS, 0.05, [StaleElementReferenceException])
        return wait.until(lambda _: true(), "the page did not come to this: " + self.one("body").text)

    def upload(self, path: Path, *, by: str = "#file") -> None:
        self.one(by).send_keys(str(path))

    def answered(self, count: int = 1) -> str:
        """Wait until `count` pictures were answered, and return the sentence."""
        self.until(lambda: len(self.all("#recent li")) == count and self.idle())
        return self.text("#sentence")

    def problem(self, words: str = "") -> str:
        """Wait until a problem with these words is shown, and return its text."""
        return self.until(lambda: words in (text := self.text("#problem")) and self.idle() and text)

    def idle(self) -> bool:
        return self.one("#result").get_attribute("aria-busy") == "false"

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self) -> str:
        return self.js("return document.activeElement.id || document.activeElement.getAttribute('aria-label') || ''")

    def screen(self, width: int, height: int, *, touch: bool = False) -> None:
        """Emulate a screen of this size."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if touch else 1, "mobile": touch}
        self.cdp("Emulation.setDeviceMetricsOverride", **metrics)
        self.cdp("Emulation.setTouchEmulationEnabled", enabled=touch)

    def media(self, **features: str) -> None:
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.cdp("Emulation.setEmulatedMedia", features=listed)

    def screenshot(self, name: str, *, whole: bool = True) -> None:
        """Save a picture of the page in the folder FASHION_SCREENSHOTS, if that is set."""
        folder = os.environ.get("FASHION_SCREENSHOTS")
        if not folder:
            return
        self.js("scrollTo({ top: 0, behavior: 'instant' })")
        shot = self.cdp("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def text_contrasts(self) -> list[tuple[str, float]]:
        """Return each visible text with the contrast to what is behind it; 4.5 is enough."""
        return [(text, contrast) for text, contrast in self.js(TEXT_CONTRASTS)]

    def complaints(self) -> list[str]:
        """Return new warnings and errors of the console, without the HTTP errors that a test expects."""
        entries = [entry for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        expected = self.errors_expected
        return [e["message"] for e in entries if not (expected and "Failed to load resource" in e["message"])]
