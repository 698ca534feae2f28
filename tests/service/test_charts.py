"""Charts as SVG: what is drawn lies in the chart, has round axes, and leaves out what is not known."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.web import charts
from bentos.web.charts import HEIGHT, TOP, Band, Mark, Series, Tick, TimeAxis

TIME = TimeAxis(["a", "b", "c", "<d>"], [Tick(0.25, "b"), Tick(0.99, "d", is_minor=True)], [2])


def drawn(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(chart)


def form(value: float) -> str:
    return f"{value:g}"


def y_labels(chart: str) -> list[float]:
    return [float(str(each.text)) for each in drawn(chart).findall("./svg[@class='values']/text")]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 0, 0, 0], [0, 1]),
        ([1, 0, 0, 0], [0, 1]),
        ([7, 3, 0, 1], [0, 5, 10]),
        ([4000, 0, 0, 0], [0, 2000, 4000]),
        ([1e9, 0, 0, 0], [0, 5e8, 1e9]),
    ],
)
def test_counts_have_round_whole_labels_from_zero(values: list[float], labels: list[float]) -> None:
    chart = charts.bars(TIME, [Series("rows", "a", values)], form, label="rows")
    assert y_labels(chart) == labels


@given(st.lists(st.none() | st.floats(0, 1), min_size=4, max_size=4))
def test_shares_lie_within_their_axis(values: list[float | None]) -> None:
    chart = drawn(charts.lines(TIME, [Series("share", "a", values)], form, label="share", share=True))
    heights = [float(str(each.get("cy"))) for each in chart.iter("circle")]
    assert len(heights) == sum(value is not None for value in values)
    assert all(TOP - 0.1 <= y <= TOP + HEIGHT + 0.1 for y in heights)
    labels = [float(str(each.text)) for each in chart.findall("./svg[@class='values']/text")]
    assert all(0 <= label <= 1.0001 for label in labels)
    assert 2 <= len(labels) <= 6


@given(st.lists(st.integers(0, 10**9), min_size=4, max_size=4), st.lists(st.integers(0, 10**9), min_size=4, max_size=4))
def test_bars_stand_on_each_other_and_on_the_axis(low: list[int], high: list[int]) -> None:
    chart = drawn(charts.bars(TIME, [Series("low", "a", low), Series("high", "b", high)], form, label="x"))
    bottoms: dict[str, float] = {}
    for each in chart.iter("rect"):
        x, y, height = str(each.get("x")), float(str(each.get("y"))), float(str(each.get("height")))
        assert y >= TOP - 0.11
        assert y + height <= bottoms.get(x, TOP + HEIGHT) + 1.2  # the least bar is a pixel
        bottoms[x] = y


def test_a_line_is_broken_where_nothing_is_known() -> None:
    chart = drawn(charts.lines(TIME, [Series("ms", "a", [1.0, 2.0, None, 3.0])], form, label="ms"))
    lines = [str(each.get("points")).split() for each in chart.iter("polyline")]
    assert [len(line) for line in lines] == [2, 1]
    assert len(list(chart.iter("circle"))) == 3


def test_intervals_are_bands_around_their_values() -> None:
    chart = drawn(charts.intervals(TIME, "accuracy", [(0.7, 0.9, 0.95), None, None, (0.0, 0.0, 1.0)], label="x"))
    band, line, whole, _ = list(chart.iter("rect"))
    top, bottom = (float(str(band.get("y"))) + part for part in (0, float(str(band.get("height")))))
    assert top < float(str(line.get("y"))) < bottom
    assert float(str(whole.get("height"))) == HEIGHT
    assert whole.get("class") == "a band partial"


def test_text_is_escaped_and_marks_are_where_they_belong() -> None:
    marks = [Mark(0.5, "bad", "<b>", "/r?a=1&b=2"), Mark(0.0, "none", "x")]
    chart = charts.timeline(TIME, [Band(0, 2, "version <1>", "<1>"), Band(2, 4, "version 2", "2")], marks, label="t")
    found = drawn(chart)
    assert [each.get("x") for each in found.iter("svg") if each.get("class") == "at"] == ["50.000%", "0.000%"]
    assert [each.get("href") for each in found.iter("a")] == ["/r?a=1&b=2"]
    assert "<b>" not in chart
    title = drawn(charts.bars(TIME, [Series("rows", "a", [0, 0, 0, 1])], form, label="x")).findtext(".//rect/title")
    assert title == "<d>: 1 rows"


def test_a_narrow_band_has_a_short_label_or_none() -> None:
    time = TimeAxis([str(step) for step in range(30)], [])
    bands = [Band(0, 1, "version 1", "1"), Band(1, 4, "version 2", "2"), Band(4, 30, "version 3", "3")]
    texts = [each.text for each in drawn(charts.timeline(time, bands, [], label="t")).iter("text")]
    assert texts == [None, "2", "version 3"]


def test_times_at_the_ends_stay_in_the_chart() -> None:
    chart = charts.bars(TIME, [Series("rows", "a", [1, 1, 1, 1])], form, label="x")
    assert re.findall(r"text-anchor='(\w+)'>([bd])<", chart) == [("middle", "b"), ("end", "d")]
    assert "class='minor'" in chart
