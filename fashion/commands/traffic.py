"""Play the users of a running service: send real test images, corrupted by name, and say what they are.

fashion traffic --rows 500
fashion traffic --shift brightness=0.4 --rows 1000 --labels 0.3 --url http://127.0.0.1:3000
"""

import argparse
import http.client
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from fashion.config.compose import compose
from fashion.config.schema import ConfigError, DataConfig
from fashion.config.train import load_train_config
from fashion.data import dataset, manifest
from fashion.data.dataset import Split
from fashion.data.fetch import fetch_data
from fashion.home import current_home
from fashion.images import corruptions, image_store
from fashion.images.transform import Images
from fashion.metrics.classification import wilson_interval
from fashion.predictions.labelled import TEST_ROWS

SOURCE = "traffic"
"""Source of feedback on rows that are set aside for this."""
ATTEMPTS = 5
BUSY = (429, 503)


class NoService(OSError):
    """The service does not answer, or not as ours does. The message is one sentence."""


@dataclass(frozen=True)
class Sent:
    """What came of it."""

    rows: int
    right: int
    """As predicted, by the true labels: of all rows."""
    labelled: int
    """Rows on which feedback was given."""
    refused: int
    """Rows that the service would not take."""
    versions: tuple[str, ...]
    """Model versions that answered."""

    def __str__(self) -> str:
        if self.rows == 0:
            return f"nothing was predicted, {self.refused:,} pictures were refused"
        low, high = wilson_interval(self.right, self.rows)
        return (
            f"{self.rows:,} predicted by version {', '.join(self.versions)}: {self.right / self.rows:.1%} right "
            f"({low:.1%} to {high:.1%}); feedback on {self.labelled:,}"
            + (f"; {self.refused:,} refused" if self.refused else "")
        )


def send(
    images: Images,
    labels: NDArray[np.int64],
    *,
    url: str,
    class_names: Sequence[str],
    label_share: float = 0.0,
    source: str = SOURCE,
    predict_key: str | None = None,
    feedback_key: str | None = None,
    connections: int = 4,
    seed: int = 0,
    on_row: Callable[[int], None] = lambda _: None,
) -> Sent:
    """Send pictures, one request each, and feedback on a random share of them.

    Args:
        images: `(N, H, W)` or `(N, H, W, C)` uint8.
        labels: (N,) true ones.
        url: of the service.
        label_share: of rows that get feedback.
        connections: requests under way at once.
        on_row: told how many are done.

    Raises:
        NoService: see there.
        ValueError: the address is none.
    """
    _check(url, predict_key, feedback_key)
    judged = np.random.default_rng(seed).random(len(images)) < label_share
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for row in range(len(images)):
        todo.put(row)
    done: list[tuple[bool, bool, str] | None] = []
    failures: list[Exception] = []
    lock = threading.Lock()

    def work() -> None:
        client = _Client(url)
        try:
            while not failures:
                row = todo.get_nowait()
                found = _one(client, images[row], int(labels[row]), bool(judged[row]))
                with lock:
                    done.append(found)
                    on_row(len(done))
        except queue.Empty:
            pass
        except Exception as error:  # raised again where somebody can act
            failures.append(error)
        finally:
            client.close()

    def _one(client: "_Client", image: Images, label: int, tell: bool) -> tuple[bool, bool, str] | None:
        headers = {"content-type": "image/png", **_key(predict_key)}
        status, answer = client.ask("/predict", image_store.to_png(image), headers)
        if status != 200:
            return None
        try:
            prediction_id, said, version = answer["prediction_id"], answer["label"], answer["model"]["version"]
        except (KeyError, TypeError) as error:
            raise NoService(f"{url} is not a classifier of ours: its answer has no {error}") from None
        if tell:
            content = {"prediction_id": prediction_id, "true_label": class_names[label], "source": source}
            headers = {"content-type": "application/json", **_key(feedback_key)}
            status, answer = client.ask("/feedback", json.dumps(content).encode(), headers)
            tell = status in (200, 201)
        return said == class_names[label], tell, str(version)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(max(1, connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    answered = [each for each in done if each is not None]
    return Sent(
        rows=len(answered),
        right=sum(right for right, _, _ in answered),
        labelled=sum(told for _, told, _ in answered),
        refused=len(done) - len(answered),
        versions=tuple(sorted({version for _, _, version in answered})),
    )


def corrupted(images: Images, shifts: Sequence[tuple[str, float]], seed: int = 0) -> Images:
    """Pictures under corruptions, one after the other."""
    for name, amount in shifts:
        images = corruptions.corrupt(images, name, amount, seed=seed)
    return images


def rows_of(data: DataConfig, count: int, seed: int) -> tuple[Split, str]:
    """So many labelled pictures, again and again where there are fewer, and the source of feedback on them.

    Rows set aside by `data.live_rows` where there are any. Without, they are test rows: a training that learnt from
    them, changed or not, would be scored on what it has seen, so their feedback is marked to be left out.

    Raises:
        fashion.data.manifest.DataError: the data cannot be had.
    """
    fetch_data(data, current_home().data)
    found = dataset.load(data, current_home().data)
    split = found.live if found.live is not None else found.test
    rng = np.random.default_rng(seed)
    rounds = -(-count // len(split))
    rows = np.concatenate([rng.permutation(len(split)) for _ in range(max(1, rounds))])[:count]
    return Split(split.images[rows], split.labels[rows]), SOURCE if found.live is not None else TEST_ROWS


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(words)
    try:
        data = load_train_config(compose(options.words)).data
        shifts = [_shift(text) for text in options.shift]
        if options.rows < 1 or not 0 <= options.labels <= 1:
            raise ValueError(
                f"--rows must be at least 1 and --labels between 0 and 1, got {options.rows}, {options.labels}"
            )
        rows, source = rows_of(data, options.rows, options.seed)
        images = corrupted(rows.images, shifts, options.seed)
        started, last = time.monotonic(), [0.0]

        def progress(count: int) -> None:
            now = time.monotonic()
            if now - last[0] > 0.2 or count == len(images):
                last[0] = now
                rate = count / max(1e-9, now - started)
                print(f"\r{count:,} of {len(images):,}, {rate:,.0f} a second ", end="", file=sys.stderr, flush=True)

        sent = send(
            images,
            rows.labels,
            url=options.url,
            class_names=data.class_names,
            label_share=options.labels,
            source=source,
            predict_key=options.predict_key,
            feedback_key=options.feedback_key,
            connections=options.connections,
            seed=options.seed,
            on_row=progress,
        )
        print(file=sys.stderr)
    except (ConfigError, manifest.DataError, NoService, ValueError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    print(sent)
    if source == TEST_ROWS and sent.labelled:
        print("These were test rows: no training will learn from their feedback. Set some aside with data.live_rows.")
    return 0


class _Client:
    """One connection, kept open."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._url, self._path = url, parts.path.rstrip("/")
        self._connection = kind(parts.hostname or "", parts.port, timeout=30)

    def ask(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Status and JSON; an overloaded service is asked again when it says.

        Raises:
            NoService: it does not answer, wants a key, or is none of ours.
        """
        for attempt in range(ATTEMPTS):
            try:
                self._connection.request("POST", self._path + path, body, headers)
                answer = self._connection.getresponse()
                status, content, again = answer.status, answer.read(), answer.headers.get("retry-after")
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if attempt == ATTEMPTS - 1:
                    raise NoService(f"{self._url} does not answer ({error}): is `make serve` running?") from None
                time.sleep(0.2 * 2**attempt)
                continue
            if status in BUSY and attempt < ATTEMPTS - 1:
                time.sleep(_pause(again))
                continue
            if status in (401, 404):
                raise NoService(f"{self._url}{path} answered {status}: {content[:200].decode(errors='replace')}")
            try:
                found = json.loads(content)
            except ValueError:
                raise NoService(f"{self._url}{path} answered {status} without JSON: it is none of ours") from None
            return status, found if isinstance(found, dict) else {}
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _check(url: str, *keys: str | None) -> None:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or any(character.isspace() for character in url):
        raise ValueError(f"url must be such as http://127.0.0.1:3000, got {url!r}")
    if any(key is not None and not (key.isascii() and key.isprintable()) for key in keys):
        raise ValueError("a key must be of printable ASCII characters")


def _pause(again: str | None) -> float:
    """Seconds to wait, as a service says; it may also say a date, or nonsense."""
    try:
        return min(max(float(again or 1), 0.0), 10.0)
    except ValueError:
        return 1.0


def _key(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def _shift(text: str) -> tuple[str, float]:
    name, separator, amount = text.partition("=")
    try:
        if separator and name in corruptions.CORRUPTIONS:
            return name, float(amount)
    except ValueError:
        pass
    known = ", ".join(sorted(corruptions.CORRUPTIONS))
    raise ValueError(f"--shift must be NAME=AMOUNT such as brightness=0.4, got {text!r}; names are {known}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fashion traffic",
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="data.KEY=VALUE", help="which data, e.g. data.live_rows=5000")
    parser.add_argument("--url", default="http://127.0.0.1:3000", help="of the service")
    parser.add_argument("--rows", type=int, default=1000, help="pictures to send")
    parser.add_argument(
        "--shift",
        action="append",
        default=[],
        metavar="NAME=AMOUNT",
        help=f"a corruption: {', '.join(sorted(corruptions.CORRUPTIONS))}",
    )
    parser.add_argument("--labels", type=float, default=0.0, help="share of them to give feedback on, truly")
    parser.add_argument("--connections", type=int, default=4, help="requests under way at once")
    parser.add_argument("--seed", type=int, default=0, help="of which pictures are sent")
    wanted = "API key, where the service wants one"
    parser.add_argument("--predict-key", default=os.environ.get("FASHION_PREDICT_KEY"), help=wanted)
    parser.add_argument("--feedback-key", default=os.environ.get("FASHION_FEEDBACK_KEY"), help=wanted)
    return parser
