"""Inspect one prediction log and draw its report, timed from before the imports: what `drift_scale` runs and measures.

`python -m tests.benchmarks.log_inspection PACKAGE_FOLDER LOG_FILE` prints one line of JSON.
"""

import json
import sys
import time
from pathlib import Path

from tests.benchmarks import peak_memory


def main(package_folder: Path, log_file: Path) -> None:
    """Print how many rows were read, the decision, the seconds of both parts, and the peak memory before and after."""
    started = time.perf_counter(), time.process_time()
    # Imported here: a drift flow pays for them too.
    from fashion.config.compose import compose, load_as
    from fashion.config.drift import DriftConfig
    from fashion.drift import evidently_report, inspection, report_page
    from fashion.drift.reference_stats import ReferenceStats
    from fashion.model import package
    from fashion.model.reference import Reference
    from fashion.predictions.log import PredictionLog
    from fashion.predictions.record import FOREVER_US
    from fashion.predictions.windows import LocalRows, Window

    settings = load_as(DriftConfig, compose(root="drift"))
    served = package.read(package_folder)
    reference = Reference.of(served)
    reference_stats = ReferenceStats.of(served, reference)
    with PredictionLog(log_file) as log:
        ((inspected,), _) = inspection.inspect(
            LocalRows(log).batches(Window(0, FOREVER_US)),
            lambda version: reference_stats,
            settings.decision,
            max_plot_rows=settings.report.rows,
            max_examples=settings.report.examples,
        )
    decided = time.perf_counter(), time.process_time()
    before_drawing = peak_memory.megabytes()
    result, sample = inspected.result, inspected.sample
    assert sample is not None, "the log has no rows to draw"
    pages = evidently_report.render(
        sample, reference, reference_stats, compared=reference.predictions, alpha=result.alpha, total_rows=result.rows
    )
    page = report_page.render(
        inspected,
        model="m",
        report_id="measured",
        class_names=served.class_names,
        reference=reference.predictions,
        examples=[],
        history=[],
        evidently_pages=pages,
    )
    done = time.perf_counter(), time.process_time()
    figures = {
        "rows": result.rows,
        "decision": result.decision,
        "decide": decided[0] - started[0],
        "decide_cpu": decided[1] - started[1],
        "report": done[0] - decided[0],
        "report_cpu": done[1] - decided[1],
        "decide_megabytes": before_drawing,
        "megabytes": peak_memory.megabytes(),
        "page": len(page),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
