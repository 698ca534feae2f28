"""Requests without a pause from threads, over connections that stay open and over fresh ones; none is ever retried."""

import contextlib
import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """What came of the requests, by status or by the name of the error."""

    kept_open: Counter[str] = field(default_factory=Counter)
    fresh: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> dict[str, int]:
        """Requests that were not answered with 200."""
        return {what: count for what, count in (self.kept_open + self.fresh).items() if what != "200"}


@contextlib.contextmanager
def load(port: int, png: bytes, *, kept_open: int = 4, fresh: int = 4, pause: float = 0.0) -> Iterator[Outcome]:
    """Send a picture over and over while the context is open.

    Args:
        port: of loopback.
        png: the picture.
        kept_open: connections that stay open as long as the server lets them.
        fresh: threads that open a connection for each request.
        pause: seconds that each thread rests after an answer.
    """
    outcome, over = Outcome(), threading.Event()

    def send(counts: Counter[str], *, keep: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not over.is_set():
            try:
                connection.request("POST", "/predict", png, {"content-type": "image/png"})
                answer = connection.getresponse()
                answer.read()
                counts[str(answer.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                counts[f"{type(error).__name__}: {error}"] += 1
                connection.close()
            if not keep:
                connection.close()
            over.wait(pause)
        connection.close()

    threads = [threading.Thread(target=send, args=[outcome.kept_open], kwargs={"keep": True}) for _ in range(kept_open)]
    threads += [threading.Thread(target=send, args=[outcome.fresh], kwargs={"keep": False}) for _ in range(fresh)]
    for thread in threads:
        thread.start()
    try:
        yield outcome
    finally:
        over.set()
        for thread in threads:
            thread.join()
