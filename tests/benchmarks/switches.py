"""Another bento takes the place of the one in service, twenty times under full load: does a request fail?"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import load
from tests.benchmarks.deployed import Deployed, another, deploy
from tests.benchmarks.measurement import ServingOptions, Spread, Table, run_one, say
from tests.benchmarks.serving import judge, pictures
from tests.benchmarks.soak_faults import in_service

SWITCHES, QUICK_SWITCHES = 20, 2
CONNECTIONS = 8
SLICE_SECONDS = 1.0
"""Connections are opened anew after each slice of the load."""
PATIENCE_SECONDS = 180.0


def tables(options: ServingOptions) -> Iterator[Table]:
    """Switch to and fro between two bentos while requests go on.

    Raises:
        SystemExit: a bento did not come into service, a request failed, or a prediction that was acknowledged is not
            in the log.
    """
    count = QUICK_SWITCHES if options.quick else SWITCHES
    errors: Counter[str] = Counter()
    acknowledged: set[str] = set()
    seconds = []
    requests_sent = 0
    with tempfile.TemporaryDirectory() as folder:
        first = deploy(Path(folder), options)
        second = another(first, ["serve.gallery=5"], options)
        (first.bento.parent / "latest").write_text(first.bento.name)
        requests, labels = pictures(first.package)
        with first.follow() as server:
            for number in range(count):
                bento = (second, first)[number % 2]
                started, before = time.monotonic(), _times_in_service(bento)
                (bento.bento.parent / "latest").write_text(bento.bento.name)
                while _times_in_service(bento) == before:
                    if time.monotonic() - started > PATIENCE_SECONDS:
                        raise SystemExit(f"error: {bento.bento.name} is not in service after {PATIENCE_SECONDS:g} s")
                    found = load.in_turn(server.port, requests, connections=CONNECTIONS, seconds=SLICE_SECONDS)
                    answers = [*found.first, *found.answers]
                    requests_sent += len(answers)
                    acknowledged |= set(judge(answers, labels, errors))
                seconds.append(time.monotonic() - started)
                say(f"switch {number + 1}: {seconds[-1]:.0f} s, {requests_sent:,} requests, {errors.total()} failed")
        lost = len(acknowledged - first.logged())
    yield Table(
        "Switches of the bento under load",
        [
            {
                "switches": count,
                "requests": requests_sent,
                "failed": errors.total(),
                "acknowledged, not in the log": lost,
                "seconds to be in service": Spread(tuple(seconds)),
            }
        ],
        f"{CONNECTIONS} connections that ask without a pause, from the word that there is another bento to the moment "
        "that it answers.",
        {"seconds to be in service": ".1f"},
    )
    if errors or lost:
        raise SystemExit(f"error: failed requests: {dict(errors)}; lost predictions: {lost}")


def _times_in_service(deployed: Deployed) -> int:
    return in_service(deployed).count(deployed.bento.name)


if __name__ == "__main__":
    run_one("switches")
