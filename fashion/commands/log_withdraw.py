"""What `fashion log discard` and `restore` do: decide which feedback counts, here and in the shared log."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fashion.commands.errors import CommandError, failing_on
from fashion.commands.open_logs import open_logs
from fashion.home import user
from fashion.predictions import agreement, review_checks
from fashion.predictions.agreement import Agreement
from fashion.predictions.record import FOREVER_US, REVIEW, Feedback, LoggedPrediction, is_prediction_id
from fashion.predictions.withdrawal import Decision, Decisions

if TYPE_CHECKING:
    from fashion.predictions.log import PredictionLog
    from fashion.predictions.shared_log import SharedLog


@dataclass(frozen=True)
class Selection:
    """Which feedback a command is about."""

    source: str | None
    prediction_ids: Sequence[str]
    since_us: int
    until_us: int

    @classmethod
    def parse(cls, source: str | None, ids: Sequence[str], since: str | None, until: str | None) -> "Selection":
        """Read the options of a command.

        Raises:
            CommandError: an option is malformed, or none is given.
        """
        from fashion.config.schema import ConfigError
        from fashion.config.times import moment

        if source is None and not ids and since is None and until is None:
            raise CommandError("name feedback by --source, --id, --since or --until: this would be all of it")
        for each in ids:
            if not is_prediction_id(each):
                raise CommandError(f"--id takes the prediction_id of an answer, got {each[:60]!r}")
        with failing_on(ConfigError, ValueError):
            begin, end = (None if text is None else int(moment(text).timestamp() * 1e6) for text in (since, until))
        since_us, until_us = begin or 0, FOREVER_US if end is None else end
        if since_us >= until_us:
            raise CommandError(f"--since must be before --until, got {since} and {until}")
        return cls(source, tuple(ids), since_us, until_us)

    def decisions(self, action: Literal["discard", "restore"], reason: str) -> list[Decision]:
        """Say what is decided about it.

        Args:
            action: what happens to the feedback.
            reason: one sentence.
        """
        now_us = time.time_ns() // 1000
        ids: Sequence[str | None] = self.prediction_ids or (None,)
        return [
            Decision(action, self.source, each, self.since_us, self.until_us, now_us, user(), reason) for each in ids
        ]


def labelled(log: "PredictionLog | None", shared: "SharedLog | None") -> Iterator[LoggedPrediction]:
    """Yield rows with feedback, that which does not count too, of all machines where they share a log."""
    from fashion.predictions.windows import ALL_ROWS

    if shared is not None:
        return shared.labelled(withdrawn=True)
    assert log is not None
    return log.latest(ALL_ROWS, role="champion", with_feedback=True, withdrawn=True)


def decisions_of(log: "PredictionLog | None", shared: "SharedLog | None") -> Decisions:
    """All decisions on feedback, of all machines where they share a log."""
    found = shared if shared is not None else log
    assert found is not None
    return found.decisions()


def withdraw(
    action: Literal["discard", "restore"], selection: Selection, *, reason: str, dry_run: bool
) -> tuple["Counter[str]", "Counter[str]"]:
    """Discard or restore feedback.

    Args:
        action: which of them.
        selection: of the feedback.
        reason: one sentence, stored with the decision.
        dry_run: only count.

    Returns:
        Source -> labels that change, and source -> labels that the decision is about and are so already.
    """
    decided = selection.decisions(action, reason)
    changing, unchanged = Counter[str](), Counter[str]()
    about = Decisions(decided)
    with open_logs() as (log, shared):
        before = decisions_of(log, shared)
        for row in labelled(log, shared):
            for said in row.feedback:
                if about.last(said) is not None:
                    (changing if before.count(said) is (action == "discard") else unchanged)[said.source] += 1
        if not dry_run:
            for each in (shared, log):  # the shared one first: it may not be reached, and then nothing has changed
                if each is not None:
                    each.decide(decided)
    return changing, unchanged


def summarize(rows: Iterator[LoggedPrediction], decisions: Decisions) -> list[str]:
    """One line for each source of feedback, those with most labels first: what of it counts, and who says the same.

    That of reviews says how many of known pictures are right, where there are any.

    Args:
        rows: with feedback, that which does not count too.
        decisions: on it.
    """
    counts: dict[str, Counter[str]] = {}
    why: dict[str, str] = {}
    agreed: dict[str, Agreement] = {}
    for row in rows:
        agreement.count(row.feedback, agreed)
        for said in row.feedback:
            state, reason = _state(said, decisions)
            counts.setdefault(said.source, Counter())[state] += 1
            if reason:
                why[said.source] = reason
    lines = []
    for source, states in sorted(counts.items(), key=lambda each: (-each[1].total(), each[0])):
        parts = [f"{states[state]:,} {state}" for state in ("counted", "quarantined", "discarded") if states[state]]
        line = f"{source}: {', '.join(parts)}{f' ({why[source]})' if source in why else ''}"
        known = _known_pictures(decisions) if source == REVIEW else ""
        lines.append("; ".join(filter(None, (line, str(agreed.get(source, "")), known))))
    return lines


def _known_pictures(decisions: Decisions) -> str:
    checked = review_checks.read(decisions)
    right = sum(not each.is_wrong for each in checked)
    return f"right about {right:,} of {len(checked):,} known pictures" if checked else ""


def _state(said: Feedback, decisions: Decisions) -> tuple[str, str]:
    last = decisions.last(said)
    if last is None or decisions.count(said):
        return "counted", ""
    return ("quarantined" if last.action == "quarantine" else "discarded"), f"{last.who}: {last.reason}"
