"""The command `fashion log`: look at the log, export it, add feedback, drop what is old."""

import argparse
import csv
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fashion.home import current_home
from fashion.predictions.export import export_parquet
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import Feedback, LogUnavailable, UnknownPrediction


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; return 0 when all of it was done."""
    options = _parser().parse_args(words)
    path = current_home().predictions
    if not path.exists():
        print(f"error: there is no prediction log {path}: `make serve` begins one", file=sys.stderr)
        return 1
    try:
        with PredictionLog(path) as log:
            return 0 if options.verb(log, options) else 1
    except (LogUnavailable, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fashion log", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, function: Callable[..., bool], text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        added.set_defaults(verb=function)
        return added

    verb("status", _status, "how many predictions there are, and what waits to be shipped")
    added = verb("export", _export, "write predictions and feedback as Parquet")
    added.add_argument("file", type=Path)
    added.add_argument("--days", type=float, help="only the last so many days")
    added = verb("feedback", _feedback, "add true labels from a CSV file: prediction_id, true_label, source")
    added.add_argument("file", type=Path)
    added.add_argument("--classes", help="class names in order, by commas, where true_label is a name")
    added = verb("prune", _retain, "drop predictions older than so many days; keeps what is not shipped yet")
    added.add_argument("days", type=float)
    verb("retry-refused", _revive, "send again what Firestore has refused, once its cause is mended")
    return parser


def _status(log: PredictionLog, _: argparse.Namespace) -> bool:
    backlog = log.outbox.backlog()
    print(f"{log.path}: {log.count(role='champion'):,} predictions, {log.count(role='shadow'):,} by a shadow")
    if backlog.destination is not None:
        print(f"shipped to {backlog.destination}: {backlog.rows:,} rows wait, {backlog.refused:,} were refused")
        for line in (*backlog.reasons, *([backlog.problem] if backlog.problem else [])):
            print(f"  {line}")
    return True


def _export(log: PredictionLog, options: argparse.Namespace) -> bool:
    since = 0 if options.days is None else int((time.time() - 86_400 * options.days) * 1e6)
    print(f"{export_parquet(log, options.file, since):,} predictions in {options.file}")
    return True


def _feedback(log: PredictionLog, options: argparse.Namespace) -> bool:
    names = {name.strip(): label for label, name in enumerate(options.classes.split(","))} if options.classes else {}
    kept = refused = 0
    with options.file.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        if not {"prediction_id", "true_label"} <= set(table.fieldnames or ()):
            raise ValueError(f"{options.file} must have the columns prediction_id and true_label")
        for line, row in enumerate(table, start=2):
            text = (row["true_label"] or "").strip()
            try:
                label = int(text) if text.isdecimal() else names.get(text)
                if label is None:
                    raise ValueError(f"true_label {text!r} is neither a number nor one of --classes")
                prediction_id = (row["prediction_id"] or "").strip()
                num_classes = len(log.get(prediction_id).record.probabilities)
                if label >= num_classes:
                    raise ValueError(f"true_label must be less than {num_classes}, the number of classes, got {label}")
                source = (row.get("source") or "csv").strip()
                log.append_feedback([Feedback(prediction_id, label, source, time.time_ns() // 1000)])
                kept += 1
            except (UnknownPrediction, ValueError) as error:
                print(f"line {line}: {error}", file=sys.stderr)
                refused += 1
    print(f"{kept:,} rows kept, {refused:,} refused")
    return refused == 0


def _retain(log: PredictionLog, options: argparse.Namespace) -> bool:
    print(f"{log.prune(options.days):,} predictions dropped")
    return True


def _revive(log: PredictionLog, _: argparse.Namespace) -> bool:
    print(f"{log.outbox.retry_refused():,} rows wait again")
    return True
