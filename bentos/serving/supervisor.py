"""Serve one bento after the other on a socket that stays open. Knows workers and checks, not where bentos come from.

The newer bento's workers start beside the older one's and are checked. Then they listen on the same socket, and the
older ones stop to, answer what they have accepted, and end: at no time is a connection refused.
"""

import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType

import psutil

from bentos.serving.check import CheckFailed, check
from bentos.serving.generation import Generation, load_bento
from bentos.serving.state import State, StateFile

LOOK_SECONDS = 2.0
"""Time between two looks for a newer bento."""
TICK_SECONDS = 0.1
"""Time between two looks for signals and for workers that ended."""
LISTEN_SECONDS = 30.0
"""How long a checked worker may take to listen on the service's port."""


class Supervisor:
    """Runs the workers of the service."""

    def __init__(
        self,
        listener: socket.socket,
        state: StateFile,
        environment: Mapping[str, str],
        *,
        announce: Callable[[str], str],
        newest: Callable[[], str | None],
        is_stored: Callable[[str], bool],
    ) -> None:
        """
        Args:
            listener: the service's listening socket.
            state: of the service on this port.
            environment: of the workers.
            announce: returns what to print once a bento is in service.
            newest: returns the tag of the bento that should be served; None where it does not change.
            is_stored: True if the store holds a tag.
        """
        self._listener, self._state, self._environment = listener, state, environment
        self._announce, self._newest, self._is_stored = announce, newest, is_stored
        self._current: Generation | None = None
        self._ending: list[Generation] = []
        self._is_ended = False

    def serve(self, tag: str, *, may_fall_back: bool) -> int:
        """Serve a bento, and each newer one in its place, until a signal; returns the exit code.

        Args:
            tag: of the bento to begin with.
            may_fall_back: serve the last one of this name that passed its check, where this one fails.
        """
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._end)
        remembered = self._claim()
        refused = None
        good = remembered.good if may_fall_back else None
        if good is not None and (good.partition(":")[0] != tag.partition(":")[0] or not self._is_stored(good)):
            good = None
        # A bento that failed before is tried again, but beside the good one.
        first = good if good is not None and tag == remembered.failed else tag
        try:
            if not self._switch(first):
                refused = first
                if self._is_ended or good is None or good == first or not self._switch(good):
                    return 0 if self._is_ended else 1
            self._follow(refused)
        finally:
            self._stop()
        return 0

    def _claim(self) -> State:
        remembered = self._state.read()
        shutil.rmtree(self._state.folder / "workers", ignore_errors=True)  # of a supervisor that was killed
        process = psutil.Process()
        self._remember(pid=process.pid, started=process.create_time())
        return remembered

    def _follow(self, refused: str | None) -> None:
        """Look for newer bentos until a signal.

        Args:
            refused: a tag that failed its check, and is not tried again.
        """
        looked = time.monotonic()
        while not self._is_ended:
            self._tick()
            time.sleep(TICK_SECONDS)
            if time.monotonic() - looked < LOOK_SECONDS:
                continue
            newest = self._newest()  # None too while the store is being written to
            assert self._current is not None
            if newest not in (None, refused, self._current.bento.tag):
                assert newest is not None
                refused = None if self._switch(newest) else newest
            looked = time.monotonic()

    def _switch(self, tag: str) -> bool:
        """Start a bento, check it and give it the port, then end the one before; False if it fails."""
        candidate = None
        try:
            candidate = self._start(tag)
        except CheckFailed as error:
            if not self._is_ended:
                self._refuse(tag, str(error))
            return False
        if self._current is not None:
            self._current.end()
            self._ending.append(self._current)
        self._current = candidate
        self._remember(good=tag, failed=None)
        print(self._announce(tag), flush=True)
        return True

    def _start(self, tag: str) -> Generation:
        """Start a bento's workers and check each.

        Raises:
            CheckFailed: one does not pass, or a signal came; all are ended.
        """
        self._state.keep_output("")
        try:
            bento = load_bento(tag)
        except Exception as error:  # a damaged bento.yaml raises almost any type
            raise CheckFailed(f"it cannot be read: {_sentence(error)}") from None
        try:
            candidate = Generation(bento, self._listener, self._environment, self._state.folder / "workers")
        except OSError as error:
            raise CheckFailed(f"its workers cannot be started: {_sentence(error)}") from None

        def is_given_up() -> str | None:
            self._tick()
            if self._is_ended:
                return "the service ends"
            return candidate.failure() if candidate.ended() else None

        try:
            for worker in candidate.workers:
                check(worker.address, bento.folder, self._environment, is_given_up=is_given_up)
            if not candidate.listen(LISTEN_SECONDS):
                raise CheckFailed("it does not listen on the service's port")
        except Exception as error:  # whatever is wrong with it must not end the one that is served
            self._state.keep_output(candidate.output())
            candidate.end()
            self._ending.append(candidate)
            raise error if isinstance(error, CheckFailed) else CheckFailed(_sentence(error)) from None
        return candidate

    def _refuse(self, tag: str, problem: str) -> None:
        goes_on = "" if self._current is None else f"; {self._current.bento.tag} stays in service"
        where = f" ({self._state.output_path} holds what it printed)" if self._state.output_path.exists() else ""
        print(f"error: {tag} is not served: {problem}{goes_on}{where}", file=sys.stderr, flush=True)
        self._remember(failed=tag)

    def _remember(self, **changes: str | int | float | None) -> None:
        try:
            self._state.update(**changes)
        except OSError as error:  # what is served matters more than what a later start remembers
            print(f"warning: {self._state.folder} cannot be written: {error.strerror}", file=sys.stderr, flush=True)

    def _tick(self) -> None:
        if self._current is not None and not self._is_ended:
            self._current.restart_ended()
        self._ending = [each for each in self._ending if not each.is_over()]

    def _stop(self) -> None:
        """End everything that was started."""
        self._listener.close()
        if self._current is not None:
            self._current.end()
            self._ending.append(self._current)
            self._current = None
        while self._ending:
            self._tick()
            time.sleep(TICK_SECONDS)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self._is_ended:  # asked twice: now
            for each in self._ending:
                each.kill()
        self._is_ended = True


def _sentence(error: Exception) -> str:
    """Return an error as one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
