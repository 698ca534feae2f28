"""Stored reports: listed by time, complete or missing, and only from their own store."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stores import KINDS, Clouds

from fashion.drift import reports
from fashion.storage.address import open_store
from fashion.storage.blobs import BlobNotFound, Store, StoreUnavailable

NOW_US = 1_800_000_000_000_000
SECOND_US = 1_000_000
versions = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "reports"))


@pytest.fixture(params=["folder", *KINDS])
def any_store(request: pytest.FixtureRequest, store: Store, clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A folder, or a bucket of each kind."""
    return store if request.param == "folder" else open_store(f"{clouds.bucket(request.param, monkeypatch)}/reports")


def publish(store: Store, *numbers: int) -> list[str]:
    """A report for each number, that many seconds after one moment."""
    ids = [reports.make_id(NOW_US + number * SECOND_US, "shoes", "3") for number in numbers]
    for report_id, number in zip(ids, numbers, strict=True):
        reports.publish(store, report_id, f"<p>{number}</p>", {"number": number})
    return ids


# Names


def test_an_id_holds_time_and_version() -> None:
    assert reports.make_id(NOW_US, "shoes", "12") == "20270115T080000Z-shoes-v12"


@given(
    first=st.integers(0, 4_000_000_000),
    second=st.integers(0, 4_000_000_000),
    rest=st.integers(0, SECOND_US - 1),
    version=versions,
    other=versions,
)
def test_ids_sort_by_time_whatever_the_versions(first: int, second: int, rest: int, version: str, other: str) -> None:
    names = [
        reports.make_id(first * SECOND_US + rest, "shoes", version),
        reports.make_id(second * SECOND_US, "shoes", other),
    ]
    if first != second:
        assert (names[0] < names[1]) is (first < second)
    assert (names[0][:16] == names[1][:16]) is (first == second)


@settings(max_examples=50)
@given(version=versions)
def test_any_version_gives_an_id_that_can_be_stored_and_read(
    version: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = open_store(str(tmp_path_factory.mktemp("reports")))
    report_id = reports.make_id(NOW_US, "shoes", version)
    reports.publish(store, report_id, "page", {})
    assert reports.read_page(store, report_id) == b"page"
    assert [each["id"] for each in reports.latest(store, 2)] == [report_id]


@pytest.mark.parametrize(
    ("version", "named"),
    [
        ("", "none"),
        ("../../etc/passwd", "..-..-etc-passwd"),
        ("a b\n", "a-b-"),
        ("é\0%2f", "---2f"),
        ("9" * 99, "9" * 38),
    ],
)
def test_unsafe_characters_of_a_version_are_replaced(version: str, named: str) -> None:
    assert reports.make_id(NOW_US, "shoes", version) == f"20270115T080000Z-shoes-v{named}"


# What is there


def test_a_stored_report_can_be_read(any_store: Store) -> None:
    assert reports.latest(any_store, 9) == []
    with pytest.raises(BlobNotFound):
        reports.read_page(any_store, reports.make_id(NOW_US, "shoes", "3"))
    (report_id,) = publish(any_store, 1)
    assert reports.read_page(any_store, report_id) == b"<p>1</p>"
    assert reports.latest(any_store, 9) == [{"id": report_id, "number": 1}]


def test_a_report_with_the_same_id_is_replaced(store: Store) -> None:
    (report_id,) = publish(store, 1)
    reports.publish(store, report_id, "größer", {"number": 2})
    assert reports.read_page(store, report_id) == "größer".encode()
    assert reports.latest(store, 9) == [{"id": report_id, "number": 2}]


def test_the_newest_reports_come_first_up_to_the_count(store: Store) -> None:
    publish(store, 3, 90_000, 1, 4000, 2)
    assert [each["number"] for each in reports.latest(store, 9)] == [90_000, 4000, 3, 2, 1]
    assert [each["number"] for each in reports.latest(store, 2)] == [90_000, 4000]
    assert reports.latest(store, 0) == []


def test_an_empty_store_has_no_reports(store: Store) -> None:
    assert reports.latest(store, 9) == []


def test_other_files_of_the_store_are_no_reports(store: Store) -> None:
    (report_id,) = publish(store, 1)
    for name in ("state/alerts.json", "result.json", f"{report_id}/picture.png", "x/old-result.json"):
        store.put(name, b"{}")
    assert [each["id"] for each in reports.latest(store, 9)] == [report_id]


def test_an_incomplete_report_is_treated_as_missing(store: Store) -> None:
    (whole,) = publish(store, 1)
    half = reports.make_id(NOW_US + 9 * SECOND_US, "shoes", "3")
    store.put(f"{half}/{reports.PAGE}", b"page")
    assert [each["id"] for each in reports.latest(store, 1)] == [whole]
    store.put(f"{half}/{reports.RESULT}", b"{}")
    assert [each["id"] for each in reports.latest(store, 1)] == [half]


@pytest.mark.fault("damaged drift report")
@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'"no drift"'])
def test_a_damaged_result_is_listed_as_unreadable_beside_the_others(damage: bytes, store: Store) -> None:
    first, second = publish(store, 1, 2)
    store.put(f"{second}/{reports.RESULT}", damage)
    assert reports.latest(store, 9) == [{"id": second, "decision": "unreadable"}, {"id": first, "number": 1}]
    assert reports.read_page(store, second) == b"<p>2</p>"


def test_an_unreadable_store_is_an_error_and_not_empty(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    store = open_store(str(tmp_path / "loop"))
    for read in (
        lambda: reports.latest(store, 9),
        lambda: reports.read_page(store, reports.make_id(NOW_US, "shoes", "3")),
    ):
        with pytest.raises(StoreUnavailable, match=f"{tmp_path / 'loop'} cannot be used"):
            read()


# What is refused


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_result_with_nan_or_infinity_is_rejected(number: float, store: Store) -> None:
    report_id = reports.make_id(NOW_US, "shoes", "3")
    with pytest.raises(ValueError, match="not JSON compliant"):
        reports.publish(store, report_id, "page", {"p": {"brightness": number}})
    assert reports.latest(store, 9) == []


def test_a_rejected_result_leaves_the_earlier_report(store: Store) -> None:
    (report_id,) = publish(store, 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        reports.publish(store, report_id, "another page", {"number": float("nan")})
    assert reports.latest(store, 9) == [{"id": report_id, "number": 1}]
    assert reports.read_page(store, report_id) == b"<p>1</p>"


@pytest.mark.parametrize(
    "report_id",
    [
        "",
        ".",
        "..",
        "../private",
        "/private",
        "x/../../private",
        "..\\private",
        "x/y",
        ".hidden",
        "-x",
        "x\n",
        "x\0",
        "%2e%2e",
        "é",
        "x" * 101,
    ],
)
def test_an_invalid_id_finds_no_page(report_id: str, store: Store, tmp_path: Path) -> None:
    for folder in ("", "x/y", ".hidden", "-x", "x\n", "..\\private", "%2e%2e", "é", "x" * 101, "../private"):
        (tmp_path / "reports" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "reports" / folder / reports.PAGE).write_bytes(b"private")
    with pytest.raises(BlobNotFound):
        reports.read_page(store, report_id)


def test_an_unknown_report_has_no_page(store: Store) -> None:
    publish(store, 1)
    with pytest.raises(BlobNotFound):
        reports.read_page(store, reports.make_id(NOW_US, "shoes", "3"))


def test_reports_before_a_time_leave_out_those_of_its_second(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for seconds, version in ((0, "1"), (1, "1"), (1, "2"), (2, "1")):
        reports.publish(
            store, reports.make_id(NOW_US + 1_000_000 * seconds, "shoes", version), "page", {"rows": seconds}
        )
    assert [each["rows"] for each in reports.latest(store, 9, before_us=NOW_US + 1_500_000)] == [0]
    assert [each["rows"] for each in reports.latest(store, 9)] == [2, 1, 1, 0]
