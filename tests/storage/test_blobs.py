"""Every store keeps the same promises, whether it is a folder or a bucket."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import proxy
from support.stores import KINDS, Clouds

from fashion.storage.address import open_store
from fashion.storage.blobs import BlobNotFound, Store, StoreUnavailable
from fashion.storage.gcs import CHUNK_BYTES

PACKAGES = {"gs": "google.cloud.storage", "s3": "obstore", "az": "obstore"}
VARIABLES = ("STORAGE_EMULATOR_HOST", "GOOGLE_", "AWS_", "AZURE_")
"""What the variables start with that lead to a bucket or let somebody use it."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bucket(kind: str, clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an empty bucket."""
    return clouds.bucket(kind, monkeypatch)


WITHOUT_PREFIX = [
    "gs without prefix",
    pytest.param("s3 without prefix", marks=pytest.mark.slow),
    pytest.param("az without prefix", marks=pytest.mark.slow),
]


@pytest.fixture(params=["folder", "file", *KINDS, *WITHOUT_PREFIX])
def store(request: pytest.FixtureRequest, clouds: Clouds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    kind, _, without_prefix = request.param.partition(" ")
    if kind == "folder":
        return open_store(str(tmp_path / "blobs"))
    if kind == "file":
        return open_store((tmp_path / "my blobs").as_uri())
    address = clouds.bucket(kind, monkeypatch)
    return open_store(address if without_prefix else f"{address}/some/deep/")


def test_get_returns_what_was_put(store: Store) -> None:
    store.put("a/b.bin", bytes(range(256)))
    assert store.get("a/b.bin") == bytes(range(256))


def test_a_deleted_blob_is_gone_and_deleting_it_again_changes_nothing(store: Store) -> None:
    for name in ("a/b", "a/c"):
        store.put(name, b"1")
    for _ in range(2):
        store.delete("a/b")
    store.delete("never/there")
    assert sorted(store.list()) == ["a/c"]
    assert not store.exists("a/b")
    store.put("a/b", b"2")
    assert store.get("a/b") == b"2"


def test_empty_blob_is_a_blob(store: Store) -> None:
    store.put("empty", b"")
    assert store.exists("empty")
    assert store.get("empty") == b""


def test_blob_larger_than_one_chunk_is_whole(store: Store) -> None:
    data = os.urandom(CHUNK_BYTES + 12_345)
    store.put("large", data)
    assert store.get("large") == data
    assert store.put_if_absent("large", b"other") is False
    assert store.put_if_absent("large 2", data) is True
    assert store.get("large 2") == data


def test_put_replaces(store: Store) -> None:
    store.put("name", b"old")
    store.put("name", b"new")
    assert store.get("name") == b"new"


def test_put_if_absent_keeps_the_first(store: Store) -> None:
    assert store.put_if_absent("name", b"first") is True
    assert store.put_if_absent("name", b"second") is False
    assert store.get("name") == b"first"


def test_of_many_writers_one_wins(store: Store) -> None:
    for size in (10, 300_000):
        name, barrier = f"contested {size}", threading.Barrier(16)

        def write(content: bytes, name: str = name, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return store.put_if_absent(name, content)

        contents = [bytes([writer]) * size for writer in range(16)]
        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(write, contents))
        assert won.count(True) == 1
        assert store.get(name) == contents[won.index(True)]


def test_missing_blob_is_not_found(store: Store) -> None:
    assert not store.exists("nothing")
    with pytest.raises(BlobNotFound, match="holds no nothing") as caught:
        store.get("nothing")
    assert isinstance(caught.value, FileNotFoundError)


def test_list_gives_names_under_the_prefix(store: Store) -> None:
    assert list(store.list()) == []
    for name in ("a/1", "a/2", "ab", "b/1/x"):
        store.put(name, b"")
    assert sorted(store.list()) == ["a/1", "a/2", "ab", "b/1/x"]
    assert sorted(store.list("a")) == ["a/1", "a/2", "ab"]
    assert sorted(store.list("a/")) == ["a/1", "a/2"]
    assert sorted(store.list("b/1/")) == ["b/1/x"]
    assert list(store.list("c/")) == []


def test_entries_know_size_and_time_without_reading(store: Store) -> None:
    began = time.time()
    for name, data in (("runs/1/a", b"123"), ("runs/1/b", b""), ("other", b"1")):
        store.put(name, data)
    found = {each.name: each for each in store.entries("runs/")}
    assert {name: each.num_bytes for name, each in found.items()} == {"runs/1/a": 3, "runs/1/b": 0}
    assert all(abs(each.changed_s - began) < 60 for each in found.values())
    assert list(store.entries("nothing")) == []


def test_names_with_odd_characters_survive(store: Store) -> None:
    for name in ("T-shirt top.png", "größe/ü", "100%", "a=b&c?d#e"):
        store.put(name, name.encode())
        assert store.get(name) == name.encode()
        assert name in store.list()


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../../up", "a//b", "a/", ".hidden"])
def test_names_that_leave_the_address_are_rejected(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a blob"):
        store.put(name, b"")
    with pytest.raises(ValueError, match="cannot name a blob"):
        store.get(name)


def test_reading_reports_bytes_as_they_arrive(store: Store) -> None:
    data = os.urandom(3_000_000)
    store.put("name", data)
    heard: list[int] = []
    assert store.get("name", on_bytes=heard.append) == data
    assert sum(heard) == len(data)


@pytest.mark.parametrize(
    "address",
    [
        *("", "gs://", "s3://", "az:///x", "s3:bucket", "s3://two words/x", "s3://b/a/../c", "az://b/./c"),
        *("ftp://bucket/x", "https://example.org/x", "file://host/x"),
    ],
)
def test_other_addresses_are_rejected(address: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(address))):
        open_store(address)


def test_an_address_with_slashes_to_spare_is_the_same_store(bucket: str) -> None:
    open_store(f"{bucket}/a/b").put("name", b"x")
    assert open_store(f"{bucket}/a/b//").get("name") == b"x"
    if not bucket.startswith("gs"):  # where a part of a name may be empty
        assert open_store(f"{bucket}/a//b").get("name") == b"x"


def test_a_prefix_may_hold_any_character(bucket: str) -> None:
    open_store(f"{bucket}/größe/a?b#c%20d").put("name", b"x")
    assert list(open_store(bucket).list()) == ["größe/a?b#c%20d/name"]


@pytest.mark.slow
def test_markers_that_consoles_make_for_folders_are_no_blobs_of_the_folder(
    clouds: Clouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = clouds.bucket("s3", monkeypatch)
    server = clouds.server("s3").environment["AWS_ENDPOINT_URL"]
    request = urllib.request.Request(f"{server}/{bucket.removeprefix('s3://')}/pictures/", b"", method="PUT")
    with urllib.request.urlopen(request):
        open_store(f"{bucket}/pictures").put("1.png", b"x")
    assert list(open_store(f"{bucket}/pictures").list()) == ["1.png"]


def test_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = open_store(str(tmp_path / "file"))
    for write in (store.put, store.put_if_absent):
        with pytest.raises(StoreUnavailable, match=re.escape(str(tmp_path / "file"))):
            write("name", b"x")


def test_missing_bucket_is_unavailable(kind: str, bucket: str) -> None:
    store = open_store(f"{kind}://nobody/x")
    for use in (lambda: store.put("name", b""), lambda: store.put_if_absent("name", b""), lambda: list(store.list())):
        with pytest.raises(StoreUnavailable, match=f"^{kind}://nobody/x cannot be used: "):
            use()
    if kind != "gs":  # Google's client does not tell a missing bucket from a missing blob
        for read in (store.get, store.exists):
            with pytest.raises(StoreUnavailable, match=f"^{kind}://nobody/x cannot be used: there is no such "):
                read("name")


def lead_to(kind: str, url: str, clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables that lead to buckets of a kind, but at another server."""
    for name, value in clouds.server(kind).environment.items():
        monkeypatch.setenv(name, url if "://" in value else value)
    if kind == "gs":
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)


@pytest.mark.fault("dead bucket")
@pytest.mark.parametrize("is_listening", [False, True])
def test_dead_bucket_is_unavailable_soon(
    kind: str, clouds: Clouds, monkeypatch: pytest.MonkeyPatch, is_listening: bool
) -> None:
    monkeypatch.setenv("FASHION_SERVER_SECONDS", "1")
    with socket.socket() as listener:  # whoever listens never accepts
        listener.bind(("127.0.0.1", 0))
        if is_listening:
            listener.listen()
        lead_to(kind, f"http://127.0.0.1:{listener.getsockname()[1]}", clouds, monkeypatch)
        for use in (lambda store: store.get("name"), lambda store: store.put_if_absent("name", b"x")):
            start = time.monotonic()
            why = "it does not answer|the connection was refused" if kind == "gs" else ".*127.0.0.1"
            with pytest.raises(StoreUnavailable, match=f"^{kind}://photos cannot be used: ({why})"):
                use(open_store(f"{kind}://photos"))
            assert time.monotonic() - start < 20


def test_a_download_that_stalls_is_unavailable_soon(
    kind: str, bucket: str, clouds: Clouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_SERVER_SECONDS", "1")
    open_store(bucket).put("large", bytes(20_000_000))
    url = next(value for value in clouds.server(kind).environment.values() if "://" in value)
    with proxy.between(urllib.parse.urlsplit(url).netloc) as between:
        behind = urllib.parse.urlsplit(url)._replace(netloc=between.address).geturl()
        lead_to(kind, behind, clouds, monkeypatch)
        with pytest.raises(StoreUnavailable, match=f"^{bucket} cannot be used: "):
            open_store(bucket).get("large", on_bytes=lambda _: between.swallow_answers())


def run_elsewhere(code: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run code in a process without the variables that lead to a bucket, but with those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env={**kept, **environment}, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("address", "environment", "remedy"),
    [
        ("gs://photos/x", {"NO_GCE_CHECK": "true"}, "gcloud auth application-default login"),
        ("s3://photos/x", {"AWS_METADATA_ENDPOINT": "http://127.0.0.1:9"}, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACC"),
        ("az://photos/x", {}, "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"),
        (
            "az://photos/x",
            {"AZURE_STORAGE_ACCOUNT_NAME": "x", "AZURE_MSI_ENDPOINT": "http://127.0.0.1:9/metadata/identity/"},
            "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        ),
    ],
)
def test_bucket_without_credentials_names_the_remedy(
    address: str, environment: dict[str, str], remedy: str, tmp_path: Path
) -> None:
    code = f"from fashion.storage.address import open_store; open_store({address!r}).exists('name')"
    home = {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path)}
    last = run_elsewhere(code, {**home, **environment}).stderr.splitlines()[-1]
    assert f"StoreUnavailable: {address} cannot be used" in last
    assert remedy in last


@pytest.mark.parametrize(("kind", "extra"), [("gs", "gcp"), ("s3", "s3-azure"), ("az", "s3-azure")])
def test_missing_package_names_the_extra(kind: str, extra: str) -> None:
    code = f"""
        import sys
        sys.modules["{PACKAGES[kind]}"] = None
        from fashion.storage.address import open_store
        from fashion.storage.blobs import StoreUnavailable
        try:
            open_store("{kind}://photos/x").put("name", b"")
        except StoreUnavailable as error:
            print(error)
    """
    done = run_elsewhere(code, {})
    assert f"{kind}://photos/x needs the package " in done.stdout, done.stderr
    assert f"fashion[{extra}]" in done.stdout


def test_a_store_imports_only_what_its_own_kind_needs(kind: str, bucket: str, tmp_path: Path) -> None:
    code = """
        import sys
        from fashion.storage.address import open_store
        open_store(sys.argv[1]).put("name", b"")
        print(sorted({name.partition(".")[0] for name in sys.modules} & {"google", "obstore"}))
    """
    for address, packages in ((str(tmp_path), []), (bucket, [PACKAGES[kind].partition(".")[0]])):
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), address], capture_output=True, text=True)
        assert done.stdout.strip() == str(packages), done.stderr


@pytest.mark.fault("kill -9 while a file is stored")
@pytest.mark.parametrize("method", ["put", "put_if_absent"])
@pytest.mark.parametrize("where", ["folder", *KINDS])
def test_killed_writer_leaves_no_half_blob(
    where: str, method: str, clouds: Clouds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path) if where == "folder" else clouds.bucket(where, monkeypatch)
    script = textwrap.dedent(f"""
        import itertools
        from fashion.storage.address import open_store
        store = open_store({address!r})
        for i in itertools.count():
            name = i % 5 if {method == "put"} else i
            store.{method}(f"blob{{name}}", bytes([i % 256]) * 3_000_000)
            if i == 3:
                print("writing", flush=True)
    """)
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(0.05)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    store = open_store(address)
    names = list(store.list())
    assert len(names) >= 4
    for name in names:
        data = store.get(name)
        assert len(data) == 3_000_000
        assert len(set(data)) == 1
