"""The API's page in a real browser: each endpoint can be tried there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import axe, browser
from support.page import Page
from support.served import Served


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser.start(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def page(chromium: Any, service: Served, tmp_path: Path) -> Iterator[Page]:
    """The API's page on a desktop; afterwards the console is clean, and only the service was asked."""
    page = Page(chromium, service.url, tmp_path)
    page.screen(1280, 900)
    page.media(prefers_color_scheme="light", prefers_reduced_motion="reduce")
    chromium.get_log("browser")
    chromium.get(f"{service.url}/docs")
    page.until(lambda: page.all("#measure form"))
    yield page
    assert page.complaints() == []
    urls = page.js("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert [url for url in urls if not url.startswith((service.url + "/", "data:", "blob:"))] == []


@pytest.fixture
def picture(pngs: list[bytes], tmp_path: Path) -> Path:
    path = tmp_path / "coat's.png"
    path.write_bytes(pngs[0])
    return path


def send(page: Page, operation: str) -> str:
    """Send a form, wait for its answer, and return the status."""
    page.js("document.querySelector(arguments[0]).replaceChildren()", f"#{operation} .answer")
    page.one(f"#{operation} .button").click()
    page.until(lambda: page.all(f"#{operation} .answer .command"))
    return page.text(f"#{operation} .status strong")


def content(page: Page, operation: str) -> Any:
    return json.loads(page.one(f"#{operation} .content").get_attribute("textContent"))


def test_a_picture_is_predicted_and_gets_feedback(page: Page, picture: Path, service: Served) -> None:
    page.one("#predict input[type=file]").send_keys(str(picture))
    page.one("#predict-explain").click()
    page.one("#predict-X-Client").send_keys("docs page")
    assert send(page, "predict") == "200 OK"
    prediction = content(page, "predict")
    assert "ms" in page.text("#predict .status")
    assert page.text("#predict .headers") == "content-type: application/json"
    assert len(page.all("#predict .answer img")) == 2
    assert page.text("#predict .command") == (
        f"curl '{page.url}/predict?explain=true' -H 'X-Client: docs page' -F image=@'coat'\\''s.png'"
    )
    page.screenshot("docs-light")
    assert prediction["prediction_id"] in page.one("#giveFeedback textarea").get_attribute("value")
    assert send(page, "giveFeedback") == "201 Created"
    assert content(page, "giveFeedback")["prediction_id"] == prediction["prediction_id"]
    assert send(page, "getPrediction") == "200 OK"
    record = content(page, "getPrediction")
    assert (record["client"], len(record["feedback"])) == ("docs page", 1)
    assert service.json("GET", f"/predictions/{prediction['prediction_id']}")["client"] == "docs page"


def test_a_rejected_request_shows_its_error(page: Page) -> None:
    page.errors_expected = True
    notes = page.folder / "notes.txt"
    notes.write_text("no picture\n")
    page.one("#predict input[type=file]").send_keys(str(notes))
    assert send(page, "predict").startswith("415")
    assert content(page, "predict")["error"]["code"] == "not_an_image"


def test_without_a_picture_nothing_is_sent(page: Page) -> None:
    page.one("#predict .button").click()
    assert page.js("return document.querySelector('#predict input:invalid').type") == "file"
    assert page.text("#predict .answer") == ""


@pytest.mark.parametrize("media_type", ["image/*", "application/json"])
def test_each_kind_of_body_can_be_sent(page: Page, picture: Path, media_type: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(page.one("#predict-type")).select_by_value(media_type)
    if media_type == "image/*":
        page.one("#predict input[type=file]").send_keys(str(picture))
    assert send(page, "predict") == "200 OK"


def test_a_key_is_sent_and_not_shown(page: Page) -> None:
    page.one("#api-key").send_keys("secret")
    assert send(page, "getModel") == "200 OK"
    command = page.text("#getModel .command")
    assert "Bearer KEY" in command
    assert "secret" not in command
    page.js("sessionStorage.clear()")


def test_every_endpoint_has_a_form_of_named_controls(page: Page) -> None:
    operations = page.all(".operation")
    assert len(operations) == len(page.all(".operation form"))
    page.cdp("Accessibility.enable")
    nodes = [node for node in page.cdp("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
    controls = {"button", "link", "combobox", "textbox", "checkbox", "form"}
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    assert controls <= {role for role, _ in named}
    assert [pair for pair in named if pair[0] in controls and not pair[1].strip()] == []
    assert page.one("#predict .answer").get_attribute("role") == "status"


def test_the_keyboard_alone_sends_a_request(page: Page) -> None:
    from selenium.webdriver import Keys

    page.js("document.querySelector('#getPrediction-prediction_id').focus()")
    page.errors_expected = True
    page.press(Keys.ENTER)
    page.until(lambda: page.all("#getPrediction .command"))
    assert page.text("#getPrediction .status strong").startswith("404")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_too_wide_and_texts_have_enough_contrast(page: Page, picture: Path, scheme: str) -> None:
    page.screen(320, 800, touch=True)
    page.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    page.one("#predict input[type=file]").send_keys(str(picture))
    send(page, "predict")
    texts = page.text_contrasts()
    assert len(texts) > 40
    assert [pair for pair in texts if pair[1] < 4.5] == []
    assert axe.violations(page.driver) == []
    assert page.js("return document.documentElement.scrollWidth") <= 320
    page.screenshot(f"docs-phone-{scheme}")
