"""Write docs/performance.md and docs/experiments.md: `python -m tests.benchmarks.pages [PART=FILE ...]`.

Each FILE, of `python -m tests.benchmarks NAME --json FILE`, replaces a part of the JSON beside a page. The pages are
made of these files alone.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.experiments_text import EXPERIMENTS
from tests.benchmarks.performance_text import PERFORMANCE

PAGES = (PERFORMANCE, EXPERIMENTS)


def main(arguments: Sequence[str]) -> None:
    """Take new measurements in, and write the pages.

    Raises:
        SystemExit: a part has another name, or its file is missing.
    """
    parts = [name for page in PAGES for name in page.parts]
    files = dict(argument.partition("=")[::2] for argument in arguments)
    for name, file in files.items():
        if name not in parts or not Path(file).is_file():
            raise SystemExit(
                f"error: {name}={file} is not PART=FILE with a part of {', '.join(parts)} and a file that exists"
            )
    for page in PAGES:
        new = {name: json.loads(Path(file).read_text()) for name, file in files.items() if name in page.parts}
        page.store(page.measurements() | new)


if __name__ == "__main__":
    main(sys.argv[1:])
