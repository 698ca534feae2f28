"""Write a small log with the code of an earlier commit, and print it as SQL. A script; nothing of today's is needed.

    git worktree add --detach FOLDER COMMIT
    PYTHONPATH=FOLDER python write_log.py sqlite > sqlite-N-COMMIT.sql
    PYTHONPATH=FOLDER python write_log.py postgres postgresql://127.0.0.1/EMPTY > postgres-N-COMMIT.sql
    PYTHONPATH=FOLDER python write_log.py statements > statements-N-COMMIT.sql

The last one is what that commit's services send to PostgreSQL. Each file is named after the number of its schema, and
after the commit that wrote it. Tests compare what is read of the files today with the data below.
"""

import dataclasses
import importlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DESTINATION = "postgresql://127.0.0.1/log"
EXPORT = "/exports/of/that/time"
PROBLEM = "it does not answer in time"
REFUSED = "cannot be a row"
ANSWERED_US = 1_795_000_000_000_000
"""Time of the first prediction; the others follow each second. Microseconds since 1970, UTC."""
DIGEST = "0123456789abcdef"


def prediction_id(number: int) -> str:
    """The id of a prediction of this number."""
    return f"019a1b2c-3d4e-7f00-8a00-{number:012x}"


def prediction(number: int, **changed: Any) -> dict[str, Any]:
    """Fields of the prediction of this number."""
    given = {
        "prediction_id": prediction_id(number),
        "time_us": ANSWERED_US + 1_000_000 * number,
        "model_version": "2" if number > 3 else "1",
        "role": "champion",
        "label": number % 10,
        "confidence": 0.625,
        "probabilities": tuple(0.625 if index == number % 10 else 0.0416259765625 for index in range(10)),
        "statistics": tuple(number + index / 8 for index in range(8)),
        "embedding": tuple(number - index / 4 for index in range(16)),
        "image_sha256": f"{number:064x}",
        "latency_ms": 2.5 + number,
        "client": None,
        "model_name": "fashion-classifier",
        "model_digest": DIGEST,
    }
    return given | changed


PREDICTIONS = (
    *(prediction(number) for number in range(6)),
    prediction(4, role="shadow", label=7, model_version="3"),
    prediction(6, client="fashion-check"),
    prediction(7, client="a shop"),
)
WAITING = (4, 6)
"""Predictions that are not shipped, the shadow's row included; nor is the last feedback."""
REFUSED_NUMBER = 5
"""The destination has refused it for good."""
DUE_US = ANSWERED_US + 3_600_000_000
"""Until when the last prediction that waits is deferred."""
FEEDBACK = (
    (prediction_id(1), 3, "page", ANSWERED_US + 60_000_000),
    (prediction_id(1), 1, "review", ANSWERED_US + 61_000_000),
    (prediction_id(1), 9, "ann", ANSWERED_US + 62_000_000),
    (prediction_id(2), 8, "liar", ANSWERED_US + 63_000_000),
    (prediction_id(3), 4, "page", ANSWERED_US + 64_000_000),
    (prediction_id(4), 6, "bob", ANSWERED_US + 65_000_000),
)
"""prediction_id, true_label, source and time_us. The review outranks what was said after it."""
FOREVER_US = 253_402_300_800_000_000
DECISIONS = (
    ("discard", "liar", None, 0, FOREVER_US, ANSWERED_US + 90_000_000, "bob", "each label is wrong"),
    ("quarantine", "page", None, 0, FOREVER_US, ANSWERED_US + 91_000_000, "drift flow", "labels disagree"),
    ("restore", None, prediction_id(3), 0, FOREVER_US, ANSWERED_US + 92_000_000, "bob", "I looked"),
)
"""Of schema 3: without them the feedback of `liar` counts too."""


def known(kind: type, fields: dict[str, Any]) -> Any:
    """Make a dataclass of that time: fields that it has not yet are left out."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in fields.items() if name in names})


def module(*names: str) -> Any:
    """The first of these modules that the commit has."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise SystemExit(f"none of {', '.join(names)}: set PYTHONPATH to a worktree of the commit")


def items() -> tuple[list[Any], list[Any]]:
    """The predictions and the feedback, as objects of that time."""
    record = module("fashion.predictions.record", "fashion.prediction_log")
    return (
        [known(record.PredictionRecord, fields) for fields in PREDICTIONS],
        [record.Feedback(*row) for row in FEEDBACK],
    )


def write_sqlite(path: Path) -> None:
    """Write the log of one machine: some rows shipped, one refused, one deferred, the others waiting."""
    predictions, feedback = items()
    with module("fashion.predictions.log", "fashion.prediction_log").PredictionLog(path) as log:
        outbox = log if callable(log.outbox) else log.outbox
        outbox.ship_to(DESTINATION)
        log.append(predictions)
        log.append_feedback(feedback[:-1])
        due = outbox.outbox(100, 2**62) if outbox is log else outbox.due(100, 2**62)
        numbers = {each.sequence: int(each.item.prediction_id[-12:], 16) for each in due}
        outbox.settle(
            shipped=[each for each, number in numbers.items() if number not in (*WAITING, REFUSED_NUMBER)],
            deferred=[(each, DUE_US) for each, number in numbers.items() if number == WAITING[-1]],
            refused=[(each, REFUSED) for each, number in numbers.items() if number == REFUSED_NUMBER],
        )
        outbox.report(PROBLEM)
        log.append_feedback(feedback[-1:])  # waits
        if hasattr(log, "add_export"):
            log.add_export(EXPORT)
        if hasattr(log, "decide"):
            log.decide([module("fashion.predictions.withdrawal").Decision(*row) for row in DECISIONS])
        if (Path(module("fashion").__file__).parent / "predictions/over_time.py").exists():
            counts = module("fashion.predictions.over_time").OverTime(log)
            counts.advance(60)  # has the log mark what changes
            counts.close()


def dump_sqlite() -> None:
    """Print the log of one machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log.db")
        write_sqlite(path)
        connection = sqlite3.connect(path)
        for name in ("application_id", "user_version"):
            print(f"PRAGMA {name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]};")
        print("\n".join(connection.iterdump()))
        connection.close()


def dump_postgres(address: str) -> None:
    """Print the log that machines share, once that commit has written it to an empty database."""
    predictions, feedback = items()
    outgoing = module("fashion.predictions.outbox").Outgoing
    log = module("fashion.predictions.postgres").PostgresLog(address)
    log.send([outgoing(number, 0, each) for number, each in enumerate(predictions)])
    for number, each in enumerate(feedback):
        log.send([outgoing(number, 0, each)])
    if hasattr(log, "decide"):
        log.decide([module("fashion.predictions.withdrawal").Decision(*row) for row in DECISIONS])
    log.close()
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"))
    command = [str(programs[-1]), "--inserts", "--no-owner", "--no-privileges", address]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("--", "\\", "SET "))]
    print("\n".join(line for line in lines if "set_config('search_path'" not in line))


def dump_statements() -> None:
    """Print what a service of that commit sends: one statement a line, as text that holds its values."""
    import psycopg

    schema = module("fashion.predictions.postgres_schema")
    predictions, feedback = items()
    with psycopg.connect(os.environ["POSTGRES"]) as connection:
        cursor = psycopg.ClientCursor(connection)
        for each in predictions:
            print(" ".join(cursor.mogrify(schema.insert(1), schema.to_row(each, None)).split()) + ";")
        for each in feedback:
            columns = [[value] for value in schema.to_feedback_row(each)]
            print(" ".join(cursor.mogrify(schema.INSERT_FEEDBACK, columns).split()) + ";")


if __name__ == "__main__":
    if sys.argv[1:] == ["sqlite"]:
        dump_sqlite()
    elif sys.argv[1:2] == ["postgres"]:
        dump_postgres(sys.argv[2])
    elif sys.argv[1:] == ["statements"]:
        dump_statements()
    else:
        sys.exit(__doc__)
