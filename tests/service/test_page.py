"""The service's page in a real browser, against a real service."""

import base64
import io
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from support import axe, browser, proxy
from support.page import CONTRAST, NUM_CLASSES, Page

from fashion.predictions.record import SAMPLES

PART_CONTRASTS = (
    CONTRAST
    + """
const part = (selector, property) => {
  const element = document.querySelector(selector);
  return [selector, contrast(rgb(getComputedStyle(element)[property]).channels, behind(element.parentElement))];
};
return [
  part(".bars li:first-child .track span", "backgroundColor"),
  part(".bars li:last-child .track span", "backgroundColor"),
  part("#right", "backgroundColor"), part("#true-label", "borderTopColor"),
  part("#feedback-form .button", "borderTopColor"),
  part(".drop", "borderTopColor"), part("#recent [aria-current]", "borderTopColor"),
];
"""
)
INTERCEPT = """
// Between the page and the network: POST requests are answered from `rejections` first, and noted in `requests`.
const real = window.fetch;
window.requests = [];
window.rejections = [];
window.fetch = async (path, options = {}) => {
  if (options.method === "POST") {
    const picture = options.body instanceof FormData ? options.body.get("image") : null;
    window.requests.push({ path, headers: { ...options.headers }, size: picture?.size, type: picture?.type });
    const rejection = window.rejections.shift();
    if (rejection) return new Response(rejection.body, { status: rejection.status, headers: rejection.headers });
  }
  return real(path, options);
};
"""
GIVE = """
const [kind, base64, name, type, count] = arguments;
const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
const transfer = new DataTransfer();
if (type) for (let each = 0; each < count; each += 1) transfer.items.add(new File([bytes], name, { type }));
else transfer.setData("text/plain", "https://example.com/coat.jpg");
const options = { bubbles: true, cancelable: true };
if (kind === "paste") document.body.dispatchEvent(new ClipboardEvent("paste", { ...options, clipboardData: transfer }));
else {
  for (const name of ["dragover", "drop"]) {
    document.querySelector("h1").dispatchEvent(new DragEvent(name, { ...options, dataTransfer: transfer }));
    if (name === "dragover") window.veiled = getComputedStyle(document.querySelector(".veil")).display !== "none";
  }
}
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser.start(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def page(chromium: Any, service: Any, tmp_path: Path) -> Iterator[Page]:
    """The page on a desktop; afterwards the console is clean, and only the service was asked."""
    page = Page(chromium, service.url, tmp_path)
    page.screen(1280, 900)
    page.media(prefers_color_scheme="light", prefers_reduced_motion="reduce")  # a click meets what stands still
    script = page.cdp("Page.addScriptToEvaluateOnNewDocument", source=INTERCEPT)
    chromium.get_log("browser")
    page.open()
    yield page
    page.cdp("Page.removeScriptToEvaluateOnNewDocument", **script)
    assert page.complaints() == []
    urls = page.js("return [location.href, ...performance.getEntriesByType('resource').map((each) => each.name)]")
    own = page.js("return location.origin")
    assert [url for url in urls if not url.startswith((own + "/", "data:", "blob:"))] == []


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T-shirt, as someone might photograph one on a light table."""
    image = Image.new("RGB", (600, 720), "#e9e6e1")
    draw = ImageDraw.Draw(image)
    body = [(190, 120), (410, 120), (540, 210), (490, 300), (430, 262), (430, 620), (170, 620), (170, 262), (110, 300)]
    draw.polygon([*body, (60, 210)], fill="#33507c")
    draw.ellipse((245, 80, 355, 160), fill="#e9e6e1")
    path = tmp_path_factory.mktemp("photo") / "shirt.jpg"
    image.save(path, quality=90)
    return path


def percents(page: Page) -> list[float]:
    return [float(re.sub(r"[^0-9.]", "", each.text)) for each in page.all("#bars .number")]


def give(page: Page, kind: str, path: Path | None = None, *, count: int = 1) -> None:
    if path is None:
        page.js(GIVE, kind, "", "", None, 0)
    else:
        page.js(GIVE, kind, base64.b64encode(path.read_bytes()).decode(), path.name, "image/jpeg", count)


def reject(page: Page, status: int, error: dict[str, str] | str, **headers: str) -> None:
    body = error if isinstance(error, str) else json.dumps({"error": error})
    rejection = {"status": status, "body": body, "headers": {k.replace("_", "-"): v for k, v in headers.items()}}
    page.js("rejections.push(arguments[0])", rejection)


def stored(page: Page, prediction_id: str) -> Any:
    with urllib.request.urlopen(f"{page.url}/predictions/{prediction_id}") as response:
        return json.load(response)


def gallery_of(page: Page) -> Any:
    with urllib.request.urlopen(f"{page.url}/gallery") as response:
        return json.load(response)["images"]


def recent_of(page: Page) -> Any:
    return page.js("return sessionStorage.getItem('recent')")


def latest(page: Page) -> Any:
    return json.loads(recent_of(page))[0]


def test_an_uploaded_picture_is_answered(page: Page, photo: Path) -> None:
    page.screenshot("desktop-empty")
    page.upload(photo)
    sentence = page.answered()
    page.screenshot("desktop-light")
    answer = latest(page)
    assert re.fullmatch(r"The model .* an? \S.* with a certainty of (more than )?[0-9.]+ %", sentence)
    assert f" {answer['label']} " in sentence
    shares = percents(page)
    assert len(shares) == NUM_CLASSES
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=1)
    assert page.text("#bars li:first-child").startswith(answer["label"])
    for picture in ("#picture", "#heat-map", "#seen"):
        assert page.one(picture).is_displayed()
        assert page.js("return arguments[0].naturalWidth", page.one(picture)) >= 28
    assert [each.text for each in page.all("#steps li")] == answer["preprocessing"]
    assert answer["model"]["version"] in page.text("#answered-by")
    assert f"version {answer['model']['version']}" in page.text("#model")


def test_bars_are_as_wide_as_their_numbers(page: Page, photo: Path) -> None:
    page.upload(photo)
    page.answered()
    widths = page.js(
        "return [...document.querySelectorAll('.track span')].map((e) => e.offsetWidth / e.parentElement.offsetWidth)"
    )
    assert widths == pytest.approx([share / 100 for share in percents(page)], abs=0.02)


@pytest.mark.parametrize("width", [320, 1280])
def test_of_a_picture_unlike_what_was_learnt_no_percentage_is_shown(page: Page, photo: Path, width: int) -> None:
    page.screen(width, 900, touch=width < 700)
    noise = page.folder / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)).save(noise)
    page.upload(noise)
    sentence = page.answered()
    page.screenshot(f"unlike-{width}")
    answer = latest(page)
    assert answer["typical"] is False
    assert "does not look like anything the model has learnt" in sentence
    assert page.text("#bars li:first-child") == f"{answer['label']} nearest, but unlike what it knows"
    assert page.text("#recent li") == f"{answer['label']} unlike what it knows"
    seen = page.one("main").text + page.one("#bars").get_attribute("aria-label")
    assert "%" not in seen.partition("The model")[0]
    assert not [each for each in page.all("#bars .track") if each.is_displayed()]
    nodes = [node for node in page.cdp("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
    names = [node.get("name", {}).get("value", "") for node in nodes]
    assert "The classes it knows, the nearest first" in names
    assert axe.violations(page.driver) == []
    assert page.js("return document.documentElement.scrollWidth") <= width
    page.upload(photo)  # a usual picture has its percentages again
    page.answered(2)
    assert sum(percents(page)) == pytest.approx(100, abs=1)


def test_a_gallery_picture_is_answered_and_its_label_shown(page: Page) -> None:
    page.until(lambda: page.all("#gallery button"))
    button = page.one("#gallery button")
    label = button.get_attribute("aria-label").partition(": ")[2]
    button.click()
    page.answered()
    assert page.text("#truth") == f"A test picture, labelled {label}"
    row = stored(page, latest(page)["prediction_id"])
    assert (row["feedback"], row["client"]) == ([], SAMPLES)  # its label is not feedback, and it is no traffic


def test_several_pictures_are_answered_each_with_its_own_feedback(page: Page, photo: Path, tmp_path: Path) -> None:
    page.errors_expected = True  # the text file is refused
    bad = tmp_path / "notes.jpg"
    bad.write_text("no picture")
    dark = tmp_path / "dark.png"
    Image.open(photo).point(lambda value: value // 2).save(dark)
    page.one("#file").send_keys(f"{photo}\n{bad}\n{dark}")
    problem = page.problem("1 of 3 pictures have no answer (notes.jpg: ")
    assert "Try again" not in problem  # it would be refused again
    assert page.text("#progress") == ""
    first, second = (each["prediction_id"] for each in reversed(json.loads(recent_of(page))))
    assert page.one("#recent li:last-child [aria-current]")  # the first one is shown
    page.one("#recent li:first-child button").click()
    page.one("#right").click()
    page.until(lambda: page.text("#feedback-status"))
    assert [len(stored(page, each)["feedback"]) for each in (first, second)] == [0, 1]


def test_pictures_beyond_those_that_are_kept_are_said(page: Page, photo: Path, tmp_path: Path) -> None:
    page.errors_expected = True  # the text file is refused
    bad = tmp_path / "notes.jpg"
    bad.write_text("no picture")
    page.one("#file").send_keys("\n".join([str(bad), *[str(photo)] * 13]))
    said = page.problem("1 of 12 pictures have no answer (notes.jpg: ")
    assert "; the first 12 of 14 pictures were sent" in said
    assert len(page.all("#recent li")) == 11


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_where_the_service_stops_answering_the_pictures_that_are_left_wait(page: Page, photo: Path, kind: str) -> None:
    page.js("window.rejections = [null]")  # the first is answered
    reject(page, 503, {"message": "the service is busy", "remedy": "try again"}, **{"retry-after": "1"})
    give(page, kind, photo, count=3)
    page.problem("The service is busy.")
    assert len(page.all("#recent li")) == 1
    assert len(page.js("return requests")) == 2  # the third is not sent into the same error
    page.one("#problem button").click()
    page.answered(3)
    assert not page.one("#problem").is_displayed()
    assert page.text("#progress") == ""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_is_read_from_a_drop_and_the_clipboard(page: Page, photo: Path, kind: str) -> None:
    give(page, kind, photo)
    page.answered()
    if kind == "drop":
        assert page.js("return veiled")
    assert not page.one(".veil").is_displayed()


def test_a_dropped_address_is_rejected_without_fetching_it(page: Page) -> None:
    give(page, "drop")
    assert page.problem() == (
        "That is not a picture. Save the picture as a file, or copy the picture itself, not its address."
    )
    assert page.js("return requests") == []


def test_feedback_is_stored_and_can_be_changed(page: Page, photo: Path) -> None:
    from selenium.webdriver.support.ui import Select

    page.upload(photo)
    page.answered()
    answer = latest(page)
    page.one("#right").click()
    page.until(lambda: page.text("#feedback-sent") == "Thank you. Stored as: right. Change")
    assert page.focused() == "change"
    page.one("#change").click()
    other = next(name for name in ("Coat", "Bag") if name != answer["label"])
    Select(page.one("#true-label")).select_by_visible_text(other)
    page.one("#feedback-form .button").click()
    page.until(lambda: f"Stored as: a {other}." in page.text("#feedback-sent"))
    page.screenshot("desktop-feedback")
    given = [(each["true_label"], each["source"]) for each in stored(page, answer["prediction_id"])["feedback"]]
    assert given == [(answer["label"], "page"), (other, "page")]
    assert f"you said: {other}" in page.text("#recent")


def test_feedback_without_a_choice_is_not_sent(page: Page, photo: Path) -> None:
    page.upload(photo)
    page.answered()
    page.one("#feedback-form .button").click()
    assert page.js("return document.querySelector('#feedback-form :invalid').id") == "true-label"
    assert [each["path"] for each in page.js("return requests")] == ["/predict?explain=true"]


def test_a_file_that_is_not_a_picture_shows_the_remedy(page: Page, photo: Path) -> None:
    page.errors_expected = True
    words = page.folder / "words.txt"
    words.write_text("not a picture\n")
    page.upload(photo)
    page.answered()
    page.upload(words)
    message = page.problem()
    page.screenshot("desktop-error")
    assert re.fullmatch(r"[A-Z].*\. [A-Z].*\.", message)
    assert not page.one("#feedback").is_displayed()  # the first picture's answer is gone
    page.upload(photo)
    page.answered(2)
    assert not page.one("#problem").is_displayed()


@pytest.mark.parametrize(
    ("status", "error", "sentence"),
    [
        (
            503,
            {"code": "overloaded", "message": "512 requests are under way", "remedy": "try again in a second"},
            "512 requests are under way. Try again in a second.",
        ),
        (503, "<h1>upstream</h1>", "The service answers 503. Try again in 7 s."),
    ],
)
def test_an_overload_is_shown_and_can_be_retried(
    page: Page, photo: Path, status: int, error: Any, sentence: str
) -> None:
    reject(page, status, error, retry_after="7")
    page.upload(photo)
    assert page.problem() == f"{sentence} Try again"
    page.one("#problem button").click()
    page.answered()
    assert not page.one("#problem").is_displayed()


def test_a_key_is_asked_for_stored_in_the_tab_and_sent(page: Page, photo: Path) -> None:
    missing = {"code": "unauthorized", "message": "the key is missing", "remedy": "send one"}
    assert not page.one("#key-form").is_displayed()
    reject(page, 401, missing)
    reject(page, 401, missing | {"message": "the key is wrong"})
    page.upload(photo)
    page.until(lambda: page.focused() == "key")
    page.screenshot("desktop-key")
    page.press("first-key", "\ue007")
    page.until(lambda: "is wrong" in page.text("#key-form"))
    page.press("second-key", "\ue007")
    page.answered()
    assert not page.one("#key-form").is_displayed()
    sent = [each["headers"].get("Authorization") for each in page.js("return requests")]
    assert sent == [None, "Bearer first-key", "Bearer second-key"]
    page.reload()
    page.upload(photo)
    page.answered(2)
    assert page.js("return requests")[0]["headers"]["Authorization"] == "Bearer second-key"


def test_the_page_works_on_after_no_key_was_given(page: Page, photo: Path) -> None:
    reject(page, 401, {"code": "unauthorized", "message": "the key is missing", "remedy": "send one"})
    page.upload(photo)
    page.until(lambda: page.one("#key-form").is_displayed())
    page.one("#key-cancel").click()
    assert "asks for a key" in page.problem()
    page.upload(photo)
    page.answered()


@pytest.mark.fault("broken connection of the page")
def test_a_broken_connection_and_a_timeout_are_shown(page: Page, photo: Path) -> None:
    page.errors_expected = True
    with proxy.between(page.url.removeprefix("http://")) as line:
        page.open(f"http://{line.address}")
        line.cut()
        page.upload(photo)
        assert "The service cannot be reached. Check the connection" in page.problem()
        line.resume()
        page.one("#problem button").click()
        page.answered()
        page.js("const real = AbortSignal.timeout; AbortSignal.timeout = () => real.call(AbortSignal, 300)")
        line.stall()
        page.upload(photo)
        assert page.one("#result").get_attribute("aria-busy") == "true"
        assert page.one("#right").get_attribute("aria-disabled") == "true"
        assert "No answer came within 40 seconds" in page.problem()
        line.resume()
    page.open()


def test_a_large_photo_is_shrunk_before_it_is_sent(page: Page) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    path = page.folder / "large.jpg"
    Image.fromarray(noise).save(path, quality=98)
    assert path.stat().st_size > 4_000_000
    page.upload(path)
    page.answered()
    (sent,) = page.js("return requests")
    assert sent["type"] == "image/jpeg"
    assert sent["size"] < 4_000_000
    assert page.text("#steps li") == "made smaller in this browser, 2000x1500 to 1024x768"


def test_a_picture_that_only_the_service_can_read_is_shown_as_the_network_saw_it(page: Page, photo: Path) -> None:
    path = page.folder / "shirt.tiff"
    content = io.BytesIO()
    Image.open(photo).resize((150, 180)).save(content, "TIFF")
    path.write_bytes(content.getvalue())
    page.errors_expected = True
    page.upload(path)
    page.until(lambda: page.idle() and (page.all("#recent li") or page.one("#problem").is_displayed()))
    if page.all("#recent li"):  # the service may or may not read TIFF
        assert page.one("#picture").get_attribute("src") == page.one("#seen").get_attribute("src")


def test_recent_predictions_survive_a_reload_and_can_be_cleared(page: Page, photo: Path) -> None:
    page.upload(photo)
    first = page.answered()
    page.until(lambda: page.all("#gallery button"))
    page.all("#gallery button")[1].click()
    page.answered(2)
    page.reload()
    assert len(page.all("#recent li")) == 2
    page.all("#recent button")[1].click()
    page.until(lambda: page.text("#sentence") == first)
    assert page.one("#recent [aria-current]").get_attribute("outerHTML") == page.all("#recent button")[1].get_attribute(
        "outerHTML"
    )
    page.one("#clear").click()
    page.until(lambda: not page.one("#recent-section").is_displayed())
    page.reload()
    assert page.all("#recent li") == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_screen(page: Page, photo: Path, width: int) -> None:
    page.screen(width, 800, touch=width < 700)
    page.open()
    assert page.one("label[for=photo]").is_displayed() == (width < 700)
    page.screenshot(f"width-{width}-empty")
    page.upload(photo)
    page.answered()
    page.js("document.querySelector('#lineage').open = true")
    assert page.js("return document.documentElement.scrollWidth") <= width
    outside = (
        "return [...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > innerWidth)"
    )
    assert page.js(outside + ".map((e) => e.outerHTML)") == []
    page.js("document.querySelector('#lineage').open = false")
    page.screenshot(f"width-{width}")


def test_what_a_phone_photographs_is_answered_in_view(page: Page, photo: Path) -> None:
    page.screen(390, 800, touch=True)
    assert page.one("#photo").get_attribute("capture") == "environment"  # the camera, where there is one
    page.upload(photo, by="#photo")
    page.answered()
    assert page.js("return document.querySelector('#figures').getBoundingClientRect().top") < 200
    assert page.js("return document.querySelector('#sentence').getBoundingClientRect().bottom") < 800


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_axe_finds_nothing_before_and_after_an_answer_and_an_error(
    page: Page, photo: Path, scheme: str, width: int
) -> None:
    page.screen(width, 844, touch=width < 700)
    page.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    page.until(lambda: page.all("#gallery button"))
    assert axe.violations(page.driver) == []
    page.upload(photo)
    page.answered()
    page.until(lambda: page.one("#bars img").get_property("naturalWidth") == 28)
    assert axe.violations(page.driver) == []
    give(page, "drop")
    page.problem("not a picture")
    assert axe.violations(page.driver) == []


def test_each_class_is_shown_with_a_picture_of_it(page: Page, photo: Path) -> None:
    def shown() -> dict[str, str]:
        pictures = page.js(
            "return [...document.querySelectorAll('#bars li')].map((each) => "
            "[each.querySelector('span').textContent, each.querySelector('img')?.getAttribute('src')])"
        )
        return {name: url for name, url in pictures if url}

    page.until(lambda: page.all("#bars img"))
    gallery = {each["label"]: each["url"] for each in reversed(gallery_of(page))}
    assert len(gallery) > 1
    assert shown() == gallery
    page.upload(photo)
    page.answered()
    assert shown() == gallery


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_controls_have_enough_contrast(page: Page, photo: Path, scheme: str) -> None:
    page.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    page.upload(photo)
    page.answered()
    page.until(lambda: page.all("#gallery button"))
    page.screenshot(f"desktop-{scheme}-whole")
    paper = page.js("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    texts = page.text_contrasts()
    assert len(texts) > 40
    assert [pair for pair in texts if pair[1] < 4.5] == []
    assert [pair for pair in page.js(PART_CONTRASTS) if pair[1] < 3] == []


def test_reduced_motion_is_respected(page: Page, photo: Path) -> None:
    page.media(prefers_reduced_motion="no-preference")
    page.upload(photo)
    page.answered()
    seconds = "return getComputedStyle(document.querySelector('.track span')).transitionDuration"
    assert page.js(seconds) == "0.45s"
    page.media(prefers_reduced_motion="reduce")
    assert page.js(seconds) == "0s"


def test_the_keyboard_reaches_everything(page: Page) -> None:
    from selenium.webdriver import Keys

    page.until(lambda: page.all("#gallery button"))
    stops = []
    for _ in range(6):
        page.press(Keys.TAB)
        stops.append(page.js("return document.activeElement.textContent.trim()") or page.focused())
        assert page.js(
            "const e = document.activeElement; const seen = e.matches('.unseen') ? e.nextElementSibling : e;"
            "return getComputedStyle(seen).outlineStyle"
        ) == ("solid")
    assert stops[1:4] == ["Monitoring", "API", "file"]
    assert stops[4].startswith("Test picture 1: ")  # the gallery is one stop
    page.js("document.querySelector('#gallery button').focus()")
    page.press(Keys.ARROW_RIGHT)
    assert page.focused().startswith("Test picture 2: ")
    page.press(Keys.END)
    page.press(Keys.ARROW_RIGHT)
    page.press(Keys.ENTER)
    page.answered()
    assert page.focused().startswith("Test picture 1: ")  # the focus stays for the next one
    page.press(Keys.TAB)
    assert page.focused() == "right"
    page.press(Keys.ENTER)
    page.until(lambda: page.focused() == "change")
    page.press(Keys.ENTER)
    assert page.focused() == "right"
    page.press(Keys.TAB)
    page.press("Bag" if latest(page)["label"] != "Bag" else "Coat")
    page.press(Keys.TAB, Keys.ENTER)
    page.until(lambda: page.focused() == "change")
    page.press(Keys.TAB, Keys.TAB, Keys.ENTER)
    page.until(lambda: page.one("#recent [aria-current]"))
    assert page.js("return document.activeElement.closest('#recent') !== null")


def test_every_control_and_picture_has_a_name(page: Page, photo: Path) -> None:
    page.upload(photo)
    page.answered()
    page.until(lambda: page.all("#gallery button"))
    page.js("document.querySelector('#key-form').hidden = false")
    nodes = [node for node in page.cdp("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
    controls = {"button", "link", "combobox", "textbox", "image", "navigation", "region", "toolbar"}
    found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    assert controls <= {role for role, _ in found}
    nameless = [pair for pair in found if pair[0] in controls and not pair[1].strip()]
    assert nameless == []
    assert len([pair for pair in found if pair[0] == "heading" and pair[1].startswith("The model")]) == 1
    live = page.js("return document.querySelector('#sentence').closest('[aria-live=polite]') !== null")
    assert live
    assert page.one("#problem").get_attribute("role") == "alert"


def test_a_page_without_javascript_says_so(page: Page) -> None:
    page.cdp("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.driver.get(page.url + "/")
        assert "This page needs JavaScript" in page.one("noscript").text
    finally:
        page.cdp("Emulation.setScriptExecutionDisabled", value=False)
        page.open()
