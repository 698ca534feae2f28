"""What a canary's labels show until now, for the monitoring page: read from the log, and rendered. Decides nothing.

The drift flow decides (`fashion.drift.canary`). Here the sources of labels are assessed by the two versions that are
served, so that the service needs no registry.
"""

import datetime
import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bentos.classifier.canary_watch import CanaryWatch
from bentos.classifier.served import Canary, Served
from bentos.web.html import text
from fashion.metrics.sequential import Verdict, accuracy_bounds
from fashion.predictions.canary import ArmCounts, Counts, Experiment, count, describe, judge
from fashion.predictions.canary_ending import CanaryEnding
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import FOREVER_US, LoggedPrediction, LogUnavailable, ModelId
from fashion.predictions.schema import OF_OTHERS
from fashion.predictions.shared_log import SharedLog

KEEP_SECONDS = 60.0
"""How long what was read is shown: assessing thousands of labels takes a second."""
STATES = {
    "promote": "It may be promoted: the next run of the drift flow decides.",
    "step back": "It is less accurate: the next run of the drift flow steps back from it.",
    "go on": "The labels do not suffice yet.",
}


@dataclass(frozen=True)
class CanaryState:
    """A comparison at one time."""

    counts: Counts
    verdict: Verdict
    answers: dict[ModelId, int]
    """Of this machine since the comparison began, by version."""


class CanaryReader:
    """Reads it. Safe to call from threads."""

    def __init__(
        self, log: PredictionLog, remote: SharedLog | None, served: Served, canary: Canary, watch: CanaryWatch
    ) -> None:
        self.watch = watch
        self._log, self._remote, self._served, self._canary = log, remote, served, canary
        self._lock = threading.Lock()
        self._kept: CanaryState | None = None
        self._kept_until = 0.0

    def read(self) -> CanaryState:
        """Return the state of the comparison, at most KEEP_SECONDS old.

        Raises:
            LogUnavailable: the log cannot be read.
        """
        with self._lock:  # one reads, others show what it has read
            if self._kept is None or time.monotonic() > self._kept_until:
                self._kept = self._read()
                self._kept_until = time.monotonic() + KEEP_SECONDS
            return self._kept

    def section(self) -> Iterator[str]:
        """Render the state as a section of a page."""
        experiment, ending = self._canary.experiment, self.watch.ending
        yield "<section id='canary'><h2>Canary</h2>"
        if ending is not None:
            yield _ended(experiment, ending)
        else:
            yield (
                f"<p>Version {text(experiment.canary.version)} answers {experiment.share:.0%} of the clients since "
                f"{_moment(experiment.since_us)}. One label of each client counts, or of each picture without a "
                "client: the first one by a reviewer or by a source that reviews have proven.</p>"
            )
        try:
            state = self.read()
        except LogUnavailable as error:
            yield f"<p>Its labels cannot be read: {text(str(error))}.</p></section>"
            return
        yield "<table><tr><th>version</th><th class='number'>answers</th><th class='number'>labels</th>"
        yield "<th class='number'>counted</th><th>accuracy</th></tr>"
        for role, model, arm in (
            ("champion", experiment.champion, state.counts.champion),
            ("canary", experiment.canary, state.counts.canary),
        ):
            numbers = (state.answers.get(model, 0), arm.labels, arm.arm.labels)
            cells = "".join(f"<td class='number'>{number:,}</td>" for number in numbers)
            accuracy = f"<td>{_accuracy(arm, experiment.confidence)}</td>"
            yield f"<tr><th scope='row'>{text(f'{model.version}, {role}')}</th>{cells}{accuracy}</tr>"
        yield "</table>"
        if ending is None:
            said = describe(experiment, state.counts, state.verdict)
            yield f"<p>{STATES[state.verdict.decision]} {text(said[0].upper() + said[1:])}.</p>"
        if state.counts.elsewhere:
            yield f"<p>{state.counts.elsewhere:,} labels are on answers of a service without this canary.</p>"
        yield "</section>"

    def _read(self) -> CanaryState:
        from fashion.predictions import sources  # only where there is a canary: they take time to import
        from fashion.predictions.labelled import Believed

        experiment, ending = self._canary.experiment, self.watch.ending
        until_us = FOREVER_US if ending is None else ending.ended_us
        sure_wrong = zip((self._served, self._canary.served), self._canary.sure_wrong, strict=True)
        outlooks = {
            served.model: sources.Outlook(served.unlike.typicality, share)
            for served, share in sure_wrong
            if served.unlike.typicality is not None
        }
        rows, decisions = list(self._labelled(sources.NEWEST)), (self._remote or self._log).decisions()
        trust = sources.assess(rows, outlooks.get, decisions=decisions)
        counted = (LoggedPrediction(row.record, decisions.counted(row.feedback)) for row in rows)
        believed = Believed(trust)
        counts = count(counted, experiment, lambda row: believed.use(row).judge, until_us=until_us)
        return CanaryState(counts, judge(experiment, counts), self._answers(experiment.since_us, until_us))

    def _labelled(self, most: int) -> Iterator[LoggedPrediction]:
        if self._remote is not None:
            return itertools.islice(self._remote.labelled(withdrawn=True), most)
        return self._log.latest(most, role="champion", with_feedback=True, withdrawn=True)

    def _answers(self, since_us: int, until_us: int) -> dict[ModelId, int]:
        found = self._log.database.scan(
            "SELECT model_name, model_version, model_digest, count(*) FROM predictions p WHERE role = 'champion' "
            f"AND time_us >= ? AND time_us < ? AND {OF_OTHERS} GROUP BY 1, 2, 3",
            (since_us, until_us),
        )
        return {ModelId(*model): rows for *model, rows in found}


def _ended(experiment: Experiment, ending: CanaryEnding) -> str:
    """The outcome of the canary, and what to type next."""
    canary, champion = text(ending.canary.version), text(ending.champion.version)
    if ending.kind == "promoted":
        what = (
            f"was promoted at {_moment(ending.ended_us)}: it is the champion. Until a bento of it is served, it "
            f"answers {experiment.share:.0%} of the clients still, and version {champion} the others."
        )
    else:
        what = (
            f"was refused at {_moment(ending.ended_us)}: it answers nobody any more, and version {champion} answers "
            "everybody. Labels on answers of before that are counted."
        )
    reason = text(ending.reason[:1].upper() + ending.reason[1:])
    next_command = f"Next: <code>{text(ending.command)}</code>, and <code>make serve</code>."
    return f"<p>Version {canary} {what}</p><p>{reason}.</p><p>{next_command}</p>"


def _moment(time_us: int) -> str:
    return f"{datetime.datetime.fromtimestamp(time_us / 1e6, datetime.UTC):%Y-%m-%d %H:%M} UTC"


def _accuracy(arm: ArmCounts, confidence: float) -> str:
    if arm.arm.accuracy is None:
        return "unknown"
    low, high = accuracy_bounds(arm.arm, confidence)
    return f"{arm.arm.accuracy:.1%} ({low:.1%} to {high:.1%})"
