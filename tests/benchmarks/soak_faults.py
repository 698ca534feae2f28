"""What happens to the service during the soak: killed workers, a shared log that hangs, another bento and back."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil

from tests.benchmarks.deployed import Deployed
from tests.benchmarks.measurement import say
from tests.benchmarks.servers import Served
from tests.support.proxy import Proxy

KILL_EVERY_SECONDS = 60.0
HANG_SECONDS = 20.0
SWITCH_SECONDS = 180.0
"""How long another bento may take to be in service."""


@dataclass(frozen=True)
class Fault:
    """Something that happens at a time."""

    seconds: float
    """After the start."""
    name: str
    act: Callable[[], None]


@dataclass
class Happened:
    """What has happened so far."""

    kills: int = 0
    hangs: int = 0
    switches: int = 0
    problems: list[str] = field(default_factory=list)


def schedule(
    server: Served, bentos: tuple[Deployed, Deployed], wire: Proxy, seconds: float, happened: Happened
) -> list[Fault]:
    """Spread the faults over the time of the soak.

    Args:
        server: the service, with the first of the bentos.
        bentos: the one that is served first, and another one.
        wire: between the service and the shared log.
        seconds: of the soak.
        happened: is counted up.
    """
    first, second = bentos

    def kill() -> None:
        youngest = max(psutil.Process(server.processes()[0].pid).children(), key=lambda each: each.create_time())
        happened.kills += 1
        youngest.kill()

    def hang() -> None:
        happened.hangs += 1
        wire.stall()
        time.sleep(min(HANG_SECONDS, seconds / 10))
        wire.release()

    def switch(to: Deployed) -> Callable[[], None]:
        def act() -> None:
            before = in_service(first).count(to.bento.name)
            (to.bento.parent / "latest").write_text(to.bento.name)
            until = time.monotonic() + SWITCH_SECONDS
            while in_service(first).count(to.bento.name) == before:
                if time.monotonic() > until:
                    happened.problems.append(f"{to.bento.name} was not served within {SWITCH_SECONDS:g} s")
                    return
                time.sleep(0.1)
            happened.switches += 1

        return act

    kills = [KILL_EVERY_SECONDS * (n + 0.5) for n in range(int(seconds / KILL_EVERY_SECONDS))] or [seconds * 0.1]
    faults = [Fault(each, "a worker is killed", kill) for each in kills]
    faults += [Fault(seconds * share, "the shared log hangs", hang) for share in (0.2, 0.6)]
    faults.append(Fault(seconds * 0.4, "another bento is deployed", switch(second)))
    faults.append(Fault(seconds * 0.8, "and rolled back", switch(first)))
    return sorted(faults, key=lambda fault: fault.seconds)


@contextlib.contextmanager
def happening(faults: list[Fault]) -> Iterator[None]:
    """Let faults happen in a thread while the context is open; waits for the last one that has begun."""
    over = threading.Event()
    started = time.monotonic()

    def run() -> None:
        for fault in faults:
            if over.wait(max(0.0, started + fault.seconds - time.monotonic())):
                return
            say(f"after {time.monotonic() - started:.0f} s: {fault.name}")
            fault.act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def in_service(deployed: Deployed) -> list[str]:
    """Versions of the bentos that were put into service, in order."""
    lines = (deployed.folder / "serve.log").read_text(errors="replace").splitlines()
    return [line.partition(" on http://")[0].rpartition(":")[2] for line in lines if " on http://" in line]
