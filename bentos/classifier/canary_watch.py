"""Whether the served canary's comparison has ended, looked up in the log in the background. Knows no registry.

Whoever ends a comparison stores that in the log (`fashion.drift.canary.publish`): in the shared one, or in this
machine's where none is shared. An ending of the shared log is copied to this machine's, so that a service that is
started again while the shared one is away knows it.
"""

import contextlib
import logging
import threading
from typing import TypeGuard

from fashion.predictions.canary import Experiment
from fashion.predictions.canary_ending import CanaryEnding, name_of
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import LogUnavailable
from fashion.predictions.shared_log import SharedLog

LOOK_SECONDS = 20.0
"""Between two looks; each reads one row of each log."""
FIRST_LOOK_SECONDS = 2.0
"""How long a start waits for the shared log: one that is away must not keep a service from answering."""

_logger = logging.getLogger(__name__)


class CanaryWatch:
    """Looks until the canary is stepped back from: a promotion may be rolled back.

    A log that cannot be read leaves what was known.
    """

    def __init__(self, log: PredictionLog, remote: SharedLog | None, experiment: Experiment) -> None:
        """Look once, and go on in a thread.

        Args:
            log: of this machine.
            remote: the log that machines share; None without one.
            experiment: the comparison.
        """
        self._log, self._remote, self._experiment = log, remote, experiment
        self._name = name_of(experiment.champion, experiment.canary)
        self.ending: CanaryEnding | None = None
        """How it ended; None while it runs."""
        self.answers = True
        """Whether the canary answers its share: until it was stepped back from. A promoted one goes on."""
        self._closing, self._looked = threading.Event(), threading.Event()
        self._was_away = False
        threading.Thread(target=self._run, name="canary watch", daemon=True).start()
        self._looked.wait(FIRST_LOOK_SECONDS)

    def close(self) -> None:
        """Look no more."""
        self._closing.set()

    def _run(self) -> None:
        while not self._look():
            self._looked.set()
            if self._closing.wait(LOOK_SECONDS):
                return
        self._looked.set()

    def _look(self) -> bool:
        """Look in this machine's log, then in the shared one; returns True once nobody is sent to the canary."""
        try:
            self._learn(self._log.canary_ending(self._name))
            if self.answers and self._remote is not None:
                found = self._remote.canary_ending(self._name)
                if self._is_new(found):
                    with contextlib.suppress(LogUnavailable):
                        self._log.end_canary(found)
                    self._learn(found)
        except Exception as error:  # whatever it is, the next look may succeed
            if not self._was_away and not self._closing.is_set():
                is_expected = isinstance(error, LogUnavailable)
                message = "whether the canary's comparison has ended is not known: %s"
                _logger.warning(message, error, exc_info=None if is_expected else error)
            self._was_away = True
        else:
            self._was_away = False
        return not self.answers

    def _learn(self, found: CanaryEnding | None) -> None:
        if self._is_new(found):
            self.answers, self.ending = found.kind == "promoted", found
            _logger.warning("the canary, version %s, was %s: %s", found.canary.version, _what(found), found.reason)

    def _is_new(self, found: CanaryEnding | None) -> TypeGuard[CanaryEnding]:
        if found is None or not found.is_of(self._experiment):
            return False
        return self.ending is None or found.ended_us > self.ending.ended_us


def _what(ending: CanaryEnding) -> str:
    return "promoted" if ending.kind == "promoted" else "stepped back from, and answers nobody any more"
