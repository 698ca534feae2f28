"""`fashion log`: the prediction log of this machine."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fashion.commands.arguments import AsJson
from fashion.commands.errors import FAILED, CommandError, failing_on

if TYPE_CHECKING:
    from fashion.home import Home
    from fashion.predictions.feedback_csv import FeedbackRow
    from fashion.predictions.log import PredictionLog
    from fashion.predictions.shared_log import SharedLog

app = typer.Typer(help="Export, label, prune and ship logged predictions.", rich_markup_mode=None)


@app.command("status", epilog="Example: fashion log status --json")
def status(as_json: AsJson = False) -> None:
    """Show how many predictions there are, and what waits to be shipped."""
    with open_log() as log:
        backlog, counts = log.outbox.backlog(), {role: log.count(role=role) for role in ("champion", "shadow")}
        if as_json:
            content = {
                "path": str(log.path),
                "predictions": counts["champion"],
                "shadow_predictions": counts["shadow"],
                "ships_to": backlog.destination,
                "backlog_rows": backlog.rows,
                "backlog_seconds": round(backlog.age_s, 3),
                "refused_rows": backlog.refused,
                "refused_because": list(backlog.reasons),
                "problem": backlog.problem,
            }
            print(json.dumps(content, indent=1))
            return
        print(f"{log.path}: {counts['champion']:,} predictions, {counts['shadow']:,} by a shadow")
        if backlog.destination is None:
            return
        print(f"shipped to {backlog.destination}: {backlog.rows:,} rows wait, {backlog.refused:,} were refused")
        for line in (*backlog.reasons, *([backlog.problem] if backlog.problem else [])):
            print(f"  {line}")


@app.command("export", epilog="Example: fashion log export predictions.parquet --days 7")
def export(
    file: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    days: Annotated[float | None, typer.Option(min=0, help="Only the last days; all by default.")] = None,
) -> None:
    """Write predictions and their feedback as Parquet."""
    from fashion.predictions.export import export_parquet

    with open_log() as log:
        since_us = 0 if days is None else max(0, int((time.time() - 86_400 * days) * 1e6))
        print(f"{export_parquet(log, file, since_us):,} predictions in {file}")


@app.command("feedback", epilog="Example: fashion log feedback labels.csv --classes top,trouser,pullover")
def feedback(
    file: Annotated[Path, typer.Argument(help="CSV with the columns prediction_id, true_label and perhaps source.")],
    classes: Annotated[
        str | None, typer.Option(help="Class names in order, by commas, where true_label is a name.")
    ] = None,
) -> None:
    """Add true labels from a CSV file; a row that cannot be stored is named, the others are stored.

    Exits with 1 where a row was rejected.
    """
    from fashion.home import current_home
    from fashion.predictions.feedback_csv import FeedbackRow, InvalidTable, parse_feedback
    from fashion.predictions.record import UnknownPrediction

    names = [name.strip() for name in classes.split(",")] if classes else []
    stored = rejected = 0
    with open_log() as log, file.open(newline="", encoding="utf-8-sig") as lines:
        shared = open_shared() if current_home().shared_log else None
        try:
            for row in parse_feedback(lines, names):
                try:
                    if not isinstance(row, FeedbackRow):
                        raise ValueError(row.message if names else f"{row.message}; --classes gives names")
                    _store(log, shared, row)
                    stored += 1
                except (UnknownPrediction, ValueError) as error:
                    print(f"line {row.line}: {error}", file=sys.stderr)
                    rejected += 1
        except InvalidTable as error:
            raise CommandError(f"{file}: {error}") from None
    print(f"{stored:,} rows stored, {rejected:,} rejected")
    if rejected:
        raise typer.Exit(FAILED)


@app.command("prune", epilog="Example: fashion log prune 90")
def prune(days: Annotated[float, typer.Argument(min=0, help="Age from which predictions are dropped.")]) -> None:
    """Drop predictions older than that many days; what is not shipped yet stays."""
    with open_log() as log:
        print(f"{log.prune(days):,} predictions dropped")


@app.command("retry-refused", epilog="Example: fashion log retry-refused")
def retry_refused() -> None:
    """Send again what the shared log has refused, once the cause is fixed."""
    with open_log() as log:
        print(f"{log.outbox.retry_refused():,} rows wait again")


@app.command("mark-labelled", epilog="Example: fashion log mark-labelled")
def mark_labelled() -> None:
    """Mark predictions in Firestore whose feedback is older than marks, for retraining; reads every document, once."""
    from fashion.predictions.firestore import FirestoreLog

    with failing_on(OSError), contextlib.closing(open_shared()) as shared:
        if not isinstance(shared, FirestoreLog):
            raise CommandError(f"{shared.address} marks labelled rows by itself: there is nothing to do")
        read, changed = shared.mark_labelled()
    print(f"{read:,} documents read, {changed:,} marked as labelled")


def open_shared() -> "SharedLog":
    """Return the log that machines share, as the environment names it."""
    from fashion.home import current_home
    from fashion.predictions.address import FORMS, open_shared_log

    named = current_home().shared_log
    if named is None:
        raise CommandError(f"FASHION_LOG names no shared log: set it to {FORMS}")
    return open_shared_log(named)


@contextlib.contextmanager
def open_log(home: "Home | None" = None) -> Iterator["PredictionLog"]:
    """Open the log of a home; whatever goes wrong with it is one sentence. Creates none."""
    from fashion.home import current_home
    from fashion.predictions.log import PredictionLog
    from fashion.predictions.record import LogUnavailable

    path = (home or current_home()).predictions
    if not path.exists():
        raise CommandError(f"there is no prediction log {path}: `make serve` begins one")
    with failing_on(LogUnavailable, OSError, UnicodeDecodeError), PredictionLog(path) as log:
        yield log


def _store(log: "PredictionLog", shared: "SharedLog | None", row: "FeedbackRow") -> None:
    """Append a row to the log, for the shared log too where that holds the prediction.

    Raises:
        UnknownPrediction: neither log holds the prediction.
        ValueError: the label is not one of its classes.
    """
    from fashion.predictions.record import Feedback, UnknownPrediction

    try:
        logged, elsewhere = log.get(row.prediction_id), False
    except UnknownPrediction:
        if shared is None:
            raise
        logged, elsewhere = shared.get(row.prediction_id), True
    num_classes = len(logged.record.probabilities)
    if row.true_label >= num_classes:
        raise ValueError(f"true_label must be less than {num_classes}, the number of classes, got {row.true_label}")
    said = Feedback(row.prediction_id, row.true_label, row.source, time.time_ns() // 1000)
    log.append_feedback([said], known_elsewhere=elsewhere)
