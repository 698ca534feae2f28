"""What a report says of each verdict, and that a browser needs nothing else to show it."""

import dataclasses
import re
from html import escape
from pathlib import Path

import numpy as np
import pytest
from support import axe, browser
from support.imagined import CLASSES, HARMLESS, SETTINGS, estimator, sample_predictions

from fashion.data.dataset import Split
from fashion.drift import inspection, report_page, verdict
from fashion.drift.evidently_report import EvidentlyPage
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.report_examples import Example, load_examples
from fashion.drift.result import Context, empty_window, result_as_dict, with_unjudged
from fashion.drift.window_part import Inspection
from fashion.images import image_store
from fashion.model.reference import Reference
from fashion.predictions.batch import Batch
from fashion.predictions.record import UNLABELLED, ModelId
from fashion.storage.address import open_store

NAMES = ("cat <b>", *CLASSES[1:])
"""Class names of which one is no HTML."""
QUESTIONS = ["Is something wrong?", "Does it hurt?", "What to do?"]


@pytest.fixture(scope="module")
def reference() -> Reference:
    rows = sample_predictions(2000, seed=1)
    truth = rows.labels.copy()
    truth[:200] = (truth[:200] + 1) % 3
    return Reference(truth, rows)


def inspect(
    reference: Reference,
    *,
    rows: int = 300,
    shift: float = 0.0,
    sharpness: float = 3.0,
    wrong: float | None = None,
    older: bool = False,
) -> Inspection:
    """A window of 300 rows like the reference; with `wrong`, that share of feedback contradicts the predictions."""
    predictions = sample_predictions(rows, seed=7, shift=shift, sharpness=sharpness)
    truth = np.full(rows, UNLABELLED)
    if wrong is not None:
        truth = (predictions.labels + (np.arange(rows) < wrong * rows)) % 3
    names = [f"{row:064x}" for row in range(rows)]
    batch = Batch(
        predictions, truth, 1_800_000_000_000_000 + np.arange(rows), names, names, [ModelId("m", "7", "0" * 16)] * rows
    )
    stats = ReferenceStats(reference, HARMLESS if older else None, NAMES, None if older else estimator(reference))
    settings = dataclasses.replace(SETTINGS, resplits=10)
    ((found,), _) = inspection.inspect([batch], lambda _: stats, settings, max_plot_rows=100, max_examples=4)
    return found


def render(found: Inspection, reference: Reference | None, **more: object) -> str:
    options = {"report_id": "R", "examples": [], "history": [], "evidently_pages": [], **more}
    predictions = None if reference is None else reference.predictions
    return report_page.render(found, model="m", class_names=NAMES, reference=predictions, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("window", "headline", "tone"),
    [
        ({}, "No drift", "good"),
        ({"rows": 20}, "Not enough data", "plain"),
        ({"shift": 0.8}, "Harmless drift", "warn"),
        ({"sharpness": 0.5}, "Harmful drift", "bad"),
        ({"sharpness": 0.5, "wrong": 0.5}, "Harmful drift: accuracy is down", "bad"),
        ({"shift": 0.8, "wrong": 0.5}, "Harmless drift: accuracy is down", "bad"),
        ({"wrong": 0.5}, "Accuracy is down", "bad"),
        ({"sharpness": 0.5, "older": True}, "Harmful drift", "bad"),
        ({"rows": 40, "wrong": 0.5}, "Accuracy is down", "bad"),
    ],
)
def test_each_verdict_has_its_headline(
    window: dict[str, float], headline: str, tone: str, reference: Reference
) -> None:
    found = inspect(reference, **window)  # type: ignore[arg-type]
    page = render(found, reference)
    assert f"<header class='{tone}'><h1>{headline}</h1>" in page
    assert escape(verdict.is_wrong(found.result).sentence) in page
    assert f"<title>{headline} (m version 7)</title>" in page


def test_sections_follow_the_questions_of_a_reader(reference: Reference) -> None:
    found = inspect(reference, sharpness=0.5, wrong=0.5)
    page = render(found, reference, history=[{"id": "x", **result_as_dict(found.result)}, {"decision": "unreadable"}])
    titles = [*QUESTIONS, "Why", "How bad", "Where", "What changed", "Earlier windows"]
    assert re.findall("<h2>(.*?)</h2>", page) == titles
    assert "of 10 windows of 300 rows, drawn from the model's own held-out data, were called drift" in page
    assert "<td>Harmful drift" in re.sub("<td class=[^>]*>", "<td>", page)
    assert "unreadable" in page


def test_a_report_without_a_reference_has_only_the_verdict(reference: Reference) -> None:
    empty = empty_window("shoes", (1, 2), SETTINGS)
    unknown = Inspection(with_unjudged(empty, "10 are of a version which the registry does not hold"), None)
    page = render(unknown, None)
    assert "<h1>Not enough data</h1>" in page
    assert "which the registry does not hold" in page
    assert re.findall("<h2>(.*?)</h2>", page) == QUESTIONS


def test_text_from_outside_is_escaped(reference: Reference) -> None:
    page = render(inspect(reference, sharpness=0.5, wrong=0.5), reference, remarks=["<script>alert(1)</script>"])
    assert "<script>alert" not in page
    assert "cat <b>" not in page
    assert "cat &lt;b&gt;" in page


def test_nothing_is_loaded_from_elsewhere(reference: Reference) -> None:
    evidently = EvidentlyPage("Distributions", "Shows all of its rows.", "<p>" + "x" * 10_000, "{}")
    page = render(inspect(reference, shift=0.8), reference, evidently_pages=[evidently])
    assert re.findall(r"(?:src|href)=['\"]?(?:https?:)?//", page) == []
    assert "Distributions, by Evidently" in page
    assert "x" * 100 not in page  # it is compressed


def test_an_estimate_has_its_interval_and_what_it_is_drawn_from(reference: Reference) -> None:
    found = inspect(reference, sharpness=0.5)
    estimated = found.result.estimated
    assert estimated is not None
    assert estimated.low is not None
    assert estimated.high is not None
    page = render(found, reference)
    assert f"between {estimated.low:.1%} and {estimated.high:.1%}: too wide to rely on" in page
    assert "<th>Mean confidence</th>" in page
    assert "<th>Rows that the network finds unusual, 99.0%</th>" in page
    assert "harmless up to" not in page
    older = render(inspect(reference, sharpness=0.5, older=True), reference)
    assert "harmless up to" in older
    assert "unreliable: the change is too large" in older


def test_earlier_estimates_that_are_not_reliable_say_so(reference: Reference) -> None:
    history = [
        {**result_as_dict(inspect(reference, sharpness=sharpness).result), "id": "1"} for sharpness in (3.0, 0.5)
    ]
    page = render(inspect(reference), reference, history=history)
    shown = [f"<td class='n'>{each['estimated']['accuracy']:.1%}" for each in history]
    assert f"{shown[1]} (unreliable)</td>" in page
    assert history[1]["estimated"]["reliable"] is False


def test_sets_that_miss_the_truth_are_told_with_their_numbers(reference: Reference) -> None:
    result = inspect(reference, wrong=0.5).result
    title, reason = verdict.describe_condition("coverage", result)
    assert title == "Prediction sets miss the truth"
    assert "of 300 rows with feedback hold the true label" in reason
    assert "they are to hold 90.0%" in reason


def test_the_condition_of_an_alert_names_its_numbers(reference: Reference) -> None:
    result = inspect(reference, wrong=0.5).result
    title, reason = verdict.describe_condition("decline", result)
    assert title == "Accuracy is down"
    assert reason.startswith(
        "50.0% of 300 rows with feedback are right (44.4% to 55.6%); of the reference 90.0% were (p"
    )
    harmful = inspect(reference, sharpness=0.5).result
    assert verdict.describe_condition("harmful", harmful) == ("Harmful drift", harmful.reason)


def test_examples_are_paired_with_held_out_pictures_of_the_same_class(reference: Reference, tmp_path: Path) -> None:
    found = inspect(reference, wrong=0.5)
    store = open_store(str(tmp_path))
    image = np.full((28, 28), 7, np.uint8)
    first, *others = found.unusual_rows
    rows = [dataclasses.replace(first, image_sha256=image_store.digest(image)), *others]
    image_store.put(store, image, rows[0].image_sha256)
    held_out = Split(np.stack([np.full((28, 28), label, np.uint8) for label in (0, 0, 1)]), np.array([0, 0, 1]))
    examples = load_examples(rows, store, held_out)
    assert [each.row for each in examples] == rows
    assert examples[0].picture is not None
    assert examples[0].picture[0, 0] == 7
    assert [each.picture is None for each in examples[1:]] == [True] * 3
    for each in examples:
        assert (each.typical is None) is (each.row.label == 2)
        assert each.typical is None or each.typical[0, 0] == each.row.label
    page = render(found, reference, examples=examples)
    assert "<h2>The most unusual rows</h2>" in page
    assert page.count("no picture") >= 3
    assert "confidence " in page


def test_an_estimate_that_is_not_reliable_is_never_shown_without_saying_so(reference: Reference) -> None:
    result = inspect(reference, sharpness=0.5, older=True).result
    assert result.estimated is not None
    assert not result.estimated.reliable
    shown = f"{result.estimated.accuracy:.1%}"
    page = render(Inspection(result, None), None, history=[{"id": "x", **result_as_dict(result)}])
    assert page.count(shown) == 3
    assert f"estimated at {shown} (unreliable" in page
    assert f"{shown}<small>unreliable" in page
    assert f"<td class='n'>{shown} (unreliable)</td>" in page
    assert "unreliable" in verdict.does_it_hurt(result).sentence


def test_rows_that_cannot_be_read_are_the_verdict_where_they_are_many(reference: Reference) -> None:
    few = dataclasses.replace(inspect(reference).result, unreadable=2)
    assert "unreadable" not in few.conditions
    assert "2 more rows hold no usable numbers" in render(Inspection(few, None), None)
    many = dataclasses.replace(few, unreadable=700)
    page = render(Inspection(many, None), None)
    assert "<header class='bad'><h1>Rows cannot be read</h1>" in page
    assert "700 of 1,000 rows (70.0%) hold no usable numbers" in page


def test_commands_are_of_the_data_set_of_the_model(reference: Reference) -> None:
    result = dataclasses.replace(inspect(reference, wrong=0.5).result, model_name="digits-classifier")
    of_digits = dataclasses.replace(result, context=dataclasses.replace(result.context, data="digits"))
    assert verdict.what_to_do(result, "x")[0].command == 'make rollback REASON="accuracy is down"'
    assert verdict.what_to_do(of_digits, "x")[0].command == 'make rollback REASON="accuracy is down" DATA=digits'


def test_what_changed_is_said_without_names_of_columns(reference: Reference) -> None:
    bright = verdict.is_wrong(inspect(reference, shift=0.8).result)
    assert re.fullmatch(r"[A-Z][a-z ]+, [a-z ]+, [a-z ]+ and \d more differ from the reference", bright.sentence)
    unsure = verdict.is_wrong(inspect(reference, sharpness=0.5).result)
    assert re.fullmatch(r"How sure it is of .*, .* and .* differs from the reference", unsure.sentence)


def test_the_first_screen_fits_a_phone_and_nothing_is_wider(reference: Reference, tmp_path: Path) -> None:
    found = inspect(reference, sharpness=0.5, wrong=0.5)
    examples = [Example(row, None, None) for row in found.unusual_rows]
    history = [{"id": "x", **result_as_dict(found.result)}]
    (tmp_path / "page.html").write_text(render(found, reference, examples=examples, history=history))
    with browser.start(tmp_path / "profile") as driver:
        metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get((tmp_path / "page.html").as_uri())
        assert driver.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [390, 390]
        answers = driver.find_elements("css selector", ".answers > div")
        assert [each.find_element("tag name", "b").text for each in answers][:2] == ["Yes", "Yes"]
        assert max(each.rect["y"] + each.rect["height"] for each in answers) <= 844
        driver.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        for scheme in ("light", "dark"):
            media = [{"name": "prefers-color-scheme", "value": scheme}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
            assert axe.violations(driver) == []


def test_what_was_counted_and_how_many_false_alarms_a_year_has_are_said(reference: Reference) -> None:
    found = inspect(reference)
    page = render(found, reference)
    assert "300 predictions" in page
    assert "300 distinct pictures, each counted once; no row names its client." in page
    assert "By design it is at most 1&nbsp;%." in page
    yearly = dataclasses.replace(found, result=dataclasses.replace(found.result, false_alarms_per_year=3.65))
    assert "By design it is at most 1&nbsp;%: of all runs of a year, at most 3.65 in expectation." in render(
        yearly, reference
    )


def test_a_column_that_cannot_be_tested_is_shown_as_such(reference: Reference) -> None:
    found = inspect(reference, shift=0.8)
    columns = [dataclasses.replace(found.result.columns[0], p_value=float("nan")), *found.result.columns[1:]]
    page = render(
        dataclasses.replace(found, result=dataclasses.replace(found.result, columns=tuple(columns))), reference
    )
    assert "not tested" in page
    assert "nan" not in page.split("<details>")[0]


def test_a_family_that_was_not_tested_is_not_called_free_of_drift(reference: Reference) -> None:
    found = inspect(reference)
    p_values = {**found.result.p_values, "class probabilities": float("nan")}
    page = render(dataclasses.replace(found, result=dataclasses.replace(found.result, p_values=p_values)), reference)
    (row,) = re.findall("<tr><th>class probabilities</th>.*?</tr>", page)
    assert "not tested" in row
    assert "no drift" not in row


def test_accepted_windows_are_named_where_false_alarms_are_measured_on_them(reference: Reference) -> None:
    found = inspect(reference)
    accepted = dataclasses.replace(found.result, context=Context(accepted_rows=900))
    page = render(dataclasses.replace(found, result=accepted), reference)
    assert "of 10 windows of 300 rows, drawn from windows that were accepted, were called drift" in page


def test_clients_that_are_too_few_to_test_feedback_are_named(reference: Reference) -> None:
    found = inspect(reference, wrong=0.5)
    assert found.result.feedback is not None
    feedback = dataclasses.replace(found.result.feedback, p_decline=float("nan"), declined=None)
    page = render(dataclasses.replace(found, result=dataclasses.replace(found.result, feedback=feedback)), reference)
    assert "too few rows or clients" in page
