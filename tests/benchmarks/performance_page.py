"""Write docs/performance.md: `python -m tests.benchmarks.performance_page [PART=FILE ...]`.

Each FILE, of `python -m tests.benchmarks NAME --json FILE`, replaces a part of docs/performance.json. The page is made
of that alone.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fashion.home import REPOSITORY
from tests.benchmarks.measurement import Cell, Spread, Table

PAGE = REPOSITORY / "docs" / "performance.md"
FOUND = PAGE.with_suffix(".json")

INTRODUCTION = """# Performance

Made by a script from [performance.json](performance.json), where every measurement is. To measure again, on a quiet
machine, and write this page anew:
```sh
make bench ARGS="request --home var --json var/request.json"
make bench ARGS="inference --home var --json var/inference.json"
make bench ARGS="drift_scale --json var/drift_scale.json"
make bench ARGS="monitoring_page --json var/monitoring_page.json"
make bench ARGS="batch --json var/batch.json"
.venv/bin/python -m tests.benchmarks.performance_page request=var/request.json inference=var/inference.json \\
    drift_scale=var/drift_scale.json monitoring_page=var/monitoring_page.json batch=var/batch.json
```
`make bench ARGS="serving"` compares whole servers, those of plain BentoML, LitServe and Ray Serve too; its result is
added by `serving=FILE`. MLServer 1.7 and PyTriton are left out: MLServer needs FastAPI below 0.116, protobuf below 7
and importlib-resources below 7, PyTriton NumPy below 2, and the project's lock file has newer ones.
"""

PARTS = {
    "request": """## A request

What is left of a request is the network, the commit that every answer waits for, and the decoder.
""",
    "request_before": """### Before

The same benchmark on the code of before these changes: forms as browsers and HTTP libraries write them are now cut at
their boundaries, statistics, softmax and typicality make fewer arrays, ids are formatted without a UUID object, and the
numbers of a record are checked by their sum first. Both were measured while other programs used the machine, which
makes the rest, and whole requests, larger than their parts. The commit is the same code in both: its figures show how
much the machine varied.
""",
    "inference": """## int8

`export.precision=int8` quantises the trained network: weights by output channel, activations by tensor, with the ranges
of 1,000 validation pictures. Temperature, projection, typicality, prediction sets and the reference are then those of
the quantised network, and the gate judges it like any challenger.

float32 stays the default. The gate below would promote int8, which is as accurate, smaller and faster; but that is one
architecture on one processor, and an export in float32 must equal the trained network to 0.001 of a logit, which shows
a broken export before the gate does. In int8 nine of ten labels must stay.
""",
    "drift_scale": """## Drift on a large log

Reading and hashing take longer for more rows; imports, the reference, the tests and the drawing do not.
""",
    "monitoring_page": """## Monitoring a large log

The page is made of a file of counts, to which rows are added as they come: ten times the rows are counted once, and
cost a page nothing more.
""",
    "batch": """## Batch prediction
""",
    "serving": """## Servers side by side
""",
}
"""Part -> what is said before its tables, in the page's order."""


def page(found: dict[str, Any]) -> str:
    """Return the page.

    Args:
        found: the content of docs/performance.json.
    """
    pieces = [INTRODUCTION]
    for name, text in PARTS.items():
        if (part := found.get(name)) is None:
            continue
        where = "; ".join(f"{key} {value}" for key, value in part["circumstances"].items())
        pieces += [text, *(f"{_table(each).markdown()}" for each in part["tables"]), f"Measured with: {where}.\n"]
    return "\n".join(pieces)


def _table(plain: dict[str, Any]) -> Table:
    """Undo `Table.plain`."""
    rows = [{name: _cell(value) for name, value in row.items()} for row in plain["rows"]]
    return Table(plain["title"], rows, plain["note"], plain["formats"])


def _cell(value: Any) -> Cell:
    return Spread(tuple(value["values"])) if isinstance(value, dict) else value


def main(arguments: Sequence[str]) -> None:
    """Take new measurements in, and write the page.

    Raises:
        SystemExit: a part has another name, or its file is missing.
    """
    found = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    for argument in arguments:
        name, _, file = argument.partition("=")
        if name not in PARTS or not Path(file).is_file():
            raise SystemExit(
                f"error: {argument} is not PART=FILE with a part of {', '.join(PARTS)} and a file that exists"
            )
        found[name] = json.loads(Path(file).read_text())
    FOUND.write_text(json.dumps(found, indent=1) + "\n")
    PAGE.write_text(page(found))


if __name__ == "__main__":
    main(sys.argv[1:])
