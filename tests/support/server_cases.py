"""Which commands reach which servers, and the variables that lead there. Knows no trouble."""

from dataclasses import dataclass

ID = "01a210f9-adec-7a93-8180-2b2d71881f13"
"""A prediction in this machine's log."""
UNKNOWN = "01a210f9-adec-7a93-8180-2b2d71881f14"
"""One that is not there."""
PASSWORD = "sesame"
TABLE, UNKNOWN_TABLE = "labels.csv", "unknown.csv"
"""Feedback on ID, and on UNKNOWN."""


@dataclass(frozen=True)
class Server:
    """A server that commands reach."""

    protocol: str
    """A function of `support.troubles`."""
    variables: dict[str, str]
    """With `{scheme}`, `{port}` and `{tls}` in their values."""
    commands: dict[str, list[str]]
    names: tuple[str, ...]
    """One of them is in each sentence: the address, or the variable that has it."""


REGISTRY = {
    "registry list": ["registry", "list"],
    "registry history": ["registry", "history"],
    "registry show": ["registry", "show"],
    "registry promote": ["registry", "promote", "1", "--reason", "x"],
    "registry rollback": ["registry", "rollback"],
    "registry sign": ["registry", "sign", "1"],
    "registry replay": ["registry", "replay", "--version", "1"],
    "registry reproduce": ["registry", "reproduce", "1"],
    "canary status": ["canary", "status"],
    "canary decide": ["canary", "decide"],
    "log assign": ["log", "assign", "fashion-classifier"],
    "log feedback": ["log", "feedback", TABLE],
    "log forget": ["log", "forget", ID],
    "gc": ["gc"],
    "ui": ["ui"],
    "status": ["status"],
}
SHARED_LOG = {
    "log feedback": ["log", "feedback", UNKNOWN_TABLE, "--classes", "top,boot"],
    "log discard": ["log", "discard", "--source", "page"],
    "log restore": ["log", "restore", "--source", "page"],
    "log prune": ["log", "prune", "0"],
    "log forget": ["log", "forget", ID],
    "log export": ["log", "export", "days"],
}
REPORT = "20260101T000000Z-fashion-classifier-v3"
REPORTS = {
    "drift accept": ["drift", "accept", REPORT],
    "drift failed": ["drift", "failed"],
    "log prune": ["log", "prune", "0"],
    "log forget": ["log", "forget", ID],
    "ui": ["ui", "--drift"],
    "status": ["status"],
}
IMAGES = {"log prune": ["log", "prune", "0"], "log forget": ["log", "forget", ID]}
BUCKETS = {
    "gs": {"STORAGE_EMULATOR_HOST": "{scheme}://127.0.0.1:{port}"},
    "s3": {
        "AWS_ENDPOINT_URL": "{scheme}://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
    },
    "az": {
        "AZURE_STORAGE_ENDPOINT": "{scheme}://127.0.0.1:{port}/account",
        "AZURE_STORAGE_ACCOUNT_NAME": "account",
        "AZURE_STORAGE_ACCOUNT_KEY": "c2VzYW1l",
    },
}
DATABASE = f"postgresql://me:{PASSWORD}@127.0.0.1:{{port}}/team{{tls}}"
MLFLOW = ("127.0.0.1:{port}", "MLFLOW_TRACKING_URI")
GOOGLE_APIS = ("MONITORING", "CLOUDRESOURCEMANAGER")


def _bucket(kind: str, part: str, commands: dict[str, list[str]]) -> Server:
    """A bucket that one variable names, or, where `part` is empty, the words of the command."""
    named = {f"FASHION_{part}": f"{kind}://team/{part.lower()}"} if part else {}
    return Server("http", BUCKETS[kind] | named, commands, (f"{kind}://team/",))


def _named(kind: str) -> dict[str, list[str]]:
    """Commands that name a bucket themselves."""
    address = f"{kind}://team/x"
    return {
        "log export": ["log", "export", address],
        "log forget --export": ["log", "forget", ID, "--export", address],
        "data add": ["data", "add", address],
    }


SERVERS = {
    "mlflow": Server(
        "http", {"MLFLOW_TRACKING_URI": f"{{scheme}}://me:{PASSWORD}@127.0.0.1:{{port}}"}, REGISTRY, MLFLOW
    ),
    "mlflow's database": Server("postgresql", {"MLFLOW_TRACKING_URI": DATABASE}, REGISTRY, MLFLOW),
    "firestore": Server(
        "grpc",
        {"FASHION_LOG": "firestore://team", "FIRESTORE_EMULATOR_HOST": "127.0.0.1:{port}"},
        SHARED_LOG | {"log mark-labelled": ["log", "mark-labelled"]},
        ("firestore://team/",),
    ),
    "postgresql": Server("postgresql", {"FASHION_LOG": DATABASE}, SHARED_LOG, ("postgresql://127.0.0.1:{port}/team",)),
    "studies": Server(
        "postgresql",
        {"FASHION_STUDIES": DATABASE},
        {"gc": ["gc"], "ui --studies": ["ui", "--studies"]},
        ("127.0.0.1:{port}", "FASHION_STUDIES"),
    ),
    "google": Server(
        "http",
        {f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{each}": "{scheme}://127.0.0.1:{port}" for each in GOOGLE_APIS},
        {"cloud monitoring": ["cloud", "monitoring", "--project", "p", "--region", "r", "--email", "a@example.com"]},
        ("127.0.0.1:{port}",),
    ),
    **{f"{kind} reports": _bucket(kind, "REPORTS", REPORTS) for kind in ("gs", "s3")},
    **{f"{kind} images": _bucket(kind, "IMAGES", IMAGES) for kind in ("gs", "s3")},
    **{f"{kind} checkpoints": _bucket(kind, "CHECKPOINTS", {"gc": ["gc"]}) for kind in BUCKETS},
    "gs bentos": _bucket("gs", "BENTOS", {"gc": ["gc"]}),
    **{f"{kind} data": _bucket(kind, "DATA_BUCKET", {"data status": ["data", "status"]}) for kind in BUCKETS},
    **{f"{kind} named": _bucket(kind, "", _named(kind)) for kind in BUCKETS},
}
"""What is reached -> how, and by which commands."""
