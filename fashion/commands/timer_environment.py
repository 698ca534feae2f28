"""The file of environment variables that a timer's runs read: addresses and secrets, one NAME=value a line.

systemd and the crontab read the same file, each in its own way: a value that they would read differently is left out.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

PREFIXES = ("FASHION_", "MLFLOW_", "METAFLOW_", "BENTOML_", "AWS_", "AZURE_", "GOOGLE_", "OTEL_", "PG")
NAMES = ("http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
LEFT_OUT = ("FASHION_HOME", "FASHION_SCHEDULED", "MLFLOW_RUN_ID", "METAFLOW_KUBERNETES_WORKLOAD")
"""In the units themselves, or of one run."""
LINE = re.compile(r"([A-Za-z_]\w*)=(.*)")
AMBIGUOUS = re.compile(r"""^["'\s]|[\\\n\r\0]|\s$""")
"""In a value: systemd takes quotes, backslashes and spaces at the ends away, a crontab's shell does not."""


class StoredEnvironment(NamedTuple):
    """What of an environment is in the file."""

    names: list[str]
    ambiguous: list[str]
    """Variables that have to be written by hand."""


def keep(path: Path, environment: Mapping[str, str]) -> StoredEnvironment:
    """Write the variables that a run needs; lines of others, and comments, stay.

    Args:
        path: of the file, which only its owner may read.
        environment: of this process.

    Raises:
        OSError: the file cannot be written.
    """
    needed = {
        name: value
        for name, value in sorted(environment.items())
        if (name.startswith(PREFIXES) or name.lower() in NAMES or name in NAMES) and name not in LEFT_OUT and value
    }
    ambiguous = [name for name, value in needed.items() if AMBIGUOUS.search(value)]
    for name in ambiguous:
        del needed[name]
    if not needed:
        return StoredEnvironment([], ambiguous)
    lines = path.read_text().splitlines() if path.exists() else []
    others = [line for line in lines if not ((match := LINE.fullmatch(line)) and match[1] in needed)]
    unfinished = path.with_name(f"{path.name}.unfinished")  # a kill leaves the secrets that stand there
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("".join(f"{line}\n" for line in [*others, *(f"{name}={value}" for name, value in needed.items())]))
    unfinished.replace(path)
    return StoredEnvironment(list(needed), ambiguous)


def read(path: Path) -> dict[str, str]:
    """The variables in the file; none where there is no file.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.is_file():
        return {}
    return {match[1]: match[2] for line in path.read_text().splitlines() if (match := LINE.fullmatch(line))}
