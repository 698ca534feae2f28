"""Tables of the log that machines share in PostgreSQL, and records to rows and back. Knows SQL, no connection.

They have a schema of their own, for the database may also be MLflow's or Optuna's.
"""

import datetime
import struct
import uuid
from collections.abc import Sequence
from typing import Any

from fashion.predictions.record import FOREVER_US, Feedback, PredictionRecord, pack, unpack
from fashion.predictions.withdrawal import FIELDS, Decision, counts_sql

VERSION = 4
"""Version of the tables. A change of CREATE needs a new one, and an entry of MIGRATIONS."""

SCHEMA = "prediction_log"

OLDEST_SERVER = 140_000
"""PostgreSQL 14: before it, `extract` gives times that are not exact to the microsecond."""

# From the catalog's tables: `to_regclass` may not see what another machine has made since this transaction began.
FIND_TABLES = (
    f"SELECT EXISTS (SELECT FROM pg_catalog.pg_tables WHERE schemaname = '{SCHEMA}' AND tablename = 'version'), "
    f"EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = '{SCHEMA}')"
)

READ_VERSION = f"SELECT max(version) FROM {SCHEMA}.version"

LOCK = "SELECT pg_advisory_xact_lock(1178686280)"
"""Machines that start at once take turns in making or migrating the tables. The number is the local log's id."""

CREATE_SCHEMA = f"CREATE SCHEMA {SCHEMA}"

DECISIONS = (
    f"""CREATE TABLE {SCHEMA}.decisions (
        sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, action text NOT NULL, source text, prediction_id text,
        since_us bigint NOT NULL, until_us bigint NOT NULL, time_us bigint NOT NULL, who text NOT NULL,
        reason text NOT NULL)""",
    f"CREATE INDEX decisions_by_prediction ON {SCHEMA}.decisions (prediction_id, source)",
)
"""Which feedback counts no more, or again: `fashion.predictions.withdrawal`."""

FACTS = f"CREATE TABLE {SCHEMA}.facts (name text PRIMARY KEY, value text NOT NULL)"
"""How comparisons of canaries ended: `fashion.predictions.canary_ending`."""


def _grant_alike(table: str) -> str:
    """The statement that gives each role the rights on a table that it has on predictions."""
    return f"""DO $$ DECLARE each record; BEGIN
    FOR each IN SELECT granted.* FROM pg_catalog.pg_class, aclexplode(relacl) AS granted
        WHERE pg_class.oid = '{SCHEMA}.predictions'::regclass
        AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP EXECUTE format('GRANT %s ON {SCHEMA}.{table} TO %s', each.privilege_type,
        CASE each.grantee WHEN 0 THEN 'PUBLIC' ELSE each.grantee::regrole::text END); END LOOP; END $$"""


CREATE = (
    # `labelled` says that there is feedback: the index on it holds such rows alone.
    f"""CREATE TABLE {SCHEMA}.predictions (
        prediction_id uuid NOT NULL, role text NOT NULL CHECK (role IN ('champion', 'shadow')),
        time timestamptz NOT NULL, model_version text NOT NULL, label integer NOT NULL,
        confidence double precision NOT NULL, probabilities real[] NOT NULL, statistics real[] NOT NULL,
        embedding bytea NOT NULL, image_sha256 text NOT NULL, latency_ms double precision NOT NULL, client text,
        model_name text, model_digest text,
        expire_at timestamptz, labelled boolean NOT NULL DEFAULT false,
        PRIMARY KEY (prediction_id, role))""",
    f"CREATE INDEX predictions_by_time ON {SCHEMA}.predictions (time, prediction_id, role)",
    f"CREATE INDEX predictions_labelled ON {SCHEMA}.predictions (time, prediction_id) WHERE labelled",
    f"CREATE INDEX predictions_expiring ON {SCHEMA}.predictions (expire_at) WHERE expire_at IS NOT NULL",
    f"""CREATE TABLE {SCHEMA}.feedback (
        sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, prediction_id uuid NOT NULL,
        role text NOT NULL DEFAULT 'champion' CHECK (role = 'champion'), true_label integer NOT NULL,
        source text NOT NULL, time timestamptz NOT NULL, UNIQUE (prediction_id, time, source, true_label),
        FOREIGN KEY (prediction_id, role) REFERENCES {SCHEMA}.predictions ON DELETE CASCADE)""",
    *DECISIONS,
    FACTS,
    f"CREATE TABLE {SCHEMA}.version (version integer NOT NULL)",
    f"INSERT INTO {SCHEMA}.version VALUES ({VERSION})",
)

MIGRATIONS = {
    # Rows of before keep NULL: which model they are of was not written down.
    1: (
        f"ALTER TABLE {SCHEMA}.predictions ADD COLUMN model_name text, ADD COLUMN model_digest text",
        f"UPDATE {SCHEMA}.version SET version = 2",
    ),
    2: (*DECISIONS, _grant_alike("decisions"), f"UPDATE {SCHEMA}.version SET version = 3"),
    3: (FACTS, _grant_alike("facts"), f"UPDATE {SCHEMA}.version SET version = 4"),
}
"""Version -> statements that make the next one of it; none may take longer for a log of more rows."""

_COLUMNS = (
    *("prediction_id", "role", "time", "model_version", "label", "confidence", "probabilities", "statistics"),
    *("embedding", "image_sha256", "latency_ms", "client", "model_name", "model_digest", "expire_at"),
)

_PLACES = {
    **dict.fromkeys(("probabilities", "statistics"), "%s::real[]"),
    **dict.fromkeys(("client", "model_version", "model_name", "model_digest"), "%s::text"),
    "expire_at": "%s::timestamptz",
}

# Champions are locked until the statement ends, so that none of them expires before its feedback is there.
INSERT_FEEDBACK = f"""WITH
    new AS (SELECT * FROM unnest(%s::uuid[], %s::integer[], %s::text[], %s::timestamptz[])
        WITH ORDINALITY AS new (prediction_id, true_label, source, time, number)),
    known AS (SELECT prediction_id FROM {SCHEMA}.predictions
        WHERE role = 'champion' AND prediction_id IN (SELECT prediction_id FROM new) FOR KEY SHARE),
    added AS (INSERT INTO {SCHEMA}.feedback (prediction_id, true_label, source, time)
        SELECT prediction_id, true_label, source, time FROM new JOIN known USING (prediction_id) ORDER BY number
        ON CONFLICT (prediction_id, time, source, true_label) DO NOTHING),
    marked AS (UPDATE {SCHEMA}.predictions SET labelled = true
        WHERE role = 'champion' AND NOT labelled AND prediction_id IN (SELECT prediction_id FROM known))
    SELECT prediction_id FROM known"""
"""Stores feedback and marks its predictions, and returns the ids of predictions that are there."""

DELETE_EXPIRED = (
    f"DELETE FROM {SCHEMA}.predictions WHERE (prediction_id, role) IN (SELECT prediction_id, role "
    f"FROM {SCHEMA}.predictions WHERE expire_at < now() ORDER BY expire_at LIMIT %s FOR UPDATE SKIP LOCKED)"
)

_READ = (
    "prediction_id, role, (extract(epoch FROM time) * 1000000)::bigint, model_version, label, confidence, "
    "probabilities, statistics, embedding, image_sha256, latency_ms, client, model_name, model_digest"
)

SELECT = f"SELECT labelled, {_READ} FROM {SCHEMA}.predictions"
"""Columns as `to_record` takes them, after `labelled`."""

IN_WINDOW = (
    f"{SELECT} WHERE (time, prediction_id, role) > (%s::timestamptz, %s::uuid, %s) AND time < %s::timestamptz "
    "ORDER BY time, prediction_id, role LIMIT %s"
)

NEWEST_FIRST = (
    f"{SELECT} WHERE role = 'champion' AND (time, prediction_id) < (%s::timestamptz, %s::uuid) "
    "ORDER BY time DESC, prediction_id DESC, role DESC LIMIT %s"
)

LABELLED = (
    f"{SELECT} WHERE labelled AND (time, prediction_id) < (%s::timestamptz, %s::uuid) "
    "ORDER BY time DESC, prediction_id DESC LIMIT %s"
)

ONE = f"{SELECT} WHERE prediction_id = %s AND role = 'champion'"

COUNT_AFTER = (
    f"SELECT count(*) FILTER (WHERE role = 'champion') FROM (SELECT role FROM {SCHEMA}.predictions "
    "WHERE time >= %s::timestamptz ORDER BY time LIMIT %s) AS later"
)

_FEEDBACK_US = "(extract(epoch FROM f.time) * 1000000)::bigint"

_SELECT_FEEDBACK = (
    f"SELECT f.prediction_id, f.true_label, f.source, {_FEEDBACK_US} FROM {SCHEMA}.feedback f "
    "WHERE f.prediction_id = ANY(%s) {counts} ORDER BY f.time, f.sequence"
)

FEEDBACK = _SELECT_FEEDBACK.format(
    counts=f"AND {counts_sql(f'{SCHEMA}.decisions', _FEEDBACK_US, 'f.prediction_id::text')}"
)
"""Feedback that counts."""

ALL_FEEDBACK = _SELECT_FEEDBACK.format(counts="")
"""With what does not count."""

DECIDE = (
    f"INSERT INTO {SCHEMA}.decisions ({', '.join(FIELDS)}) "
    "VALUES (%s, %s::text, %s::text, %s::bigint, %s::bigint, %s::bigint, %s, %s)"
)

DECIDED = f"SELECT {', '.join(FIELDS)} FROM {SCHEMA}.decisions ORDER BY sequence"

SET_FACT = f"INSERT INTO {SCHEMA}.facts VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value"

FACT = f"SELECT value FROM {SCHEMA}.facts WHERE name = %s"

FORGET = f"DELETE FROM {SCHEMA}.predictions WHERE prediction_id = %s"
"""Feedback goes with it: it references the prediction."""

FORGET_DECISIONS = f"DELETE FROM {SCHEMA}.decisions WHERE prediction_id = %s"

NAME_PAGE = f"""WITH
    known AS (SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::integer[])
        AS known (name, digest, version, since, num_classes)),
    page AS (SELECT time, prediction_id, role FROM {SCHEMA}.predictions
        WHERE (time, prediction_id, role) > (%s::timestamptz, %s::uuid, %s)
        ORDER BY time, prediction_id, role LIMIT %s),
    named AS (UPDATE {SCHEMA}.predictions AS row SET model_name = known.name, model_digest = known.digest
        FROM known, page WHERE row.prediction_id = page.prediction_id AND row.role = page.role
        AND row.model_name IS NULL AND row.model_version = known.version AND row.time >= known.since
        AND cardinality(row.probabilities) = known.num_classes RETURNING 1)
    SELECT (SELECT count(*) FROM named), time, prediction_id, role FROM page
    ORDER BY time DESC, prediction_id DESC, role DESC LIMIT 1"""
"""Names the models of rows of one page, and returns how many and the key of its last row; nothing of an empty page."""

ON_PICTURE = f"SELECT 1 FROM {SCHEMA}.predictions WHERE image_sha256 = %s AND prediction_id <> %s LIMIT 1"
"""Reads the whole table, for there is no index: it is asked when a picture is to be deleted."""

GRANT = (
    f'GRANT USAGE ON SCHEMA {SCHEMA} TO "{{role}}"; '
    f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {SCHEMA} TO "{{role}}"'
)
"""What a role needs to write; to read, USAGE and SELECT are enough."""

LEAST_ID, GREATEST_ID = uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)
"""Ids before and after every other."""

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def insert(rows: int) -> str:
    """Return the statement that inserts this many rows of `to_row`; one that is there already is left as it is."""
    values = f"({', '.join(_PLACES.get(name, '%s') for name in _COLUMNS)})"
    return (
        f"INSERT INTO {SCHEMA}.predictions ({', '.join(_COLUMNS)}) VALUES {', '.join([values] * rows)} "
        "ON CONFLICT (prediction_id, role) DO NOTHING"
    )


def to_moment(time_us: int) -> datetime.datetime | str:
    """Return microseconds since 1970 as a value of a timestamptz."""
    if time_us >= FOREVER_US:
        return "infinity"
    return _EPOCH + datetime.timedelta(microseconds=max(time_us, 0))


def to_row(record: PredictionRecord, expire_days: float | None) -> tuple[Any, ...]:
    """Return the values that `insert` takes for one row.

    Args:
        record: the prediction.
        expire_days: days after which it may be deleted, or None.

    Raises:
        ValueError: a text holds what PostgreSQL cannot store.
    """
    moment = _EPOCH + datetime.timedelta(microseconds=record.time_us)
    return (
        uuid.UUID(record.prediction_id),
        record.role,
        moment,
        _text("model_version", record.model_version),
        int(record.label),
        float(record.confidence),
        [float(value) for value in record.probabilities],
        [float(value) for value in record.statistics],
        pack("e", record.embedding),
        record.image_sha256,
        float(record.latency_ms),
        None if record.client is None else _text("client", record.client),
        None if record.model_name is None else _text("model_name", record.model_name),
        record.model_digest,
        None if expire_days is None else moment + datetime.timedelta(days=expire_days),
    )


def to_feedback_row(feedback: Feedback) -> tuple[Any, ...]:
    """Return the values that INSERT_FEEDBACK takes for one row.

    Raises:
        ValueError: the id is malformed, or the source holds what PostgreSQL cannot store.
    """
    prediction_id = uuid.UUID(feedback.prediction_id)
    return prediction_id, int(feedback.true_label), _text("source", feedback.source), to_moment(feedback.time_us)


def to_decision_row(decision: Decision) -> tuple[Any, ...]:
    """Return the values that DECIDE takes.

    Raises:
        ValueError: a text holds what PostgreSQL cannot store.
    """
    return tuple(_text("decision", value) if isinstance(value, str) else value for value in decision.as_row())


def to_record(row: Sequence[Any]) -> PredictionRecord:
    """Decode the columns of SELECT after `labelled`.

    Raises:
        ValueError: they are not a prediction.
    """
    prediction_id, role, time_us, version, label, confidence, probabilities, statistics, embedding, *rest = row
    image_sha256, latency_ms, client, model_name, model_digest = rest
    try:
        return PredictionRecord(
            prediction_id=str(prediction_id),
            time_us=time_us,
            model_version=version,
            role=role,
            label=label,
            confidence=confidence,
            probabilities=tuple(probabilities),
            statistics=tuple(statistics),
            embedding=unpack("e", embedding),
            image_sha256=image_sha256,
            latency_ms=latency_ms,
            client=client,
            model_name=model_name,
            model_digest=model_digest,
        )
    except (TypeError, ValueError, struct.error) as error:
        raise ValueError(f"row {prediction_id} of {SCHEMA}.predictions is not a prediction: {error}") from error


def _text(name: str, value: str) -> str:
    if "\0" in value:
        raise ValueError(f"{name} holds the character NUL, which PostgreSQL stores in no text: {value[:40]!r}")
    return value
