"""Sources: a download over HTTP and a bucket, each with its failures."""

import contextlib
import gzip
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.stores import KINDS, Clouds
from support.tiny_dataset import RecordingReporter, TinyDataset

from fashion.config.schema import SourceConfig
from fashion.data import dataset, manifest, sources
from fashion.data.fetch import DataUnavailable, fetch_data, push_data
from fashion.data.manifest import DataError
from fashion.home import REPOSITORY


@dataclass
class Site:
    """A download site on loopback, and what it does with each file."""

    url: str
    requests: list[str]
    trouble: dict[str, list[str]]
    """File name -> what to do at each request, in turn; afterwards it behaves."""
    pause: list[float]
    """Seconds between pieces."""


@contextlib.contextmanager
def serve(folder: Path, *, tls: tuple[Path, Path] | None = None) -> Iterator[Site]:
    requests: list[str] = []
    trouble: dict[str, list[str]] = {}
    pause = [0.0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rsplit("/", 1)[-1]
            requests.append(name)
            act = trouble[name].pop(0) if trouble.get(name) else ""
            path = folder / name
            if not path.exists():
                self.send_error(404)
                return
            if act == "busy":
                self.send_error(503)
                return
            data = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if act == "half":
                data = data[: len(data) // 2]
            if act == "hang":
                self.wfile.write(data[:10])
                time.sleep(1.5)
                return
            for start in range(0, len(data), 500):
                self.wfile.write(data[start : start + 500])
                time.sleep(pause[0])

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # clients are killed here
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    scheme = "http"
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        scheme = "https"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Site(f"{scheme}://127.0.0.1:{server.server_port}/data", requests, trouble, pause)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class TestDownload:
    @pytest.fixture
    def site(self, tiny: TinyDataset) -> Iterator[Site]:
        with serve(tiny.source) as site:
            yield site

    def test_download_shows_progress(self, tiny: TinyDataset, site: Site) -> None:
        reporter = RecordingReporter()
        fetch_data(tiny.only("https", site.url), tiny.cache, reporter=reporter)
        assert len(reporter.messages) == 4
        assert all("verified" in message for message in reporter.messages)
        assert any("100%" in message for message in reporter.progress_lines)
        assert len(dataset.load(tiny.data, tiny.cache).train) == 50

    def test_files_without_gzip_are_downloaded(self, tiny: TinyDataset, site: Site) -> None:
        for path in list(tiny.source.iterdir()):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
        fetch_data(tiny.only("https", site.url), tiny.cache, reporter=RecordingReporter())

    def test_cut_off_download_is_retried(self, tiny: TinyDataset, site: Site) -> None:
        name = f"{tiny.version.files[0].path}.gz"
        site.trouble[name] = ["half"]
        reporter = RecordingReporter()
        fetch_data(tiny.only("https", site.url), tiny.cache, reporter=reporter)
        assert site.requests.count(name) == 2
        assert "the connection ended after" in reporter.messages[0]
        assert "retrying" in reporter.messages[0]

    @pytest.mark.parametrize(
        ("act", "reason"),
        [("half", "the connection ended after"), ("busy", "HTTP 503 Service Unavailable"), ("hang", "timed out")],
    )
    def test_download_that_fails_twice_is_reported(
        self, tiny: TinyDataset, site: Site, act: str, reason: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sources, "SILENCE_SECONDS", 0.3)
        name = f"{tiny.version.files[0].path}.gz"
        site.trouble[name] = [act, act]
        with pytest.raises(DataUnavailable, match=f"{name}: .*{reason}") as caught:
            fetch_data(tiny.only("https", site.url), tiny.cache, reporter=RecordingReporter())
        assert tiny.version.files[1].path not in str(caught.value)  # the others came
        assert {path.name for path in tiny.folder.iterdir()} == {entry.path for entry in tiny.version.files[1:]}

    def test_wrong_content_never_enters_the_cache(self, tiny: TinyDataset, site: Site) -> None:
        name = tiny.version.files[0].path
        (tiny.source / f"{name}.gz").write_bytes(gzip.compress(b"<html>please log in</html>"))
        with pytest.raises(DataUnavailable, match=f"{name} is cut off"):
            fetch_data(tiny.only("https", site.url), tiny.cache, reporter=RecordingReporter())
        assert not (tiny.folder / name).exists()

    def test_endless_and_exploding_files_are_cut_off(self, tiny: TinyDataset, site: Site) -> None:
        first, second = (entry.path for entry in tiny.version.files[:2])
        (tiny.source / f"{first}.gz").write_bytes(bytes(10_000_000))
        (tiny.source / f"{second}.gz").write_bytes(gzip.compress(bytes(10_000_000)))
        with pytest.raises(DataUnavailable, match=f"{first}.gz: more than") as caught:
            fetch_data(tiny.only("https", site.url), tiny.cache, reporter=RecordingReporter())
        assert f"{second} is longer than" in str(caught.value)

    def test_missing_file_is_reported(self, tiny: TinyDataset, site: Site) -> None:
        name = tiny.version.files[0].path
        (tiny.source / f"{name}.gz").unlink()
        with pytest.raises(DataUnavailable, match=f"{name}.gz and {name}: HTTP 404"):
            fetch_data(tiny.only("https", site.url), tiny.cache, reporter=RecordingReporter())

    def test_concurrent_fetches_all_succeed(self, tiny: TinyDataset, site: Site) -> None:
        site.pause[0] = 0.005
        data = tiny.only("https", site.url)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: fetch_data(data, tiny.cache, reporter=RecordingReporter()), range(4)))
        assert sorted(path.name for path in tiny.folder.iterdir()) == sorted(e.path for e in tiny.version.files)
        assert len(dataset.load(tiny.data, tiny.cache).train) == 50

    @pytest.mark.fault("kill -9 while data is fetched")
    def test_killed_fetch_leaves_no_incomplete_file(self, tiny: TinyDataset, site: Site) -> None:
        site.pause[0] = 0.05
        data = tiny.only("https", site.url)
        command = [sys.executable, "-m", "fashion", "data", "fetch", *replace(tiny, data=data).overrides]
        fetching = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
        while not site.requests:
            time.sleep(0.02)
            assert fetching.poll() is None
        time.sleep(0.1)
        fetching.send_signal(signal.SIGKILL)
        fetching.wait()
        for entry in tiny.version.files:
            assert manifest.state(entry, tiny.folder) in ("missing", "verified")
        site.pause[0] = 0.0
        fetch_data(data, tiny.cache, reporter=RecordingReporter())
        assert len(dataset.load(tiny.data, tiny.cache).train) == 50

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
    def test_certificates_are_checked(self, tiny: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
        command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=tiny -addext subjectAltName=IP:127.0.0.1"
        subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
        with serve(tiny.source, tls=(certificate, key)) as site:
            with pytest.raises(DataUnavailable, match="certificate verify failed"):
                fetch_data(tiny.only("https", site.url), tiny.cache, reporter=RecordingReporter())
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            fetch_data(tiny.only("https", site.url), tiny.cache, reporter=RecordingReporter())


class TestBucket:
    @pytest.fixture(params=[*KINDS, "folder"])
    def shared(
        self, request: pytest.FixtureRequest, tiny: TinyDataset, clouds: Clouds, monkeypatch: pytest.MonkeyPatch
    ) -> TinyDataset:
        """The tiny data set, fetched, with an empty bucket as second source."""
        if request.param == "folder":
            address = str(tiny.cache.parent / "shared")
        else:
            address = f"{clouds.bucket(request.param, monkeypatch)}/data"
        data = replace(tiny.data, sources=(*tiny.data.sources, SourceConfig("bucket", address)))
        fetch_data(data, tiny.cache, reporter=RecordingReporter())
        return replace(tiny, data=data)

    def test_pushed_files_can_be_fetched_from_the_bucket_alone(self, shared: TinyDataset, tmp_path: Path) -> None:
        address = push_data(shared.data, shared.cache, reporter=RecordingReporter())
        reporter = RecordingReporter()
        elsewhere = tmp_path / "elsewhere"
        fetch_data(shared.only("bucket", address), elsewhere, reporter=reporter)
        assert len(dataset.load(shared.data, elsewhere).train) == 50
        assert len(reporter.messages) == 4
        assert "100%" in reporter.progress_lines[-1]

    def test_second_push_uploads_nothing(self, shared: TinyDataset) -> None:
        push_data(shared.data, shared.cache, reporter=RecordingReporter())
        reporter = RecordingReporter()
        push_data(shared.data, shared.cache, reporter=reporter)
        assert all("already in" in message for message in reporter.messages)

    def test_changed_file_is_never_pushed(self, shared: TinyDataset) -> None:
        path = shared.folder / shared.version.files[0].path
        path.write_bytes(path.read_bytes()[:-1] + b"\xff\xff")
        with pytest.raises(DataError, match=r"is longer than .*; run `fashion data fetch`, then push"):
            push_data(shared.data, shared.cache, reporter=RecordingReporter())

    def test_empty_bucket_is_reported(self, shared: TinyDataset, tmp_path: Path) -> None:
        data = shared.only("bucket", shared.data.sources[-1].address)
        with pytest.raises(DataUnavailable, match=r"bucket .*: there is no train-images-idx3-ubyte \(sha256/"):
            fetch_data(data, tmp_path / "elsewhere", reporter=RecordingReporter())
