"""Every store keeps the same promises, whether it is a folder or a bucket."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import bucket

from fashion.storage import gcs
from fashion.storage.address import open_store
from fashion.storage.blobs import BlobNotFound, Store, StoreUnavailable
from fashion.storage.gcs import CHUNK_BYTES


@pytest.fixture(scope="session")
def emulator() -> Iterator[str]:
    with bucket.serve("photos") as url:
        yield url


@pytest.fixture(params=["folder", "file", "bucket", "bucket without prefix"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    if request.param == "folder":
        yield open_store(str(tmp_path / "blobs"))
    elif request.param == "file":
        yield open_store((tmp_path / "my blobs").as_uri())
    elif request.param == "bucket":
        emulator = request.getfixturevalue("emulator")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
        yield open_store(f"gs://photos/{tmp_path.name}/deep/")
    else:
        with bucket.serve("photos") as url:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
            yield open_store("gs://photos")


def test_get_returns_what_was_put(store: Store) -> None:
    store.put("a/b.bin", bytes(range(256)))
    assert store.get("a/b.bin") == bytes(range(256))


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
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: store.put_if_absent("contested", f"writer {i}".encode()), range(8)))
    assert won.count(True) == 1
    assert store.get("contested") == f"writer {won.index(True)}".encode()


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


@pytest.mark.parametrize("address", ["", "s3://bucket/x", "gs://", "https://example.org/x", "file://host/x"])
def test_other_addresses_are_rejected(address: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(address))):
        open_store(address)


def test_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = open_store(str(tmp_path / "file"))
    for write in (store.put, store.put_if_absent):
        with pytest.raises(StoreUnavailable, match=re.escape(str(tmp_path / "file"))):
            write("name", b"x")


def test_missing_bucket_is_unavailable(emulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    store = open_store("gs://nobody/x")
    with pytest.raises(StoreUnavailable, match="gs://nobody/x"):
        store.put("name", b"")
    with pytest.raises(StoreUnavailable, match="gs://nobody/x"):
        list(store.list())


def test_dead_bucket_is_unavailable_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:  # a port that nobody listens on
        listener.bind(("127.0.0.1", 0))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{listener.getsockname()[1]}")
    monkeypatch.setattr(gcs, "RETRY_SECONDS", 1.0)
    start = time.monotonic()
    with pytest.raises(StoreUnavailable, match="gs://photos"):
        open_store("gs://photos").get("name")
    assert time.monotonic() - start < 10


def test_bucket_without_credentials_names_the_remedy(tmp_path: Path) -> None:
    script = "from fashion.storage.address import open_store; open_store('gs://photos/x').exists('name')"
    environment = {k: v for k, v in os.environ.items() if k not in ("STORAGE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT")}
    environment |= {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert "gcloud auth application-default login" in done.stderr.splitlines()[-1]


def test_missing_google_package_names_the_extra(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        sys.modules["google.cloud.storage"] = None
        from fashion.storage.address import open_store
        from fashion.storage.blobs import StoreUnavailable
        try:
            open_store("gs://photos/x").put("name", b"")
        except StoreUnavailable as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "fashion[gcp]" in done.stdout, done.stderr


def test_folder_store_does_not_import_google(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import sys
        from fashion.storage.address import open_store
        open_store({str(tmp_path)!r}).put("name", b"")
        print([name for name in sys.modules if name.startswith("google")])
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("method", ["put", "put_if_absent"])
def test_killed_writer_leaves_no_half_blob(tmp_path: Path, method: str) -> None:
    script = textwrap.dedent(f"""
        import itertools
        from fashion.storage.address import open_store
        store = open_store({str(tmp_path)!r})
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
    store = open_store(str(tmp_path))
    names = list(store.list())
    assert len(names) >= 4
    for name in names:
        data = store.get(name)
        assert len(data) == 3_000_000
        assert len(set(data)) == 1
