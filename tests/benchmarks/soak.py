"""Mixed load for some minutes while workers are killed, the shared log hangs and bentos change: is anything lost?"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks import load
from tests.benchmarks.deployed import Deployed, another, deploy
from tests.benchmarks.measurement import ServingOptions, Table, run_one, say
from tests.benchmarks.servers import Served
from tests.benchmarks.serving import Requests, pictures
from tests.benchmarks.soak_faults import Happened, happening, schedule
from tests.benchmarks.soak_logs import destination, waiting
from tests.benchmarks.soak_requests import BAD, Outcome, judge, mixed

CONNECTIONS = 8
"""Each asks again as soon as it is answered: all that the service can do."""
SLICES = 6
"""Looks at memory a minute; connections are opened anew after each."""
WARM_UP = 0.2
"""Share of the time after which memory is judged."""
FLAT_MB = 10.0
"""Growth over the judged time that counts as none: workers are of different age, since they are killed."""
QUICK_MINUTES = 0.6
PATIENCE_SECONDS = 120.0
SHOWN_ERRORS, LINES_OF_AN_ERROR = 3, 60


@dataclass(frozen=True)
class Look:
    """The service at one time."""

    seconds: float
    megabytes: float
    """Memory of all its processes, what they share counted once."""
    p95_ms: float
    """Of the requests since the look before."""


def tables(options: ServingOptions) -> Iterator[Table]:
    """Load, look, and compare with the logs.

    Raises:
        SystemExit: the shared log is not installed; an answer was wrong, missing without a reason, or of 5xx without
            Retry-After; or something that was acknowledged is in neither log.
    """
    minutes = QUICK_MINUTES if options.quick else options.minutes
    happened = Happened()
    with tempfile.TemporaryDirectory() as folder, destination(options.shared_log) as shared:
        settings = ["serve.workers=2", "serve.limits.feedback_per_minute=null"]
        deployed = deploy(Path(folder), options, settings)
        other = another(deployed, [*settings, "serve.gallery=5"], options)
        (deployed.bento.parent / "latest").write_text(deployed.bento.name)
        requests, labels = pictures(deployed.package)
        outcome = Outcome(labels)
        with deployed.follow(**shared.variables) as server:
            faults = schedule(server, (deployed, other), shared.wire, 60 * minutes, happened)
            with happening(faults):
                rows, looks = _watch(server, requests, outcome, minutes, happened)
            backlog, seconds = _ship_the_rest(deployed, minutes)
        lost = (*_lost(outcome, deployed), len(shared.missing(outcome.predictions)))
        if outcome.errors:
            say(_unexpected(deployed))
    yield Table(
        "Soak",
        rows,
        f"{CONNECTIONS} connections that ask without a pause; requests by kind: "
        f"{', '.join(f'{count:,} {kind}' for kind, count in outcome.requests.items())}. {happened.kills} workers "
        f"were killed, the shared log ({shared.kind}) hung {happened.hangs} times, {happened.switches} bentos took "
        f"another's place. In the end {backlog:,} rows were not in the shared log yet; {seconds:.0f} s later all were. "
        f"5xx with Retry-After: {dict(outcome.turned_away) or 'none'}. Errors: {dict(outcome.errors) or 'none'}; "
        f"{len(BAD)} kinds of bad requests were rejected as expected, unless listed here.",
        {"minute": ".1f", "service MB": ".1f", "p95 ms": ".1f"},
    )
    yield _verdict(looks, outcome, lost, happened)
    interrupted = outcome.interrupted > _may_be_interrupted(happened)
    if outcome.errors or any(lost) or happened.problems or interrupted:
        raise SystemExit(
            f"error: lost predictions, feedback, shipped predictions: {lost}; wrong answers: {dict(outcome.errors)}; "
            f"{outcome.interrupted} requests had no answer; {'; '.join(happened.problems)}"
        )


def _watch(
    server: Served, requests: Requests, outcome: Outcome, minutes: float, happened: Happened
) -> tuple[list[dict[str, float | str]], list[Look]]:
    stream = mixed(requests, outcome, sorted(set(outcome.labels.values())))
    seconds = minutes * 60 / max(round(minutes * SLICES), 2)
    rows: list[dict[str, float | str]] = []
    looks: list[Look] = []
    started, is_over = time.perf_counter(), False
    while not is_over:
        found = load.drive(server.port, stream, connections=CONNECTIONS, seconds=seconds)
        judge([*found.first, *found.answers], outcome)
        times = [answer.seconds for answer in found.answers] or [0.0]
        p95_ms = 1000 * float(np.quantile(times, 0.95))
        looks.append(Look(time.perf_counter() - started, server.proportional_megabytes(), p95_ms))
        is_over = looks[-1].seconds >= 60 * minutes - seconds / 2
        if len(looks) % SLICES == 0 or is_over:
            rows.append(
                {
                    "minute": looks[-1].seconds / 60,
                    "requests": outcome.requests.total(),
                    "errors": outcome.errors.total(),
                    "without an answer": outcome.interrupted,
                    "5xx with Retry-After": outcome.turned_away.total(),
                    "service MB": looks[-1].megabytes,
                    "p95 ms": float(np.median([look.p95_ms for look in looks[-SLICES:]])),
                }
            )
            say(", ".join(f"{name} {value:,.1f}" for name, value in rows[-1].items() if not isinstance(value, str)))
    return rows, looks


def _unexpected(deployed: Deployed) -> str:
    """What the service printed of errors that it did not expect."""
    lines = (deployed.folder / "serve.log").read_text(errors="replace").splitlines()
    at = [number for number, line in enumerate(lines) if "[ERROR]" in line and "unexpected" in line]
    return "\n".join(line for number in at[:SHOWN_ERRORS] for line in lines[number : number + LINES_OF_AN_ERROR])


def _may_be_interrupted(happened: Happened) -> int:
    """Requests that may stay without an answer: those that a killed worker had begun with."""
    return happened.kills * CONNECTIONS


def _lost(outcome: Outcome, deployed: Deployed) -> tuple[int, int]:
    """Predictions and feedback that were acknowledged and are not in the log of this machine."""
    return len(outcome.predictions - deployed.logged()), (outcome.feedback - deployed.feedback()).total()


def _ship_the_rest(deployed: Deployed, minutes: float) -> tuple[int, float]:
    """Wait until a service without load has shipped all rows: how many they were, and the seconds that it took.

    Raises:
        SystemExit: it takes longer than the load.
    """
    backlog, started = waiting(deployed.folder), time.monotonic()
    left = backlog
    while left:
        if time.monotonic() - started > max(60 * minutes, PATIENCE_SECONDS):
            raise SystemExit(f"error: {left:,} of {backlog:,} rows are still not in the shared log")
        time.sleep(0.5)
        left = waiting(deployed.folder)
    return backlog, time.monotonic() - started


def trend(looks: list[Look]) -> tuple[float, float]:
    """Megabytes an hour by least squares, and grown by that in the judged time: after the warm-up."""
    judged = looks[round(len(looks) * WARM_UP) :]
    seconds = np.array([each.seconds for each in judged])
    slope = float(np.polyfit(seconds, [each.megabytes for each in judged], 1)[0]) if len(judged) > 1 else 0.0
    return 3600 * slope, slope * float(seconds[-1] - seconds[0])


def _verdict(looks: list[Look], outcome: Outcome, lost: tuple[int, int, int], happened: Happened) -> Table:
    hourly, grown = trend(looks)
    acknowledged = f"{len(outcome.predictions):,} acknowledged predictions"
    interrupted, allowed = outcome.interrupted, _may_be_interrupted(happened)
    found = {
        "errors, 5xx without Retry-After among them": (f"{outcome.errors.total()}", "none", not outcome.errors),
        f"lost of {acknowledged}": (f"{lost[0]}", "none", lost[0] == 0),
        f"lost of {outcome.feedback.total():,} acknowledged feedback": (f"{lost[1]}", "none", lost[1] == 0),
        f"not in the shared log of {acknowledged}": (f"{lost[2]}", "none", lost[2] == 0),
        "requests without an answer": (
            f"{interrupted}",
            f"at most {allowed}, of killed workers",
            interrupted <= allowed,
        ),
        "growth of the service, MB": (f"{grown:.1f}", f"below {FLAT_MB:g}", grown < FLAT_MB),
    }
    return Table(
        "Verdict of the soak",
        [
            {"target": name, "aim": aim, "found": text, "holds": "yes" if holds else "NO"}
            for name, (text, aim, holds) in found.items()
        ],
        f"Growth: a line through {len(looks)} looks without the first {WARM_UP:.0%} ({hourly:+.1f} MB an hour).",
    )


if __name__ == "__main__":
    run_one("soak")
