"""`fashion log`: the prediction log of this machine."""

import contextlib
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fashion.commands.arguments import AsJson
from fashion.commands.errors import FAILED, CommandError, failing_on
from fashion.commands.open_logs import open_log, open_shared

if TYPE_CHECKING:
    from fashion.commands.log_classes import ClassNames
    from fashion.predictions.feedback_csv import FeedbackRow
    from fashion.predictions.log import PredictionLog
    from fashion.predictions.shared_log import SharedLog

SHOWN_SOURCES = 20
"""Sources that `status` lists."""
ByIds = Annotated[list[str] | None, typer.Option("--id", help="Prediction that the feedback is on; may be repeated.")]
BySource = Annotated[str | None, typer.Option("--source", help="Who gave it, as `fashion log status` lists them.")]
Since = Annotated[str | None, typer.Option(help="Given from this time on, such as 2026-11-25T08:00 (UTC).")]
Until = Annotated[str | None, typer.Option(help="Given before this time.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]

app = typer.Typer(help="Export, label, prune and ship logged predictions; discard feedback.", rich_markup_mode=None)


@app.command("status", epilog="Example: fashion log status --json")
def status(as_json: AsJson = False) -> None:
    """Show how many predictions there are, who gave feedback and what of it counts, and what waits to be shipped."""
    from fashion.commands import log_withdraw
    from fashion.predictions.windows import ALL_ROWS

    with open_log() as log:
        rows = log.latest(ALL_ROWS, role="champion", with_feedback=True, withdrawn=True)
        feedback = log_withdraw.summarize(rows, log.decisions())
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
                "feedback": feedback,
            }
            print(json.dumps(content, indent=1))
            return
        print(f"{log.path}: {counts['champion']:,} predictions, {counts['shadow']:,} by a shadow")
        for line in feedback[:SHOWN_SOURCES]:
            print(f"  feedback of {line}")
        if len(feedback) > SHOWN_SOURCES:
            print(f"  feedback of {len(feedback) - SHOWN_SOURCES:,} more sources")
        if backlog.destination is None:
            return
        print(f"shipped to {backlog.destination}: {backlog.rows:,} rows wait, {backlog.refused:,} were refused")
        for line in (*backlog.reasons, *([backlog.problem] if backlog.problem else [])):
            print(f"  {line}")


@app.command("export", epilog="Example: fashion log export gs://bucket/predictions")
def export(
    address: Annotated[
        str, typer.Argument(help="A .parquet file, or a folder or bucket (gs://, s3://, az://) for files by day.")
    ],
    days: Annotated[float | None, typer.Option(min=0, help="Only the last days.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from this day on, such as 2026-11-25 (UTC).")] = None,
    today: Annotated[bool, typer.Option("--today", help="Files by day: today's predictions so far, too.")] = False,
    source: Annotated[
        str, typer.Option(help="Files by day: local or shared; auto: the shared log if FASHION_LOG names one.")
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Write predictions and their feedback as Parquet.

    A file holds this machine's log. In a folder or bucket each day (UTC) is a partition, which BigQuery, DuckDB and
    the drift flow (source=ADDRESS) read. By default the days from the last exported one, which is replaced, to
    yesterday; feedback that came later on earlier days is exported by --since or --days.
    """
    from fashion.predictions.export import export_parquet

    since_us = _start(days, since)
    if address.endswith(".parquet") and "://" not in address:
        with open_log() as log:
            log.add_export(str(Path(address).absolute()))
            rows = export_parquet(log, address, since_us or 0)
        print(json.dumps({"file": address, "rows": rows}) if as_json else f"{rows:,} predictions in {address}")
        return
    _export_days(address, since_us, source, today=today, as_json=as_json)


@app.command("feedback", epilog="Example: fashion log feedback labels.csv --classes top,trouser,pullover")
def feedback(
    file: Annotated[Path, typer.Argument(help="CSV with the columns prediction_id, true_label and perhaps source.")],
    classes: Annotated[
        str | None,
        typer.Option(help="Class names in order, by commas; by default those of the model that predicted."),
    ] = None,
    reviewed: Annotated[
        bool, typer.Option("--reviewed", help="People you trust gave them: they count as those of /review do.")
    ] = False,
) -> None:
    """Add true labels from a CSV file; a row that cannot be stored is named, the others are stored.

    A label is a class name, or a class number where no class is called by a number. Exits with 1 where a row was
    rejected. The gate judges by reviewed labels, and other sources are checked by them.
    """
    from fashion.commands.log_classes import ClassNames
    from fashion.home import current_home
    from fashion.predictions.feedback_csv import FeedbackRow, InvalidTable, parse_feedback
    from fashion.predictions.record import UnknownPrediction

    given = [name.strip() for name in classes.split(",")] if classes else None
    stored = rejected = 0
    with open_log() as log, file.open(newline="", encoding="utf-8-sig") as lines:
        shared = open_shared() if current_home().shared_log else None
        names = ClassNames(given)
        try:
            for row in parse_feedback(lines):
                try:
                    if not isinstance(row, FeedbackRow):
                        raise ValueError(row.message)
                    _store(log, shared, row, names, reviewed=reviewed)
                    stored += 1
                except (UnknownPrediction, ValueError) as error:
                    print(f"line {row.line}: {error}", file=sys.stderr)
                    rejected += 1
        except InvalidTable as error:
            raise CommandError(f"{file}: {error}") from None
    print(f"{stored:,} rows stored, {rejected:,} rejected")
    if rejected:
        raise typer.Exit(FAILED)


@app.command("discard", epilog="Example: fashion log discard --source mallory --dry-run")
def discard(
    source: BySource = None,
    ids: ByIds = None,
    since: Since = None,
    until: Until = None,
    reason: Annotated[str, typer.Option(help="Why; stored with the decision.")] = "discarded by hand",
    dry_run: DryRun = False,
) -> None:
    """Let feedback count no more: it is neither learnt from, nor judged by, nor counted in accuracy.

    By source also what that source gives later. Nothing is deleted: `fashion log restore` undoes it. In the log that
    machines share, too.
    """
    _withdraw("discard", source, ids, since, until, reason=reason, dry_run=dry_run)


@app.command("restore", epilog="Example: fashion log restore --source ann --reason 'the classes have changed'")
def restore(
    source: BySource = None,
    ids: ByIds = None,
    since: Since = None,
    until: Until = None,
    reason: Annotated[str, typer.Option(help="Why; stored with the decision.")] = "restored by hand",
    dry_run: DryRun = False,
) -> None:
    """Let feedback count again that was discarded, quarantined by a flow, or learnt by a version that was rolled back.

    A source that is restored is not quarantined again. In the log that machines share, too.
    """
    _withdraw("restore", source, ids, since, until, reason=reason, dry_run=dry_run)


@app.command("prune", epilog="Example: fashion log prune 90")
def prune(days: Annotated[float, typer.Argument(min=0, help="Age from which predictions are dropped.")]) -> None:
    """Drop predictions older than that many days, with their pictures and drift reports; what is not shipped stays.

    A picture stays while another prediction is on it.
    """
    from fashion.drift import retention
    from fashion.home import current_home
    from fashion.storage.address import open_store

    home = current_home()
    with open_log() as log, failing_on(OSError), contextlib.ExitStack() as stack:
        shared = stack.enter_context(contextlib.closing(open_shared())) if home.shared_log else None
        done = retention.prune(
            log,
            days,
            images=open_store(home.images),
            report_store=open_store(home.reports),
            shared=shared,
            clock=time.time_ns,
            unlisted="://" not in home.images,  # a bucket may hold pictures of other machines
        )
    print(f"{done.predictions:,} predictions, {done.pictures:,} pictures and {done.reports:,} reports dropped")


@app.command("forget", epilog="Example: fashion log forget 019a0c3e-5f2b-7c1d-8e4f-0123456789ab --dry-run")
def forget(
    prediction_id: Annotated[str, typer.Argument(help="Of the answer that a person got.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    exports: Annotated[
        list[str] | None, typer.Option("--export", help="A file, folder or bucket besides those that the log knows.")
    ] = None,
) -> None:
    """Delete a prediction and its picture everywhere: log, shared log, exports, reports, and every file of this home.

    Says which registered versions learnt from it. Killed half-way, the same command completes. Exits with 1 where an
    export or a copy of the log could not be searched.
    """
    from fashion.commands import log_forget
    from fashion.home import prepare_environment

    home, lines = prepare_environment(), 0
    with failing_on(OSError), contextlib.ExitStack() as stack:
        log = stack.enter_context(open_log(home)) if home.predictions.exists() else None
        shared = stack.enter_context(contextlib.closing(open_shared())) if home.shared_log else None
        forgetting = log_forget.Forgetting(prediction_id, home, log, shared)

        def say(line: str) -> None:
            nonlocal lines
            lines += 1
            print(("would delete: " if dry_run else "deleted: ") + line, flush=True)

        traces = forgetting.find(exports or ())
        learnt = log_forget.learnt_by(home, traces.digests)
        forgetting.forget(traces, say, dry_run=dry_run)
    if not lines:
        print(f"nothing of {forgetting.id} is left here")
    for line in [*learnt, *log_forget.not_searched(home)]:
        print(line)
    for line in traces.unsearched:
        print(line, file=sys.stderr)
    if traces.unsearched:
        raise typer.Exit(FAILED)


@app.command("assign", epilog="Example: fashion log assign fashion-classifier")
def assign(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="The registered model that made those predictions.")],
) -> None:
    """Say that predictions of before logs held names of models are of MODEL: for a log that one model alone wrote.

    A prediction gets the name where the registry has its version number since before it was made. In the log that
    machines share, too.
    """
    from fashion.commands import log_classes
    from fashion.home import current_home
    from fashion.predictions import naming

    with open_log() as log, failing_on(log_classes.UnknownModel, OSError), contextlib.ExitStack() as stack:
        shared = stack.enter_context(contextlib.closing(open_shared())) if current_home().shared_log else None
        known = log_classes.known_models(name)
        named = naming.name_rows(log, known)
        print(f"{named:,} predictions are of {name} now; {naming.count_unnamed(log):,} stay without a name")
        if shared is not None:
            print(f"{shared.name_rows(known):,} are now in {shared.address}")


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


def _withdraw(
    action: Literal["discard", "restore"],
    source: str | None,
    ids: list[str] | None,
    since: str | None,
    until: str | None,
    *,
    reason: str,
    dry_run: bool,
) -> None:
    from fashion.commands import log_withdraw

    selection = log_withdraw.Selection.parse(source, ids or (), since, until)
    changing, unchanged = log_withdraw.withdraw(action, selection, reason=reason, dry_run=dry_run)
    done = f"{action}{'ed' if action == 'discard' else 'd'}"
    by = ", ".join(f"{name} {count:,}" for name, count in changing.most_common(SHOWN_SOURCES))
    already = f"; {unchanged.total():,} were so before" if unchanged else ""
    print(f"{f'would be {done}' if dry_run else done}: {changing.total():,} labels{f' ({by})' if by else ''}{already}")


def _start(days: float | None, since: str | None) -> int | None:
    """Microseconds since 1970 from which to export, or None where neither option is given."""
    from fashion.config.schema import ConfigError
    from fashion.config.times import moment

    if days is not None and since is not None:
        raise CommandError(f"give either --days or --since, got {days:g} and {since}")
    if since is not None:
        with failing_on(ConfigError, ValueError):
            return max(0, int(moment(since).timestamp() * 1e6))
    return None if days is None else max(0, int((time.time() - 86_400 * days) * 1e6))


def _export_days(address: str, since_us: int | None, source: str, *, today: bool, as_json: bool) -> None:
    from fashion.home import current_home
    from fashion.predictions import partition_writer
    from fashion.predictions.partitions import day_of
    from fashion.storage.address import open_store

    if source not in ("auto", "local", "shared"):
        raise CommandError(f"--source must be auto, local or shared, got {source}")
    shared = source == "shared" or (source == "auto" and current_home().shared_log is not None)

    def say(day: partition_writer.ExportedDay) -> None:
        if not as_json:
            kept = f"; {day.kept_rows:,} stay as exported, the log was pruned since" if day.kept_rows else ""
            print(
                f"{day.date}: {day.rows:,} predictions in {day.files} files, {day.bytes / 1e6:.1f} MB{kept}", flush=True
            )

    with failing_on(OSError, ValueError), contextlib.ExitStack() as stack:
        store = open_store(address)
        read = (
            stack.enter_context(contextlib.closing(open_shared())).read_window
            if shared
            else (stack.enter_context(open_log()).window)
        )
        if current_home().predictions.exists():
            stack.enter_context(open_log()).add_export(store.address)
        first = partition_writer.first_day(store) if since_us is None else day_of(since_us)
        last = day_of(time.time_ns() // 1000) - (not today)
        days = partition_writer.export_days(read, store, range(first, last + 1), on_day=say)
    if as_json:
        print(json.dumps({"address": store.address, "days": [dataclasses.asdict(day) for day in days]}, indent=1))
    else:
        print(f"{sum(day.rows for day in days):,} predictions of {len(days)} days in {store.address}")


def _store(
    log: "PredictionLog", shared: "SharedLog | None", row: "FeedbackRow", names: "ClassNames", *, reviewed: bool
) -> None:
    """Append a row to the log, for the shared log too where that holds the prediction.

    Raises:
        UnknownPrediction: neither log holds the prediction.
        ValueError: the label is not one of its classes, or these are not known; or the table calls its source a review.
    """
    from fashion.predictions.labels import to_class
    from fashion.predictions.record import REVIEW, Feedback, UnknownPrediction

    if row.source == REVIEW and not reviewed:
        raise ValueError(f"source {REVIEW} is reserved: --reviewed says that people you trust gave these labels")

    try:
        logged, elsewhere = log.get(row.prediction_id), False
    except UnknownPrediction:
        if shared is None:
            raise
        logged, elsewhere = shared.get(row.prediction_id), True
    label = to_class(row.true_label, names.of(logged.record))
    said = Feedback(row.prediction_id, label, REVIEW if reviewed else row.source, time.time_ns() // 1000)
    log.append_feedback([said], known_elsewhere=elsewhere)
