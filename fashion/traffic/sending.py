"""Send pictures to a running service as users would, with feedback on a share of them. Knows no data set."""

import dataclasses
import json
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fashion.images import image_store
from fashion.images.transform import Images
from fashion.metrics.classification import wilson_interval
from fashion.traffic.client import Client, ServiceUnavailable, check_address, key_header
from fashion.traffic.sampling import SOURCE


@dataclass(frozen=True)
class TrafficSummary:
    """Counts over the pictures that were sent."""

    rows: int
    """Pictures that were predicted."""
    correct: int
    """Of those, predictions that are the true label."""
    labelled: int
    """Of those, rows whose feedback was accepted."""
    rejected: int
    """Pictures that the service did not accept."""
    versions: tuple[str, ...]
    """Model versions that answered."""

    def __str__(self) -> str:
        if self.rows == 0:
            return f"nothing was predicted, {self.rejected:,} pictures were rejected"
        low, high = wilson_interval(self.correct, self.rows)
        return (
            f"{self.rows:,} predicted by version {', '.join(self.versions)}: {self.correct / self.rows:.1%} correct "
            f"({low:.1%} to {high:.1%}); feedback on {self.labelled:,}"
            + (f"; {self.rejected:,} rejected" if self.rejected else "")
        )


@dataclass(frozen=True)
class _Outcome:
    """One picture that was predicted."""

    prediction_id: str
    is_correct: bool
    version: str
    is_labelled: bool = False
    """True once its feedback was accepted."""


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
) -> TrafficSummary:
    """Send pictures, one request each, and feedback on a random share of them.

    Args:
        images: `(N, H, W)` or `(N, H, W, C)` uint8.
        labels: (N,) true labels.
        url: address of the service.
        class_names: in the order of labels.
        label_share: share of rows that get feedback, 0 to 1.
        source: who gives the feedback.
        predict_key: API key of predictions, where the service needs one.
        feedback_key: API key of feedback.
        connections: requests under way at once.
        seed: of which rows get feedback.
        on_row: called with the number of rows done.

    Raises:
        ServiceUnavailable: the service does not answer, needs a key, or is another program.
        ValueError: the address or a key is malformed.
    """
    check_address(url, predict_key, feedback_key)
    is_labelled = np.random.default_rng(seed).random(len(images)) < label_share
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for row in range(len(images)):
        todo.put(row)
    done: list[_Outcome | None] = []
    failures: list[Exception] = []
    lock = threading.Lock()

    def work() -> None:
        client = Client(url)
        try:
            while not failures:
                row = todo.get_nowait()
                true_name = class_names[labels[row]]
                outcome = _predict(client, images[row], true_name, url=url, key=predict_key)
                if outcome is not None and is_labelled[row]:
                    accepted = _label(client, outcome.prediction_id, true_name, source=source, key=feedback_key)
                    outcome = dataclasses.replace(outcome, is_labelled=accepted)
                with lock:
                    done.append(outcome)
                    on_row(len(done))
        except queue.Empty:
            pass
        except Exception as error:  # raised again in the caller's thread
            failures.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(max(1, connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return _summarise(done)


def _summarise(outcomes: Sequence[_Outcome | None]) -> TrafficSummary:
    """Count outcomes; None stands for a picture that the service rejected."""
    predicted = [each for each in outcomes if each is not None]
    return TrafficSummary(
        rows=len(predicted),
        correct=sum(each.is_correct for each in predicted),
        labelled=sum(each.is_labelled for each in predicted),
        rejected=len(outcomes) - len(predicted),
        versions=tuple(sorted({each.version for each in predicted})),
    )


def _predict(client: Client, image: Images, true_name: str, *, url: str, key: str | None) -> _Outcome | None:
    """Have a picture predicted; None where the service rejects it."""
    headers = {"content-type": "image/png", **key_header(key)}
    status, answer = client.post("/predict", image_store.to_png(image), headers)
    if status != 200:
        return None
    try:
        return _Outcome(answer["prediction_id"], answer["label"] == true_name, str(answer["model"]["version"]))
    except (KeyError, TypeError) as error:
        raise ServiceUnavailable(f"{url} is not the classifier's service: its answer has no {error}") from None


def _label(client: Client, prediction_id: str, true_name: str, *, source: str, key: str | None) -> bool:
    """Give feedback; True where it was accepted."""
    content = {"prediction_id": prediction_id, "true_label": true_name, "source": source}
    headers = {"content-type": "application/json", **key_header(key)}
    status, _ = client.post("/feedback", json.dumps(content).encode(), headers)
    return status in (200, 201)
